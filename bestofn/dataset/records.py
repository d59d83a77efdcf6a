"""What a pool row gives: a record of its best response, of each candidate, or for training."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, fields
from math import isnan
from typing import Literal

from bestofn.dataset.tables import Columns, Kind, Record, common_kind, kind_of
from bestofn.errors import ConfigError
from bestofn.prompts import as_turns, plain
from bestofn.sampler import choose
from bestofn.types import Candidate, Pool, Selection, Usage

Keep = Literal["best", "all", "preference", "sft", "pool"]
Reason = Literal[
    "error", "fallback", "no_candidates", "too_few_scores", "margin", "equal_text", "cut_off"
]

LEFT_OUT: dict[Reason, str] = {
    "error": "without a response",
    "fallback": "whose scores all failed",
    "no_candidates": "without candidates",
    "too_few_scores": "with fewer than two responses that have a score",
    "margin": "whose best and worst score are equal, or closer than the margin",
    "equal_text": "whose best and worst response are the same text",
    "cut_off": "that is the last line and cut off",
}
"""Why a row gave no record, in words."""

_TOKENS = [part.name for part in fields(Usage) if part.name.endswith("_tokens")]
_BEST: Columns = {
    "id": "text",
    "prompt": "text",
    "response": "text",
    "score": "float",
    "reward": "text",
    "index": "int",
    "candidates": "int",
    "tie": "bool",
    "fallback": "bool",
    "error": "text",
    **dict.fromkeys(_TOKENS, "int"),
}
_CANDIDATE: Columns = {
    "id": "text",
    "prompt": "text",
    "index": "int",
    "response": "text",
    "error": "text",
    "selected": "bool",
    "token_count": "int",
    "finish_reason": "text",
    "mean_logprob": "float",
}
_PARTS: Columns = {"reason": "text", "inferred": "json", "flags": "json", "counts": "json"}
"""What a score says besides its value; a column for each that any score of a reward has."""
_PREFERENCE: Columns = {
    "id": "text",
    "prompt": "messages",
    "chosen": "messages",
    "rejected": "messages",
    "score_chosen": "float",
    "score_rejected": "float",
}
_SFT: Columns = {"id": "text", "messages": "messages"}


@dataclass(slots=True)
class Survey:
    """What a first pass over rows finds, so that all records can have the same columns.

    Attributes:
        rows: How many.
        chosen: Whether each says which candidate was chosen.
        chat: Whether a prompt has more than one turn.
        tools: Whether a turn of one calls a tool, or is a tool's.
        rewards: The names of all rewards.
        parts: Of `_PARTS` and rewards, which there are.
        extras: The rows' own columns, and what kind of column holds their values; None where
            they are all None.
    """

    rows: int = 0
    chosen: bool = True
    chat: bool = False
    tools: bool = False
    rewards: list[str] = field(default_factory=list)
    parts: set[tuple[str, str]] = field(default_factory=set)
    extras: dict[str, Kind | None] = field(default_factory=dict)

    def add(self, pool: Pool) -> None:
        """Takes note of a row."""
        self.rows += 1
        self.tools |= any(turn.extra for turn in pool.prompt.messages)
        self.chat |= self.tools or len(pool.prompt.messages) > 1
        named = [name for candidate in pool.candidates for name in candidate.scores]
        if isinstance(pool, Selection):
            named.append(pool.reward)
        else:
            self.chosen = False
        self.rewards += [name for name in dict.fromkeys(named) if name not in self.rewards]
        self.parts |= {
            (part, name)
            for candidate in pool.candidates
            for name, score in candidate.scores.items()
            for part in _PARTS
            if getattr(score, part)
        }
        for name, value in pool.prompt.columns.items():
            known = self.extras.setdefault(name, None)
            if plain(value) is not None:
                self.extras[name] = common_kind(known, kind_of(value))


@dataclass(frozen=True, slots=True)
class Plan:
    """How rows become records.

    Attributes:
        keep: Which records.
        columns: Of the records.
        reward: Chooses; None leaves it to the row.
        min_margin: By which the scores of a pair differ at least.
        chat: Whether prompts are chat messages; else they are text.
        scores: The column of each reward.
        parts: The column of what else its scores say.
        extras: The column of each of the rows' own columns.
    """

    keep: Keep
    columns: Columns
    reward: str | None
    min_margin: float
    chat: bool
    scores: dict[str, str] = field(default_factory=dict)
    parts: dict[tuple[str, str], str] = field(default_factory=dict)
    extras: dict[str, str] = field(default_factory=dict)


def plan(found: Survey, keep: Keep, reward: str | None, min_margin: float) -> Plan:
    """The plan for the rows of a file.

    Raises:
        ConfigError: the candidates have no score by the reward, or it must be named.
    """
    reward = _choosing(found, keep, reward)
    messages: Kind = "tool_messages" if found.tools else "messages"
    if keep in ("preference", "sft"):
        columns = _PREFERENCE if keep == "preference" else _SFT
        column = "prompt" if keep == "preference" else "messages"
        return Plan(keep, {**columns, column: messages}, reward, min_margin, chat=True)
    prompt: Kind = messages if found.chat else "text"
    own: dict[str, Kind] = {**(_BEST if keep == "best" else _CANDIDATE), "prompt": prompt}
    scores = {name: plain(f"score_{name}") for name in found.rewards} if keep == "all" else {}
    parts = {
        (part, name): plain(f"{part}_{name}")
        for name in scores
        for part in _PARTS
        if (part, name) in found.parts
    }
    own |= dict.fromkeys(scores.values(), "float")
    own |= {column: _PARTS[part] for (part, _), column in parts.items()}
    extras = _renamed(found.extras, own)
    kinds: Columns = {extras[name]: kind or "text" for name, kind in found.extras.items()}
    return Plan(keep, {**own, **kinds}, reward, min_margin, found.chat, scores, parts, extras)


def _choosing(found: Survey, keep: Keep, reward: str | None) -> str | None:
    """The reward that chooses in all rows, None if each row says what was chosen in it."""
    known = ", ".join(map(repr, found.rewards)) or "none"
    if reward is not None:
        if reward not in found.rewards:
            raise ConfigError(f"no candidate has a score named {reward!r}; there is {known}")
        return reward
    if found.chosen:
        return None
    if len(found.rewards) == 1:
        return found.rewards[0]
    if keep == "all":
        return None
    if not found.rewards:
        raise ConfigError("no candidate has a score; add scores with `bestofn score`")
    raise ConfigError(f"the rows do not say what was chosen; name a reward that chooses: {known}")


def _renamed(names: Iterable[str], own: Collection[str]) -> dict[str, str]:
    """A column for each of the rows' own columns; those that clash with ours get a prefix."""
    taken = set(own)
    columns = {}
    # A column that clashes must not take the name of another that does not.
    for name in sorted(names, key=lambda name: plain(name) in own):
        column = plain(name)
        while column in taken:
            column = f"column_{column}"
        taken.add(column)
        columns[name] = column
    return columns


