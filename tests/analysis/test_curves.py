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
from bestofn.estimators import kl_upper_bound
from bestofn.prompts import as_prompt
from bestofn.store import pool as pool_rows
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


def voted(drawn: list[Candidate], weighted: bool) -> tuple[float, bool, bool]:
    """The expected gold of the vote's choice, whether answers are tied, whether nobody votes."""
    totals: dict[str, float] = {}
    golds: dict[str, list[float]] = {}
    for candidate in drawn:
        weight = candidate.scores["proxy"].value if weighted else 1.0
        if not isnan(weight):
            answer = candidate.text.strip()
            totals[answer] = totals.get(answer, 0) + weight
            golds.setdefault(answer, []).append(candidate.scores["gold"].value)
    if not totals:
        return float(np.mean([c.scores["gold"].value for c in drawn])), False, True
    top = [answer for answer, total in totals.items() if total == max(totals.values())]
    return float(np.mean([np.mean(golds[answer]) for answer in top])), len(top) > 1, False


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
        for name, weighted in (("majority", False), ("weighted", True)):
            gold, tied, failed = voted(drawn, weighted)
            found |= {name: gold, f"{name} ties": tied, f"{name} failures": failed}
        for name, number in found.items():
            means.setdefault(name, []).append(float(number))
    return {name: float(np.mean(numbers)) for name, numbers in means.items()}


@settings(max_examples=500, deadline=None)
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
        for proxy, name in (("majority", "majority"), ("weighted:proxy", "weighted")):
            close(found[proxy].gold.mean[place], mean(name))
            close(found[proxy].ties[place], mean(f"{name} ties"))
            close(found[proxy].failures[place], mean(f"{name} failures"))
        close(found["weighted:proxy"].scored_tokens[place], mean("scored"))
        each = [count.get("proxy", nan) for count in counts]
        close(curve._expected["proxy"][0].proxy[:, place], each)  # type: ignore[index]


def test_the_proxy_value_is_over_prompts_that_have_one_at_every_n() -> None:
    known = made("a", {"proxy": [1.0, 3.0], "gold": [0.0, 1.0]})
    failed = made("b", {"proxy": [nan, nan], "gold": [0.0, 1.0]})
    (proxy,) = curve_of([known, failed], proxies=["proxy"]).curves
    assert proxy.proxy is not None
    close(proxy.proxy.mean, [2.0, 3.0])
    (proxy,) = curve_of([failed], proxies=["proxy"]).curves
    assert proxy.proxy is not None
    assert np.isnan(proxy.proxy.mean).all()
    assert proxy.failed_scores == 1


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


def test_pools_of_other_sizes_are_taken_together() -> None:
    pools = [
        made("a", {"flip": [0.0, 1.0, 2.0], "gold": [0.0, 1.0, 0.0]}),
        made("b", {"flip": [5.0, 4.0], "gold": [1.0, 0.0]}),
        made("c", {"flip": [0.0, 1.0, 2.0], "gold": [1.0, 0.0, 0.0]}),
    ]
    curve = curve_of(pools, proxies=["flip"])
    assert (curve.sizes, curve.ns) == ([2, 3], [1, 2])
    close(curve.gold_of("flip")[0, :, 1], [1 / 3, 1, 0])
    assert [pool.prompt.id for pool in curve.pools[0]] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("size", "ns"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])]
)
def test_sizes_by_default(size: int, ns: list[int]) -> None:
    assert curve_of([made("a", {"flip": [0.0] * size, "gold": [1.0] * size})]).ns == ns


def test_proxies_by_default() -> None:
    pool = made("a", {"flip": [1.0], "gold": [1.0], "flip@4": [0.0]}, tokens=[3])
    names = ["flip", "longest", "majority", "random", "oracle"]
    assert [proxy.name for proxy in curve_of([pool]).curves] == names
    pool.candidates[0].mean_logprob = -0.5
    assert "mean-logprob" in by_name(curve_of([pool]))


WHOLE = {"flip": [-1.0, 0.0, 1.0], "gold": [0.0, 1.0, 1.0]}


