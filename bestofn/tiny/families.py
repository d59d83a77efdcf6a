"""The task families of the tiny world: how each is worded, answered and verified.

A family with one right answer has `solve`; an open-ended one has `write` (one right answer of
many) and `check`. Slots are strings, exactly as they stand in the instruction.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random

from bestofn.tiny import lexicon as lex

Slots = dict[str, str]

NUMBER = r"\d{1,2}"
NUMBERS = r"\d{1,2}(?:, \d{1,2})+"
WORD = r"[a-z]+"
WORDS = r"[a-z]+(?:, [a-z]+)+"
NAME = r"[A-Z][a-z]+"

SEPARATORS = {"": ", ", ", one per line": "\n", ", with semicolons": "; ", ", with dashes": " - "}
LAYOUTS = ("", " as a numbered list", " as bullets")
BRACKETS = {"brackets": "[]", "parentheses": "()", "stars": "**", "quotes": '""'}
LARGEST = 99


def one_of(values: Iterable[str]) -> str:
    return "(?:" + "|".join(re.escape(value) for value in values) + ")"


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of instruction: wordings (the most common first), slots, and what is right."""

    name: str
    wordings: tuple[str, ...]
    slots: dict[str, str]
    draw: Callable[[Random], Slots]
    solve: Callable[[Slots], str] | None = None
    write: Callable[[Slots, Random], str] | None = None
    check: Callable[[Slots, str], bool] | None = None
    valid: Callable[[Slots], bool] = lambda _: True

    def answer(self, slots: Slots, rng: Random) -> str:
        """A right response to the instruction with these slots."""
        if self.solve is not None:
            return self.solve(slots)
        assert self.write is not None
        return self.write(slots, rng)

    def verify(self, slots: Slots, response: str) -> bool:
        """Whether `response` is right, surrounding white space aside."""
        response = response.strip()
        if self.solve is not None:
            return response == self.solve(slots)
        assert self.check is not None
        return self.check(slots, response)


def numbers(slots: Slots, *names: str) -> tuple[int, ...]:
    return tuple(int(slots[name]) for name in names)


def skewed(rng: Random, low: int, usual: int, high: int) -> int:
    """A count that is at most `usual` in four draws of five."""
    return rng.randint(low, usual) if rng.random() < 0.8 else rng.randint(usual + 1, high)


# --- sequences of numbers -------------------------------------------------------------------


def draw_range(rng: Random) -> Slots:
    length = skewed(rng, 3, 12, 30)
    low = rng.randint(1, LARGEST + 1 - length)
    return {
        "low": str(low),
        "high": str(low + length - 1),
        "sep": rng.choice([*SEPARATORS]),
    }


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


def draw_numbers(rng: Random, low: int, high: int) -> str:
    return ", ".join(map(str, rng.sample(range(1, LARGEST + 1), rng.randint(low, high))))


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


