"""What may be asked: the bodies of requests, in the form of OpenAI's API."""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import HTTPException
from pydantic import BaseModel, ConfigDict, Field

from bestofn.errors import ConfigError

Text = Annotated[str, Field(min_length=1)]
Turns = list[dict[str, Any]]
BEST_OF = re.compile(r"(?P<model>.+):best-of-(?P<n>\d{1,6})")
LARGEST = 1 << 16  # characters of a JSON schema


class RequestError(HTTPException):
    """A request that is answered with an error, in the form of OpenAI's API."""

    def __init__(
        self,
        message: str,
        status: int = 400,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        wait = None if retry_after is None else {"Retry-After": str(retry_after)}
        super().__init__(status, message, wait)
        self.param, self.code = param, code


class Body(BaseModel):
    """Fields of a request; an unknown one is refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Rejection(Body):
    """Which candidates end early; see `EarlyRejection`."""

    at: Annotated[list[int], Field(min_length=1, max_length=16)]
    keep: float = 0.5


class Settings(Body):
    """How the best is chosen, in the field `bestofn` of a request."""

    n: Annotated[int, Field(ge=1)] | None = None  # candidates to draw
    reward: Text | None = None  # one of those that the server offers
    selector: Text | None = None  # such as "majority" or "soft=0.1"
    budget_tokens: Annotated[int, Field(ge=1)] | None = None  # of all candidates together
    reject: list[int] | Rejection | None = None
    candidates: bool = False  # whether the answer shows all of them


class StreamOptions(Body):
    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class NamedSchema(Body):
    name: Text
    description: str | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class ResponseFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None


class ChatRequest(Body):
    """`POST /v1/chat/completions`."""

    model: Text
    messages: Annotated[Turns, Field(min_length=1)]
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: Text | Annotated[list[Text], Field(max_length=16)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    n: Annotated[int, Field(ge=1)] | None = None  # the best so many, by rank
    response_format: ResponseFormat | None = None
    tools: Annotated[Turns, Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=0)] | None = None  # others' are not kept
    user: str | None = None  # these two change nothing
    metadata: dict[str, Any] | None = None
    bestofn: Settings = Settings()

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def limit(self) -> int | None:
        """The most tokens of an answer."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    def schema_of_answer(self) -> dict[str, Any] | None:
        """What `response_format` asks for."""
        form = self.response_format
        if form is None or form.type == "text":
            return None
        if form.type == "json_object":
            return {"type": "object"}
        if form.json_schema is None or form.json_schema.schema_ is None:
            raise RequestError("it needs a JSON schema", param="response_format.json_schema.schema")
        return form.json_schema.schema_

    def chosen_tool(self) -> str:
        """`tool_choice` as `SamplingParams` has it, or "none"."""
        choice = self.tool_choice
        if not isinstance(choice, Mapping):
            return choice or "auto"
        function = choice.get("function")
        name = function.get("name") if isinstance(function, Mapping) else None
        names = [(tool.get("function") or {}).get("name") for tool in self.tools or ()]
        if choice.get("type") != "function" or not isinstance(name, str) or name not in names:
            raise RequestError("it names none of the tools", param="tool_choice")
        return name


class ScoreRequest(Body):
    """`POST /v1/score`: what a reward says of given responses."""

    model: Text | None = None
    reward: Text | None = None
    prompts: Annotated[list[str | Turns], Field(min_length=1)]
    responses: Annotated[list[str | list[str]], Field(min_length=1)]  # for each prompt


def split_model(name: str) -> tuple[str, int | None]:
    """A model's name and how many candidates it says, as in MODEL:best-of-16."""
    found = BEST_OF.fullmatch(name)
    return (found["model"], int(found["n"])) if found else (name, None)


def check_size(value: Any, param: str) -> None:
    """Refuses schemas that take long to read."""
    if len(json.dumps(value)) > LARGEST:
        raise RequestError(f"it has more than {LARGEST} characters", 413, param=param)


def as_refusal(error: ConfigError, param: str | None = None) -> RequestError:
    """A refusal of what the package does not take, without most of what it repeats."""
    said = str(error)
    return RequestError(said if len(said) <= 500 else f"{said[:500]}…", param=param)
