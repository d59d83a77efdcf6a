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


def test_four_subsets_of_the_schema_of_rewardbench_2() -> None:
    assert [len(of(subset)) for subset in SUBSETS] == [COUNT] * 4
    for row in ITEMS:
        assert [*row] == [
            "id", "prompt", "chosen", "rejected", "num_correct", "num_incorrect",
            "total_completions", "models", "subset", "additional_metadata",
        ]  # fmt: skip
        assert (len(row["chosen"]), len(row["rejected"]), len(row["models"])) == (1, 3, 4)
        assert (row["num_correct"], row["num_incorrect"], row["total_completions"]) == (1, 3, 4)
    assert len({row["id"] for row in ITEMS}) == len(ITEMS)


def test_the_chosen_are_right_and_the_rejected_are_wrong_and_distinct() -> None:
    for row in ITEMS:
        assert verify(row["prompt"], row["chosen"][0])
        assert not any(verify(row["prompt"], response) for response in row["rejected"])
        assert len({*row["rejected"]}) == 3


def test_tasks_are_held_out_and_distinct_within_a_subset() -> None:
    for subset in SUBSETS:
        prompts = [row["prompt"] for row in of(subset)]
        assert len({*prompts}) == len(prompts)
        for prompt in prompts:
            task = read(prompt)
            assert split_of(task.family, task.slots) == "heldout"


def test_families_come_in_turn() -> None:
    for subset, mistakes in SUBSETS.items():
        families = [row["additional_metadata"]["family"] for row in of(subset)]
        assert families[: len(mistakes)] == [*mistakes]
        # A task that cannot go wrong in three ways is passed over.
        counts = [families.count(name) for name in mistakes]
        assert max(counts) - min(counts) <= 3


def test_more_items_and_another_call_change_nothing() -> None:
    assert tiny_items(3) == [row for subset in SUBSETS for row in of(subset)[:3]]


def test_another_seed_gives_others() -> None:
    assert {r["prompt"] for r in tiny_items(5, seed=1)} != {r["prompt"] for r in tiny_items(5)}


# --- wrong in the way that the subset says --------------------------------------------------------


def test_focus_is_off_topic() -> None:
    for row in of("Focus", "story", "letter", "dialogue", "wrap", "alphabetical", "extreme"):
        words = {*re.findall(r"\w+", row["chosen"][0])}
        for response in row["rejected"]:
            assert {*re.findall(r"\w+", response)} != words


def test_lists_have_one_stranger() -> None:
    for row in of("Factuality", "list"):
        slots = read(row["prompt"]).slots
        known = {*lexicon.CATEGORIES[slots["kind"]]}
        for response in row["rejected"]:
            members = re.findall("[a-z]+", response)
            assert len(members) == int(slots["n"])
            assert len({*members} - known) == 1
            assert response == answers.layout(members, slots["style"])


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


def test_lists_of_the_wrong_form_have_the_right_members() -> None:
    for row in of("Precise IF", "list"):
        slots = read(row["prompt"]).slots
        for response in row["rejected"]:
            members = re.findall("[a-z]+", response)
            assert len({*members}) == int(slots["n"])
            assert {*members} <= {*lexicon.CATEGORIES[slots["kind"]]}


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


def test_rows_are_json() -> None:
    assert json.loads(json.dumps(ITEMS)) == ITEMS
