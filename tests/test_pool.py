"""A selection survives JSON, and a bad row is named."""

import json
from math import nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bestofn import pool
from bestofn.errors import ConfigError
from bestofn.prompts import as_prompt
from bestofn.types import Candidate, Message, Prompt, Score, Selection, Usage

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
FLOAT = st.floats(allow_nan=False, allow_infinity=False)
USAGE = st.builds(Usage, *[st.integers(0, 9)] * 5, st.floats(0, 1e6))
SCORE = st.builds(
    Score, FLOAT, st.none() | TEXT, st.lists(TEXT, max_size=2), st.lists(TEXT, max_size=2), USAGE
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
    assert data["text"] == "a"
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
