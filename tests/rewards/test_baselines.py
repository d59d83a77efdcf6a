"""Baselines, weighted sums, and options of several rewards at once."""

from collections import Counter
from collections.abc import Callable
from math import isnan, nan

import pytest
from fakes import scores_of

from bestofn import concurrency
from bestofn.errors import ConfigError
from bestofn.prompts import as_prompt, as_turns
from bestofn.rewards.base import load_reward, share
from bestofn.rewards.baselines import (
    First,
    Longest,
    Majority,
    MeanLogprob,
    Overlap,
    RandomChoice,
    Shortest,
)
from bestofn.sampler import choose
from bestofn.scoring import RewardModel
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
    scores_of(reward, drawn, PROMPT)
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
    assert drawn[0].scores[reward.name].reason == "no response: it broke"


def test_overlap_is_the_word_f1_with_the_last_turn() -> None:
    prompt = as_prompt([{"role": "system", "content": "Be brief."}, *as_turns(PROMPT.messages)])
    drawn = [Candidate(0, "I add 2 and 3."), Candidate(1, "Be brief.")]
    values = [score.value for score in scores_of(Overlap(), drawn, prompt)]
    assert values == [pytest.approx(2 * 4 / (5 + 4)), 0.0]


def test_random_is_fair_and_reproducible() -> None:
    counts = Counter()
    for seed in range(600):
        counts[choose(PROMPT, scored(RandomChoice(seed)), "random").index] += 1
    assert set(counts) == {1, 2, 3}
    assert min(counts.values()) > 150
    first, second = (scored(RandomChoice(7)) for _ in range(2))
    assert [c.scores for c in first[1:]] == [c.scores for c in second[1:]]


class Fixed(First):
    def __init__(self, name: str, score: Score, pointwise: bool = True) -> None:
        self.name, self.fixed, self.pointwise = name, score, pointwise

    async def score(self, prompt: object, drawn: object) -> list[Score]:
        return [self.fixed]


def test_weighted_sums() -> None:
    a = Fixed("a", Score(2.0, inferred=["x"], flags=["f"], usage=Usage(prompt_tokens=1)))
    b = Fixed("b", Score(4.0, flags=["f", "g"], usage=Usage(prompt_tokens=2)))
    total = a + 0.5 * b
    (score,) = concurrency.run(total.score(PROMPT, [Candidate(0, "x")]))
    assert total.name == "a + 0.5 * b"
    assert score == Score(4.0, inferred=["x"], flags=["f", "g"], usage=Usage(prompt_tokens=3))
    assert (2 * (a + b)).terms == ((2.0, a), (2.0, b))
    assert total.pointwise
    assert not (a + Fixed("c", Score(1.0), pointwise=False)).pointwise
    failed = Fixed("b", Score(nan, "no JSON", counts={"calls": 1}))
    (score,) = concurrency.run((total + failed).score(PROMPT, [Candidate(0, "x")]))
    assert isnan(score.value)
    assert (score.reason, score.counts) == ("b: no JSON", {"calls": 1})


def test_a_setwise_sum_asks_its_pointwise_terms_once_for_equal_responses() -> None:
    asked = []

    class Counting(Fixed):
        async def score(self, prompt: object, drawn: list[Candidate]) -> list[Score]:
            asked.append([candidate.text for candidate in drawn])
            return [Score(1.0)]

    total = Counting("a", Score(1.0)) + Majority()
    drawn = [Candidate(i, text) for i, text in enumerate(["x", "y", "x", "x"])]
    scores = concurrency.run(total.score(PROMPT, drawn))
    assert sorted(asked) == [["x"], ["y"]]
    assert [score.value for score in scores] == [4, 2, 4, 4]
    assert not any(candidate.scores for candidate in drawn)


class OfOnesOwn:
    name = "own"
    pointwise = True

    async def score(self, prompt: object, drawn: list[Candidate]) -> list[Score]:
        return [Score(3.0) for _ in drawn]


