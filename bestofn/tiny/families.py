"""The task families of the tiny world: how each is worded, answered and verified."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random

from bestofn.tiny import answers
from bestofn.tiny import lexicon as lex
from bestofn.tiny.answers import BRACKETS, LARGEST, LAYOUTS, SEPARATORS, Slots

NUMBER = r"\d{1,2}"
NUMBERS = r"\d{1,2}(?:, \d{1,2})+"
WORD = r"[a-z]+"
WORDS = r"[a-z]+(?:, [a-z]+)+"
NAME = r"[A-Z][a-z]+"


def one_of(values: Iterable[str]) -> str:
    return "(?:" + "|".join(re.escape(value) for value in values) + ")"


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of instruction: wordings (the most common first), slots, and what is right.

    One with a single right answer has `solve`; an open-ended one has `write` and `check`.
    """

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
            answers.draw_range,
            solve=answers.count_up,
            valid=answers.valid_range,
        ),
        Family(
            "count_down",
            (
                "Count down from {high} to {low}{sep}.",
                "Give me the numbers from {high} down to {low}{sep}.",
                "Start at {high} and count backwards until {low}{sep}.",
            ),
            {"low": NUMBER, "high": NUMBER, "sep": one_of(SEPARATORS)},
            answers.draw_range,
            solve=answers.count_down,
            valid=answers.valid_range,
        ),
        Family(
            "steps",
            (
                "Count from {low} to {high} in steps of {step}.",
                "Give me every number from {low} to {high} in steps of {step}.",
                "Start at {low} and keep adding {step} until {high}.",
            ),
            {"low": NUMBER, "high": NUMBER, "step": r"\d"},
            answers.draw_steps,
            solve=answers.count_in_steps,
            valid=answers.valid_steps,
        ),
        Family(
            "times_table",
            (
                "Write the {n} times table up to {last}.",
                "Show the first {last} lines of the {n} times table.",
                "Multiply {n} by every number from 1 to {last}.",
            ),
            {"n": NUMBER, "last": NUMBER},
            answers.draw_table,
            solve=answers.times_table,
            valid=lambda slots: (
                3 <= int(slots["last"]) <= 10
                and 2 <= int(slots["n"]) <= LARGEST // int(slots["last"])
            ),
        ),
        Family(
            "add",
            ("What is {a} + {b}?", "Add {a} and {b}.", "How much is {a} plus {b}?"),
            {"a": NUMBER, "b": NUMBER},
            answers.draw_sum,
            solve=answers.add,
            valid=lambda slots: sum(answers.numbers(slots, "a", "b")) <= LARGEST,
        ),
        Family(
            "subtract",
            ("What is {a} - {b}?", "Take {b} away from {a}.", "How much is {a} minus {b}?"),
            {"a": NUMBER, "b": NUMBER},
            answers.draw_difference,
            solve=answers.subtract,
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
                "values": answers.draw_numbers(rng, 3, 6),
                "order": rng.choice(["ascending", "descending"]),
            },
            solve=answers.sort_numbers,
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
                "values": answers.draw_numbers(rng, 3, 6),
                "which": rng.choice(["largest", "smallest"]),
            },
            solve=answers.extreme,
        ),
        Family(
            "even_odd",
            (
                "Split {values} into even and odd numbers.",
                "Group {values} by even and odd.",
                "Which of {values} are even and which are odd?",
            ),
            {"values": NUMBERS},
            lambda rng: {"values": answers.draw_numbers(rng, 4, 8)},
            solve=answers.even_and_odd,
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
            solve=answers.day_after,
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
            lambda rng: {"values": answers.draw_words(rng, 3, 6)},
            solve=answers.alphabetical,
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
                "n": str(answers.skewed(rng, 2, 9, 24)),
                "sep": rng.choice([*SEPARATORS]),
            },
            solve=answers.repeat,
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
            solve=answers.spell,
        ),
        Family(
            "wrap",
            (
                "Put each of {values} in {kind}.",
                "Write {values} with {kind} around each word.",
                "Wrap the words {values} in {kind}.",
            ),
            {"values": WORDS, "kind": one_of(BRACKETS)},
            lambda rng: {"values": answers.draw_words(rng, 3, 7), "kind": rng.choice([*BRACKETS])},
            solve=answers.wrap,
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
            write=answers.list_members,
            check=answers.check_members,
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
            solve=answers.record,
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
            {"n": NUMBER, "name": NAME, "job": one_of(lex.JOBS), "animal": one_of(lex.ANIMALS)},
            lambda rng: {
                "n": str(answers.skewed(rng, 3, 7, 28)),
                "name": rng.choice(lex.NAMES),
                "job": rng.choice(lex.JOBS),
                "animal": rng.choice(lex.ANIMALS),
            },
            write=answers.write_story,
            check=answers.check_story,
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
                **answers.two_names(rng),
                "n": str(rng.randint(1, 6)),
                "thing": rng.choice(lex.THINGS),
            },
            write=answers.write_letter,
            check=answers.check_letter,
            valid=lambda slots: answers.two_people(slots) and 1 <= int(slots["n"]) <= 6,
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
                **answers.two_names(rng),
                "n": str(answers.skewed(rng, 2, 6, 16)),
                "animal": rng.choice(lex.ANIMALS),
            },
            write=answers.write_dialogue,
            check=answers.check_dialogue,
            valid=lambda slots: answers.two_people(slots) and 2 <= int(slots["n"]) <= 16,
        ),
    )
}
