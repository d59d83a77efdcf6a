"""Length and selection, on pools whose answer is known."""

import warnings
from math import isnan, nan
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making import made
from scipy.stats import rankdata, spearmanr

from bestofn.analysis.curves import ScalingCurve
from bestofn.analysis.lengths import (
    LengthAnalysis,
    concordance,
    partial_spearman,
    spearman,
)
from bestofn.analysis.results import as_dict, of_lengths
from bestofn.estimators import best_of_n
from bestofn.types import Pool, Usage

LIMITS = (2, 4, 8, 16)
VALUE = st.sampled_from([nan, 0.0, 0.5, 1.0, 2.0])


def analysis(pools: Any, margin: float = 0.02, **options: Any) -> LengthAnalysis:
    return LengthAnalysis(ScalingCurve(pools, **{"resamples": 200} | options), margin)


# --- measures of one pool -------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.tuples(VALUE, st.sampled_from([0.0, 0.3, 1.0])), min_size=1, max_size=7))
def test_concordance_is_the_share_of_pairs_in_the_right_order(rows: list[Any]) -> None:
    scores, gold = (list(column) for column in zip(*rows, strict=True))
    ranks = [-1.0 if isnan(score) else score for score in scores]
    pairs = [
        1.0 if ranks[i] > ranks[j] else 0.5 if ranks[i] == ranks[j] else 0.0
        for i in range(len(rows))
        for j in range(len(rows))
        if gold[i] > gold[j]
    ]
    found = concordance(made("a", {"flip": scores, "gold": gold}), "flip", "gold")
    assert found == pytest.approx(np.mean(pairs)) if pairs else isnan(found)


@settings(deadline=None)
@given(st.lists(st.tuples(VALUE, st.integers(0, 4)), min_size=1, max_size=8))
def test_spearman_is_that_of_scipy(rows: list[Any]) -> None:
    scores, tokens = (list(column) for column in zip(*rows, strict=True))
    found = spearman(made("a", {"flip": scores}, tokens=tokens), "flip", "tokens")
    known = [(s, t) for s, t in rows if not isnan(s)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = float(spearmanr(*zip(*known, strict=True)).statistic) if len(known) > 1 else nan
    assert found == pytest.approx(wanted, abs=1e-12, nan_ok=True)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 4)), min_size=1))
def test_partial_spearman_is_that_of_residuals(rows: list[Any]) -> None:
    scores, gold, tokens = ([float(x) for x in column] for column in zip(*rows, strict=True))
    pool = made("a", {"flip": scores, "gold": gold}, tokens=[int(n) for n in tokens])
    found = partial_spearman(pool, "flip", "gold", "tokens")
    ranks = rankdata([scores, gold, tokens], axis=1)
    design = np.stack([np.ones(len(rows)), ranks[2]], axis=1)
    left = ranks[:2] - ranks[:2] @ design @ np.linalg.pinv(design)
    norms = np.linalg.norm(left, axis=1)
    if len(rows) >= 4 and len({*tokens}) > 1 and norms.min() > 1e-3:
        assert found == pytest.approx(left[0] @ left[1] / norms.prod(), abs=1e-6)
    elif not isnan(found):
        assert len(rows) >= 4
        assert min(len({*tokens}), len({*scores}), len({*gold})) > 1


# --- cuts -----------------------------------------------------------------------------------------


def cut_pools(prompts: int = 40, known_from: int = 8, size: int = 8) -> list[Pool]:
    """From `known_from` tokens on the score is gold; before, it is noise."""
    rng = np.random.default_rng(5)
    pools = []
    for i in range(prompts):
        gold = (rng.random(size) < 0.4).astype(float)
        scores = {"gold": gold.tolist(), "flip": gold.tolist()}
        for limit in LIMITS:
            seen = gold if limit >= known_from else rng.random(size)
            scores |= {f"flip@{limit}": seen.tolist(), f"gold@{limit}": (gold * 0.5).tolist()}
        pools.append(made(f"p{i}", scores, tokens=[20] * size))
    return pools


