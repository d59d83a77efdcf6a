"""Rows of standard input, folders, datasets, the tiny world and Python; nothing is read ahead."""

import gzip
import io
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from row_files import ROWS, json_bytes, read_on, values, write_rows

from bestofn.dataset.sources import Row, count_rows, read_prompts, read_rows
from bestofn.errors import ConfigError
from bestofn.types import Message, Prompt


@pytest.fixture
def datasets(tmp_path: Path) -> Iterator[Any]:
    """The real package, with its cache in a temporary folder."""
    datasets = pytest.importorskip("datasets")
    before, datasets.config.HF_DATASETS_CACHE = datasets.config.HF_DATASETS_CACHE, tmp_path / ".c"
    yield datasets
    datasets.config.HF_DATASETS_CACHE = before


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_standard_input(monkeypatch: pytest.MonkeyPatch, pack: Any) -> None:
    content = io.BytesIO(pack(json_bytes(ROWS) + b"{\n"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(content))
    rows, (fault,) = read_on("-")
    assert [row.values for row in rows] == ROWS
    assert rows[0].where == "standard input, line 1"
    assert fault.startswith("standard input, line 5: not JSON")


# --- folders and datasets -------------------------------------------------------------------------


def test_a_folder_of_shards_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name, row in zip(("b.csv", "a.jsonl.zst", "d.parquet", "c.tsv"), ROWS, strict=True):
        write_rows(tmp_path / name, [row])
    for name in (".hidden.jsonl", "README.md", "dataset_infos.json", "b.csv.manifest.json"):
        (tmp_path / name).write_text("no rows")
    (tmp_path / "e.jsonl").mkdir()
    assert values(tmp_path) == [ROWS[1], ROWS[0], ROWS[3], ROWS[2]]
    assert next(read_rows(tmp_path)).where == f"{tmp_path / 'a.jsonl.zst'}, line 1"


def test_a_clone_of_the_hub(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_rows(tmp_path / "data" / "train-00000.parquet", ROWS[:2])
    write_rows(tmp_path / "data" / "train-00001.parquet", ROWS[2:])
    assert values(tmp_path) == ROWS
    assert count_rows(tmp_path) == 4


def test_a_saved_dataset(tmp_path: Path, datasets: Any) -> None:
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    rows = list(read_rows(tmp_path / "saved"))
    assert [row.values for row in rows] == ROWS
    assert rows[3].where == f"{tmp_path / 'saved'}, row 3"
    assert count_rows(tmp_path / "saved") is None


def test_of_several_splits_one_must_be_named(tmp_path: Path, datasets: Any) -> None:
    splits = {name: datasets.Dataset.from_list(ROWS) for name in ("train", "test")}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    with pytest.raises(ConfigError, match=r"has the splits train, test; name one, .*saved/SPLIT"):
        read_rows(tmp_path / "saved")
    assert values(tmp_path / "saved" / "test") == ROWS
    datasets.DatasetDict(test=splits["test"]).save_to_disk(tmp_path / "one")
    assert values(tmp_path / "one") == ROWS


@pytest.mark.parametrize(
    "files",
    [{"dataset_dict.json": "{"}, {"dataset_info.json": "{}", "state.json": "{"}],
)
@pytest.mark.usefixtures("datasets")
def test_a_saved_dataset_that_is_broken(tmp_path: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match="cannot be read: ") as caught:
        read_rows(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_data_set_by_its_package(tmp_path: Path, datasets: Any, streaming: bool) -> None:
    (tmp_path / "data").mkdir()
    write_rows(tmp_path / "data" / "test.jsonl", ROWS)
    for end in (":test", ":default:test"):
        assert values(f"hf:{tmp_path}/data{end}", streaming=streaming) == ROWS
    for data in (datasets.Dataset.from_list(ROWS), iter(ROWS)):
        assert values(data) == ROWS
    for end in (":nosplit", ":other:train"):
        with pytest.raises(ConfigError, match="cannot be read") as caught:
            read_rows(f"hf:{tmp_path}/data{end}", streaming=streaming)
        assert str(caught.value).count(f"hf:{tmp_path}/data{end}") == 1


@pytest.mark.parametrize(
    ("name", "reader"),
    [
        ("a.jsonl.zst", {"path": "json"}),
        ("a.parquet", {"path": "parquet"}),
        ("a.tsv.gz", {"path": "csv", "delimiter": "\t"}),
    ],
)
def test_one_file_of_the_hub_that_breaks_while_it_is_read(
    name: str, reader: dict[str, str], monkeypatch: pytest.MonkeyPatch, datasets: Any
) -> None:
    asked = {}

    def load_dataset(**arguments: Any) -> Iterator[dict[str, Any]]:
        asked.update(arguments)
        return broken()

    def broken() -> Iterator[dict[str, Any]]:
        yield ROWS[0]
        raise RuntimeError("the line\nwent dead")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = f"hf://datasets/someone/something/{name}"
    rows = read_rows(source, lambda _: None, streaming=True)
    assert asked == {**reader, "data_files": source, "split": "train", "streaming": True}
    assert next(rows).values == ROWS[0]
    with pytest.raises(ConfigError, match=f"{source} cannot be read: the line went dead"):
        next(rows)


def test_without_the_package_it_says_what_to_install(
    tmp_path: Path, datasets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    monkeypatch.setitem(sys.modules, "datasets", None)
    for source in (tmp_path / "saved", "hf:google/IFEval"):
        with pytest.raises(ConfigError, match="pip install"):
            read_rows(source)


# --- in Python ------------------------------------------------------------------------------------


def test_mappings_prompts_and_rows_in_any_iterable() -> None:
    turns = [Message("system", "Be brief."), {"role": "user", "content": "Hi."}]
    prompt = Prompt((Message("user", "b"),), "name", {"answer": 1})
    items = ["a", prompt, turns, {"question": "c"}, Row("elsewhere", {"prompt": "d"}), None, 3]
    rows, faults = read_on(iter(items))
    assert [row.values for row in rows] == [
        {"prompt": "a"},
        {"answer": 1, "prompt": prompt},
        {"prompt": turns},
        {"question": "c"},
        {"prompt": "d"},
    ]
    assert [row.where for row in rows] == ["row 0", "row 1", "row 2", "row 3", "elsewhere"]
    assert faults == [
        "row 5: a row is a mapping or a prompt, not NoneType",
        "row 6: a row is a mapping or a prompt, not int",
    ]


def test_what_is_no_iterable_of_rows_is_refused() -> None:
    pandas = pytest.importorskip("pandas")
    for source in ({"train": ROWS}, pandas.DataFrame(ROWS), 3):
        with pytest.raises(ConfigError, match=f"of rows .* not {type(source).__name__}"):
            list(read_rows(source))


def test_an_endless_iterable() -> None:
    rows = read_rows({"n": n} for n in itertools.count())
    assert [row.values["n"] for row in itertools.islice(rows, 3)] == [0, 1, 2]


# --- sources that are none ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("none.jsonl", "there is no file none.jsonl; prompts are a JSONL file"),
        ("none/none.gz", "there is no file none/none.gz"),
        ("tatsu-lab/alpaca_eval", "there is no file tatsu-lab/alpaca_eval; prompts are"),
        ("Count to 3. " * 100, "cannot be read"),
        ("hf:", "there is no file hf:"),
        (".", ". cannot be read: the folder holds no JSONL, CSV, TSV or Parquet file"),
        ("tiny:x", "'tiny:COUNT', not 'tiny:x'"),
        ("tiny:0", "'tiny:COUNT', not 'tiny:0'"),
        ("tiny:²", "'tiny:COUNT', not 'tiny:²'"),
        ("tiny", "there is no file tiny"),
        ("hf:a:b:c:d", "'hf:NAME[:CONFIG][:SPLIT]', not 'hf:a:b:c:d'"),
        ("hf:./nowhere", "hf:./nowhere cannot be read: "),
    ],
)
def test_a_source_that_is_none(
    source: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError) as caught:
        read_prompts(source)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
