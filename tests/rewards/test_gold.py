"""The gold verdict as a reward."""

import asyncio
import threading
from math import inf, isnan, nan

import numpy as np
import pytest

from bestofn import concurrency
from bestofn.prompts import as_prompt
from bestofn.rewards.gold import Gold
from bestofn.scoring import RewardModel, add_scores
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
    assert reward.pointwise
    concurrency.run(add_scores(PROMPT, drawn, reward))
    assert [candidate.scores["right"].value for candidate in drawn] == [1, 0, 0, 1]
    assert {candidate.scores["right"].reason for candidate in drawn} == {None}


@pytest.mark.parametrize(
    ("verdict", "value"),
    [(True, 1), (False, 0), (0.25, 0.25), (2, 2), (np.float32(0.5), 0.5), (np.True_, 1)],
)
def test_numbers(verdict: object, value: float) -> None:
    (score,) = concurrency.run(Gold(Returns(verdict)).score(PROMPT, [Candidate(0, "x")]))
    assert (score.value, score.reason) == (value, None)


@pytest.mark.parametrize(
    ("verdict", "reason"),
    [
        (nan, "verifier: nan is no finite number"),
        (inf, "verifier: inf is no finite number"),
        (None, "verifier: None is no finite number"),
        ("1", "verifier: '1' is no finite number"),
        (ZeroDivisionError("by nothing"), "verifier: ZeroDivisionError: by nothing"),
        (ValueError("odd"), "verifier: ValueError: odd"),
    ],
)
def test_failures_are_data(verdict: object, reason: str) -> None:
    (score,) = concurrency.run(Gold(Returns(verdict)).score(PROMPT, [Candidate(0, "x")]))
    assert isnan(score.value)
    assert score.reason == reason


def test_the_event_loop_goes_on_and_verdicts_take_turns() -> None:
    release = threading.Event()
    running: list[int] = []
    most: list[int] = []

    class Waits(Verifier):
        def __call__(self, prompt: Prompt, response: str) -> bool:
            running.append(1)
            most.append(len(running))
            free = release.wait(timeout=60)
            running.pop()
            return free

    async def released_while_it_waits() -> list[float]:
        reward = Gold(Waits())
        tasks = [
            asyncio.ensure_future(reward.score(PROMPT, [Candidate(i, str(i))])) for i in range(4)
        ]
        while not running:
            await asyncio.sleep(0)
        release.set()
        return [score.value for scores in await asyncio.gather(*tasks) for score in scores]

    # A verifier that held the event loop would never be released, and give 0.
    assert concurrency.run(released_while_it_waits()) == [1, 1, 1, 1]
    assert max(most) == 1
