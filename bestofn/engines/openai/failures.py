"""Why a server gave no answer, in its own words and without a secret in them."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from bestofn.errors import EngineError

PASSING = frozenset({408, 409, 425, 429})  # and all from 500 on, but one
NEVER = 501  # not implemented
# Codes of status 429 that no waiting helps: OpenAI's and Moonshot's.
SPENT = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "exceeded_current_quota_error",
    }
)
LONGEST = 500  # characters of what a server says
TITLE = re.compile(r"<title[^>]*>\s*(.*?)\s*</title>", re.IGNORECASE | re.DOTALL)
PAGE = re.compile(r"\s*<(?:!doctype|html|head|body)\b", re.IGNORECASE)
INPUT = re.compile(r"""['"]input['"]: """)  # where pydantic's errors repeat the request


class RefusedError(EngineError):
    """The server will not answer this request, however often it is made.

    Attributes:
        status: The HTTP status, or the code in the body of an answer with status 200.
        reason: What the server says, in one line.
        said: All that it says, but not what it repeats of the request.
        param: The field that it names as the reason.
    """

    def __init__(
        self,
        url: str,
        status: int,
        reason: str,
        *,
        said: str | None = None,
        param: str | None = None,
        remedy: str | None = None,
    ) -> None:
        what = reason if status == 200 else f"{status}: {reason}"
        super().__init__(f"the server at {url} refuses ({what}){remedy or _remedy(status)}")
        self.url = url
        self.status = status
        self.reason = reason
        self.said = reason if said is None else said
        self.param = param

    def with_remedy(self, remedy: str) -> "RefusedError":
        return RefusedError(
            self.url, self.status, self.reason, said=self.said, param=self.param, remedy=remedy
        )


class UnusableError(EngineError):
    """The server answered with something else than what was asked for.

    Attributes:
        what: What it is.
        is_page: Whether it is a web page.
    """

    def __init__(self, url: str, what: str, is_page: bool = False) -> None:
        super().__init__(
            f"the server at {url} answers with {what}; check the URL, which mostly ends in /v1"
        )
        self.what = what
        self.is_page = is_page


class ErrorAnswer(Exception):  # noqa: N818
    """An answer with status 200 whose body is an error, as gateways send it."""

    def __init__(self, body: Any) -> None:
        super().__init__("an error with status 200")
        self.body = body
        code = str(body.get("code") or "") if isinstance(body, Mapping) else ""
        self.status_code = int(code) if re.fullmatch(r"[45]\d\d", code) else 200


def raise_error_within(data: object) -> None:
    """Raises if an answer is an error instead.

    Raises:
        ErrorAnswer: it is.
    """
    if isinstance(data, Mapping):
        if data.get("error"):
            raise ErrorAnswer(data["error"])
        if data.get("object") == "error":
            raise ErrorAnswer(data)


def may_pass(status: int, body: object) -> bool:
    """Whether the same request may be answered later."""
    fields = body if isinstance(body, Mapping) else {}
    if SPENT & {str(fields.get("code")), str(fields.get("type"))}:
        return False
    return status in PASSING or (status >= 500 and status != NEVER)


def as_unusable(url: str, data: object, error: Exception) -> UnusableError:
    """What an answer is that is not of the form that was asked for."""
    if isinstance(data, str):
        if PAGE.match(data):
            title = TITLE.search(data)
            named = f" ({title[1]!r})" if title else ""
            return UnusableError(url, f"a web page{named} instead of JSON", is_page=True)
        return UnusableError(url, "text that is not JSON")
    if not isinstance(error, ValidationError):
        return UnusableError(url, "text that is not JSON")
    where = ".".join(str(part) for part in error.errors()[0]["loc"])
    return UnusableError(url, f"JSON without usable {where!r}" if where else "JSON of another form")


def said_in(body: object) -> str:
    """What an error's body says, without what it repeats of the request."""
    if isinstance(body, Mapping):
        for key in ("message", "detail", "error", "msg"):
            if body.get(key):
                said = said_in(body[key])
                # A field that pydantic refuses is named by its place.
                place = [str(part) for part in body.get("loc") or () if part != "body"]
                return f"{'.'.join(place)}: {said}" if place else said
        return ""
    if isinstance(body, list | tuple):
        return "; ".join(filter(None, map(said_in, body)))
    text = str(body or "").strip()
    if PAGE.match(text):
        title = TITLE.search(text)
        return f"a web page, {title[1]!r}" if title else "a web page"
    return INPUT.split(text)[0].strip()


def one_line(said: str) -> str:
    line = next(iter(said.splitlines()), "") or "no reason given"
    return line[:LONGEST].rstrip(".")


def _remedy(status: int) -> str:
    return {
        401: "; set OPENAI_API_KEY to a key that it takes",
        403: "; use a key that is allowed to use this model",
        404: "; check the URL, which mostly ends in /v1, and the model's name",
    }.get(status, "")
