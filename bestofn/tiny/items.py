"""Best-of-4 items of the tiny world: a right response, and three that are wrong in one way.

The rows have the schema, and the subsets the names, of RewardBench 2 (arXiv 2506.01937). A mistake
is drawn at random and may come out right after all; the verifier tells.
"""

import json
import re
from collections.abc import Callable, Iterator
from itertools import islice
from random import Random
from typing import Any

from bestofn.tiny import answers, world
from bestofn.tiny.world import FAMILIES, Task

Mistake = Callable[[Task, Random], str]

WRONG = 3  # responses of an item
TRIES = 60
OFF_BY = (-10, -2, -1, 1, 2, 10)


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
    for task in world.distinct_tasks(rng, mistakes, tries=TRIES, drop=True):
        rejected = _rejected(task, mistakes[task.family], rng)
        if rejected is None:
            continue
        yield {
            "id": f"{subset}-{number}",
            "prompt": task.instruction,
            "chosen": [world.answer(task, rng)],
            "rejected": rejected,
            "num_correct": 1,
            "num_incorrect": WRONG,
            "total_completions": 1 + WRONG,
            "models": ["the tiny world"] * (1 + WRONG),
            "subset": subset,
            "additional_metadata": {"family": task.family},
        }
        number += 1


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


# --- mistakes -------------------------------------------------------------------------------------


def other_task(task: Task, rng: Random) -> str:
    """A right answer to another task of the family."""
    return world.answer(world.draw(rng, "heldout", task.family), rng)


def other_slot(name: str, draw: Callable[[Task, Random], object]) -> Mistake:
    """A right answer to the task with another value of a slot."""

    def mistake(task: Task, rng: Random) -> str:
        slots = {**task.slots, name: str(draw(task, rng))}
        return FAMILIES[task.family].answer(slots, rng)

    return mistake


def other_count(least: int) -> Mistake:
    """One or two sentences or lines more or less."""
    changes = [-2, -1, 1, 2]
    return other_slot("n", lambda task, rng: max(int(task.slots["n"]) + rng.choice(changes), least))


def stranger(task: Task, rng: Random) -> str:
    """A list one of whose members is of another category."""
    slots = task.slots
    members = rng.sample(answers.CATEGORIES[slots["kind"]], int(slots["n"]))
    other = rng.choice([kind for kind in answers.CATEGORIES if kind != slots["kind"]])
    members[rng.randrange(len(members))] = rng.choice(answers.CATEGORIES[other])
    return answers.layout(members, slots["style"])


def other_word(task: Task, rng: Random) -> str:
    """Another day at the end, or another one of the numbers as the largest or smallest."""
    listed = task.slots.get("values")
    words = answers.WORDS["day"] if listed is None else listed.split(", ")
    return f"{world.answer(task, rng).rpartition(' ')[0]} {rng.choice(words)}."


def wrong_side(task: Task, rng: Random) -> str:
    """One or two of the numbers among the even ones though odd, or the other way round."""
    values = answers.listed(task.slots["values"])
    moved = rng.sample(values, rng.randint(1, 2))
    return answers.two_sides(values, [v for v in values if (v % 2 == 0) != (v in moved)])


def other_field(task: Task, rng: Random) -> str:
    """A record with another name, age or job."""
    name, family = rng.choice(["name", "age", "job"]), FAMILIES[task.family]
    return family.answer({**task.slots, name: family.draw(rng)[name]}, rng)


def other_layout(task: Task, rng: Random) -> str:
    members = re.findall("[a-z]+", world.answer(task, rng))
    shapes = [answers.layout(members, style) for style in answers.LAYOUTS]
    return rng.choice([*shapes, *(answers.join(members, sep) for sep in answers.SEPARATORS)])


def other_hyphens(task: Task, rng: Random) -> str:
    return world.answer(task, rng).replace("-", rng.choice(["", " ", ", ", "; ", "\n"]))


def other_record(task: Task, rng: Random) -> str:
    """The same fields as JSON, or in lines, bullets or one line."""
    fields = json.loads(FAMILIES["record"].answer({**task.slots, "format": "JSON"}, rng))
    pairs = answers.in_pairs(fields)
    shapes = [json.dumps(fields), *(sep.join(pairs) for sep in ("\n", ", ", "; "))]
    return rng.choice([*shapes, "\n".join(f"- {pair}" for pair in pairs)])


def off_result(task: Task, rng: Random) -> str:
    """A sum or a difference that is off."""
    head, _, result = world.answer(task, rng).rpartition(" ")
    return f"{head} {max(0, int(result) + rng.choice(OFF_BY))}"


def off_product(task: Task, rng: Random) -> str:
    """A times table with a product that is off, in one line or in all from some line on."""
    lines = world.answer(task, rng).split("\n")
    first, off = rng.randrange(len(lines)), rng.choice(OFF_BY)
    last = rng.choice([first + 1, len(lines)])
    for place in range(first, last):
        head, _, product = lines[place].rpartition(" ")
        lines[place] = f"{head} {max(0, int(product) + off)}"
    return "\n".join(lines)


def off_step(task: Task, rng: Random) -> str:
    """A sequence with a number that is off, or with all that are so from some place on."""
    values = answers.listed(world.answer(task, rng))
    first, off = rng.randrange(1, len(values)), rng.choice([-2, -1, 1, 2])
    last = rng.choice([first + 1, len(values)])
    return answers.join(v + off * (first <= place < last) for place, v in enumerate(values))


SUBSETS: dict[str, dict[str, Mistake]] = {
    "Focus": dict.fromkeys(FAMILIES, other_task),
    "Factuality": {
        "list": stranger,
        "day": other_word,
        "extreme": other_word,
        "even_odd": wrong_side,
        "record": other_field,
    },
    "Precise IF": {
        **dict.fromkeys(
            ("count_up", "count_down", "repeat"),
            other_slot("sep", lambda _, rng: rng.choice([*answers.SEPARATORS])),
        ),
        "wrap": other_slot("kind", lambda _, rng: rng.choice([*answers.BRACKETS])),
        "list": other_layout,
        "spell": other_hyphens,
        "record": other_record,
        "story": other_count(2),
        "letter": other_count(1),
        "dialogue": other_count(1),
    },
    "Math": {
        "add": off_result,
        "subtract": off_result,
        "times_table": off_product,
        "steps": off_step,
    },
}
"""How each family's responses go wrong, by subset."""
