"""From prompts to curves on the command line, with the embedded model."""

import csv
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from making import made, written
from typer.testing import CliRunner, Result

from bestofn.cli import app
from bestofn.engines.base import load_engine
from bestofn.engines.hf import TransformersEngine
from bestofn.store import pool

RUNNER = CliRunner()


def bestofn(*arguments: object) -> Result:
    return RUNNER.invoke(app, [str(argument) for argument in arguments])


def done(*arguments: object) -> Result:
    result = bestofn(*arguments)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module", autouse=True)
def _one_model(tiny: TransformersEngine) -> Iterator[None]:
    """Commands share a loaded model, so that they differ in nothing but time."""

    def load(spec: str, **options: Any) -> Any:
        return tiny if spec == "tiny" and not options else load_engine(spec, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bestofn.config.load_engine", load)
        patch.setattr(tiny, "close", lambda: None)
        yield


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pool file of six prompts, with all scores."""
    path = tmp_path_factory.mktemp("runs") / "pool.jsonl"
    done(
        "sample",
        "tiny:6",
        "--engine",
        "tiny",
        "-m",
        4,
        "-o",
        path,
        "--seed",
        0,
        "--max-tokens",
        60,
        "--keep-tokens",
    )
    done(
        "score", path, "--reward", "flip,flip-likelihood", "--reward", "gold", "--verifier", "tiny"
    )
    return path


@pytest.fixture
def own(scored: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    shutil.copy(scored, tmp_path / "pool.jsonl")
    shutil.copytree(scored.with_name("pool.jsonl.run"), tmp_path / "pool.jsonl.run")
    return tmp_path / "pool.jsonl"


# --- from prompts to curves -----------------------------------------------------------------------


def test_sampled_and_scored(scored: Path) -> None:
    rows = list(pool.read(scored))
    assert [len(row.candidates) for row in rows] == [4] * 6
    for row in rows:
        assert {*row.seconds} == {"sample", "flip", "flip-likelihood", "gold"}
        for candidate in row.candidates:
            assert {*candidate.scores} == {"flip", "flip-likelihood", "gold"}
            assert candidate.token_ids is not None
            assert candidate.scores["gold"].value in (0, 1)


def test_only_what_was_asked_for_goes_to_stdout(tmp_path: Path) -> None:
    result = done(
        "sample",
        "tiny:1",
        "--engine",
        "tiny",
        "-m",
        1,
        "-o",
        tmp_path / "pool.jsonl",
        "--max-tokens",
        4,
    )
    assert result.stdout == ""
    assert "drawing: 1 candidate, 0.0% failed" in result.stderr


def test_sampling_again_changes_nothing(own: Path) -> None:
    before = own.read_bytes()
    arguments = ["-m", 4, "--seed", 0, "--max-tokens", 60, "--keep-tokens", "-o", own]
    done("sample", "tiny:6", "--engine", "tiny", *arguments)
    assert own.read_bytes() == before
    result = bestofn("sample", "tiny:6", "--engine", "tiny", *arguments, "--temperature", 0.5)
    assert result.exit_code == 2
    assert "temperature was 1.0 and is 0.5" in result.stderr


def test_scoring_again_changes_nothing(own: Path) -> None:
    before = own.read_bytes()
    done("score", own, "--reward", "flip,gold", "--verifier", "tiny")
    assert own.read_bytes() == before


def test_a_prompt_that_stands_twice_is_told(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "Name 4 fruits."}\n' * 3)
    arguments = ["--engine", "tiny", "-m", 1, "--max-tokens", 4, "-o", tmp_path / "pool.jsonl"]
    result = done("sample", tmp_path / "p.jsonl", *arguments)
    assert "2 prompts are in" in result.stderr
    assert len(list(pool.read(tmp_path / "pool.jsonl"))) == 1


def test_a_recipe_tells_of_a_prompt_that_stands_twice(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "Name a fruit."}\n{"prompt": "Name a day."}\n' * 2)
    recipe = tmp_path / "recipe.yaml"
    sample = {"engine": "tiny", "prompts": str(prompts), "m": 2, "max_tokens": 8}
    score = {"rewards": ["longest", {"reward": "shortest", "name": "gold"}]}
    recipe.write_text(json.dumps({"output": str(tmp_path), "sample": sample, "score": score}))
    assert "2 prompts are in" in done("run", recipe).output


def test_a_curve_is_shown_and_written(scored: Path, tmp_path: Path) -> None:
    result = done("curve", scored, "-o", tmp_path / "out", "--title", "My title")
    assert "gold by N, 6 prompts" in result.stdout
    assert "random candidate" in " ".join(result.stdout.split())
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "curve.json", "curve.csv", "scaling.svg", "scaling.png", "lengths.svg", "lengths.png",
    }  # fmt: skip
    assert "My title" in (tmp_path / "out" / "scaling.svg").read_text()


def test_the_json_of_a_curve_is_what_is_in_its_file(scored: Path, tmp_path: Path) -> None:
    arguments = ["--ns", "4,1", "--proxy", "flip,random,oracle", "--resamples", 100]
    result = done("curve", scored, "-o", tmp_path, "--json", *arguments)
    data = json.loads(result.stdout)
    assert data == json.loads((tmp_path / "curve.json").read_text())
    assert (data["ns"], [*data["proxies"]]) == ([1, 4], ["flip", "random", "oracle"])
    gold = {name: proxy["gold"]["mean"] for name, proxy in data["proxies"].items()}
    assert gold["flip"][0] == pytest.approx(gold["random"][0])
    assert gold["random"][1] <= gold["oracle"][1]
    with (tmp_path / "curve.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 6


def test_limits_score_what_is_missing_first(own: Path, tmp_path: Path) -> None:
    limits = ["--limits", "4,12", "--verifier", "tiny", "--proxy", "flip,random"]
    arguments = ["-o", tmp_path / "out", *limits, "--json"]
    data = json.loads(done("curve", own, *arguments).stdout)
    assert data["lengths"]["limits"] == [4, 12]
    assert {*data["lengths"]["rewards"]} == {"flip"}
    assert data["lengths"]["rewards"]["flip"]["cut"] is not None
    for row in pool.read(own):
        for candidate in row.candidates:
            assert {"flip@4", "flip@12", "gold@4"} <= candidate.scores.keys()
    before = own.read_bytes()
    done("curve", own, *arguments)
    assert own.read_bytes() == before


def test_several_pools_are_seeds(scored: Path, own: Path, tmp_path: Path) -> None:
    # The same candidates in another order of rows, so that the seeds scatter by nothing.
    own.write_text("".join(own.read_text("utf-8").splitlines(keepends=True)[::-1]), "utf-8")
    data = json.loads(done("curve", scored, own, "-o", tmp_path / "out", "--json").stdout)
    assert data["seeds"] == 2
    assert len(data["pools"]) == 2
    noise = data["proxies"]["flip"]["noise"]
    assert noise["low"] == pytest.approx(noise["high"])


def test_the_same_file_twice_is_no_second_seed(scored: Path, tmp_path: Path) -> None:
    result = bestofn("curve", scored, scored, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "the same pool is given twice" in result.stderr


def test_a_recipe_is_checked_before_anything_is_drawn(tmp_path: Path) -> None:
    sample = {"engine": "tiny", "prompts": "tiny:3", "m": 2}
    made = {"rewards": ["flip", "gold"], "verifier": "tiny"}
    for score, curve, sentence in [
        ({"rewards": ["flipp"]}, {}, "did you mean 'flip'?"),
        ({"rewards": ["flip", "gold"]}, {}, "needs a verifier"),
        ({"rewards": ["gold"], "verifier": "exact"}, {}, "no verifier 'exact'"),
        ({"rewards": ["longest"]}, {"answer": "nothing"}, "no verifier 'nothing'"),
        ({"rewards": ["longest"]}, {"ns": [1, 4]}, "N=4 needs more than m=2"),
        ({"rewards": ["flip"]}, {}, "needs 'gold', which nothing makes; known are flip"),
        (made, {"proxies": ["longest", "weighted:flop"]}, "'weighted:flop', which nothing makes"),
        (made, {"proxies": ["mean-logprobs"]}, "did you mean 'mean-logprob'?"),
    ]:
        recipe = tmp_path / "recipe.yaml"
        output = tmp_path / "out"
        content = {"output": str(output), "sample": sample, "score": score, "curve": curve}
        recipe.write_text(json.dumps(content))
        result = bestofn("run", recipe)
        assert result.exit_code == 2
        assert sentence in " ".join(result.stderr.split())
        assert not output.exists()


def test_an_output_folder_may_be_a_link(scored: Path, tmp_path: Path) -> None:
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    done("curve", scored, "-o", tmp_path / "link")
    done("report", tmp_path / "link", "-o", tmp_path / "page.html")


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

    monkeypatch.setattr("bestofn.config.load_engine", load)
    cuts = ["--reward", "gold", "--verifier", "tiny", "--limits", 4]
    arguments = ["--engine", "hf:mine", *cuts, "--resamples", 100]
    done("curve", own, second, "-o", tmp_path / "out", *arguments)
    assert set(specs) == {"hf:mine"}


def test_rows_that_cannot_be_used_end_a_curve_or_are_named(own: Path, tmp_path: Path) -> None:
    with own.open("a") as file:
        file.write("{\n")
    result = bestofn("curve", own, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "line 7: not JSON" in result.stderr
    arguments = ["-o", tmp_path / "out", "--bad-rows", "skip", "--json"]
    data = json.loads(done("curve", own, *arguments).stdout)
    assert data["prompts"] == 6
    (left_out,) = data["left_out"]
    assert left_out["id"] == str(own)
    assert "line 7: not JSON" in left_out["reason"]
    assert "1 prompt is left out" in " ".join(data["summary"])

    page = tmp_path / "report.html"
    done("report", tmp_path / "out", "-o", page)
    with own.open("a") as file:
        file.write('{"id": "more"}\n')
    refused(bestofn("report", tmp_path / "out", "-o", page), "line 8: the row has no field")


# --- what goes wrong ------------------------------------------------------------------------------


def refused(result: Result, sentence: str) -> None:
    assert result.exit_code == 2, result.output
    assert sentence in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["none.jsonl"], "there is no file none.jsonl"),
        (["tiny:x"], "'tiny:COUNT', not 'tiny:x'"),
        (["tiny:2", "-m", "0"], "m must be at least 1, not 0"),
        (["tiny:2", "--temperature", "-1"], "temperature must be at least 0"),
        (["tiny:2", "--engine", "nonesuch"], "no engine 'nonesuch'"),
        (["tiny:2", "--engine", "hf:./nowhere"], "no such folder"),
        (["tiny:2", "--engine-arg", "nonesuch=1"], "nonesuch"),
        (["tiny:2", "--engine-option", "nonesuch=1"], "nonesuch"),
        (["bad.jsonl"], "bad.jsonl, line 7: not JSON"),
        (["bad.jsonl", "--limit", "3", "--prompt-column", "question"], "no column 'question'"),
        (["empty.jsonl"], "empty.jsonl, line 2: column 'prompt': the prompt is empty"),
    ],
)
def test_what_cannot_be_sampled(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [json.dumps({"prompt": f"Name {n} fruits."}) for n in range(2, 10)]
    rows[6] = rows[6][:-1]
    Path("bad.jsonl").write_text("\n".join(rows))
    Path("empty.jsonl").write_text('{"prompt": "x"}\n{"prompt": ""}\n')
    refused(bestofn("sample", "--engine", "tiny", *arguments, "-o", "pool.jsonl"), sentence)
    assert not [file for file in tmp_path.glob("pool.jsonl") if file.stat().st_size]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["pool.jsonl", "--reward", "filp"], "no reward 'filp'; did you mean 'flip'?"),
        (["pool.jsonl"], "name at least one reward"),
        (["none.jsonl", "--reward", "flip"], "the pool none.jsonl cannot be read"),
        (["bad.jsonl", "--reward", "longest"], "bad.jsonl, line 7: not JSON"),
        (["plain.jsonl", "--reward", "flip"], "give --engine"),
        (["plain.jsonl", "--reward", "gold"], "the reward 'gold' needs a verifier"),
        (["plain.jsonl", "--reward", "gold", "--verifier", "nonesuch"], "no verifier 'nonesuch'"),
        (["plain.jsonl", "--reward", "gold", "--verifier", "exact:x"], "has no column 'x'"),
        (
            ["plain.jsonl", "--reward", "flip", "--limits", "2", "--engine", "tiny"],
            "draw the pool with keep_tokens",
        ),
        (["plain.jsonl", "--reward", "flip", "--reward-engine", "x"], "no engine 'x'"),
    ],
)
def test_what_cannot_be_scored(
    arguments: list[str], sentence: str, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own.parent)
    own.with_name("bad.jsonl").write_bytes(own.read_bytes() + b"{\n")
    written(own.with_name("plain.jsonl"), [made("a", {"longest": [1.0, 2.0]})])
    before = own.read_bytes()
    refused(bestofn("score", *arguments), sentence)
    assert own.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["none.jsonl"], "the pool none.jsonl cannot be read"),
        (["none.jsonl", "--limits", "4"], "the pool none.jsonl cannot be read"),
        (["empty.jsonl"], "the pool empty.jsonl has no rows"),
        (["empty.jsonl", "--limits", "4"], "the pool empty.jsonl has no rows"),
        (["pool.jsonl", "--ns", "5"], "4 candidates are too few for N=5"),
        (["pool.jsonl", "--gold", "truth"], "no score 'truth', only flip, flip-likelihood, gold"),
        (["pool.jsonl", "--proxy", "flop"], "has no score 'flop'"),
        (["pool.jsonl", "--proxy", "weighted:flip-likelihood"], "has negative values"),
        (["pool.jsonl", "--answer", "nonesuch"], "no verifier 'nonesuch'"),
        (["pool.jsonl", "--bad-rows", "x"], "the key 'bad_rows' is wrong"),
    ],
)
def test_what_has_no_curve(
    arguments: list[str], sentence: str, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own.parent)
    Path("empty.jsonl").write_text("")
    refused(bestofn("curve", *arguments, "-o", "out"), sentence)
    assert not Path("out", "curve.json").exists()


def test_a_prompt_longer_than_the_context_is_wrong_and_no_failure_of_the_run(
    tmp_path: Path,
) -> None:
    prompts = tmp_path / "p.jsonl"
    rows = [{"prompt": "Name 4 fruits.", "answer": "x"}, {"prompt": "fox " * 2000, "answer": "x"}]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "pool.jsonl"
    done(
        "sample",
        prompts,
        "--engine",
        "tiny",
        "-m",
        2,
        "-o",
        path,
        "--max-tokens",
        8,
        "--keep-tokens",
    )
    verifier = ["--verifier", "exact:answer", "--limits", "2"]
    done("score", path, "--reward", "flip,gold", *verifier)
    _, long = pool.read(path)
    for candidate in long.candidates:
        assert candidate.finish_reason == "error"
        assert "context holds 512" in str(candidate.error)
        assert candidate.scores["gold"].value == candidate.scores["gold@2"].value == 0
        assert re.match("no response: ", str(candidate.scores["flip"].reason))
    data = json.loads(done("curve", path, "-o", tmp_path / "out", "--json").stdout)
    assert (data["prompts"], data["left_out"]) == (2, [])
    assert data["proxies"]["flip"]["failed_scores"] == 0.5


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    command = ["sample", "tiny:2", "--engine", "tiny", "-m", 0, "-o", tmp_path / "x"]
    result = bestofn(*command, "--debug")
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert "m must be at least 1" in result.stderr


@pytest.mark.parametrize("again", [[], ["--again"]])
def test_gold_without_a_verifier_is_refused_before_anything_is_scored(
    tmp_path: Path, again: list[str]
) -> None:
    path = tmp_path / "pool.jsonl"
    done("sample", "tiny:1", "--engine", "tiny", "-m", 2, "--max-tokens", 8, "-o", path)
    before = path.read_bytes()
    score = ["score", path, "--reward", "flip-likelihood,gold", *again]
    result = CliRunner().invoke(app, [str(part) for part in score])
    assert result.exit_code == 2
    assert "the reward 'gold' needs a verifier" in result.output
    assert path.read_bytes() == before
