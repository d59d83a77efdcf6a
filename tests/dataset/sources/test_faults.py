"""Every way in which a row can be wrong: named by its place, and the others are read on."""

from pathlib import Path
from typing import Any

import pytest
from faulty_rows import COLUMNS, JSON_FAULTS, LAST, ROWS, row, write_faulty
from row_files import write_rows

from bestofn.dataset.sources import iter_prompts
from bestofn.errors import ConfigError


@pytest.mark.parametrize("kind", [*JSON_FAULTS, "cut off"])
def test_the_first_bad_row_is_an_error(tmp_path: Path, kind: str) -> None:
    line, sentence = {**JSON_FAULTS, "cut off": LAST}[kind]
    path = tmp_path / "p.jsonl"
    after = b"" if kind == "cut off" else b"\n" + row(id="c") + b"\n"
    path.write_bytes(row(id="b") + b"\n\n" + line + after)
    prompts = iter_prompts(path, **COLUMNS)
    assert next(prompts).id == "b"
    with pytest.raises(ConfigError) as caught:
        next(prompts)
    assert str(caught.value).startswith(f"{path}, line 3: ")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_every_bad_row_of_a_large_file_is_named_and_the_others_come(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    bad = write_faulty(path)
    faults: list[ConfigError] = []
    prompts = list(iter_prompts(path, bad_row=faults.append, **COLUMNS))
    assert [int(prompt.id) for prompt in prompts] == [n for n in range(1, ROWS + 1) if n not in bad]
    assert (len(bad), len(faults), len(prompts)) == (60, 60, 940)
    for fault, (line, sentence) in zip(faults, bad.items(), strict=True):
        assert str(fault).startswith(f"{path}, line {line}: ")
        assert sentence in str(fault)


CSV_FAULTS = {
    b"one": "1 cell, but the header has 2",
    b"a,b,c": "3 cells, but the header has 2",
    b"b\xe9,x": "not UTF-8",
    b',"x"': "column 'id': the id is empty",
    b"b,": "column 'prompt': the prompt is empty",
    b'b," "': "column 'prompt': the prompt is empty",
    b'b,"a "quote" in it"': "not CSV",
}


def test_every_bad_row_of_a_large_table_is_named_and_the_others_come(tmp_path: Path) -> None:
    kinds = list(CSV_FAULTS.items())
    lines, bad, good = [b"id,prompt"], {}, []
    for n in range(ROWS):
        # Rows of two lines each, so that rows and lines are counted apart.
        number = 2 * n + 2 - len(bad)
        if n % 16 == 15 and len(bad) < 60:
            line, bad[number] = kinds[len(bad) % len(kinds)]
            lines.append(line)
        else:
            good.append(str(number))
            lines.append(b'%d,"Count\nto %d."' % (number, n))
    path = tmp_path / "p.csv"
    path.write_bytes(b"\n".join(lines))
    faults: list[ConfigError] = []
    prompts = list(iter_prompts(path, id_column="id", bad_row=faults.append))
    assert [prompt.id for prompt in prompts] == good
    assert (len(faults), len(prompts)) == (60, 940)
    for fault, (line, sentence) in zip(faults, bad.items(), strict=True):
        assert str(fault).startswith(f"{path}, line {line}: {sentence}")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "no column 'a'; the row has none"),
        ({"b": 1}, "no column 'a'; the row has 'b'"),
        ({"a": None}, "column 'a' is null; the template needs a text or a number"),
        ({"a": float("nan")}, "column 'a' is null"),
        ({"a": [1]}, "column 'a' is list; the template needs a text or a number"),
        ({"a": True}, "column 'a' is bool"),
        ({"a": " "}, "the template: the prompt is empty"),
    ],
)
def test_a_row_that_does_not_fit_the_template(values: dict[str, Any], sentence: str) -> None:
    faults: list[ConfigError] = []
    prompts = iter_prompts([{"a": "x"}, values, {"a": 3}], template="{a}", bad_row=faults.append)
    assert [prompt.messages[-1].content for prompt in prompts] == ["x", "3"]
    assert len(faults) == 1
    assert str(faults[0]).startswith(f"row 1: {sentence}")


def test_a_bad_row_of_a_parquet_file_is_named_by_its_number(tmp_path: Path) -> None:
    rows = [{"prompt": prompt} for prompt in ["a", None, "", "b"] * 200]
    path = write_rows(tmp_path / "p.parquet", rows)
    faults: list[ConfigError] = []
    assert len(list(iter_prompts(path, bad_row=faults.append))) == 400
    assert len(faults) == 400
    assert str(faults[-2]).startswith(f"{path}, row 797: column 'prompt': a prompt is a string")
    assert str(faults[-1]).startswith(f"{path}, row 798: column 'prompt': the prompt is empty")


def test_rows_that_no_recursion_gets_to_the_end_of() -> None:
    deep: list[Any] = []
    for _ in range(50_000):
        deep = [deep]
    faults: list[ConfigError] = []
    list(iter_prompts([{"prompt": [deep]}, {"prompt": "a", "b": deep}], bad_row=faults.append))
    assert [str(fault) for fault in faults] == [
        "row 0: it is nested too deeply",
        "row 1: a column is nested more than 100 levels deep",
    ]


def test_what_the_receiver_raises_ends_the_reading() -> None:
    def stop(fault: ConfigError) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        list(iter_prompts(["", "a"], bad_row=stop))
