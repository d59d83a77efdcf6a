"""Judges that read nothing are at most at chance."""

import asyncio
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from fakes import ScriptedEngine

from bestofn.engines.base import Engine
from bestofn.evals.rewardbench.accuracy import FIELDS, outcomes
from bestofn.evals.rewardbench.run import Item, as_pool
from bestofn.rewards.baselines import RandomChoice
from bestofn.rewards.judges import ListwiseJudge, PairwiseJudge, PointwiseJudge
from bestofn.scoring import RewardModel, add_scores
from bestofn.tiny.items import tiny_items
from bestofn.types import Pool

SEEDS = range(10)
ITEMS = [Item.model_validate(row) for row in tiny_items(20)]
SIGMAS = 4 * (0.25 * 0.75 / (len(ITEMS) * len(SEEDS))) ** 0.5


def says(field: str, verdict: object) -> ScriptedEngine:
    return ScriptedEngine(json.dumps({"reasoning": "", field: verdict}))


def accuracies(make: Callable[..., RewardModel], engine: Engine) -> dict[str, float]:
    """By convention, over all items and seeds; judge and items have the same seed each time."""

    async def scored(seed: int) -> list[Pool]:
        pools = [as_pool(item, seed) for item in ITEMS]
        judge = make(engine) if make is PointwiseJudge else make(engine, seed=seed)
        for pool in pools:
            await add_scores(pool.prompt, pool.candidates, judge)
        return pools

    async def all_seeds() -> list[list[Pool]]:
        return [await scored(seed) for seed in SEEDS]

    pools = asyncio.run(all_seeds())
    means = outcomes(
        pools, next(name for name in pools[0][0].candidates[0].scores if name != "gold")
    )
    return dict(zip(FIELDS, means.mean(axis=0).tolist(), strict=True))


said = iter(["A", "B"] * 100_000)
FIRST = ScriptedEngine(lambda *_: json.dumps({"better": next(said)}))


@pytest.mark.parametrize(
    ("judge", "engine", "strict"),
    [
        (PointwiseJudge, says("score", 5), 0),
        (PairwiseJudge, says("better", "A"), 0),
        (partial(PairwiseJudge, tournament="round-robin"), says("better", "B"), 0),
        (PointwiseJudge, ScriptedEngine("garbage"), 0),
        (PairwiseJudge, ScriptedEngine("garbage"), 0),
        (ListwiseJudge, ScriptedEngine("garbage"), 0),
        # The right one of four is in any place equally often, whatever seeds are shared.
        *((ListwiseJudge, says("best", place), 0.25) for place in (1, 2, 4)),
        # The one that comes first in each pair wins: the right one as often as others.
        (PairwiseJudge, FIRST, 0.25),
        (lambda engine, seed: RandomChoice(seed), ScriptedEngine(), 0.25),
    ],
)
def test_a_judge_that_reads_nothing_is_at_most_at_chance(
    judge: Any, engine: Engine, strict: float
) -> None:
    found = accuracies(judge, engine)
    scatter = SIGMAS if strict else 0
    assert found["strict"] == pytest.approx(strict, abs=scatter)
    assert found["credit"] == pytest.approx(0.25, abs=scatter)