@pytest.mark.parametrize("known_from", LIMITS)
def test_from_how_many_tokens_on_it_is_enough(known_from: int) -> None:
    lengths = analysis(cut_pools(known_from=known_from), proxies=["flip"])
    assert lengths.limits == list(LIMITS)
    assert {*lengths.cuts} == {"flip"}
    cuts = lengths.cuts["flip"]
    assert cuts.enough == known_from
    known = np.array(LIMITS) >= known_from
    np.testing.assert_allclose(cuts.difference.mean[known], 0, atol=1e-12)
    assert (cuts.difference.high[~known] < 0).all()


def test_curves_of_cuts_are_expectations_over_subsets() -> None:
    pools = cut_pools(prompts=5)
    lengths = analysis(pools, proxies=["flip"], ns=[1, 3, 8])
    cuts = lengths.cuts["flip"]
    assert cuts.cut is not None
    assert cuts.full.mean.shape == cuts.cut.mean.shape == (4, 3)

    def column(name: str) -> list[list[float]]:
        return [[c.scores[name].value for c in pool.candidates] for pool in pools]

    for place, limit in enumerate(LIMITS):
        seen = column(f"flip@{limit}")
        full = best_of_n(seen, column("gold"), [1, 3, 8]).mean(axis=0)
        cut = best_of_n(seen, column(f"gold@{limit}"), [1, 3, 8]).mean(axis=0)
        np.testing.assert_allclose(cuts.full.mean[place], full, atol=1e-12)
        np.testing.assert_allclose(cuts.cut.mean[place], cut, atol=1e-12)
    whole = best_of_n(column("flip"), column("gold"), [1, 3, 8]).mean(axis=0)
    np.testing.assert_allclose(cuts.whole.mean, whole, atol=1e-12)


def test_tokens_computed_and_asked_for() -> None:
    pools = cut_pools(prompts=3, size=4)
    for pool in pools:
        for candidate in pool.candidates:
            for limit in LIMITS:
                usage = Usage(prompt_tokens=10 + limit, cached_tokens=10, scored_tokens=1)
                candidate.scores[f"flip@{limit}"].usage = usage
    cuts = analysis(pools, proxies=["flip"]).cuts["flip"]
    np.testing.assert_allclose(cuts.computed_tokens, [4 * (limit + 1) for limit in LIMITS])
    np.testing.assert_allclose(cuts.separate_tokens, [4 * (limit + 11) for limit in LIMITS])


def test_gold_of_cuts_is_over_the_prompts_that_have_it() -> None:
    pools = cut_pools(prompts=3)
    pools[1].candidates[0].scores["gold@4"].value = nan
    cuts = analysis(pools, proxies=["flip"]).cuts["flip"]
    rest = analysis([pools[0], pools[2]], proxies=["flip"]).cuts["flip"]
    assert cuts.cut is not None
    assert rest.cut is not None
    np.testing.assert_allclose(cuts.cut.mean, rest.cut.mean, atol=1e-12)
    assert analysis(pools[1:2], proxies=["flip"]).cuts["flip"].cut is None  # none is known


def test_without_cuts_there_are_none_and_what_lacks_one_is_named() -> None:
    lengths = analysis([made("a", {"flip": [0.0, 1.0], "gold": [0.0, 1.0]})])
    assert (lengths.limits, lengths.cuts) == ([], {})
    pools = cut_pools()
    del pools[-1].candidates[0].scores["flip@4"]
    found = analysis(pools)
    assert (found.lacking, found.cuts) == ({"flip": "flip@4"}, {})


# --- over prompts ---------------------------------------------------------------------------------


def prompts_by_length(count: int, flip: Any, seed: int = 0) -> list[Pool]:
    """Prompt i has responses of about 10 * i tokens; `flip(gold, tokens, i)` scores them."""
    rng = np.random.default_rng(seed)
    pools = []
    for i in range(count):
        gold = np.array([0.0, 1.0, 1.0, 0.0, 1.0, 0.0])
        tokens = 10 * i + rng.permutation(6)
        scores = {"gold": gold.tolist(), "flip": np.asarray(flip(gold, tokens, i), float).tolist()}
        pools.append(made(f"p{i}", scores, tokens=tokens.tolist()))
    return pools


