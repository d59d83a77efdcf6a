"""The recipes for a GPU, run as they are on the embedded model and rows of their schema."""

import json
from pathlib import Path
from typing import Any

import pytest
from commands import done

from bestofn.recipe import RewardBenchRecipe, load_recipe
from bestofn.store import pool

RECIPES = Path(__file__).parents[2] / "recipes"
HOLES = {"num_words": None, "relation": None, "num_bullets": None}

ROWS: dict[str, list[dict[str, Any]]] = {
    "math500_bo16": [
        {
            "problem": f"What is {n} plus 3?",
            "solution": f"It is $\\boxed{{{n + 3}}}$.",
            "answer": str(n + 3),
            "subject": "Prealgebra",
            "level": 1,
            "unique_id": f"test/prealgebra/{n}.json",
        }
        for n in range(1, 7)
    ],
    "ifeval_bo16": [
        {
            "key": 1000 + n,
            "prompt": f"Name {n} fruits without commas.",
            "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
            "kwargs": [HOLES, {**HOLES, "num_words": 20 * n, "relation": "less than"}],
        }
        for n in range(1, 7)
    ],
    "alpaca_eval_bo16": [
        {
            "instruction": f"Name {n} fruits.",
            "output": "Apple, pear, plum.",
            "generator": "a reference",
            "dataset": "helpful_base",
        }
        for n in range(1, 7)
    ],
}
BENCH_ROWS: list[dict[str, Any]] = [
    {
        "id": f"ref:{n}" if subset == "Ties" else str(n),
        "prompt": f"Name {n} fruits.",
        "chosen": ["apple, pear"],
        "rejected": ["hammer, saw", "drill", "dog"],
        "num_correct": 1,
        "num_incorrect": 3,
        "total_completions": 4,
        "models": ["a", "b", "c", "d"],
        "subset": subset,
        "additional_metadata": {"category": None, "method": "human"},
    }
    for subset in ("Factuality", "Focus", "Math", "Precise IF", "Safety", "Ties")
    for n in range(1, 4)
]


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub in a folder: `datasets` loads the same names from there."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    math = lines(tmp_path / "math" / "test.jsonl", ROWS["math500_bo16"])
    ifeval = lines(tmp_path / "ifeval" / "train.jsonl", ROWS["ifeval_bo16"])
    bench = lines(tmp_path / "bench" / "test.jsonl", BENCH_ROWS)
    alpaca = tmp_path / "alpaca_eval.json"
    alpaca.write_text(json.dumps(ROWS["alpaca_eval_bo16"]), "utf-8")
    places = {
        "HuggingFaceH4/MATH-500": math.parent,
        "google/IFEval": ifeval.parent,
        "allenai/reward-bench-2": bench.parent,
        "hf://datasets/tatsu-lab/alpaca_eval/alpaca_eval.json": alpaca,
    }
    load = datasets.load_dataset

    def from_folder(**arguments: Any) -> Any:
        return load(**{k: str(places.get(v, v)) if v else v for k, v in arguments.items()})

    monkeypatch.setattr(datasets, "load_dataset", from_folder)


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("name", ROWS)
def test_a_recipe_for_a_gpu(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BESTOFN_JUDGE", "tiny")
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    small = ["--engine", "tiny", "--limit", 4, "-m", 4, "--max-tokens", 24]
    done("run", RECIPES / f"{name}.yaml", *small, "-o", tmp_path / "out")
    rows = list(pool.read(tmp_path / "out" / "pool.jsonl"))
    asked = {row[recipe.sample.prompt_column] for row in ROWS[name]}
    assert len(rows) == 4
    assert all(row.prompt.messages[-1].content in asked for row in rows)
    scores = {reward.label for reward in recipe.score.rewards}
    for candidate in (c for row in rows for c in row.candidates):
        assert set(candidate.scores) == scores
        assert 0 <= candidate.scores["gold"].value <= 1, candidate.scores["gold"].reason
    curve = json.loads((tmp_path / "out" / "curve.json").read_text())
    assert curve["prompts"] == 4
    assert scores - {"gold"} <= set(curve["proxies"])
    assert recipe.report.title in (tmp_path / "out" / "report.html").read_text("utf-8")


@pytest.mark.usefixtures("hub")
def test_the_recipe_of_rewardbench(tmp_path: Path) -> None:
    path = RECIPES / "rewardbench2.yaml"
    recipe = load_recipe(path)
    assert isinstance(recipe, RewardBenchRecipe)
    assert len(recipe.rewardbench.models) == 13
    small = ["--engine", "tiny", "--limit-per-subset", 1, "--seeds", 2]
    found = json.loads(done("run", path, *small, "-o", tmp_path / "out", "--json").stdout)
    assert {*found["subsets"]} == {"Focus", "Factuality", "Precise IF", "Math"}
    assert (found["items"], found["seeds"]) == (4, 2)
    assert [*found["rewards"]] == [reward.label for reward in recipe.rewardbench.rewards]
    for seed in (0, 1):
        rows = list(pool.read(tmp_path / "out" / f"items-{seed}.jsonl"))
        assert all({*found["rewards"], "gold"} == {*c.scores} for r in rows for c in r.candidates)
