"""The command that serves: best-of-N behind OpenAI's API."""

import logging
import socket
from typing import Any

from bestofn.cli.app import app, notes, options, section
from bestofn.config.keys import read_keys
from bestofn.config.serving import ServeConfig
from bestofn.errors import ConfigError


@app.command()
@options(ServeConfig)
def serve(**given: Any) -> None:
    """Answer requests in the form of OpenAI's API with the best of N.

    It listens on this machine alone, unless there are keys. SIGTERM ends it once the requests under
    way are answered.
    """
    config = section(ServeConfig, given)
    try:
        from bestofn.serve.app import make_server
        from bestofn.serve.service import serving
    except ImportError as error:
        raise ConfigError(f"serving needs {error.name}: pip install 'bestofn[serve]'") from None
    keys = read_keys(config.api_key_file) if config.api_key_file else []
    listener = _listener(config)
    host = f"[{config.host}]" if ":" in config.host else config.host
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("bestofn.serve").setLevel(logging.INFO)
    with listener, serving(config) as service:
        what = f"serving {service.name} at http://{host}:{listener.getsockname()[1]}/v1: the best"
        notes.print(
            f"{what} of {config.n} by {', '.join(service.rewards)}",
            soft_wrap=True,
            highlight=False,
        )
        make_server(service, config, keys).run(sockets=[listener])


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
