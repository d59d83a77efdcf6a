"""What loading an engine brings with it: the tokenizer's own options, and nothing heavy."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers
from faulty_server import FaultyServer
from reward_models import random_model

from bestofn.engines.base import load_engine
from bestofn.engines.model_files import locate
from bestofn.errors import EngineError
from bestofn.rewards.scalar import ScalarReward

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
