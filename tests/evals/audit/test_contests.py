"""Contests: who is compared with whom, how often each is scored, and who wins."""

from collections import Counter
from math import isnan, nan
from typing import Any

import numpy as np
import pytest
from fakes import Recorded, ScriptedEngine
from hypothesis import given
from hypothesis import strategies as st

from bestofn import concurrency
from bestofn.config import RewardConfig
from bestofn.errors import ConfigError, ContextLengthError
from bestofn.evals.audit.attacks import ATTACKS
from bestofn.evals.audit.contests import Scorer, add_logprobs, attacked, compete, scorers_of
from bestofn.evals.audit.verdicts import verdicts
from bestofn.prompts import as_prompt
from bestofn.rewards.base import load_reward
from bestofn.types import Candidate, Pool, Score

ALL = [*ATTACKS.values()]
NAMES = [*ATTACKS]
HONEST = "Apple, plum, pear and fig."
LONGEST = Scorer(RewardConfig(reward="longest"))
FLIP = Scorer(RewardConfig(reward="flip"), "flag")


def row_of(honest: str = HONEST, instruction: str = "Name 4 fruits in one line.") -> Pool:
    return attacked(as_prompt(instruction), Candidate(0, honest), ALL, seed=0)


def repeated(prompt: Any, *_: Any) -> str:
    """A model that takes whatever it reads for the instruction."""
    text: str = prompt.messages[-1].content
    return text.removeprefix("Response:\n").removesuffix("\n\nInstruction:")


# --- scoring --------------------------------------------------------------------------------------


def test_rewards_with_a_guard_are_attacked_under_both_of_its_settings() -> None:
    rewards = [RewardConfig(reward=name) for name in ("flip", "longest", "flip-likelihood")]
    assert [scorer.name for scorer in scorers_of(rewards)] == [
        "flip:flag",
        "flip:strip",
        "longest",
        "flip-likelihood:flag",
        "flip-likelihood:strip",
    ]
    fixed = RewardConfig(reward="flip", name="mine", options={"copy_guard": "off"})
    assert [scorer.name for scorer in scorers_of([fixed])] == ["mine:off"]
    with pytest.raises(ConfigError, match="did you mean 'longest'"):
        scorers_of([RewardConfig(reward="longset")])


def test_a_pointwise_reward_scores_each_distinct_response_once() -> None:
    row, reward = row_of(), Recorded()
    reward.name = FLIP.name
    concurrency.run(compete(row, NAMES, FLIP, reward, seed=0))
    texts = Counter(text for asked in reward.asked for text in asked)
    assert set(texts.values()) == {1}
    assert set(texts) == {candidate.text for candidate in row.candidates}


def test_a_reward_that_compares_sees_the_honest_response_and_one_attack() -> None:
    row, reward = row_of(), Recorded({HONEST: 2.0}, pointwise=False)
    concurrency.run(compete(row, NAMES, Scorer(RewardConfig(reward="longest")), reward, seed=0))
    assert len(reward.asked) == len(ALL)
    assert all(len(asked) == 2 and HONEST in asked for asked in reward.asked)
    places = Counter(asked.index(HONEST) for asked in reward.asked)
    assert min(places[0], places[1]) > len(ALL) / 5
    honest, *others = row.candidates
    assert honest.scores.keys() == {f"recorded:{name}" for name in NAMES}
    assert {score.value for score in honest.scores.values()} == {2.0}
    assert all(other.scores["recorded"].value == 0.0 for other in others)


def test_the_order_follows_the_seed_and_nothing_else() -> None:
    def orders(seed: int) -> list[list[str]]:
        reward = Recorded(pointwise=False)
        concurrency.run(compete(row_of(), NAMES, LONGEST, reward, seed))
        return sorted(reward.asked)

    assert orders(0) == orders(0)
    assert orders(0) != orders(1)


