"""Pools made by hand, for what is not about drawing or scoring them."""

from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path

from bestofn.prompts import as_prompt
from bestofn.store import pool
from bestofn.types import Candidate, Pool, Score, Usage


def made(
    name: str,
    scores: Mapping[str, Sequence[float]],
    *,
    texts: Sequence[str] | None = None,
    tokens: Sequence[int | None] | None = None,
    cost: int = 0,
    seconds: Mapping[str, float] | None = None,
) -> Pool:
    """A pool whose scores are given by name, each for all candidates; NaN is a failed one."""
    size = len(next(iter(scores.values())))
    candidates = [
        Candidate(
            index,
            texts[index] if texts else f"response {index} to {name}",
            token_count=None if tokens is None else tokens[index],
        )
        for index in range(size)
    ]
    for reward, values in scores.items():
        for candidate, value in zip(candidates, values, strict=True):
            reason = "it failed" if isnan(value) else None
            candidate.scores[reward] = Score(value, reason, usage=Usage(prompt_tokens=cost))
    return Pool(as_prompt(f"What is {name}?", name), candidates, seconds=dict(seconds or {}))


def written(path: Path, pools: Sequence[Pool]) -> Path:
    """The file of these pools."""
    path.write_text("".join(pool.dumps(row) + "\n" for row in pools), "utf-8")
    return path
