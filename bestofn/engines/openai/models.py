"""Which model of which server is meant, where the server lists its models and where it does not."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from bestofn.engines.openai.answers import ModelCard, ModelList
from bestofn.engines.openai.failures import RefusedError, UnusableError
from bestofn.engines.openai.server import Server
from bestofn.errors import ConfigError, EngineError
from bestofn.redaction import without_secrets

EXAMPLE = "openai:http://HOST:PORT/v1#MODEL"
ENDPOINTS = ("/chat/completions", "/completions", "/models")
SHOWN = 8  # model names in a message
NOT_THERE = frozenset({404, 405, 501})
NO_LIST = NOT_THERE | {403}  # a key may be good for a model and not for the list of all
FAMILY = "models/"  # which Google's server puts before names in its list


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


async def list_models(server: Server, wanted: str) -> list[ModelCard]:
    """The models that a server lists; none where it has no list and the model is named.

    Raises:
        ConfigError: the URL lacks its /v1.
        EngineError: the server cannot be used, or has no list and the model is not named.
    """
    try:
        return (await server.get("/models", ModelList)).data
    except (RefusedError, UnusableError) as error:
        await _require_full_url(server)
        listless = error.status in NO_LIST if isinstance(error, RefusedError) else not error.is_page
        if not listless:
            raise
        if not wanted:
            raise EngineError(
                f"name the model, as {server.url}#MODEL: the server has no list of its models "
                f"({error.reason if isinstance(error, RefusedError) else error.what})"
            ) from error
        return []


def choose_card(url: str, wanted: str, served: list[ModelCard]) -> ModelCard:
    """The entry of the model that is wanted, or of the only one.

    Raises:
        ConfigError: none is named, and it is not the only one.
        EngineError: the server does not have it.
    """
    names = name_some([card.id for card in served])
    if wanted:
        matching = [card for card in served if card.id in (wanted, FAMILY + wanted)]
        if matching:
            return matching[0].model_copy(update={"id": wanted})
        if served and not any(_is_pattern(card) for card in served):
            raise EngineError(f"the server at {url} has no model {wanted!r}; it has {names}")
        return ModelCard(id=wanted)
    models = [card for card in served if card.parent is None]
    if len(models) != 1 or _is_pattern(models[0]):
        raise ConfigError(f"name one of the models at {url}, as {url}#MODEL; it has {names}")
    return models[0]


def name_some(names: Sequence[str]) -> str:
    more = [f"{len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return ", ".join([*names[:SHOWN], *more]) or "none"


def _is_pattern(card: ModelCard) -> bool:
    """Whether an entry is for many models, as gateways have it, such as "openai/*"."""
    return "*" in card.id


async def _require_full_url(server: Server) -> None:
    """Raises if the server's API is at /v1 behind the URL."""
    if server.url.endswith("/v1"):
        return
    full = f"{server.url}/v1"
    try:
        await server.get(f"{full}/models", ModelList)
    except RefusedError as error:
        if error.status != 401:
            return
    except EngineError:
        return
    raise ConfigError(f"the server's API is at {full}; write openai:{full}#MODEL")
