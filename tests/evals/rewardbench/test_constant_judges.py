"""Judges that read nothing are at most at chance."""

import asyncio
import json
from collections.abc import Callable

import pytest
from fakes import ScriptedEngine

from bestofn.engines.base import Engine
from bestofn.evals.rewardbench.accuracy import FIELDS, outcomes
from bestofn.evals.rewardbench.items import Item, as_pool
from bestofn.rewards.baselines import RandomChoice
from bestofn.rewards.judges import ListwiseJudge, PairwiseJudge, PointwiseJudge
from bestofn.scoring import RewardModel, add_scores
from bestofn.tiny.items import tiny_items
from bestofn.types import Pool

SEEDS = range(10)
ITEMS = [
    Item(row["id"], row["subset"], row["prompt"], tuple(row["chosen"]), tuple(row["rejected"]))
    for row in tiny_items(20)
]
SIGMAS = 4 * (0.25 * 0.75 / (len(ITEMS) * len(SEEDS))) ** 0.5


def says(field: str, verdict: object) -> ScriptedEngine:
    return ScriptedEngine(json.dumps({"reasoning": "", field: verdict}))


def accuracies(make: Callable[[Engine, int], RewardModel], engine: Engine) -> dict[str, float]:
    """By convention, over all items and seeds; judge and items have the same seed each time."""

    async def scored(seed: int) -> list[Pool]:
        pools = [as_pool(item, seed) for item in ITEMS]
        judge = make(engine, seed)
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


@pytest.mark.parametrize(
    ("make", "engine"),
    [
        (lambda engine, seed: PointwiseJudge(engine), says("score", 5)),
        (lambda engine, seed: PairwiseJudge(engine, seed=seed), says("better", "A")),
        (
            lambda engine, seed: PairwiseJudge(engine, seed=seed, tournament="round-robin"),
            says("better", "B"),
        ),
        (lambda engine, seed: PointwiseJudge(engine), ScriptedEngine("garbage")),
        (lambda engine, seed: PairwiseJudge(engine, seed=seed), ScriptedEngine("garbage")),
        (lambda engine, seed: ListwiseJudge(engine, seed=seed), ScriptedEngine("garbage")),
    ],
)
def test_a_judge_without_a_preference_is_at_chance(
    make: Callable[[Engine, int], RewardModel], engine: Engine
) -> None:
    found = accuracies(make, engine)
    assert found["strict"] == 0
    assert found["credit"] == 0.25


@pytest.mark.parametrize("number", [1, 2, 4])
def test_a_list_judge_with_a_favourite_place_is_at_chance(number: int) -> None:
    """The right one of four stands in any place equally often, whatever seeds are shared."""
    found = accuracies(lambda engine, seed: ListwiseJudge(engine, seed=seed), says("best", number))
    assert found["strict"] == found["credit"] == pytest.approx(0.25, abs=SIGMAS)


def test_the_first_in_the_bracket_has_no_advantage() -> None:
    """The one that comes first in each pair wins: the right one comes first as often as others."""
    said = iter(["A", "B"] * 100_000)
    engine = ScriptedEngine(lambda *_: json.dumps({"better": next(said)}))
    found = accuracies(lambda engine, seed: PairwiseJudge(engine, seed=seed), engine)
    assert found["strict"] == pytest.approx(0.25, abs=SIGMAS)


def test_a_random_choice_is_at_chance() -> None:
    found = accuracies(lambda engine, seed: RandomChoice(seed), ScriptedEngine())
    assert found["credit"] == pytest.approx(0.25, abs=SIGMAS)
