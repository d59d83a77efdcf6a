"""The tiny world: instructions read back, verifiers accept right answers and refuse wrong ones."""

import hashlib
from random import Random

import pytest

from bestofn.errors import ConfigError
from bestofn.tiny import answer, draw, heldout_tasks, read, verify
from bestofn.tiny.families import FAMILIES
from bestofn.tiny.world import render, split_of


@pytest.mark.parametrize("name", FAMILIES)
def test_answers_are_right_and_instructions_read_back(name: str) -> None:
    rng = Random(name)
    for split in ("train", "heldout"):
        for _ in range(60):
            task = draw(rng, split, name)
            assert read(task.instruction) == task
            assert verify(task.instruction, answer(task, rng))
            assert split_of(task.family, task.slots) == split


@pytest.mark.parametrize("name", FAMILIES)
def test_a_broken_answer_is_wrong(name: str) -> None:
    rng = Random(name)
    for _ in range(20):
        task = draw(rng, "train", name)
        right = answer(task, rng)
        for broken in ("", right + " more", right[: len(right) // 2], right.upper() + "!"):
            assert not verify(task.instruction, broken)
        assert verify(task.instruction, f"\n{right}  ")


def test_wordings_of_one_task_share_a_split() -> None:
    rng = Random(0)
    for _ in range(50):
        task = draw(rng, "heldout")
        family = FAMILIES[task.family]
        for wording in range(3):
            again = read(render(family, task.slots, wording))
            assert split_of(again.family, again.slots) == "heldout"


def test_the_order_of_listed_values_does_not_change_the_split() -> None:
    assert split_of("sort", {"values": "3, 1, 2", "order": "ascending"}) == split_of(
        "sort", {"values": "2, 3, 1", "order": "ascending"}
    )


def test_about_one_in_ten_is_held_out() -> None:
    rng, held = Random(1), 0
    for _ in range(2000):
        name = rng.choice([*FAMILIES])
        held += split_of(name, FAMILIES[name].draw(rng)) == "heldout"
    assert 140 < held < 260


def test_evaluation_tasks_are_fixed_distinct_and_balanced() -> None:
    tasks = heldout_tasks(320)
    assert tasks[:20] == heldout_tasks(20)
    assert len({task.instruction for task in tasks}) == 320
    counts = [sum(task.family == name for task in tasks) for name in FAMILIES]
    assert max(counts) - min(counts) <= 1
    # Frozen: a change of the world would change what was reported.
    text = "\n".join(task.instruction for task in tasks)
    assert hashlib.sha256(text.encode()).hexdigest().startswith("5ca52295d1549302")


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
        (
            "Use fox and lake in a sentence.",
            "The fox sleeps near the lake.",
            "See a fox and a lake",
        ),
        (
            "Use fox and lake in a sentence.",
            "The fox sleeps near the lake.",
            "The hen sleeps near the lake.",
        ),
    ],
)
def test_examples(instruction: str, right: str, wrong: str) -> None:
    assert verify(instruction, right)
    assert not verify(instruction, wrong)
