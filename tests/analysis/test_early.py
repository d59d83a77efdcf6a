"""What a rule of drawing comes to on a pool is what a run with that rule would have done."""

from functools import partial
from itertools import permutations
from math import nan
from typing import Any

import numpy as np
import pytest
from making import made

from bestofn import BestOfN, EarlyRejection, FLIPLikelihood, SamplingParams, load_engine
from bestofn.analysis.costs import price
from bestofn.analysis.curves import ScalingCurve
from bestofn.analysis.early import Drawing, draw_early, drawing_of
from bestofn.dataset.pools import add, draw
from bestofn.dataset.sources import read_prompts
from bestofn.errors import ConfigError
from bestofn.estimators import best_of_n
from bestofn.generators import EngineGenerator
from bestofn.stopping import ExpectedGain
from bestofn.types import Pool, Usage

SAMPLING = SamplingParams(max_tokens=60)


@pytest.mark.parametrize(("at", "keep"), [((4, 8), 0.5), ((6,), 0.25)])
def test_early_rejection_is_told_from_a_pool_as_it_runs(at: tuple[int, ...], keep: float) -> None:
    engine, rejection = load_engine("tiny"), EarlyRejection(at, keep)
    reward, prompts = FLIPLikelihood(engine), list(read_prompts("tiny:5"))
    generator = EngineGenerator(engine, SAMPLING, seed=0, keep_tokens=True)
    drawn = draw(prompts, generator, m=8)
    pools = list(add(drawn, [reward], limits=at, decoder=engine))
    places = np.tile(np.arange(8.0), (5, 1))
    told = draw_early(pools, Drawing(reward.name, reject=rejection), places, [8])
    engine = load_engine("tiny")  # with an empty cache
    reward = FLIPLikelihood(engine)
    best = BestOfN(engine, reward, n=8, sampling=SAMPLING, seed=0, reject=rejection)
    scored = 0
    for row, selection in enumerate(best.select_many(prompts, progress=False)):
        values = [
            s.value if c.whole else nan
            for c, s in zip(selection.candidates, selection.scores, strict=True)
        ]
        tied = [i for i, value in enumerate(values) if value == values[selection.index]]
        assert told.values[row, 0] == np.mean(tied)
        tokens = [c.token_count or 0 for c in selection.candidates]
        assert told.generated[row, 0] == sum(tokens)
        usages = (s.usage for c in selection.candidates for s in c.scores.values())
        scored += sum(usage.computed_tokens for usage in usages)
    # Requests that overlap share what is in the cache by then, equal beginnings are not known.
    assert told.scored.sum() == pytest.approx(scored, rel=0.4)
    whole = sum(c.token_count or 0 for pool in pools for c in pool.candidates)
    assert told.generated.sum() < whole


def pool_of(values: list[float], **cuts: list[float]) -> Pool:
    """Candidates of 10 tokens that cost 1 second to draw; `cuts` are scores of beginnings."""
    rows = {"r": values, "gold": values} | {f"r@{n[1:]}": row for n, row in cuts.items()}
    pool = made("p", rows, tokens=[10] * len(values), cost=10)
    for candidate in pool.candidates:
        candidate.usage = Usage(prompt_tokens=5, generated_tokens=10, seconds=1.0)
    return pool


def run(pool: Pool, drawing: Drawing, n: int, **options: Any) -> Any:
    truth = np.array([[c.scores["gold"].value for c in pool.candidates]])
    return draw_early([pool], drawing, truth, [n], **options)


def test_of_a_subset_only_its_own_candidates_compete() -> None:
    pool = pool_of([0.0, 1.0, 2.0, 3.0], t4=[3.0, 2.0, 1.0, 0.0])
    found = run(pool, Drawing("r", reject=EarlyRejection((4,), 0.5)), 2)
    # Of each pair the worse one is kept, as its beginning is better.
    worse = best_of_n([[3.0, 2.0, 1.0, 0.0]], [[0.0, 1.0, 2.0, 3.0]], [2])
    assert abs(found.values[0, 0] - worse[0, 0]) < 4 * found.error[0]
    assert found.generated[0, 0] == 14
    everyone = run(pool, Drawing("r", reject=EarlyRejection((4,), 1.0)), 4)
    assert (everyone.values[0, 0], everyone.generated[0, 0], everyone.scored[0, 0]) == (3, 40, 40)


def test_a_rejected_one_costs_what_it_had_and_a_failed_beginning_stays() -> None:
    pool = pool_of([0.0, 1.0, 2.0, nan], t4=[3.0, 2.0, nan, 1.0])
    prices = {"output": 1e6}
    found = run(pool, Drawing("r", reject=EarlyRejection((4,), 0.3)), 4, prices=prices)
    assert (found.values[0, 0], found.generated[0, 0], found.money[0, 0]) == (2, 28, 28)
    assert found.seconds[0, 0] == 1.0


def test_rounds_end_where_the_rule_says() -> None:
    pool = pool_of([1.0, 1.0, 1.0, 1.0])
    others = pool_of([0.0, 1.0, 0.0, 1.0])
    drawing, truth = Drawing("r", cost=0.0, round_size=2), np.ones((2, 4))
    found = draw_early([pool, others], drawing, truth, [4])
    # The others' highest score is the ceiling, and the first round reaches it.
    assert found.generated[0, 0] == 20
    assert found.seconds[0, 0] == 1.0
    never = draw_early([pool, others], Drawing("r", cost=0.0, round_size=4), truth, [4])
    assert never.generated[1, 0] == 40


