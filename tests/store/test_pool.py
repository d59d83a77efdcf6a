"""A selection survives JSON, and a bad row is named."""

import json
from math import isnan, nan
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from bestofn.cli import app
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
    reward = draw(TEXT)
    for index, candidate in enumerate(candidates):
        candidate.index = index
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


@pytest.mark.parametrize(
    "before",
    [
        Pool(
            as_prompt("Add.", "one", {"answer": 5, "tags": ["x", None]}),
            [Candidate(0, "5")],
            seconds={"sample": 0.5, "flip": 0.25},
        ),
        Selection(as_prompt("x"), [], index=0, reward="flip", error="it does not fit"),
    ],
)
def test_pools_without_a_choice_and_selections_without_candidates(before: Pool) -> None:
    assert repr(pool.loads(pool.dumps(before))) == repr(before)


def test_a_row_is_strict_json_with_null_for_failures() -> None:
    candidates = [
        Candidate(0, "a", scores={"flip": Score(0.5, inferred=["x"])}),
        Candidate(1, "b", scores={"flip": Score(nan, "no JSON")}),
    ]
    row = pool.to_row(Selection(as_prompt("Hello."), candidates, 0, "flip"))
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    assert (row["prompt"], row["response"]) == ("Hello.", "a")
    assert row["candidates"][1]["scores"]["flip"] == {"value": None, "reason": "no JSON"}


# --- files ----------------------------------------------------------------------------------------


def good(name: str) -> bytes:
    candidates = [Candidate(0, "a", scores={"flip": Score(0.5)}), Candidate(1, "b")]
    return pool.dumps(Pool(as_prompt(f"What is {name}?", name), candidates)).encode() + b"\n"


def changed(**fields: Any) -> bytes:
    return json.dumps(json.loads(good("c")) | fields).encode() + b"\n"


def candidate(**fields: Any) -> bytes:
    return changed(candidates=[{"index": 0, "text": "x"} | fields])


def missing(field: str) -> bytes:
    return json.dumps({k: v for k, v in json.loads(good("c")).items() if k != field}).encode()


def by_hand(*responses: Any, **fields: Any) -> bytes:
    return json.dumps({"prompt": "x", "responses": responses} | fields).encode()


BAD_ROWS = [
    (b"{\"id\": \n", "not JSON"),
    (b"[1, 2]\n", "JSON object, not list"),
    (good("c").replace(b'"b"', b'"\xe9"'), "not JSON"),
    (b"[" * 100_000 + b"\n", "not JSON"),
    (good("a"), "id 'a' is in line 1 already"),
    (changed(candidates=[]), "'candidates' is empty"),
    (changed(candidates=None), "'candidates' is wrong"),
    (candidate(scores={"flip": {"value": "high"}}), "'candidates.0.scores.flip.value' is wrong"),
    (candidate(mean_logprob="x"), "'candidates.0.mean_logprob' is wrong"),
    (candidate(seed="x"), "'candidates.0.seed' is wrong"),
    (candidate(text=None), "'candidates.0.text' is wrong"),
    (candidate(index=1), "numbered from 0"),
    (changed(id=3), "'id' is wrong"),
    (changed(prompt="  "), "the prompt is empty"),
    (changed(prompt=[{"role": "robot", "content": "x"}]), "'robot'"),
    (changed(columns=[1]), "'columns' is wrong"),
    (changed(seconds={"sample": nan}), "'seconds.sample' is wrong"),
    (changed(index=0), "no field 'reward'"),
    (changed(index=5, reward="flip"), "none of its candidates"),
    (changed(index=0, reward="flip", usage={"seconds": "long"}), "'usage.seconds' is wrong"),
    (pool.dumps(Selection(as_prompt("x"), [], 0, "flip", error="it broke")).encode(),
     "no candidates: it broke"),
    *((missing(field), f"no field '{field}'") for field in ("id", "prompt", "candidates")),
    (b'{"responses": ["a"]}', "no field 'prompt'"),
    (by_hand("a", columns=[1]), "'columns' must be an object"),
    (by_hand(), "'responses' must be a list of at least one response"),
    (by_hand("a", 3), "'responses.1' is wrong: a response is a text"),
    (by_hand({"text": 3}), "text' is wrong: Input should be a valid"),
    (by_hand([{"role": "user", "content": "a"}]), "of the assistant"),
    (by_hand("a", prompt=" "), "the prompt is empty"),
    (by_hand("a", id=1.5), "'id' is wrong"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "match"), BAD_ROWS, ids=range(len(BAD_ROWS)))
