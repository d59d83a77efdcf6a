"""One server: its client, and its failures as errors of the package."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import suppress
from heapq import heappop, heappush
from ipaddress import ip_address
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import openai

from bestofn import concurrency
from bestofn.errors import ConfigError, EngineError
from bestofn.redaction import is_secret, redacted, without_secrets

CONNECT_TIMEOUT = 10.0  # seconds; a server that is there accepts at once, however busy it is
UNUSABLE_RETRIES = 2  # what a server answers three times is no passing fault
NO_KEY = "no-key-needed"  # local servers take any; the client insists on one
SCHEME = re.compile(r"(?i)(basic|bearer|digest|token|apikey) ")
HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e]*")
ENDPOINTS = ("/chat/completions", "/completions", "/models")

# Codes of status 429 that no waiting helps, such as insufficient_quota: OpenAI's and Moonshot's.
SPENT = re.compile(r"insufficient_quota|billing_\w+|exceeded_current_quota_error")
NOT_IMPLEMENTED = 501
NOT_THERE = frozenset({404, 405, NOT_IMPLEMENTED})
# What an answer must hold, by the end of the path.
NEEDED = {"completions": "choices", "detokenize": "prompt", "tokenize": "tokens"}
REMEDIES = {
    401: "; set OPENAI_API_KEY to a key that it takes",
    403: "; use a key that is allowed to use this model",
    404: "; check the URL, which mostly ends in /v1, and the model's name",
}
UNREACHABLE = "no server answers at {}; start it, or correct the URL, or the environment's proxy"
INSECURE = (
    "no secure connection to {} ({}); write http:// if the server speaks no HTTPS, or set "
    "SSL_CERT_FILE to the certificate of its authority"
)
LONGEST = 500  # characters of what a server says
PAGE = re.compile(r"\s*<(?:!doctype|html|head|body)\b", re.IGNORECASE)
TITLE = re.compile(r"<title[^>]*>\s*(.*?)\s*</title>", re.IGNORECASE | re.DOTALL)
INPUT = re.compile(r"""['"]input['"]: """)  # where pydantic's errors repeat the request


