"""The tiny world: instructions, right answers and an exact verifier, all from a seed.

An instruction is drawn from a family, its slots filled and one of its wordings chosen. Which
combinations of slots are held out is decided by a hash of their values, so that neither the
order of drawing nor the wording can leak one into the training data.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Any, Literal, NamedTuple

from bestofn.errors import ConfigError
from bestofn.tiny import answers
from bestofn.tiny.answers import LARGEST, WORDS

Slots = dict[str, str]
"""What fills an instruction, as texts."""
Split = Literal["train", "heldout"]

HELDOUT_SHARE = 10  # one combination in ten is never trained on
WORDING_WEIGHTS = (5, 3, 2)


class Slot(NamedTuple):
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


def some_of(
    low: int, high: int, values: Iterable[object] = range(1, 100), pattern: str = r"\d{1,2}"
) -> Slot:
    """From `low` to `high` distinct values, with commas; each of them has the pattern."""
    texts = [str(value) for value in values]
    return Slot(
        f"{pattern}(?:, {pattern})+",
        lambda rng: ", ".join(rng.sample(texts, rng.randint(low, high))),
    )


NUMBER = one_of(range(LARGEST + 1), r"\d{1,2}")
WORD = one_of([*answers.NOUNS, *WORDS["colour"], *WORDS["job"]], "[a-z]+")
NAME = one_of(WORDS["name"], "[A-Z][a-z]+")
SLOTS = {
    **{name: one_of(WORDS[name]) for name in ("day", "animal", "place", "job", "thing")},
    **dict.fromkeys(("low", "high", "a", "b"), NUMBER),
    **dict.fromkeys(("name", "to"), NAME),
    "word": WORD,
    "sep": one_of(answers.SEPARATORS),
    "order": one_of(["ascending", "descending"]),
    "which": one_of(["largest", "smallest"]),
    "way": one_of(["", " backwards"]),
    "style": one_of(answers.LAYOUTS),
}
"""Slots that are the same in all families."""


class Family:
    """One kind of instruction: wordings, slots, and what is right.

    Args:
        name: That of its instructions in world.yaml.
        write: A right answer, from the values of the slots. Of an open-ended family it takes a
            source of randomness first.
        check: Whether a response is right, where there is more than one right answer.
        own: Slots that other families do not have, or of another kind; they are drawn first.
        first: Draws slots that depend on each other, before all others.
        valid: Which values of slots fit together.
    """

    def __init__(
        self,
        name: str,
        *,
        write: Callable[..., str],
        check: Callable[..., bool] | None = None,
        own: dict[str, Slot] | None = None,
        first: Callable[[Random], dict[str, Any]] = lambda _: {},
        valid: Callable[..., bool] = lambda **_: True,
    ) -> None:
        self.name = name
        self.wordings: tuple[str, ...] = tuple(answers.WORLD["instructions"][name])
        self._write, self._check, self._first, self._valid = write, check, first, valid
        own = own or {}
        named = re.findall(r"\{(\w+)\}", self.wordings[0])
        self.slots = own | {name: SLOTS[name] for name in named if name not in own}
        self._patterns = [re.escape(wording) for wording in self.wordings]
        for name, slot in self.slots.items():
            gap, group = re.escape(f"{{{name}}}"), f"(?P<{name}>{slot.pattern})"
            self._patterns = [pattern.replace(gap, group) for pattern in self._patterns]

    def draw(self, rng: Random) -> Slots:
        """What fills the slots of a random instruction."""
        drawn = {name: str(value) for name, value in self._first(rng).items()}
        for name, slot in self.slots.items():
            if name not in drawn:
                drawn[name] = slot.draw(rng)
        return drawn

    def read(self, instruction: str) -> Slots | None:
        """What fills the slots of an instruction, None if it is not one of this family."""
        for pattern in self._patterns:
            found = re.fullmatch(pattern, instruction)
            if found and self.valid(slots := found.groupdict()):
                return slots
        return None

    def valid(self, slots: Slots) -> bool:
        return self._valid(**_values(slots))

    def answer(self, slots: Slots, rng: Random) -> str:
        """A right response to the instruction with these slots."""
        open_ended = () if self._check is None else (rng,)
        return self._write(*open_ended, **_values(slots))

    def verify(self, slots: Slots, response: str) -> bool:
        """Whether `response` is right, surrounding white space aside."""
        response, values = response.strip(), _values(slots)
        if self._check is None:
            return response == self._write(**values)
        return self._check(response, **values)


def _values(slots: Slots) -> dict[str, Any]:
    return {name: int(text) if text.isdigit() else text for name, text in slots.items()}


_TABLE = (
    Family(
        "count_up",
        write=lambda low, high, sep: answers.join(range(low, high + 1), sep),
        first=answers.draw_range,
        valid=lambda low, high, **_: 2 <= high - low <= 30,
    ),
    Family(
        "count_down",
        write=lambda low, high, sep: answers.join(range(high, low - 1, -1), sep),
        first=answers.draw_range,
        valid=lambda low, high, **_: 2 <= high - low <= 30,
    ),
    Family(
        "steps",
        own={"step": one_of(range(10))},
        write=lambda low, high, step: answers.join(range(low, high + 1, step)),
        first=answers.draw_steps,
        valid=lambda low, high, step: (
            step > 1 and high - low >= 2 * step and (high - low) % step == 0
        ),
    ),
    Family(
        "times_table",
        own={"n": NUMBER, "last": one_of(range(3, 11))},
        write=lambda n, last: "\n".join(f"{k} x {n} = {k * n}" for k in range(1, last + 1)),
        first=answers.draw_table,
        valid=lambda n, last: 2 <= n <= LARGEST // last,
    ),
    Family(
        "add",
        write=lambda a, b: f"{a} + {b} = {a + b}",
        first=lambda rng: {
            "a": (a := rng.randint(1, 60)),
            "b": rng.randint(1, min(60, LARGEST - a)),
        },
        valid=lambda a, b: a + b <= LARGEST,
    ),
    Family(
        "subtract",
        write=lambda a, b: f"{a} - {b} = {a - b}",
        first=lambda rng: {"a": (a := rng.randint(2, 80)), "b": rng.randint(1, a - 1)},
        valid=lambda a, b: a > b > 0,
    ),
    Family(
        "sort",
        own={"values": some_of(3, 6)},
        write=lambda values, order: answers.join(
            sorted(answers.listed(values), reverse=order == "descending")
        ),
    ),
    Family("extreme", own={"values": some_of(3, 6)}, write=answers.extreme),
    Family("even_odd", own={"values": some_of(4, 8)}, write=answers.even_and_odd),
    Family("day", own={"n": one_of(range(2, 31))}, write=answers.day_after),
    Family(
        "alphabetical",
        own={"values": some_of(3, 6, answers.NOUNS, "[a-z]+")},
        write=lambda values: answers.join(sorted(values.split(", "))),
    ),
    Family(
        "repeat",
        own={"word": WORD, "n": count(2, 9, 24)},
        write=lambda word, n, sep: answers.join([word] * n, sep),
    ),
    Family("spell", write=lambda word, way: "-".join(word[:: -1 if way else 1])),
    Family(
        "wrap",
        own={
            "values": some_of(3, 7, answers.NOUNS, "[a-z]+"),
            "kind": one_of(answers.BRACKETS),
        },
        write=answers.wrap,
    ),
    Family(
        "list",
        own={"n": one_of(range(2, 10)), "kind": one_of(answers.CATEGORIES)},
        write=answers.list_members,
        check=answers.check_members,
    ),
    Family(
        "record",
        own={
            "name": NAME,
            "age": one_of(range(18, 91), NUMBER.pattern),
            "job": one_of(WORDS["job"], WORD.pattern),
            "format": one_of(["JSON", "lines"]),
        },
        write=answers.record,
    ),
    Family("sentence", write=answers.write_sentence, check=answers.check_sentence),
    Family(
        "story", own={"n": count(3, 7, 28)}, write=answers.write_story, check=answers.check_story
    ),
    Family(
        "letter",
        own={"n": one_of(range(1, 7))},
        write=answers.write_letter,
        check=answers.check_letter,
        first=answers.draw_names,
        valid=lambda name, to, **_: name != to,
    ),
    Family(
        "dialogue",
        own={"n": count(2, 6, 16)},
        write=answers.write_dialogue,
        check=answers.check_dialogue,
        first=answers.draw_names,
        valid=lambda name, to, **_: name != to,
    ),
)
FAMILIES = {family.name: family for family in _TABLE}


# --- tasks ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Task:
    """One instruction of the world, with what it was made from."""

    family: str
    slots: Slots
    instruction: str


def split_of(family: str, slots: Slots) -> Split:
    """The split of a combination of slots; the order within a list of values does not count."""
    values = ["|".join(sorted(slots[name].split(", "))) for name in sorted(slots)]
    digest = hashlib.blake2b("\n".join([family, *values]).encode(), digest_size=8).digest()
    return "heldout" if int.from_bytes(digest, "big") % HELDOUT_SHARE == 0 else "train"


def draw(rng: Random, split: Split, family: str | None = None) -> Task:
    """A random task of `split`, of one family if it is named."""
    name = family or rng.choice([*FAMILIES])
    while split_of(name, slots := FAMILIES[name].draw(rng)) != split:
        pass
    (wording,) = rng.choices(FAMILIES[name].wordings, WORDING_WEIGHTS)
    return Task(name, slots, wording.format(**slots))


def answer(task: Task, rng: Random) -> str:
    """A right response to the task."""
    return FAMILIES[task.family].answer(task.slots, rng)


def read(instruction: str) -> Task:
    """The task that an instruction states.

    Raises:
        ConfigError: the text is no instruction of the tiny world.
    """
    for name, family in FAMILIES.items():
        if (slots := family.read(instruction.strip())) is not None:
            return Task(name, slots, instruction.strip())
    raise ConfigError(
        f"the tiny world has no instruction like {instruction[:80]!r}; "
        "`bestofn demo` shows some that it has"
    )


def verify(instruction: str, response: str) -> bool:
    """Whether `response` is right, by the exact rules of the instruction's family.

    Raises:
        ConfigError: the text is no instruction of the tiny world.
    """
    task = read(instruction)
    return FAMILIES[task.family].verify(task.slots, response)


def heldout_tasks(count: int, seed: int = 2026) -> list[Task]:
    """The first `count` tasks of the evaluation set: held-out, distinct, families in turn."""
    return [*islice(distinct_tasks(Random(seed), FAMILIES, tries=50, drop=False), count)]


def distinct_tasks(
    rng: Random, families: Iterable[str], *, tries: int, drop: bool
) -> Iterator[Task]:
    """Held-out tasks, families in turn.

    A small family runs out of distinct instructions: where `tries` draws give none it is passed
    over, with `drop` for good.
    """
    left, seen = [*families], set[str]()
    while left:
        for family in [*left]:
            drawn = (draw(rng, "heldout", family) for _ in range(tries))
            task = next((task for task in drawn if task.instruction not in seen), None)
            if task is not None:
                seen.add(task.instruction)
                yield task
            elif drop:
                left.remove(family)
