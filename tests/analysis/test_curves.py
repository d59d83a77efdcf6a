"""Scaling curves against a count of every subset."""

from itertools import combinations
from math import isnan, nan
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making import made

from bestofn.analysis.curves import ProxyCurve, ScalingCurve
from bestofn.errors import ConfigError
from bestofn.prompts import as_prompt
from bestofn.types import Candidate, Pool, Score, Usage

EXACT: dict[str, Any] = {"rtol": 0, "atol": 1e-12}
PROXIES = ["proxy", "majority", "weighted:proxy", "random", "oracle"]


def close(found: Any, wanted: Any) -> None:
    np.testing.assert_allclose(np.asarray(found, float), np.asarray(wanted, float), **EXACT)


def curve_of(pools: Any, **options: Any) -> ScalingCurve:
    return ScalingCurve(pools, **{"resamples": 10} | options)


def by_name(curve: ScalingCurve) -> dict[str, ProxyCurve]:
    return {proxy.name: proxy for proxy in curve.curves}


# --- brute force ----------------------------------------------------------------------------------

CANDIDATE = st.tuples(
    st.sampled_from([nan, 0.0, 0.5, 1.0]),  # proxy
    st.sampled_from([0.0, 0.25, 1.0]),  # gold
    st.sampled_from(["x", "y", " x"]),  # text
    st.integers(0, 3),  # tokens that the score cost
)
PROMPT = st.lists(CANDIDATE, min_size=1, max_size=6)


def as_pool(name: str, rows: list[tuple[float, float, str, int]]) -> Pool:
    candidates = [
        Candidate(
            index,
            text,
            token_count=len(text),
            scores={
                "proxy": Score(proxy, usage=Usage(prompt_tokens=cost)),
                "gold": Score(gold),
            },
        )
        for index, (proxy, gold, text, cost) in enumerate(rows)
    ]
    return Pool(as_prompt(f"What is {name}?", name), candidates)


def best(drawn: list[Candidate], key: str) -> tuple[list[Candidate], float]:
    """Those that share the highest score, all of them if every one failed; and that score."""
    valid = [c for c in drawn if not isnan(c.scores[key].value)]
    if not valid:
        return drawn, nan
    top = max(c.scores[key].value for c in valid)
    return [c for c in valid if c.scores[key].value == top], top


def enumerated(pool: Pool, n: int) -> dict[str, float]:
    """Means over every subset of size n."""
    means: dict[str, list[float]] = {}
    for subset in combinations(pool.candidates, n):
        drawn = list(subset)
        top, value = best(drawn, "proxy")
        # Equal responses are scored once, and the first of them in the pool carries the cost.
        texts = {c.text for c in drawn}
        paid = sum(
            c.scores["proxy"].usage.computed_tokens for c in pool.candidates if c.text in texts
        )
        found = {
            "gold": np.mean([c.scores["gold"].value for c in top]),
            "failures": isnan(value),
            "ties": not isnan(value) and len(top) > 1,
            "scored": paid,
            "random": np.mean([c.scores["gold"].value for c in drawn]),
            "oracle": max(c.scores["gold"].value for c in drawn),
        }
        if not isnan(value):
            found["proxy"] = value
        for name, number in found.items():
            means.setdefault(name, []).append(float(number))
    return {name: float(np.mean(numbers)) for name, numbers in means.items()}


@settings(max_examples=200, deadline=None)
@given(st.lists(PROMPT, min_size=1, max_size=3))
def test_equals_the_count_of_every_subset(prompts: list[Any]) -> None:
    pools = [as_pool(str(place), rows) for place, rows in enumerate(prompts)]
    curve = curve_of(pools, proxies=PROXIES, ns=range(1, min(map(len, prompts)) + 1))
    found = by_name(curve)
    for place, n in enumerate(curve.ns):
        counts = [enumerated(pool, n) for pool in pools]

        def mean(name: str, counts: list[dict[str, float]] = counts) -> float:
            return float(np.mean([count[name] for count in counts]))

        close(found["proxy"].gold.mean[place], mean("gold"))
        close(found["proxy"].gain.mean[place], mean("gold") - mean("random"))
        close(found["proxy"].failures[place], mean("failures"))
        close(found["proxy"].ties[place], mean("ties"))
        close(found["proxy"].scored_tokens[place], mean("scored"))
        close(found["random"].gold.mean[place], mean("random"))
        close(found["oracle"].gold.mean[place], mean("oracle"))
        close(found["weighted:proxy"].failures[place], mean("failures"))
        close(found["weighted:proxy"].scored_tokens[place], mean("scored"))
        each = [count.get("proxy", nan) for count in counts]
        close(curve.expect("proxy").proxy[0, :, place], each)  # type: ignore[index]


