"""What may be asked: the bodies of requests, in the form of OpenAI's API."""

from typing import Annotated, Any, Literal

from fastapi import HTTPException, Request
from pydantic import BeforeValidator, ConfigDict, Field
from pydantic_core import from_json

from bestofn.errors import ConfigError
from bestofn.section import S, Section, checked

IDLE = ("user", "metadata", "safety_identifier", "prompt_cache_key", "service_tier", "store")
"""Fields that change nothing."""
LONGEST = 500  # characters of a sentence, which may repeat what was sent


class RequestError(HTTPException):
    """A request that is answered with an error; `wait` is in seconds."""

    def __init__(
        self, said: str, status: int = 400, *, param: Any = None, code: Any = None, wait: int = 0
    ) -> None:
        super().__init__(status, said[:LONGEST], {"Retry-After": str(wait)} if wait else None)
        self.param, self.code = param, code


def _listed(value: Any) -> Any:
    """A list of a text; nothing of one without any."""
    return list(filter(None, [value])) if isinstance(value, str) else value


Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Texts = Annotated[list[Text], Field(max_length=16)]
Turns = Annotated[list[dict[str, Any]], Field(min_length=1)]


class Body(Section):
    """Fields of a request, each of exactly its type; an unknown one is refused."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class Settings(Body):
    """How the best is chosen."""

    n: Count | None = None  # candidates to draw
    reward: Text | None = None  # one of those that the server offers
    selector: Text | None = None  # such as "majority" or "soft=0.1"
    budget_tokens: Count | None = None  # of all candidates together
    reject: Annotated[list[Count], Field(max_length=16)] | None = None  # see `EarlyRejection`
    reject_keep: float | None = None
    candidates: bool = False  # whether the answer shows all of them


class ChatRequest(Body):
    """`POST /v1/chat/completions`."""

    model: Text
    messages: Turns
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    stop: Annotated[Texts | None, BeforeValidator(_listed)] = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    n: Count | None = None  # the best so many, by rank
    response_format: dict[str, Any] | None = None
    tools: Annotated[list[dict[str, Any]], Field(max_length=128)] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    logprobs: bool | None = None
    top_logprobs: Literal[0] | None = None  # those of other tokens are not kept
    bestofn: Settings = Settings()


class ScoreRequest(Body):
    """`POST /v1/score`: what a reward says of given responses."""

    model: Text | None = None
    reward: Text | None = None
    prompts: Annotated[list[Any], Field(min_length=1, max_length=256)]  # texts or messages
    responses: list[str | list[str]]  # for each prompt


async def read(request: Request, kind: type[S]) -> S:
    """The body of a request; RequestError if it is not JSON of this kind, or not sent as JSON."""
    # A page in a browser cannot send this type to another server unasked.
    kind_sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind_sent != "application/json":
        raise RequestError("send JSON, with the header 'content-type: application/json'", 415)
    try:
        fields = from_json(await request.body(), allow_inf_nan=False)
        if not isinstance(fields, dict):
            raise ConfigError("the request is a JSON object")
        given = {n: v for n, v in fields.items() if v is not None and n not in IDLE}
        return checked(kind, given, "the request")
    except ConfigError as error:
        raise RequestError(str(error), param=error.field) from None
    except ValueError as error:
        raise RequestError(f"the request is not JSON: {error}") from None
