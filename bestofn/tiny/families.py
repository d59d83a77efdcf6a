"""The task families of the tiny world: how each is worded, answered and verified."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random

from bestofn.tiny import answers
from bestofn.tiny import lexicon as lex
from bestofn.tiny.answers import BRACKETS, LARGEST, LAYOUTS, SEPARATORS, Slots


@dataclass(frozen=True, slots=True)
class Slot:
    """A gap in an instruction: the pattern of what fills it, and how that is drawn."""

    pattern: str
    draw: Callable[[Random], str]


def one_of(values: Iterable[object], pattern: str | None = None) -> Slot:
    """One of the values; `pattern` where instructions may have others, too."""
    texts = [str(value) for value in values]
    known = "|".join(re.escape(text) for text in texts)
    return Slot(pattern or f"(?:{known})", lambda rng: rng.choice(texts))


def count(low: int, usual: int, high: int) -> Slot:
    """A number that is at most `usual` in four draws of five."""
    ranges = range(low, usual + 1), range(usual + 1, high + 1)
    return Slot(
        one_of(range(low, high + 1)).pattern,
        lambda rng: str(rng.choice(ranges[rng.random() >= 0.8])),
    )


def some_of(values: Iterable[object], low: int, high: int, pattern: str) -> Slot:
    """From `low` to `high` distinct values, with commas; each of them has the pattern."""
    texts = [str(value) for value in values]
    return Slot(
        f"{pattern}(?:, {pattern})+",
        lambda rng: ", ".join(rng.sample(texts, rng.randint(low, high))),
    )


def numbers(low: int, high: int) -> Slot:
    return some_of(range(1, LARGEST + 1), low, high, r"\d{1,2}")


def words(low: int, high: int) -> Slot:
    return some_of(lex.NOUNS, low, high, "[a-z]+")


NUMBER = one_of(range(LARGEST + 1), r"\d{1,2}")
WORD = one_of(lex.SPELLABLE, "[a-z]+")
NAME = one_of(lex.NAMES, "[A-Z][a-z]+")
ANIMAL, PLACE, JOB = one_of(lex.ANIMALS), one_of(lex.PLACES), one_of(lex.JOBS)
SEPARATOR = one_of(SEPARATORS)


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of instruction: wordings (the most common first), slots, and what is right.

    One with a single right answer has `solve`; an open-ended one has `write` and `check`. Slots
    that depend on each other are drawn by `draw_first`, and `valid` says which fit together.
    """

    name: str
    wordings: tuple[str, ...]
    slots: dict[str, Slot]
    solve: Callable[[Slots], str] | None = None
    write: Callable[[Slots, Random], str] | None = None
    check: Callable[[Slots, str], bool] | None = None
    draw_first: Callable[[Random], Slots] = lambda _: {}
    valid: Callable[[Slots], bool] = lambda _: True

    def draw(self, rng: Random) -> Slots:
        """What fills the slots of a random instruction."""
        drawn = self.draw_first(rng)
        for name, slot in self.slots.items():
            if name not in drawn:
                drawn[name] = slot.draw(rng)
        return drawn

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
            {"low": NUMBER, "high": NUMBER, "sep": SEPARATOR},
            solve=answers.count_up,
            draw_first=answers.draw_range,
            valid=answers.valid_range,
        ),
        Family(
            "count_down",
            (
                "Count down from {high} to {low}{sep}.",
                "Give me the numbers from {high} down to {low}{sep}.",
                "Start at {high} and count backwards until {low}{sep}.",
            ),
            {"low": NUMBER, "high": NUMBER, "sep": SEPARATOR},
            solve=answers.count_down,
            draw_first=answers.draw_range,
            valid=answers.valid_range,
        ),
        Family(
            "steps",
            (
                "Count from {low} to {high} in steps of {step}.",
                "Give me every number from {low} to {high} in steps of {step}.",
                "Start at {low} and keep adding {step} until {high}.",
            ),
            {"low": NUMBER, "high": NUMBER, "step": one_of(range(10))},
            solve=answers.count_in_steps,
            draw_first=answers.draw_steps,
            valid=answers.valid_steps,
        ),
        Family(
            "times_table",
            (
                "Write the {n} times table up to {last}.",
                "Show the first {last} lines of the {n} times table.",
                "Multiply {n} by every number from 1 to {last}.",
            ),
            {"n": NUMBER, "last": one_of(range(3, 11))},
            solve=answers.times_table,
            draw_first=answers.draw_table,
            valid=answers.valid_table,
        ),
        Family(
            "add",
            ("What is {a} + {b}?", "Add {a} and {b}.", "How much is {a} plus {b}?"),
            {"a": NUMBER, "b": NUMBER},
            solve=answers.add,
            draw_first=answers.draw_sum,
            valid=lambda slots: int(slots["a"]) + int(slots["b"]) <= LARGEST,
        ),
        Family(
            "subtract",
            ("What is {a} - {b}?", "Take {b} away from {a}.", "How much is {a} minus {b}?"),
            {"a": NUMBER, "b": NUMBER},
            solve=answers.subtract,
            draw_first=answers.draw_difference,
            valid=lambda slots: int(slots["a"]) > int(slots["b"]) > 0,
        ),
        Family(
            "sort",
            (
                "Sort {values} in {order} order.",
                "Put the numbers {values} in {order} order.",
                "Arrange {values} so that they are in {order} order.",
            ),
            {"values": numbers(3, 6), "order": one_of(["ascending", "descending"])},
            solve=answers.sort_numbers,
        ),
        Family(
            "extreme",
            (
                "Which of {values} is the {which}?",
                "Find the {which} of {values}.",
                "Tell me the {which} number among {values}.",
            ),
            {"values": numbers(3, 6), "which": one_of(["largest", "smallest"])},
            solve=answers.extreme,
        ),
        Family(
            "even_odd",
            (
                "Split {values} into even and odd numbers.",
                "Group {values} by even and odd.",
                "Which of {values} are even and which are odd?",
            ),
            {"values": numbers(4, 8)},
            solve=answers.even_and_odd,
        ),
        Family(
            "day",
            (
                "What day is {n} days after {day}?",
                "Which day comes {n} days after {day}?",
                "Today is {day}. What day will it be in {n} days?",
            ),
            {"n": one_of(range(2, 31)), "day": one_of(lex.DAYS)},
            solve=answers.day_after,
        ),
        Family(
            "alphabetical",
            (
                "Put {values} in alphabetical order.",
                "Sort the words {values} from a to z.",
                "Arrange {values} by the alphabet.",
            ),
            {"values": words(3, 6)},
            solve=answers.alphabetical,
        ),
        Family(
            "repeat",
            (
                "Write the word {word} {n} times{sep}.",
                "Repeat {word} {n} times{sep}.",
                "I want to read {word} exactly {n} times{sep}.",
            ),
            {"word": WORD, "n": count(2, 9, 24), "sep": SEPARATOR},
            solve=answers.repeat,
        ),
        Family(
            "spell",
            (
                "Spell the word {word}{way}.",
                "Give me the letters of {word}{way}.",
                "How do you spell {word}{way}?",
            ),
            {"word": WORD, "way": one_of(["", " backwards"])},
            solve=answers.spell,
        ),
        Family(
            "wrap",
            (
                "Put each of {values} in {kind}.",
                "Write {values} with {kind} around each word.",
                "Wrap the words {values} in {kind}.",
            ),
            {"values": words(3, 7), "kind": one_of(BRACKETS)},
            solve=answers.wrap,
        ),
        Family(
            "list",
            (
                "Name {n} {kind}{style}.",
                "Give me {n} {kind}{style}.",
                "I need a list of {n} {kind}{style}.",
            ),
            {"n": one_of(range(2, 10)), "kind": one_of(lex.CATEGORIES), "style": one_of(LAYOUTS)},
            write=answers.list_members,
            check=answers.check_members,
        ),
        Family(
            "record",
            (
                "Write {name}, age {age}, {job}, as {format}.",
                "Make a {format} record for {name}, a {job} of age {age}.",
                "Turn this into {format}: {name} is a {job} of age {age}.",
            ),
            {
                "name": NAME,
                "age": one_of(range(18, 91), NUMBER.pattern),
                "job": one_of(lex.JOBS, WORD.pattern),
                "format": one_of(["JSON", "lines"]),
            },
            solve=answers.record,
        ),
        Family(
            "sentence",
            (
                "Write a sentence about a {animal} and a {place}.",
                "Make one sentence with the words {animal} and {place}.",
                "Use {animal} and {place} in a sentence.",
            ),
            {"animal": ANIMAL, "place": PLACE},
            write=answers.write_sentence,
            check=answers.check_sentence,
        ),
        Family(
            "story",
            (
                "Write a story of {n} sentences about {name} the {job} and a {animal}.",
                "Tell me a story about {name} the {job} and a {animal} in {n} sentences.",
                "I want a story with {name} the {job}, a {animal} and exactly {n} sentences.",
            ),
            {"n": count(3, 7, 28), "name": NAME, "job": JOB, "animal": ANIMAL},
            write=answers.write_story,
            check=answers.check_story,
        ),
        Family(
            "letter",
            (
                "Write a letter from {name} to {to} about the {thing} in {n} sentences.",
                "Write to {to} about the {thing} in {n} sentences and sign as {name}.",
                "Help {name} write {n} sentences to {to} about the {thing}.",
            ),
            {"n": one_of(range(1, 7)), "name": NAME, "to": NAME, "thing": one_of(lex.THINGS)},
            write=answers.write_letter,
            check=answers.check_letter,
            draw_first=answers.two_names,
            valid=answers.two_people,
        ),
        Family(
            "dialogue",
            (
                "Write a dialogue of {n} lines between {name} and {to} about a {animal}.",
                "Let {name} and {to} talk about a {animal} in {n} lines.",
                "I need {n} lines in which {name} and {to} speak of a {animal}.",
            ),
            {"n": count(2, 6, 16), "name": NAME, "to": NAME, "animal": ANIMAL},
            write=answers.write_dialogue,
            check=answers.check_dialogue,
            draw_first=answers.two_names,
            valid=answers.two_people,
        ),
    )
}
