"""Each selector against the plainest way to write it, and what all of them promise."""

from collections import Counter
from itertools import combinations, product
from math import exp, isnan, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bestofn.errors import ConfigError
from bestofn.estimators import best_of_n, expected_choices, expected_votes
from bestofn.prompts import as_prompt
from bestofn.rewards.similarity import f1
from bestofn.selectors import (
    Best,
    MajorityOfTheBests,
    MinimumBayesRisk,
    Pessimistic,
    Selector,
    SoftBest,
    Vote,
    WeightedVote,
)
from bestofn.types import Candidate

SELECTORS = (
    Best(), SoftBest(0.3), Pessimistic(0.2), Vote(), WeightedVote(), MajorityOfTheBests(),
    MinimumBayesRisk(),
)  # fmt: skip
PROMPT = as_prompt("x")
SCORE = st.sampled_from([nan, 0.0, 0.25, 0.5, 1.0])
POOL = st.lists(
    st.tuples(st.sampled_from(["", "a b", "a c", "d", "a b c"]), SCORE), min_size=1, max_size=6
)


def candidates(texts: list[str]) -> list[Candidate]:
    return [
        Candidate(i, text, finish_reason="stop" if text else "error", error=None if text else "no")
        for i, text in enumerate(texts)
    ]


def chances(selector: Selector, pool: list[tuple[str, float]], drawn: list[int]) -> np.ndarray:
    texts, values = zip(*pool, strict=True)
    rule = selector.rule(candidates(list(texts)), np.array(values))
    return rule(np.array([drawn]))[0][0]


@settings(max_examples=200, deadline=None)
@given(POOL, st.data())
def test_chances_add_up_and_depend_on_the_drawn_alone(pool, data) -> None:
    pool = [(text, value if text else nan) for text, value in pool]
    size = data.draw(st.integers(1, len(pool)))
    drawn = data.draw(st.permutations(range(len(pool))))[:size]
    for selector in SELECTORS:
        found = chances(selector, pool, drawn)
        assert found.min() >= 0
        assert found.sum() == pytest.approx(1)
        alone = chances(selector, [pool[i] for i in drawn], list(range(size)))
        assert found == pytest.approx(alone), selector.name
        usable = [bool(pool[i][0]) for i in drawn]
        if selector.reads_scores:
            usable = [not isnan(pool[i][1]) for i in drawn]
        if any(usable):
            assert all(chance == 0 for chance, ok in zip(found, usable, strict=True) if not ok)
        else:
            assert found == pytest.approx(1 / size)


def by_hand(name: str, texts: list[str], values: list[float]) -> list[float]:
    """What a selector chooses of candidates that all have a text and a score."""
    n = len(texts)
    if name == "best":
        worth = [float(v == max(values)) for v in values]
    elif name == "soft":
        worth = [exp(v / 0.3) for v in values]
    elif name == "pessimistic":
        low, high = min(values) - 1.0, max(values)
        for _ in range(100):  # bisection for the level
            level = (low + high) / 2
            total = sum(max(v - level, 0) for v in values) / (n * 0.2)
            low, high = (level, high) if total > 1 else (low, level)
        worth = [max(v - level, 0) for v in values]
    elif name in ("majority", "weighted"):
        votes = Counter[str]()
        for text, value in zip(texts, values, strict=True):
            votes[text] += value if name == "weighted" else 1
        winners = [a for a in votes if votes[a] == pytest.approx(max(votes.values()), abs=1e-12)]
        held = Counter(texts)
        worth = [1 / held[t] if t in winners else 0.0 for t in texts]
    elif name == "mob":
        m = round(n**0.5)
        wins = Counter[str]()
        for draw in product(range(n), repeat=m):
            top = max(values[i] for i in draw)
            best = [texts[i] for i in draw if values[i] == top]
            for text in best:
                wins[text] += 1 / len(best)
        modal = [a for a in wins if wins[a] == pytest.approx(max(wins.values()), abs=1e-9)]
        top = max(v for t, v in zip(texts, values, strict=True) if t in modal)
        worth = [float(t in modal and v == top) for t, v in zip(texts, values, strict=True)]
    else:
        mean = [sum(f1(a, b) for j, b in enumerate(texts) if j != i) for i, a in enumerate(texts)]
        worth = [float(each == pytest.approx(max(mean), abs=1e-12)) for each in mean]
    return [each / sum(worth) for each in worth]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a b", "a c", "d", "a b c"]), st.sampled_from([0.1, 0.25, 0.5, 1.0])
        ),
        min_size=1,
        max_size=5,
    )
)
def test_each_is_what_its_docstring_says(pool) -> None:
    texts, values = (list(column) for column in zip(*pool, strict=True))
    for selector in SELECTORS:
        found = chances(selector, pool, list(range(len(pool))))
        assert found == pytest.approx(by_hand(selector.name, texts, values), abs=1e-9), (
            selector.name
        )


