"""One server: its client, its failures as errors of the package, and the models that it lists."""

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import openai

from bestofn import concurrency
from bestofn.errors import ConfigError, EngineError
from bestofn.redaction import is_secret, redacted, without_secrets

CONNECT_TIMEOUT = 10.0  # seconds; a server that is there accepts at once, however busy it is
UNUSABLE_RETRIES = 2  # what a server answers three times is no passing fault
NO_KEY = "no-key-needed"  # local servers take any; the client insists on one
SCHEME = re.compile(r"(?i)(basic|bearer|digest|token|apikey) ")
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")

# Codes of status 429 that no waiting helps: OpenAI's and Moonshot's.
SPENT = {
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "exceeded_current_quota_error",
}
NOT_IMPLEMENTED = 501
NOT_THERE = frozenset({404, 405, NOT_IMPLEMENTED})
NO_LIST = NOT_THERE | {403}  # a key may be good for a model and not for the list of all
# What an answer must hold, by the end of the path.
NEEDED = {"completions": "choices", "detokenize": "prompt", "tokenize": "tokens"}
REMEDIES = {
    401: "; set OPENAI_API_KEY to a key that it takes",
    403: "; use a key that is allowed to use this model",
    404: "; check the URL, which mostly ends in /v1, and the model's name",
}
LONGEST = 500  # characters of what a server says
TITLE = re.compile(r"<title[^>]*>\s*(.*?)\s*</title>", re.IGNORECASE | re.DOTALL)
PAGE = re.compile(r"\s*<(?:!doctype|html|head|body)\b", re.IGNORECASE)
INPUT = re.compile(r"""['"]input['"]: """)  # where pydantic's errors repeat the request

EXAMPLE = "openai:http://HOST:PORT/v1#MODEL"
ENDPOINTS = ("/chat/completions", "/completions", "/models")
SHOWN = 8  # model names in a message
FAMILY = "models/"  # which Google's server puts before names in its list

Card = Mapping[str, Any]
"""One entry of the list of models; `max_model_len` and `parent` are vLLM's."""


