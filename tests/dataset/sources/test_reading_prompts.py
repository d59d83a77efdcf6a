"""Prompts from rows: columns, templates, limits, shards, and what is wrong with a row."""

import datetime
import itertools
import json
from collections.abc import Iterator
from math import nan
from pathlib import Path
from typing import Any

import pytest
from faulty_rows import COLUMNS, JSON_FAULTS, row
from hypothesis import given
from hypothesis import strategies as st
from row_files import write_rows

from bestofn.dataset.sources import iter_prompts, read_prompts, read_rows
from bestofn.errors import ConfigError
from bestofn.prompts import as_prompt
from bestofn.store import pool
from bestofn.tiny import heldout_tasks
from bestofn.types import Candidate, Message, Pool, Prompt

ROWS = [{"prompt": f"What is {n} and {n}?", "key": n, "answer": 2 * n} for n in range(8)]
TURNS = [{"role": "system", "content": "Own."}, {"role": "user", "content": "Count."}]


def asked(source: Any, **options: Any) -> list[str]:
    return [prompt.messages[-1].content for prompt in iter_prompts(source, **options)]


def one(row: dict[str, Any], **options: Any) -> Prompt:
    (prompt,) = iter_prompts([row], **options)
    return prompt


# --- the same prompts whichever way ---------------------------------------------------------------


def test_texts_conversations_and_prompts() -> None:
    prompt = Prompt((Message("user", "c"),), "mine", {"prompt": "its own", "rate": 1})
    made = list(iter_prompts(["a", TURNS, prompt]))
    assert made == [as_prompt("a"), as_prompt(TURNS), prompt]
    assert made[2].columns == {"prompt": "its own", "rate": 1}
    (told,) = iter_prompts([prompt], system="Be brief.")
    assert (told.id, told.messages[0].content) == ("mine", "Be brief.")


def test_instructions_of_the_tiny_world() -> None:
    prompts = read_prompts("tiny:5")
    assert [p.messages[-1].content for p in prompts] == [t.instruction for t in heldout_tasks(5)]
    assert [p.columns["family"] for p in prompts] == [t.family for t in heldout_tasks(5)]
    assert repr(read_prompts("tiny:5", limit=2)) == repr(prompts[:2])


def test_rows_that_were_picked_keep_their_place(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "p.jsonl", [*ROWS, {"key": 9}])
    odd = (row for row in read_rows(path) if row.values["key"] % 2)
    faults: list[ConfigError] = []
    assert len(list(iter_prompts(odd, bad_row=faults.append))) == 4
    assert str(faults[0]) == f"{path}, line 9: no column 'prompt'; the row has 'key'"


def test_the_shuffle_is_of_the_rows_and_comes_before_the_limit(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "p.parquet", ROWS)
    shuffled = read_prompts(path, shuffle=3)
    assert [prompt.columns["key"] for prompt in shuffled] == [0, 5, 7, 2, 1, 6, 4, 3]
    assert repr(shuffled[:3]) == repr(read_prompts(ROWS, shuffle=3, limit=3))


@pytest.mark.parametrize("content", ["\n", "[]"])
def test_no_prompts_at_all(tmp_path: Path, content: str) -> None:
    (tmp_path / "p.jsonl").write_text(content)
    assert list(iter_prompts(tmp_path / "p.jsonl")) == []
    with pytest.raises(ConfigError, match=r"p\.jsonl holds no prompts"):
        read_prompts(tmp_path / "p.jsonl")
    with pytest.raises(ConfigError, match="the source holds no prompts"):
        read_prompts([])


def test_no_more_is_read_than_is_taken() -> None:
    numbers = itertools.count()
    prompts = iter_prompts(str(n) for n in numbers)
    assert [next(prompts).messages[-1].content for _ in range(3)] == ["0", "1", "2"]
    assert asked((str(n) for n in numbers), limit=3) == ["3", "4", "5"]
    assert next(numbers) == 6


# --- columns --------------------------------------------------------------------------------------