def draw_words(rng: Random, low: int, high: int) -> str:
    return ", ".join(rng.sample(lex.NOUNS, rng.randint(low, high)))


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


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            "count_up",
            (
                "Count from {low} to {high}{sep}.",
                "Give me the numbers from {low} to {high}{sep}.",
                "List all numbers between {low} and {high}, both included{sep}.",
            ),
            {"low": NUMBER, "high": NUMBER, "sep": one_of(SEPARATORS)},
            draw_range,
            solve=count_up,
            valid=valid_range,
        ),
        Family(
            "count_down",
            (
                "Count down from {high} to {low}{sep}.",
                "Give me the numbers from {high} down to {low}{sep}.",
                "Start at {high} and count backwards until {low}{sep}.",
            ),
            {"low": NUMBER, "high": NUMBER, "sep": one_of(SEPARATORS)},
            draw_range,
            solve=count_down,
            valid=valid_range,
        ),
        Family(
            "steps",
            (
                "Count from {low} to {high} in steps of {step}.",
                "Give me every number from {low} to {high} in steps of {step}.",
                "Start at {low} and keep adding {step} until {high}.",
            ),
            {"low": NUMBER, "high": NUMBER, "step": r"\d"},
            draw_steps,
            solve=count_in_steps,
            valid=valid_steps,
        ),
        Family(
            "times_table",
            (
                "Write the {n} times table up to {last}.",
                "Show the first {last} lines of the {n} times table.",
                "Multiply {n} by every number from 1 to {last}.",
            ),
            {"n": NUMBER, "last": NUMBER},
            draw_table,
            solve=times_table,
            valid=lambda slots: (
                3 <= int(slots["last"]) <= 10
                and 2 <= int(slots["n"]) <= LARGEST // int(slots["last"])
            ),
        ),
        Family(
            "add",
            ("What is {a} + {b}?", "Add {a} and {b}.", "How much is {a} plus {b}?"),
            {"a": NUMBER, "b": NUMBER},
            draw_sum,
            solve=add,
            valid=lambda slots: sum(numbers(slots, "a", "b")) <= LARGEST,
        ),
        Family(
            "subtract",
            ("What is {a} - {b}?", "Take {b} away from {a}.", "How much is {a} minus {b}?"),
            {"a": NUMBER, "b": NUMBER},
            draw_difference,
            solve=subtract,
            valid=lambda slots: int(slots["a"]) > int(slots["b"]) > 0,
        ),
        Family(
            "sort",
            (
                "Sort {values} in {order} order.",
                "Put the numbers {values} in {order} order.",
                "Arrange {values} so that they are in {order} order.",
            ),
            {"values": NUMBERS, "order": "(?:ascending|descending)"},
            lambda rng: {
                "values": draw_numbers(rng, 3, 6),
                "order": rng.choice(["ascending", "descending"]),
            },
            solve=sort_numbers,
        ),
        Family(
            "extreme",
            (
                "Which of {values} is the {which}?",
                "Find the {which} of {values}.",
                "Tell me the {which} number among {values}.",
            ),
            {"values": NUMBERS, "which": "(?:largest|smallest)"},
            lambda rng: {
                "values": draw_numbers(rng, 3, 6),
                "which": rng.choice(["largest", "smallest"]),
            },
            solve=extreme,
        ),
        Family(
            "even_odd",
            (
                "Split {values} into even and odd numbers.",
                "Group {values} by even and odd.",
                "Which of {values} are even and which are odd?",
            ),
            {"values": NUMBERS},
            lambda rng: {"values": draw_numbers(rng, 4, 8)},
            solve=even_and_odd,
        ),
        Family(
            "day",
            (
                "What day is {n} days after {day}?",
                "Which day comes {n} days after {day}?",
                "Today is {day}. What day will it be in {n} days?",
            ),
            {"n": NUMBER, "day": one_of(lex.DAYS)},
            lambda rng: {"n": str(rng.randint(2, 30)), "day": rng.choice(lex.DAYS)},
            solve=day_after,
            valid=lambda slots: 2 <= int(slots["n"]) <= 30,
        ),
        Family(
            "alphabetical",
            (
                "Put {values} in alphabetical order.",
                "Sort the words {values} from a to z.",
                "Arrange {values} by the alphabet.",
            ),
            {"values": WORDS},
            lambda rng: {"values": draw_words(rng, 3, 6)},
            solve=alphabetical,
        ),
        Family(
            "repeat",
            (
                "Write the word {word} {n} times{sep}.",
                "Repeat {word} {n} times{sep}.",
                "I want to read {word} exactly {n} times{sep}.",
            ),
            {"word": WORD, "n": NUMBER, "sep": one_of(SEPARATORS)},
            lambda rng: {
                "word": rng.choice(lex.SPELLABLE),
                "n": str(skewed(rng, 2, 9, 24)),
                "sep": rng.choice([*SEPARATORS]),
            },
            solve=repeat,
            valid=lambda slots: 2 <= int(slots["n"]) <= 24,
        ),
        Family(
            "spell",
            (
                "Spell the word {word}{way}.",
                "Give me the letters of {word}{way}.",
                "How do you spell {word}{way}?",
            ),
            {"word": WORD, "way": one_of(["", " backwards"])},
            lambda rng: {
                "word": rng.choice(lex.SPELLABLE),
                "way": rng.choice(["", " backwards"]),
            },
            solve=spell,
        ),
        Family(
            "wrap",
            (
                "Put each of {values} in {kind}.",
                "Write {values} with {kind} around each word.",
                "Wrap the words {values} in {kind}.",
            ),
            {"values": WORDS, "kind": one_of(BRACKETS)},
            lambda rng: {"values": draw_words(rng, 3, 7), "kind": rng.choice([*BRACKETS])},
            solve=wrap,
        ),
        Family(
            "list",
            (
                "Name {n} {kind}{style}.",
                "Give me {n} {kind}{style}.",
                "I need a list of {n} {kind}{style}.",
            ),
            {"n": NUMBER, "kind": one_of(lex.CATEGORIES), "style": one_of(LAYOUTS)},
            lambda rng: {
                "n": str(rng.randint(2, 9)),
                "kind": rng.choice([*lex.CATEGORIES]),
                "style": rng.choice(LAYOUTS),
            },
            write=list_members,
            check=check_members,
            valid=lambda slots: 2 <= int(slots["n"]) <= 9,
        ),
        Family(
            "record",
            (
                "Write {name}, age {age}, {job}, as {format}.",
                "Make a {format} record for {name}, a {job} of age {age}.",
                "Turn this into {format}: {name} is a {job} of age {age}.",
            ),
            {"name": NAME, "age": NUMBER, "job": WORD, "format": "(?:JSON|lines)"},
            lambda rng: {
                "name": rng.choice(lex.NAMES),
                "age": str(rng.randint(18, 90)),
                "job": rng.choice(lex.JOBS),
                "format": rng.choice(["JSON", "lines"]),
            },
            solve=record,
        ),
        Family(
            "sentence",
            (
                "Write a sentence about a {animal} and a {place}.",
                "Make one sentence with the words {animal} and {place}.",
                "Use {animal} and {place} in a sentence.",
            ),
            {"animal": one_of(lex.ANIMALS), "place": one_of(lex.PLACES)},
            lambda rng: {"animal": rng.choice(lex.ANIMALS), "place": rng.choice(lex.PLACES)},
            write=write_sentence,
            check=check_sentence,
        ),
        Family(
            "story",
            (
                "Write a story of {n} sentences about {name} the {job} and a {animal}.",
                "Tell me a story about {name} the {job} and a {animal} in {n} sentences.",
                "I want a story with {name} the {job}, a {animal} and exactly {n} sentences.",
            ),
            {"n": NUMBER, "name": NAME, "job": one_of(lex.JOBS), "animal": one_of(lex.ANIMALS)},
            lambda rng: {
                "n": str(skewed(rng, 3, 7, 28)),
                "name": rng.choice(lex.NAMES),
                "job": rng.choice(lex.JOBS),
                "animal": rng.choice(lex.ANIMALS),
            },
            write=write_story,
            check=check_story,
            valid=lambda slots: 3 <= int(slots["n"]) <= 28,
        ),
        Family(
            "letter",
            (
                "Write a letter from {name} to {to} about the {thing} in {n} sentences.",
                "Write to {to} about the {thing} in {n} sentences and sign as {name}.",
                "Help {name} write {n} sentences to {to} about the {thing}.",
            ),
            {"n": NUMBER, "name": NAME, "to": NAME, "thing": one_of(lex.THINGS)},
            lambda rng: {
                **two_names(rng),
                "n": str(rng.randint(1, 6)),
                "thing": rng.choice(lex.THINGS),
            },
            write=write_letter,
            check=check_letter,
            valid=lambda slots: two_people(slots) and 1 <= int(slots["n"]) <= 6,
        ),
        Family(
            "dialogue",
            (
                "Write a dialogue of {n} lines between {name} and {to} about a {animal}.",
                "Let {name} and {to} talk about a {animal} in {n} lines.",
                "I need {n} lines in which {name} and {to} speak of a {animal}.",
            ),
            {"n": NUMBER, "name": NAME, "to": NAME, "animal": one_of(lex.ANIMALS)},
            lambda rng: {
                **two_names(rng),
                "n": str(skewed(rng, 2, 6, 16)),
                "animal": rng.choice(lex.ANIMALS),
            },
            write=write_dialogue,
            check=check_dialogue,
            valid=lambda slots: two_people(slots) and 2 <= int(slots["n"]) <= 16,
        ),
    )
}
