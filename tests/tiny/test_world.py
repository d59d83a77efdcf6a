"""The tiny world: instructions read back, answers are verified, items are wrong as they say."""

import hashlib
import json
import re
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from bestofn.errors import ConfigError
from bestofn.tiny import answer, answers, draw, heldout_tasks, read, verify
from bestofn.tiny.items import SUBSETS, tiny_items
from bestofn.tiny.world import FAMILIES, split_of

COUNT = 60
ITEMS = tiny_items(COUNT)


@pytest.mark.parametrize("name", FAMILIES)
def test_answers_are_right_and_instructions_read_back(name: str) -> None:
    rng = Random(name)
    for split in ("train", "heldout"):
        for _ in range(60):
            task = draw(rng, split, name)
            assert read(task.instruction) == task
            right = answer(task, rng)
            assert verify(task.instruction, f"\n{right}  ")
            for broken in ("", right + " more", right[: len(right) // 2], right.upper() + "!"):
                assert not verify(task.instruction, broken)
            for wording in FAMILIES[name].wordings:
                again = read(wording.format(**task.slots))
                assert split_of(again.family, again.slots) == split


def test_about_one_in_ten_is_held_out_whatever_the_order_of_values() -> None:
    one, other = ({"values": values, "order": "ascending"} for values in ("3, 1, 2", "2, 3, 1"))
    assert split_of("sort", one) == split_of("sort", other)
    rng, held = Random(1), 0
    for _ in range(2000):
        name = rng.choice([*FAMILIES])
        held += split_of(name, FAMILIES[name].draw(rng)) == "heldout"
    assert 140 < held < 260


def test_evaluation_tasks_and_items_are_fixed() -> None:
    """A change of the world would change what was reported."""
    tasks = heldout_tasks(320)
    assert tasks[:20] == heldout_tasks(20)
    assert len({task.instruction for task in tasks}) == 320
    counts = [sum(task.family == name for task in tasks) for name in FAMILIES]
    assert max(counts) - min(counts) <= 1
    text = "\n".join(task.instruction for task in tasks)
    assert hashlib.sha256(text.encode()).hexdigest().startswith("5ca52295d1549302")
    assert hashlib.sha256(json.dumps(ITEMS).encode()).hexdigest().startswith("1aa4633f1d55b8af")


@pytest.mark.parametrize(
    "text",
    ["", "Explain soil degradation.", "Count from 9 to 3.", "Name 0 fruits.", "Count from 3 to 9"],
)
def test_other_instructions_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="tiny world"):
        verify(text, "3")


@pytest.mark.parametrize(
    ("instruction", "right", "wrong"),
    [
        ("Count from 3 to 6.", "3, 4, 5, 6", "3, 4, 5"),
        ("Count down from 6 to 3, one per line.", "6\n5\n4\n3", "6, 5, 4, 3"),
        ("What is 9 + 8?", "9 + 8 = 17", "17"),
        ("Which day comes 3 days after Monday?", "3 days after Monday is Thursday.", "Thursday"),
        ("Name 2 fruits as bullets.", "- fig\n- plum", "- fig\n- fig"),
        ("Name 2 fruits as bullets.", "- fig\n- plum", "- fig\n- hammer"),
        ("Spell the word fox backwards.", "x-o-f", "f-o-x"),
        ("Use fox and lake in a sentence.", "I saw a fox in the lake.", "See a fox and a lake"),
        ("Use fox and lake in a sentence.", "I saw a fox in the lake.", "I saw a hen in the lake."),
    ],
)
def test_examples(instruction: str, right: str, wrong: str) -> None:
    assert verify(instruction, right)
    assert not verify(instruction, wrong)


# --- best-of-4 items ------------------------------------------------------------------------------


def of(subset: str) -> list[dict[str, Any]]:
    return [row for row in ITEMS if row["subset"] == subset]


def test_items_have_the_schema_of_rewardbench_2_and_are_right_and_wrong() -> None:
    assert len({row["id"] for row in ITEMS}) == len(ITEMS)
    for row in ITEMS:
        assert [*row] == [
            "id", "prompt", "chosen", "rejected", "num_correct", "num_incorrect",
            "total_completions", "models", "subset", "additional_metadata",
        ]  # fmt: skip
        assert (row["num_correct"], row["num_incorrect"], row["total_completions"]) == (1, 3, 4)
        assert (len(row["chosen"]), len({*row["rejected"]}), len(row["models"])) == (1, 3, 4)
        task = read(row["prompt"])
        assert split_of(task.family, task.slots) == "heldout"
        assert verify(row["prompt"], row["chosen"][0])
        assert not any(verify(row["prompt"], response) for response in row["rejected"])


def test_items_have_distinct_prompts_of_families_in_turn() -> None:
    few = tiny_items(3)
    assert few == [row for subset in SUBSETS for row in of(subset)[:3]]
    assert {row["prompt"] for row in tiny_items(3, seed=1)} != {row["prompt"] for row in few}
    for subset, mistakes in SUBSETS.items():
        assert len({row["prompt"] for row in of(subset)}) == COUNT
        families = [row["additional_metadata"]["family"] for row in of(subset)]
        assert families[: len(mistakes)] == [*mistakes]
        # A task that cannot go wrong in three ways is passed over.
        counts = [families.count(name) for name in mistakes]
        assert max(counts) - min(counts) <= 3


def strangers(row: dict[str, Any], response: str) -> int:
    slots = read(row["prompt"]).slots
    members = re.findall("[a-z]+", response)
    assert len({*members}) == int(slots["n"])
    assert (response == answers.layout(members, slots["style"])) == (row["subset"] == "Factuality")
    return len({*members} - {*answers.CATEGORIES[slots["kind"]]})


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def gap(a: str, b: str) -> int:
    return max(abs(x - y) for x, y in zip(numbers(a), numbers(b), strict=True))


FORM = "count_up count_down repeat wrap spell record"
# How a wrong response b differs from the right one a.
WAYS: dict[tuple[str, str], Callable[[dict[str, Any], str, str], bool]] = {
    ("Focus", "story letter dialogue wrap extreme"): lambda row, a, b: {*words(a)} != {*words(b)},
    ("Factuality", "list"): lambda row, a, b: strangers(row, b) == 1,
    ("Factuality", "day extreme"): lambda row, a, b: a.split()[:-1] == b.split()[:-1],
    ("Factuality", "even_odd"): lambda row, a, b: sorted(numbers(a)) == sorted(numbers(b)),
    ("Factuality", "record"): lambda row, a, b: len({*words(a)} ^ {*words(b)}) == 2,
    ("Precise IF", "list"): lambda row, a, b: strangers(row, b) == 0,
    ("Precise IF", FORM): lambda row, a, b: "".join(words(a)) == "".join(words(b)),
    ("Precise IF", "story letter"): lambda row, a, b: 1 <= abs(a.count(".") - b.count(".")) <= 2,
    ("Precise IF", "dialogue"): lambda row, a, b: 1 <= abs(a.count(":") - b.count(":")) <= 2,
    ("Math", "add subtract times_table steps"): lambda row, a, b: 1 <= gap(a, b) <= 10,
}


@pytest.mark.parametrize(("subset", "families"), WAYS)
def test_items_are_wrong_in_the_way_of_their_subset(subset: str, families: str) -> None:
    rows = [row for row in of(subset) if row["additional_metadata"]["family"] in families.split()]
    assert rows
    for row in rows:
        right, differs = row["chosen"][0], WAYS[subset, families]
        assert all(differs(row, right, wrong) for wrong in row["rejected"])
