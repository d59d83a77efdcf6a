"""Items: what is wrong with a row is named, and candidates stand in no telling order."""

import json
from pathlib import Path
from typing import Any

import pytest

from bestofn.config import RewardBenchConfig
from bestofn.errors import ConfigError
from bestofn.evals.rewardbench.accuracy import GOLD
from bestofn.evals.rewardbench.run import Item, as_pool, fingerprint, read_items
from bestofn.store import pool

ROW: dict[str, Any] = {
    "id": "7",
    "prompt": "Name a fruit.",
    "chosen": ["apple"],
    "rejected": ["hammer", "saw", "drill"],
    "num_correct": 1,
    "num_incorrect": 3,
    "total_completions": 4,
    "models": ["a", "b", "c", "d"],
    "subset": "Focus",
    "additional_metadata": {"category": "x"},
}


def config(data: object, **fields: Any) -> RewardBenchConfig:
    return RewardBenchConfig(data=str(data), rewards=["longest"], **fields)


def items_of(folder: Path, *rows: object, **fields: Any) -> list[Item]:
    path = folder / "items.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_items(config(path, **fields))


def test_a_row_of_the_data_set(tmp_path: Path) -> None:
    names = ("id", "subset", "prompt", "chosen", "rejected", "models")
    (item,) = items_of(tmp_path, ROW)
    assert item.model_dump() == {name: ROW[name] for name in names}
    (item,) = items_of(tmp_path, {name: ROW[name] for name in names[:-1]})
    assert item.models == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"chosen": None}, "the field 'chosen': Input should be a valid list"),
        ({"chosen": []}, "the field 'chosen': List should have at least 1 item"),
        ({"rejected": ["a", 3]}, "the field 'rejected.1': Input should be a valid string"),
        ({"id": 7}, "the field 'id': Input should be a valid string"),
        ({"subset": "mean"}, "the subset 'mean' would be taken for the mean"),
        ({"subset": "Ties"}, "an 'id' of Ties is 'ref:K' or 'tied:K', not '8'"),
        ({"prompt": " "}, "the field 'prompt': the prompt is empty"),
        ({"prompt": ["a"]}, "the field 'prompt': a chat message needs a `role`"),
        ({"prompt": 3}, "the field 'prompt': a prompt is a string or a list of chat messages"),
        ({"chosen": [[{"role": "user", "content": "x"}]]}, "a response ends with a message of the"),
        ({"rejected": [[{"type": "image_url"}]]}, "a part of type 'image_url'"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        items_of(tmp_path, ROW, ROW | {"id": "8"} | changes)
    assert str(caught.value).startswith(f"{tmp_path / 'items.jsonl'}, line 2: ")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["id", "prompt", "chosen", "rejected", "subset"])
def test_a_missing_field_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"line 1: the field '{name}' is missing"):
        items_of(tmp_path, {key: value for key, value in ROW.items() if key != name})


def test_an_id_twice_in_a_subset(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"line 3: .*'Focus' has the 'id' '7' already, in .*1"):
        items_of(tmp_path, ROW, ROW | {"subset": "Math"}, ROW)


# --- which items ----------------------------------------------------------------------------------

ROWS = [
    ROW | {"id": f"ref:{number}" if subset == "Ties" else str(number), "subset": subset}
    for number, subset in enumerate(["Math", "Ties", "Focus", "Math", "Safety", "Math"])
]


def test_subsets_and_a_limit(tmp_path: Path) -> None:
    found = items_of(tmp_path, *ROWS)
    assert [item.id for item in found] == ["0", "3", "5", "2"]  # all but Safety and Ties
    found = items_of(tmp_path, *ROWS, subsets=["Safety", "Math"], limit_per_subset=2)
    assert [item.id for item in found] == ["4", "0", "3"]
    with pytest.raises(ConfigError, match="no items of the subset 'Maths'; it has Math, Ties"):
        items_of(tmp_path, *ROWS, subsets=["Maths"])
    with pytest.raises(ConfigError, match="no items but those on request: --subset Ties"):
        items_of(tmp_path, ROWS[1])


def test_tiny_items_are_so_many_a_subset() -> None:
    names = [item.subset for item in read_items(config("tiny:3"))]
    assert names == [n for n in ("Focus", "Factuality", "Precise IF", "Math") for _ in range(3)]
    for data, message in (
        ("tiny:0", "'tiny:COUNT'"),
        ("tiny:x", "'tiny:COUNT'"),
        ("no.jsonl", "no"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_items(config(data))


# --- as pools -------------------------------------------------------------------------------------


def item(number: int, wrong: int = 3) -> Item:
    rejected = [f"wrong {place}" for place in range(wrong)]
    models = ["good", *(f"bad {place}" for place in range(wrong))]
    fields = {"id": str(number), "subset": "Focus", "prompt": "A request."}
    return Item(**fields, chosen=["right"], rejected=rejected, models=models)


def test_a_pool_has_gold_and_who_wrote_what(tmp_path: Path) -> None:
    made = as_pool(item(1), seed=0)
    assert made.prompt.id == "Focus/1"
    assert made.prompt.columns["subset"] == "Focus"
    for candidate, model in zip(made.candidates, made.prompt.columns["models"], strict=True):
        right = candidate.text == "right"
        assert candidate.scores[GOLD].value == float(right)
        assert model == ("good" if right else candidate.text.replace("wrong", "bad"))
    (tmp_path / "pool.jsonl").write_text(pool.dumps(made) + "\n")
    (read,) = pool.read(tmp_path / "pool.jsonl")
    assert (read, read.prompt.columns) == (made, made.prompt.columns)


def test_no_place_favours_the_right_answer() -> None:
    count = 2000
    places = [0] * 4
    for number in range(count):
        made = as_pool(item(number), seed=3)
        places[[candidate.text for candidate in made.candidates].index("right")] += 1
    # Five standard deviations of a fair place.
    assert all(abs(place - count / 4) < 5 * (count * 3 / 16) ** 0.5 for place in places)


def test_the_order_follows_seed_and_item_alone() -> None:
    def texts(number: int, seed: int) -> list[str]:
        return [candidate.text for candidate in as_pool(item(number, 7), seed).candidates]

    assert texts(1, 0) == texts(1, 0)
    assert texts(1, 0) != texts(1, 1)
    assert texts(1, 0) != texts(2, 0)
    assert sorted(texts(1, 0)) == sorted(texts(1, 1))


def test_the_fingerprint_tells_of_any_change() -> None:
    assert fingerprint([item(1)]) == "dbc3352713f25fd7"  # so that folders of 0.1 resume
    first = [item(1), item(2)]
    assert fingerprint(first) == fingerprint([item(1), item(2)])
    assert (
        len({fingerprint(x) for x in (first, first[:1], first[::-1], [item(1, 4), item(2)])}) == 4
    )
