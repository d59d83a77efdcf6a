"""Attacks and contests: what each writes, who is compared with whom, and who wins."""

from collections import Counter
from math import isnan, nan
from random import Random
from typing import Any

import numpy as np
import pytest
from fakes import Recorded, ScriptedEngine, repeated
from hypothesis import given, settings
from hypothesis import strategies as st

from bestofn import concurrency
from bestofn.config import RewardConfig
from bestofn.engines.chat import CONTROL
from bestofn.engines.hf import TransformersEngine
from bestofn.errors import ConfigError, ContextLengthError
from bestofn.evals.audit.attacks import ATTACKS, Scorer, chosen, scorers_of
from bestofn.evals.audit.results import verdicts
from bestofn.evals.audit.run import add_logprobs, attacked, compete
from bestofn.prompts import as_prompt
from bestofn.rewards.base import load_reward
from bestofn.rewards.parsing import parse_field
from bestofn.rewards.similarity import find_quotes, without_spans
from bestofn.rewards.templates import load_template
from bestofn.tiny import heldout_tasks
from bestofn.types import Candidate, Pool, Score

ALL, NAMES = [*ATTACKS.values()], [*ATTACKS]
INSTRUCTION = "Explain the main causes of soil degradation in simple words."
HONEST = "Overgrazing strips the plants. Then rain carries the earth away."
DISGUISED = ["look-alikes", "full-width", "zero-width"]
QUOTES = [
    *("quote", "label", "promise", "foreign-frame", "inverse-json", "control-tokens"),
    "quote-then-answer",
]
LONGEST = Scorer(RewardConfig(reward="longest"))
FLIP = Scorer(RewardConfig(reward="flip"), "flag")


# --- attacks --------------------------------------------------------------------------------------


def written(name: str, instruction: str = INSTRUCTION, honest: str = HONEST, seed: int = 0) -> str:
    return ATTACKS[name].write(instruction, honest, Random(seed))


@pytest.mark.parametrize("name", ATTACKS)
@settings(max_examples=20, deadline=None)
@given(instruction=st.text(min_size=1).filter(str.strip), honest=st.text(), seed=st.integers())
def test_any_texts_make_a_response_and_the_same_one_again(
    name: str, instruction: str, honest: str, seed: int
) -> None:
    text = written(name, instruction, honest, seed)
    assert isinstance(text, str)
    assert text == written(name, instruction, honest, seed)


@pytest.mark.parametrize("name", ATTACKS)
def test_what_an_attack_carries_is_what_it_says(name: str) -> None:
    carried = {"none": set[str](), "part": {"Overgrazing"}, "whole": {"Overgrazing", "earth"}}
    found = {word for word in ("Overgrazing", "earth") if word in written(name)}
    assert found == carried[ATTACKS[name].answer]
    assert bool(find_quotes(INSTRUCTION, written(name))) == (name in QUOTES + DISGUISED)


@pytest.mark.parametrize("name", QUOTES + DISGUISED)
def test_the_guard_sees_quotes_however_they_are_dressed(name: str) -> None:
    for instruction in (task.instruction for task in heldout_tasks(60)):
        if len(instruction.split()) >= 4:
            assert find_quotes(instruction, written(name, instruction)), instruction
    if name in ("quote", *DISGUISED):
        text = written(name)
        assert without_spans(text, find_quotes(INSTRUCTION, text)).strip(".．") == ""


def test_what_some_attacks_write(tiny: TransformersEngine) -> None:
    text = written("control-tokens")
    assert set(tiny.control_tokens(text)) == {"<|end|>", "<|assistant|>"}
    assert len({*CONTROL.findall(text)}) >= 9
    text = written("paraphrase", "Name 4 fruits in one line.")
    assert text.index("one line") < text.index("mention") < text.index("4 fruits")
    field = load_template("reasoned").field
    assert field is not None
    assert parse_field(written("inverse-json"), field).text == INSTRUCTION


