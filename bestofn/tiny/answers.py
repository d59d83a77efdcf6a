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
VOCABULARIES = {
    "animal": lex.ANIMALS,
    "place": lex.PLACES,
    "name": lex.NAMES,
    "job": lex.JOBS,
    "thing": lex.THINGS,
}
FILLERS = {
    "place": lex.PLACES,
    "fruit": lex.FRUITS,
    "tool": lex.TOOLS,
    "colour": lex.COLOURS,
    "day": lex.DAYS,
}
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


def join(values: Iterable[object], sep: str = "") -> str:
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
    return join(range(low, high + 1, step))


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


def listed(slots: Slots) -> list[int]:
    return [int(value) for value in slots["values"].split(", ")]


def sort_numbers(slots: Slots) -> str:
    return join(sorted(listed(slots), reverse=slots["order"] == "descending"))


def extreme(slots: Slots) -> str:
    best = max(listed(slots)) if slots["which"] == "largest" else min(listed(slots))
    return f"Of {slots['values']} the {slots['which']} is {best}."


def even_and_odd(slots: Slots) -> str:
    return two_sides([value for value in listed(slots) if value % 2 == 0], listed(slots))


def two_sides(even: Sequence[int], values: Iterable[int]) -> str:
    """The values in two lines; those that are not in `even` are given as odd."""
    odd = [value for value in values if value not in even]
    return f"Even: {join(even) or 'none'}\nOdd: {join(odd) or 'none'}"


def day_after(slots: Slots) -> str:
    index = lex.DAYS.index(slots["day"]) + int(slots["n"])
    return f"{slots['n']} days after {slots['day']} is {lex.DAYS[index % 7]}."


# --- words --------------------------------------------------------------------------------------


def alphabetical(slots: Slots) -> str:
    return join(sorted(slots["values"].split(", ")))


def repeat(slots: Slots) -> str:
    return join([slots["word"]] * int(slots["n"]), slots["sep"])


def spell(slots: Slots) -> str:
    return "-".join(slots["word"][:: -1 if slots["way"] else 1])


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


def fields_of(slots: Slots) -> dict[str, str | int]:
    return {"name": slots["name"], "age": int(slots["age"]), "job": slots["job"]}


def record(slots: Slots) -> str:
    if slots["format"] == "JSON":
        return json.dumps(fields_of(slots))
    return "\n".join(f"{key}: {value}" for key, value in fields_of(slots).items())


# --- prose --------------------------------------------------------------------------------------


def fill(template: str, slots: Slots, rng: Random) -> str:
    """The template with the task's own slots, and any other of its words drawn at random."""
    others = {name: rng.choice(words) for name, words in FILLERS.items()}
    return template.format(**(others | slots))


def passage(
    slots: Slots, rng: Random, opening: Sequence[str], middle: Sequence[str], n: int
) -> list[str]:
    """One opening sentence and `n - 1` others, no two neighbours of the same template."""
    templates = [rng.choice(opening)]
    while len(templates) < n:
        templates.append(rng.choice([line for line in middle if line != templates[-1]]))
    return [fill(template, slots, rng) for template in templates]


def names_only(text: str, slots: Slots, *names: str) -> bool:
    """Whether of each vocabulary the text has the slot's own word and no other."""
    found = set(re.findall(r"[A-Za-z]+", text))
    return all(found & set(VOCABULARIES[name]) == {slots[name]} for name in names)


def count_sentences(text: str) -> int:
    """How many sentences a paragraph has, 0 where it is not made of whole ones."""
    found = re.findall(r"[A-Z][A-Za-z, ]*\.", text)
    return len(found) if " ".join(found) == text else 0


def write_sentence(slots: Slots, rng: Random) -> str:
    return fill(rng.choice(lex.SENTENCES), slots, rng)


def check_sentence(slots: Slots, response: str) -> bool:
    return (
        count_sentences(response) == 1
        and len(response.split()) >= 5
        and names_only(response, slots, "animal", "place")
    )


def write_story(slots: Slots, rng: Random) -> str:
    lines = passage(slots, rng, lex.STORY_OPENINGS, lex.STORY_MIDDLES, int(slots["n"]) - 1)
    return " ".join([*lines, fill(rng.choice(lex.STORY_ENDINGS), slots, rng)])


def check_story(slots: Slots, response: str) -> bool:
    right_length = count_sentences(response) == int(slots["n"])
    return right_length and names_only(response, slots, "name", "job", "animal")


def write_letter(slots: Slots, rng: Random) -> str:
    body = passage(slots, rng, lex.LETTER_OPENINGS, lex.LETTER_MIDDLES, int(slots["n"]))
    return f"Dear {slots['to']},\n{' '.join(body)}\nYours, {slots['name']}"


def check_letter(slots: Slots, response: str) -> bool:
    head, _, rest = response.partition("\n")
    body, _, close = rest.partition("\n")
    return (
        head == f"Dear {slots['to']},"
        and close == f"Yours, {slots['name']}"
        and count_sentences(body) == int(slots["n"])
        and names_only(body, slots, "thing")
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
    return turns and len(lines) == int(slots["n"]) and names_only(response, slots, "animal")


def two_names(rng: Random) -> Slots:
    name, to = rng.sample(lex.NAMES, 2)
    return {"name": name, "to": to}


def two_people(slots: Slots) -> bool:
    return slots["name"] != slots["to"]