@pytest.mark.parametrize(
    ("others", "options", "sentence"),
    [
        ([], {"proxies": ["flop"]}, "candidate 0 of prompt 'a' has no score 'flop', only flip, "),
        ([], {"gold": "truth"}, "no score 'truth', only flip, gold; add it with `bestofn score`"),
        ([], {"proxies": ["weighted:flop"]}, "has no score 'flop'"),
        ([], {"ns": [1, 5]}, "3 candidates are too few for N=5"),
        ([], {"proxies": ["weighted:flip"]}, "'flip' has negative values"),
        ([], {"answer": "maths"}, "no verifier 'maths'"),
        ([made("b", {"gold": [1.0]})], {}, "candidate 0 of prompt 'b' has no score 'flip'"),
        ([made("a", WHOLE)], {}, "2 pools have the prompt id 'a'"),
    ],
)
def test_what_cannot_be_estimated_is_one_sentence(others: Any, options: Any, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        curve_of([made("a", WHOLE), *others], **options)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("pools", [[], [[]], [[], []]])
def test_no_pools_at_all(pools: Any) -> None:
    with pytest.raises(ConfigError, match="there are no pools"):
        curve_of(pools)


def test_a_score_that_some_lack_is_a_proxy_all_the_same() -> None:
    pools = [made("a", {"gold": [0, 1]}), made("b", {"gold": [0, 1], "flip": [0, 1]})]
    with pytest.raises(ConfigError, match="prompt 'a' has no score 'flip'"):
        curve_of(pools)
    del pools[1].candidates[1].scores["flip"]
    with pytest.raises(ConfigError, match=r"candidate 1 of .* has no score 'flip', only gold;"):
        curve_of(pools[1:], proxies=["flip"])


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


def test_the_same_seed_gives_the_same_intervals() -> None:
    pools = random_pools(1)
    first, second, other = (
        curve_of(pools, proxies=["flip"], seed=s).curves[0].gold for s in (3, 3, 4)
    )
    close([first.low, first.high], [second.low, second.high])
    assert not np.array_equal(first.low, other.low)


# --- what else a curve says -----------------------------------------------------------------------


def test_after_the_peak() -> None:
    # The best of two is right, the best of all four is the one that fools the proxy.
    pool = made("a", {"proxy": [0.0, 1.0, 2.0, 3.0], "gold": [0.0, 1.0, 1.0, 0.0]})
    (proxy,) = curve_of([pool], proxies=["proxy"]).curves
    close(proxy.gold.mean, [1 / 2, 1 / 2, 0])
    peak, after = proxy.after_peak
    assert peak == 1
    close(after.mean, [-1 / 2])


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


def test_the_bound_on_the_divergence() -> None:
    pools = random_pools(1)
    curve = curve_of(pools, proxies=["flip"])
    close(curve.kl_bound, kl_upper_bound(curve.ns))
    assert curve_of(pools, proxies=["flip"], iid=False).kl_bound is None


def majority(texts: list[str], gold: list[float], **options: Any) -> tuple[float, float]:
    """Gold of the vote of all, and how often it is tied."""
    pools = [made("a", {"gold": gold}, texts=texts)]
    (found,) = curve_of(pools, proxies=["majority"], ns=[len(texts)], **options).curves
    return float(found.gold.mean[0]), float(found.ties[0])


def test_votes_compare_answers_and_an_empty_one_is_no_vote() -> None:
    texts, gold = ["x", "1.0", "1"], [0.0, 1.0, 1.0]
    assert majority(texts, gold) == pytest.approx((2 / 3, 1))
    assert majority(texts, gold, answer=lambda text: text[0]) == (1, 0)
    texts = ["7", "7", "7", "", "", "", "", "8"]
    assert majority(texts, [float(text == "7") for text in texts]) == (1, 0)


def test_votes_compare_what_a_verifier_of_that_name_reads() -> None:
    pytest.importorskip("math_verify")
    texts, gold = ["The answer is 1/2.", "The answer is 3.", "The answer is 0.5."], [1.0, 0.0, 1.0]
    assert majority(texts, gold, answer="math") == (1, 0)
    assert majority(texts, gold)[1] == 1


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


def test_the_callers_pools_stay_as_they_are() -> None:
    pools = [made(f"p{i}", {"gold": [0.0, 1.0]}, tokens=[2, 3]) for i in range(2)]
    for pool in pools:
        for candidate in pool.candidates:
            candidate.mean_logprob = -1.0
    before = [pool_rows.dumps(pool) for pool in pools]
    curve = curve_of(pools, proxies=["longest", "shortest", "mean-logprob"])
    assert [pool_rows.dumps(pool) for pool in pools] == before
    assert [c.gold.mean[-1] for c in curve.curves] == [1, 0, 0.5]


# --- real responses -------------------------------------------------------------------------------


def test_real_responses(alpaca_rows: list[dict[str, Any]]) -> None:
    """Pools of several sizes, whose gold is a judge's preference for the response."""
    real = [
        made(
            row["id"],
            {"gold": [float(c["preference"]) for c in row["candidates"]]},
            texts=[c["text"] for c in row["candidates"]],
        )
        for row in alpaca_rows
    ]
    least = min(len(pool.candidates) for pool in real)
    curve = curve_of(real, proxies=["longest", "random", "oracle"], ns=range(1, least + 1))
    assert curve.prompts == 300
    for place, pool in enumerate(curve.pools[0]):
        golds = []
        for drawn in combinations(pool.candidates, least):
            longest = max(len(c.text) for c in drawn)
            golds.append(np.mean([c.scores["gold"].value for c in drawn if len(c.text) == longest]))
        close(curve.gold_of("longest")[0, place, -1], np.mean(golds))
        gold = [c.scores["gold"].value for c in pool.candidates]
        close(curve.gold_of("random")[0, place], [np.mean(gold)] * least)
    for proxy in curve.curves:
        assert np.isfinite(proxy.gold.mean).all()
        assert (proxy.gold.low <= proxy.gold.high).all()
    assert (np.diff(curve.gold_of("oracle"), axis=2) >= -1e-12).all()
