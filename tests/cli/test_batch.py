"""`bestofn export` on the command line."""

import json
from math import nan
from pathlib import Path

import pytest
from making import made, written
from typer.testing import CliRunner, Result

from bestofn.cli import app
from bestofn.sampler import choose


def bestofn(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    pools = [
        made("clear", {"flip": [0.25, 0.75], "gold": [1.0, 0.0]}),
        made("close", {"flip": [0.5, 0.625], "gold": [1.0, 0.0]}),
        made("failed", {"flip": [nan, nan], "gold": [0.0, 0.0]}),
    ]
    rows = [choose(pool.prompt, pool.candidates, "flip") for pool in pools]
    return written(tmp_path / "rows.jsonl", rows)


def test_it_says_what_it_wrote_and_left_out(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "pairs.jsonl"
    result = bestofn("export", source, "-o", target, "--keep", "preference", "--min-margin", 0.5)
    assert result.exit_code == 0, result.output
    told = " ".join(result.stderr.split())
    assert "wrote 1 record to" in told
    assert "left out 1 row whose best and worst score are equal, or closer than the margin" in told
    assert "left out 1 row with fewer than two responses that have a score" in told
    assert len(target.read_text().splitlines()) == 1


def test_json_is_one_object(source: Path, tmp_path: Path) -> None:
    result = bestofn("export", source, "-o", tmp_path / "d", "--format", "hf", "--json")
    assert json.loads(result.stdout) == {"records": 3, "left_out": {}}
    assert result.stderr == ""


def test_another_reward_chooses(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "best.csv"
    assert bestofn("export", source, "-o", target, "--reward", "gold").exit_code == 0
    assert "response 0 to clear" in target.read_text()


def test_errors_are_one_sentence(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "best.csv"
    target.write_text("mine")
    result = bestofn("export", source, "-o", target)
    assert result.exit_code == 2
    assert "exists; write to another place" in result.stderr
    assert target.read_text() == "mine"
    assert bestofn("export", source, "-o", target, "--overwrite").exit_code == 0
    assert bestofn("export", source, "-o", target, "--keep", "worst").exit_code == 2
