"""Files of every kind: the same rows, each with its place, and what is wrong with others."""

import codecs
import csv
import gzip
import io
import json
import os
import sys
import threading
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from row_files import (
    KINDS,
    PACKERS,
    ROWS,
    csv_bytes,
    json_bytes,
    packed,
    read_on,
    values,
    write_rows,
)

from bestofn.dataset.sources import count_rows, read_rows
from bestofn.errors import ConfigError

FILES = "bestofn.dataset.sources.files"

# --- every kind -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    path = write_rows(tmp_path / f"p.{kind}", ROWS)
    assert values(path) == values(str(path)) == ROWS


@pytest.mark.parametrize("kind", ["jsonl.gz", "json", "csv", "tsv.zst"])
def test_a_byte_order_mark_is_no_content(tmp_path: Path, kind: str) -> None:
    table = csv_bytes(ROWS, "\t" if "tsv" in kind else ",")
    lines = json_bytes(ROWS) if kind != "json" else json.dumps(ROWS).encode()
    path = tmp_path / f"p.{kind}"
    path.write_bytes(packed(path, codecs.BOM_UTF8 + (lines if "json" in kind else table)))
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
    rows = [{"n": n, "x": 0.5, "tags": ["a"]} for n in range(700)]
    assert values(write_rows(tmp_path / "p.jsonl", rows)) == rows
    assert values(write_rows(tmp_path / "p.parquet", rows)) == rows
    assert values(write_rows(tmp_path / "p.csv", rows))[1] == {
        "n": "1",
        "x": "0.5",
        "tags": "['a']",
    }


@pytest.mark.parametrize("kind", ["jsonl.gz", "jsonl.zst", "csv.zst"])
def test_packed_files_that_were_put_together(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"p.{kind}"
    content = json_bytes(ROWS) if "json" in kind else csv_bytes(ROWS)
    skipped = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"note"
    first, second = packed(path, content[:40]), packed(path, content[40:])
    path.write_bytes(skipped + first + skipped + second if "zst" in kind else first + second)
    assert values(path) == ROWS


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=[json_bytes(ROWS)])
    writer.start()
    assert count_rows(pipe) is None
    assert values(pipe) == ROWS
    writer.join()


# --- arrays ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 2, 7, 1 << 16])
@pytest.mark.parametrize("name", ["p.json", "p.jsonl", "p.json.gz", "p.txt"])
def test_an_array_is_its_items(
    tmp_path: Path, name: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{FILES}.CHUNK", chunk)
    path = tmp_path / name
    rows = [*ROWS, {"n": -12.5e3, "b": [True, None, "\\u12"], "escaped": "\u00e9\U0001f600"}]
    for indent, escaped in ((None, True), (2, False)):
        content = f" \n{json.dumps(rows, indent=indent, ensure_ascii=escaped)}\n".encode()
        path.write_bytes(packed(path, content))
        assert values(path) == rows
    assert [row.where for row in read_rows(path)] == [f"{path}, item {n}" for n in range(5)]
    path.write_bytes(packed(path, b" [ ]\n"))
    assert values(path) == []


def test_items_that_are_no_rows_are_named_by_their_place(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps([{"a": 1}, 12, [3], {"a": 2}, None, {"a": 3}]))
    rows, faults = read_on(path)
    assert [row.values for row in rows] == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert faults == [
        f"{path}, item {n}: a row is a JSON object, not {kind}"
        for n, kind in ((1, "int"), (2, "list"), (4, "NoneType"))
    ]


@pytest.mark.parametrize(
    "content",
    [
        '[{"a": 1}, {"a": 2}, {"a": ',
        '[{"a": 1}, {"a": 2}, ]',
        '[{"a": 1}, {"a": 2} {"a": 3}]',
        '[{"a": 1}, {"a": 2}] []',
        '[{"a": 1}, {"a": 2}, ' + "[" * 100_000,
        '[{"a": 1}, {"a": 2}, {"a": 1' + "0" * 5000 + "}]",
    ],
)
def test_an_array_that_is_broken_ends_the_reading(tmp_path: Path, content: str) -> None:
    # What follows the fault cannot be separated into rows, so nothing can be skipped.
    path = tmp_path / "p.json"
    path.write_text(content)
    rows = read_rows(path, pytest.fail)
    assert [next(rows).values, next(rows).values] == [{"a": 1}, {"a": 2}]
    with pytest.raises(ConfigError, match=r"p\.json, item 2: not JSON: "):
        next(rows)


# --- named as something else ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["p.jsonl", "p.jsonl.gz", "p.jsonl.zst", "p", "p.parquet"])
@pytest.mark.parametrize("pack", [*PACKERS, "text", "parquet"])
def test_a_file_is_known_by_its_bytes(tmp_path: Path, name: str, pack: str) -> None:
    if pack == "parquet":
        write_rows(tmp_path / "q.parquet", ROWS).rename(tmp_path / name)
        assert count_rows(tmp_path / name) == 4
    else:
        (tmp_path / name).write_bytes(PACKERS.get(pack, bytes)(json_bytes(ROWS)))
        assert count_rows(tmp_path / name) == (4 if pack == "text" else None)
    assert values(tmp_path / name) == ROWS


def zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("p.jsonl", content)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "make", "sentence"),
    [
        ("p.jsonl", zipped, "by its first bytes it is a ZIP archive"),
        ("p.parquet", lambda _: b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        ("p.csv", lambda content: content.decode().encode("utf-16"), "it is UTF-16 text"),
        ("p.arrow", lambda _: b"\xff\xff\xff\xff\x10", "it is an Arrow file"),
        ("p.parquet", lambda content: b"PAR1" + content, "Parquet magic bytes not found"),
        ("p.jsonl.gz", lambda content: gzip.compress(content)[:-12], "ended before"),
        ("p.zst", lambda content: zstandard.compress(content * 9)[:-9], ""),
        ("p.xz", lambda content: PACKERS[".xz"](content)[:40] + b"\xff" * 99, "Corrupt"),
    ],
)
def test_what_cannot_be_read_is_named(
    tmp_path: Path, name: str, make: Callable[[bytes], bytes], sentence: str
) -> None:
    (tmp_path / name).write_bytes(make(json_bytes(ROWS)))
    with pytest.raises(ConfigError) as caught:
        list(read_rows(tmp_path / name, pytest.fail))
    assert str(caught.value).startswith(f"{tmp_path / name} cannot be read: ")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "package"),
    [("parquet", "pyarrow.parquet"), ("jsonl.zst", "pyarrow"), ("csv.zst", "pyarrow")],
)
def test_without_a_package_it_says_what_to_install(
    tmp_path: Path, kind: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_rows(tmp_path / f"p.{kind}", ROWS)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=r"pip install 'bestofn\[datasets\]'"):
        list(read_rows(path))


