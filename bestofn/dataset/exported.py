"""What a pool row gives: a record of its best response, of each candidate, or for training."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields
from math import isnan
from typing import Any, Literal

from bestofn.errors import ConfigError
from bestofn.prompts import answer_message, as_turns, plain
from bestofn.sampler import choose
from bestofn.types import Candidate, Pool, Selection, Usage

Keep = Literal["best", "all", "preference", "sft", "pool"]
Kind = Literal["bool", "int", "float", "text", "messages", "tool_messages", "json"]
"""What a column holds besides None; "json" is anything, written as JSON text."""
Columns = dict[str, Kind]
Record = dict[str, Any]

LEFT_OUT = {
    "error": "without a response",
    "fallback": "whose scores all failed",
    "no_candidates": "without candidates",
    "too_few_scores": "with fewer than two responses that have a score",
    "margin": "whose best and worst score are equal, or closer than the margin",
    "equal_text": "whose best and worst response are the same text",
    "cut_off": "that is the last line and cut off",
}
"""Why a row gave no record."""

_TOKENS = [part.name for part in fields(Usage) if part.name.endswith("_tokens")]
_KINDS: Columns = {
    **dict.fromkeys(("id", "response", "reward", "error", "finish_reason"), "text"),
    **dict.fromkeys(("index", "candidates", "token_count", *_TOKENS), "int"),
    **dict.fromkeys(("score", "score_chosen", "score_rejected", "mean_logprob"), "float"),
    **dict.fromkeys(("tie", "fallback", "selected"), "bool"),
    **dict.fromkeys(("tools", "tool_calls"), "json"),
    **dict.fromkeys(("prompt", "chosen", "rejected", "messages"), "messages"),
}
_PARTS: Columns = {"reason": "text", "inferred": "json", "flags": "json", "counts": "json"}
"""What a score says besides its value; a column for each that any score of a reward has."""
_TRAINING = {
    "preference": ("id", "prompt", "chosen", "rejected", "score_chosen", "score_rejected"),
    "sft": ("id", "messages"),
}
"""The columns for training, which are there without any record too."""
_TYPES: dict[type, Kind] = {bool: "bool", int: "int", float: "float", str: "text"}


@dataclass(slots=True)
class Records:
    """The records of rows, all with the same columns, which a first pass over the rows finds.

    Attributes:
        rows: How many the first pass found.
        count: How many records they gave.
        left_out: How many of the rows gave no record, by the reason.
        chat: Whether a prompt has several turns, so that all are chat messages.
        tools: Whether a turn of a prompt calls a tool, or is a tool's.
        own, extras: Our columns and the rows', with kinds; None where all values are None.
    """

    keep: Keep
    reward: str | None
    min_margin: float
    rows: int = 0
    count: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    chat: bool = False
    tools: bool = False
    own: Columns = field(default_factory=dict)
    extras: dict[str, Kind | None] = field(default_factory=dict)

    def survey(self, pools: Iterable[Pool]) -> None:
        """The first pass; a ConfigError where it is not said which candidate of a row to choose."""
        self.own = {name: _KINDS[name] for name in _TRAINING.get(self.keep, ())}
        self.chat = self.keep in _TRAINING
        for pool in pools:
            self.rows += 1
            self.tools |= any(turn.extra for turn in pool.prompt.messages)
            self.tools |= any(candidate.tool_calls for candidate in pool.candidates)
            self.chat |= self.tools or len(pool.prompt.messages) > 1
            for record in self._made(pool):
                for name in record:
                    self.own[name] = _KINDS.get(name) or _PARTS.get(name.split("_")[0], "float")
            for name, value in pool.prompt.columns.items() if self.keep not in _TRAINING else ():
                self.extras[name] = _common(self.extras.get(name), value)

    def columns(self) -> Columns:
        """What all records have."""
        kind: Kind = "tool_messages" if self.tools else "messages" if self.chat else "text"
        asked = "messages" if self.keep == "sft" else "prompt"
        turns = {name: kind for name in ("chosen", "rejected") if name in self.own}
        extras = {new: self.extras[name] or "text" for name, new in self._names().items()}
        return self.own | turns | {asked: kind} | extras

    def records(self, pools: Iterable[Pool]) -> Iterator[Record]:
        """The records of the rows of the first pass; rows that give none are counted."""
        self.count = 0
        self.left_out.clear()
        columns, names = self.columns(), self._names()
        for pool in pools:
            extras = {new: pool.prompt.columns.get(name) for name, new in names.items()}
            for record in self._made(pool):
                if not self.chat:
                    record["prompt"] = record["prompt"][0]["content"]
                record |= extras
                yield {name: plain(record.get(name)) for name in columns}

    def _made(self, pool: Pool) -> list[Record]:
        made = _MAKERS[self.keep](pool, self.reward, self.min_margin)
        if isinstance(made, str):
            self.left_out[made] += 1
            return []
        self.count += len(made)
        return made

    def _names(self) -> dict[str, str]:
        """A column for each of the rows'; those that clash with ours get a prefix."""
        names = {name: plain(name) for name in self.extras}
        for name in names:
            while names[name] in self.own or [*names.values()].count(names[name]) > 1:
                names[name] = f"column_{names[name]}"
        return names


