"""Rows of every kind of source: the same content, faults by their place, nothing read ahead."""

import codecs
import csv
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
from row_files import KINDS, csv_bytes, json_bytes, packed, write_rows

from bestofn.errors import ConfigError
from bestofn.sources import Row, read_rows
from bestofn.types import Message, Prompt

ROWS = [
    {"prompt": "What is 1 and 1?", "answer": "2"},
    {"prompt": 'Say "hi",\ttwice.', "answer": "“hi” \\ 'hi'"},
    {"prompt": "One line,\nanother.\r\nAnd a third.", "answer": ""},
    {"prompt": "数えて: 😀\u2028\x85", "answer": " padded "},
]


def values(source: Any, **options: Any) -> list[dict[str, Any]]:
    return [dict(row.values) for row in read_rows(source, **options)]


def read_on(source: Any) -> tuple[list[Row], list[str]]:
    """The rows, and what was told of the others."""
    faults: list[ConfigError] = []
    return list(read_rows(source, faults.append)), [str(fault) for fault in faults]


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


def test_a_zstd_file_with_a_long_window(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=28)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    content = packer.compress(json_bytes(ROWS)) + packer.flush()
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


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "jsonl.zst", "csv", "tsv.zst"])
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


# --- faults of rows -------------------------------------------------------------------------------


def test_bad_lines_of_json_are_left_out(tmp_path: Path) -> None:
    lines = [
        b'{"a": 1}',
        b"{",
        b'{"a": "\xe9"}',
        b"",
        b"[1]",
        b"null",
        b'{"a": ' + b"[" * 100_000,
        b"\xff\xfe",
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": 2}',
        b'{"a": "it stops he',
    ]
    path = tmp_path / "p.jsonl"
    path.write_bytes(b"\n".join(lines))
    rows, faults = read_on(path)
    assert [row.values for row in rows] == [{"a": 1}, {"a": 2}]
    assert [fault.removeprefix(f"{path}, ") for fault in faults] == [
        "line 2: not JSON: Expecting property name enclosed in double quotes (character 2)",
        "line 3: not JSON: byte 8 of the line is not UTF-8",
        "line 5: a row is a JSON object, not list",
        "line 6: a row is a JSON object, not NoneType",
        "line 7: not JSON: it is nested too deeply",
        "line 8: not JSON: byte 1 of the line is not UTF-8",
        "line 9: not JSON: Exceeds the limit (4300 digits) for integer string conversion: "
        "value has 5000 digits; use sys.set_int_max_str_digits() to increase the limit",
        "line 11: the last line is cut off, not JSON: Unterminated string starting at "
        "(character 7)",
    ]
    with pytest.raises(ConfigError, match="line 2"):
        list(read_rows(path))


def test_bad_rows_of_a_table_are_left_out(tmp_path: Path) -> None:
    lines = [
        b"a,b",
        b"1,x",
        b"2",
        b"",
        b"3,x,y",
        b"4,\xe9",
        b'5,"two\nlines"',
        b'6,"a "quote" in it"',
        b'7,"never closed',
        b"8,x",
        b'9,"x"',
        b'10,"the ""last"" one',
        b"11,x",
    ]
    path = tmp_path / "p.csv"
    path.write_bytes(b"\r\n".join(lines))
    rows, faults = read_on(path)
    assert [row.values["a"] for row in rows] == ["1", "5", "8", "9", "11"]
    assert [fault.removeprefix(f"{path}, ").split(";")[0] for fault in faults] == [
        "line 3: 1 cell, but the header has 2",
        "line 5: 3 cells, but the header has 2",
        "line 6: not UTF-8",
        "line 9: not CSV: ',' expected after '\"'",
        "line 10: not CSV: ',' expected after '\"'",
        "line 13: not CSV: unexpected end of data",
    ]
    assert rows[-1].where == f"{path}, line 14"
    with pytest.raises(ConfigError, match="line 3"):
        list(read_rows(path))


def test_a_quote_that_is_not_closed_takes_no_more_than_a_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bestofn.sources.tables.LONGEST_CELL", 10_000)
    path = tmp_path / "p.csv"
    path.write_text('a\n"open\n' + "x\n" * 30_000)
    before = csv.field_size_limit(1)
    try:
        rows, faults = read_on(path)
    finally:
        csv.field_size_limit(before)
    assert len(rows) == 30_000
    assert faults[0].startswith(f"{path}, line 2: not CSV: field larger than field limit")


def test_a_long_cell(tmp_path: Path) -> None:
    row = {"a": "x" * 1_000_000, "b": "y"}
    assert values(write_rows(tmp_path / "p.csv", [row])) == [row]


