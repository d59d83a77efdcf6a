"""From prompts to curves on the command line, with the embedded model."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import SMALL, TINY, done, lines, refused

from bestofn.engines.hf import TransformersEngine
from bestofn.store import pool

pytestmark = pytest.mark.usefixtures("one_model")
DRAW = ["sample", "tiny:6", *TINY, "-m", 4, "--seed", 0, "--max-tokens", 60, "--keep-tokens"]
GOLD = ["--reward", "gold", "--verifier", "tiny"]


@pytest.fixture(scope="module")
def scored(one_model: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pool file of six prompts, with all scores."""
    path = tmp_path_factory.mktemp("runs") / "pool.jsonl"
    drawn = done(*DRAW, "-o", path)
    assert drawn.stdout == ""
    assert "drawing: 24 candidates, 0.0% failed" in drawn.stderr
    done("score", path, "--reward", "flip,flip-likelihood", *GOLD)
    return path


@pytest.fixture
def own(scored: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    shutil.copy(scored, tmp_path / "pool.jsonl")
    shutil.copytree(scored.with_name("pool.jsonl.run"), tmp_path / "pool.jsonl.run")
    return tmp_path / "pool.jsonl"


def test_the_same_commands_change_nothing_and_others_are_refused(own: Path) -> None:
    before = own.read_bytes()
    done(*DRAW, "-o", own)
    done("score", own, "--reward", "flip,gold", "--verifier", "tiny")
    assert own.read_bytes() == before
    assert "temperature was 1.0 and is 0.5" in refused(*DRAW, "-o", own, "--temperature", 0.5)


@pytest.mark.usefixtures("here")
def test_a_prompt_that_is_there_twice_is_drawn_once_and_noted() -> None:
    lines("p.jsonl", [{"prompt": "Name a fruit."}, {"prompt": "Name a day."}] * 2)
    result = done("sample", "p.jsonl", *SMALL, "-m", 1, "-o", "pool.jsonl")
    assert "2 prompts are in" in result.stderr
    assert len(list(pool.read(Path("pool.jsonl")))) == 2
    sample = {"engine": "tiny", "prompts": "p.jsonl", "m": 2, "max_tokens": 8}
    score = {"rewards": ["longest", {"reward": "shortest", "name": "gold"}]}
    Path("r.yaml").write_text(json.dumps({"output": "out", "sample": sample, "score": score}))
    assert "2 prompts are in" in done("run", "r.yaml").output


def test_a_curve_is_shown_and_written(scored: Path, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "far")
    result = done("curve", scored, "-o", tmp_path / "link", "--title", "My title")
    assert "gold by N, 6 prompts" in result.stdout
    assert "random candidate" in " ".join(result.stdout.split())
    assert {file.name for file in (tmp_path / "far").iterdir()} == {
        "curve.json", "curve.csv", "scaling.svg", "scaling.png", "costs.svg", "costs.png",
        "lengths.svg", "lengths.png",
    }  # fmt: skip
    assert "My title" in (tmp_path / "far" / "scaling.svg").read_text()
    done("report", tmp_path / "link", "-o", tmp_path / "page.html")


def test_the_json_of_a_curve_is_what_is_in_its_file(scored: Path, tmp_path: Path) -> None:
    arguments = ["--ns", "4,1", "--proxy", "flip,random,oracle", "--resamples", 100]
    data = json.loads(done("curve", scored, "-o", tmp_path, "--json", *arguments).stdout)
    assert data == json.loads((tmp_path / "curve.json").read_text())
    assert (data["ns"], [*data["proxies"]]) == ([1, 4], ["flip", "random", "oracle"])
    gold = {name: proxy["gold"]["mean"] for name, proxy in data["proxies"].items()}
    assert gold["flip"][0] == pytest.approx(gold["random"][0])
    assert gold["random"][1] <= gold["oracle"][1]
    with (tmp_path / "curve.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 6


def test_limits_score_what_is_missing_first(own: Path, tmp_path: Path) -> None:
    limits = ["--limits", "4,12", "--verifier", "tiny", "--proxy", "flip,random"]
    curve = ["curve", own, "-o", tmp_path / "out", *limits, "--json"]
    lengths = json.loads(done(*curve).stdout)["lengths"]
    assert lengths["limits"] == [4, 12]
    assert {*lengths["rewards"]} == {"flip"}
    assert lengths["rewards"]["flip"]["cut"] is not None
    for row in pool.read(own):
        for candidate in row.candidates:
            assert {"flip@4", "flip@12", "gold@4"} <= candidate.scores.keys()
    before = own.read_bytes()
    done(*curve)
    assert own.read_bytes() == before


@pytest.mark.parametrize(
    ("score", "curve", "sentence"),
    [
        ({"rewards": ["flipp"]}, {}, "did you mean 'flip'?"),
        ({"rewards": ["flip", "gold"]}, {}, "needs a verifier"),
        ({"rewards": ["gold"], "verifier": "exact"}, {}, "no verifier 'exact'"),
        ({"rewards": ["longest"]}, {"answer": "nothing"}, "no verifier 'nothing'"),
        ({"rewards": ["longest"]}, {"ns": [1, 4]}, "N=4 needs more than m=2"),
        ({"rewards": ["flip"]}, {}, "needs 'gold', which nothing makes"),
        ({"rewards": ["gold"], "verifier": "tiny"}, {"proxies": ["weighted:x"]}, "nothing makes"),
    ],
)
def test_a_recipe_is_checked_before_anything_is_drawn(
    score: dict[str, Any], curve: dict[str, Any], sentence: str, here: Path
) -> None:
    sample = {"engine": "tiny", "prompts": "tiny:3", "m": 2}
    content = {"output": "out", "sample": sample, "score": score, "curve": curve}
    Path("r.yaml").write_text(json.dumps(content))
    assert sentence in refused("run", "r.yaml")
    assert not Path("out").exists()


def test_another_engine_is_another_one_for_every_pool(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: TransformersEngine
) -> None:
    second = own.with_name("second.jsonl")
    second.write_bytes(b"".join(own.read_bytes().splitlines(keepends=True)[::-1]))
    shutil.copytree(own.with_name("pool.jsonl.run"), second.with_name("second.jsonl.run"))
    specs: list[str] = []

    def load(spec: str, **options: Any) -> Any:
        specs.append(spec)
        return tiny

    monkeypatch.setattr("bestofn.models.load_engine", load)
    arguments = ["--engine", "hf:mine", *GOLD, "--limits", 4, "--resamples", 100]
    done("curve", own, second, "-o", tmp_path / "out", *arguments)
    assert set(specs) == {"hf:mine"}


@pytest.mark.usefixtures("here")
def test_a_prompt_longer_than_the_context_is_wrong_and_no_failure_of_the_run() -> None:
    lines("p.jsonl", ({"prompt": p, "answer": "x"} for p in ("Name 4 fruits.", "fox " * 2000)))
    done("sample", "p.jsonl", *SMALL, "-m", 2, "-o", "pool.jsonl", "--keep-tokens")
    limits = ["--verifier", "exact:answer", "--limits", "2"]
    done("score", "pool.jsonl", "--reward", "flip,gold", *limits)
    _, long = pool.read(Path("pool.jsonl"))
    for candidate in long.candidates:
        assert "context holds 512" in str(candidate.error)
        assert candidate.scores["gold"].value == candidate.scores["gold@2"].value == 0
        assert str(candidate.scores["flip"].reason).startswith("no response: ")
    data = json.loads(done("curve", "pool.jsonl", "-o", "out", "--json").stdout)
    assert (data["prompts"], data["left_out"]) == (2, [])
    assert data["proxies"]["flip"]["failed_scores"] == 0.5
