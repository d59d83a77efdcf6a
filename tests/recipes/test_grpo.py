"""GRPO with a reward of bestofn: its recipes, its prompts, and a real run of two steps."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from bestofn import SamplingParams, concurrency, load_engine
from bestofn.config import checked
from bestofn.errors import ConfigError
from bestofn.prompts import as_prompt
from bestofn.tiny import read
from bestofn.tiny.world import split_of
from recipes.grpo_flip import (
    Prompts,
    Recipe,
    held_out_prompts,
    main,
    run,
    summarise,
    table,
    training_prompts,
)

RECIPES = Path(__file__).parents[2] / "recipes"


def content(name: str, **changes: Any) -> dict[str, Any]:
    """A recipe of the project; a change is named by its keys, as in training__steps."""
    recipe: dict[str, Any] = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    for path, value in changes.items():
        *sections, last = path.split("__")
        section = recipe
        for key in sections:
            section = section[key]
        section[last] = value
    return recipe


def small(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    """Two steps of the tiny model's recipe."""
    settings = {
        "output": str(tmp_path / "out"),
        "seeds": [0],
        "training__steps": 2,
        "training__prompts_per_step": 2,
        "training__samples": 4,
        "training__micro_batch": 8,
        "training__max_tokens": 12,
        "training__learning_rate": 1e-3,
        "evaluation__prompts": {"source": "tiny:12"},
        "evaluation__samples": 2,
        "evaluation__max_tokens": 12,
    }
    return content("grpo_tiny", **settings | changes)


@pytest.fixture
def trl(monkeypatch: pytest.MonkeyPatch) -> None:
    # TRL imports vLLM where there is one, which takes long, and here it draws with transformers.
    monkeypatch.setitem(sys.modules, "vllm", None)
    pytest.importorskip("trl", reason="GRPO needs TRL, which is not installed")


# --- recipes --------------------------------------------------------------------------------------


