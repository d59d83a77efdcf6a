"""Rows of every kind of source: the same content, each with its place, nothing read ahead."""

import codecs
import gzip
import io
import itertools
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from row_files import KINDS, ROWS, csv_bytes, json_bytes, packed, read_on, values, write_rows

from bestofn.dataset.sources import Row, read_rows
from bestofn.errors import ConfigError
from bestofn.types import Message, Prompt


def standard_input(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


# --- every kind -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    path = write_rows(tmp_path / f"p.{kind}", ROWS)
    assert values(path) == values(str(path)) == ROWS


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "csv", "tsv.zst"])
def test_a_byte_order_mark_is_no_content(tmp_path: Path, kind: str) -> None:
    plain = csv_bytes(ROWS, "\t" if "tsv" in kind else ",")
    content = codecs.BOM_UTF8 + (json_bytes(ROWS) if "json" in kind else plain)
    path = tmp_path / f"p.{kind}"
    path.write_bytes(packed(path, content))
    assert values(path) == ROWS


@pytest.mark.parametrize(
    ("kind", "places"),
    [
        ("jsonl", ["line 1", "line 2", "line 3", "line 4"]),
        ("csv.gz", ["line 2", "line 3", "line 4", "line 7"]),
        ("parquet", ["row 0", "row 1", "row 2", "row 3"]),
    ],
)
def test_rows_know_their_place(tmp_path: Path, kind: str, places: list[str]) -> None:
    path = write_rows(tmp_path / f"p.{kind}", ROWS)
    assert [row.where for row in read_rows(path)] == [f"{path}, {place}" for place in places]


def test_numbers_stay_numbers_where_the_format_has_them(tmp_path: Path) -> None:
    rows = [{"n": 1, "x": 0.5, "tags": ["a"]}]
    assert values(write_rows(tmp_path / "p.jsonl", rows)) == rows
    assert values(write_rows(tmp_path / "p.parquet", rows)) == rows
    assert values(write_rows(tmp_path / "p.csv", rows)) == [{"n": "1", "x": "0.5", "tags": "['a']"}]


def test_a_parquet_file_of_more_than_a_batch(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "p.parquet", [{"n": n} for n in range(700)])
    rows = list(read_rows(path))
    assert [row.values["n"] for row in rows] == list(range(700))
    assert rows[-1].where == f"{path}, row 699"


@pytest.mark.parametrize("kind", ["jsonl.gz", "jsonl.zst", "csv.zst"])
def test_packed_files_that_were_put_together(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"p.{kind}"
    content = json_bytes(ROWS) if "json" in kind else csv_bytes(ROWS)
    path.write_bytes(packed(path, content[:40]) + packed(path, content[40:]))
    assert values(path) == ROWS


def test_a_zstd_file_with_a_skippable_frame(tmp_path: Path) -> None:
    skipped = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"note"
    content = skipped + zstandard.compress(json_bytes(ROWS)) + skipped
    (tmp_path / "p.jsonl.zst").write_bytes(content)
    assert values(tmp_path / "p.jsonl.zst") == ROWS


def test_a_folder_of_shards_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name, row in zip(("b.csv", "a.jsonl.zst", "d.parquet", "c.tsv"), ROWS, strict=True):
        write_rows(tmp_path / name, [row])
    for name in (".hidden.jsonl", "README.md", "data.parquet.gz", "notes.txt"):
        (tmp_path / name).write_text("no rows")
    (tmp_path / "e.jsonl").mkdir()
    assert values(tmp_path) == [ROWS[1], ROWS[0], ROWS[3], ROWS[2]]
    first = next(read_rows(tmp_path))
    assert first.where == f"{tmp_path / 'a.jsonl.zst'}, line 1"


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    standard_input(monkeypatch, codecs.BOM_UTF8 + json_bytes(ROWS) + b"{\n")
    rows, faults = read_on("-")
    assert [row.values for row in rows] == ROWS
    assert rows[0].where == "standard input, line 1"
    assert len(faults) == 1
    assert faults[0].startswith("standard input, line 5: not JSON")


def test_no_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ConfigError, match="no bytes on standard input"):
        read_rows("-")


def test_the_tiny_world() -> None:
    assert [row.where for row in read_rows("tiny:2")] == ["tiny:2, row 0", "tiny:2, row 1"]
    assert set(next(read_rows("tiny:1")).values) == {"prompt", "family"}


@pytest.mark.parametrize("streaming", [False, True])
def test_a_data_set_by_its_package(tmp_path: Path, streaming: bool) -> None:
    datasets = pytest.importorskip("datasets")
    before, datasets.config.HF_DATASETS_CACHE = datasets.config.HF_DATASETS_CACHE, tmp_path / "c"
    (tmp_path / "data").mkdir()
    write_rows(tmp_path / "data" / "train.jsonl", ROWS)
    try:
        assert values(f"hf:{tmp_path}/data", streaming=streaming) == ROWS
    finally:
        datasets.config.HF_DATASETS_CACHE = before
    assert values(datasets.Dataset.from_list(ROWS)) == ROWS
    assert values(datasets.Dataset.from_list(ROWS).to_iterable_dataset()) == ROWS


