"""The gold verdict as a reward."""

from math import inf, nan

import numpy as np
import pytest
from fakes import scores_of

from bestofn.prompts import as_prompt
from bestofn.rewards.gold import Gold
from bestofn.scoring import RewardModel
from bestofn.types import Candidate, Prompt
from bestofn.verifiers import Verifier, load_verifier

PROMPT = as_prompt("What is two and three?", columns={"answer": "5"})


class Returns(Verifier):
    """Gives what it was made with, whatever the response."""

    def __init__(self, verdict: object) -> None:
        self.verdict = verdict

    def __call__(self, prompt: Prompt, response: str) -> bool | float:
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict  # type: ignore[return-value]


def test_verdicts_are_scores() -> None:
    drawn = [
        Candidate(0, "5"),
        Candidate(1, "6"),
        Candidate(2, "", finish_reason="error", error="it broke"),
        Candidate(3, " 5\n", finish_reason="length"),
    ]
    reward = Gold(load_verifier("exact:answer"), name="right")
    assert isinstance(reward, RewardModel)
    scores = scores_of(reward, drawn, PROMPT)
    assert [(score.value, score.reason) for score in scores] == [
        (1, None),
        (0, None),
        (0, None),
        (1, None),
    ]


@pytest.mark.parametrize(
    ("verdict", "value", "reason"),
    [
        (0.25, 0.25, None),
        (np.float32(0.5), 0.5, None),
        (np.True_, 1, None),
        (inf, nan, "verifier: inf is no finite number"),
        (None, nan, "verifier: None is no finite number"),
        ("1", nan, "verifier: '1' is no finite number"),
        (ValueError("odd"), nan, "verifier: ValueError: odd"),
    ],
)
def test_a_verdict_is_a_number_or_a_failure(
    verdict: object, value: float, reason: str | None
) -> None:
    (score,) = scores_of(Gold(Returns(verdict)), [Candidate(0, "x")], PROMPT)
    assert score.value == pytest.approx(value, nan_ok=True)
    assert score.reason == reason
