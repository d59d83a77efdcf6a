"""How the slots of each task family are drawn, and what a right answer to them is.

`draw_...` fills slots, `write_...` gives one right answer of many, `check_...` verifies any; the
other functions give the one right answer. Slots are strings, exactly as they stand in the
instruction.
"""

import json
import re
from collections.abc import Iterable, Sequence
from random import Random

from bestofn.tiny import lexicon as lex

Slots = dict[str, str]


SEPARATORS = {"": ", ", ", one per line": "\n", ", with semicolons": "; ", ", with dashes": " - "}
LAYOUTS = ("", " as a numbered list", " as bullets")
BRACKETS = {"brackets": "[]", "parentheses": "()", "stars": "**", "quotes": '""'}
LARGEST = 99


def numbers(slots: Slots, *names: str) -> tuple[int, ...]:
    return tuple(int(slots[name]) for name in names)


# --- sequences of numbers -------------------------------------------------------------------


def draw_range(rng: Random) -> Slots:
    # Long ranges are rare.
    length = rng.randint(3, 12) if rng.random() < 0.8 else rng.randint(13, 30)
    low = rng.randint(1, LARGEST + 1 - length)
    return {"low": str(low), "high": str(low + length - 1)}


def valid_range(slots: Slots) -> bool:
    low, high = numbers(slots, "low", "high")
    return 2 <= high - low <= 30


def join(values: Iterable[object], sep: str) -> str:
    return SEPARATORS[sep].join(map(str, values))


def count_up(slots: Slots) -> str:
    low, high = numbers(slots, "low", "high")
    return join(range(low, high + 1), slots["sep"])


def count_down(slots: Slots) -> str:
    low, high = numbers(slots, "low", "high")
    return join(range(high, low - 1, -1), slots["sep"])


def draw_steps(rng: Random) -> Slots:
    step, length = rng.randint(2, 9), rng.randint(3, 10)
    low = rng.randint(1, LARGEST - step * (length - 1))
    return {"low": str(low), "high": str(low + step * (length - 1)), "step": str(step)}


def valid_steps(slots: Slots) -> bool:
    low, high, step = numbers(slots, "low", "high", "step")
    return step > 1 and high - low >= 2 * step and (high - low) % step == 0


def count_in_steps(slots: Slots) -> str:
    low, high, step = numbers(slots, "low", "high", "step")
    return ", ".join(map(str, range(low, high + 1, step)))