def _common(known: Kind | None, value: Any) -> Kind | None:
    """The kind of column that holds a value too, None for no value yet."""
    if (value := plain(value)) is None:
        return known
    kind = _TYPES.get(type(value), "json")
    if kind == "int" and not -(2**63) <= value < 2**63:
        kind = "json"
    if known in (None, kind):
        return kind
    return "float" if {known, kind} == {"int", "float"} else "json"


Made = list[Record] | str
"""The records of a row, or why there are none."""


def _best(pool: Pool, reward: str | None, _: float) -> Made:
    selection = _chosen(pool, reward)
    best = selection.best if selection.candidates else None
    error = selection.error or (best and best.error)
    record = {
        **_asked(pool),
        "response": best.text if best and error is None else None,
        **(_calls(best) if best and error is None else {}),
        "score": best.scores[selection.reward].value if best else None,
        "reward": selection.reward,
        "index": best.index if best else None,
        "candidates": len(selection.candidates),
        "tie": selection.tie,
        "fallback": selection.fallback,
        "error": error,
    }
    return [record | {name: getattr(selection.usage, name) for name in _TOKENS}]


def _all(pool: Pool, reward: str | None, _: float) -> Made:
    if not pool.candidates:
        return "no_candidates"
    selection = _chosen(pool, reward) if _chooser(pool, reward) else None
    return [
        {
            **_asked(pool),
            "index": candidate.index,
            "response": candidate.text if candidate.error is None else None,
            "error": candidate.error,
            "selected": selection and candidate is selection.best and candidate.error is None,
            "token_count": candidate.token_count,
            "finish_reason": candidate.finish_reason,
            **_calls(candidate),
            "mean_logprob": candidate.mean_logprob,
            **{plain(f"score_{name}"): score.value for name, score in candidate.scores.items()},
            **{
                plain(f"{part}_{name}"): said
                for name, score in candidate.scores.items()
                for part in _PARTS
                if (said := getattr(score, part))
            },
        }
        for candidate in pool.candidates
    ]


def _preference(pool: Pool, reward: str | None, min_margin: float) -> Made:
    selection = _chosen(pool, reward)
    if selection.error is not None:
        return "error"
    name, responses = selection.reward, [c for c in pool.candidates if c.whole]
    scored = [c for c in responses if name in c.scores and not isnan(c.scores[name].value)]
    if len(scored) < 2:
        return "too_few_scores"
    best = max(scored, key=lambda candidate: candidate.scores[name].value)
    worst = min(scored, key=lambda candidate: candidate.scores[name].value)
    high, low = best.scores[name].value, worst.scores[name].value
    if high == low or high - low < min_margin:
        return "margin"
    if best.text == worst.text:
        return "equal_text"
    pair = {"chosen": [_answer(best)], "rejected": [_answer(worst)]}
    return [{**_asked(pool), **pair, "score_chosen": high, "score_rejected": low}]


def _sft(pool: Pool, reward: str | None, _: float) -> Made:
    selection = _chosen(pool, reward)
    if selection.error is not None or selection.best.error is not None:
        return "error"
    if selection.fallback:
        return "fallback"
    turns = [*as_turns(pool.prompt.messages), _answer(selection.best)]
    return [{"id": pool.prompt.id, "messages": turns, **_tools(pool)}]


_MAKERS: dict[str, Callable[[Pool, str | None, float], Made]] = {
    "best": _best,
    "all": _all,
    "preference": _preference,
    "sft": _sft,
    "pool": lambda *_: [{}],
}


def _chooser(pool: Pool, reward: str | None) -> str | None:
    """The reward that chooses in a row: the one named, its own, or the only one."""
    if reward is not None:
        return reward
    if isinstance(pool, Selection):
        return pool.reward
    names = {name for candidate in pool.candidates for name in candidate.scores}
    return names.pop() if len(names) == 1 else None


def _chosen(pool: Pool, reward: str | None) -> Selection:
    """What was chosen, or would be by another reward."""
    name = _chooser(pool, reward)
    if isinstance(pool, Selection) and (name == pool.reward or not pool.candidates):
        return pool
    known = {known: None for candidate in pool.candidates for known in candidate.scores}
    if name is None or any(name not in candidate.scores for candidate in pool.candidates):
        wrong = f"have no score named {name!r}" if name else "do not say which was chosen"
        raise ConfigError(
            f"the candidates of the row {pool.prompt.id!r} {wrong}; name a reward that chooses "
            f"({', '.join(map(repr, known)) or 'none'}), or add scores with `bestofn score`"
        )
    usage = pool.usage if isinstance(pool, Selection) else _usage(pool.candidates)
    return choose(pool.prompt, pool.candidates, name, usage)


def _usage(candidates: Iterable[Candidate]) -> Usage:
    parts = ([c.usage, *(score.usage for score in c.scores.values())] for c in candidates)
    return sum((usage for part in parts for usage in part), Usage())


def _calls(candidate: Candidate) -> Record:
    return {"tool_calls": candidate.tool_calls} if candidate.tool_calls else {}


def _tools(pool: Pool) -> Record:
    return {"tools": list(pool.prompt.tools)} if pool.prompt.tools else {}


def _asked(pool: Pool) -> Record:
    return {"id": pool.prompt.id, "prompt": as_turns(pool.prompt.messages), **_tools(pool)}


def _answer(candidate: Candidate) -> dict[str, Any]:
    return as_turns([answer_message(candidate)])[0]
