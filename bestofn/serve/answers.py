"""What is answered: selections and scores in the form of OpenAI's API, whole or in pieces."""

import time
from collections.abc import Iterator, Sequence
from math import isnan
from typing import Any

from bestofn.prompts import answer_message, as_turns
from bestofn.sampler import by_rank
from bestofn.store.pool import to_row
from bestofn.types import Candidate, Pool, Selection, Usage

Fields = dict[str, Any]
PIECE = 64  # characters of a streamed piece
OWN = ("index", "reward", "tie", "fallback", "usage", "candidates")


def chosen(selection: Selection, count: int) -> list[Candidate]:
    """The chosen candidate, and after it the best of the others that can be used."""
    ranked = [c for c in by_rank(selection, selection.reward) if c.whole]
    first = selection.best if selection.best.whole else ranked[0]
    return [first, *(candidate for candidate in ranked if candidate is not first)][:count]


def body(
    id: str,
    model: str,
    selection: Selection,
    choices: Sequence[tuple[Candidate, list[str] | None]],
    candidates: bool,
) -> Fields:
    """The answer to a request: choices, what they cost, and in `bestofn` how they were chosen.

    Usage counts as OpenAI does with `best_of`: the prompt once, and what all candidates wrote. With
    a choice come the texts of its tokens where their log-probabilities are to be shown. With
    `candidates` all are shown with their scores.
    """
    drawn, row = selection.candidates, to_row(selection)
    prompt = max(candidate.usage.prompt_tokens for candidate in drawn)
    written = sum(candidate.usage.generated_tokens for candidate in drawn)
    scored = [(c, c.scores[selection.reward]) for c in drawn]
    return {
        "id": f"chatcmpl-{id}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": i, **_choice(*choice)} for i, choice in enumerate(choices)],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "total_tokens": prompt + written,
            "prompt_tokens_details": {"cached_tokens": min(c.usage.cached_tokens for c in drawn)},
        },
        "bestofn": {
            **{name: row[name] for name in (OWN if candidates else OWN[:-1])},
            "n": len(drawn),
            "indices": [candidate.index for candidate, _ in choices],
            "scores": [None if isnan(score.value) else score.value for _, score in scored],
            "failures": [
                {"index": candidate.index, "reason": candidate.error or score.reason}
                for candidate, score in scored
                if isnan(score.value)
            ],
        },
    }


def _choice(candidate: Candidate, texts: Sequence[str] | None) -> Fields:
    """A candidate as a choice, with log-probabilities in nats where its tokens' texts are known."""
    message = as_turns([answer_message(candidate)])[0] | {"refusal": None}
    if candidate.tool_calls:
        message["content"] = message["content"] or None
    if candidate.reasoning:
        message["reasoning_content"] = candidate.reasoning
    values, logprobs = candidate.token_logprobs or [], None
    if texts is not None and len(values) == len(texts):
        parts = [None if "\ufffd" in text else list(text.encode()) for text in texts]
        tokens = [
            {"token": text, "logprob": value, "bytes": part, "top_logprobs": []}
            for text, value, part in zip(texts, values, parts, strict=True)
        ]
        logprobs = {"content": tokens, "refusal": None}
    reason = "tool_calls" if candidate.tool_calls else candidate.finish_reason
    return {"message": message, "finish_reason": reason, "logprobs": logprobs}


def chunks(answer: Fields, include_usage: bool) -> Iterator[Fields]:
    """An answer in pieces, of which the client makes it again."""
    head = {**answer, "object": "chat.completion.chunk"}
    head = {name: head[name] for name in ("id", "object", "created", "model")}
    for choice in answer["choices"]:
        logprobs = choice["logprobs"]
        for delta in _deltas(choice["message"]):
            # All log-probabilities come with the first piece of the answer.
            own = None if "role" in delta else logprobs
            logprobs = None if own else logprobs
            part = {"delta": delta, "finish_reason": None, "logprobs": own}
            yield {**head, "choices": [{"index": choice["index"], **part}]}
        end = {"delta": {}, "finish_reason": choice["finish_reason"], "logprobs": logprobs}
        last = {"bestofn": answer["bestofn"]} if choice is answer["choices"][-1] else {}
        yield {**head, "choices": [{"index": choice["index"], **end}], **last}
    if include_usage:
        yield {**head, "choices": [], "usage": answer["usage"]}


def _deltas(message: Fields) -> Iterator[Fields]:
    yield {"role": "assistant", "content": ""}
    for part in ("reasoning_content", "content"):
        yield from ({part: piece} for piece in _pieces(message.get(part) or ""))
    for place, call in enumerate(message.get("tool_calls", ())):
        begun = {**call, "function": {"name": call["function"]["name"], "arguments": ""}}
        yield {"tool_calls": [{"index": place, **begun}]}
        for piece in _pieces(call["function"]["arguments"]):
            yield {"tool_calls": [{"index": place, "function": {"arguments": piece}}]}


def _pieces(text: str) -> Iterator[str]:
    return (text[start : start + PIECE] for start in range(0, len(text), PIECE))


def scores(reward: str, pools: Sequence[Pool], usage: Usage) -> Fields:
    """The answer to a request for scores, in the order of prompts and responses."""
    rows = [to_row(pool)["candidates"] for pool in pools]
    data = [
        {"index": i, "scores": [c["scores"][reward] for c in row]} for i, row in enumerate(rows)
    ]
    spent = {name: getattr(usage, name) for name in Usage.__slots__}
    return {"object": "list", "reward": reward, "data": data, "usage": spent}
