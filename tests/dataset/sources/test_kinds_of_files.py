"""Files that are JSON arrays, packed, misnamed or in folders with other things."""

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
from typing import Any

import pytest
from row_files import PACKERS, ROWS, json_bytes, packed, read_on, values, write_rows

from bestofn.dataset.sources import count_rows, read_prompts, read_rows
from bestofn.errors import ConfigError

# --- arrays ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("name", ["p.json", "p.jsonl", "p.json.gz", "p.txt"])
def test_an_array_is_its_items(tmp_path: Path, name: str, indent: int | None) -> None:
    path = tmp_path / name
    content = json.dumps(ROWS, indent=indent, ensure_ascii=False).encode()
    path.write_bytes(packed(path, content))
    assert values(path) == ROWS
    assert [row.where for row in read_rows(path)] == [f"{path}, item {n}" for n in range(4)]


def test_an_array_behind_a_byte_order_mark_and_blanks(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_bytes(b"\xef\xbb\xbf\n  " + json.dumps(ROWS).encode() + b"\n\n")
    assert values(tmp_path / "p.json") == ROWS


def test_an_array_on_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    content = gzip.compress(json.dumps(ROWS, indent=1).encode())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert values("-") == ROWS


def test_an_array_without_items(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(" [ ]\n")
    assert values(tmp_path / "p.json") == []


@pytest.mark.parametrize("indent", [None, 2])
def test_items_that_are_no_rows_are_named_by_their_place(
    tmp_path: Path, indent: int | None
) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps([{"a": 1}, 12, [3], {"a": 2}, None, {"a": 3}], indent=indent))
    rows, faults = read_on(path)
    assert [row.values for row in rows] == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert faults == [
        f"{path}, item {n}: a row is a JSON object, not {kind}"
        for n, kind in ((1, "int"), (2, "list"), (4, "NoneType"))
    ]
    with pytest.raises(ConfigError, match=r"item 0: no column 'prompt'"):
        read_prompts(path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('[{"a": 1}, {"a": 2}, {"a": ', "item 2 or what follows it is not JSON: Expecting value"),
        ('[{"a": 1}, {"a": 2}', "is not JSON: Expecting ',' or ']'"),
        ('[{"a": 1}, {"a": 2}, ]', "item 2 or what follows it is not JSON"),
        ('[{"a": 1}, {"a": 2} {"a": 3}]', "Expecting ',' or ']', not '{'"),
        ('[{"a": 1}, {"a": 2}] []', "there is more text behind the array"),
        ('[{"a": 1}, {"a": 2}, ' + "[" * 100_000, "nested too deeply"),
        ('[{"a": 1}, {"a": 2}, {"a": 1' + "0" * 5000 + "}]", "is not JSON: Exceeds the limit"),
        ('[{"a": 1}, {"a": 2}, {"a": "\udce9"}]', "it is not UTF-8"),
    ],
)
def test_an_array_that_is_broken_ends_the_reading(
    tmp_path: Path, content: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is behind the fault cannot be told apart, so it is no row that could be skipped.
    monkeypatch.setattr("bestofn.dataset.sources.files.CHUNK", 4)
    path = tmp_path / "p.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    rows = []
    with pytest.raises(ConfigError) as caught:
        rows.extend(row.values for row in read_rows(path, pytest.fail))
    assert f"{path} cannot be read: " in str(caught.value)
    assert sentence in str(caught.value)
    rows = []
    with pytest.raises(ConfigError):
        for row in read_rows(path):
            rows.append(row.values)
    # The bytes of a piece are decoded together.
    assert rows == ([] if "UTF-8" in sentence else [{"a": 1}, {"a": 2}])


def test_memory_does_not_grow_with_an_array(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps([{"prompt": f"{n} " * 100} for n in range(10_000)]))
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_rows(path)) == 10_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < path.stat().st_size / 4


