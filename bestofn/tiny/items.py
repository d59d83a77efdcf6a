"""Best-of-4 items of the tiny world: a right response, and three that are wrong in one way.

The rows have the schema, and the subsets the names, of RewardBench 2 (arXiv 2506.01937).
"""

from collections.abc import Iterator
from itertools import islice
from random import Random
from typing import Any

from bestofn.tiny import world
from bestofn.tiny.mistakes import SUBSETS, Mistake
from bestofn.tiny.world import Task

WRONG = 3  # responses of an item
TRIES = 60


def tiny_items(count: int, seed: int = 2026) -> list[dict[str, Any]]:
    """The first `count` items of each subset, made of distinct held-out tasks, families in turn.

    A subset whose families have fewer distinct instructions than that is shorter. More items do
    not change those that come before.

    Returns:
        Rows of the schema of the data set allenai/reward-bench-2.
    """
    return [row for subset in SUBSETS for row in islice(_items(subset, seed), count)]


def _items(subset: str, seed: int) -> Iterator[dict[str, Any]]:
    rng, mistakes, number = Random(f"{seed}/{subset}"), SUBSETS[subset], 0
    for task in _tasks([*mistakes], rng):
        rejected = _rejected(task, mistakes[task.family], rng)
        if rejected is not None:
            yield _row(f"{subset}-{number}", subset, task, world.answer(task, rng), rejected)
            number += 1


def _tasks(families: list[str], rng: Random) -> Iterator[Task]:
    seen = set[str]()
    while families:
        for family in [*families]:
            drawn = (world.draw(rng, "heldout", family) for _ in range(TRIES))
            task = next((task for task in drawn if task.instruction not in seen), None)
            if task is None:  # a small family runs out of distinct instructions
                families.remove(family)
                continue
            seen.add(task.instruction)
            yield task


def _rejected(task: Task, mistake: Mistake, rng: Random) -> list[str] | None:
    """Three distinct wrong responses, None where the task does not have so many."""
    wrong = dict[str, None]()
    for _ in range(TRIES):
        response = mistake(task, rng)
        if not world.verify(task.instruction, response):
            wrong[response] = None
        if len(wrong) == WRONG:
            return [*wrong]
    return None


def _row(id: str, subset: str, task: Task, chosen: str, rejected: list[str]) -> dict[str, Any]:
    return {
        "id": id,
        "prompt": task.instruction,
        "chosen": [chosen],
        "rejected": rejected,
        "num_correct": 1,
        "num_incorrect": len(rejected),
        "total_completions": 1 + len(rejected),
        "models": ["the tiny world"] * (1 + len(rejected)),
        "subset": subset,
        "additional_metadata": {"family": task.family},
    }
