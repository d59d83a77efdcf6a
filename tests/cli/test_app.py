"""What all commands share."""

from math import nan

import pytest

from bestofn.progress import pool_progress
from bestofn.prompts import as_prompt
from bestofn.types import Candidate, Pool, Score


def told(capsys: pytest.CaptureFixture[str], what: str, *candidates: Candidate) -> str:
    pools = iter([Pool(as_prompt("p"), list(candidates))])
    assert len(list(pool_progress(pools, 1, what))) == 1
    return capsys.readouterr().err


def test_the_commonest_reason_of_failed_draws_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    gone = [Candidate(i, "", finish_reason="error", error="[gone]") for i in range(2)]
    other = Candidate(2, "", finish_reason="error", error="too long")
    text = told(capsys, "drawing", *gone, other, Candidate(3, "good"))
    assert text == "drawing: 4 candidates, 75.0% failed, most often: [gone]\n"


def test_the_commonest_reason_of_failed_scores_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    scores = {"flip": Score(nan, reason="no parse"), "other": Score(nan, reason="not asked for")}
    assert told(capsys, "scoring flip", Candidate(0, "a", scores=scores)) == (
        "scoring flip: 1 candidates, 100.0% failed, most often: no parse\n"
    )


def test_without_failures_no_reason_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, "scoring flip", Candidate(0, "a", scores={"flip": Score(0.5)}))
    assert text == "scoring flip: 1 candidates, 0.0% failed\n"
