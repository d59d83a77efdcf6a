"""Values that users' functions and rows have, and no row of ours can hold as they are."""

import json
from collections import deque
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fakes import Recorded, ScriptedEngine

from bestofn import BestOfN
from bestofn.dataset import select_dataset
from bestofn.dataset.sources import read_prompts
from bestofn.engines.base import Completion
from bestofn.errors import ConfigError
from bestofn.prompts import as_prompt, plain
from bestofn.rewards.baselines import Longest
from bestofn.store import pool
from bestofn.types import Candidate, Score, Selection, Usage


def selected(*responses: Any) -> Selection:
    """The selection among what a function returns, written and read."""
    best = BestOfN(lambda prompt, n: responses, Longest(), n=len(responses))
    selection = best.select("x")
    again = pool.loads(pool.dumps(selection))
    assert isinstance(again, Selection)
    assert again.candidates == selection.candidates
    return selection


@pytest.mark.parametrize("value", [nan, inf, np.float32(nan), np.float64(-inf), None])
def test_a_log_probability_that_is_no_number_is_unknown(value: Any) -> None:
    drawn = Candidate(
        0, "a", mean_logprob=value, sum_logprob=value, token_logprobs=[-1.0, value], seed=1
    )
    (candidate,) = selected(drawn).candidates
    assert (candidate.mean_logprob, candidate.sum_logprob, candidate.token_logprobs) == (None,) * 3
    assert candidate.seed == 1


def test_numbers_of_numpy_are_numbers() -> None:
    drawn: dict[str, Any] = {
        "token_count": np.int32(3),
        "mean_logprob": np.float32(-0.5),
        "seed": np.uint64(9),
        "token_ids": np.array([1, 2, 3]),
        "token_logprobs": np.array([-0.5, -0.5, -0.5], np.float32),
        "usage": Usage(generated_tokens=np.int64(3), seconds=np.float32(nan)),  # type: ignore[arg-type]
    }
    (candidate,) = selected(Candidate(7, str(np.str_("a")), **drawn)).candidates
    assert candidate == Candidate(
        0,
        "a",
        token_count=3,
        mean_logprob=-0.5,
        seed=9,
        token_ids=[1, 2, 3],
        token_logprobs=[-0.5, -0.5, -0.5],
        scores=candidate.scores,
        usage=Usage(generated_tokens=3),
    )
    assert type(candidate.mean_logprob) is float


def test_halves_of_characters_in_what_a_function_returns() -> None:
    first, second = selected("a \ud83d", Candidate(0, "b \udc00", reasoning="\ud83d")).candidates
    assert (first.text, second.text, second.reasoning) == ("a \ufffd", "b \ufffd", "\ufffd")


@pytest.mark.parametrize("fields", [{"text": None}, {"finish_reason": "eos"}, {"seed": "x"}])
def test_a_candidate_that_cannot_be_used_is_a_failed_one(fields: dict[str, Any]) -> None:
    broken = Candidate(**{"index": 0, "text": "long text", **fields})
    failed, fine = selected(broken, "a").candidates
    assert failed.finish_reason == "error"
    assert next(iter(fields)) in str(failed.error)
    assert fine.error is None


def test_an_engine_that_gives_minus_infinity() -> None:
    class Odd(ScriptedEngine):
        async def generate(self, *_: Any) -> Completion:
            return Completion("a \ud83d", None, "stop", [1, 2], [-0.5, -inf], Usage())

    selection = BestOfN(Odd(), Longest(), n=1, keep_tokens=True).select("x")
    (candidate,) = pool.loads(pool.dumps(selection)).candidates
    assert candidate.text == "a \ufffd"
    assert candidate.mean_logprob is None
    assert candidate.token_logprobs is None


def test_a_reward_that_gives_numbers_of_numpy() -> None:
    class Odd(Recorded):
        async def score(self, prompt: Any, candidates: Any) -> list[Score]:
            return [Score(np.float32(0.5)) for _ in candidates]  # type: ignore[arg-type]

    selection = BestOfN(lambda prompt, n: ["a"] * n, Odd(), n=2).select("x")
    assert json.loads(pool.dumps(selection))["candidates"][0]["scores"]["recorded"]["value"] == 0.5


class Colour(StrEnum):
    RED = "red"


class Thing:
    """Has no text of its own."""


@dataclass
class Point:
    x: int


COLUMNS: list[tuple[Any, Any]] = [
    (np.int64(3), 3),
    (np.float32(0.5), 0.5),
    (np.float64(nan), None),
    (np.bool_(True), True),
    (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
    (np.array([0.5, nan]), [0.5, None]),
    (np.array(7), 7),
    (np.array(["a", None], object), ["a", None]),
    (np.datetime64("2026-01-02"), "2026-01-02"),
    (pd.NA, None),
    (pd.NaT, None),
    (pd.Timestamp("2026-01-02"), "2026-01-02 00:00:00"),
    (pd.Series([1, 2]), [1, 2]),
    ({"b", "a", "c"}, ["a", "b", "c"]),
    (b"x", "b'x'"),
    ({1: {"\ud83d": "\udc00"}}, {"1": {"\ufffd": "\ufffd"}}),
    ((1, (2, nan)), [1, [2, None]]),
    (deque([1]), "deque([1])"),
    (date(2026, 1, 2), "2026-01-02"),
    (Colour.RED, "red"),
    (Point(1), "Point(x=1)"),
    (Thing(), f"<{__name__}.Thing object>"),  # the same text in every process
]


def test_columns_come_as_rows_can_hold_them(tmp_path: Path) -> None:
    columns = {f"column {place}": value for place, (value, _) in enumerate(COLUMNS)}
    expected = {f"column {place}": value for place, (_, value) in enumerate(COLUMNS)}
    assert plain(columns) == expected
    best = BestOfN(lambda prompt, n: ["a"] * n, Longest(), n=1)
    rows = [{"prompt": "x", **columns}, as_prompt("y", columns=columns)]
    for _ in range(2):
        assert select_dataset(rows, tmp_path / "out.jsonl", best, progress=False).rows == 2
    for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines():
        assert json.loads(line)["columns"] == expected
    # The sampler by itself hands columns on as they are, and they are written all the same.
    drawn = best.select(as_prompt("x", columns=columns))
    assert pool.loads(pool.dumps(drawn)).prompt.columns == expected


def test_rows_of_pandas() -> None:
    messages = [{"role": "user", "content": "Name 4 fruits."}]
    frame = pd.DataFrame({"messages": [np.array(messages, object)], "n": [np.int64(4)]})
    (prompt,) = read_prompts(frame.to_dict("records"))
    assert prompt.id == as_prompt("Name 4 fruits.").id
    assert prompt.columns == {"n": 4}


def test_a_template_takes_numbers_of_numpy_and_no_nulls_or_arrays() -> None:
    (prompt,) = read_prompts([{"n": np.int64(3)}], template="Count to {n}.")
    assert prompt.messages[0].content == "Count to 3."
    for value, what in ((np.float32(nan), "null"), (pd.NA, "null"), (np.array([1]), "list")):
        with pytest.raises(ConfigError, match=f"column 'n' is {what}"):
            read_prompts([{"n": value}], template="Count to {n}.")
