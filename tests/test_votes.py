"""The vote against a count of every subset, exact and by Monte Carlo."""

from fractions import Fraction
from itertools import combinations
from math import comb, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bestofn.estimators import expected_votes

Pool = list[tuple[int, float, int | None]]  # answer, value, weight in tenths (None: no vote)

CANDIDATE = st.tuples(st.integers(-1, 3), st.floats(-10, 10), st.sampled_from([None, 0, 1, 2, 3]))
POOL = st.lists(CANDIDATE, min_size=1, max_size=7)


def count(drawn: Pool) -> tuple[Fraction, bool]:
    """The expected value of the choice, and whether answers are tied."""
    answers: dict[int, list[Fraction]] = {}
    totals: dict[int, int] = {}
    for answer, value, weight in drawn:
        if answer >= 0 and weight is not None:
            answers.setdefault(answer, []).append(Fraction(value))
            totals[answer] = totals.get(answer, 0) + weight
    if not answers:
        return sum(Fraction(value) for _, value, _ in drawn) / len(drawn), False
    top = [answer for answer in answers if totals[answer] == max(totals.values())]
    means = [sum(answers[answer], Fraction(0)) / len(answers[answer]) for answer in top]
    return sum(means, Fraction(0)) / len(top), len(top) > 1


def every_subset(pool: Pool) -> np.ndarray:
    """Expected values and tie rates for n from 1 to M: `[2, M]`."""
    curves = []
    for n in range(1, len(pool) + 1):
        counts = [count(list(drawn)) for drawn in combinations(pool, n)]
        value = sum((value for value, _ in counts), Fraction(0)) / len(counts)
        curves.append((float(value), sum(tied for _, tied in counts) / len(counts)))
    return np.array(curves).T


def curves(pool: Pool, weighted: bool, **options: int) -> np.ndarray:
    groups, values, tenths = zip(*pool, strict=True)
    weights = [[nan if weight is None else weight / 10 for weight in tenths]] if weighted else None
    found = expected_votes([groups], [values], range(1, len(pool) + 1), weights, **options)
    np.testing.assert_array_equal(found.error, 0)
    return np.array([found.values[0], found.ties[0]])