def test_the_expectation_is_over_all_subsets() -> None:
    rng = np.random.default_rng(0)
    values, gold = rng.random((2, 5, 6))
    values[0, :3] = nan
    texts = [[str(rng.integers(3)) for _ in range(6)] for _ in range(5)]
    for selector in SELECTORS:
        rules = [selector.rule(candidates(t), v) for t, v in zip(texts, values, strict=True)]
        found = expected_choices(rules, gold, [1, 3, 6])
        assert not found.error.any()
        subsets = [list(s) for s in combinations(range(6), 3)]
        plain = [
            np.mean([rule(np.array([s]))[0][0] @ gold[i, s] for s in subsets])
            for i, rule in enumerate(rules)
        ]
        assert found.values[:, 1] == pytest.approx(plain)
    best = [Best().rule(candidates(t), v) for t, v in zip(texts, values, strict=True)]
    exact = best_of_n(values, gold, [1, 2, 4, 6])
    assert expected_choices(best, gold, [1, 2, 4, 6]).values == pytest.approx(exact)


def test_larger_pools_are_simulated_close_to_the_exact_vote() -> None:
    rng = np.random.default_rng(1)
    gold = rng.random((20, 24))
    groups = rng.integers(0, 5, (20, 24))
    rules = [Vote().rule(candidates([str(g) for g in row]), row * 1.0) for row in groups]
    found = expected_choices(rules, gold, [1, 8, 24])
    exact = expected_votes(groups, gold, [1, 8, 24])
    assert found.error[0] == found.error[2] == 0
    assert 0 < found.error[1] < 0.005
    gap = abs(found.values[:, 1].mean() - exact.values[:, 1].mean())
    assert gap < 5 * found.error[1]
    assert found.values[:, [0, 2]] == pytest.approx(exact.values[:, [0, 2]])
    assert found.ties[:, 1] == pytest.approx(exact.ties[:, 1], abs=0.06)


def test_choose_takes_the_likeliest_and_says_whether_it_was_alone() -> None:
    pool = candidates(["x", "y", "y", "z"])
    assert Best().choose(PROMPT, pool, [0.1, 0.9, 0.2, 0.9]) == (1, True)
    assert Vote().choose(PROMPT, pool, [0.9, 0.1, 0.2, 0.3]) == (1, False)
    assert WeightedVote().choose(PROMPT, pool, [0.9, 0.1, 0.2, 0.3]) == (0, False)
    assert Best().choose(PROMPT, pool, [nan] * 4) == (None, False)
    assert MajorityOfTheBests(m=1).choose(PROMPT, pool, [0.9, 0.1, 0.2, nan]) == (2, False)


def test_a_soft_choice_is_drawn_by_seed_and_prompt() -> None:
    pool, values = candidates(["x", "y", "z"]), [0.1, 0.2, nan]
    drawn = [SoftBest(0.3, seed=s).choose(PROMPT, pool, values)[0] for s in range(400)]
    assert drawn == [SoftBest(0.3, seed=s).choose(PROMPT, pool, values)[0] for s in range(400)]
    expected = exp(0.2 / 0.3) / (exp(0.1 / 0.3) + exp(0.2 / 0.3))
    assert np.mean(np.equal(drawn, 1)) == pytest.approx(expected, abs=0.08)
    assert set(drawn) == {0, 1}


def test_a_single_high_score_is_not_enough_for_the_pessimistic_choice() -> None:
    pool = [(str(i), value) for i, value in enumerate([1.0, *[0.5] * 9])]
    assert chances(Pessimistic(0.01), pool, list(range(10)))[0] == pytest.approx(1)
    assert chances(Pessimistic(1e-18), pool, list(range(10)))[0] == pytest.approx(1)
    far = [(text, value - 500) for text, value in pool]
    assert chances(Pessimistic(1e-9), far, list(range(10)))[0] == pytest.approx(1)
    cautious = chances(Pessimistic(0.2), pool, list(range(10)))
    assert cautious[0] == pytest.approx(0.325)
    assert cautious[1] == pytest.approx(0.075)


@pytest.mark.parametrize(
    "make",
    [lambda: SoftBest(0), lambda: Pessimistic(-1), lambda: MajorityOfTheBests(m=0),
     lambda: SoftBest(nan), lambda: MinimumBayesRisk("nonesuch")],
)  # fmt: skip
def test_arguments_that_make_no_sense(make) -> None:
    with pytest.raises(ConfigError):
        make()


def test_a_negative_score_is_no_weight() -> None:
    with pytest.raises(ConfigError, match="negative"):
        WeightedVote().rule(candidates(["a"]), np.array([-0.5]))
