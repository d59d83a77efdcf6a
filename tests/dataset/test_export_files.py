"""The files of an export, read with the tools that others read them with."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from math import inf, isnan, nan
from pathlib import Path
from typing import Any, get_args

import datasets
import pandas as pd
import pytest
from exporting import as_csv, chosen, exported, one_of_each, read_back
from making import written

from bestofn.dataset.export import Exported, Format, export
from bestofn.dataset.exported import Keep, Record, Records
from bestofn.errors import BestOfNError, ConfigError
from bestofn.store import pool
from bestofn.types import Pool

KEEPS, FORMATS = ("best", "all", "preference", "sft"), get_args(Format)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return written(tmp_path / "rows.jsonl", one_of_each())


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def same(read: Any, wanted: Any) -> bool:
    """Whether what a reader gives is the value; each has its own way of saying null."""
    if wanted is None:
        return read is None or read is pd.NA or (isinstance(read, float) and isnan(read))
    if isinstance(wanted, list):
        return len(read) == len(wanted) and all(map(same, read, wanted))
    return bool(read == wanted)


# --- formats --------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", KEEPS)
def test_every_format_holds_what_the_rows_say(source: Path, keep: Keep) -> None:
    wanted = exported(source, keep=keep)
    for kind in ("parquet", "hf"):
        for record, right in zip(exported(source, kind, keep=keep), wanted, strict=True):
            tags = right.get("tags")
            text = {} if tags is None else {"tags": json.dumps(tags)}
            assert list(record) == list(right)
            assert all(same(record[name], value) for name, value in (right | text).items())
    records = exported(source, "csv", keep=keep)
    assert records == [{k: as_csv(v) for k, v in right.items()} for right in wanted]


@pytest.mark.parametrize("keep", ["preference", "sft"])
@pytest.mark.parametrize(("format", "loader"), [("jsonl", "json"), ("parquet", "parquet")])
def test_datasets_loads_what_trl_trains_on(
    source: Path, tmp_path: Path, keep: Keep, format: Format, loader: str
) -> None:
    wanted = exported(source, keep=keep)
    exported(source, format, keep=keep)
    file, cache = str(tmp_path / f"out.{format}"), str(tmp_path / "cache")
    data = datasets.load_dataset(loader, data_files=file, split="train", cache_dir=cache)
    message = {"role": datasets.Value("string"), "content": datasets.Value("string")}
    for name in ["messages"] if keep == "sft" else ["prompt", "chosen", "rejected"]:
        assert data.features[name] == datasets.List(message)
    assert [dict(record) for record in data] == wanted


def test_many_records_are_written_in_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bestofn.dataset.export.BATCH", 3)
    pools = [chosen(f"{number}", {"flip": [number, 0.5]}) for number in range(8)]
    source = written(tmp_path / "rows.jsonl", pools)
    for kind in FORMATS:
        assert [record["id"] for record in exported(source, kind)] == [*"01234567"]


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_may_have_no_records(tmp_path: Path, format: Format) -> None:
    source = written(tmp_path / "rows.jsonl", [chosen("x", {"flip": [0.5, 0.5]})])
    assert exported(source, format, keep="preference") == []


# --- types of columns -----------------------------------------------------------------------------


def own_columns(tmp_path: Path, values: Sequence[Any], format: Format = "hf") -> list[Any]:
    """The values of a column in an export of rows that have these; ... for no column."""
    columns: list[dict[str, Any]] = [{} if value is ... else {"own": value} for value in values]
    pools = [chosen(f"{n}", {"flip": [0.0, 1.0]}, c) for n, c in enumerate(columns)]
    return [r["own"] for r in exported(written(tmp_path / "rows.jsonl", pools), format)]


@pytest.mark.parametrize(
    ("values", "wanted", "kind"),
    [
        ([True, None, False], [True, None, False], "bool"),
        ([1, None, -(2**63), ...], [1, None, -(2**63), None], "int64"),
        ([1, 0.5, 2**60 + 1], [1.0, 0.5, float(2**60 + 1)], "float64"),
        (["a", None, ""], ["a", None, ""], "string"),
        ([None, None], [None, None], "string"),
        ([1, True], ["1", "true"], "string"),
        (["a", 1, None], ['"a"', "1", None], "string"),
        ([1, 2**63], ["1", "9223372036854775808"], "string"),
        ([{"a": [1]}, "é"], ['{"a": [1]}', '"é"'], "string"),
        ([[], ["x"]], ["[]", '["x"]'], "string"),
    ],
)
def test_columns_keep_a_type_that_all_values_have(
    tmp_path: Path, values: list[Any], wanted: list[Any], kind: str
) -> None:
    read = own_columns(tmp_path, values)
    assert read == wanted
    assert [type(value) for value in read] == [type(value) for value in wanted]
    features = datasets.load_from_disk(tmp_path / "out.hf").features
    assert features["own"] == datasets.Value(kind)
    assert own_columns(tmp_path, values, "csv") == [as_csv(value) for value in wanted]
    as_they_are = [None if value is ... else value for value in values]
    assert own_columns(tmp_path, values, "jsonl") == as_they_are


@pytest.mark.parametrize("format", FORMATS)
def test_what_no_file_can_hold(tmp_path: Path, format: Format) -> None:
    """Half a surrogate pair and NaN, which only a row written by others has."""
    row = pool.to_row(chosen("x", {"flip": [0.0, 1.0]}, texts=["a", "cut \ud83c"]))
    row["columns"] = {"bad": nan, "deep": {"\ud83c": [nan, "\udc00"]}, "\ud83c": 1}
    source = tmp_path / "rows.jsonl"
    source.write_text(json.dumps(row) + "\n")
    (record,) = exported(source, format)
    deep = {"\ufffd": [None, "\ufffd"]}
    assert record["response"] == "cut \ufffd"
    assert record["deep"] == (deep if format == "jsonl" else json.dumps(deep, ensure_ascii=False))
    assert same(record["bad"] or None, None)
    assert int(record["\ufffd"]) == 1
    (pair,) = exported(source, format, keep="preference")
    assert "cut \ufffd" in str(pair["chosen"])


# --- targets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["jsonl", "parquet", "csv"])
def test_the_suffix_names_the_format(source: Path, tmp_path: Path, format: Format) -> None:
    target = tmp_path / "new" / "folder" / f"out.{format}"
    export(str(source), str(target))
    assert len(read_back(target, format)) == 8
    assert names_in(target.parent) == {target.name}


@pytest.mark.parametrize("name", ["out", "out.json", "out.hf", "out.jsonl.gz"])
def test_a_suffix_that_names_none(source: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{name}' does not say a format; .* \(--format\)"):
        export(source, tmp_path / name)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"keep": "worst"}, "keep is one of best, all, preference, sft, pool, not 'worst'"),
        ({"format": "xls"}, "format is one of jsonl, parquet, csv, hf, not 'xls'"),
        *(({"keep": "preference", "min_margin": n}, "min_margin") for n in (-1.0, nan, inf)),
        ({"min_margin": 0.5}, "for pairs .* not 0.5 for keep 'best'"),
    ],
)
def test_options_that_make_no_sense(source: Path, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        export(source, source.parent / "out.jsonl", **options)


@pytest.mark.parametrize("format", FORMATS)
def test_a_target_that_exists_is_replaced_only_on_demand(source: Path, format: Format) -> None:
    target = source.parent / "target"
    export(source, target, format=format, keep="all")
    with pytest.raises(ConfigError, match="exists; write to another place"):
        export(source, target, format=format)
    assert len(read_back(target, format)) == 15
    export(source, target, format=format, overwrite=True)
    assert len(read_back(target, format)) == 8
    assert names_in(source.parent) == {"rows.jsonl", "target"}


def test_only_a_dataset_is_replaced_by_a_dataset(source: Path, tmp_path: Path) -> None:
    folder, file = tmp_path / "precious", tmp_path / "file"
    folder.mkdir()
    os.mkfifo(tmp_path / "pipe")
    for precious in (folder / "thesis.txt", file):
        precious.write_text("x")
    for target, kind, match in (
        (folder, "jsonl", "is no regular file"),
        (folder, "hf", "is no folder of a dataset"),
        (file, "hf", "is no folder of a dataset"),
        (tmp_path / "pipe", "jsonl", "is no regular file"),
    ):
        with pytest.raises(ConfigError, match=match):
            export(source, target, format=kind, overwrite=True)
    assert (folder / "thesis.txt").read_text() == file.read_text() == "x"


def test_the_source_is_never_the_target(source: Path, tmp_path: Path) -> None:
    (tmp_path / "link.jsonl").symlink_to(source)
    (tmp_path / "dataset_info.json").write_text("{}")
    before = source.read_bytes()
    for target in (source, tmp_path / "link.jsonl", tmp_path / "new" / ".." / "rows.jsonl"):
        with pytest.raises(ConfigError, match="is what the rows are read from"):
            export(source, target, overwrite=True)
    with pytest.raises(ConfigError, match="is what the rows are read from"):
        export(source, tmp_path, format="hf", overwrite=True)
    assert source.read_bytes() == before


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("ending", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_what_ends_an_export_leaves_the_target_as_it_was(
    source: Path, monkeypatch: pytest.MonkeyPatch, format: Format, ending: BaseException
) -> None:
    target, records = source.parent / "target", Records.records

    def broken(self: Records, pools: Iterable[Pool]) -> Iterator[Record]:
        yield from islice(records(self, pools), 3)
        raise ending

    for there in ({"rows.jsonl"}, {"rows.jsonl", "target"}):
        with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, BestOfNError)):
            patch.setattr(Records, "records", broken)
            export(source, target, format=format, overwrite=True, keep="all")
        assert names_in(source.parent) == there
        export(source, target, format=format, overwrite=True)
    assert len(read_back(target, format)) == 8


# --- sources --------------------------------------------------------------------------------------


def test_a_last_line_that_is_being_written_is_left_out(source: Path, tmp_path: Path) -> None:
    whole = source.read_bytes()
    source.write_bytes(whole + whole.splitlines()[0][:50])
    assert export(source, tmp_path / "out.jsonl") == Exported(8, {"cut_off": 1})


def test_rows_that_come_meanwhile_wait_for_the_next_export(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    survey = Records.survey

    def growing(self: Records, pools: Iterable[Pool]) -> None:
        survey(self, pools)
        row = chosen("new", {"other": [0.0]}, {"new": 1})
        source.write_bytes(source.read_bytes() + f'{pool.dumps(row)}\n{{"id'.encode())

    monkeypatch.setattr(Records, "survey", growing)
    assert export(source, tmp_path / "out.jsonl") == Exported(8, {})
    assert "new" not in read_back(tmp_path / "out.jsonl", "jsonl")[0]


@pytest.mark.parametrize("line", [b'{"id": \n', b"{}\n", b'{"id": "x", "prompt": "y"}'])
def test_a_bad_row_is_named_and_nothing_is_written(
    source: Path, tmp_path: Path, line: bytes
) -> None:
    source.write_bytes(source.read_bytes() + line)
    with pytest.raises(ConfigError, match=r"rows\.jsonl, line 9: "):
        export(source, tmp_path / "out.jsonl")
    assert names_in(tmp_path) == {"rows.jsonl"}


def test_sources_without_rows(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "begun.jsonl").write_text('{"id": ')
    for name in ("empty", "begun"):
        with pytest.raises(ConfigError, match="holds no rows"):
            export(tmp_path / f"{name}.jsonl", tmp_path / "out.jsonl")
    for source in (tmp_path / "none.jsonl", tmp_path, Path("/dev/null")):
        with pytest.raises(ConfigError, match="is no file"):
            export(source, tmp_path / "out.jsonl")


@pytest.mark.parametrize(("format", "module"), [("parquet", "pyarrow"), ("hf", "datasets")])
def test_what_is_not_installed_is_named_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: Format, module: str
) -> None:
    monkeypatch.setattr(
        "bestofn.dataset.export.find_spec", lambda name: None if name == module else name
    )
    source = tmp_path / "bad.jsonl"
    source.write_text("bad\n")
    with pytest.raises(ConfigError, match=r"needs: pip install 'bestofn\[datasets\]'"):
        export(source, tmp_path / "out", format=format)
    with pytest.raises(ConfigError, match="not JSON"):
        export(source, tmp_path / "out", format="csv")
