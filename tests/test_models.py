"""A model that is named twice is loaded once."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from commands import done, lines
from fakes import ScriptedEngine

from bestofn.config import EngineConfig, ScoreConfig, SelectConfig
from bestofn.dataset.score import scoring_model
from bestofn.dataset.select import loaded as selecting
from bestofn.engines.identity import same_engine
from bestofn.errors import ConfigError
from bestofn.models import Engines

TINY = str(files("bestofn.tiny") / "model")


class Loads:
    """Counts the loads, and what is closed of them."""

    def __init__(self) -> None:
        self.loaded: list[tuple[str, dict[str, Any]]] = []
        self.closed = 0
        self.views: list[dict[str, Any]] = []

    def load(self, spec: str, **options: Any) -> Any:
        self.loaded.append((spec, options))
        engine = ScriptedEngine("Name 4 fruits.")

        def view(**options: Any) -> Any:
            self.views.append(options)
            return engine

        engine.with_options = view  # type: ignore[method-assign]
        engine.close = self._close  # type: ignore[method-assign]
        return engine

    def _close(self) -> None:
        self.closed += 1


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Loads:
    counted = Loads()
    monkeypatch.setattr("bestofn.models.load_engine", counted.load)
    return counted


@pytest.mark.parametrize(
    ("spec", "other", "same"),
    [
        ("tiny", "hf:tiny", True),
        ("tiny", f"hf:{TINY}", True),
        ("vllm:tiny", f"vllm:{TINY}/", True),
        ("hf:m", "hf:./m", True),
        ("hf:m", "hf:../here/m", True),
        ("hf:m", "vllm:m", False),
        ("tiny", "vllm:tiny", False),
        ("hf:org/model", "hf:./org/model", False),
        ("openai:http://a/v1#m", "openai:http://a/v1#n", False),
    ],
)
def test_specs_of_the_same_model(
    spec: str, other: str, same: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "m").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    assert (same_engine(spec) == same_engine(other)) is same


def test_views_share_the_model_that_is_spelled_otherwise(loads: Loads) -> None:
    plain = EngineConfig(engine="tiny")
    guided = EngineConfig(engine="hf:tiny", engine_options={"guided": True})
    other = EngineConfig(engine="tiny", engine_args={"max_rows": 4})
    with Engines() as engines:
        engines.get(plain, guided)
        assert loads.loaded == [("tiny", {})]
        assert loads.views == [{"guided": True}]
        engines.get(guided, other)
        assert loads.loaded == [("tiny", {}), ("tiny", {"max_rows": 4})]
        assert loads.closed == 0
    assert loads.closed == 2


ARGS = {"max_model_len": 8}


@pytest.mark.parametrize(
    ("fields", "loaded", "views"),
    [
        ({}, [ARGS], []),
        ({"reward_engine": "vllm:m"}, [ARGS], []),
        ({"reward_engine": "vllm:m", "reward_engine_args": ARGS}, [ARGS], []),
        ({"reward_engine": "vllm:m", "reward_engine_args": {"a": 1}}, [ARGS, {"a": 1}], []),
        ({"reward_engine": "vllm:n"}, [ARGS, {}], []),
        ({"reward_engine_options": {"guided": True}}, [ARGS], [{"guided": True}]),
        (
            {"engine_options": {"lora": "x"}, "reward_engine_options": {"guided": True}},
            [ARGS],
            [{"lora": "x"}, {"guided": True}],
        ),
        ({"engine_options": {"lora": "x"}, "reward_engine": "vllm:m"}, [ARGS], [{"lora": "x"}]),
        ({"engine_options": {"lora": "x"}}, [ARGS], [{"lora": "x"}] * 2),
        ({"reward": "longest"}, [ARGS], []),
    ],
)
def test_select_loads_what_it_needs(
    loads: Loads, fields: dict[str, Any], loaded: list[dict[str, Any]], views: list[dict[str, Any]]
) -> None:
    config = SelectConfig(prompts="x", engine="vllm:m", engine_args=ARGS, **fields)
    with selecting(config):
        assert [args for _, args in loads.loaded] == loaded
        assert loads.views == views
    assert loads.closed == len(loaded)


@pytest.mark.parametrize(
    "command",
    [
        ["ask", "x", "-n", "2"],
        ["select", "p.jsonl", "-o", "out.jsonl", "-n", "2"],
        ["audit", "--prompts", "p.jsonl", "--reward", "flip", "--attack", "quote", "-o", "audit"],
        ["run", "recipe.yaml"],
    ],
)
def test_commands_load_a_model_that_is_named_twice_once(
    command: list[str], loads: Loads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines("p.jsonl", [{"prompt": "Name 4 fruits."}])
    Path("recipe.yaml").write_text(
        "output: out\nsample: {engine: x, prompts: p.jsonl, m: 2}\n"
        "score: {rewards: [flip, {reward: first, name: gold}]}\n"
    )
    models = ["--engine", "vllm:m", "--engine-arg", "max_model_len=8", "--reward-engine", "vllm:m"]
    models += ["--reward-engine-option", "guided=true"]
    done(*command, *models)
    assert loads.loaded == [("vllm:m", ARGS)]
    assert all(view == {"guided": True} for view in loads.views)


def test_a_reward_with_a_model_of_its_own_shares_it(loads: Loads) -> None:
    given: Any = [{"reward": "flip", "engine": "vllm:m"}, {"reward": "flip", "name": "n"}]
    config = ScoreConfig(rewards=given, reward_engine="vllm:n", reward_engine_args={"a": 1})
    drawn_by = EngineConfig(engine="vllm:m", engine_args=ARGS)
    models = [scoring_model(reward, config, drawn_by) for reward in config.rewards]
    assert models[0] == drawn_by
    assert models[1] == EngineConfig(engine="vllm:n", engine_args={"a": 1})


def test_settings_of_a_model_are_refused_with_a_generator_of_ones_own(loads: Loads) -> None:
    config = SelectConfig(prompts="x", engine="test_models:draw", reward="longest", system="x")
    with selecting(config) as best:
        assert not loads.loaded
        assert best.select("x").text == "an answer"
    with pytest.raises(ConfigError, match="temperature does nothing with the generator"):
        selecting(config.model_copy(update={"temperature": 0.5})).__enter__()


def draw(prompt: Any, n: int) -> list[str]:
    return ["an answer"] * n
