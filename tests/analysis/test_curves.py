"""Scaling curves are the estimators' expectations over prompts, of whatever a proxy reads."""

from math import nan
from typing import Any

import numpy as np
import pytest
from making import made

from bestofn.analysis.curves import ProxyCurve, ScalingCurve
from bestofn.analysis.proxies import selector_of
from bestofn.errors import ConfigError
from bestofn.estimators import best_of_n, expected_cost, expected_votes, failure_rate, tie_rate
from bestofn.types import Pool

EXACT: dict[str, Any] = {"rtol": 0, "atol": 1e-12}


def close(found: Any, wanted: Any) -> None:
    np.testing.assert_allclose(np.asarray(found, float), np.asarray(wanted, float), **EXACT)


def curve_of(pools: Any, **options: Any) -> ScalingCurve:
    return ScalingCurve(pools, **{"resamples": 10} | options)


def by_name(curve: ScalingCurve) -> dict[str, ProxyCurve]:
    return {proxy.name: proxy for proxy in curve.curves}


def test_every_number_is_the_estimators_mean_over_prompts_of_any_size() -> None:
    rng, ns, pools = np.random.default_rng(0), [1, 2, 4], []
    for i in range(12):
        size = 4 + i % 3
        values = {"proxy": rng.choice([nan, 0.0, 0.5, 1.0], size), "gold": rng.random(size)}
        texts, rows = rng.choice(["x", "y", " x"], size), {n: v.tolist() for n, v in values.items()}
        pools.append(made(str(i), rows, texts=texts.tolist(), cost=3))
    proxies = ["proxy", "majority", "weighted:proxy", "random", "oracle"]
    curve = curve_of(pools, proxies=proxies, ns=ns)
    found = by_name(curve)

    def mean(estimate: Any) -> Any:
        """Over the prompts, of an estimate from scores, gold, texts and answers."""
        rows = []
        for pool in pools:
            drawn = pool.candidates
            scores, gold = (
                np.array([[c.scores[n].value for c in drawn]]) for n in ("proxy", "gold")
            )
            texts, answers = [c.text for c in drawn], [c.text.strip() for c in drawn]
            groups = (np.array([[names.index(n) for n in names]]) for names in (texts, answers))
            rows.append(estimate(scores, gold, *groups)[0])
        return np.mean(rows, axis=0)

    gold = mean(lambda s, g, t, a: best_of_n(s, g, ns))
    random = mean(lambda s, g, t, a: g.mean(axis=1, keepdims=True))
    paid = mean(lambda s, g, t, a: expected_cost(t, np.full(s.shape, 3.0), ns))
    failed = mean(lambda s, g, t, a: failure_rate(s, ns))
    close(found["proxy"].gold.mean, gold)
    close(found["proxy"].gain.mean, gold - random)
    close(found["proxy"].failures, failed)
    close(found["proxy"].ties, mean(lambda s, g, t, a: tie_rate(s, ns)))
    close(found["random"].gold.mean, np.repeat(random, 3))
    close(found["oracle"].gold.mean, mean(lambda s, g, t, a: best_of_n(g, g, ns)))
    close(found["weighted:proxy"].failures, failed)
    for name in ("proxy", "weighted:proxy"):
        close(found[name].scored_tokens, paid)
    close(found["majority"].gold.mean, mean(lambda s, g, t, a: expected_votes(a, g, ns).values))
    close(found["majority"].ties, mean(lambda s, g, t, a: expected_votes(a, g, ns).ties))
    weighted = mean(lambda s, g, t, a: expected_votes(a, g, ns, s).values)
    close(found["weighted:proxy"].gold.mean, weighted)
    own = curve.expect("proxy").proxy
    assert own is not None
    first = [[c.scores["proxy"].value for c in pools[0].candidates]]
    close(
        own[0, 0], (best_of_n(first, np.nan_to_num(first), ns) / (1 - failure_rate(first, ns)))[0]
    )


def test_selectors_of_a_score_are_proxies() -> None:
    rng, names = np.random.default_rng(1), ["soft=0.3:p", "pessimistic:p", "mob=2:p", "mbr=f1"]
    pools = [
        made(
            str(i),
            {"p": rng.choice([nan, 0.0, 0.5, 1.0], 20).tolist(), "gold": rng.random(20).tolist()},
            texts=rng.choice(["x y", "y z", "z"], 20).tolist(),
        )
        for i in range(6)
    ]
    curve = curve_of(pools, proxies=[*names, "p"], ns=[1, 8, 20])
    for found in curve.curves:
        selector = selector_of(found.name, str.strip)
        if selector is None:
            continue
        error = found.monte_carlo_error
        assert error is not None
        assert error[0] == error[2] == 0 < error[1]
        whole = []
        for pool in pools:
            values = [c.scores["p"].value for c in pool.candidates]
            chances, _ = selector.rule(pool.candidates, np.array(values))(np.arange(20)[None])
            whole.append(chances[0] @ [c.scores["gold"].value for c in pool.candidates])
        assert found.gold.mean[2] == pytest.approx(np.mean(whole))
        assert found.proxy is None
        assert (found.scored_tokens > 0).all() == (found.name != "mbr=f1") or not any(
            c.scores["p"].usage.computed_tokens for c in pools[0].candidates
        )


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
        ([A], {"proxies": ["weighted:flip"]}, "the scores have negative values"),
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
