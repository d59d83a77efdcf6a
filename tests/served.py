"""A server of best-of-N in a thread of this process, and what is asked of it."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from fakes import Recorded, ScriptedEngine, wait_until

from bestofn import BestOfN
from bestofn.cli.serve import make_server
from bestofn.config.keys import KeyConfig
from bestofn.config.serving import ServeConfig
from bestofn.engines.base import Engine
from bestofn.scoring import RewardModel
from bestofn.serve.app import create_app
from bestofn.serve.service import Service

ASKED = [{"role": "user", "content": "Name 3 fruits."}]
JSON = {"content-type": "application/json"}


class Answered(NamedTuple):
    status: int
    body: Any
    headers: Mapping[str, str]


class Served(NamedTuple):
    url: str  # without /v1
    service: Service

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").partition(":")
        return host, int(port)

    def get(self, path: str, **headers: str) -> Answered:
        return _sent(Request(f"{self.url}{path}", headers=headers))

    def post(self, path: str, body: Any, headers: Mapping[str, str] = JSON) -> Answered:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return _sent(Request(f"{self.url}{path}", data, dict(headers)))

    def chat(self, headers: Mapping[str, str] = JSON, **fields: Any) -> Answered:
        body = {"model": self.service.name, "messages": ASKED} | fields
        return self.post("/v1/chat/completions", body, headers)

    def metric(self, name: str, **headers: str) -> float:
        """A number out of the metrics; those with labels are named with them."""
        lines = self.get("/metrics", **headers).body.splitlines()
        return next((float(v) for n, _, v in (x.rpartition(" ") for x in lines) if n == name), 0.0)


def _sent(request: Request) -> Answered:
    try:
        with urlopen(request, timeout=60) as response:
            status, data, headers = response.status, response.read(), response.headers
    except HTTPError as error:
        status, data, headers = error.code, error.read(), error.headers
    text = data.decode()
    body = json.loads(text) if "json" in headers.get("content-type", "") else text
    return Answered(status, body, dict(headers.items()))


@contextlib.contextmanager
def served(
    engine: Any = None,
    *rewards: RewardModel,
    keys: Sequence[KeyConfig] = (),
    n: int = 4,
    **settings: Any,
) -> Iterator[Served]:
    """Serves an engine, by default a scripted one that answers with the number of its call."""
    engine = engine or ScriptedEngine(numbered())
    rewards = rewards or (Recorded({f"answer {i}": float(i) for i in range(1000)}),)
    config = ServeConfig(engine="tiny", model_name="model", n=n, **settings)
    sampling = config.sampling() if isinstance(engine, Engine) else None
    best = BestOfN(engine, rewards[0], n=n, sampling=sampling)
    service = Service(config, best, {reward.name: reward for reward in rewards})
    server = make_server(create_app(service, config, keys), config)
    listener = socket.create_server((config.host, 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}", service)
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()


def numbered() -> Any:
    """Answers "answer 0", "answer 1", ..."""
    count = iter(range(1_000_000))
    return lambda prompt, params, seed: f"answer {next(count)}"
