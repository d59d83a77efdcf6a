"""Best-of-4 items of the tiny world: right and wrong as they say, and wrong in the way they say."""

import json
import re
from typing import Any

import pytest

from bestofn.tiny import answers, lexicon, read, verify
from bestofn.tiny.items import tiny_items
from bestofn.tiny.mistakes import SUBSETS
from bestofn.tiny.world import split_of

COUNT = 60
ITEMS = tiny_items(COUNT)


def of(subset: str, *families: str) -> list[dict[str, Any]]:
    found = [
        row
        for row in ITEMS
        if row["subset"] == subset
        and (not families or row["additional_metadata"]["family"] in families)
    ]
    assert found
    return found


def test_rows_have_the_schema_of_rewardbench_2() -> None:
    assert [len(of(subset)) for subset in SUBSETS] == [COUNT] * 4
    assert len({row["id"] for row in ITEMS}) == len(ITEMS)
    assert json.loads(json.dumps(ITEMS)) == ITEMS
    for row in ITEMS:
        assert [*row] == [
            "id", "prompt", "chosen", "rejected", "num_correct", "num_incorrect",
            "total_completions", "models", "subset", "additional_metadata",
        ]  # fmt: skip
        assert (len(row["chosen"]), len(row["rejected"]), len(row["models"])) == (1, 3, 4)
        assert (row["num_correct"], row["num_incorrect"], row["total_completions"]) == (1, 3, 4)


def test_the_chosen_are_right_and_the_rejected_are_wrong_and_distinct() -> None:
    for row in ITEMS:
        task = read(row["prompt"])
        assert split_of(task.family, task.slots) == "heldout"
        assert verify(row["prompt"], row["chosen"][0])
        assert not any(verify(row["prompt"], response) for response in row["rejected"])
        assert len({*row["rejected"]}) == 3
    for subset in SUBSETS:
        assert len({row["prompt"] for row in of(subset)}) == COUNT


def test_more_items_change_nothing_and_another_seed_does() -> None:
    few = tiny_items(3)
    assert few == [row for subset in SUBSETS for row in of(subset)[:3]]
    assert {row["prompt"] for row in tiny_items(3, seed=1)} != {row["prompt"] for row in few}


def test_families_come_in_turn() -> None:
    for subset, mistakes in SUBSETS.items():
        families = [row["additional_metadata"]["family"] for row in of(subset)]
        assert families[: len(mistakes)] == [*mistakes]
        # A task that cannot go wrong in three ways is passed over.
        counts = [families.count(name) for name in mistakes]
        assert max(counts) - min(counts) <= 3


# --- wrong in the way that the subset says --------------------------------------------------------


def test_focus_is_off_topic() -> None:
    for row in of("Focus", "story", "letter", "dialogue", "wrap", "alphabetical", "extreme"):
        words = {*re.findall(r"\w+", row["chosen"][0])}
        for response in row["rejected"]:
            assert {*re.findall(r"\w+", response)} != words


@pytest.mark.parametrize(("subset", "strangers"), [("Factuality", 1), ("Precise IF", 0)])
def test_lists_have_one_stranger_or_the_wrong_form(subset: str, strangers: int) -> None:
    for row in of(subset, "list"):
        slots = read(row["prompt"]).slots
        for response in row["rejected"]:
            members = {*re.findall("[a-z]+", response)}
            assert len(members) == int(slots["n"])
            assert len(members - {*lexicon.CATEGORIES[slots["kind"]]}) == strangers
            laid_out = response == answers.layout(re.findall("[a-z]+", response), slots["style"])
            assert laid_out == bool(strangers)


@pytest.mark.parametrize("family", ["day", "extreme"])
def test_facts_differ_in_the_last_word(family: str) -> None:
    for row in of("Factuality", family):
        for response in row["rejected"]:
            assert response.split()[:-1] == row["chosen"][0].split()[:-1]


def test_numbers_stand_on_the_wrong_side() -> None:
    for row in of("Factuality", "even_odd"):
        for response in row["rejected"]:
            assert sorted(re.findall(r"\d+", response)) == sorted(
                re.findall(r"\d+", row["chosen"][0])
            )


def test_records_differ_in_one_field() -> None:
    for row in of("Factuality", "record"):
        right = re.findall(r"\w+", row["chosen"][0])
        for response in row["rejected"]:
            fields = re.findall(r"\w+", response)
            assert sum(a != b for a, b in zip(right, fields, strict=True)) == 1


def test_form_is_wrong_and_content_right() -> None:
    families = ("count_up", "count_down", "repeat", "wrap", "spell", "record")
    for row in of("Precise IF", *families):
        right = re.findall("[A-Za-z0-9]+", row["chosen"][0])
        for response in row["rejected"]:
            letters = "".join(re.findall("[A-Za-z0-9]+", response))
            assert letters == "".join(right)


@pytest.mark.parametrize(("family", "mark"), [("story", "."), ("letter", "."), ("dialogue", ":")])
def test_prose_has_another_number_of_sentences_or_lines(family: str, mark: str) -> None:
    for row in of("Precise IF", family):
        n = int(read(row["prompt"]).slots["n"])
        assert row["chosen"][0].count(mark) == n
        for response in row["rejected"]:
            assert 1 <= abs(response.count(mark) - n) <= 2


def test_arithmetic_is_off_by_a_little() -> None:
    for row in of("Math"):
        right = [int(number) for number in re.findall(r"\d+", row["chosen"][0])]
        for response in row["rejected"]:
            numbers = [int(number) for number in re.findall(r"\d+", response)]
            gaps = [abs(a - b) for a, b in zip(right, numbers, strict=True)]
            assert 1 <= max(gaps) <= 10
