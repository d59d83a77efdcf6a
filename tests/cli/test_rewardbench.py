"""Best-of-4 evaluations on the command line, with the embedded model."""

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from bestofn.cli import app
from bestofn.engines.base import load_engine
from bestofn.engines.hf import TransformersEngine
from bestofn.store import pool
from bestofn.store.pool import read_origins

RUNNER = CliRunner()
SUBSETS = ["Focus", "Factuality", "Precise IF", "Math"]
REWARDS = ["flip", "flip-likelihood", "longest", "random"]


def bestofn(*arguments: object) -> Result:
    return RUNNER.invoke(app, [str(argument) for argument in arguments])


def done(*arguments: object) -> Result:
    result = bestofn(*arguments)
    assert result.exit_code == 0, result.output
    return result


def refused(*arguments: object) -> str:
    result = bestofn(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return " ".join(result.stderr.split())


@pytest.fixture(scope="module", autouse=True)
def _one_model(tiny: TransformersEngine) -> Iterator[None]:
    """Commands share a loaded model."""

    def load(spec: str, **options: Any) -> Any:
        return tiny if spec == "tiny" else load_engine(spec, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bestofn.config.load_engine", load)
        patch.setattr(tiny, "close", lambda: None)
        yield


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an evaluation of 16 items with two seeds."""
    folder = tmp_path_factory.mktemp("bench") / "out"
    done("rewardbench", "--engine", "tiny", "--data", "tiny:4", "--seeds", 2, "-o", folder,
         "--reward", ",".join(REWARDS), "--title", "My title")  # fmt: skip
    return folder


def test_what_is_written(out: Path) -> None:
    files = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    assert files >= {
        "items-0.jsonl", "items-1.jsonl", "rewardbench.json", "rewardbench.csv", "rewardbench.svg",
        "rewardbench.png", "recipe.yaml",
    }  # fmt: skip
    picture = (out / "rewardbench.svg").read_text()
    assert all(text in picture for text in (*SUBSETS, *REWARDS, "chance", "My title"))


def test_items_are_scored_pools_with_another_order_and_another_seed(out: Path) -> None:
    first, second = (list(pool.read(out / f"items-{seed}.jsonl")) for seed in (0, 1))
    assert [row.prompt.id for row in first] == [row.prompt.id for row in second]
    orders = [[[c.text for c in row.candidates] for row in rows] for rows in (first, second)]
    assert orders[0] != orders[1]
    for row, other in zip(first, second, strict=True):
        assert sorted(c.text for c in row.candidates) == sorted(c.text for c in other.candidates)
        likelihoods = [
            {c.text: c.scores["flip-likelihood"].value for c in r.candidates} for r in (row, other)
        ]
        assert likelihoods[0] == pytest.approx(likelihoods[1], abs=1e-4)
        assert {*row.candidates[0].scores} == {"gold", *REWARDS}
    seeds = [read_origins(out / f"items-{k}.jsonl") for k in (0, 1)]
    assert [made["random"]["options"] for made in seeds] == [{"seed": 0}, {"seed": 1}]
    assert [made["flip-likelihood"]["options"] for made in seeds] == [{}, {}]


def test_json_and_csv(out: Path) -> None:
    result = json.loads((out / "rewardbench.json").read_text())
    assert (result["items"], result["seeds"], result["models"]) == (16, 2, [])
    assert result["subsets"] == {name: {"items": 4, "chance": 0.25} for name in SUBSETS}
    assert [*result["rewards"]] == [*result["overall"]] == REWARDS
    for line in result["rewards"].values():
        assert [*line["subsets"]] == [*SUBSETS, "mean"]
        for found in line["subsets"].values():
            for convention in ("strict", "credit"):
                interval = found[convention]
                assert 0 <= interval["low"] <= interval["mean"] <= interval["high"] <= 1
            assert found["strict"]["mean"] <= found["credit"]["mean"]
    assert result["rewards"]["flip"]["tokens"] > 0 == result["rewards"]["longest"]["tokens"]
    assert result["rewards"]["flip"]["seconds"] > 0
    assert len(result["differences"]) == 4 * 3 * 2
    with (out / "rewardbench.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["reward"], row["subset"]) for row in rows] == [
        (reward, subset) for reward in REWARDS for subset in (*SUBSETS, "mean")
    ]
    for row in rows:
        found = result["rewards"][row["reward"]]["subsets"][row["subset"]]
        assert float(row["strict_low"]) == found["strict"]["low"]
        assert float(row["credit"]) == found["credit"]["mean"]


def test_a_few_items_conclude_nothing(out: Path) -> None:
    summary = json.loads((out / "rewardbench.json").read_text())["summary"]
    assert "scored 2 times" in summary[0]
    assert summary[1].endswith("intervals of so few items mean nothing.")
    assert len(summary) == 2


def test_a_rerun_changes_nothing_and_says_the_same(out: Path) -> None:
    before = {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    result = done("rewardbench", "--engine", "tiny", "--data", "tiny:4", "--seeds", 2, "-o", out,
                  "--reward", ",".join(REWARDS), "--title", "My title", "--json")  # fmt: skip
    assert json.loads(result.stdout) == json.loads(before["rewardbench.json"])
    assert {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_run_that_ended_early_goes_on(out: Path, tmp_path: Path) -> None:
    shutil.copytree(out / "items-0.jsonl.run", tmp_path / "items-0.jsonl.run")
    lines = (out / "items-0.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "items-0.jsonl").write_bytes(b"".join(lines[:7]) + lines[7][:50])
    done("rewardbench", "--engine", "tiny", "--data", "tiny:4", "-o", tmp_path,
         "--reward", "flip-likelihood,longest")  # fmt: skip
    rows, before = pool.read(tmp_path / "items-0.jsonl"), pool.read(out / "items-0.jsonl")
    for row, other in zip(rows, before, strict=True):
        assert [c.text for c in row.candidates] == [c.text for c in other.candidates]
        assert {*row.candidates[0].scores} >= {"gold", "flip-likelihood", "longest"}


def test_the_recipe_that_was_written_runs_again(out: Path, tmp_path: Path) -> None:
    result = done("run", out / "recipe.yaml", "-o", tmp_path / "again", "--json")
    again, first = json.loads(result.stdout), json.loads((out / "rewardbench.json").read_text())
    for reward in REWARDS:
        assert again["rewards"][reward]["subsets"] == first["rewards"][reward]["subsets"]


def test_other_items_in_a_folder_are_refused(out: Path) -> None:
    common = ["rewardbench", "--reward", "longest", "-o", out]
    assert "data was" in refused(*common, "--data", "tiny:5")
    assert "limit_per_subset was null and is 2" in refused(
        *common, "--data", "tiny:4", "--limit-per-subset", 2
    )


def test_another_reward_under_a_name_is_refused(out: Path, tmp_path: Path) -> None:
    content = yaml.safe_load((out / "recipe.yaml").read_text())
    content["rewardbench"]["rewards"] = [{"reward": "longest", "name": "flip"}]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    assert "were made otherwise" in refused("run", tmp_path / "recipe.yaml")


def test_a_curve_can_be_made_of_the_items(out: Path, tmp_path: Path) -> None:
    result = done("curve", out / "items-0.jsonl", "-o", tmp_path, "--no-iid", "--json",
                  "--proxy", "flip-likelihood,random", "-n", "4")  # fmt: skip
    curve = json.loads(result.stdout)
    found = json.loads((out / "rewardbench.json").read_text())["rewards"]["flip-likelihood"]
    assert curve["proxies"]["random"]["gold"]["mean"] == [0.25]
    # Both choose among all four by lot, so they agree; subsets are of one size.
    assert curve["proxies"]["flip-likelihood"]["gold"]["mean"][0] == pytest.approx(
        found["subsets"]["mean"]["credit"]["mean"]
    )


# --- what it shows --------------------------------------------------------------------------------


def test_the_tables(tmp_path: Path) -> None:
    result = done("rewardbench", "--data", "tiny:12", "--reward", "longest,shortest", "-o",
                  tmp_path, "--subset", "Focus,Math")  # fmt: skip
    text = " ".join(result.stdout.split())
    assert "ties and failed items wrong" in text
    assert "ties broken by a draw" in text
    assert "subset chance longest shortest Focus 0.250" in text
    assert "mean 0.250" in text
    assert "24 items (Focus 12, Math 12)" in text
    assert "Factuality" not in text


def write_items(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_ties_have_their_own_score(tmp_path: Path) -> None:
    pairs = [
        {"id": f"{kind}:{k}", "prompt": "Name a colour.", "subset": "Ties",
         "chosen": chosen, "rejected": ["x", "y"]}
        for k in range(12)
        for kind, chosen in (("ref", ["orange"]), ("tied", ["purple", "orange", "silver"]))
    ]  # fmt: skip
    data = write_items(tmp_path / "ties.jsonl", pairs)
    command = ["rewardbench", "--data", data, "--reward", "longest,shortest", "-o", tmp_path / "o"]
    assert "--subset Ties" in refused(*command)
    result = json.loads(done(*command, "--subset", "Ties", "--json").stdout)
    assert result["rewards"]["longest"]["ties"]["mean"] == pytest.approx(1.01)
    # Its best wrong response stands above all right ones: margin -5, within 0.
    assert result["rewards"]["shortest"]["ties"]["mean"] == pytest.approx(-0.01)
    assert (result["subsets"], result["chance"], result["ties_items"]) == ({}, None, 24)
    rows = list(csv.DictReader((tmp_path / "o" / "rewardbench.csv").open(newline="")))
    assert [(row["reward"], row["subset"]) for row in rows] == [
        ("longest", "Ties"), ("shortest", "Ties"),
    ]  # fmt: skip
    assert "longest on Ties: 1.010" in done(*command, "--subset", "Ties").stdout
    assert not (tmp_path / "o" / "rewardbench.png").exists()


def test_several_models_are_shown_each_and_in_the_mean(tmp_path: Path) -> None:
    models = [{"name": name, "engine": "tiny"} for name in ("Model A", "Model B")]
    content = {
        "output": str(tmp_path / "out"),
        "rewardbench": {
            "data": "tiny:3",
            "models": models,
            "rewards": ["flip-likelihood", "longest"],
        },
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    shown = " ".join(done("run", tmp_path / "recipe.yaml").stdout.split())
    assert "mean of 2 models" in shown
    assert "Model A" in shown
    result = json.loads((tmp_path / "out" / "rewardbench.json").read_text())
    assert result["models"] == ["Model A", "Model B"]
    labels = ["flip-likelihood of Model A", "longest", "flip-likelihood of Model B"]
    assert [*result["rewards"]] == labels
    assert [*result["overall"]] == ["flip-likelihood", "longest"]
    assert result["overall"]["longest"] == result["rewards"]["longest"]
    rows = list(csv.DictReader((tmp_path / "out" / "rewardbench.csv").open(newline="")))
    assert {row["model"] for row in rows} == {"Model A", "Model B", "mean of models", ""}


# --- what is wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "name at least one reward"),
        (["--reward", "flop"], "no reward 'flop'; did you mean 'flip'?"),
        (["--reward", "gold"], "'gold' stands for what the items say"),
        (["--reward", "longest", "--seeds", 0], "'seeds' is wrong"),
        (["--reward", "longest", "--subset", "Maths"], "no items of the subset 'Maths'"),
        (["--reward", "longest", "--data", "none.jsonl"], "none.jsonl"),
    ],
)
def test_options_that_cannot_be(arguments: list[object], sentence: str, tmp_path: Path) -> None:
    common = ["rewardbench", "--data", "tiny:2", "-o", tmp_path / "out"]
    assert sentence in refused(*common, *arguments)
    assert not (tmp_path / "out" / "rewardbench.json").exists()


def test_a_wrong_item_is_one_sentence(tmp_path: Path) -> None:
    data = write_items(tmp_path / "items.jsonl", [{"id": "1", "prompt": "x", "subset": "Math"}])
    said = refused("rewardbench", "--data", data, "--reward", "longest", "-o", tmp_path / "out")
    assert "line 1: the field 'chosen' is missing" in said


def test_a_seed_that_is_no_number(tmp_path: Path) -> None:
    rewards = [{"reward": "random", "options": {"seed": "x"}}]
    content = {"output": str(tmp_path), "rewardbench": {"data": "tiny:2", "rewards": rewards}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    assert "the seed of the reward 'random' is a number, not 'x'" in refused(
        "run", tmp_path / "recipe.yaml"
    )