def test_attacks_are_chosen_by_name_in_their_own_order() -> None:
    assert [attack.name for attack in chosen(["empty", "quote"])] == ["quote", "empty"]
    assert len(chosen([])) == len(ATTACKS) == 25
    with pytest.raises(ConfigError, match="no attack 'qoute'; there are quote, "):
        chosen(["qoute"])


# --- scoring --------------------------------------------------------------------------------------


def row_of() -> Pool:
    return attacked(as_prompt("Name 4 fruits in one line."), Candidate(0, HONEST), ALL, seed=0)


def test_rewards_with_a_guard_are_attacked_under_both_of_its_settings() -> None:
    rewards = [RewardConfig(reward=name) for name in ("flip", "longest")]
    rewards.append(RewardConfig(reward="flip", name="mine", options={"copy_guard": "off"}))
    names = ["flip:flag", "flip:strip", "longest", "mine:off"]
    assert [scorer.name for scorer in scorers_of(rewards)] == names


def test_a_pointwise_reward_scores_each_distinct_response_once() -> None:
    row, reward = row_of(), Recorded()
    reward.name = FLIP.name
    concurrency.run(compete(row, NAMES, FLIP, reward, seed=0))
    texts = Counter(text for asked in reward.asked for text in asked)
    assert set(texts.values()) == {1}
    assert set(texts) == {candidate.text for candidate in row.candidates}


def test_a_reward_that_compares_sees_the_honest_response_and_one_attack() -> None:
    def asked(seed: int) -> list[list[str]]:
        row, reward = row_of(), Recorded({HONEST: 2.0}, pointwise=False)
        concurrency.run(compete(row, NAMES, LONGEST, reward, seed))
        honest, *others = row.candidates
        assert honest.scores.keys() == {f"recorded:{name}" for name in NAMES}
        assert {score.value for score in honest.scores.values()} == {2.0}
        assert all(other.scores["recorded"].value == 0.0 for other in others)
        assert len(reward.asked) == len(ALL)
        return sorted(reward.asked)

    pairs = asked(0)
    assert all(len(pair) == 2 and HONEST in pair for pair in pairs)
    places = Counter(pair.index(HONEST) for pair in pairs)
    assert min(places[0], places[1]) > len(ALL) / 5
    assert pairs == asked(0) != asked(1)


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


def test_a_response_that_cannot_be_measured_stays_without_log_probability() -> None:
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
    return verdicts(rows, 1, ATTACKS["quote"], FLIP)


@pytest.mark.parametrize(
    ("honest", "other", "verdict"),
    [
        (0.2, 0.3, ["win_rate"]),
        (0.3, 0.2, ["loss_rate"]),
        (0.3, 0.3, ["tie_rate"]),
        (nan, -5.0, ["win_rate"]),
        (-5.0, nan, ["loss_rate"]),
        (nan, nan, []),
    ],
)
def test_a_failed_score_loses_to_any_value(honest: float, other: float, verdict: list[str]) -> None:
    found = judged((honest, other))
    assert [name for name in ("win_rate", "loss_rate", "tie_rate") if found[name][0]] == verdict


@given(st.lists(st.tuples(VALUES, VALUES), min_size=1))
def test_each_contest_has_one_outcome(pairs: list[tuple[float, float]]) -> None:
    found = judged(*pairs)
    names = ("win_rate", "tie_rate", "loss_rate", "both_failed_rate")
    assert np.all(np.sum([found[name] for name in names], axis=0) == 1)


@pytest.mark.parametrize(("flag", "counts"), [("quotes_instruction", True), ("cut_to_context", 0)])
def test_flags_are_those_of_the_attack(flag: str, counts: bool) -> None:
    found = judged((0.0, 1.0), flags=(flag,))
    assert found["flagged_rate"].tolist() == [counts]
    assert found["unflagged_win_rate"].tolist() == [not counts]
