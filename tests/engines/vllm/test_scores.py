"""What is read from a scoring request's result, in the forms that vLLM's runners give it."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import require_vllm

require_vllm()

import vllm  # noqa: E402

from bestofn.engines.vllm import versions  # noqa: E402
from bestofn.engines.vllm.scores import read_scores, scoring_usage  # noqa: E402

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


def test_full_and_short_lists_give_the_same_scores() -> None:
    assert read_scores(result(full()), PREFIX, IDS) == VALUES
    assert read_scores(result(short()), PREFIX, IDS) == VALUES


def test_rows_of_fixed_ids() -> None:
    import numpy as np

    rows = np.array([[value] for value in VALUES], dtype=np.float32)
    fixed = result(None, prompt_token_id_logprobs=rows)
    assert read_scores(fixed, PREFIX, IDS) == VALUES
    assert read_scores(result(None), PREFIX, IDS) is None  # dropped, as the cache covered them
    assert read_scores(result(None, prompt_token_id_logprobs=rows[1:]), PREFIX, IDS) is None


@pytest.mark.parametrize("rows", [full, short])
@pytest.mark.parametrize(
    "doubt",
    [
        {"cached": PREFIX},  # the logits of the first scored token were not computed
        {"cached": PREFIX + 2},
        {"cached": None},
        {"preemptions": 1},  # the cache may have grown over the scored positions since
        {"preemptions": None},  # nobody counted
    ],
)
def test_any_doubt_gives_nothing(rows: Any, doubt: dict[str, Any]) -> None:
    assert read_scores(result(rows(), **doubt), PREFIX, IDS) is None
    # A request that computes everything does so again after it lost its place; but whatever came
    # from a cache all the same is no score.
    again = read_scores(result(rows(), **doubt), PREFIX, IDS, cache_was_read=False)
    assert again == (None if "cached" in doubt else VALUES)


def test_the_last_position_that_may_be_cached() -> None:
    assert read_scores(result(short(cached=PREFIX - 1), cached=PREFIX - 1), PREFIX, IDS) == VALUES


@pytest.mark.parametrize(
    "rows",
    [
        None,
        flat([8, 9], VALUES[1:]),  # one row is missing
        full(ids=(7, 8, 10)),  # other tokens
        full(values=[-1.0, math.nan, -3.0]),
        full(values=[-1.0, -math.inf, -3.0]),
    ],
)
@pytest.mark.parametrize("cache_was_read", [True, False])
def test_unexpected_rows_give_nothing(rows: Any, cache_was_read: bool) -> None:
    assert read_scores(result(rows), PREFIX, IDS, cache_was_read=cache_was_read) is None


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


def test_scoring_by_fixed_ids_where_the_runner_has_it() -> None:
    config = SimpleNamespace(use_v2_model_runner=True)
    has_rows = tuple(map(int, vllm.__version__.split(".")[:2])) >= (0, 32)
    assert versions.scores_fixed_ids(config) == has_rows
    assert not versions.scores_fixed_ids(SimpleNamespace(use_v2_model_runner=False))
    params = versions.scoring_params(PREFIX, IDS, read_cache=True, fixed_ids=True)
    assert params.prompt_logprob_start == PREFIX - 1
    assert [list(row) for row in params.prompt_logprob_token_ids] == [[7], [8], [9]]
    assert params.skip_reading_prefix_cache is False


def test_the_option_of_that_name_in_0_31_is_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Of031:
        prompt_logprob_token_ids: list[int] | None = None

    monkeypatch.setattr(versions, "SamplingParams", Of031)
    assert not versions.scores_fixed_ids(SimpleNamespace(use_v2_model_runner=True))


def test_older_releases_learn_to_count_lost_places(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import dataclass

    from vllm.v1.engine import EngineCoreEventType

    @dataclass
    class OldStats:
        queued_ts: float = 0.0

    class OldIteration:
        def update_from_events(self, req_id: str, events: Any, *rest: Any) -> None:
            pass

    monkeypatch.setattr(versions, "RequestStateStats", OldStats)
    monkeypatch.setattr(versions, "IterationStats", OldIteration)
    versions.count_preemptions()
    versions.count_preemptions()  # a second engine in the same process
    stats, lost = OldStats(), SimpleNamespace(type=EngineCoreEventType.PREEMPTED)
    other = SimpleNamespace(type=EngineCoreEventType.QUEUED)
    OldIteration().update_from_events("1", [other, lost], False, stats, None, None)
    assert versions.preemptions(SimpleNamespace(metrics=stats)) == 1
    assert versions.preemptions(SimpleNamespace(metrics=OldStats())) == 0