def many_pools(prompts: int, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Groups with ties and failures, values that depend on them, and weights of few levels."""
    rng = np.random.default_rng(seed)
    groups = np.minimum(rng.geometric(0.3, size=(prompts, size)), 9) - 1
    groups[rng.random(groups.shape) < 0.1] = -1
    values = (groups == 1) + 0.1 * rng.normal(size=groups.shape)
    weights = rng.choice([0.0, 0.1, 0.2, 0.3, 1.0, nan], size=groups.shape)
    return groups, values, weights


@settings(max_examples=600, deadline=None)
@given(POOL)
def test_unweighted_equals_enumeration(pool: Pool) -> None:
    alike: Pool = [(answer, value, 1) for answer, value, _ in pool]
    expected = every_subset(alike)
    np.testing.assert_allclose(curves(pool, False), expected, rtol=0, atol=1e-12)
    # Subset by subset as well, which is what pools too large for the exact way begin with.
    np.testing.assert_allclose(curves(pool, False, exact_up_to=0), expected, rtol=0, atol=1e-12)


@settings(max_examples=600, deadline=None)
@given(POOL)
def test_weighted_equals_enumeration(pool: Pool) -> None:
    np.testing.assert_allclose(curves(pool, True), every_subset(pool), rtol=0, atol=1e-12)


def test_two_answers_are_the_hypergeometric_law() -> None:
    """Of 256, 140 right ones against 116: the sum over how many of each are drawn."""
    right = np.arange(256) < 140
    ns = [1, 2, 25, 128, 201, 256]
    found = expected_votes(right.astype(int)[None], right[None], ns)
    for column, n in enumerate(ns):
        share, tied = Fraction(0), Fraction(0)
        for hits in range(max(0, n - 116), min(n, 140) + 1):
            ways = Fraction(comb(140, hits) * comb(116, n - hits), comb(256, n))
            share += ways * (Fraction(1, 2) if 2 * hits == n else int(2 * hits > n))
            tied += ways * (2 * hits == n)
        assert found.values[0, column] == pytest.approx(float(share), abs=1e-12)
        assert found.ties[0, column] == pytest.approx(float(tied), abs=1e-12)


def test_answers_that_all_differ_are_a_uniform_choice() -> None:
    groups = np.append(np.arange(192), [-1] * 64)[None]
    values = np.random.default_rng(1).normal(size=(1, 256))
    ns = range(1, 257)
    none = np.array([comb(64, n) / comb(256, n) for n in ns])
    expected = none * values[0, 192:].mean() + (1 - none) * values[0, :192].mean()
    found = expected_votes(groups, values, ns)
    np.testing.assert_allclose(found.values[0], expected, rtol=0, atol=1e-12)
    alone = np.array([192 * comb(64, n - 1) / comb(256, n) for n in ns])  # one answer, n - 1 none
    np.testing.assert_allclose(found.ties[0], 1 - none - alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sizes", [[16] * 16, list(range(1, 23)), [2] * 128, [100, 100, 56]])
def test_shares_of_large_pools_add_up(sizes: list[int]) -> None:
    groups = np.repeat(np.arange(len(sizes)), sizes)[None]
    found = expected_votes(groups, np.ones(groups.shape), range(1, groups.size + 1))
    np.testing.assert_allclose(found.values, 1.0, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("size", "weighted"), [(12, False), (40, False), (11, True)])
def test_monte_carlo_is_within_its_error(size: int, weighted: bool) -> None:
    groups, values, weights = many_pools(60, size)
    given_weights = weights if weighted else None
    ns = [1, 2, 3, 5, 8, size]
    exact = expected_votes(groups, values, ns, given_weights)
    sampled = expected_votes(
        groups, values, ns, given_weights, exact_up_to=0, enumerate_up_to=1, draws=400
    )
    assert (exact.error == 0).all()
    assert (sampled.error[[0, -1]] == 0).all()
    assert (sampled.error[1:-1] > 0).all()
    off = sampled.values.mean(axis=0) - exact.values.mean(axis=0)
    assert (np.abs(off) <= 5 * sampled.error + 1e-12).all()
    rates = exact.ties.mean(axis=0)
    spread = np.sqrt((exact.ties * (1 - exact.ties)).mean(axis=0) / (60 * 400))
    assert (np.abs(sampled.ties.mean(axis=0) - rates) <= 5 * spread + 1e-12).all()


def test_the_error_is_that_of_repeated_runs() -> None:
    groups, values, weights = many_pools(8, 20, seed=3)
    runs = [
        expected_votes(groups, values, [10], weights, draws=100, seed=seed) for seed in range(200)
    ]
    scatter = np.std([run.values.mean() for run in runs], ddof=1)
    assert scatter == pytest.approx(np.mean([run.error[0] for run in runs]), rel=0.2)


def test_a_seed_repeats_and_another_does_not() -> None:
    groups, values, weights = many_pools(5, 20)
    first, again, other = (
        expected_votes(groups, values, [10], weights, seed=seed).values for seed in (4, 4, 5)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("weighted", [False, True])
def test_prompts_and_sizes_do_not_mix(weighted: bool) -> None:
    groups, values, weights = many_pools(40, 9)
    ns = [9, 2, 2, 5]  # any order, also twice
    given_weights = weights if weighted else None
    found = expected_votes(groups, values, ns, given_weights)
    for row in range(40):
        one = None if given_weights is None else given_weights[[row]]
        alone = expected_votes(groups[[row]], values[[row]], ns, one)
        np.testing.assert_allclose(found.values[row], alone.values[0], atol=1e-12)
        np.testing.assert_allclose(found.ties[row], alone.ties[0], atol=1e-12)


def test_blocks_of_prompts_are_put_together() -> None:
    """More than one block in each way of drawing: what a prompt gets depends on itself alone."""
    groups, values, _ = many_pools(300, 16)
    ns = [3, 8]
    exact = expected_votes(groups, values, ns)
    subsets = expected_votes(groups, values, [3], exact_up_to=0)
    np.testing.assert_allclose(subsets.values[:, 0], exact.values[:, 0], atol=1e-12)
    sampled = expected_votes(groups, values, ns, exact_up_to=0, enumerate_up_to=1, draws=500)
    assert np.abs(sampled.values - exact.values).max() < 6 * 0.6 / np.sqrt(500)


def test_names_of_answers_do_not_count() -> None:
    groups, values, _ = many_pools(20, 12)
    names = np.array([2**62, 5, 2**62 + 1, 0, 77, 3, 2**40, 8, 9, -1])  # the last is that of -1
    found = expected_votes(names[groups], values, [4, 9])
    np.testing.assert_allclose(found.values, expected_votes(groups, values, [4, 9]).values)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"groups": [[0, 1, 2]]}, "groups has shape"),
        ({"groups": [[0.0, 1.0]]}, "groups must be whole"),
        ({"groups": [[0, -2]]}, "-1 for no answer"),
        ({"value": [[1.0, nan]]}, "finite"),
        ({"value": [1.0, 2.0]}, r"\[prompts, M\]"),
        ({"ns": [0]}, "from 1 to the pool size 2"),
        ({"ns": [3]}, "from 1 to the pool size 2"),
        ({"weights": [[1.0]]}, "weights has shape"),
        ({"weights": [[1.0, -0.1]]}, "negative"),
        ({"weights": [[1.0, np.inf]]}, "infinite"),
        ({"exact_up_to": 1001}, "exact_up_to must be"),
        ({"draws": 1}, "draws must be"),
        ({"enumerate_up_to": 0}, "enumerate_up_to at least"),
    ],
)
def test_bad_input(change: dict[str, object], match: str) -> None:
    arguments = {"groups": [[0, 1]], "value": [[1.0, 2.0]], "ns": [1]} | change
    with pytest.raises(ValueError, match=match):
        expected_votes(**arguments)  # type: ignore[arg-type]