def records(pools: Iterable[Pool], how: Plan, left_out: Counter[Reason]) -> Iterator[Record]:
    """The records of the rows; those that give none are counted by the reason.

    Raises:
        ConfigError: a candidate has no score by the reward that chooses.
    """
    make = _MAKERS[how.keep]
    for pool in pools:
        made = make(pool, how)
        if isinstance(made, str):
            left_out[made] += 1
        else:
            yield from made


def _best(pool: Pool, how: Plan) -> list[Record]:
    selection = _chosen(pool, how.reward)
    best = selection.best if selection.candidates else None
    error = selection.error or (best and best.error)
    record = {
        **_shared(pool, how),
        "response": best.text if best and error is None else None,
        "score": best.scores[selection.reward].value if best else None,
        "reward": selection.reward,
        "index": best.index if best else None,
        "candidates": len(selection.candidates),
        "tie": selection.tie,
        "fallback": selection.fallback,
        "error": error,
    }
    return [record | {name: getattr(selection.usage, name) for name in _TOKENS}]


def _all(pool: Pool, how: Plan) -> list[Record] | Reason:
    if not pool.candidates:
        return "no_candidates"
    selection = _selection(pool, how.reward)
    shared = _shared(pool, how)
    return [
        {
            **shared,
            "index": candidate.index,
            "response": _response(candidate),
            "error": candidate.error,
            "selected": selection and candidate is selection.best and candidate.error is None,
            "token_count": candidate.token_count,
            "finish_reason": candidate.finish_reason,
            "mean_logprob": candidate.mean_logprob,
            **{how.scores[name]: score.value for name, score in candidate.scores.items()},
            **{
                column: getattr(candidate.scores[name], part) or None
                for (part, name), column in how.parts.items()
                if name in candidate.scores
            },
        }
        for candidate in pool.candidates
    ]