def test_the_recipe_for_a_gpu_has_the_papers_numbers() -> None:
    recipe = checked(Recipe, content("grpo_flip"), "x")
    training = recipe.training
    assert (training.samples, training.prompts_per_step) == (8, 24)
    assert training.learning_rate == 1e-6
    assert recipe.reward.engine == "vllm:Qwen/Qwen3-4B"
    assert training.steps * training.prompts_per_step == recipe.prompts.count == 12000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training__step": 3}, "unknown key 'training.step'; did you mean 'steps'?"),
        ({"training__micro_batch": 48}, "64 responses a step are no multiple of 48"),
        ({"seeds": []}, "'seeds' is wrong"),
        ({"reward": {"reward": "flip"}}, "'flip' needs the model that scores, as reward.engine"),
        ({"reward__reward": "flop"}, "no reward 'flop'; did you mean 'flip'?"),
    ],
)
def test_a_wrong_recipe_is_one_sentence(
    changes: dict[str, Any],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(content("grpo_tiny", **changes)))
    monkeypatch.setattr("sys.argv", ["grpo_flip.py", str(file)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


# --- prompts --------------------------------------------------------------------------------------


def test_training_instructions_come_from_the_training_split_by_the_seed() -> None:
    prompts = training_prompts(Prompts(source="tiny-train:200"), 0)
    tasks = [read(prompt.messages[-1].content) for prompt in prompts]
    assert {split_of(task.family, task.slots) for task in tasks} == {"train"}
    assert len({prompt.id for prompt in prompts}) == len(prompts) > 150
    again, other = (training_prompts(Prompts(source="tiny-train:200"), seed) for seed in (0, 1))
    assert [p.id for p in again] == [p.id for p in prompts] != [p.id for p in other]
    held_out = held_out_prompts(Prompts(source="tiny:320"), prompts)
    assert len(held_out) == 320
    with pytest.raises(ConfigError, match="training instructions are 'tiny-train:COUNT'"):
        training_prompts(Prompts(source="tiny-train:many"), 0)


def conversation(text: str, *before: str, language: str = "English", **more: Any) -> dict[str, Any]:
    """A row in the form of WildChat's."""
    messages = [{"role": "system", "content": said, "turn": 1} for said in before]
    messages += [{"role": "user", "content": text, "country": None}]
    messages += [{"role": "assistant", "content": "Yes."}, {"role": "user", "content": "Why?"}]
    return {"conversation": messages, "language": language, "toxic": False, **more}


def written(tmp_path: Path, rows: list[dict[str, Any]]) -> str:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def test_of_a_conversation_what_is_said_up_to_the_first_user_message(tmp_path: Path) -> None:
    rows = [
        conversation("One?", "Be terse.", model="m"),
        conversation("Un?", language="French"),
        conversation("One?", "Be terse."),
        conversation("x" * 100),
        conversation(" "),
        {"conversation": "a text", "language": "English"},
        {"conversation": [{"role": "assistant", "content": "?"}], "language": "English"},
        {"conversation": None, "language": "English"},
        conversation("Two?"),
        conversation("Three?"),
    ]
    prompts = Prompts(
        source=written(tmp_path, rows),
        column="conversation",
        where={"language": "English"},
        longest=50,
        count=3,
    )
    first, second, third = training_prompts(prompts, 0)
    assert [message.content for message in first.messages] == ["Be terse.", "One?"]
    assert first.columns["model"] == "m"
    assert [second.messages[-1].content, third.messages[-1].content] == ["a text", "Two?"]
    (left,) = held_out_prompts(prompts, [first, second, third])
    assert left.messages[-1].content == "Three?"
    with pytest.raises(ConfigError, match=r"gives no prompts; look at column \('nothing'\)"):
        held_out_prompts(Prompts(source=prompts.source, column="nothing"), [])


# --- what is said of a run ------------------------------------------------------------------------


def measured(before: list[float], after: list[float], seed: int = 0, **more: Any) -> dict[str, Any]:
    def part(values: list[float]) -> dict[str, Any]:
        rows = {"flip": values, **more}
        return {
            name: {"values": row, "failures": [float(v != v) for v in row]}
            for name, row in rows.items()
        }

    prompts = [str(i) for i in range(len(before))]
    return {
        "seed": seed,
        "seconds": 1.0,
        "prompts": prompts,
        "before": part(before),
        "after": part(after),
    }


def test_a_rise_is_one_whose_interval_is_above_zero() -> None:
    low = [0.1 * (i % 3) for i in range(30)]
    high = [value + 0.2 + 0.01 * (i % 2) for i, value in enumerate(low)]
    rising = summarise([measured(low, high)], "flip")
    assert rising["runs"]["seed 0"]["flip"]["change"]["mean"] == pytest.approx(0.205)
    assert rising["in_words"][0].startswith("flip rose: +0.205 [+0.20")
    assert "flip fell" in summarise([measured(high, low)], "flip")["in_words"][0]
    mixed = [value + (-1) ** i for i, value in enumerate(low)]
    assert "did not change measurably" in summarise([measured(low, mixed)], "flip")["in_words"][0]
    assert "by construction" in rising["in_words"][-1]


# --- a run ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("trl")
def test_two_steps_of_the_tiny_model(tmp_path: Path) -> None:
    recipe = checked(Recipe, small(tmp_path), "x")
    summary = run(recipe)
    folder = tmp_path / "out" / "seed-0"
    results = json.loads((folder / "results.json").read_text())
    assert [entry["step"] for entry in results["log"]] == [1, 2]
    for entry in results["log"]:
        assert entry["flip-likelihood/failure_rate"] == 0
        assert entry["rewards/flip-likelihood/mean"] == entry["reward"] < 0
        assert entry["flip-likelihood/tokens"] > 0
        assert 0 <= entry["flip-likelihood/tie_rate"] <= 1
    for when in ("before", "after"):
        assert {*results[when]} == {"flip-likelihood", "gold", "tokens"}
        assert len(results[when]["gold"]["values"]) == 12
    assert "| seed 0 | gold |" in table(summary)
    assert (tmp_path / "out" / "grpo.png").stat().st_size > 10_000
    assert "| seed 0 | tokens |" in (tmp_path / "out" / "summary.md").read_text()

    # The trained model loads, knows its backward template, and is another than before.
    engine, tiny = load_engine(f"hf:{folder / 'model'}"), load_engine("tiny")
    assert engine.default_template == "direct"
    prompt, greedy = as_prompt("Count from 1 to 5."), SamplingParams(temperature=0, max_tokens=8)
    trained, untrained = (concurrency.run(e.generate(prompt, greedy)) for e in (engine, tiny))
    assert trained.token_logprobs != untrained.token_logprobs
    assert trained.token_logprobs == pytest.approx(untrained.token_logprobs, abs=2)
    engine.close()
    tiny.close()

    # Its results are kept, and refused under other settings.
    assert run(recipe) == summary
    other = checked(Recipe, small(tmp_path, training__steps=3), "x")
    with pytest.raises(ConfigError, match="was written with other settings"):
        run(other)


@pytest.mark.usefixtures("trl")
def test_the_recipe_for_a_gpu_on_the_tiny_model(tmp_path: Path) -> None:
    rows = [conversation(f"Name {n} fruits.") for n in range(2, 9)]
    ifeval = [
        {
            "prompt": f"Name {n} fruits without commas.",
            "instruction_id_list": ["punctuation:no_comma"],
            "kwargs": [{"num_words": None}],
        }
        for n in range(12)
    ]
    (tmp_path / "ifeval").mkdir()
    on_vllm = [name for name in content("grpo_flip")["training"]["options"] if "vllm" in name]
    options = {"bf16": False, "gradient_checkpointing": True, "save_steps": 1}
    changes = {
        "output": str(tmp_path / "out"),
        "policy": "tiny",
        "reward__engine": "tiny",
        "reward__engine_args": {},
        "reward__options__max_tokens": 8,
        "prompts__source": written(tmp_path, rows),
        "training__steps": 1,
        "training__prompts_per_step": 4,
        "training__max_tokens": 8,
        "evaluation__prompts__source": written(tmp_path / "ifeval", ifeval),
        "evaluation__max_tokens": 8,
        "evaluation__engine": "hf",
        "evaluation__engine_args": {},
    }
    recipe = content("grpo_flip", **changes)
    recipe["training"]["options"] |= options
    for name in on_vllm:
        del recipe["training"]["options"][name]
    summary = run(checked(Recipe, recipe, "x"))
    assert {*summary["runs"]["seed 0"]} == {"flip", "gold", "tokens"}
    assert summary["runs"]["seed 0"]["gold"]["failures"] == [0, 0]
    assert (tmp_path / "out" / "seed-0" / "trainer" / "checkpoint-1").is_dir()