def test_a_value_of_a_parquet_file_that_cannot_be_had(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    raw = pyarrow.array([b"a", b"\xe9", b"c"])
    text = pyarrow.Array.from_buffers(pyarrow.string(), 3, raw.buffers())
    path = tmp_path / "p.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"a": text}), path)
    rows, faults = read_on(path)
    assert [row.values for row in rows] == [{"a": "a"}, {"a": "c"}]
    assert [row.where for row in rows] == [f"{path}, row 0", f"{path}, row 2"]
    assert len(faults) == 1
    assert faults[0].startswith(f"{path}, row 1: it has a value that cannot be read: 'utf-8'")


def test_a_fault_is_one_line_of_some_length() -> None:
    from bestofn.sources.base import fault

    message = str(fault("p.jsonl, line 1", "a\n b" + "x" * 10_000))
    assert message.startswith("p.jsonl, line 1: a bxxx")
    assert len(message) < 500


# --- faults of sources ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "p.csv is empty; its first line names the columns"),
        (b"\n\n", "p.csv is empty"),
        (b"a,,b\n", "line 1: the header gives column 2 no name"),
        (b"a, \n", "line 1: the header gives column 2 no name"),
        (b"\na,b,a\n", "line 2: the header has the column 'a' twice"),
        (b"\xe9,b\n", "line 1: the header is not UTF-8"),
        ("a,b\n".encode("utf-16"), "line 1: the header is not UTF-8"),
        (b'"a,b\n', "line 1: not CSV"),
    ],
)
def test_a_header_that_is_wrong_ends_it_at_once(
    tmp_path: Path, content: bytes, sentence: str
) -> None:
    (tmp_path / "p.csv").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_rows(tmp_path / "p.csv", pytest.fail)
    assert sentence in str(caught.value)
    write_rows(tmp_path / "a.csv", ROWS)
    with pytest.raises(ConfigError, match=r"p\.csv"):
        read_rows(tmp_path, pytest.fail)


@pytest.mark.parametrize("kind", ["jsonl.gz", "jsonl.zst", "csv.gz", "csv.zst"])
@pytest.mark.parametrize("damage", ["cut", "corrupt", "plain", "empty"])
def test_a_packed_file_that_is_broken(tmp_path: Path, kind: str, damage: str) -> None:
    rows = [{"a": str(n * 7919 % 1009)} for n in range(20_000)]
    path = write_rows(tmp_path / f"p.{kind}", rows)
    content = path.read_bytes()
    half = len(content) // 2
    path.write_bytes(
        {
            "cut": content[:-20],
            "corrupt": content[:half] + b"\xff" * 200 + content[half + 200 :],
            "plain": b"a\n1\n",
            "empty": b"",
        }[damage]
    )
    if (damage, kind) == ("empty", "jsonl.gz"):
        assert values(path) == []
        return
    with pytest.raises(ConfigError, match=r"cannot be read|is empty"):
        list(read_rows(path, lambda _: None))


def test_a_parquet_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "p.parquet").write_bytes(b"plain")
    with pytest.raises(ConfigError, match=r"p\.parquet cannot be read"):
        read_rows(tmp_path / "p.parquet", pytest.fail)


def test_a_parquet_file_that_is_broken_inside(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "p.parquet", [{"n": str(n * n)} for n in range(10_000)])
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\xff" * 20_000 + content[20_100:])
    with pytest.raises(ConfigError, match=r"p\.parquet cannot be read"):
        list(read_rows(path, lambda _: None))


@pytest.mark.parametrize("name", ["none.jsonl", "none.csv", "none.parquet", "none/none.gz"])
def test_a_file_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="there is no file"):
        read_rows(tmp_path / name, pytest.fail)


def test_a_prompt_is_no_file() -> None:
    with pytest.raises(ConfigError, match=r"cannot be read|there is no file"):
        read_rows("Count to 3. " * 100)


def test_a_folder_without_shards(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("#")
    with pytest.raises(ConfigError, match="cannot be read: the folder holds no JSONL, CSV, TSV or"):
        read_rows(tmp_path)


@pytest.mark.parametrize(
    ("kind", "package"),
    [("parquet", "pyarrow"), ("jsonl.zst", "zstandard"), ("csv.zst", "zstandard")],
)
@pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python has zstd itself")
def test_without_a_package_it_says_what_to_install(
    tmp_path: Path, kind: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_rows(tmp_path / f"p.{kind}", ROWS)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=r"need: pip install 'bestofn\[datasets\]'"):
        list(read_rows(path))


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