@pytest.mark.parametrize(
    ("name", "reader"),
    [
        ("a.jsonl.zst", {"path": "json"}),
        ("a.parquet", {"path": "parquet"}),
        ("a.tsv.gz", {"path": "csv", "delimiter": "\t"}),
    ],
)
def test_one_file_of_the_hub(
    name: str, reader: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    asked = {}

    def load_dataset(**arguments: Any) -> Any:
        asked.update(arguments)
        return iter(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = f"hf://datasets/someone/something/{name}"
    assert values(source, streaming=True) == ROWS
    assert asked == {**reader, "data_files": source, "split": "train", "streaming": True}


def test_a_data_set_that_breaks_while_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")

    def broken() -> Iterator[dict[str, Any]]:
        yield ROWS[0]
        raise RuntimeError("the line\nwent dead")

    monkeypatch.setattr(datasets, "load_dataset", lambda **_: broken())
    rows = read_rows("hf:someone/something", lambda _: None)
    assert next(rows).values == ROWS[0]
    with pytest.raises(ConfigError, match="hf:someone/something cannot be read: the line went"):
        next(rows)


# --- in Python ------------------------------------------------------------------------------------


def test_mappings_prompts_and_rows_in_any_iterable() -> None:
    turns = [Message("system", "Be brief."), {"role": "user", "content": "Hi."}]
    prompt = Prompt((Message("user", "b"),), "name", {"answer": 1})
    items = ["a", prompt, turns, {"question": "c"}, Row("elsewhere", {"prompt": "d"})]
    rows = list(read_rows(iter(items)))
    assert [row.values for row in rows] == [
        {"prompt": "a"},
        {"answer": 1, "prompt": prompt},
        {"prompt": turns},
        {"question": "c"},
        {"prompt": "d"},
    ]
    assert [row.where for row in rows] == ["row 0", "row 1", "row 2", "row 3", "elsewhere"]


def test_items_that_are_no_rows() -> None:
    rows, faults = read_on(["a", None, 3, "b"])
    assert [row.values["prompt"] for row in rows] == ["a", "b"]
    assert faults == [
        "row 1: a row is a mapping or a prompt, not NoneType",
        "row 2: a row is a mapping or a prompt, not int",
    ]


def test_what_iterates_over_names_is_refused() -> None:
    pandas = pytest.importorskip("pandas")
    for source in ({"train": ROWS}, pandas.DataFrame(ROWS)):
        with pytest.raises(ConfigError, match="is no list of rows"):
            read_rows(source)
    with pytest.raises(ConfigError, match="or rows in an iterable, not int"):
        read_rows(3)  # type: ignore[arg-type]


# --- nothing is read ahead ------------------------------------------------------------------------


def test_an_endless_iterable() -> None:
    rows = read_rows({"n": n} for n in itertools.count())
    assert [row.values["n"] for row in itertools.islice(rows, 3)] == [0, 1, 2]


@pytest.mark.parametrize("kind", ["jsonl", "json.gz", "jsonl.zst", "csv", "tsv.zst", "jsonl.bz2"])
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, kind: str) -> None:
    letters = Random(0).choices("etaoin shrdlu", k=1_000_000)
    rows = [{"prompt": "".join(letters[n * 100 : n * 100 + 100])} for n in range(10_000)]
    path = write_rows(tmp_path / f"p.{kind}", rows)
    size = len(json_bytes(rows))
    del rows
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_rows(path)) == 10_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < size / 2


def test_memory_does_not_grow_with_the_rows_of_a_parquet_file(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    random = Random(0)
    rows = [{"prompt": random.randbytes(500).hex()} for _ in range(12_000)]
    path = write_rows(tmp_path / "p.parquet", rows)
    before = pyarrow.total_allocated_bytes()
    peak = max(pyarrow.total_allocated_bytes() - before for _ in read_rows(path))
    assert peak < path.stat().st_size / 2


# --- by property ----------------------------------------------------------------------------------

ODD = st.text(
    st.one_of(
        st.sampled_from("\"',;\t\n\r\\{}\x00\x0b\x85\u2028\ufeff"),
        st.characters(exclude_categories=["Cs"]),
    )
)
TABLES = st.lists(st.fixed_dictionaries({"prompt": ODD, "a b": ODD}), min_size=1, max_size=5)
reused_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@reused_folder
@given(rows=TABLES, delimiter=st.sampled_from(",\t"), all_quoted=st.booleans())
def test_csv_keeps_any_text(
    tmp_path: Path, rows: list[dict[str, str]], delimiter: str, all_quoted: bool
) -> None:
    options = {"quoting": 1, "lineterminator": "\n"} if all_quoted else {}
    path = tmp_path / ("p.csv" if delimiter == "," else "p.tsv")
    path.write_bytes(csv_bytes(rows, delimiter, **options))
    assert values(path) == rows


@reused_folder
@given(rows=TABLES)
def test_jsonl_keeps_any_text(tmp_path: Path, rows: list[dict[str, str]]) -> None:
    (tmp_path / "p.jsonl").write_bytes(json_bytes(rows))
    assert values(tmp_path / "p.jsonl") == rows
    (tmp_path / "p.jsonl.gz").write_bytes(gzip.compress(json_bytes(rows)))
    assert values(tmp_path / "p.jsonl.gz") == rows


@reused_folder
@given(content=st.binary(max_size=200), kind=st.sampled_from(["jsonl", "csv", "tsv"]))
def test_any_bytes_are_rows_or_faults(tmp_path: Path, content: bytes, kind: str) -> None:
    path = tmp_path / f"p.{kind}"
    path.write_bytes(b"a\n" + content)
    rows, faults = read_on(path)
    places = [row.where for row in rows] + [fault.split(": ")[0] for fault in faults]
    assert len(set(places)) == len(places)
