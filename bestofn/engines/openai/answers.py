"""What is read of a server's answers; an answer that does not fit is not used."""

from math import isfinite
from typing import Annotated

from pydantic import BaseModel, Field, NonNegativeInt

# What servers, OpenAI's and vLLM's alike, put where they have no finite log-probability.
NO_LOGPROB = -9999.0


class ModelCard(BaseModel):
    """One entry of the list of models; `max_model_len` and `parent` are vLLM's."""

    id: str
    owned_by: str | None = None
    max_model_len: int | None = None
    parent: str | None = None


class ModelList(BaseModel):
    data: list[ModelCard]


class Message(BaseModel):
    """Servers that split off the reasoning name it in one of two ways."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class Logprob(BaseModel):
    logprob: float

    @property
    def known(self) -> bool:
        return isfinite(self.logprob) and self.logprob > NO_LOGPROB


class Logprobs(BaseModel):
    content: list[Logprob] | None = None


class ChatChoice(BaseModel):
    """`token_ids` is vLLM's."""

    message: Message
    finish_reason: str | None = None
    logprobs: Logprobs | None = None
    token_ids: list[int] | None = None

    @property
    def token_logprobs(self) -> list[float] | None:
        """Of all generated tokens, in nats; None if one of them is missing."""
        listed = (self.logprobs and self.logprobs.content) or []
        complete = self.token_ids is None or len(listed) == len(self.token_ids)
        if not listed or not complete or not all(entry.known for entry in listed):
            return None
        return [entry.logprob for entry in listed]


class PromptDetails(BaseModel):
    cached_tokens: NonNegativeInt | None = None


class TokenUsage(BaseModel):
    prompt_tokens: NonNegativeInt = 0
    completion_tokens: NonNegativeInt | None = None
    prompt_tokens_details: PromptDetails | None = None

    @property
    def cached_tokens(self) -> int:
        return (self.prompt_tokens_details and self.prompt_tokens_details.cached_tokens) or 0


class ChatAnswer(BaseModel):
    choices: Annotated[list[ChatChoice], Field(min_length=1)]
    usage: TokenUsage | None = None


class ScoredChoice(BaseModel):
    """For each prompt token the log-probabilities by token id; None for the first one."""

    prompt_logprobs: list[dict[str, Logprob] | None] | None = None


class ScoredAnswer(BaseModel):
    choices: Annotated[list[ScoredChoice], Field(min_length=1)]


class Tokens(BaseModel):
    tokens: list[int]


class Text(BaseModel):
    prompt: str