class Slots:
    """Room for requests under way at once; the next one is that of the earliest prompt."""

    def __init__(self, free: int) -> None:
        self._all = self._free = free
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = count()

    @property
    def taken(self) -> int:
        return self._all - self._free

    async def __aenter__(self) -> None:
        if self._free:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        heappush(self._waiting, (concurrency.place_in_run(), next(self._numbers), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it was this one's turn already
                await self.__aexit__()
            raise

    async def __aexit__(self, *_: object) -> None:
        while self._waiting:
            turn = heappop(self._waiting)[2]
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class RefusedError(EngineError):
    """The server does not take a request.

    Attributes:
        status: HTTP's.
        said: What the server says about it.
        field: The field of the request that it names, if any.
    """

    def __init__(self, sentence: str, error: openai.APIStatusError, said: str) -> None:
        self.sentence, self.status = sentence, error.status_code
        self.said, self.field = said, error.param
        super().__init__(sentence + REMEDIES.get(self.status, ""))


class Server:
    """One server, asked from the package's background loop only; see `OpenAIEngine`.

    Raises:
        ConfigError: the URL, the key, a header or the environment's proxy is unusable.
    """

    def __init__(
        self,
        url: str,
        key: str,
        max_concurrency: int,
        timeout: float,
        max_retries: int,
        headers: Mapping[str, str],
    ) -> None:
        _require_url(url)
        headers = {str(name): str(value).strip() for name, value in headers.items()}
        values = [key, *(value for name, value in headers.items() if is_secret(name))]
        # Behind a scheme, such as "Bearer", the rest is the secret.
        bare = [value.partition(" ")[2] for value in values if SCHEME.match(value)]
        self._secrets = {*values, *bare}
        self.url = url
        self._timeout = timeout
        self._closed = False

        def connect() -> tuple[Slots, Slots, openai.AsyncOpenAI]:
            client = _client(url, key, timeout, max_retries, headers)
            return Slots(max_concurrency), Slots(max_concurrency), client

        self._connection = concurrency.PerProcess(connect)
        self._connection()

    @property
    def running(self) -> int:
        """Requests that are not answered, streams included."""
        slots, streams, _ = self._connection()
        return slots.taken + streams.taken

    async def models(self, url: str) -> list[Mapping[str, Any]]:
        """The models that are listed below a URL; some servers have a bare list.

        Raises:
            EngineError: none are listed.
        """
        # One repetition: who mistypes a URL does not wait for a minute.
        options: Any = {"max_retries": 1}
        get = self._connection()[-1].get(f"{url}/models", cast_to=object, options=options)
        answer: Any = await self._answer(get)
        listed = answer.get("data") if isinstance(answer, Mapping) else answer
        cards = listed if isinstance(listed, list) else []
        return [card for card in cards if isinstance(card, Mapping) and "id" in card]

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The server's answer, as JSON.

        Raises:
            RefusedError: it does not take the request.
            EngineError: it gave no usable answer, however often it was asked; or was closed.
        """
        # The slot is kept while waiting: a server that is overloaded gets fewer requests.
        slots, _, client = self._connection()
        async with slots:
            self._require_open()
            return await self._answer(client.post(path, cast_to=object, body=dict(body)))

    async def stream(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[Mapping[str, Any]]:
        """The pieces of an answer that is asked for as a stream; closing it ends the request.

        Streams have slots of their own, as requests about their text are made while they run.

        Raises:
            RefusedError, EngineError: as `post`; the second also in the middle, and then for good.
        """
        _, slots, client = self._connection()
        async with slots:
            self._require_open()
            kind = openai.AsyncStream[object]
            request = client.post(
                path, cast_to=object, body=dict(body), stream=True, stream_cls=kind
            )
            pieces: Any = await self._answer(request)
            async with pieces:
                try:
                    async for piece in pieces:
                        if isinstance(piece, Mapping):
                            yield piece
                except Exception as error:  # of the client, of its HTTP library or of JSON
                    self._require_open()
                    first = next(iter(str(error).splitlines()), "") or type(error).__name__
                    said = redacted(first[:LONGEST].rstrip("."), self._secrets)
                    what = f"the server at {self.url} broke its answer off ({said})"
                    raise EngineError(what) from None

    async def _answer(self, request: Awaitable[Any]) -> Any:
        try:
            return await request
        except (openai.APIError, RuntimeError) as error:
            self._require_open()
            if isinstance(error, openai.APIError):
                raise self._failure(error) from None  # a cause may show the key
            raise

    def _require_open(self) -> None:
        if self._closed:
            raise EngineError("the engine is closed; load it again")

    def _failure(self, error: openai.APIError) -> EngineError:
        """What the client's error means, in a sentence without a secret."""
        cause, hint = error.__cause__, "see to the server, or load the engine with more max_retries"
        if type(cause).__name__ in ("ConnectError", "ConnectTimeout", "ProxyError"):
            what = INSECURE if "[SSL" in str(cause) else UNREACHABLE
            return EngineError(what.format(self.url, cause))
        if not isinstance(error, openai.APIStatusError):
            slow = isinstance(error, openai.APITimeoutError)
            failure = f"no answer within {self._timeout:g} s" if slow else "a broken connection"
        elif unusable := error.response.extensions.get("unusable"):
            failure, hint = unusable, "check the URL, which mostly ends in /v1, and the server"
        else:
            status, said = error.status_code, said_in(error.body)
            first = next(iter(said.splitlines()), "") or "no reason given"
            reason = redacted(first[:LONGEST].rstrip("."), self._secrets)
            failure = f"status {status} ({reason})"
            passing = status in (408, 409, 429) or status >= 500
            if not passing or error.response.headers.get("x-should-retry") == "false":
                sentence = f"the server at {self.url} refuses ({status}: {reason})"
                return RefusedError(sentence, error, said)
        attempts = int(error.request.headers["x-stainless-retry-count"]) + 1
        return EngineError(
            f"the server at {self.url} failed {attempts} times, at last with {failure}; {hint}"
        )

    def close(self) -> None:
        """Closes all connections; requests under way fail."""
        if not self._closed:
            self._closed = True
            client = self._connection()[-1]
            asyncio.run_coroutine_threadsafe(client.close(), concurrency.background_loop())


def _require_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != -1
        secret = parts.username is not None or bool(parts.query)
    except ValueError:  # of a port that is no number
        usable = None
    if not usable or secret or url.endswith(ENDPOINTS):
        raise ConfigError(
            f"{without_secrets(url)!r} is no server's URL; write openai:http://HOST:PORT/v1#MODEL, "
            "with no endpoint behind it and no key in it, for which there is OPENAI_API_KEY"
        )


def _is_this_machine(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    with suppress(ValueError):
        address = ip_address(host)
        return address.is_loopback or address.is_unspecified
    return host == "localhost" or host.endswith(".localhost")


def _client(
    url: str, key: str, timeout: float, max_retries: int, headers: Mapping[str, str]
) -> openai.AsyncOpenAI:
    try:
        client = openai.AsyncOpenAI(
            api_key=key or NO_KEY,
            base_url=url,
            timeout=openai.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT)),
            max_retries=max_retries,
            default_headers=headers,
            http_client=openai.DefaultAsyncHttpxClient(
                trust_env=not _is_this_machine(url),  # no proxy reaches the loopback interface
                event_hooks={"response": [_as_openai_answers]},
            ),
        )
    except Exception as error:  # of several kinds, by the version of the HTTP library
        raise ConfigError(
            "the proxy in ALL_PROXY, HTTP_PROXY or HTTPS_PROXY is unusable; it has the form "
            "http://HOST:PORT, https://HOST:PORT or, after pip install socksio, socks5://HOST:PORT"
        ) from error
    # The client adds headers of the environment, such as the organisation.
    for name, value in {"Authorization": key, **client.default_headers}.items():
        if isinstance(value, str) and not HEADER.fullmatch(f"{name}:{value}"):
            what = "the API key" if name == "Authorization" else f"the header {name!r}"
            raise ConfigError(
                f"{what} holds a character that HTTP headers cannot carry, such as a line break "
                "or a letter beyond ASCII; copy it again"
            )
    return client


# --- what servers answer --------------------------------------------------------------------------


async def _as_openai_answers(response: Any) -> None:
    """Gives an answer the status and the header by which the client retries, as OpenAI would.

    Gateways send errors with status 200, and some servers a web page or half an answer.
    """
    kind = str(response.headers.get("content-type", ""))
    if response.is_success and kind.startswith("text/event-stream"):
        return
    await response.aread()
    try:
        body = json.loads(response.content)
    except ValueError:
        body = None
    fields = body if isinstance(body, Mapping) else {}
    error = fields if fields.get("object") == "error" else fields.get("error")
    named = error if isinstance(error, Mapping) else {}
    final = response.status_code == NOT_IMPLEMENTED
    if response.is_success and error:
        code = str(named.get("code") or "")
        response.status_code = int(code) if re.fullmatch(r"[45]\d\d", code) else 400
    elif response.is_success and (unusable := _unusable(response, body)):
        response.status_code = 502
        response.extensions["unusable"] = unusable
        repeated = int(response.request.headers.get("x-stainless-retry-count", 0))
        final = response.request.method == "GET" or repeated >= UNUSABLE_RETRIES
    if final or SPENT.search(f"{named.get('code')} {named.get('type')}"):
        response.headers["x-should-retry"] = "false"


def _unusable(response: Any, body: Any) -> str | None:
    """What an answer is that is not of the form that was asked for."""
    if body is None:
        page = PAGE.match(response.text)
        return f"{said_in(response.text)} instead of JSON" if page else "text that is not JSON"
    needed = NEEDED.get(response.request.url.path.rstrip("/").rpartition("/")[2])
    found = body.get(needed) if isinstance(body, Mapping) else None
    usable = isinstance(found, list | str) and (found or needed != "choices")
    return None if usable or needed is None else f"JSON without usable {needed!r}"


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
        return f"a web page ({title[1]!r})" if title else "a web page"
    return INPUT.split(text)[0].strip()
