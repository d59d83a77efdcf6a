"""The recipes of the embedded model run end to end, on a model too small to learn anything."""

import json
import subprocess
import sys
from pathlib import Path

import yaml

from bestofn import BestOfN, FLIPLikelihood, SamplingParams, load_engine

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