class Server:
    """One server, asked from the package's background loop only.

    Args:
        url: Where its paths begin, mostly ending in /v1.
        api_key: Sent with each request; None where the server needs none.
        max_concurrency: Requests under way at once.
        timeout: Seconds to wait for an answer.
        max_retries: How often a request is made again.
        headers: Sent with each request.

    Raises:
        ConfigError: the key, a header or the environment's proxy is unusable.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None,
        max_concurrency: int,
        timeout: float,
        max_retries: int,
        headers: Mapping[str, str],
    ) -> None:
        self.url = url
        self._timeout = timeout
        self._closed = False
        key = (api_key or "").strip()
        self._secrets = _secrets(key, headers)

        def connect() -> tuple[asyncio.Semaphore, openai.AsyncOpenAI]:
            client = _client(url, key or NO_KEY, timeout, max_retries, headers)
            return asyncio.Semaphore(max_concurrency), client

        self._connection = concurrency.PerProcess(connect)
        self._connection()

    async def models(self, url: str | None = None) -> list[Card]:
        """The models that the server lists, which may come as a bare list.

        Raises:
            openai.APIError: it lists none.
        """
        path = f"{url or self.url}/models"
        # One repetition: who mistypes a URL does not wait for a minute.
        answer: Any = await self._client.get(path, cast_to=object, options={"max_retries": 1})
        listed = answer["data"] if isinstance(answer, Mapping) else answer
        return [card for card in listed if isinstance(card, Mapping) and "id" in card]

    async def post(self, path: str, body: Mapping[str, Any], kind: Any = object) -> Any:
        """The server's answer, of the client's type `kind`.

        Raises:
            openai.APIError: it gave no usable answer, however often it was asked.
            EngineError: the engine was closed.
        """
        # The slot is kept while waiting: a server that is overloaded gets fewer requests.
        async with self._connection()[0]:
            try:
                self._require_open()
                return await self._client.post(path, cast_to=kind, body=dict(body))
            except (openai.APIError, RuntimeError):
                self._require_open()
                raise

    @property
    def _client(self) -> openai.AsyncOpenAI:
        return self._connection()[1]

    def beside(self, path: str) -> str:
        """The URL of an endpoint that is beside /v1, not under it."""
        return f"{self.url.removesuffix('/v1')}/{path}"

    def _require_open(self) -> None:
        if self._closed:
            raise EngineError("the engine is closed; load it again")

    def as_engine_error(self, error: openai.APIError, remedy: str | None = None) -> EngineError:
        """What the client's error means, in a sentence without a secret."""
        if not isinstance(error, openai.APIStatusError):
            slow = isinstance(error, openai.APITimeoutError)
            cause = type(error.__cause__).__name__
            if cause in ("ConnectError", "ConnectTimeout", "ProxyError"):
                return EngineError(self._unreachable(str(error.__cause__)))
            what = f"no answer within {self._timeout:g} s" if slow else "a broken connection"
            return self._failed(error, what)
        unusable, method = unusable_part(error), error.request.method
        if unusable and method == "GET":
            return EngineError(
                f"the server at {self.url} answers with {unusable}; check the URL, which mostly "
                "ends in /v1"
            )
        if unusable:
            return self._failed(error, unusable)
        reason, status = redacted(first_line(said_in(error.body)), self._secrets), error.status_code
        if may_pass(error):
            return self._failed(error, f"status {status} ({reason})")
        remedy = REMEDIES.get(status, "") if remedy is None else remedy
        return EngineError(f"the server at {self.url} refuses ({status}: {reason}){remedy}")

    def _failed(self, error: openai.APIError, what: str) -> EngineError:
        attempts = int(error.request.headers["x-stainless-retry-count"]) + 1
        return EngineError(
            f"the server at {self.url} failed {attempts} times, at last with {what}; see to the "
            "server, or load the engine with more max_retries"
        )

    def _unreachable(self, cause: str) -> str:
        if "[SSL" in cause:
            return (
                f"no secure connection to {self.url} ({cause}); write http:// if the server speaks "
                "no HTTPS, or set SSL_CERT_FILE to the certificate of its authority"
            )
        proxy = _proxy_variable(self.url)
        if proxy is None:
            return f"no server answers at {self.url}; start it, or correct the URL"
        return (
            f"no server answers at {self.url} through the proxy in {proxy}; start it, correct "
            "the URL or the proxy, or name the host in NO_PROXY"
        )

    def close(self) -> None:
        """Closes all connections; requests under way fail."""
        if not self._closed:
            self._closed = True
            asyncio.run_coroutine_threadsafe(self._client.close(), concurrency.background_loop())


def _client(
    url: str, api_key: str, timeout: float, max_retries: int, headers: Mapping[str, str]
) -> openai.AsyncOpenAI:
    _require_headers({"Authorization": f"Bearer {api_key}"} | dict(headers))
    try:
        client = openai.AsyncOpenAI(
            api_key=api_key,
            base_url=url,
            timeout=openai.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT)),
            max_retries=max_retries,
            default_headers=headers,
            http_client=openai.DefaultAsyncHttpxClient(
                trust_env=not _is_this_machine(url),  # no proxy reaches the loopback interface
                event_hooks={"response": [_as_openai_answers]},
            ),
        )
    except ImportError as error:
        raise ConfigError(
            "a SOCKS proxy (ALL_PROXY, HTTP_PROXY or HTTPS_PROXY) needs the socksio package: "
            "pip install socksio, or unset the variable"
        ) from error
    except Exception as error:  # of several kinds, by the version of the HTTP library
        raise ConfigError(
            "the proxy in ALL_PROXY, HTTP_PROXY or HTTPS_PROXY is unusable; it has the form "
            "http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT"
        ) from error
    # The client adds headers of the environment, such as the organisation.
    _require_headers({k: v for k, v in client.default_headers.items() if isinstance(v, str)})
    return client


