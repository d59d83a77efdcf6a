"""Recipes: what is wrong in them is named, and options replace what they say."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from bestofn.config import (
    ClusterConfig,
    CurveConfig,
    DrawConfig,
    EngineConfig,
    ModelConfig,
    ReportConfig,
    RewardBenchConfig,
    RewardConfig,
    SampleConfig,
    ScoreConfig,
    Section,
    SelectConfig,
)
from bestofn.errors import ConfigError
from bestofn.recipe import Recipe, RewardBenchRecipe, load_recipe
from bestofn.registry import is_built_in

RECIPES = sorted(
    path
    for path in (Path(__file__).parents[1] / "recipes").glob("*.yaml")
    if not path.name.startswith("grpo_")  # their schema is in recipes/grpo_flip.py
)
SECTIONS = [
    SelectConfig, ClusterConfig, SampleConfig, RewardConfig, ScoreConfig, CurveConfig,
    ReportConfig, Recipe, ModelConfig, RewardBenchConfig, RewardBenchRecipe,
]  # fmt: skip
RECIPE: dict[str, Any] = {
    "output": "runs/x",
    "sample": {
        "engine": "vllm:A",
        "engine_args": {"max_model_len": 100},
        "engine_options": {"lora": "x"},
        "prompts": "tiny:4",
    },
    "score": {
        "verifier": "tiny",
        "reward_engine": "vllm:B",
        "reward_engine_args": {"max_model_len": 200},
        "rewards": [
            "gold",
            {
                "reward": "flip",
                "name": "flip-c",
                "engine": "vllm:C",
                "engine_args": {"max_model_len": 300},
                "engine_options": {"guided": True},
                "options": {"samples": 2},
            },
        ],
    },
}
BENCH: dict[str, Any] = {
    "output": "runs/x",
    "rewardbench": {
        "data": "tiny:4",
        "rewards": ["flip", {"reward": "random", "options": {"seed": 3}}],
        "models": [
            {"name": "A", "engine": "vllm:A", "engine_args": {"max_model_len": 100}},
            {"name": "B", "engine": "vllm:B", "engine_options": {"guided": True}},
        ],
    },
}


def written(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return written(tmp_path / "recipe.yaml", RECIPE)


def changed(**sections: dict[str, Any]) -> dict[str, Any]:
    """The recipe with other fields in its sections."""
    return RECIPE | {name: RECIPE.get(name, {}) | fields for name, fields in sections.items()}


def rewards(*given: Any) -> dict[str, Any]:
    return changed(score={"rewards": list(given)})


def bench(**fields: Any) -> dict[str, Any]:
    return {**BENCH, "rewardbench": {**BENCH["rewardbench"], **fields}}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_recipe_loads_and_its_rewards_are_known(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.output == f"runs/{path.stem}"
    scoring = recipe.rewardbench if isinstance(recipe, RewardBenchRecipe) else recipe.score
    assert scoring.rewards
    assert all(is_built_in("reward", reward.reward) for reward in scoring.rewards)
    if isinstance(recipe, Recipe):
        assert recipe.sample.sampling().max_tokens == recipe.sample.max_tokens
        assert recipe.curve.gold in {reward.label for reward in scoring.rewards}


@pytest.mark.parametrize("kind", SECTIONS)
def test_every_field_has_a_description(kind: type[Section]) -> None:
    lacking = [name for name, field in kind.model_fields.items() if not field.description]
    assert lacking == []


# --- what is wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [None, b"output: \xe9\xff"])
def test_a_recipe_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "recipe.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"the recipe .*recipe\.yaml cannot be read"):
        load_recipe(tmp_path / "recipe.yaml")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("output: [\n", "is not YAML"),
        ("", "must be a mapping"),
        ("- output\n", "must be a mapping, not list"),
        ({}, "the key 'output' is missing"),
        ({"output": "x", "sample": {}, "score": {}}, "the key 'sample.engine' is missing"),
        ({k: v for k, v in RECIPE.items() if k != "score"}, "the key 'score' is missing"),
        (rewards({"name": "x"}), "'score.rewards.0.reward' is missing"),
        (RECIPE | {"outptu": "x"}, "unknown key 'outptu'; did you mean 'output'?"),
        (changed(sample={"temprature": 1}), "'sample.temprature'; did you mean 'temperature'?"),
        (
            rewards("gold", {"reward": "flip", "enigne": "tiny"}),
            "unknown key 'score.rewards.1.enigne'; did you mean 'engine'?",
        ),
        (changed(sample={"m": "many"}), "the key 'sample.m' is wrong"),
        (changed(sample={"limit": 0}), "the key 'sample.limit' is wrong"),
        (changed(sample={"window": 0}), "the key 'sample.window' is wrong"),
        (changed(sample={"engine_args": ["x"]}), "the key 'sample.engine_args' is wrong"),
        (changed(score={"rewards": "flip"}), "the key 'score.rewards' is wrong"),
        (rewards(3), "the key 'score.rewards.0' is wrong"),
        (
            rewards("flip", {"reward": "flip", "engine": "tiny"}),
            "'score.rewards' is wrong: two rewards are called 'flip'; give one of them a name",
        ),
        (rewards({"reward": "flip", "options": {"engine": "tiny"}}), "'engine' is no option"),
        (rewards({"reward": "flip", "name": "qwen@7"}), "has none of @ : ,"),
        (rewards({"reward": "flip", "name": ""}), "is not empty"),
        (rewards({"reward": "flip", "name": "oracle"}), "means something else"),
        (rewards({"reward": "flip", "engine_args": {"max_rows": 4}}), "name it"),
        (rewards("scalar"), "'scalar' needs a reward model, as in scalar:MODEL"),
        (changed(score={"limits": [0, 4]}), "'score.limits' is wrong: each must be at least 1"),
        (changed(curve={"ns": [0]}), "'curve.ns' is wrong: each must be at least 1"),
        (changed(curve={"level": 95}), "the key 'curve.level' is wrong"),
        (changed(curve={"bad_rows": "ignore"}), "the key 'curve.bad_rows' is wrong"),
        (RECIPE | {"sample": ["x"]}, "the key 'sample' is wrong"),
        (RECIPE | {"curve": None}, "the key 'curve' is wrong"),
        (BENCH | {"sample": {}}, "unknown key 'sample'"),
        (BENCH | {"rewardbench": None}, "the key 'rewardbench' is wrong"),
        (bench(dta="x"), "unknown key 'rewardbench.dta'; did you mean 'data'?"),
        (bench(models=[{"engine": "tiny"}]), "the key 'rewardbench.models.0.name' is missing"),
        (bench(models=[{"name": "a:b", "engine": "x"}]), "none of @ : ,"),
        (bench(models=[{"name": "A", "engine": "x"}] * 2), "two models are called 'A'"),
        (bench(rewards=[]), "name at least one reward"),
        (bench(rewards=[{"reward": "flip", "name": "gold"}]), "'gold' means"),
        (bench(engine="tiny"), "`models` leaves no place for another engine"),
        (bench(rewards=[{"reward": "flip", "engine": "tiny"}]), "`models` leaves no place"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: Any, sentence: str) -> None:
    path = written(tmp_path / "recipe.yaml", content)
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(f"the recipe {path}")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [RECIPE | {"sample": None}, RECIPE | {"score": [1]}, rewards(3)]
)
def test_what_is_wrong_is_named_beside_another_engine_too(tmp_path: Path, content: Any) -> None:
    path = written(tmp_path / "recipe.yaml", content)
    with pytest.raises(ConfigError, match=r"the key 's.* is wrong"):
        load_recipe(path, {"engine": "tiny", "reward_engine": "tiny"})


# --- values ---------------------------------------------------------------------------------------


def test_limits_and_sizes_are_sorted_without_repetitions() -> None:
    assert ScoreConfig(limits=[8, 4, 8, 16]).limits == [4, 8, 16]
    assert CurveConfig(ns=[16, 1, 4, 4]).ns == [1, 4, 16]


def test_rewards_are_names_or_mappings() -> None:
    given: Any = ["gold", {"reward": "flip", "name": "mine"}]
    found = [(reward.reward, reward.label) for reward in ScoreConfig(rewards=given).rewards]
    assert found == [("gold", "gold"), ("flip", "mine")]


def test_sampling_takes_every_option() -> None:
    values: dict[str, Any] = {
        "temperature": 0.5, "top_p": 0.9, "top_k": 3, "min_p": 0.1, "repetition_penalty": 1.1,
        "max_tokens": 7, "stop": ["x", "y"],
    }  # fmt: skip
    params = DrawConfig(engine="tiny", **values, sampling_extra={"a": 1}).sampling()
    assert {name: getattr(params, name) for name in values} == values | {"stop": ("x", "y")}
    assert params.extra == {"a": 1}
    with pytest.raises(ConfigError, match="temperature must be at least 0"):
        DrawConfig(engine="tiny", temperature=-1).sampling()


def test_a_selection_names_its_reward_in_one_word() -> None:
    config = SelectConfig(prompts="x", engine="tiny", reward="scalar:m", shard="2/4")  # type: ignore[arg-type]
    assert (config.reward, config.reward_options) == ("scalar", {"model": "m"})
    assert (config.chooses.label, config.shard) == ("scalar", (2, 4))
    again = SelectConfig.model_validate(config.model_dump())
    assert again == config


# --- overrides ------------------------------------------------------------------------------------


def test_an_override_finds_its_section(recipe: Path) -> None:
    values = {"m": 3, "verifier": "math", "ns": [2], "title": "T", "output": "o", "limit": 2}
    loaded = load_recipe(recipe, values)
    assert isinstance(loaded, Recipe)
    assert (loaded.sample.m, loaded.sample.limit) == (3, 2)
    assert loaded.score.verifier == "math"
    assert loaded.curve.ns == [2]
    assert (loaded.report.title, loaded.output) == ("T", "o")
    assert loaded.sample.engine == "vllm:A"
    for name, value in {"m": "x", "data": "tiny:4"}.items():
        with pytest.raises(ConfigError, match=f"key '.*{name}'"):
            load_recipe(recipe, {name: value})


@pytest.mark.parametrize("kind", [SampleConfig, ScoreConfig, CurveConfig, ReportConfig])
def test_no_field_is_in_two_sections(kind: type[Section]) -> None:
    others = {SampleConfig, ScoreConfig, CurveConfig, ReportConfig} - {kind}
    assert not kind.model_fields.keys() & {name for other in others for name in other.model_fields}


@pytest.mark.parametrize(
    ("given", "drawn", "scored"),
    [
        ({"engine": "tiny"}, ("tiny", {}, {}), (None, {})),
        ({"engine": "tiny", "engine_args": {"a": 4}}, ("tiny", {"a": 4}, {}), (None, {})),
        (
            {"reward_engine": "tiny"},
            ("vllm:A", {"max_model_len": 100}, {"lora": "x"}),
            ("tiny", {}),
        ),
    ],
)
def test_another_model_takes_the_place_of_others(
    recipe: Path, given: dict[str, Any], drawn: object, scored: object
) -> None:
    loaded = load_recipe(recipe, given)
    assert isinstance(loaded, Recipe)
    sample, score, reward = loaded.sample, loaded.score, loaded.score.rewards[1]
    assert (sample.engine, sample.engine_args, sample.engine_options) == drawn
    assert (score.reward_engine, score.reward_engine_args) == scored
    assert (reward.engine, reward.engine_args, reward.engine_options) == (None, {}, {})
    assert (reward.name, reward.options) == ("flip-c", {"samples": 2})


def test_a_recipe_survives_being_written(recipe: Path, tmp_path: Path) -> None:
    loaded = load_recipe(recipe)
    again = written(tmp_path / "again.yaml", loaded.model_dump(mode="json"))
    assert load_recipe(again) == loaded


def test_a_recipe_with_the_key_rewardbench_is_one_of_that_kind(tmp_path: Path) -> None:
    path = written(tmp_path / "recipe.yaml", BENCH)
    loaded = load_recipe(path)
    assert isinstance(loaded, RewardBenchRecipe)
    assert [model.engine for model in loaded.rewardbench.scorers] == ["vllm:A", "vllm:B"]
    again = written(tmp_path / "again.yaml", loaded.model_dump(mode="json", exclude_unset=True))
    assert load_recipe(again) == loaded
    other = load_recipe(path, {"engine": "tiny", "limit_per_subset": 2, "level": 0.9})
    assert isinstance(other, RewardBenchRecipe)
    config = other.rewardbench
    assert [model.named() for model in config.scorers] == [EngineConfig(engine="tiny")]
    assert (config.limit_per_subset, config.level) == (2, 0.9)
    with pytest.raises(ConfigError, match="unknown key 'temperature'"):
        load_recipe(path, {"temperature": 1})


@pytest.mark.parametrize(
    ("fields", "reward"),
    [
        ({"engine": "tiny"}, "flip-likelihood"),
        ({"engine": "vllm:model"}, "flip-likelihood"),
        ({"engine": "openai:http://localhost#m"}, "flip"),
        ({"engine": "openai:http://localhost#m", "reward_engine": "hf:judge"}, "flip-likelihood"),
        ({"engine": "tiny", "reward_engine": "openai:http://localhost#m"}, "flip"),
        ({"engine": "mine:Engine"}, "flip"),
        ({"engine": "tinyish:Engine"}, "flip"),
        ({"engine": "tiny", "adaptive": 0.1}, "flip"),
        ({"engine": "openai:http://localhost#m", "reward": "mutual"}, "mutual"),
    ],
)
def test_the_default_reward_is_one_that_the_engine_can_give(
    fields: dict[str, Any], reward: str
) -> None:
    assert SelectConfig.model_validate({"prompts": "p.jsonl", **fields}).reward == reward
