"""What is wrong with a row or a source: named by its place, and the other rows are read on."""

import csv
import sys
from pathlib import Path

import pytest
from row_files import ROWS, read_on, values, write_rows

from bestofn.dataset.sources import read_rows
from bestofn.errors import ConfigError

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
        b'10,"x"',
        b'11,"the ""last"" one',
        b"12,x",
    ]
    path = tmp_path / "p.csv"
    path.write_bytes(b"\r\n".join(lines))
    rows, faults = read_on(path)
    assert [row.values["a"] for row in rows] == ["1", "5", "10"]
    assert [fault.removeprefix(f"{path}, ").split(";")[0] for fault in faults] == [
        "line 3: 1 cell, but the header has 2",
        "line 5: 3 cells, but the header has 2",
        "line 6: not UTF-8",
        "line 9: not CSV: ',' expected after '\"'",
        "line 10: not CSV: ',' expected after '\"'",
        "line 14: not CSV: unexpected end of data",
    ]
    assert faults[-2].endswith("The record ends in line 12")
    assert rows[-1].where == f"{path}, line 13"
    with pytest.raises(ConfigError, match="line 3"):
        list(read_rows(path))


def test_a_quote_that_is_not_closed_takes_no_more_than_a_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bestofn.dataset.sources.files.LONGEST_CELL", 10_000)
    path = tmp_path / "p.csv"
    path.write_text('a\n"open\n' + "x\n" * 30_000)
    before = csv.field_size_limit(1)
    try:
        rows, faults = read_on(path)
    finally:
        csv.field_size_limit(before)
    assert len(rows) > 20_000
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
    assert faults[0].startswith(f"{path}, row 1: it has a value that does not decode: 'utf-8'")


def test_a_fault_is_one_line_of_some_length() -> None:
    from bestofn.dataset.sources.base import fault

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
        ("a,b\n".encode("utf-16"), "by its first bytes it is UTF-16 text; save it as UTF-8"),
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


@pytest.mark.parametrize("kind", ["jsonl.gz", "jsonl.zst", "csv.bz2", "csv.xz"])
@pytest.mark.parametrize("damage", ["cut", "corrupt", "empty"])
def test_a_packed_file_that_is_broken(tmp_path: Path, kind: str, damage: str) -> None:
    rows = [{"a": str(n * 7919 % 1009)} for n in range(20_000)]
    path = write_rows(tmp_path / f"p.{kind}", rows)
    content = path.read_bytes()
    half = len(content) // 2
    path.write_bytes(
        {
            "cut": content[:-20],
            "corrupt": content[:half] + b"\xff" * 200 + content[half + 200 :],
            "empty": b"",
        }[damage]
    )
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
    [("parquet", "pyarrow"), ("jsonl.zst", "pyarrow"), ("csv.zst", "pyarrow")],
)
def test_without_a_package_it_says_what_to_install(
    tmp_path: Path, kind: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_rows(tmp_path / f"p.{kind}", ROWS)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=r"need: pip install 'bestofn\[datasets\]'"):
        list(read_rows(path))
