"""What the page shows of pools: which prompts, and each candidate as JSON can hold it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

from bestofn.prompts import spoken, user_message
from bestofn.rewards.similarity import words
from bestofn.types import Candidate, Pool, Score

FEW = 40  # distinct values of a column that can be chosen from


def choose(pools: Sequence[Pool], result: Mapping[str, Any], limit: int) -> tuple[list[Pool], str]:
    """At most `limit` of the pools in their order, and a sentence that says which.

    The prompts on which proxies differ most come first, the others are evenly spaced.
    """
    seeds = len(result["pools"])
    which = f" The candidates are those of the first of {seeds} pools." if seeds > 1 else ""
    if len(pools) <= limit:
        return list(pools), f"All {len(pools)} prompts.{which}"
    named = {entry["id"] for d in result["differences"] for entry in d["most"]}
    chosen = {place for place, pool in enumerate(pools) if pool.prompt.id in named}
    chosen = set(sorted(chosen)[:limit])
    others = [place for place in range(len(pools)) if place not in chosen]
    wanted = limit - len(chosen)
    chosen |= {others[place * len(others) // wanted] for place in range(wanted)}
    sentence = (
        f"{limit} of {len(pools)} prompts: those on which two proxies differ most, the others "
        f"evenly spaced over the pool.{which}"
    )
    return [pools[place] for place in sorted(chosen)], sentence


def browsable(pools: Sequence[Pool], names: Sequence[str], gold: str) -> dict[str, Any]:
    """The prompts with their candidates; scores by the places of `names`.

    Args:
        pools: The pools to show.
        names: The scores to show.
        gold: The gold score.
    """
    columns: dict[str, set[str]] = {}
    for pool in pools:
        for name, value in pool.prompt.columns.items():
            if isinstance(value, str | int | bool):
                columns.setdefault(name, set()).add(str(value))
    golds = (c.scores[gold].value for pool in pools for c in pool.candidates if gold in c.scores)
    verdicts = {value for value in golds if not isnan(value)}
    kept = [name for name, values in columns.items() if 1 < len(values) <= FEW]
    return {
        "scores": list(names),
        "columns": kept,
        "binary": verdicts <= {0.0, 1.0},
        "prompts": [_prompt(pool, names, gold, kept) for pool in pools],
    }


def _prompt(pool: Pool, names: Sequence[str], gold: str, columns: Sequence[str]) -> dict[str, Any]:
    prompt = pool.prompt
    true = user_message(prompt)
    values = {name: prompt.columns.get(name) for name in columns}
    return {
        "id": prompt.id,
        "messages": [[turn.role, spoken(turn)] for turn in prompt.messages],
        "columns": {name: None if value is None else str(value) for name, value in values.items()},
        "candidates": [_candidate(c, names, gold, true) for c in pool.candidates],
    }


def _candidate(candidate: Candidate, names: Sequence[str], gold: str, true: str) -> dict[str, Any]:
    verdict = candidate.scores.get(gold)
    known = {
        "reasoning": candidate.reasoning,
        "error": candidate.error,
        "tokens": candidate.token_count,
        "unknown": None if verdict is None else verdict.reason,
    }
    return {
        "text": candidate.text,
        "finish": candidate.finish_reason,
        "gold": None if verdict is None or isnan(verdict.value) else verdict.value,
        "scores": [_score(candidate.scores.get(name), true) for name in names],
    } | {name: value for name, value in known.items() if value is not None}


def _score(score: Score | None, true: str) -> dict[str, Any] | None:
    if score is None:
        return None
    shown: dict[str, Any] = {"value": None if isnan(score.value) else score.value}
    if score.reason is not None:
        shown["reason"] = score.reason
    if score.flags:
        shown["flags"] = score.flags
    if score.inferred:
        shown["inferred"] = [marked(text, true) for text in score.inferred]
    return shown


def marked(inferred: str, true: str) -> list[list[Any]]:
    """The inferred instruction in pieces `[text, shared]`, as word F1 counts shared words.

    A word that the true instruction has once is shared once.
    """
    left = Counter(words(true))
    pieces: list[list[Any]] = []
    for piece in inferred.split(" "):
        own = words(piece)
        shared = bool(own) and all(left[word] > 0 for word in own)
        if shared:
            left.subtract(own)
        if pieces and pieces[-1][1] == shared:
            pieces[-1][0] += " " + piece
        else:
            pieces.append([piece, shared])
    return pieces
