"""Baselines and weighted sums."""

import asyncio
from collections import Counter
from math import isnan, nan

import pytest
from fakes import ScriptedEngine

from bestofn import loop
from bestofn.prompts import as_prompt
from bestofn.rewards.base import RewardModel
from bestofn.rewards.baselines import (
    First,
    Longest,
    Majority,
    MeanLogprob,
    RandomChoice,
    Shortest,
)
from bestofn.rewards.flip import FLIPReward
from bestofn.sampler import choose
from bestofn.types import Candidate, Score, Usage

PROMPT = as_prompt("Add 2 and 3.")


def candidates() -> list[Candidate]:
    return [
        Candidate(0, "", finish_reason="error", error="it broke"),
        Candidate(1, "2 + 3 = 6", token_count=9, mean_logprob=-0.5),
        Candidate(2, "2 + 3 = 5", token_count=3, mean_logprob=-0.9),
        Candidate(3, " 2 + 3 = 5\n", token_count=4, mean_logprob=-0.7),
    ]


def scored(reward: RewardModel) -> list[Candidate]:
    drawn = candidates()
    for candidate, score in zip(drawn, loop.run(reward.score(PROMPT, drawn)), strict=True):
        candidate.scores[reward.name] = score
    return drawn


@pytest.mark.parametrize(
    ("reward", "chosen"),
    [
        (First(), 1),
        (Longest(), 1),
        (Shortest(), 2),
        (MeanLogprob(), 1),
        (Majority(), 2),
        (Majority(lambda text: text[-1:]), 1),
    ],
)
def test_choice(reward: RewardModel, chosen: int) -> None:
    drawn = scored(reward)
    assert choose(PROMPT, drawn, reward.name).index == chosen
    failed = drawn[0].scores[reward.name]
    if reward.name == "oracle":
        assert failed.value == 0  # no response at all is a wrong one
    else:
        assert failed.reason == "no response: it broke"


def test_random_is_fair_and_reproducible() -> None:
    counts = Counter()
    for seed in range(600):
        counts[choose(PROMPT, scored(RandomChoice(seed)), "random").index] += 1
    assert set(counts) == {1, 2, 3}
    assert min(counts.values()) > 150
    first, second = (scored(RandomChoice(7)) for _ in range(2))
    assert [c.scores for c in first[1:]] == [c.scores for c in second[1:]]


def test_lengths_fall_back_to_characters() -> None:
    drawn = [Candidate(0, "abc"), Candidate(1, "abcdef")]
    scores = loop.run(Longest().score(PROMPT, drawn))
    assert [score.value for score in scores] == [3, 6]


def test_mean_logprob_without_log_probabilities_fails_with_a_reason() -> None:
    (score,) = loop.run(MeanLogprob().score(PROMPT, [Candidate(0, "x")]))
    assert isnan(score.value)
    assert "log-probabilities" in str(score.reason)


class Fixed(First):
    def __init__(self, name: str, score: Score, pointwise: bool = True) -> None:
        self.name, self.fixed, self.pointwise = name, score, pointwise

    async def score(self, prompt: object, drawn: object) -> list[Score]:
        return [self.fixed]


def test_weighted_sums() -> None:
    a = Fixed("a", Score(2.0, inferred=["x"], flags=["f"], usage=Usage(prompt_tokens=1)))
    b = Fixed("b", Score(4.0, flags=["f", "g"], usage=Usage(prompt_tokens=2)))
    total = a + 0.5 * b
    (score,) = loop.run(total.score(PROMPT, [Candidate(0, "x")]))
    assert total.name == "a + 0.5 * b"
    assert score == Score(4.0, inferred=["x"], flags=["f", "g"], usage=Usage(prompt_tokens=3))
    assert (2 * (a + b)).terms == ((2.0, a), (2.0, b))
    assert total.pointwise
    assert not (a + Fixed("c", Score(1.0), pointwise=False)).pointwise


def test_a_setwise_sum_asks_its_pointwise_terms_once_for_equal_responses() -> None:
    asked = []

    class Counting(Fixed):
        async def score(self, prompt: object, drawn: list[Candidate]) -> list[Score]:
            asked.append([candidate.text for candidate in drawn])
            return [Score(1.0)]

    total = Counting("a", Score(1.0)) + Majority()
    drawn = [Candidate(i, text) for i, text in enumerate(["x", "y", "x", "x"])]
    scores = loop.run(total.score(PROMPT, drawn))
    assert sorted(asked) == [["x"], ["y"]]
    assert [score.value for score in scores] == [4, 2, 4, 4]
    assert not any(candidate.scores for candidate in drawn)


def test_when_a_term_breaks_the_others_are_stopped() -> None:
    engine = ScriptedEngine(delay=lambda _: 30.0)

    class Broken(Fixed):
        async def score(self, prompt: object, drawn: object) -> list[Score]:
            while not engine.running:
                await asyncio.sleep(0.001)
            raise RuntimeError("my own bug")

    total = FLIPReward(engine) + Broken("b", Score(1.0))
    with pytest.raises(RuntimeError, match="my own bug"):
        loop.run(total.score(PROMPT, [Candidate(0, "x")]))
    assert engine.aborted == 1


def test_a_sum_fails_where_a_term_fails() -> None:
    total = Fixed("a", Score(1.0)) + Fixed("b", Score(nan, "no JSON"))
    (score,) = loop.run(total.score(PROMPT, [Candidate(0, "x")]))
    assert isnan(score.value)
    assert score.reason == "b: no JSON"
