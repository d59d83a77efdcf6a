"""Values that users' functions and rows have, and no row of ours can hold as they are."""

import json
from collections import deque
from collections.abc import Callable
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
from bestofn.engines.base import Completion, SamplingParams
from bestofn.errors import ConfigError
from bestofn.prompts import as_prompt, plain
from bestofn.rewards.baselines import Longest
from bestofn.store import pool
from bestofn.types import Candidate, Prompt, Score, Selection, Usage

# --- candidates of a function ---------------------------------------------------------------------


def selected(*responses: Any) -> Selection:
    """The selection among what a function returns, written and read."""
    best = BestOfN(lambda prompt, n: responses, Longest(), n=len(responses))
    selection = best.select("x")
    again = pool.loads(pool.dumps(selection))
    assert isinstance(again, Selection)
    assert again.candidates == selection.candidates
    return selection


@pytest.mark.parametrize("value", [nan, inf, -inf, np.float32(nan), np.float64(-inf), None])
def test_a_log_probability_that_is_no_number_is_unknown(value: Any) -> None:
    drawn = Candidate(
        0, "a", mean_logprob=value, sum_logprob=value, token_logprobs=[-1.0, value], seed=1
    )
    (candidate,) = selected(drawn).candidates
    assert (candidate.mean_logprob, candidate.sum_logprob, candidate.token_logprobs) == (None,) * 3
    assert candidate.seed == 1


def test_numbers_of_numpy_are_numbers() -> None:
    drawn = Candidate(
        np.int64(7),  # type: ignore[arg-type]
        str(np.str_("a")),
        token_count=np.int32(3),  # type: ignore[arg-type]
        mean_logprob=np.float32(-0.5),  # type: ignore[arg-type]
        sum_logprob=np.float64(-1.5),
        seed=np.uint64(9),  # type: ignore[arg-type]
        token_ids=np.array([1, 2, 3]),  # type: ignore[arg-type]
        token_logprobs=np.array([-0.5, -0.5, -0.5], np.float32),  # type: ignore[arg-type]
        usage=Usage(generated_tokens=np.int64(3), seconds=np.float32(nan)),  # type: ignore[arg-type]
    )
    (candidate,) = selected(drawn).candidates
    assert candidate == Candidate(
        0,
        "a",
        token_count=3,
        mean_logprob=-0.5,
        sum_logprob=-1.5,
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


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"text": None}, "text"),
        ({"finish_reason": "eos"}, "finish_reason"),
        ({"seed": "x"}, "seed"),
    ],
)
def test_a_candidate_that_cannot_be_used_is_a_failed_one(fields: dict[str, Any], word: str) -> None:
    broken, fine = selected(
        Candidate(**{"index": 0, "text": "long text", **fields}), "a"
    ).candidates
    assert broken.finish_reason == "error"
    assert word in str(broken.error)
    assert fine.error is None


def test_an_engine_that_gives_minus_infinity() -> None:
    class Odd(ScriptedEngine):
        async def generate(
            self, prompt: Prompt, params: SamplingParams, seed: int | None = None
        ) -> Completion:
            return Completion("a \ud83d", None, "stop", [1, 2], [-0.5, -inf], Usage())

    selection = BestOfN(Odd(), Longest(), n=1, keep_tokens=True).select("x")
    (candidate,) = pool.loads(pool.dumps(selection)).candidates
    assert (candidate.text, candidate.mean_logprob, candidate.token_logprobs) == (
        "a \ufffd",
        None,
        None,
    )


def test_a_reward_that_gives_numbers_of_numpy() -> None:
    class Odd(Recorded):
        async def score(self, prompt: Prompt, candidates: Any) -> list[Score]:
            return [Score(np.float32(0.5)) for _ in candidates]  # type: ignore[arg-type]

    selection = BestOfN(lambda prompt, n: ["a"] * n, Odd(), n=2).select("x")
    assert json.loads(pool.dumps(selection))["candidates"][0]["scores"]["recorded"]["value"] == 0.5


# --- columns --------------------------------------------------------------------------------------


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
    (np.str_("a"), "a"),
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
    (frozenset([3, 1]), [1, 3]),
    (b"x", "b'x'"),
    ({1: {"\ud83d": "\udc00"}}, {"1": {"\ufffd": "\ufffd"}}),
    ((1, (2, nan)), [1, [2, None]]),
    (deque([1]), "deque([1])"),
    (date(2026, 1, 2), "2026-01-02"),
    (Colour.RED, "red"),
    (Point(1), "Point(x=1)"),
    (1 + 2j, "(1+2j)"),
]


@pytest.mark.parametrize(
    ("value", "expected"), COLUMNS, ids=[type(value).__name__ for value, _ in COLUMNS]
)
@pytest.mark.parametrize("wrap", [lambda row: row, lambda row: as_prompt("x", columns=row)])
def test_columns_come_as_rows_can_hold_them(
    tmp_path: Path, value: Any, expected: Any, wrap: Callable[[Any], Any]
) -> None:
    row = wrap({"prompt": "x", "value": value})
    best = BestOfN(lambda prompt, n: ["a"] * n, Longest(), n=1)
    for _ in range(2):
        summary = select_dataset([row], tmp_path / "out.jsonl", best, progress=False)
    assert summary.rows == 1
    (line,) = (tmp_path / "out.jsonl").read_text("utf-8").splitlines()
    assert json.loads(line)["columns"]["value"] == expected
    # The sampler by itself hands columns on as they are, and they are written all the same.
    drawn = best.select(as_prompt("x", columns={"value": value}))
    assert pool.loads(pool.dumps(drawn)).prompt.columns["value"] == expected


def test_an_object_is_the_same_text_in_every_process() -> None:
    assert plain(Thing()) == f"<{__name__}.Thing object>"


def test_rows_of_pandas() -> None:
    messages = [{"role": "user", "content": "Name 4 fruits."}]
    frame = pd.DataFrame({"messages": [np.array(messages, object)], "n": [np.int64(4)]})
    (prompt,) = read_prompts(frame.to_dict("records"))
    assert prompt.id == as_prompt("Name 4 fruits.").id
    assert prompt.columns == {"n": 4}


@pytest.mark.parametrize("missing", [None, nan, pd.NA, pd.NaT, np.float32(nan)])
def test_a_template_names_a_column_that_is_null(missing: Any) -> None:
    with pytest.raises(ConfigError, match="row 0: column 'n' is null"):
        read_prompts([{"n": missing}], template="Count to {n}.")


def test_a_template_takes_numbers_of_numpy_and_refuses_arrays() -> None:
    (prompt,) = read_prompts([{"n": np.int64(3)}], template="Count to {n}.")
    assert prompt.messages[0].content == "Count to 3."
    with pytest.raises(ConfigError, match="column 'n' is list"):
        read_prompts([{"n": np.array([1, 2])}], template="Count to {n}.")
