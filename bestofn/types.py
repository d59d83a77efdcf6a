"""The whole vocabulary: prompts, candidates, scores and selections, with no logic of their own."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import nan
from typing import Any, Literal

Role = Literal["system", "developer", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "error"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: Who speaks; "developer" is what newer APIs call the system.
        content: The text; empty for an assistant turn that only calls tools.
        extra: Its other fields as chat APIs have them: `tool_calls`, `tool_call_id`, `name`.
    """

    role: Role
    content: str
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation that ends where the model is to answer.

    Attributes:
        messages: The turns, oldest first.
        id: Names the prompt in seeds and rows; empty for prompts that rewards make.
        columns: What else its row holds, such as a reference answer, for verifiers; no model ever
            sees it.
    """

    messages: tuple[Message, ...]
    id: str = ""
    columns: Mapping[str, Any] = field(default_factory=dict, hash=False, compare=False)


@dataclass(slots=True)
class Usage:
    """What something cost.

    Attributes:
        prompt_tokens: Tokens of prompts and prefixes that were asked for.
        cached_tokens: Those of them that were read from a cache or shared with another request.
        generated_tokens: Tokens decoded.
        scored_tokens: Continuation tokens whose log-probability was computed.
        repeated_tokens: Tokens computed in vain: their request had to be made again.
        seconds: From the first request to the last result, summed over overlapping requests.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    scored_tokens: int = 0
    repeated_tokens: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))

    @property
    def computed_tokens(self) -> int:
        """Tokens that went through the model: all that were asked for and not cached."""
        new = self.prompt_tokens - self.cached_tokens
        return new + self.generated_tokens + self.scored_tokens + self.repeated_tokens


@dataclass(slots=True)
class Score:
    """What one reward says of one candidate.

    Attributes:
        value: The reward, higher is better; NaN if it failed.
        reason: Why it failed, None if it did not.
        inferred: The instructions inferred from the response, for rewards that infer any.
        flags: Remarks that do not change the value, such as "quotes_instruction".
        counts: What a judge's calls gave, such as how often it picked the response shown first.
        usage: What the score cost.
    """

    value: float = nan
    reason: str | None = None
    inferred: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)


@dataclass(slots=True)
class Candidate:
    """One response to a prompt.

    Attributes:
        index: Its place among the candidates of its prompt.
        text: The response without its reasoning.
        reasoning: What a thinking model wrote before its answer, None if it wrote none.
        finish_reason: "stop", "length" (cut at the token limit) or "error".
        error: Why there is no response, where finish_reason is "error".
        token_count: Tokens generated, reasoning and closing token included.
        mean_logprob: Mean log-probability of the generated tokens under the raw model, in nats;
            None where the generator gives none.
        sum_logprob: Their sum.
        seed: What it was drawn with, None without a run seed.
        token_ids: The generated tokens, where they were kept.
        token_logprobs: Their log-probabilities, where they were kept.
        scores: By the reward's name.
        usage: What drawing it cost.
    """

    index: int
    text: str
    reasoning: str | None = None
    finish_reason: FinishReason = "stop"
    error: str | None = None
    token_count: int | None = None
    mean_logprob: float | None = None
    sum_logprob: float | None = None
    seed: int | None = None
    token_ids: list[int] | None = None
    token_logprobs: list[float] | None = None
    scores: dict[str, Score] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)


@dataclass(slots=True)
class Pool:
    """The candidates that were drawn for one prompt, by index.

    `seconds` is the wall-clock time of drawing ("sample") and of each reward, by its name: a run's
    time shared out over its rows, so that they add up to it.
    """

    prompt: Prompt
    candidates: list[Candidate]
    seconds: dict[str, float] = field(default_factory=dict, kw_only=True)


@dataclass(slots=True)
class Selection(Pool):
    """A pool of which one candidate was chosen.

    Attributes:
        index: The chosen one.
        reward: The name of the reward that chose.
        tie: Whether another candidate had the same best value.
        fallback: Whether every score failed, so that the first candidate was taken.
        usage: What drawing and scoring all candidates cost; `seconds` is wall-clock time.
        error: Why there is no response: every candidate failed, or something before they were
            drawn; None where there is one.
    """

    index: int
    reward: str
    tie: bool = False
    fallback: bool = False
    usage: Usage = field(default_factory=Usage)
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
