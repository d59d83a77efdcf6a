"""Prompts as a stream: columns, templates, shards, and that nothing is read ahead."""

import io
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from row_files import json_bytes, write_rows

from bestofn.dataset.sources import iter_prompts, read_prompts, read_rows
from bestofn.errors import ConfigError
from bestofn.prompts import as_prompt
from bestofn.store import pool
from bestofn.types import Candidate, Message, Pool, Prompt

ROWS = [{"prompt": f"What is {n} and {n}?", "key": n, "answer": 2 * n} for n in range(8)]
TURNS = [{"role": "system", "content": "Own."}, {"role": "user", "content": "Count."}]


def asked(source: Any, **options: Any) -> list[str]:
    return [prompt.messages[-1].content for prompt in iter_prompts(source, **options)]


def one(row: dict[str, Any], **options: Any) -> Prompt:
    (prompt,) = iter_prompts([row], **options)
    return prompt


# --- the same prompts whichever way ---------------------------------------------------------------


@pytest.mark.parametrize("kind", ["jsonl", "csv.gz", "tsv.zst", "parquet"])
def test_every_kind_of_source_gives_the_same_prompts(tmp_path: Path, kind: str) -> None:
    rows = [{name: str(value) for name, value in row.items()} for row in ROWS]
    path = write_rows(tmp_path / f"p.{kind}", rows)
    for source in (path, str(path), tmp_path):
        assert repr(list(iter_prompts(source))) == repr(list(iter_prompts(rows)))
        assert repr(read_prompts(source, id_column="key")) == repr(
            list(iter_prompts(rows, id_column="key"))
        )


def test_prompts_on_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json_bytes(ROWS))))
    assert asked("-", limit=2) == [row["prompt"] for row in ROWS[:2]]


def test_texts_conversations_and_prompts() -> None:
    prompt = Prompt((Message("user", "c"),), "mine", {"prompt": "its own", "rate": 1})
    made = list(iter_prompts(["a", TURNS, prompt]))
    assert made == [as_prompt("a"), as_prompt(TURNS), prompt]
    assert made[2].columns == {"prompt": "its own", "rate": 1}
    (told,) = iter_prompts([prompt], system="Be brief.")
    assert (told.id, told.messages[0].content) == ("mine", "Be brief.")


def test_a_data_set_in_memory() -> None:
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_list(ROWS)
    assert repr(list(iter_prompts(data))) == repr(list(iter_prompts(ROWS)))


def test_rows_that_were_picked_keep_their_place(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "p.jsonl", [*ROWS, {"key": 9}])
    odd = (row for row in read_rows(path) if row.values["key"] % 2)
    faults: list[ConfigError] = []
    assert len(list(iter_prompts(odd, bad_row=faults.append))) == 4
    assert str(faults[0]) == f"{path}, line 9: no column 'prompt'; the row has 'key'"


def test_the_shuffle_is_of_the_rows(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "p.parquet", ROWS)
    shuffled = read_prompts(path, shuffle=3)
    assert [prompt.columns["key"] for prompt in shuffled] == [0, 5, 7, 2, 1, 6, 4, 3]
    assert repr(shuffled) == repr(read_prompts(ROWS, shuffle=3))


def test_no_prompts_in_python() -> None:
    assert list(iter_prompts([])) == []
    with pytest.raises(ConfigError, match="the source holds no prompts"):
        read_prompts([])


# --- nothing is read ahead ------------------------------------------------------------------------


def test_an_endless_source_is_read_as_prompts_are_taken() -> None:
    numbers = itertools.count()
    prompts = iter_prompts(str(n) for n in numbers)
    assert [next(prompts).messages[-1].content for _ in range(3)] == ["0", "1", "2"]
    assert next(numbers) == 3


def test_the_limit_reads_no_further() -> None:
    numbers = itertools.count()
    assert asked((str(n) for n in numbers), limit=3) == ["0", "1", "2"]
    assert next(numbers) == 3


def test_the_limit_counts_bad_rows() -> None:
    faults: list[ConfigError] = []
    assert asked(["a", "", "b", "c"], limit=3, bad_row=faults.append) == ["a", "b"]
    assert len(faults) == 1


# --- columns --------------------------------------------------------------------------------------


def test_messages_stand_in_for_a_prompt(tmp_path: Path) -> None:
    assert one({"messages": TURNS, "n": 1}) == as_prompt(TURNS)
    assert one({"messages": TURNS, "n": 1}).columns == {"n": 1}
    assert one({"messages": TURNS, "prompt": "a"}).messages == (Message("user", "a"),)
    path = write_rows(tmp_path / "p.parquet", [{"messages": TURNS}])
    assert list(iter_prompts(path)) == [as_prompt(TURNS)]
    with pytest.raises(ConfigError, match="no column 'question'; the row has 'messages'"):
        one({"messages": TURNS}, prompt_column="question")


def test_ids_are_texts_or_integers() -> None:
    assert [one({"prompt": "a", "id": name}, id_column="id").id for name in ("x", 0, 10**20)] == [
        "x",
        "0",
        "100000000000000000000",
    ]