def test_a_proxy_with_a_rule_has_its_costs_and_nothing_of_its_own() -> None:
    pool = pool_of([0.0, 1.0, 2.0, 3.0], t4=[0.0, 1.0, 2.0, 3.0])
    proxies = ["r", "reject=4/0.5:r", "adaptive=9/1:reject=4/0.5:r"]
    curve = ScalingCurve([pool], proxies=proxies, resamples=10, prices={"input": 1.0})
    plain, rejecting, both = curve.curves
    assert rejecting.gold.mean[-1] == plain.gold.mean[-1] == 3
    assert rejecting.gold.mean[0] == plain.gold.mean[0] == 1.5
    assert rejecting.generated_tokens is not None
    assert rejecting.generated_tokens[-1] == 28
    assert plain.latency is not None
    assert plain.latency[:, -1].tolist() == [1, 1]
    assert plain.money is not None
    assert plain.money[-1] == pytest.approx(4 * (5 + 10) / 1e6)
    assert rejecting.proxy is None
    assert both.generated_tokens is not None
    assert both.generated_tokens[-1] == 10


def test_random_orders_agree_with_all_orders() -> None:
    rng = np.random.default_rng(1)
    pool = pool_of(rng.random(5).tolist())
    other = pool_of(rng.random(5).tolist())
    scores = [c.scores["r"].value for c in pool.candidates]
    stop = ExpectedGain(0.05, prior=[[c.scores["r"].value for c in other.candidates]])
    lengths, golds = [], []
    for order in permutations(scores):
        ends = [*np.flatnonzero(stop.stops(order)), 4]
        lengths.append(10 * (ends[0] + 1))
        golds.append(max(order[: ends[0] + 1]))
    truth = np.array([[c.scores["r"].value for c in p.candidates] for p in (pool, other)])
    found = draw_early(
        [pool, other], Drawing("r", cost=0.05, round_size=1), truth, [5], orders=4000
    )
    assert found.generated[0, 0] == pytest.approx(np.mean(lengths), rel=0.05)
    assert found.values[0, 0] == pytest.approx(np.mean(golds), abs=0.02)


def test_what_usage_costs() -> None:
    usage = Usage(prompt_tokens=10, cached_tokens=4, generated_tokens=3, scored_tokens=2)
    assert price(usage, {"input": 1e6, "cached_input": 1e5, "output": 1e7}) == 8 + 0.4 + 30
    assert price(usage, {}) == 0


@pytest.mark.parametrize(
    ("proxy", "said"),
    [
        ("reject=0.5:r", "rising"),
        ("reject=8/4/0.5:r", "rising"),
        ("reject=8/2:r", "keep"),
        ("reject=x/0.5:r", "rules of drawing are"),
        ("adaptive=-1:r", "cost"),
        ("adaptive:r", "rules of drawing are"),
        ("adaptive=0.1/0:r", "a round has"),
        ("reject=8/0.5:soft=0.1:r", "before a score"),
        ("adaptive=1:adaptive=2:r", "rule of drawing once"),
        ("adaptive=0.05:majority", "before a score"),
        ("reject=8/0.5:oracle", "before a score"),
    ],
)
def test_rules_that_make_no_sense(proxy: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        drawing_of(proxy)


def test_costs_that_are_not_known() -> None:
    pool = pool_of([0.0, 1.0], t4=[0.0, 1.0])
    pool.candidates[0].usage = Usage()
    proxies = ["r", "reject=4/0.5:r"]
    for found in ScalingCurve([pool], proxies=proxies, resamples=10, prices={"input": 1}).curves:
        assert (found.money, found.latency) == (None, None)
        assert found.generated_tokens is not None


def test_a_beginning_costs_at_least_what_is_scored_of_it() -> None:
    """Though the whole response was in the cache, as another reward had read it."""
    pool = pool_of([0.0, 1.0], t4=[0.0, 1.0])
    for candidate in pool.candidates:
        candidate.scores["r"].usage = Usage(prompt_tokens=300, cached_tokens=290, scored_tokens=20)
        candidate.scores["r@4"].usage = Usage(prompt_tokens=60, scored_tokens=20)
    drawing = Drawing("r", reject=EarlyRejection((4,), 0.5))
    found = run(pool, drawing, 2, prices={"input": 1e6, "cached_input": 1e6})
    assert found.scored[0, 0] == 20 + 20 + 30
    assert found.money[0, 0] == 2 * 5 + 80 + 80 + 320


def test_what_a_pool_lacks_is_named() -> None:
    pool, drawing = pool_of([0.0, 1.0]), Drawing("r", reject=EarlyRejection((4,), 0.5))
    simulate = partial(draw_early, truth=[[0.0, 0.0]], ns=[2])
    with pytest.raises(ConfigError, match=r"no score 'r@4'.*--limits 4"):
        simulate([pool], drawing)
    pool.candidates[1].token_count = None
    with pytest.raises(ConfigError, match="no token count"):
        simulate([pool], Drawing("r", cost=0.1))
