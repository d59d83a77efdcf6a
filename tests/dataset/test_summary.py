"""What is said at the end of drawing and scoring."""

from math import nan

import pytest

from bestofn.dataset.summary import Summary, bar_of
from bestofn.prompts import as_prompt
from bestofn.store import pool
from bestofn.types import Candidate, Pool, Score

GONE = [Candidate(i, "", finish_reason="error", error="[gone]") for i in range(2)]
DRAWN = [*GONE, Candidate(2, "", finish_reason="error", error="too long"), Candidate(3, "good")]


def test_the_commonest_reason_of_failed_draws_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    summary = Summary()
    with bar_of(summary, 1, "drawing"):
        summary.add(pool.to_row(Pool(as_prompt("p"), DRAWN)))
    line = "drawing: 4 candidates, 75.0% failed, most often: [gone]\n"
    assert capsys.readouterr().err.endswith(line)


@pytest.mark.parametrize(
    ("score", "line"),
    [
        (Score(nan, reason="no parse"), "1 candidate, 100.0% failed, most often: no parse\n"),
        (Score(0.5), "1 candidate, 0.0% failed\n"),
    ],
)
def test_the_commonest_reason_of_failed_scores_is_named(
    capsys: pytest.CaptureFixture[str], score: Score, line: str
) -> None:
    scores = {"flip": score, "other": Score(nan, reason="not asked for")}
    summary = Summary()
    with bar_of(summary, 1, "scoring flip"):
        summary.add_scores(Pool(as_prompt("p"), [Candidate(0, "a", scores=scores)]), ["flip"])
    assert capsys.readouterr().err.endswith(f"scoring flip: {line}")