@pytest.mark.parametrize("chunk", [1, 2, 7, 1 << 16])
def test_an_array_may_end_anywhere_in_a_piece(
    tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bestofn.dataset.sources.files.CHUNK", chunk)
    rows = [*ROWS, {"n": -12.5e3, "b": [True, None, "\\u12"], "escaped": "\u00e9\U0001f600"}]
    for escaped in (True, False):
        (tmp_path / "p.json").write_text(json.dumps(rows, ensure_ascii=escaped), "utf-8")
        assert values(tmp_path / "p.json") == rows


@pytest.mark.parametrize("first", ['{"a": ', '{"a": 1,', "{", '{"a": "cut', '{"a": oops}'])
def test_a_first_line_that_is_cut_off_is_one_fault(tmp_path: Path, first: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(f'{first}\n{{"a": 1}}\n{{"a": 2}}\n')
    rows, faults = read_on(path)
    assert [row.values for row in rows] == [{"a": 1}, {"a": 2}]
    assert len(faults) == 1
    assert faults[0].startswith(f"{path}, line 1: not JSON: ")


# --- named as something else ----------------------------------------------------------------------


@pytest.mark.parametrize("pack", PACKERS)
@pytest.mark.parametrize("name", ["p.jsonl", "p.jsonl.gz", "p.jsonl.zst", "p"])
def test_a_packed_file_is_known_by_its_bytes(tmp_path: Path, name: str, pack: str) -> None:
    (tmp_path / name).write_bytes(PACKERS[pack](json_bytes(ROWS)))
    assert values(tmp_path / name) == ROWS


@pytest.mark.parametrize("name", ["p.jsonl.gz", "p.jsonl.zst", "p.jsonl.bz2", "p.jsonl.xz"])
def test_text_is_read_whatever_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(json_bytes(ROWS))
    assert values(tmp_path / name) == ROWS


@pytest.mark.parametrize("name", ["p.jsonl", "p.csv", "p"])
def test_a_parquet_file_is_known_by_its_bytes(tmp_path: Path, name: str) -> None:
    write_rows(tmp_path / "q.parquet", ROWS).rename(tmp_path / name)
    assert values(tmp_path / name) == ROWS
    assert count_rows(tmp_path / name) == 4


def zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("p.jsonl", content)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "make", "sentence"),
    [
        ("p.jsonl", zipped, "by its first bytes it is a ZIP archive"),
        ("p.parquet", gzip.compress, "it is a .gz file, not Parquet"),
        ("p.parquet", lambda content: content, "it is something else, not Parquet"),
        (
            "p.parquet",
            lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            "it is a Git LFS pointer; run `git lfs pull`",
        ),
        ("p.jsonl", lambda content: content.decode().encode("utf-16"), "it is UTF-16 text"),
        ("p.arrow", lambda _: b"\xff\xff\xff\xff\x10", "it is an Arrow file"),
    ],
)
def test_what_cannot_be_read_is_named(
    tmp_path: Path, name: str, make: Callable[[bytes], bytes], sentence: str
) -> None:
    (tmp_path / name).write_bytes(make(json_bytes(ROWS)))
    with pytest.raises(ConfigError) as caught:
        list(read_rows(tmp_path / name, pytest.fail))
    assert f"{name} cannot be read: " in str(caught.value)
    assert sentence in str(caught.value)


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=[json_bytes(ROWS)])
    writer.start()
    assert count_rows(pipe) is None
    assert values(pipe) == ROWS
    writer.join()


# --- folders --------------------------------------------------------------------------------------


@pytest.fixture
def datasets() -> Any:
    return pytest.importorskip("datasets")


def test_a_clone_of_the_hub(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_rows(tmp_path / "data" / "train-00000.parquet", ROWS[:2])
    write_rows(tmp_path / "data" / "train-00001.parquet", ROWS[2:])
    (tmp_path / "README.md").write_text("# x")
    (tmp_path / "dataset_infos.json").write_text('{\n "default": {\n  "features": {}\n }\n}')
    assert values(tmp_path) == ROWS
    assert count_rows(tmp_path) == 4


def test_what_our_own_files_have_beside_them_is_no_row(tmp_path: Path) -> None:
    write_rows(tmp_path / "p.jsonl", ROWS)
    for end in ("manifest", "scores"):
        (tmp_path / f"p.jsonl.{end}.json").write_text('{"engine": "tiny"}')
    write_rows(tmp_path / "q.scores.json", ROWS[:1])
    assert values(tmp_path) == [*ROWS, ROWS[0]]


@pytest.mark.parametrize("prefix", ["", "hf:"])
def test_a_saved_dataset(tmp_path: Path, datasets: Any, prefix: str) -> None:
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    rows = list(read_rows(f"{prefix}{tmp_path / 'saved'}"))
    assert [row.values for row in rows] == ROWS
    assert rows[3].where == f"{tmp_path / 'saved'}, row 3"
    assert count_rows(tmp_path / "saved") is None
    with pytest.raises(ConfigError, match="saved: no column 'question'; the table has 'prompt'"):
        read_prompts(tmp_path / "saved", prompt_column="question")


def test_a_saved_dataset_of_one_split(tmp_path: Path, datasets: Any) -> None:
    dataset = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict(test=dataset).save_to_disk(tmp_path / "saved")
    assert values(tmp_path / "saved") == ROWS


def test_of_several_splits_one_must_be_named(tmp_path: Path, datasets: Any) -> None:
    splits = {name: datasets.Dataset.from_list(ROWS) for name in ("train", "test")}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    with pytest.raises(ConfigError) as caught:
        read_rows(tmp_path / "saved")
    assert str(caught.value) == (
        f"{tmp_path / 'saved'} has the splits train, test; name one of them, such as "
        f"{tmp_path / 'saved' / 'train'}"
    )
    assert values(tmp_path / "saved" / "test") == ROWS


@pytest.mark.parametrize(
    "files",
    [
        {"dataset_dict.json": "{"},
        {"dataset_dict.json": "[]"},
        {"dataset_info.json": "{}", "state.json": "{"},
        {"dataset_info.json": "{}", "state.json": '{"_data_files": [{"filename": "none"}]}'},
    ],
)
def test_a_saved_dataset_that_is_broken(
    tmp_path: Path, files: dict[str, str], datasets: Any
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        read_rows(tmp_path)
    assert "\n" not in str(caught.value)


def test_without_the_package_a_saved_dataset_says_what_to_install(
    tmp_path: Path, datasets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match="pip install"):
        read_rows(tmp_path)
