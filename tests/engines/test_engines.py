"""Engines: what loading one brings with it, and one of a user's own."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers
from faulty_server import FaultyServer
from reward_models import random_model

from bestofn import BestOfN, FLIPLikelihood, FLIPReward
from bestofn.engines.base import Completion, Engine, SamplingParams, load_engine
from bestofn.engines.identity import Described
from bestofn.engines.model_files import default_template, locate
from bestofn.errors import ConfigError, EngineError
from bestofn.identity import UNKNOWN, identity_of
from bestofn.prompts import as_prompt
from bestofn.rewards.baselines import Longest
from bestofn.rewards.scalar import ScalarReward
from bestofn.types import Prompt, Usage

HEAVY = ("torch", "transformers", "vllm")


def loaded_by(code: str) -> list[str]:
    """Those of the heavy packages that a fresh process has loaded after this code."""
    code += f"\nimport sys; print(*[m for m in {HEAVY} if m in sys.modules], sep=',')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [name for name in run.stdout.splitlines()[-1].split(",") if name]


@pytest.mark.parametrize(
    "code",
    [
        "import bestofn.cli",
        "from bestofn import BestOfN, FLIPReward",
        "import sys\nsys.argv = ['bestofn', '--help']\nfrom bestofn.cli import app\n"
        "try:\n    app()\nexcept SystemExit:\n    pass",
    ],
)
def test_the_package_loads_nothing_heavy(code: str) -> None:
    assert loaded_by(code) == []


def test_a_server_needs_no_local_model() -> None:
    with FaultyServer() as server:
        library = f"from bestofn import load_engine\nload_engine({server.spec!r})"
        assert loaded_by(library) == []
        command = f"['bestofn', 'ask', 'Hi.', '-n', '1', '--engine', {server.spec!r}]"
        code = (
            f"import sys\nsys.argv = {command}\nfrom bestofn.cli import app\n"
            "try:\n    app()\nexcept SystemExit:\n    pass"
        )
        assert loaded_by(code) == []
        assert server.requests


@pytest.fixture
def tokenizer_options(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The options of all tokenizers that are loaded; a revision says nothing to a folder."""
    seen: list[dict[str, Any]] = []
    original = transformers.AutoTokenizer.from_pretrained

    def watched(model: str, **options: Any) -> Any:
        seen.append(options)
        return original(model, **options)

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", watched)
    return seen


def test_a_tokenizer_is_of_its_models_revision(
    tokenizer_options: list[dict[str, Any]], tmp_path: Path
) -> None:
    options = {"revision": "abc", "trust_remote_code": True}
    load_engine(f"hf:{locate('tiny')}", **options).close()
    ScalarReward(random_model(tmp_path), device="cpu", **options).close()
    own = [given for given in tokenizer_options if given]
    assert [{name: given[name] for name in options} for given in own] == [options, options]


def test_a_damaged_tokenizer_is_one_sentence(tmp_path: Path) -> None:
    for file in Path(locate("tiny")).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "model": {"type": "nonesuch"}}')
    with pytest.raises(EngineError, match="cannot load the tokenizer") as raised:
        load_engine(f"hf:{tmp_path}")
    assert "\n" not in str(raised.value)


# --- an engine of one's own: a name and `generate` ------------------------------------------------


class Parrot(Engine):
    """Repeats what the user says, as often as the seed."""

    name = "parrot"

    async def generate(
        self, prompt: Prompt, params: SamplingParams, seed: int | None = None
    ) -> Completion:
        text = " ".join([prompt.messages[-1].content] * (1 + (seed or 0) % 3))
        return Completion(text, None, "stop", [], None, Usage(generated_tokens=len(text.split())))


def test_it_draws() -> None:
    selection = BestOfN(Parrot(), Longest(), n=4, seed=0).select("Polly wants a cracker.")
    assert len(selection.candidates) == 4
    assert selection.text == max((c.text for c in selection.candidates), key=len)
    assert selection.best.token_count == len(selection.text.split())


def test_it_judges() -> None:
    selection = BestOfN(Parrot(), FLIPReward(Parrot(), template="direct"), n=2).select("Say hello.")
    assert all(0 < score.value <= 1 for score in selection.scores)


def test_what_it_lacks_is_said_in_a_sentence() -> None:
    selection = BestOfN(Parrot(), FLIPLikelihood(Parrot()), n=1).select("Say hello.")
    assert selection.fallback
    assert "the engine 'parrot' cannot score" in str(selection.scores[0].reason)
    with pytest.raises(EngineError, match="cannot decode"):
        asyncio.run(Parrot().decode(as_prompt("x"), [1]))
    with pytest.raises(ConfigError, match="has no option guided"):
        Parrot().with_options(guided=True)


def test_defaults() -> None:
    engine = Parrot()
    assert engine.with_options() is engine
    assert asyncio.run(engine.count_tokens(as_prompt("x"))) is None
    assert engine.context is None
    assert engine.control_tokens("a <|im_end|> b <|im_end|>") == ["<|im_end|>"]
    assert identity_of(engine) == {"kind": "test_engines.Parrot", "name": "parrot"}
    engine.close()


@pytest.mark.parametrize(
    ("changed", "template"),
    [
        ({}, "opened"),
        ({"hidden_size": 2048, "num_hidden_layers": 24, "intermediate_size": 8192}, "reasoned"),
        ({"num_local_experts": 300}, "reasoned"),
        ({"hidden_size": None}, "reasoned"),
        ({"text_config": {"hidden_size": 1}}, "reasoned"),
    ],
)
def test_the_backward_template_suits_the_size(
    changed: dict[str, Any], template: str, tmp_path: Path
) -> None:
    # As SmolLM2-135M has it.
    config = {
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "vocab_size": 49152,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 1536,
    }
    (tmp_path / "config.json").write_text(json.dumps(config | changed))
    described = Described(f"hf:{tmp_path}")
    assert default_template(str(tmp_path), config | changed) == template
    assert described.default_template == template
    (tmp_path / "bestofn.json").write_text('{"template": "direct"}')
    assert described.default_template == "direct"


def test_the_template_of_a_model_that_is_not_here_yet_is_unknown() -> None:
    assert Described("hf:nobody/no-such-model").default_template == UNKNOWN