def test_messages_stand_in_for_a_prompt(tmp_path: Path) -> None:
    assert one({"messages": TURNS, "n": 1}) == as_prompt(TURNS)
    assert one({"messages": TURNS, "n": 1}).columns == {"n": 1}
    assert one({"messages": TURNS, "prompt": "a"}).messages == (Message("user", "a"),)
    path = write_rows(tmp_path / "p.parquet", [{"messages": TURNS}])
    assert list(iter_prompts(path)) == [as_prompt(TURNS)]
    with pytest.raises(ConfigError, match="no column 'question'; the row has 'messages'"):
        one({"messages": TURNS}, prompt_column="question")


def test_ids_are_texts_or_integers_of_a_column_or_hashes_of_the_content() -> None:
    ids = [one({"prompt": "a", "id": name}, id_column="id").id for name in ("x", 0, 10**20)]
    assert ids == ["x", "0", "100000000000000000000"]
    assert [p.id for p in read_prompts(ROWS[::-1])] == [p.id for p in read_prompts(ROWS)][::-1]


def test_a_system_prompt_from_a_column() -> None:
    options = {"system_column": "s", "system": "Default."}
    assert one({"prompt": "a", "s": "Row's."}, **options).messages[0].content == "Row's."
    assert one({"prompt": TURNS, "s": "Row's."}, **options).messages[0].content == "Own."
    for none in (None, "", " "):
        assert one({"prompt": "a", "s": none}, **options).messages[0].content == "Default."
        assert one({"prompt": "a", "s": none}, system_column="s") == as_prompt("a")
    told = one({"prompt": "a", "s": "Be brief.", "t": 1}, system_column="s")
    assert told.columns == {"t": 1}
    assert told.id == as_prompt([Message("system", "Be brief."), Message("user", "a")]).id


def test_columns_that_json_cannot_hold_come_as_text() -> None:
    columns = {"when": datetime.datetime(2024, 1, 2), 3: {"x": [nan, (1, b"y")]}}
    prompt = one({"prompt": "a", **columns})  # type: ignore[dict-item]
    assert prompt.columns == {"when": "2024-01-02 00:00:00", "3": {"x": [None, [1, "b'y'"]]}}
    written = Pool(prompt, [Candidate(0, "x")])
    assert pool.loads(pool.dumps(written)).prompt.columns == prompt.columns


# --- templates ------------------------------------------------------------------------------------


def test_a_template_over_columns() -> None:
    row = {"problem": "1 + 1", "the unit": "{cm} {{", "n": 2, "x": 0.5, "id": 7, "s": "Be brief."}
    options = {"id_column": "id", "system_column": "s"}
    prompt = one(row, template="Solve {{{problem}}} in {the unit}: {n}, {x}, {{}}.", **options)
    text = "Solve {1 + 1} in {cm} {{: 2, 0.5, {}."
    assert prompt.messages == (Message("system", "Be brief."), Message("user", text))
    assert prompt.id == "7"
    assert prompt.columns == {key: row[key] for key in ("problem", "the unit", "n", "x")}


@pytest.mark.parametrize("template", ["{}", "{a", "a}", "{a{b}}", "Solve it.", "", "{{a}}"])
def test_a_template_that_is_wrong_is_refused_at_once(template: str) -> None:
    with pytest.raises(ConfigError, match=r"written \{problem\}, braces of the text \{\{ and \}\}"):
        iter_prompts(["a"], template=template, bad_row=pytest.fail)


@given(st.text())
def test_any_text_with_its_braces_doubled_is_itself(text: str) -> None:
    doubled = text.replace("{", "{{").replace("}", "}}")
    assert asked([{"a": "!"}], template=doubled + "{a}") == [
        as_prompt(text + "!").messages[0].content
    ]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"b": 1}, "no column 'a'; the row has 'b'"),
        ({"a": nan}, "column 'a' is null; the template needs a text or a number"),
        ({"a": [1]}, "column 'a' is list; the template needs a text or a number"),
        ({"a": True}, "column 'a' is bool"),
        ({"a": " "}, "the template: the prompt is empty"),
    ],
)
def test_a_row_that_does_not_fit_the_template(values: dict[str, Any], sentence: str) -> None:
    faults: list[ConfigError] = []
    rows = [{"a": "x"}, values, {"a": 3}]
    assert asked(rows, template="{a}", bad_row=faults.append) == ["x", "3"]
    assert len(faults) == 1
    assert str(faults[0]).startswith(f"row 1: {sentence}")


