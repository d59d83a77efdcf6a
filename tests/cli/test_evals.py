"""Best-of-4 evaluations on the command line, with the embedded model."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import TINY, done, lines, refused

from bestofn.store import pool
from bestofn.store.pool import read_origins

SUBSETS = ["Focus", "Factuality", "Precise IF", "Math"]
REWARDS = ["flip", "flip-likelihood", "longest", "random"]
BENCH = ["rewardbench", *TINY, "--data", "tiny:4", "--reward", ",".join(REWARDS)]

pytestmark = pytest.mark.usefixtures("one_model")


@pytest.fixture(scope="module")
def out(one_model: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an evaluation of 16 items with two seeds."""
    folder = tmp_path_factory.mktemp("bench") / "out"
    done(*BENCH, "--seeds", 2, "-o", folder, "--title", "My title")
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "rewardbench.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_what_is_written(out: Path) -> None:
    assert {path.name for path in out.iterdir() if not path.name.startswith(".")} >= {
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
    for rows in zip(first, second, strict=True):
        before, after = ({c.text: c.scores for c in row.candidates} for row in rows)
        assert before.keys() == after.keys()
        for text, scores in before.items():
            value = after[text]["flip-likelihood"].value
            assert scores["flip-likelihood"].value == pytest.approx(value, abs=1e-4)
            assert {*scores} == {"gold", *REWARDS}
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
    assert len(result["differences"]) == 4 * 3 * 3
    rows = table(out)
    wanted = [(reward, subset) for reward in REWARDS for subset in (*SUBSETS, "mean")]
    assert [(row["reward"], row["subset"]) for row in rows] == wanted
    for row in rows:
        found = result["rewards"][row["reward"]]["subsets"][row["subset"]]
        assert float(row["strict_low"]) == found["strict"]["low"]
        assert float(row["credit"]) == found["credit"]["mean"]
    scored, nothing = result["summary"]
    assert "scored 2 times" in scored
    assert nothing.endswith("intervals of so few items mean nothing.")


def test_a_rerun_changes_nothing_and_says_the_same(out: Path) -> None:
    before = files(out)
    result = done(*BENCH, "--seeds", 2, "-o", out, "--title", "My title", "--json")
    assert json.loads(result.stdout) == json.loads((out / "rewardbench.json").read_text())
    assert files(out) == before


def test_a_run_that_ended_early_is_resumed(out: Path, tmp_path: Path) -> None:
    shutil.copytree(out / "items-0.jsonl.run", tmp_path / "items-0.jsonl.run")
    begun = (out / "items-0.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "items-0.jsonl").write_bytes(b"".join(begun[:7]) + begun[7][:50])
    done(*BENCH[:-1], "flip-likelihood,longest", "-o", tmp_path)
    rows, before = pool.read(tmp_path / "items-0.jsonl"), pool.read(out / "items-0.jsonl")
    for row, other in zip(rows, before, strict=True):
        assert [c.text for c in row.candidates] == [c.text for c in other.candidates]
        assert {*row.candidates[0].scores} >= {"gold", "flip-likelihood", "longest"}


def test_other_items_or_rewards_in_a_folder_are_refused(out: Path, tmp_path: Path) -> None:
    common = ["rewardbench", "--reward", "longest", "-o", out]
    assert "data was" in refused(*common, "--data", "tiny:5")
    said = refused(*common, "--data", "tiny:4", "--limit-per-subset", 2)
    assert "limit_per_subset was null and is 2" in said
    content = yaml.safe_load((out / "recipe.yaml").read_text())
    content["rewardbench"]["rewards"] = [{"reward": "longest", "name": "flip"}]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    assert "were made otherwise" in refused("run", tmp_path / "recipe.yaml")


def test_the_tables(tmp_path: Path) -> None:
    bench = ["rewardbench", "--data", "tiny:12", "--reward", "longest,shortest", "-o", tmp_path]
    text = " ".join(done(*bench, "--subset", "Focus,Math").stdout.split())
    assert "ties and failed items wrong" in text
    assert "ties broken by a draw" in text
    assert "subset chance longest shortest Focus 0.250" in text
    assert "mean 0.250" in text
    assert "24 items (Focus 12, Math 12)" in text
    assert "Factuality" not in text


def test_ties_have_their_own_score(tmp_path: Path) -> None:
    pairs: list[dict[str, Any]] = [
        {"id": f"{kind}:{k}", "prompt": "Name a colour.", "subset": "Ties",
         "chosen": chosen, "rejected": ["x", "y"]}
        for k in range(12)
        for kind, chosen in (("ref", ["orange"]), ("tied", ["purple", "orange", "silver"]))
    ]  # fmt: skip
    data, folder = lines(tmp_path / "ties.jsonl", pairs), tmp_path / "o"
    command = ["rewardbench", "--data", data, "--reward", "longest,shortest", "-o", folder]
    assert "--subset Ties" in refused(*command)
    result = json.loads(done(*command, "--subset", "Ties", "--json").stdout)
    assert result["rewards"]["longest"]["ties"]["mean"] == pytest.approx(1.01)
    # Its best wrong response is above all right ones: margin -5, within 0.
    assert result["rewards"]["shortest"]["ties"]["mean"] == pytest.approx(-0.01)
    assert (result["subsets"], result["chance"], result["ties_items"]) == ({}, None, 24)
    rows = [(row["reward"], row["subset"]) for row in table(folder)]
    assert rows == [("longest", "Ties"), ("shortest", "Ties")]
    assert "longest on Ties: 1.010" in done(*command, "--subset", "Ties").stdout
    assert not (folder / "rewardbench.png").exists()


@pytest.mark.usefixtures("here")
def test_several_models_are_shown_each_and_on_average() -> None:
    models = [{"name": name, "engine": "tiny"} for name in ("Model A", "Model B")]
    bench = {"data": "tiny:3", "models": models, "rewards": ["flip-likelihood", "longest"]}
    Path("r.yaml").write_text(yaml.safe_dump({"output": "out", "rewardbench": bench}))
    shown = " ".join(done("run", "r.yaml").stdout.split())
    assert "mean of 2 models" in shown
    assert "Model A" in shown
    result = json.loads(Path("out/rewardbench.json").read_text())
    assert result["models"] == ["Model A", "Model B"]
    labels = ["flip-likelihood of Model A", "longest", "flip-likelihood of Model B"]
    assert [*result["rewards"]] == labels
    assert [*result["overall"]] == ["flip-likelihood", "longest"]
    assert result["overall"]["longest"] == result["rewards"]["longest"]
    named = {row["model"] for row in table(Path("out"))}
    assert named == {"Model A", "Model B", "mean of models", ""}
