"""The tiny world: instructions, right answers and an exact verifier, all from a seed.

An instruction is drawn from a family, its slots filled and one of its wordings chosen. Which
combinations of slots are held out is decided by a hash of their values, so that neither the
order of drawing nor the wording can leak one into the training data.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Literal

from bestofn.errors import ConfigError
from bestofn.tiny.answers import Slots
from bestofn.tiny.families import FAMILIES, Family

Split = Literal["train", "heldout"]

HELDOUT_SHARE = 10  # one combination in ten is never trained on
WORDING_WEIGHTS = (5, 3, 2)


@dataclass(frozen=True, slots=True)
class Task:
    """One instruction of the world, with what it was made from."""

    family: str
    slots: Slots
    instruction: str


def render(family: Family, slots: Slots, wording: int) -> str:
    return family.wordings[wording].format(**slots)


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
    (wording,) = rng.choices(range(len(WORDING_WEIGHTS)), WORDING_WEIGHTS)
    return Task(name, slots, render(FAMILIES[name], slots, wording))


def answer(task: Task, rng: Random) -> str:
    """A right response to the task."""
    return FAMILIES[task.family].answer(task.slots, rng)


@cache
def wording_patterns() -> tuple[tuple[Family, re.Pattern[str]], ...]:
    patterns = []
    for family in FAMILIES.values():
        for wording in family.wordings:
            # Splitting at the slots gives literal text and slot names in turn.
            parts = re.split(r"\{(\w+)\}", wording)
            pattern = "".join(
                f"(?P<{part}>{family.slots[part].pattern})" if index % 2 else re.escape(part)
                for index, part in enumerate(parts)
            )
            patterns.append((family, re.compile(pattern)))
    return tuple(patterns)


def read(instruction: str) -> Task:
    """The task that an instruction states.

    Raises:
        ConfigError: the text is no instruction of the tiny world.
    """
    for family, pattern in wording_patterns():
        found = pattern.fullmatch(instruction.strip())
        if found and family.valid(slots := found.groupdict()):
            return Task(family.name, slots, instruction.strip())
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
    stream = _heldout_stream(seed)
    return [next(stream) for _ in range(count)]


def _heldout_stream(seed: int) -> Iterator[Task]:
    rng, seen = Random(seed), set[str]()
    while True:
        for family in FAMILIES:
            # A small family runs out of distinct instructions and is then passed over.
            for _ in range(50):
                task = draw(rng, "heldout", family)
                if task.instruction not in seen:
                    seen.add(task.instruction)
                    yield task
                    break