def test_a_system_prompt_from_a_column() -> None:
    options = {"system_column": "s", "system": "Default."}
    assert one({"prompt": "a", "s": "Row's."}, **options).messages[0].content == "Row's."
    assert one({"prompt": TURNS, "s": "Row's."}, **options).messages[0].content == "Own."
    for none in (None, "", " "):
        assert one({"prompt": "a", "s": none}, **options).messages[0].content == "Default."
        assert one({"prompt": "a", "s": none}, system_column="s") == as_prompt("a")
    assert one({"prompt": "a", "s": "x", "t": 1}, system_column="s").columns == {"t": 1}


def test_the_content_with_its_system_prompt_is_the_id() -> None:
    told = one({"prompt": "a", "s": "Be brief."}, system_column="s")
    assert told.id == as_prompt([Message("system", "Be brief."), Message("user", "a")]).id


def test_other_columns_fit_into_a_pool() -> None:
    prompt = one({"prompt": "a", 3: {"x": [float("nan"), (1, b"y")]}})
    row = Pool(prompt, [Candidate(0, "x")])
    assert pool.loads(pool.dumps(row)).prompt.columns == {"3": {"x": [None, [1, "b'y'"]]}}


# --- templates ------------------------------------------------------------------------------------


def test_a_template_over_columns() -> None:
    row = {"problem": "1 + 1", "the unit": "cm", "n": 2, "x": 0.5, "answer": "2"}
    prompt = one(row, template="Solve {{{problem}}} in {the unit}: {n}, {x}, {{}}.")
    assert prompt.messages[-1].content == "Solve {1 + 1} in cm: 2, 0.5, {}."
    assert prompt.columns == row


def test_braces_in_a_column_are_text() -> None:
    assert asked([{"a": "{b} {{"}], template="{a}{a}") == ["{b} {{{b} {{"]


def test_a_template_does_not_need_a_prompt() -> None:
    row = {"prompt": None, "q": "a", "id": 7, "s": "Be brief."}
    prompt = one(row, template="Q: {q}", id_column="id", system_column="s")
    assert (prompt.id, prompt.columns) == ("7", {"prompt": None, "q": "a"})
    assert prompt.messages == (Message("system", "Be brief."), Message("user", "Q: a"))


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("{a.b}", "nothing else, not {a.b}"),
        ("{a[0]}", "nothing else, not {a[0]}"),
        ("{a!r}", "nothing else, not {a!r}"),
        ("{a:.2f}", "nothing else, not {a:.2f}"),
        ("{a:{b}}", "nothing else, not {a:{b}}"),
        ("{a!r:>9}", "nothing else, not {a!r:>9}"),
        ("{}", "nothing else, not {}"),
        ("{a", "braces of the text are written {{ and }}"),
        ("a}", "braces of the text are written {{ and }}"),
        ("{a{b}}", "braces of the text are written {{ and }}"),
        ("Solve it.", "names no column"),
        ("", "names no column"),
        ("{{a}}", "names no column"),
    ],
)
def test_a_template_that_is_wrong_is_refused_at_once(template: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        iter_prompts(["a"], template=template, bad_row=pytest.fail)
    assert sentence in str(caught.value)


@given(st.text())
def test_any_text_with_its_braces_doubled_is_itself(text: str) -> None:
    doubled = text.replace("{", "{{").replace("}", "}}")
    assert asked([{"a": "!"}], template=doubled + "{a}") == [
        as_prompt(text + "!").messages[0].content
    ]


# --- tables say at once which column they lack ----------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "tsv.gz", "parquet"])
@pytest.mark.parametrize(
    "options",
    [
        {"prompt_column": "x"},
        {"id_column": "x"},
        {"system_column": "x"},
        {"template": "{key} {x}"},
    ],
)
def test_a_table_without_a_column(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    write_rows(tmp_path / "a.jsonl", ROWS)
    path = write_rows(tmp_path / f"p.{kind}", ROWS)
    message = f"{path}: no column 'x'; the table has 'prompt', 'key', 'answer'"
    for source in (path, tmp_path):
        with pytest.raises(ConfigError) as caught:
            iter_prompts(source, bad_row=pytest.fail, **options)
        assert str(caught.value) == message


# --- shards ---------------------------------------------------------------------------------------


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


def test_shards_are_of_about_the_same_size() -> None:
    assert all(200 < len(part) < 300 for part in shares([str(n) for n in range(1000)], 4))


def test_a_shard_goes_by_the_id() -> None:
    rows = [{"prompt": f"{n}", "id": n % 5} for n in range(100)]
    for part in shares(rows, 3, id_column="id"):
        assert len(part) == 20 * len({int(text) % 5 for text in part})


def test_a_shard_is_of_the_rows_up_to_the_limit() -> None:
    items = [str(n) for n in range(100)]
    assert sorted(itertools.chain(*shares(items, 3, limit=10)), key=int) == items[:10]


def test_each_bad_row_is_told_of_in_one_shard(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    lines = [json.dumps({"prompt": str(n)}) if n % 3 else "{" for n in range(30)]
    path.write_text("\n".join(lines) + "\n")
    told = []
    for share in range(1, 5):
        faults: list[ConfigError] = []
        list(iter_prompts(path, shard=(share, 4), bad_row=faults.append))
        told.append([str(fault).split(":")[0] for fault in faults])
    assert told == [
        [f"{path}, line {n + 1}" for n in range(30) if n % 3 == 0 and n % 4 == share]
        for share in range(4)
    ]


# --- options that are wrong -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"limit": 0}, "limit must be at least 1, not 0"),
        ({"limit": -3}, "limit must be at least 1"),
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
