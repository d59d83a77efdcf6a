"""`bestofn select` and `bestofn export` on the command line."""

import json
from math import nan
from pathlib import Path

import pytest
from commands import TINY, done, lines, refused, rows_of
from making import made, written

from bestofn.sampler import choose

SMALL = [*TINY, "-n", 2, "--max-tokens", 12, "--seed", 0]
SELECT = ["select", "tiny:2", "-o", "out.jsonl", *SMALL]

pytestmark = pytest.mark.usefixtures("one_model", "here")


def test_rows_a_summary_and_the_status() -> None:
    assert "2 rows finished\n4 candidates" in done(*SELECT).stdout
    assert [len(row["candidates"]) for row in rows_of("out.jsonl")] == [2, 2]
    summary = json.loads(done(*SELECT, "--json").stdout)
    assert (summary["rows"], summary["earlier"], summary["candidates"]) == (2, 2, 4)
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    told = done("select", "-o", "out.jsonl", "--status").stdout
    assert "out.jsonl: no run writes it\n2 rows finished\n" in told
    status = json.loads(done("select", "-o", "out.jsonl", "--status", "--json").stdout)
    assert (status["rows"], status["running"]) == (2, False)
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


def test_fresh_begins_beside() -> None:
    done(*SELECT)
    before = Path("out.jsonl").read_bytes()
    said = refused(*SELECT, "--temperature", 0.5)
    assert "temperature was 1.0 and is 0.5" in said
    assert "--fresh" in said
    done(*SELECT, "--temperature", 0.5, "--fresh")
    assert Path("out.jsonl").read_bytes() == before
    assert len(rows_of("out-2.jsonl")) == 2


def test_a_rerun_with_a_higher_limit_and_an_export() -> None:
    done(*SELECT, "--limit", 1)
    before = Path("out.jsonl").read_bytes()
    done(*SELECT, "--format", "csv")
    assert Path("out.jsonl").read_bytes().startswith(before)
    assert len(rows_of("out.jsonl")) == 2
    done(*SELECT, "--format", "csv")  # an earlier export of these rows is replaced
    assert Path("out.csv").read_text().count("\n") >= 3


def test_an_export_replaces_no_input() -> None:
    table = Path("out.csv")
    table.write_text("prompt\nName 2 fruits.\n")
    arguments = ["select", table, "-o", "out.jsonl", *SMALL]
    for _ in range(2):
        assert "the export would replace it" in refused(*arguments, "--format", "csv")
        assert table.read_text() == "prompt\nName 2 fruits.\n"
        done(*arguments)


def test_status_tells_what_adaptive_n_saves() -> None:
    line = ["select", "tiny:4", "-o", "out.jsonl", *SMALL, "-n", 6, "--adaptive", 0.5]
    (saved,) = [line for line in done(*line).stdout.splitlines() if " of 24 saved" in line]
    assert saved in done("select", "-o", "out.jsonl", "--status").stdout


def test_other_ways_to_choose_and_an_early_end_are_in_the_row_and_the_settings() -> None:
    line = ["select", "tiny:3", "-o", "out.jsonl", *SMALL, "-n", 6, "--max-tokens", 40]
    early = [*line, "--reject", "4,8", "--selector", "mob", "--confidence", 5]
    said = done(*early).stdout
    assert "rejected early" in said
    assert said.splitlines()[1:2] == [s for s in said.splitlines() if "0.0% failed" in s]
    for row in rows_of("out.jsonl"):
        rejected = [c for c in row["candidates"] if c["finish_reason"] == "rejected"]
        assert all("rejected at" in c["scores"]["flip-likelihood"]["reason"] for c in rejected)
        assert all(c["text"] and c["error"] is None for c in rejected if "error" in c)
        assert row["index"] not in [c["index"] for c in rejected]
        assert all(len(c["token_confidences"]) == c["token_count"] for c in row["candidates"])
    told = refused(*line, "--reject", "4,8", "--reject-keep", 0.75, "--confidence", 5)
    assert "reject_keep was 0.5 and is 0.75" in told
    assert 'selector was "mob" and is "best"' in told
    before = Path("out.jsonl").read_bytes()
    done(*early)
    assert Path("out.jsonl").read_bytes() == before


# --- export ---------------------------------------------------------------------------------------


@pytest.fixture
def source(here: Path) -> Path:
    pools = [
        made("clear", {"flip": [0.25, 0.75], "gold": [1.0, 0.0]}),
        made("close", {"flip": [0.5, 0.625], "gold": [1.0, 0.0]}),
        made("failed", {"flip": [nan, nan], "gold": [0.0, 0.0]}),
    ]
    rows = [choose(pool.prompt, pool.candidates, "flip") for pool in pools]
    return written(here / "rows.jsonl", rows)


def test_an_export_says_what_it_wrote_and_left_out(source: Path) -> None:
    pairs = ["-o", "pairs.jsonl", "--keep", "preference", "--min-margin", 0.5]
    told = " ".join(done("export", source, *pairs).stderr.split())
    assert "wrote 1 record to" in told
    assert "left out 1 row whose best and worst score are equal, or closer than the margin" in told
    assert "left out 1 row with fewer than two responses that have a score" in told
    assert len(rows_of("pairs.jsonl")) == 1
    result = done("export", source, "-o", "d", "--format", "hf", "--json")
    assert json.loads(result.stdout) == {"records": 3, "left_out": {}}
    assert result.stderr == ""


def test_another_reward_chooses_and_an_output_is_kept(source: Path) -> None:
    export = ["export", source, "-o", "best.csv", "--reward", "gold"]
    done(*export)
    assert "response 0 to clear" in Path("best.csv").read_text()
    assert "exists; write to another place" in refused(*export)
    done(*export, "--overwrite")


def test_an_exported_folder_is_selected_from() -> None:
    pytest.importorskip("datasets")
    lines("in.jsonl", [{"prompt": "Name 4 fruits.", "level": 3}])
    done("select", "in.jsonl", "-o", "out.jsonl", *SMALL)
    done("export", "out.jsonl", "-o", "folder", "--format", "hf")
    done("select", "folder", "-o", "again.jsonl", "--id-column", "id", *SMALL)
    (first,), (second,) = rows_of("out.jsonl"), rows_of("again.jsonl")
    assert (second["id"], second["prompt"]) == (first["id"], first["prompt"])
    assert second["columns"]["level"] == 3
    assert second["columns"]["response"] == first["response"]
