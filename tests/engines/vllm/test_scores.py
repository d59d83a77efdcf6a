"""What is read from a scoring request's result, in the forms that vLLM's runners give it."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from serving import require_vllm

require_vllm()

import vllm  # noqa: E402

from bestofn.engines.vllm import versions  # noqa: E402
from bestofn.engines.vllm.versions import read_scores, scoring_usage  # noqa: E402

PREFIX = 40
IDS = (7, 8, 9)
VALUES = [-1.0, -2.0, -3.0]
STALE = 1e6  # what a row holds that was never computed


def flat(ids: list[int], values: list[float]) -> Any:
    """As `vllm.logprobs.FlatLogprobs`: the first position has no entry."""
    from vllm.logprobs import FlatLogprobs

    found = FlatLogprobs()
    found.append(None)
    for token, value in zip(ids, values, strict=True):
        found.append_fast([token], [value], iter([1]), [None])  # type: ignore[arg-type]
    return found


def result(rows: Any, *, cached: int | None = 32, preemptions: int | None = 0, **more: Any) -> Any:
    metrics = None if preemptions is None else SimpleNamespace(num_preemptions=preemptions)
    fields = {"prompt_logprobs": rows, "prompt_token_id_logprobs": None} | more
    return SimpleNamespace(num_cached_tokens=cached, metrics=metrics, **fields)


def full(values: list[float] = VALUES, ids: tuple[int, ...] = IDS) -> Any:
    """V1: one row for each prompt token but the first, stale ones where the cache was read."""
    return flat([*range(100, 100 + PREFIX - 1), *ids], [STALE] * (PREFIX - 1) + values)


def short(values: list[float] = VALUES, ids: tuple[int, ...] = IDS, cached: int = 32) -> Any:
    """V2: rows for the computed positions alone, so that absolute places are wrong."""
    computed = PREFIX - 1 - cached
    return flat([*range(100, 100 + computed), *ids], [-9.0] * computed + values)


def fixed(values: list[float]) -> dict[str, Any]:
    return {"prompt_token_id_logprobs": np.array(values, dtype=np.float32)[:, None]}


@pytest.mark.parametrize(
    "output",
    [
        result(full()),
        result(short()),
        result(short(cached=PREFIX - 1), cached=PREFIX - 1),  # the most that may be cached
        result(None, **fixed(VALUES)),
    ],
)
def test_every_form_gives_the_same_scores(output: Any) -> None:
    assert read_scores(output, PREFIX, IDS) == VALUES


@pytest.mark.parametrize("cache_was_read", [True, False])
@pytest.mark.parametrize(
    "output",
    [
        *(
            result(rows(), cached=cached)  # the logits of the first scored token were not computed
            for rows in (full, short)
            for cached in (PREFIX, PREFIX + 2, None)
        ),
        result(None),  # dropped, as the cache covered them
        result(None, **fixed(VALUES[1:])),
        result(flat([8, 9], VALUES[1:])),  # one row is missing
        result(full(ids=(7, 8, 10))),  # other tokens
        result(full(values=[-1.0, math.nan, -3.0])),
        result(full(values=[-1.0, -math.inf, -3.0])),
    ],
)
def test_any_doubt_gives_nothing(output: Any, cache_was_read: bool) -> None:
    assert read_scores(output, PREFIX, IDS, cache_was_read=cache_was_read) is None


@pytest.mark.parametrize("rows", [full, short])
@pytest.mark.parametrize("preemptions", [1, None])
def test_a_request_that_lost_its_place(rows: Any, preemptions: int | None) -> None:
    """The cache may have grown over the scored positions since; or nobody counted."""
    output = result(rows(), preemptions=preemptions)
    assert read_scores(output, PREFIX, IDS) is None
    assert read_scores(output, PREFIX, IDS, cache_was_read=False) == VALUES


def request(tokens: int, cached: int) -> Any:
    return SimpleNamespace(prompt_token_ids=[0] * tokens, num_cached_tokens=cached)


def test_usage_is_the_engines() -> None:
    # 32 of 40 tokens filled before, of which 16 were there; then 8 + 3 computed.
    usage = scoring_usage([request(32, 16), request(43, 32)], 40, 3)
    assert (usage.cached_tokens, usage.scored_tokens, usage.repeated_tokens) == (16, 3, 0)
    assert usage.computed_tokens == 16 + 11
    # The same, scored again without the cache.
    usage = scoring_usage([request(32, 16), request(43, 32), request(43, 0)], 40, 3)
    assert usage.computed_tokens == 16 + 11 + 43
    assert usage.repeated_tokens == 43


@pytest.mark.parametrize("v2", [True, False])
def test_scoring_by_fixed_ids_where_the_runner_has_it(
    v2: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SimpleNamespace(use_v2_model_runner=v2)
    has_rows = tuple(map(int, vllm.__version__.split(".")[:2])) >= (0, 32)
    assert versions.scores_fixed_ids(config) == (has_rows and v2)
    params = versions.scoring_params(PREFIX, IDS, read_cache=True, fixed_ids=True)
    assert params.prompt_logprob_start == PREFIX - 1
    assert [list(row) for row in params.prompt_logprob_token_ids] == [[7], [8], [9]]
    assert params.skip_reading_prefix_cache is False
    # The option of that name in 0.31 is another one.
    of_031 = SimpleNamespace(__annotations__={"prompt_logprob_token_ids": list[int] | None})
    monkeypatch.setattr(versions, "SamplingParams", of_031)
    assert not versions.scores_fixed_ids(config)
