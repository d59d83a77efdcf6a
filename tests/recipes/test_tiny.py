"""The recipes of the embedded model run end to end, on a model too small to learn anything."""

import json
import re
import subprocess
import sys
from pathlib import Path
from random import Random

import yaml

from bestofn import BestOfN, FLIPLikelihood, SamplingParams, load_engine
from bestofn.rewards.judges import ListwiseJudge
from bestofn.tiny import world
from recipes.tiny import train

RECIPES = Path(__file__).parents[2] / "recipes" / "tiny"
MINIATURE = {
    "width": 32,
    "layers": 1,
    "feed_forward": 48,
    "batch_tokens": 400,
    "steps": 4,
    "warmup": 2,
    "tokenizer_examples": 300,
    "tokenizer_min_count": 2,
    "device": "cpu",
}


def run(script: str, *arguments: str) -> str:
    command = [sys.executable, str(RECIPES / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_train_load_and_evaluate(tmp_path: Path) -> None:
    recipe = yaml.safe_load((RECIPES / "train.yaml").read_text()) | MINIATURE
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    out = tmp_path / "model"
    run("train.py", str(tmp_path / "recipe.yaml"), str(out))
    training = json.loads((out / "training.json").read_text())
    assert training["recipe"]["steps"] == 4

    engine = load_engine(f"hf:{out}")
    assert engine.default_template == "direct"
    sampler = BestOfN(engine, FLIPLikelihood(engine), n=2, sampling=SamplingParams(max_tokens=8))
    assert not sampler.select("Name 4 fruits.").fallback
    engine.close()

    report = tmp_path / "report.json"
    table = run(
        "evaluate.py", "--engine", f"hf:{out}", "--tasks", "5", "-m", "16", "--json", str(report)
    )
    curves = json.loads(report.read_text())["curves"]
    assert set(curves) >= {"random", "flip", "flip-likelihood", "oracle"}
    assert "| flip-likelihood |" in table


def test_train_on_to_judge(tmp_path: Path) -> None:
    recipe = yaml.safe_load((RECIPES / "train_judging.yaml").read_text())
    small = {key: MINIATURE[key] for key in ("batch_tokens", "steps", "warmup", "device")}
    start = RECIPES.parents[1] / recipe["start"]
    phases = [recipe["phases"][0] | {"judging": 1.0}]
    changed = recipe | small | {"start": str(start), "phases": phases}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(changed))
    out = tmp_path / "model"
    run("train.py", str(tmp_path / "recipe.yaml"), str(out))
    engine = load_engine(f"hf:{out}")
    assert engine.context == 512
    judge = ListwiseJudge(engine, template=RECIPES / "judges" / "listwise.yaml", max_tokens=16)
    selection = BestOfN(engine, judge, n=3, sampling=SamplingParams(max_tokens=8)).select(
        "Add 2 and 3."
    )
    assert sum(score.counts.get("calls", 0) for score in selection.scores) <= 1
    engine.close()


def test_examples_of_judging_have_one_right_answer() -> None:
    rng = Random(0)
    for _ in range(200):
        example = train.judge_example(rng)
        (verdict,) = json.loads(example.answer.removesuffix("<|end|>")).values()
        task = world.read(example.prompt.split("<|user|>")[1].split("\n")[0])
        shown = re.split(r"\n\n(?:Answer(?: [AB])?:|\[\d\])\n", example.prompt.split("<|end|>")[1])[
            1:
        ]
        shown = [re.sub(r"\n\n(?:Grade|Better|Best):$", "", text) for text in shown]
        right = [world.verify(task.instruction, text) for text in shown]
        if verdict in ("A", "B"):
            assert right == [verdict == "A", verdict == "B"]
        elif len(right) == 1:
            assert verdict == (10 if right[0] else 1)
        else:
            assert right == [place == verdict for place in range(1, 5)]