def draw_table(rng: Random) -> Slots:
    last = rng.randint(3, 10)
    return {"n": str(rng.randint(2, LARGEST // last)), "last": str(last)}


def valid_table(slots: Slots) -> bool:
    n, last = numbers(slots, "n", "last")
    return 2 <= n <= LARGEST // last


def times_table(slots: Slots) -> str:
    n, last = numbers(slots, "n", "last")
    return "\n".join(f"{k} x {n} = {k * n}" for k in range(1, last + 1))


# --- arithmetic and comparison ----------------------------------------------------------------


def draw_sum(rng: Random) -> Slots:
    a = rng.randint(1, 60)
    return {"a": str(a), "b": str(rng.randint(1, min(60, LARGEST - a)))}


def draw_difference(rng: Random) -> Slots:
    a = rng.randint(2, 80)
    return {"a": str(a), "b": str(rng.randint(1, a - 1))}


def add(slots: Slots) -> str:
    a, b = numbers(slots, "a", "b")
    return f"{a} + {b} = {a + b}"


def subtract(slots: Slots) -> str:
    a, b = numbers(slots, "a", "b")
    return f"{a} - {b} = {a - b}"


def sort_numbers(slots: Slots) -> str:
    values = sorted(map(int, slots["values"].split(", ")), reverse=slots["order"] == "descending")
    return ", ".join(map(str, values))


def extreme(slots: Slots) -> str:
    values = [int(value) for value in slots["values"].split(", ")]
    best = max(values) if slots["which"] == "largest" else min(values)
    return f"Of {slots['values']} the {slots['which']} is {best}."


def even_and_odd(slots: Slots) -> str:
    values = [int(value) for value in slots["values"].split(", ")]
    even = ", ".join(str(value) for value in values if value % 2 == 0)
    odd = ", ".join(str(value) for value in values if value % 2)
    return f"Even: {even or 'none'}\nOdd: {odd or 'none'}"


def day_after(slots: Slots) -> str:
    index = lex.DAYS.index(slots["day"]) + int(slots["n"])
    return f"{slots['n']} days after {slots['day']} is {lex.DAYS[index % 7]}."


# --- words --------------------------------------------------------------------------------------


def alphabetical(slots: Slots) -> str:
    return ", ".join(sorted(slots["values"].split(", ")))


def repeat(slots: Slots) -> str:
    return join([slots["word"]] * int(slots["n"]), slots["sep"])


def spell(slots: Slots) -> str:
    letters = slots["word"][:: -1 if slots["way"] else 1]
    return "-".join(letters)


def wrap(slots: Slots) -> str:
    opening, closing = tuple(BRACKETS[slots["kind"]])
    return " ".join(f"{opening}{word}{closing}" for word in slots["values"].split(", "))


def layout(words: Sequence[str], style: str) -> str:
    if style == " as a numbered list":
        return "\n".join(f"{index}. {word}" for index, word in enumerate(words, 1))
    if style == " as bullets":
        return "\n".join(f"- {word}" for word in words)
    return ", ".join(words)


def list_members(slots: Slots, rng: Random) -> str:
    return layout(rng.sample(lex.CATEGORIES[slots["kind"]], int(slots["n"])), slots["style"])


def check_members(slots: Slots, response: str) -> bool:
    members = re.findall(r"[A-Za-z]+", response)
    return (
        len(members) == len(set(members)) == int(slots["n"])
        and set(members) <= set(lex.CATEGORIES[slots["kind"]])
        and response == layout(members, slots["style"])
    )


def record(slots: Slots) -> str:
    fields = {"name": slots["name"], "age": int(slots["age"]), "job": slots["job"]}
    if slots["format"] == "JSON":
        return json.dumps(fields)
    return "\n".join(f"{key}: {value}" for key, value in fields.items())


# --- prose --------------------------------------------------------------------------------------


def fill(template: str, slots: Slots, rng: Random) -> str:
    """The template with the task's own slots, and any other of its words drawn at random."""
    others = {
        "place": rng.choice(lex.PLACES),
        "fruit": rng.choice(lex.FRUITS),
        "tool": rng.choice(lex.TOOLS),
        "colour": rng.choice(lex.COLOURS),
        "day": rng.choice(lex.DAYS),
    }
    return template.format(**(others | slots))


def passage(
    slots: Slots, rng: Random, opening: Sequence[str], middle: Sequence[str], n: int
) -> list[str]:
    """One opening sentence and `n - 1` others, no two neighbours of the same template."""
    templates = [rng.choice(opening)]
    while len(templates) < n:
        templates.append(rng.choice([line for line in middle if line != templates[-1]]))
    return [fill(template, slots, rng) for template in templates]


def mentions(text: str, vocabulary: Iterable[str]) -> set[str]:
    return set(re.findall(r"[A-Za-z]+", text)) & set(vocabulary)


def sentences(text: str) -> list[str] | None:
    """The sentences of one paragraph, None where it is not made of whole sentences."""
    found = re.findall(r"[A-Z][A-Za-z, ]*\.", text)
    return found if " ".join(found) == text else None


def write_sentence(slots: Slots, rng: Random) -> str:
    return fill(rng.choice(lex.SENTENCES), slots, rng)


def check_sentence(slots: Slots, response: str) -> bool:
    found = sentences(response)
    return (
        found is not None
        and len(found) == 1
        and len(response.split()) >= 5
        and mentions(response, lex.ANIMALS) == {slots["animal"]}
        and mentions(response, lex.PLACES) == {slots["place"]}
    )


def write_story(slots: Slots, rng: Random) -> str:
    lines = passage(slots, rng, lex.STORY_OPENINGS, lex.STORY_MIDDLES, int(slots["n"]) - 1)
    return " ".join([*lines, fill(rng.choice(lex.STORY_ENDINGS), slots, rng)])


def check_story(slots: Slots, response: str) -> bool:
    found = sentences(response)
    return (
        found is not None
        and len(found) == int(slots["n"])
        and mentions(response, lex.NAMES) == {slots["name"]}
        and mentions(response, lex.JOBS) == {slots["job"]}
        and mentions(response, lex.ANIMALS) == {slots["animal"]}
    )


def write_letter(slots: Slots, rng: Random) -> str:
    body = passage(slots, rng, lex.LETTER_OPENINGS, lex.LETTER_MIDDLES, int(slots["n"]))
    return f"Dear {slots['to']},\n{' '.join(body)}\nYours, {slots['name']}"


def check_letter(slots: Slots, response: str) -> bool:
    lines = response.split("\n")
    if len(lines) != 3:
        return False
    head, body, close = lines
    found = sentences(body)
    return (
        head == f"Dear {slots['to']},"
        and close == f"Yours, {slots['name']}"
        and found is not None
        and len(found) == int(slots["n"])
        and mentions(body, lex.THINGS) == {slots["thing"]}
    )


def write_dialogue(slots: Slots, rng: Random) -> str:
    lines = passage(slots, rng, lex.DIALOGUE_OPENINGS, lex.DIALOGUE_LINES, int(slots["n"]))
    speakers = (slots["name"], slots["to"])
    return "\n".join(f"{speakers[index % 2]}: {line}" for index, line in enumerate(lines))


def check_dialogue(slots: Slots, response: str) -> bool:
    lines = response.split("\n")
    speakers = (slots["name"], slots["to"])
    turns = all(
        re.fullmatch(f"{speakers[index % 2]}: [A-Z][A-Za-z, ]+[.?]", line)
        for index, line in enumerate(lines)
    )
    return (
        turns
        and len(lines) == int(slots["n"])
        and mentions(response, lex.ANIMALS) == {slots["animal"]}
    )


def two_names(rng: Random) -> Slots:
    name, to = rng.sample(lex.NAMES, 2)
    return {"name": name, "to": to}


def two_people(slots: Slots) -> bool:
    return slots["name"] != slots["to"]
