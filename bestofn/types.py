"""The whole vocabulary: prompts, candidates, scores and selections, with no logic of their own."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isnan, nan
from typing import Any, Literal

Role = Literal["system", "developer", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "error", "rejected"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role  # "developer" is what newer APIs call the system
    content: str  # empty for an assistant turn that only calls tools
    # The other fields that chat APIs have: `tool_calls`, `tool_call_id`, `name`.
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation that ends where the model is to answer.

    One that a reward makes may end with a turn of the assistant, whose text begins the answer.
    """

    messages: tuple[Message, ...]  # oldest first
    id: str = ""  # names it in seeds and rows; empty for prompts that rewards make
    # What else its row holds, such as a reference answer, for verifiers; no model ever sees it.
    columns: Mapping[str, Any] = field(default_factory=dict, hash=False, compare=False)
    # Functions that the answer may call, as OpenAI's API declares them; see `bestofn.tools`.
    tools: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)


@dataclass(slots=True)
class Usage:
    """What something cost."""

    prompt_tokens: int = 0  # of prompts and prefixes that were asked for
    cached_tokens: int = 0  # those of them that were cached or shared with another request
    generated_tokens: int = 0
    scored_tokens: int = 0  # of continuations whose log-probability was computed
    repeated_tokens: int = 0  # computed in vain: their request had to be made again
    seconds: float = 0.0  # from first request to last result, summed over overlapping requests

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))

    @property
    def computed_tokens(self) -> int:
        """Tokens that went through the model: all that were asked for and not cached."""
        new = self.prompt_tokens - self.cached_tokens
        return new + self.generated_tokens + self.scored_tokens + self.repeated_tokens


@dataclass(slots=True)
class Score:
    """What one reward says of one candidate."""

    value: float = nan  # higher is better; NaN if it failed
    reason: str | None = None  # why it failed
    inferred: list[str] = field(default_factory=list)  # instructions, for rewards that infer any
    flags: list[str] = field(default_factory=list)  # do not change the value: "quotes_instruction"
    # What a judge's calls gave, such as how often it picked the response that it was shown first.
    counts: dict[str, int] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)


@dataclass(slots=True)
class Candidate:
    """One response to a prompt."""

    index: int  # its place among the candidates of its prompt
    text: str  # without its reasoning; calls of tools are a part of it, see `prompts.spoken`
    reasoning: str | None = None  # what a thinking model wrote before its answer
    # "length": cut at the token limit; "rejected": ended early for its score, `text` is so far.
    finish_reason: FinishReason = "stop"
    error: str | None = None  # why there is no usable response, where finish_reason is "error"
    token_count: int | None = None  # generated, reasoning and closing token included
    # Of the generated tokens under the raw model, in nats; None where the generator gives none.
    mean_logprob: float | None = None
    sum_logprob: float | None = None
    seed: int | None = None  # what it was drawn with
    token_ids: list[int] | None = None  # the generated tokens, where they were kept
    token_logprobs: list[float] | None = None
    token_confidences: list[float] | None = None  # see `engines.base.Completion`
    confidence_over: int | None = None  # the tokens that each of them is over; None for all
    scores: dict[str, Score] = field(default_factory=dict)  # by the reward's name
    usage: Usage = field(default_factory=Usage)  # what drawing it cost
    tool_calls: list[dict[str, Any]] | None = None  # in the form of OpenAI's API

    @property
    def whole(self) -> bool:
        """Whether it is a response as its generator ended it, neither failed nor rejected."""
        return self.finish_reason in ("stop", "length")


@dataclass(slots=True)
class Pool:
    """The candidates that were drawn for one prompt, by index."""

    prompt: Prompt
    candidates: list[Candidate]
    # The wall-clock time of drawing ("sample") and of each reward, by its name: a run's time shared
    # out over its rows, so that they add up to it.
    seconds: dict[str, float] = field(default_factory=dict, kw_only=True)


@dataclass(slots=True)
class Selection(Pool):
    """A pool of which one candidate was chosen."""

    index: int  # the chosen one
    reward: str  # the name of the reward that chose
    tie: bool = False  # whether another candidate had the same best value
    fallback: bool = False  # whether every score failed, so that the first candidate was taken
    usage: Usage = field(default_factory=Usage)  # of all candidates; seconds are wall-clock time
    # Why there is no response: every candidate failed, or something before they were drawn.
    error: str | None = None

    @property
    def best(self) -> Candidate:
        return self.candidates[self.index]

    @property
    def text(self) -> str:
        return self.best.text if self.candidates else ""

    @property
    def scores(self) -> list[Score]:
        """The choosing reward's scores, by candidate index."""
        return [candidate.scores[self.reward] for candidate in self.candidates]

    @property
    def failed_scores(self) -> int:
        """How many of them failed; that of a rejected candidate has not."""
        rejected = sum(candidate.finish_reason == "rejected" for candidate in self.candidates)
        return sum(isnan(score.value) for score in self.scores) - rejected
