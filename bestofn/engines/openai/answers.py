"""What is read of a server's answers.

An answer without what is needed of it is not used; what can be done without is as if it was not
there where it does not fit, such as a negative count.
"""

from math import isfinite
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    NonNegativeInt,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from bestofn.thinking import TAG

T = TypeVar("T")

# What servers, OpenAI's and vLLM's alike, put where they have no finite log-probability.
NO_LOGPROB = -9999.0


def _if_it_fits(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    try:
        return validate(value)
    except ValidationError:
        return None


def _text_of(content: Any) -> Any:
    """The text of content in parts, of which some hold reasoning."""
    if not isinstance(content, list):
        return content
    parts = [part for part in content if isinstance(part, dict) and part.get("type") == "text"]
    return "".join(str(part.get("text") or "") for part in parts)


IfItFits = Annotated[T | None, WrapValidator(_if_it_fits)]


class ModelCard(BaseModel):
    """One entry of the list of models; `max_model_len` and `parent` are vLLM's."""

    id: str
    owned_by: IfItFits[str] = None
    max_model_len: IfItFits[int] = None
    parent: IfItFits[str] = None


class ModelList(BaseModel):
    """The list may come bare."""

    data: list[ModelCard]

    @model_validator(mode="before")
    @classmethod
    def _wrap(cls, models: Any) -> Any:
        return {"data": models} if isinstance(models, list) else models


class Message(BaseModel):
    """Servers that split off the reasoning name it in one of two ways."""

    content: Annotated[str | None, BeforeValidator(_text_of)] = None
    reasoning: IfItFits[str] = None
    reasoning_content: IfItFits[str] = None

    @property
    def may_start_inside(self) -> bool:
        """Whether the content may begin inside reasoning that the chat template opened.

        It closes on a line of its own what nothing in it opens.
        """
        content = self.content or ""
        tag = TAG.search(content)
        if tag is None or not tag.group().startswith("</"):
            return False
        before, after = content[: tag.start()], content[tag.end() :]
        return not before.rpartition("\n")[2].strip() and not after.partition("\n")[0].strip()

    @property
    def split_off(self) -> str | None:
        """The reasoning that the server has split off; None if it split off nothing."""
        return self.reasoning or self.reasoning_content or None


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
    finish_reason: IfItFits[str] = None
    logprobs: IfItFits[Logprobs] = None
    token_ids: IfItFits[list[int]] = None

    @property
    def token_logprobs(self) -> list[float] | None:
        """Of all generated tokens, in nats; None if one of them is missing."""
        listed = (self.logprobs and self.logprobs.content) or []
        complete = self.token_ids is None or len(listed) == len(self.token_ids)
        if not listed or not complete or not all(entry.known for entry in listed):
            return None
        return [entry.logprob for entry in listed]


class PromptDetails(BaseModel):
    cached_tokens: IfItFits[NonNegativeInt] = None


class TokenUsage(BaseModel):
    prompt_tokens: IfItFits[NonNegativeInt] = None
    completion_tokens: IfItFits[NonNegativeInt] = None
    prompt_tokens_details: IfItFits[PromptDetails] = None

    @property
    def cached_tokens(self) -> int:
        return (self.prompt_tokens_details and self.prompt_tokens_details.cached_tokens) or 0


class ChatAnswer(BaseModel):
    choices: Annotated[list[ChatChoice], Field(min_length=1)]
    usage: IfItFits[TokenUsage] = None


class ScoredChoice(BaseModel):
    """For each prompt token the log-probabilities by token id; None for the first one."""

    prompt_logprobs: list[dict[str, Logprob] | None] | None = None


class ScoredAnswer(BaseModel):
    choices: Annotated[list[ScoredChoice], Field(min_length=1)]


class Tokens(BaseModel):
    tokens: list[int]


class Text(BaseModel):
    prompt: str