# --- which pools ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"flip": [0.0, 1.0], "gold": [0.0, nan]}, "candidate 1 has no gold value: it failed"),
        ({"flip": [0.0, 1.0]}, "has no score 'gold'"),
    ],
)
def test_prompts_without_a_gold_value_are_left_out_and_named(bad: Any, reason: str) -> None:
    pools = [made("a", {"flip": [0.0, 1.0], "gold": [0.0, 1.0]}), made("b", bad)]
    curve = curve_of(pools)
    assert curve.prompts == 1
    ((name, found),) = curve.left_out
    assert name == "b"
    assert reason in found
    with pytest.raises(ConfigError, match=reason):
        curve_of(pools[1:])


def test_proxies_by_default() -> None:
    pool = made("a", {"flip": [1.0], "gold": [1.0], "flip@4": [0.0]}, tokens=[3])
    names = ["flip", "longest", "majority", "random", "oracle"]
    assert [proxy.name for proxy in curve_of([pool]).curves] == names
    pool.candidates[0].mean_logprob = -0.5
    assert "mean-logprob" in by_name(curve_of([pool]))


WHOLE = {"flip": [-1.0, 0.0, 1.0], "gold": [0.0, 1.0, 1.0]}
A = made("a", WHOLE)


@pytest.mark.parametrize(
    ("pools", "options", "sentence"),
    [
        ([], {}, "there are no pools"),
        ([[], []], {}, "there are no pools"),
        ([A], {"proxies": ["flop"]}, "candidate 0 of prompt 'a' has no score 'flop', only flip, "),
        ([A], {"gold": "truth"}, "no score 'truth', only flip, gold; add it with `bestofn score`"),
        ([A], {"proxies": ["weighted:flop"]}, "has no score 'flop'"),
        ([A], {"ns": [1, 5]}, "3 candidates are too few for N=5"),
        ([A], {"proxies": ["weighted:flip"]}, "'flip' has negative values"),
        ([A], {"answer": "maths"}, "no verifier 'maths'"),
        ([A, made("b", {"gold": [1.0]})], {}, "candidate 0 of prompt 'b' has no score 'flip'"),
        ([A, A], {}, "several pools have the same prompt id"),
    ],
)
def test_what_cannot_be_estimated_is_one_sentence(pools: Any, options: Any, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        curve_of(pools, **options)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("size", [1, 2, 6, 8])
def test_sizes_by_default(size: int) -> None:
    rows = [{"flip": [0.0] * n, "gold": [1.0] * n} for n in (9, size, 9)]
    pools = [made(str(place), scores) for place, scores in enumerate(rows)]
    curve = curve_of(pools, iid=size > 1)
    assert curve.ns == {1: [1], 2: [1, 2], 6: [1, 2, 4, 6], 8: [1, 2, 4, 8]}[size]
    assert curve.sizes == [size, 9]
    assert (curve.kl_bound is None) == (size == 1)


# --- seeds ----------------------------------------------------------------------------------------


def random_pools(seed: int, prompts: int = 6, size: int = 5) -> list[Pool]:
    rng = np.random.default_rng(seed)
    return [
        made(str(i), {"flip": rng.random(size).tolist(), "gold": rng.random(size).tolist()})
        for i in range(prompts)
    ]


def test_seeds_are_means_by_prompt_whatever_their_order() -> None:
    first, second = random_pools(1), random_pools(2)
    both = curve_of([first, second[::-1]], proxies=["flip"])
    apart = [curve_of(pools, proxies=["flip"]) for pools in (first, second)]
    close(both.gold_of("flip"), np.concatenate([curve.gold_of("flip") for curve in apart]))
    close(both.curves[0].gold.mean, np.mean([c.curves[0].gold.mean for c in apart], axis=0))
    assert both.curves[0].noise is not None
    assert apart[0].curves[0].noise is None
    fewer = curve_of([first, second[1:]], proxies=["flip"])
    assert fewer.left_out == [("0", "not among the pools of seed 1 (counted from 0)")]
    assert fewer.prompts == 5


# --- what else a curve says -----------------------------------------------------------------------


def test_differences_are_paired_and_name_the_prompts_that_differ_most() -> None:
    pools = [
        made("a", {"x": [0.0, 1.0], "y": [1.0, 0.0], "gold": [0.0, 1.0]}),
        made("b", {"x": [1.0, 0.0], "y": [0.0, 1.0], "gold": [0.0, 0.5]}),
        made("c", {"x": [1.0, 0.0], "y": [1.0, 0.0], "gold": [0.0, 1.0]}),
    ]
    (difference,) = curve_of(pools, proxies=["x", "y", "random", "oracle"]).differences
    assert (difference.a, difference.b) == ("x", "y")
    close(difference.gold.mean, [0, 0.5 / 3])
    close([i.mean[1] for i in (difference.win, difference.tie, difference.lose)], [1 / 3] * 3)
    assert difference.most == [("a", 1.0), ("b", -0.5)]


def test_tokens_and_seconds() -> None:
    scores, seconds = {"flip": [0.0, 1.0, 2.0, 3.0], "gold": [1.0] * 4}, {"sample": 4.0}
    pool = made("a", scores, tokens=[10, 20, 30, 40], cost=7, seconds=seconds | {"flip": 2.0})
    found = by_name(curve_of([pool]))
    close(found["flip"].generated_tokens, [25, 50, 100])
    close(found["flip"].scored_tokens, [7, 14, 28])
    close(found["flip"].seconds, [1.5, 3, 6])
    close(found["random"].scored_tokens, [0, 0, 0])
    unknown = by_name(curve_of([made("a", scores, seconds=seconds)], proxies=["flip", "random"]))
    assert (unknown["flip"].generated_tokens, unknown["flip"].seconds) == (None, None)
    close(unknown["random"].seconds, [1, 2, 4])
    close(found["random"].seconds, [1, 2, 4])


@pytest.mark.parametrize(
    ("texts", "gold", "options", "found"),
    [
        (["x", "1.0", "1"], [0.0, 1.0, 1.0], {}, (2 / 3, 1)),
        (["x", "1.0", "1"], [0.0, 1.0, 1.0], {"answer": lambda text: text[0]}, (1, 0)),
        (["7"] * 3 + [""] * 4 + ["8"], [1.0] * 3 + [0.0] * 5, {}, (1, 0)),  # "" is no vote
        (["It is 1/2.", "It is 3.", "It is 0.5."], [1.0, 0.0, 1.0], {"answer": "math"}, (1, 0)),
    ],
)
def test_votes_compare_answers(texts: Any, gold: Any, options: Any, found: Any) -> None:
    if options.get("answer") == "math":
        pytest.importorskip("math_verify")
    pools = [made("a", {"gold": gold}, texts=texts)]
    (vote,) = curve_of(pools, proxies=["majority"], ns=[len(texts)], **options).curves
    assert (float(vote.gold.mean[0]), float(vote.ties[0])) == pytest.approx(found)


def test_simulated_votes_say_their_error() -> None:
    rng = np.random.default_rng(0)
    texts = [str(i) for i in rng.integers(0, 4, 20)]
    scores = {"flip": rng.random(20).tolist(), "gold": rng.random(20).tolist()}
    curve = curve_of([made("a", scores, texts=texts)], proxies=["weighted:flip", "majority"])
    weighted, plain = curve.curves
    assert plain.monte_carlo_error is None
    assert weighted.monte_carlo_error is not None
    assert (weighted.monte_carlo_error > 0).tolist() == [n in (4, 8, 16) for n in curve.ns]


def test_candidates_that_could_not_be_drawn_have_no_vote_and_no_length() -> None:
    pool = made("a", {"gold": [0.0, 1.0, 0.0]}, texts=["", "x", ""], tokens=[None, 3, None])
    for index in (0, 2):
        pool.candidates[index].finish_reason = "error"
        pool.candidates[index].error = "too long"
    found = by_name(curve_of([pool], proxies=["majority", "longest"], ns=[1, 3]))
    close(found["majority"].gold.mean, [1 / 3, 1])
    close(found["longest"].gold.mean, [1 / 3, 1])
    close(found["longest"].generated_tokens, [1, 3])


def test_baselines_are_read_off_the_candidates() -> None:
    pools = [made(f"p{i}", {"gold": [0.0, 1.0]}, tokens=[2, 3]) for i in range(2)]
    for pool in pools:
        pool.candidates[0].mean_logprob = -1.0
    curve = curve_of(pools, proxies=["longest", "shortest", "mean-logprob"])
    assert [c.gold.mean[-1] for c in curve.curves] == [1, 0, 0]
    assert {*pools[0].candidates[0].scores} == {"gold"}