# --- limits and shards ----------------------------------------------------------------------------


def test_the_limit_counts_bad_rows() -> None:
    faults: list[ConfigError] = []
    assert asked(["a", "", "b", "c"], limit=3, bad_row=faults.append) == ["a", "b"]
    assert len(faults) == 1


def shares(source: Any, count: int, **options: Any) -> list[list[str]]:
    return [asked(source, shard=(share, count), **options) for share in range(1, count + 1)]


@given(st.lists(st.sampled_from("abcdefghijkl")), st.integers(1, 5), st.randoms())
def test_shards_are_the_whole_and_do_not_depend_on_the_order(
    items: list[str], count: int, random: Any
) -> None:
    parts = shares(items, count)
    assert sorted(itertools.chain(*parts)) == sorted(items)
    assert all(not set(a) & set(b) for a, b in itertools.combinations(parts, 2))
    random.shuffle(items)
    assert [sorted(part) for part in shares(items, count)] == [sorted(part) for part in parts]


def test_a_shard_goes_by_the_id_of_the_rows_up_to_the_limit() -> None:
    items = [str(n) for n in range(1000)]
    assert all(200 < len(part) < 300 for part in shares(items, 4))
    assert sorted(itertools.chain(*shares(items, 3, limit=10)), key=int) == items[:10]
    rows = [{"prompt": f"{n}", "id": n % 5} for n in range(100)]
    for part in shares(rows, 3, id_column="id"):
        assert len(part) == 20 * len({int(text) % 5 for text in part})


def test_each_bad_row_is_named_in_one_shard(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    lines = [json.dumps({"prompt": str(n)}) if n % 3 else "{" for n in range(30)]
    path.write_text("\n".join(lines) + "\n")
    for share in range(4):
        faults: list[ConfigError] = []
        list(iter_prompts(path, shard=(share + 1, 4), bad_row=faults.append))
        assert [str(fault).split(":")[0] for fault in faults] == [
            f"{path}, line {n + 1}" for n in range(30) if n % 3 == 0 and n % 4 == share
        ]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"limit": 0}, "limit must be at least 1, not 0"),
        ({"shard": (0, 2)}, r"with i from 1 to k, not \(0, 2\)"),
        ({"shard": (3, 2)}, "with i from 1 to k"),
        ({"shard": (1, 0)}, "with i from 1 to k"),
    ],
)
def test_an_option_that_is_wrong_is_refused_at_once(options: dict[str, Any], sentence: str) -> None:
    def untouched() -> Iterator[str]:
        pytest.fail("the source was read")
        yield ""

    with pytest.raises(ConfigError, match=sentence):
        iter_prompts(untouched(), **options)


# --- bad rows -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", JSON_FAULTS)
def test_the_first_bad_row_is_an_error(tmp_path: Path, kind: str) -> None:
    line, sentence = JSON_FAULTS[kind]
    path = tmp_path / "p.jsonl"
    path.write_bytes(row(id="b") + b"\n\n" + line + b"\n" + row(id="c") + b"\n")
    prompts = iter_prompts(path, **COLUMNS)  # type: ignore[arg-type]
    assert next(prompts).id == "b"
    with pytest.raises(ConfigError) as caught:
        next(prompts)
    assert str(caught.value).startswith(f"{path}, line 3: ")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_bad_rows_of_tables_are_named_and_the_others_come(tmp_path: Path, kind: str) -> None:
    rows = [{"prompt": text, "id": "x"} for text in ["a", "  ", "b", "", "c"] * 100]
    path = write_rows(tmp_path / f"p.{kind}", rows)
    faults: list[ConfigError] = []
    assert asked(path, bad_row=faults.append) == ["a", "b", "c"] * 100
    place = "line 500" if kind == "csv" else "row 498"
    assert (
        str(faults[-1])
        == f"{path}, {place}: column 'prompt': the prompt is empty; give it some text"
    )
    for name in ("prompt_column", "id_column", "system_column"):
        with pytest.raises(ConfigError, match="no column 'x'; the row has 'prompt', 'id'"):
            read_prompts(path, **{name: "x"})  # type: ignore[arg-type]
