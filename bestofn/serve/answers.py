"""What is answered: selections and scores in the form of OpenAI's API, whole or in pieces."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from math import isnan
from typing import Any

from bestofn.prompts import answer_message
from bestofn.sampler import by_rank
from bestofn.types import Candidate, Pool, Score, Selection, Usage

Fields = dict[str, Any]
PIECE = 64  # characters of a streamed piece
DONE = "data: [DONE]\n\n"


def chosen(selection: Selection, count: int) -> list[Candidate]:
    """The chosen candidate, and after it the best of the others that can be used."""
    ranked = [c for c in by_rank(selection, selection.reward) if c.whole]
    first = selection.best
    return [first, *(candidate for candidate in ranked if candidate is not first)][:count]


class Answer:
    """The answer to one request.

    Args:
        id: Of the request.
        model: As the request calls it.
        selection: What was chosen.
        choices: Which candidates are shown, best first.
        tokens: For each of them the texts of its tokens, where log-probabilities are wanted.
        whole: Whether all candidates are shown.
    """

    def __init__(
        self,
        id: str,
        model: str,
        selection: Selection,
        choices: Sequence[Candidate],
        tokens: Sequence[list[str] | None],
        whole: bool,
    ) -> None:
        self._head = {"id": f"chatcmpl-{id}", "created": int(time.time()), "model": model}
        self._selection, self._choices, self._whole = selection, choices, whole
        self._logprobs = [
            _logprobs(candidate, texts) for candidate, texts in zip(choices, tokens, strict=True)
        ]

    def body(self) -> Fields:
        """The answer as a whole."""
        choices = [
            {
                "index": place,
                "message": _message(candidate),
                "finish_reason": _reason(candidate),
                "logprobs": self._logprobs[place],
            }
            for place, candidate in enumerate(self._choices)
        ]
        return {
            **self._head,
            "object": "chat.completion",
            "choices": choices,
            "usage": self.usage(),
            "bestofn": self.extension(),
        }

    def events(self, include_usage: bool) -> Iterator[str]:
        """The answer as server-sent events."""
        for place, candidate in enumerate(self._choices):
            message, logprobs = _message(candidate), self._logprobs[place]
            for delta in _deltas(message):
                yield self._event(place, delta, logprobs=logprobs if "content" in delta else None)
                if delta.get("content"):
                    logprobs = None
            last = place == len(self._choices) - 1
            more = {"bestofn": self.extension()} if last else {}
            yield self._event(place, {}, _reason(candidate), **more)
        if include_usage:
            yield event(self._chunk([]) | {"usage": self.usage()})

    def _event(
        self,
        place: int,
        delta: Fields,
        reason: str | None = None,
        logprobs: Fields | None = None,
        **more: Any,
    ) -> str:
        choice = {"index": place, "delta": delta, "finish_reason": reason, "logprobs": logprobs}
        return event(self._chunk([choice]) | more)

    def _chunk(self, choices: list[Fields]) -> Fields:
        return {**self._head, "object": "chat.completion.chunk", "choices": choices}

    def usage(self) -> Fields:
        """As OpenAI counts with `best_of`: the prompt once, and what all candidates wrote."""
        candidates = self._selection.candidates
        prompt = max(candidate.usage.prompt_tokens for candidate in candidates)
        cached = min(candidate.usage.cached_tokens for candidate in candidates)
        written = sum(candidate.usage.generated_tokens for candidate in candidates)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "total_tokens": prompt + written,
            "prompt_tokens_details": {"cached_tokens": cached},
        }

    def extension(self) -> Fields:
        """The field `bestofn`: which candidate was chosen, the scores of all, and their cost."""
        selection = self._selection
        scores = selection.scores
        failures = [
            {"index": c.index, "reason": c.error or score.reason}
            for c, score in zip(selection.candidates, scores, strict=True)
            if isnan(score.value)
        ]
        fields: Fields = {
            "n": len(selection.candidates),
            "index": selection.index,
            "indices": [candidate.index for candidate in self._choices],
            "reward": selection.reward,
            "scores": [_number(score.value) for score in scores],
            "failures": failures,
            "tie": selection.tie,
            "fallback": selection.fallback,
            "usage": _usage(selection.usage),
        }
        if self._whole:
            fields["candidates"] = [
                {
                    "index": candidate.index,
                    "message": _message(candidate),
                    "finish_reason": _reason(candidate),
                    "tokens": candidate.token_count,
                    "score": score_fields(score),
                }
                for candidate, score in zip(selection.candidates, scores, strict=True)
            ]
        return fields


def event(fields: Fields) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(fields, ensure_ascii=False)}\n\n"


def score_body(reward: str, pools: Sequence[Pool]) -> Fields:
    """The answer to a request for scores: in the order of prompts and responses."""
    data = [
        {
            "index": place,
            "scores": [score_fields(candidate.scores[reward]) for candidate in pool.candidates],
        }
        for place, pool in enumerate(pools)
    ]
    return {"object": "list", "reward": reward, "data": data, "usage": _usage(cost(pools, reward))}


def cost(pools: Sequence[Pool], reward: str) -> Usage:
    """What scoring these took."""
    return sum((c.scores[reward].usage for pool in pools for c in pool.candidates), Usage())


def score_fields(score: Score) -> Fields:
    """A score; its value is null where it failed."""
    found: Fields = {"value": _number(score.value), "reason": score.reason}
    parts = {"inferred": score.inferred, "flags": score.flags, "counts": score.counts}
    return found | {name: part for name, part in parts.items() if part}


def _usage(usage: Usage) -> Fields:
    rounded = replace(usage, seconds=round(usage.seconds, 4))
    return {**asdict(rounded), "computed_tokens": usage.computed_tokens}


def _number(value: float) -> float | None:
    return None if isnan(value) else value


def _message(candidate: Candidate) -> Fields:
    turn = answer_message(candidate)
    message: Fields = {"role": "assistant", "content": turn.content, "refusal": None}
    if candidate.tool_calls:
        message |= {"content": turn.content or None, "tool_calls": candidate.tool_calls}
    if candidate.reasoning:
        message["reasoning_content"] = candidate.reasoning
    return message


def _reason(candidate: Candidate) -> str:
    return "tool_calls" if candidate.tool_calls else candidate.finish_reason


def _logprobs(candidate: Candidate, texts: list[str] | None) -> Fields | None:
    """Log-probabilities of the generated tokens, in nats; None where they are not known."""
    values = candidate.token_logprobs
    if texts is None or values is None or len(values) != len(texts):
        return None
    entries = [
        {
            "token": text,
            "logprob": value,
            "bytes": None if "\ufffd" in text else list(text.encode()),
            "top_logprobs": [],
        }
        for text, value in zip(texts, values, strict=True)
    ]
    return {"content": entries, "refusal": None}


def _deltas(message: Fields) -> Iterator[Fields]:
    """A message in pieces, of which the client makes it again."""
    yield {"role": "assistant", "content": ""}
    for part in ("reasoning_content", "content"):
        text = message.get(part) or ""
        for start in range(0, len(text), PIECE):
            yield {part: text[start : start + PIECE]}
    for place, call in enumerate(message.get("tool_calls", ())):
        function, arguments = call["function"], call["function"]["arguments"]
        begun = {**call, "function": {"name": function["name"], "arguments": ""}}
        yield {"tool_calls": [{"index": place, **begun}]}
        for start in range(0, len(arguments), PIECE):
            piece = {"arguments": arguments[start : start + PIECE]}
            yield {"tool_calls": [{"index": place, "function": piece}]}
