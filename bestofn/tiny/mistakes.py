"""Wrong responses to the tasks of the tiny world, each wrong in one way.

A mistake is drawn at random and may come out right after all; the verifier tells.
"""

import json
import re
from collections.abc import Callable, Iterable
from random import Random

from bestofn.tiny import answers, world
from bestofn.tiny import lexicon as lex
from bestofn.tiny.answers import BRACKETS, LAYOUTS, SEPARATORS
from bestofn.tiny.families import FAMILIES
from bestofn.tiny.world import Task

Mistake = Callable[[Task, Random], str]

OFF_BY = (-10, -2, -1, 1, 2, 10)


def other_task(task: Task, rng: Random) -> str:
    """A right answer to another task of the family."""
    return world.answer(world.draw(rng, "heldout", task.family), rng)


# --- facts ----------------------------------------------------------------------------------------


def stranger(task: Task, rng: Random) -> str:
    """A list one of whose members is of another category."""
    slots = task.slots
    members = rng.sample(lex.CATEGORIES[slots["kind"]], int(slots["n"]))
    other = rng.choice([kind for kind in lex.CATEGORIES if kind != slots["kind"]])
    members[rng.randrange(len(members))] = rng.choice(lex.CATEGORIES[other])
    return answers.layout(members, slots["style"])


def other_day(task: Task, rng: Random) -> str:
    return _with_last_word(world.answer(task, rng), rng.choice(lex.DAYS))


def other_number(task: Task, rng: Random) -> str:
    """Another one of the numbers as the largest or smallest."""
    values = task.slots["values"].split(", ")
    return _with_last_word(world.answer(task, rng), rng.choice(values))


def _with_last_word(sentence: str, word: str) -> str:
    return f"{sentence.rpartition(' ')[0]} {word}."


def wrong_side(task: Task, rng: Random) -> str:
    """One or two of the numbers among the even ones though odd, or the other way round."""
    values = answers.listed(task.slots)
    moved = rng.sample(values, rng.randint(1, 2))
    even = [value for value in values if (value % 2 == 0) != (value in moved)]
    return answers.two_sides(even, values)


def other_field(task: Task, rng: Random) -> str:
    """A record with another name, age or job."""
    name = rng.choice(["name", "age", "job"])
    return answers.record({**task.slots, name: FAMILIES[task.family].draw(rng)[name]})


# --- form -----------------------------------------------------------------------------------------


def other_slot(name: str, values: Iterable[str]) -> Mistake:
    """A right answer to the task with another value of a slot that is about form."""
    known = [*values]

    def mistake(task: Task, rng: Random) -> str:
        slots = {**task.slots, name: rng.choice(known)}
        return FAMILIES[task.family].answer(slots, rng)

    return mistake


def other_count(least: int) -> Mistake:
    """A right answer to the task with one or two sentences or lines more or less."""

    def mistake(task: Task, rng: Random) -> str:
        n = int(task.slots["n"]) + rng.choice([-2, -1, 1, 2])
        return FAMILIES[task.family].answer({**task.slots, "n": str(max(n, least))}, rng)

    return mistake


def other_layout(task: Task, rng: Random) -> str:
    members = re.findall("[a-z]+", world.answer(task, rng))
    shapes = [answers.layout(members, style) for style in LAYOUTS]
    return rng.choice([*shapes, *(answers.join(members, sep) for sep in SEPARATORS)])


def other_hyphens(task: Task, rng: Random) -> str:
    return world.answer(task, rng).replace("-", rng.choice(["", " ", ", ", "; ", "\n"]))


def other_record(task: Task, rng: Random) -> str:
    """The same fields as JSON, or in lines, bullets or one line."""
    fields = answers.fields_of(task.slots)
    pairs = [f"{key}: {value}" for key, value in fields.items()]
    shapes = [json.dumps(fields), "\n".join(pairs), ", ".join(pairs), "; ".join(pairs)]
    return rng.choice([*shapes, "\n".join(f"- {pair}" for pair in pairs)])


# --- arithmetic -----------------------------------------------------------------------------------


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
    values = [int(value) for value in world.answer(task, rng).split(", ")]
    first, off = rng.randrange(1, len(values)), rng.choice([-2, -1, 1, 2])
    last = rng.choice([first + 1, len(values)])
    moved = [value + off * (first <= place < last) for place, value in enumerate(values)]
    return ", ".join(map(str, moved))


# --------------------------------------------------------------------------------------------------

SUBSETS: dict[str, dict[str, Mistake]] = {
    "Focus": dict.fromkeys(FAMILIES, other_task),
    "Factuality": {
        "list": stranger,
        "day": other_day,
        "extreme": other_number,
        "even_odd": wrong_side,
        "record": other_field,
    },
    "Precise IF": {
        "count_up": other_slot("sep", SEPARATORS),
        "count_down": other_slot("sep", SEPARATORS),
        "repeat": other_slot("sep", SEPARATORS),
        "wrap": other_slot("kind", BRACKETS),
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