def _preference(pool: Pool, how: Plan) -> list[Record] | Reason:
    reward = how.reward or (pool.reward if isinstance(pool, Selection) else "")
    responses = [candidate for candidate in pool.candidates if candidate.error is None]
    if not responses:
        return "error"
    scored = [c for c in responses if reward in c.scores and not isnan(c.scores[reward].value)]
    if len(scored) < 2:
        return "too_few_scores"
    best = max(scored, key=lambda candidate: candidate.scores[reward].value)
    worst = min(scored, key=lambda candidate: candidate.scores[reward].value)
    high, low = best.scores[reward].value, worst.scores[reward].value
    if high == low or high - low < how.min_margin:
        return "margin"
    if best.text == worst.text:
        return "equal_text"
    pair = {
        "id": pool.prompt.id,
        "prompt": as_turns(pool.prompt.messages),
        "chosen": [_answer(best)],
        "rejected": [_answer(worst)],
        "score_chosen": high,
        "score_rejected": low,
    }
    return [pair]


def _sft(pool: Pool, how: Plan) -> list[Record] | Reason:
    selection = _chosen(pool, how.reward)
    if selection.error is not None or _response(selection.best) is None:
        return "error"
    if selection.fallback:
        return "fallback"
    return [
        {
            "id": pool.prompt.id,
            "messages": [*as_turns(pool.prompt.messages), _answer(selection.best)],
        }
    ]


_MAKERS: dict[str, Callable[[Pool, Plan], list[Record] | Reason]] = {
    "best": _best,
    "all": _all,
    "preference": _preference,
    "sft": _sft,
}


def _chosen(pool: Pool, reward: str | None) -> Selection:
    selection = _selection(pool, reward)
    assert selection is not None  # the plan has a reward where a row is without a choice
    return selection


def _selection(pool: Pool, reward: str | None) -> Selection | None:
    """What was chosen, or would be by another reward; None if nothing was and none is named."""
    if isinstance(pool, Selection) and (reward in (None, pool.reward) or not pool.candidates):
        return pool
    if reward is None:
        return None
    unscored = [c.index for c in pool.candidates if reward not in c.scores]
    if unscored:
        raise ConfigError(
            f"candidate {unscored[0]} of the row {pool.prompt.id!r} has no score named {reward!r}; "
            "add it with `bestofn score`"
        )
    if isinstance(pool, Selection):
        usage = pool.usage
    else:
        scores = [score for c in pool.candidates for score in c.scores.values()]
        usage = sum((candidate.usage for candidate in pool.candidates), Usage())
        usage = sum((score.usage for score in scores), usage)
    return choose(pool.prompt, pool.candidates, reward, usage)


def _shared(pool: Pool, how: Plan) -> Record:
    """What all records of a row have."""
    prompt = pool.prompt
    content = as_turns(prompt.messages) if how.chat else prompt.messages[0].content
    extras = {column: prompt.columns.get(name) for name, column in how.extras.items()}
    return {"id": prompt.id, "prompt": content, **extras}


def _answer(candidate: Candidate) -> dict[str, str]:
    return {"role": "assistant", "content": candidate.text}


def _response(candidate: Candidate) -> str | None:
    return candidate.text if candidate.error is None else None