def _require_headers(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if not isinstance(value, str) or not isinstance(name, str):
            raise ConfigError(f"the header {name!r} must be a text")
        if not HEADER_NAME.fullmatch(name):
            raise ConfigError(f"{name!r} is not the name of an HTTP header")
        if not HEADER_VALUE.fullmatch(value):
            what = "the API key" if name == "Authorization" else f"the header {name}"
            raise ConfigError(
                f"{what} holds a character that HTTP headers cannot carry, such as a line break "
                "or a letter beyond ASCII; copy it again"
            )


def _secrets(key: str, headers: Mapping[str, str]) -> set[str]:
    """What no message may hold: the key, and the values of headers whose names say so."""
    values = [key, *(str(value).strip() for name, value in headers.items() if is_secret(name))]
    # Behind a scheme, such as "Bearer", the rest is the secret.
    bare = [value.partition(" ")[2] for value in values if SCHEME.match(value)]
    return {value for value in (*values, *bare) if value}


def _is_this_machine(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    with suppress(ValueError):
        address = ip_address(host)
        return address.is_loopback or address.is_unspecified
    return host == "localhost" or host.endswith(".localhost")


def _proxy_variable(url: str) -> str | None:
    """The variable of the environment whose proxy requests to this URL go through."""
    parts, proxies = urlsplit(url), getproxies()
    name = next((scheme for scheme in (parts.scheme, "all") if proxies.get(scheme)), None)
    if name is None or _is_this_machine(url) or proxy_bypass(parts.netloc):
        return None
    return f"{name.upper()}_PROXY"


# --- what servers answer --------------------------------------------------------------------------


async def _as_openai_answers(response: Any) -> None:
    """Gives an answer the status and the header by which the client retries, as OpenAI would.

    Gateways send errors with status 200, and some servers a web page or half an answer.
    """
    await response.aread()
    try:
        body = json.loads(response.content)
    except ValueError:
        body = None
    error = body.get("error") if isinstance(body, Mapping) else None
    if isinstance(body, Mapping) and body.get("object") == "error":
        error = body
    if response.is_success and error:
        code = str(error.get("code") or "") if isinstance(error, Mapping) else ""
        response.status_code = int(code) if re.fullmatch(r"[45]\d\d", code) else 400
    elif response.is_success and (unusable := _unusable(response, body)):
        response.status_code = 502
        response.extensions["unusable"] = unusable
        repeated = int(response.request.headers.get("x-stainless-retry-count", 0))
        if response.request.method == "GET" or repeated >= UNUSABLE_RETRIES:
            response.headers["x-should-retry"] = "false"
    codes = {str(error.get("code")), str(error.get("type"))} if isinstance(error, Mapping) else {}
    if SPENT.intersection(codes) or response.status_code == NOT_IMPLEMENTED:
        response.headers["x-should-retry"] = "false"


def _unusable(response: Any, body: Any) -> str | None:
    """What an answer is that is not of the form that was asked for."""
    if body is None:
        page = PAGE.match(response.text)
        title = TITLE.search(response.text)
        named = f" ({title[1]!r})" if title else ""
        return f"a web page{named} instead of JSON" if page else "text that is not JSON"
    *_, endpoint = response.request.url.path.rstrip("/").split("/")
    if endpoint == "models":
        listed = body.get("data") if isinstance(body, Mapping) else body
        return None if isinstance(listed, list) else "JSON without usable 'data'"
    needed = NEEDED[endpoint]
    found = body.get(needed) if isinstance(body, Mapping) else None
    empty = found is None or (needed == "choices" and not found)
    return f"JSON without usable {needed!r}" if empty else None


def unusable_part(error: openai.APIStatusError) -> str | None:
    """What the server answered with instead of what was asked for."""
    found: str | None = error.response.extensions.get("unusable")
    return found


def may_pass(error: openai.APIStatusError) -> bool:
    """Whether the same request may be answered later."""
    passing = error.status_code in (408, 409, 429) or error.status_code >= 500
    return passing and error.response.headers.get("x-should-retry") != "false"


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


def first_line(said: str) -> str:
    line = next(iter(said.splitlines()), "") or "no reason given"
    return line[:LONGEST].rstrip(".")


# --- which model of which server ------------------------------------------------------------------


def url_and_model(spec: str) -> tuple[str, str]:
    """The parts of `URL#MODEL`; the model may be empty.

    Raises:
        ConfigError: the URL is not one of a server.
    """
    url, _, model = spec.strip().partition("#")
    url = url.rstrip("/")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname
        _ = parts.port  # raises where it is no number
    except ValueError:
        usable = False
        parts = urlsplit("")
    if parts.username is not None or parts.query:
        raise ConfigError(
            "a server's URL must hold no key and no query; set OPENAI_API_KEY instead, and write "
            f"{EXAMPLE}"
        )
    if not usable:
        raise ConfigError(f"{without_secrets(url)!r} is no server's URL; write {EXAMPLE}")
    for endpoint in ENDPOINTS:
        if url.endswith(endpoint):
            base = url.removesuffix(endpoint)
            raise ConfigError(f"{url!r} is one endpoint of a server; write openai:{base}#MODEL")
    return url, model


async def list_models(server: Server, wanted: str) -> list[Card]:
    """The models that a server lists; none where it has no list and the model is named.

    Raises:
        ConfigError: the URL lacks its /v1.
        EngineError: the server cannot be used, or has no list and the model is not named.
    """
    try:
        return await server.models()
    except openai.APIStatusError as error:
        await _require_full_url(server)
        unusable = unusable_part(error)
        listless = "a web page" not in unusable if unusable else error.status_code in NO_LIST
        if not listless:
            raise server.as_engine_error(error) from None
        if not wanted:
            raise EngineError(
                f"name the model, as {server.url}#MODEL: the server has no list of its models "
                f"({unusable or first_line(said_in(error.body))})"
            ) from None
        return []
    except openai.APIError as error:
        raise server.as_engine_error(error) from error


def choose_card(url: str, wanted: str, served: Sequence[Card]) -> Card:
    """The entry of the model that is wanted, or of the only one.

    Raises:
        ConfigError: none is named, and it is not the only one.
        EngineError: the server does not have it.
    """
    names = name_some([card["id"] for card in served])
    if wanted:
        for card in served:
            if card["id"] in (wanted, FAMILY + wanted):
                return {**card, "id": wanted}
        if served and not any(_is_pattern(card) for card in served):
            raise EngineError(f"the server at {url} has no model {wanted!r}; it has {names}")
        return {"id": wanted}
    models = [card for card in served if card.get("parent") is None]
    if len(models) != 1 or _is_pattern(models[0]):
        raise ConfigError(f"name one of the models at {url}, as {url}#MODEL; it has {names}")
    return models[0]


def name_some(names: Sequence[str]) -> str:
    more = [f"{len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return ", ".join([*names[:SHOWN], *more]) or "none"


def _is_pattern(card: Card) -> bool:
    """Whether an entry is for many models, as gateways have it, such as "openai/*"."""
    return "*" in card["id"]


async def _require_full_url(server: Server) -> None:
    """Raises if the server's API is at /v1 behind the URL."""
    full = f"{server.url}/v1"
    if server.url.endswith("/v1"):
        return
    try:
        await server.models(full)
    except openai.APIError as error:
        if getattr(error, "status_code", None) != 401:
            return
    raise ConfigError(f"the server's API is at {full}; write openai:{full}#MODEL")
