"""The HTTP client of one server: its proxy, and a key and headers that HTTP can carry."""

import re
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_address
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import openai

from bestofn.errors import ConfigError

CONNECT_TIMEOUT = 10.0  # seconds; a server that is there accepts at once, however busy it is
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")


def make_client(
    url: str, api_key: str, timeout: float, headers: Mapping[str, str]
) -> openai.AsyncOpenAI:
    """A client that makes each request once.

    Raises:
        ConfigError: the key, a header or the environment's proxy is unusable.
    """
    _require_headers({"Authorization": f"Bearer {api_key}"} | dict(headers))
    try:
        client = openai.AsyncOpenAI(
            api_key=api_key,
            base_url=url,
            timeout=openai.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT)),
            max_retries=0,  # the client does not retry an unparseable answer
            default_headers=headers,
            # No proxy reaches this machine's own loopback interface.
            http_client=openai.DefaultAsyncHttpxClient(trust_env=not _is_this_machine(url)),
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


def proxy_variable(url: str) -> str | None:
    """The variable of the environment whose proxy requests to this URL go through."""
    parts = urlsplit(url)
    proxies = getproxies()
    name = next((scheme for scheme in (parts.scheme, "all") if proxies.get(scheme)), None)
    if name is None or _is_this_machine(url) or proxy_bypass(parts.netloc):
        return None
    return f"{name.upper()}_PROXY"


def _is_this_machine(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    with suppress(ValueError):
        address = ip_address(host)
        return address.is_loopback or address.is_unspecified
    return host == "localhost" or host.endswith(".localhost")


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