def test_a_bad_row_is_named_by_file_line_and_field(tmp_path: Path, line: bytes, match: str) -> None:
    path = tmp_path / "pool.jsonl"
    path.write_bytes(good("a") + b" \n" + good("b") + line.rstrip(b"\n") + b"\n" + good("d"))
    with pytest.raises(ConfigError) as caught:
        list(pool.read(path))
    assert str(caught.value).startswith(f"{path}, line 4: ")
    assert match in str(caught.value)
    assert "\n" not in str(caught.value)
    told: list[ConfigError] = []
    assert [row.prompt.id for row in pool.read(path, told.append)] == ["a", "b", "d"]
    assert [*map(str, told)] == [str(caught.value)]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "null"])
def test_what_is_no_number_has_failed_or_is_unknown(value: str) -> None:
    line = '{"id": "a", "prompt": "x", "columns": {"n": [%s]}, "candidates": [{"index": 0, '
    line += '"text": "a", "mean_logprob": %s, "scores": {"flip": {"value": %s}}}]}'
    row = pool.loads(line % (value, value, value))
    (drawn,) = row.candidates
    assert isnan(drawn.scores["flip"].value)
    assert drawn.scores["flip"].reason == "the row has no value"
    assert (drawn.mean_logprob, row.prompt.columns) == (None, {"n": [None]})


@pytest.mark.parametrize("name", ["none.jsonl", "."])
def test_a_file_that_cannot_be_opened(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        list(pool.read(tmp_path / name))


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
    for end in (1, 30, last.index("é".encode()) + 1, len(last) - 2):
        path.write_bytes(whole + last[:end])
        names, (told,) = streamed(path)
        assert names == ["a", "failed", "a"]
        assert told.startswith(f"{path}, line 4: the last line is cut off")
    path.write_bytes(whole + last.rstrip())
    assert streamed(path) == (["a", "failed", "a", "é"], [])
    path.write_bytes(good("a") + good("b")[:-9] + b"\n")
    with pytest.raises(ConfigError, match=r"pool\.jsonl, line 2: "):
        streamed(path)


# --- rows made by hand ----------------------------------------------------------------------------

ROWS: list[dict[str, Any]] = [
    {"prompt": "Name 4 fruits.", "responses": ["apple, pear", "fig"], "answer": "fig"},
    {
        "id": 7,
        "prompt": [{"role": "user", "content": [{"type": "text", "text": "Say x."}]}],
        "responses": [
            {"text": "x", "token_count": 3, "model": "m"},
            [{"role": "assistant", "content": "y"}],
            [{"type": "text", "text": "z"}],
        ],
        "columns": {"answer": "x"},
    },
]


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def bestofn(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_prompt_and_responses_are_a_pool(mine: Path) -> None:
    first, second = pool.read(mine)
    assert first.prompt == as_prompt("Name 4 fruits.")
    assert first.prompt.columns == second.prompt.columns | {"answer": "fig"}
    assert [(c.index, c.text) for c in first.candidates] == [(0, "apple, pear"), (1, "fig")]
    assert (second.prompt.id, second.prompt.messages[0].content) == ("7", "Say x.")
    assert [c.text for c in second.candidates] == ["x", "y", "z"]
    assert second.candidates[0].token_count == 3


def test_it_is_scored_by_a_named_engine_and_resumed(mine: Path) -> None:
    before = mine.read_bytes()
    refused = bestofn("score", mine, "--reward", "flip")
    assert refused.exit_code == 2
    assert "give --engine" in refused.output
    score = ["score", mine, "--reward", "flip", "--engine", "tiny"]
    assert "already" not in bestofn(*score).output
    assert "already" in bestofn(*score).output
    assert bestofn("score", mine, "--reward", "gold", "--verifier", "exact:answer").exit_code == 0
    gold = [[c.scores["gold"].value for c in row.candidates] for row in pool.read(mine)]
    assert gold == [[0, 1], [1, 0, 0]]
    assert all("flip" in c.scores for row in pool.read(mine) for c in row.candidates)
    assert mine.read_bytes() == before


def test_it_is_scored_into_another_file(mine: Path, tmp_path: Path) -> None:
    for _ in range(2):
        score = ["score", mine, "-o", tmp_path / "s.jsonl", "--reward", "longest"]
        assert bestofn(*score).exit_code == 0
    assert bestofn("export", tmp_path / "s.jsonl", "-o", tmp_path / "best.csv").exit_code == 0
    assert "apple, pear" in (tmp_path / "best.csv").read_text()