# --- faults of rows -------------------------------------------------------------------------------


def test_bad_rows_of_a_table_are_left_out(tmp_path: Path) -> None:
    lines = [
        *(b"a,b", b"1,x", b"2", b"", b"3,x,y", b"4,\xe9", b'5,"two\nlines"'),
        *(b'6,"a "quote" in it"', b'7,"never closed', b"8,x", b'9,"x"', b'10,"x"'),
        *(b'11,"the ""last"" one', b"12,x"),
    ]
    path = tmp_path / "p.csv"
    path.write_bytes(b"\r\n".join(lines))
    rows, faults = read_on(path)
    assert [row.values["a"] for row in rows] == ["1", "5", "10"]
    assert [fault.removeprefix(f"{path}, ").split(";")[0] for fault in faults] == [
        "line 3: the header has 2 cells, this row 1",
        "line 5: the header has 2 cells, this row 3",
        "line 6: not UTF-8",
        "line 9: not CSV: ',' expected after '\"'",
        "line 10: not CSV: ',' expected after '\"'",
        "line 14: not CSV: unexpected end of data",
    ]
    assert faults[-2].endswith("The record ends in line 12")
    with pytest.raises(ConfigError, match="line 3"):
        list(read_rows(path))


def test_a_cell_is_long_but_a_quote_that_is_not_closed_takes_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"a": "x" * 1_000_000, "b": "y"}
    assert values(write_rows(tmp_path / "p.csv", [row])) == [row]
    monkeypatch.setattr(f"{FILES}.LONGEST_CELL", 10_000)
    path = tmp_path / "q.csv"
    path.write_text('a\n"open\n' + "x\n" * 30_000)
    before = csv.field_size_limit(1)
    try:
        rows, faults = read_on(path)
    finally:
        csv.field_size_limit(before)
    assert len(rows) > 20_000
    assert faults[0].startswith(f"{path}, line 2: not CSV: field larger than field limit")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\na,b,a\n", "line 2: the header has a column twice"),
        (b"\xe9,b\n", "line 1: not UTF-8"),
        (b'"a,b\n', "line 1: not CSV"),
    ],
)
def test_a_header_that_is_wrong_ends_it(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "p.csv").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        list(read_rows(tmp_path / "p.csv", pytest.fail))
    assert sentence in str(caught.value)


# --- memory, and any content ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["jsonl", "array.json", "jsonl.zst", "csv", "jsonl.bz2"])
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, kind: str) -> None:
    letters = Random(0).choices("etaoin shrdlu", k=1_000_000)
    rows = [{"prompt": "".join(letters[n * 100 : n * 100 + 100])} for n in range(10_000)]
    path = write_rows(tmp_path / f"p.{kind}", rows)
    if kind == "array.json":
        path.write_text(json.dumps(rows))
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
def test_files_keep_any_text(
    tmp_path: Path, rows: list[dict[str, str]], delimiter: str, all_quoted: bool
) -> None:
    options: dict[str, Any] = {"quoting": 1, "lineterminator": "\n"} if all_quoted else {}
    path = tmp_path / ("p.csv" if delimiter == "," else "p.tsv")
    path.write_bytes(csv_bytes(rows, delimiter, **options))
    assert values(path) == rows
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
