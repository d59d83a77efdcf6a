"""The words of the tiny world, and what a right answer to its tasks looks like.

Right answers are made from the values of a task's slots, which are whole numbers or texts. Prose
takes a source of randomness first, its checks the response.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from random import Random
from typing import Any

import yaml

WORLD: dict[str, Any] = yaml.safe_load((files("bestofn.tiny") / "world.yaml").read_text("utf-8"))
"""The words, sentences and instructions."""
PROSE = WORLD["prose"]
WORDS = {kind: words.split() for kind, words in WORLD["words"].items()}
WORDS["thing"] = [*WORDS["fruit"], *WORDS["tool"], *WORDS["instrument"]]
FILLERS = ("place", "fruit", "tool", "colour", "day")
CATEGORIES = {
    f"{kind}s": WORDS[kind]
    for kind in ("animal", "fruit", "tool", "colour", "instrument", "place", "job")
}
NOUNS = [*WORDS["animal"], *WORDS["thing"], *WORDS["place"]]

SEPARATORS = {"": ", ", ", one per line": "\n", ", with semicolons": "; ", ", with dashes": " - "}
LAYOUTS = {"": ("", ", "), " as a numbered list": ("{}. ", "\n"), " as bullets": ("- ", "\n")}
BRACKETS = {"brackets": "[]", "parentheses": "()", "stars": "**", "quotes": '""'}
LARGEST = 99


# --- slots that depend on each other: how they are drawn ------------------------------------------


def draw_range(rng: Random) -> dict[str, int]:
    # Long ranges are rare.
    length = rng.randint(3, 12) if rng.random() < 0.8 else rng.randint(13, 30)
    low = rng.randint(1, LARGEST + 1 - length)
    return {"low": low, "high": low + length - 1}


def draw_steps(rng: Random) -> dict[str, int]:
    step, length = rng.randint(2, 9), rng.randint(3, 10)
    low = rng.randint(1, LARGEST - step * (length - 1))
    return {"low": low, "high": low + step * (length - 1), "step": step}


def draw_table(rng: Random) -> dict[str, int]:
    last = rng.randint(3, 10)
    return {"n": rng.randint(2, LARGEST // last), "last": last}


def draw_names(rng: Random) -> dict[str, str]:
    return dict(zip(("name", "to"), rng.sample(WORDS["name"], 2), strict=True))


# --- numbers and words ----------------------------------------------------------------------------


def listed(values: str) -> list[int]:
    return [int(value) for value in values.split(", ")]


def join(values: Iterable[object], sep: str = "") -> str:
    return SEPARATORS[sep].join(map(str, values))


def extreme(values: str, which: str) -> str:
    best = max(listed(values)) if which == "largest" else min(listed(values))
    return f"Of {values} the {which} is {best}."


def two_sides(values: Sequence[int], even: Iterable[int]) -> str:
    """The values in two lines; those that are not in `even` are given as odd."""
    odd = [value for value in values if value not in even]
    return f"Even: {join(even) or 'none'}\nOdd: {join(odd) or 'none'}"


def even_and_odd(values: str) -> str:
    return two_sides(listed(values), [value for value in listed(values) if value % 2 == 0])


def day_after(n: int, day: str) -> str:
    return f"{n} days after {day} is {WORDS['day'][(WORDS['day'].index(day) + n) % 7]}."


def wrap(values: str, kind: str) -> str:
    opening, closing = tuple(BRACKETS[kind])
    return " ".join(f"{opening}{word}{closing}" for word in values.split(", "))


def layout(words: Sequence[str], style: str) -> str:
    bullet, sep = LAYOUTS[style]
    return sep.join(bullet.format(i) + word for i, word in enumerate(words, 1))


def list_members(rng: Random, n: int, kind: str, style: str) -> str:
    return layout(rng.sample(CATEGORIES[kind], n), style)


def check_members(response: str, n: int, kind: str, style: str) -> bool:
    members = re.findall(r"[A-Za-z]+", response)
    return (
        len(members) == len(set(members)) == n
        and set(members) <= set(CATEGORIES[kind])
        and response == layout(members, style)
    )


def record(name: str, age: int, job: str, format: str) -> str:
    fields = {"name": name, "age": age, "job": job}
    return json.dumps(fields) if format == "JSON" else "\n".join(in_pairs(fields))


def in_pairs(fields: Mapping[str, object]) -> list[str]:
    return [f"{key}: {value}" for key, value in fields.items()]


# --- prose ----------------------------------------------------------------------------------------


def fill(rng: Random, template: str, slots: Mapping[str, object]) -> str:
    """The template with the task's own slots, and any other of its words drawn at random."""
    others = {name: rng.choice(WORDS[name]) for name in FILLERS}
    return template.format_map({**others, **slots})


def passage(rng: Random, n: int, kind: str, slots: Mapping[str, object]) -> list[str]:
    """One opening sentence and `n - 1` others, no two neighbours of the same template."""
    templates = [rng.choice(PROSE[f"{kind}_opening"])]
    while len(templates) < n:
        templates.append(rng.choice([line for line in PROSE[kind] if line != templates[-1]]))
    return [fill(rng, template, slots) for template in templates]


def names_only(text: str, **slots: str) -> bool:
    """Whether of each vocabulary the text has the slot's own word and no other."""
    found = set(re.findall(r"[A-Za-z]+", text))
    return all(found & set(WORDS[name]) == {word} for name, word in slots.items())


def count_sentences(text: str) -> int:
    """How many sentences a paragraph has, 0 where it is not made of whole ones."""
    found = re.findall(r"[A-Z][A-Za-z, ]*\.", text)
    return len(found) if " ".join(found) == text else 0


def write_sentence(rng: Random, **slots: str) -> str:
    return fill(rng, rng.choice(PROSE["sentence"]), slots)


def check_sentence(text: str, **slots: str) -> bool:
    return count_sentences(text) == 1 and len(text.split()) >= 5 and names_only(text, **slots)


def write_story(rng: Random, n: int, **slots: str) -> str:
    lines = passage(rng, n - 1, "story", slots)
    return " ".join([*lines, fill(rng, rng.choice(PROSE["story_ending"]), slots)])


def check_story(text: str, n: int, **slots: str) -> bool:
    return count_sentences(text) == n and names_only(text, **slots)


def write_letter(rng: Random, n: int, name: str, to: str, thing: str) -> str:
    body = passage(rng, n, "letter", {"thing": thing})
    return f"Dear {to},\n{' '.join(body)}\nYours, {name}"


def check_letter(text: str, n: int, name: str, to: str, thing: str) -> bool:
    head, _, rest = text.partition("\n")
    body, _, close = rest.partition("\n")
    framed = head == f"Dear {to}," and close == f"Yours, {name}"
    return framed and count_sentences(body) == n and names_only(body, thing=thing)


def write_dialogue(rng: Random, n: int, name: str, to: str, animal: str) -> str:
    lines = passage(rng, n, "dialogue", {"animal": animal})
    return "\n".join(f"{(name, to)[index % 2]}: {line}" for index, line in enumerate(lines))


def check_dialogue(text: str, n: int, name: str, to: str, animal: str) -> bool:
    lines = text.split("\n")
    turns = all(
        re.fullmatch(f"{(name, to)[index % 2]}: [A-Z][A-Za-z, ]+[.?]", line)
        for index, line in enumerate(lines)
    )
    return turns and len(lines) == n and names_only(text, animal=animal)