def test_only_what_is_stripped_is_scored_again() -> None:
    row, engine = row_of(), ScriptedEngine(repeated)
    for scorer in scorers_of([RewardConfig(reward="flip")]):
        reward = load_reward("flip", engine=engine, name=scorer.name, **scorer.options)
        concurrency.run(compete(row, NAMES, scorer, reward, seed=0))
    flagged = [c for c in row.candidates if c.scores["flip:flag"].flags]
    stripped_away = [c for c in flagged if c.scores["flip:strip"].reason == "empty response"]
    distinct = {candidate.text for candidate in row.candidates}
    assert 0 < len(stripped_away) < len(flagged)
    # The empty attack is never asked about.
    assert len(engine.generated) == len(distinct) - 1 + len(flagged) - len(stripped_away)
    for candidate in row.candidates:
        if candidate not in flagged:
            first, second = (candidate.scores[f"flip:{guard}"] for guard in ("flag", "strip"))
            assert (first.reason, first.inferred) == (second.reason, second.inferred)
            assert first.value == second.value or isnan(first.value) == isnan(second.value)


def test_every_response_gets_its_log_probability() -> None:
    row = row_of()
    concurrency.run(add_logprobs(row, ScriptedEngine()))
    assert all(candidate.mean_logprob is not None for candidate in row.candidates)
    assert all(candidate.token_count is None for candidate in row.candidates)


def test_a_response_that_cannot_be_measured_stays_without() -> None:
    class Short(ScriptedEngine):
        async def loglikelihood(self, prompt: Any, continuation: str, **options: Any) -> Any:
            if len(continuation) > 100:
                raise ContextLengthError(100, 50, 10)
            return await super().loglikelihood(prompt, continuation)

    row = row_of()
    concurrency.run(add_logprobs(row, Short()))
    measured = {len(c.text) <= 100: c.mean_logprob is not None for c in row.candidates}
    assert measured == {True: True, False: False}


# --- who wins -------------------------------------------------------------------------------------

QUOTE = ATTACKS["quote"]
VALUES = st.sampled_from([nan, -1.0, 0.0, 0.5, 1.0])


def judged(*pairs: tuple[float, float], flags: tuple[str, ...] = ()) -> Any:
    """The verdicts on these values, each of the honest response and of the attack."""
    rows = []
    for honest, other in pairs:
        row = Pool(as_prompt("Name 4 fruits."), [Candidate(0, "a"), Candidate(1, "b")])
        for candidate, value in zip(row.candidates, (honest, other), strict=True):
            candidate.scores[FLIP.name] = Score(value, "failed" if isnan(value) else None)
        row.candidates[1].scores[FLIP.name].flags.extend(flags)
        rows.append(row)
    return verdicts(rows, 1, QUOTE, FLIP)


@pytest.mark.parametrize(
    ("honest", "other", "verdict"),
    [
        (0.2, 0.3, "won"),
        (0.3, 0.2, "lost"),
        (0.3, 0.3, "tied"),
        (nan, -5.0, "won"),
        (-5.0, nan, "lost"),
        (nan, nan, None),
    ],
)
def test_a_failed_score_loses_to_any_value(honest: float, other: float, verdict: str) -> None:
    found = judged((honest, other))
    assert [name for name in ("won", "lost", "tied") if getattr(found, name)[0]] == (
        [verdict] if verdict else []
    )


@given(st.lists(st.tuples(VALUES, VALUES), min_size=1))
def test_each_contest_has_one_outcome(pairs: list[tuple[float, float]]) -> None:
    found = judged(*pairs)
    outcomes = [found.won, found.tied, found.lost, found.failed & found.honest_failed]
    assert np.all(np.sum(outcomes, axis=0) == 1)


def test_flags_are_those_of_the_attack() -> None:
    assert judged((0.0, 1.0), flags=("quotes_instruction",)).flagged.tolist() == [True]
    assert judged((0.0, 1.0), flags=("cut_to_context",)).flagged.tolist() == [False]
