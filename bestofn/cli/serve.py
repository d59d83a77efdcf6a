"""The command that serves: best-of-N behind OpenAI's API."""

import logging
import socket
from typing import TYPE_CHECKING, Any

from bestofn.cli.app import app, notes, options, section
from bestofn.config.keys import read_keys
from bestofn.config.serving import ServeConfig
from bestofn.errors import ConfigError

if TYPE_CHECKING:
    import uvicorn

    from bestofn.serve.border import Border


@app.command()
@options(ServeConfig)
def serve(**given: Any) -> None:
    """Answer requests in the form of OpenAI's API with the best of N.

    It listens on this machine alone, unless there are keys. SIGTERM ends it once the requests under
    way are answered.
    """
    config = section(ServeConfig, given)
    try:
        from bestofn.serve.app import create_app
        from bestofn.serve.service import serving
    except ImportError as error:
        raise ConfigError(f"serving needs {error.name}: pip install 'bestofn[serve]'") from None
    keys = read_keys(config.api_key_file) if config.api_key_file else []
    listener = _listener(config)
    host = f"[{config.host}]" if ":" in config.host else config.host
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("bestofn.serve").setLevel(logging.INFO)
    with listener, serving(config) as service:
        listener.listen()  # those who read the line below may connect at once
        what = f"serving {service.name} at http://{host}:{listener.getsockname()[1]}/v1: the best"
        notes.print(
            f"{what} of {config.n} by {', '.join(service.rewards)}",
            soft_wrap=True,
            highlight=False,
        )
        make_server(create_app(service, config, keys), config).run(sockets=[listener])


def make_server(app: "Border", config: ServeConfig) -> "uvicorn.Server":
    """What serves an application, yet to be run."""
    import uvicorn

    from bestofn.serve.border import Protocol

    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=config.max_connections,
            timeout_graceful_shutdown=config.drain_seconds,
        )
    )


def _listener(config: ServeConfig) -> socket.socket:
    """The socket to listen on, bound before anything is loaded."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config.host, config.port))
    except OSError as error:
        listener.close()
        where = f"{config.host}:{config.port}"
        raise ConfigError(f"the server cannot listen on {where}: {error.strerror}") from None
    return listener