@pytest.mark.parametrize(
    ("flip", "sign"),
    [
        (lambda g, t, i: g if i >= 4 else 1 - g, 1),
        (lambda g, t, i: g if i < 4 else 1 - g, -1),
        (lambda g, t, i: g, 0),
    ],
)
def test_longer_is_the_difference_between_the_halves(flip: Any, sign: float) -> None:
    assert float(analysis(prompts_by_length(8, flip)).longer["flip"].mean) == sign


def test_what_no_prompt_tells_is_unknown() -> None:
    pools = [made(f"p{i}", {"flip": [0.0, 1.0], "gold": [0.0, 1.0]}) for i in range(3)]
    assert isnan(float(analysis(pools).longer["flip"].mean))
    lengths = analysis(prompts_by_length(3, lambda g, t, i: 0 * t))
    assert isnan(float(lengths.spearman["flip"].mean))


@pytest.mark.parametrize("sign", [1, -1])
def test_preference_for_length(sign: int) -> None:
    lengths = analysis(prompts_by_length(6, lambda g, t, i: sign * t))
    assert float(lengths.spearman["flip"].mean) == pytest.approx(sign)
    assert float(lengths.beyond_length["flip"].mean) == pytest.approx(0)
    assert isnan(float(lengths.given_length["flip"].mean))
    selected = lengths.selected_length["flip"].mean
    np.testing.assert_allclose(selected[0], lengths.pool_length)
    assert np.sign(selected[-1] - lengths.pool_length) == sign
    pools = prompts_by_length(30, lambda g, t, i: sign * g + 0.001 * (t % 10))
    beyond = analysis(pools, proxies=["flip"]).beyond_length["flip"]
    assert np.sign(float(beyond.mean)) == sign


def test_votes_and_bounds_have_no_length_of_their_own() -> None:
    pools = prompts_by_length(3, lambda g, t, i: g)
    names = ["flip", "majority", "weighted:flip", "random", "oracle"]
    lengths = analysis(pools, proxies=names)
    assert lengths.names == ["flip"]
    assert {*lengths.spearman} == {"flip", "gold"}


# --- one unit for all -----------------------------------------------------------------------------


def partly_counted() -> list[Pool]:
    """The first prompt's candidates count their tokens, one of the last's does not."""
    gold = [0.0, 1.0, 0.0, 1.0]
    pools = [
        made(f"p{i}", {"flip": gold, "gold": gold}, texts=["x" * n for n in (1, 2, 3, 4)],
             tokens=[400, 300, 200, 100], cost=3)
        for i in range(12)
    ]  # fmt: skip
    pools[-1].candidates[0].token_count = None
    return pools


def test_lengths_are_all_in_characters_where_a_candidate_has_no_token_count() -> None:
    found = analysis(partly_counted(), proxies=["flip", "longest"], ns=[1, 4])
    assert found.unit == "characters"
    assert found.pool_length == 2.5
    assert found.selected_length["longest"].mean[-1] == 4
    (longest,) = (c for c in found.curve.curves if c.name == "longest")
    assert longest.proxy is not None
    assert longest.proxy.mean.tolist() == [2.5, 4]
    assert longest.generated_tokens is None
    assert float(found.spearman["longest"].mean) == 1
    sentences = [*map(str, of_lengths(found.curve, found))]
    assert "Lengths are in characters: 2.1% of the candidates have no token count." in sentences
    assert analysis(partly_counted()[::-1]).pool_length == 2.5  # whatever the order of the pools
    counted = analysis(partly_counted()[:-1])
    assert (counted.unit, counted.pool_length) == ("tokens", 250)
    assert not any("characters" in text for text in map(str, of_lengths(counted.curve, counted)))
    result = as_dict(found.curve, found)
    assert (result["lengths"]["unit"], result["lengths"]["counted"]) == ("characters", 47 / 48)


def test_candidates_without_counts_have_no_share_that_is_cut() -> None:
    pools = cut_pools()
    pools[-1].candidates[0].token_count = None
    found = analysis(pools)
    assert np.isnan(found.cut_share).all()
    assert not any("are longer" in text for text in map(str, of_lengths(found.curve, found)))
