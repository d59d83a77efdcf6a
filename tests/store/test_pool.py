"""A selection survives JSON, and a bad row is named."""

import gzip
import json
import tempfile
from math import isnan, nan
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bestofn.errors import ConfigError
from bestofn.prompts import as_prompt
from bestofn.store import pool
from bestofn.types import Candidate, Message, Pool, Prompt, Score, Selection, Usage

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
FLOAT = st.floats(allow_nan=False, allow_infinity=False)
USAGE = st.builds(Usage, *[st.integers(0, 9)] * 5, st.floats(0, 1e6))
SCORE = st.builds(
    Score,
    FLOAT,
    st.none() | TEXT,
    st.lists(TEXT, max_size=2),
    st.lists(TEXT, max_size=2),
    st.dictionaries(TEXT, st.integers(0, 9), max_size=2),
    USAGE,
) | st.builds(Score, reason=TEXT)
CANDIDATE = st.builds(
    Candidate,
    index=st.just(0),
    text=TEXT,
    reasoning=st.none() | TEXT,
    finish_reason=st.sampled_from(["stop", "length", "error"]),
    error=st.none() | TEXT,
    token_count=st.none() | st.integers(0, 9),
    mean_logprob=st.none() | FLOAT,
    sum_logprob=st.none() | FLOAT,
    seed=st.none() | st.integers(0, 2**63 - 1),
    token_ids=st.none() | st.lists(st.integers(0, 9), max_size=3),
    token_logprobs=st.none() | st.lists(FLOAT, max_size=3),
    scores=st.dictionaries(TEXT, SCORE, max_size=2),
    usage=USAGE,
)
MESSAGES = st.lists(
    st.builds(Message, st.sampled_from(["system", "user", "assistant"]), TEXT), max_size=2
).map(tuple)


@st.composite
def selections(draw: st.DrawFn) -> Selection:
    candidates = draw(st.lists(CANDIDATE, min_size=1, max_size=4))
    for index, candidate in enumerate(candidates):
        candidate.index = index
    reward = draw(TEXT)
    for candidate in candidates:
        candidate.scores.setdefault(reward, draw(SCORE))
    last = Message("user", draw(TEXT.filter(str.strip)))
    return Selection(
        Prompt((*draw(MESSAGES), last), draw(TEXT.filter(bool))),
        candidates,
        draw(st.integers(0, len(candidates) - 1)),
        reward,
        draw(st.booleans()),
        draw(st.booleans()),
        draw(USAGE),
    )


@given(selections())
def test_round_trip_is_lossless(selection: Selection) -> None:
    line = pool.dumps(selection)
    assert "\n" not in line
    # NaN is not equal to itself, so the comparison is by representation.
    assert repr(pool.loads(line)) == repr(selection)


def row() -> dict[str, object]:
    candidates = [
        Candidate(0, "a", scores={"flip": Score(0.5, inferred=["x"])}),
        Candidate(1, "b", scores={"flip": Score(nan, "no JSON")}),
    ]
    return pool.to_row(Selection(as_prompt("Hello."), candidates, 0, "flip"))