def test_rewards_add_up_as_numbers_do() -> None:
    a, b, own = Fixed("a", Score(2.0)), Fixed("b", Score(4.0)), OfOnesOwn()
    assert sum([a, b]).terms == ((1.0, a), (1.0, b))
    assert sum([a]) is a
    assert (a - 0.5 * b).terms == ((1.0, a), (-0.5, b))
    assert (-(a + b)).terms == ((-1.0, a), (-1.0, b))
    assert (a * 2).terms == ((2.0, a),)
    assert (own + a).terms == ((1.0, own), (1.0, a))
    assert (a + own).terms == ((1.0, a), (1.0, own))
    (score,) = concurrency.run((a - 0.5 * b).score(PROMPT, [Candidate(0, "x")]))
    assert score.value == 0


@pytest.mark.parametrize("sum_up", [lambda a: a + 1, lambda a: 1 + a, lambda a: a * "2"])
def test_a_reward_and_something_else_do_not_add_up(sum_up: Callable[[First], object]) -> None:
    with pytest.raises(TypeError, match=r"unsupported operand|can't multiply"):
        sum_up(First())


# --- what is compared -----------------------------------------------------------------------------


def mixed() -> list[Candidate]:
    return [Candidate(0, "a" * 30), Candidate(1, "b" * 9, token_count=40), failed_one(2)]


def failed_one(index: int) -> Candidate:
    return Candidate(index, "", finish_reason="error", error="it broke")


@pytest.mark.parametrize(("reward", "sign"), [(Longest(), 1), (Shortest(), -1)])
def test_lengths_of_one_prompt_have_one_unit(reward: RewardModel, sign: int) -> None:
    scores = scores_of(reward, mixed(), PROMPT)
    assert [score.value for score in scores[:2]] == [sign * 30, sign * 9]
    assert [score.flags for score in scores[:2]] == [["length_in_characters"]] * 2
    assert scores[2].reason == "no response: it broke"
    counted = [Candidate(0, "aaa", token_count=2), Candidate(1, "b", token_count=5), failed_one(2)]
    scores = scores_of(reward, counted, PROMPT)
    assert [(score.value, score.flags) for score in scores[:2]] == [(sign * 2, []), (sign * 5, [])]


def test_votes_compare_what_a_verifier_of_that_name_reads() -> None:
    pytest.importorskip("math_verify")
    drawn = [Candidate(i, f"The answer is {x}.") for i, x in enumerate(["1/2", "3", "0.5"])]
    reward = load_reward("majority", answer="math")
    assert [score.value for score in scores_of(reward, drawn, PROMPT)] == [2, 1, 2]
    by_text = scores_of(Majority("exact:x"), drawn, PROMPT)
    assert [score.value for score in by_text] == [1, 1, 1]


# --- options of several rewards -------------------------------------------------------------------

REWARDS = {"flip": "flip", "mine-0.5": "flip", "pointwise": "pointwise", "first": "first"}


def test_an_option_is_for_each_reward_that_takes_it_or_for_one_which_wins() -> None:
    shares = share({"mine-0.5.samples": 2, "samples": 4, "similarity": "rouge_l"}, REWARDS)
    assert shares == {
        "flip": {"samples": 4, "similarity": "rouge_l"},
        "mine-0.5": {"samples": 2, "similarity": "rouge_l"},
        "pointwise": {"samples": 4},
        "first": {},
    }
    passed_on = share({"dtype": "float32", "max_tokens": 9}, {"flip": "flip", "scalar": "scalar"})
    assert passed_on == {"flip": {"max_tokens": 9}, "scalar": {"dtype": "float32"}}


@pytest.mark.parametrize(
    ("option", "rewards", "sentence"),
    [
        ("sample", REWARDS, "(flip, mine-0.5, pointwise, first) has an option 'sample'; did you"),
        ("first.samples", REWARDS, "has an option 'first.samples'; known are none"),
        ("listwise.samples", REWARDS, "no reward is called 'listwise', as 'listwise.samples'"),
        ("samples", {}, "'samples' is an option of a reward; name the reward as well"),
    ],
)
def test_an_option_that_no_reward_takes_is_refused(
    option: str, rewards: dict[str, str], sentence: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        share({option: 1}, rewards)
    assert sentence in str(caught.value)