def test_a_row_is_strict_json_with_null_for_failures() -> None:
    text = json.dumps(row(), allow_nan=False)
    data = json.loads(text)
    assert data["response"] == "a"
    assert data["prompt"] == "Hello."
    assert data["candidates"][1]["scores"]["flip"]["value"] is None
    assert data["candidates"][1]["scores"]["flip"]["reason"] == "no JSON"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"prompt": None}, "not NoneType"),
        ({"candidates": []}, "empty"),
        ({"candidates": "x"}, "candidates"),
        ({"candidates": [{"index": 0}]}, r"candidates\.0\.text"),
        ({"candidates": [{"index": 1, "text": "a"}]}, "numbered from 0"),
        ({"candidates": [{"index": 0, "text": "a"}]}, "no score named 'flip'"),
        ({"tie": "no"}, "tie"),
        ({"id": 7}, "id"),
        ({"candidates": [{"index": 0, "text": "a", "seed": "x"}]}, "seed"),
        ({"index": 5}, "none of its candidates"),
        ({"usage": {"seconds": "long"}}, "seconds"),
    ],
)
def test_a_bad_field_is_named(change: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        pool.from_row(row() | change)


@pytest.mark.parametrize("field", ["prompt", "id", "candidates", "index", "reward"])
def test_a_missing_field_is_named(field: str) -> None:
    data = row()
    del data[field]
    with pytest.raises(ConfigError, match=field):
        pool.from_row(data)


@pytest.mark.parametrize("line", ["", "{", "[1]", "3"])
def test_a_line_that_is_no_row(line: str) -> None:
    with pytest.raises(ConfigError, match="JSON"):
        pool.loads(line)


# --- files ----------------------------------------------------------------------------------------


def good(name: str) -> bytes:
    candidates = [Candidate(0, "a", scores={"flip": Score(0.5)}), Candidate(1, "b")]
    return pool.dumps(Pool(as_prompt(f"What is {name}?", name), candidates)).encode() + b"\n"


def changed(**fields: Any) -> bytes:
    return json.dumps(json.loads(good("c")) | fields).encode() + b"\n"


def missing(field: str) -> bytes:
    return json.dumps({k: v for k, v in json.loads(good("c")).items() if k != field}).encode()


BAD_ROWS = [
    (b"{\"id\": \n", "not JSON"),
    (b"[1, 2]\n", "JSON object, not list"),
    (b"\xff\xfe{}\n", "not JSON"),
    (good("c").replace(b'"b"', b'"\xe9"'), "not JSON"),
    (b"[" * 100_000 + b"\n", "not JSON"),
    (good("a"), "id 'a' is in line 1 already"),
    (changed(candidates=[]), "'candidates' is empty"),
    (changed(candidates=None), "'candidates' is wrong"),
    (changed(candidates=[{"index": 0, "text": "x", "scores": {"flip": {"value": "high"}}}]),
     "'candidates.0.scores.flip.value' is wrong"),
    (changed(candidates=[{"index": 0, "text": "x", "mean_logprob": nan}]),
     "'candidates.0.mean_logprob' must be finite"),
    (changed(candidates=[{"index": 0, "text": "x"}, {"index": 0, "text": "x"}]), "numbered from 0"),
    (changed(id=3), "'id' must be text"),
    (changed(prompt="  "), "the prompt is empty"),
    (changed(prompt=[{"role": "robot", "content": "x"}]), "'robot'"),
    (changed(columns=[1]), "'columns' is wrong"),
    (changed(seconds={"sample": "long"}), "'seconds.sample' is wrong"),
    (changed(index=0), "'reward' is wrong"),
    *((missing(field), f"no field '{field}'") for field in ("id", "prompt", "candidates")),
]  # fmt: skip


@pytest.fixture(params=BAD_ROWS, ids=[str(number) for number in range(len(BAD_ROWS))])
def bad_file(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """A file whose third row, in line 4 because line 2 is blank, cannot be used."""
    line, match = request.param
    path = tmp_path / "pool.jsonl"
    line = line.rstrip(b"\n") + b"\n"
    path.write_bytes(good("a") + b" \n" + good("b") + line + good("d"))
    return path, match


def test_a_bad_row_is_named_by_file_line_and_field(bad_file: tuple[Path, str]) -> None:
    path, match = bad_file
    with pytest.raises(ConfigError) as caught:
        list(pool.read(path))
    assert str(caught.value).startswith(f"{path}, line 4: ")
    assert match in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_rows_are_told_and_the_good_ones_come(bad_file: tuple[Path, str]) -> None:
    path, match = bad_file
    told: list[ConfigError] = []
    assert [row.prompt.id for row in pool.read(path, told.append)] == ["a", "b", "d"]
    assert len(told) == 1
    assert match in str(told[0])


@given(st.lists(st.sampled_from([good("a"), good("b"), b"\n", b"  \t\n", b"{\n", b"{}\n"])))
def test_every_line_is_a_row_or_told_or_blank(lines: list[bytes]) -> None:
    # `tmp_path` is made for a test, not for each example of it.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pool.jsonl"
        path.write_bytes(b"".join(lines))
        told: list[ConfigError] = []
        rows = list(pool.read(path, told.append))
    assert len(rows) + len(told) == sum(bool(line.strip()) for line in lines)


def test_a_last_line_that_is_cut_off_says_so(tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl"
    path.write_bytes(good("a") + good("b")[:-20])
    told: list[ConfigError] = []
    assert len(list(pool.read(path, told.append))) == 1
    assert str(told[0]).startswith(f"{path}, line 2: the last line is cut off")


def test_a_last_line_without_its_line_break_is_a_row(tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl"
    path.write_bytes(good("a") + good("b").rstrip())
    assert len(list(pool.read(path))) == 2


@pytest.mark.parametrize(
    ("value", "reason"),
    [("NaN", "nan"), ("Infinity", "inf"), ("-Infinity", "-inf"), ("1e999", "inf"), ("null", None)],
)
def test_scores_that_are_no_numbers_have_failed(
    tmp_path: Path, value: str, reason: str | None
) -> None:
    path = tmp_path / "pool.jsonl"
    path.write_bytes(good("a").replace(b"0.5", value.encode()))
    (row,) = pool.read(path)
    score = row.candidates[0].scores["flip"]
    assert isnan(score.value)
    wanted = reason and f"the pool says {reason}, which is no finite number"
    assert score.reason == wanted


def test_a_gzipped_file(tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl.gz"
    path.write_bytes(gzip.compress(good("a") + good("b")))
    assert [row.prompt.id for row in pool.read(path)] == ["a", "b"]


@pytest.mark.parametrize(
    "content",
    [
        good("a"),
        gzip.compress(good("a") * 50)[:-20],
        gzip.compress(good("a"))[:12] + b"\xff" * 200,
    ],
    ids=["plain", "cut", "corrupt"],
)
def test_a_gzipped_file_that_is_broken(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pool.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read"):
        list(pool.read(path, lambda _: None))


@pytest.mark.parametrize("name", ["none.jsonl", "."])
def test_a_file_that_cannot_be_opened(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        list(pool.read(tmp_path / name))


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "pool.jsonl").write_bytes(b"")
    assert list(pool.read(tmp_path / "pool.jsonl")) == []


def test_a_pool_without_a_choice_round_trips() -> None:
    prompt = as_prompt("Add.", "one", {"answer": 5, "tags": ["x", None]})
    before = Pool(prompt, [Candidate(0, "5")], seconds={"sample": 0.5, "flip": 0.25})
    after = pool.loads(pool.dumps(before))
    assert type(after) is Pool
    assert repr(after) == repr(before)


def test_a_row_without_candidates_says_why(tmp_path: Path) -> None:
    failed = Selection(as_prompt("x"), [], index=0, reward="flip", error="it does not fit")
    line = pool.dumps(failed)
    assert pool.loads(line) == failed
    assert json.loads(line)["response"] == ""
    path = tmp_path / "pool.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(ConfigError, match="line 1: the row has no candidates: it does not fit"):
        list(pool.read(path))


def test_columns_that_are_no_numbers_are_null(tmp_path: Path) -> None:
    line = '{"id": "a", "prompt": "x", "columns": {"n": NaN, "m": [Infinity]}, "candidates": [%s]}'
    (tmp_path / "pool.jsonl").write_text(line % '{"index": 0, "text": "a"}' + "\n")
    (row,) = pool.read(tmp_path / "pool.jsonl")
    assert row.prompt.columns == {"n": None, "m": [None]}
    assert pool.loads(pool.dumps(row)) == row


def test_seconds_that_are_no_numbers_are_named() -> None:
    with pytest.raises(ConfigError, match=r"field 'seconds.flip' is wrong"):
        pool.loads(
            '{"id": "a", "prompt": "x", "candidates": [{"index": 0, "text": "a"}], '
            '"seconds": {"flip": NaN}}'
        )


# --- files that grow ------------------------------------------------------------------------------


def streamed(path: Path) -> tuple[list[str], list[str]]:
    """The ids of a file's rows, and what is told of a last line that is cut off."""
    told: list[ConfigError] = []
    return [row.prompt.id for row in pool.stream(path, told.append)], [*map(str, told)]


def test_a_stream_has_every_row_and_leaves_out_a_last_line_that_is_cut_off(tmp_path: Path) -> None:
    failed = Selection(as_prompt("x", "failed"), [], index=0, reward="flip", error="it broke")
    path = tmp_path / "pool.jsonl"
    whole = good("a") + pool.dumps(failed).encode() + b"\n" + good("a")
    path.write_bytes(whole)
    assert streamed(path) == (["a", "failed", "a"], [])
    last = good("é")
    for end in (1, 2, 30, last.index("é".encode()) + 1, len(last) - 2):
        path.write_bytes(whole + last[:end])
        names, (told,) = streamed(path)
        assert names == ["a", "failed", "a"]
        assert told.startswith(f"{path}, line 4: the last line is cut off")
    path.write_bytes(whole + last.rstrip())
    assert streamed(path) == (["a", "failed", "a", "é"], [])


@pytest.mark.parametrize("line", [b"{\n", b"{}", b"[1]\n", good("b")[:-9] + b"\n"])
def test_any_other_bad_row_ends_a_stream(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "pool.jsonl"
    path.write_bytes(good("a") + line)
    with pytest.raises(ConfigError, match=r"pool\.jsonl, line 2: "):
        streamed(path)
