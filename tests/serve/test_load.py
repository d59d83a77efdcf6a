"""Many clients at once, some rude, over a server that is killed; run as a command of its own."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import psutil
import pytest
from fakes import wait_until
from faulty_server import FaultyServer
from served import ASKED, Served

BAD: list[Any] = [
    b"{",
    {"model": "model"},
    {"model": "other", "messages": ASKED},
    {"model": "model", "messages": ASKED, "nonsense": 1},
    {"model": "model", "messages": ASKED, "bestofn": {"n": 10**9}},
]


class Command(NamedTuple):
    process: subprocess.Popen[str]
    server: Served

    @property
    def memory(self) -> int:
        return int(psutil.Process(self.process.pid).memory_info().rss)


@contextmanager
def command(log: Path, *arguments: str) -> Iterator[Command]:
    """`bestofn serve` in a process of its own."""
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "bestofn", "serve", "--port", "0", *arguments],
            stderr=errors,
            text=True,
        )
    try:
        wait_until(lambda: "serving" in log.read_text() or process.poll() is not None)
        said = log.read_text()
        assert "serving" in said, said
        url = said.partition(" at ")[2].partition("/v1")[0]
        service: Any = type("Named", (), {"name": "model"})
        server = Served(url, service)
        wait_until(lambda: _is_up(server))
        yield Command(process, server)
    finally:
        process.kill()
        process.wait()


def _is_up(server: Served) -> bool:
    try:
        return server.get("/health").status == 200
    except OSError:
        return False


async def storm(url: str, clients: int, requests: int, upstream: FaultyServer) -> Counter[str]:
    """What became of so many requests; a tenth hangs up, a tenth is nonsense."""
    rng, counts = random.Random(0), Counter[str]()
    kinds = ["good"] * 8 + ["gone", "bad"]
    work = [(number, kinds[number % 10]) for number in range(requests)]
    rng.shuffle(work)
    left = iter(enumerate(work))
    killing = asyncio.Lock()
    kills = [requests // 4, requests // 2, 3 * requests // 4]

    async def one(session: aiohttp.ClientSession, number: int, kind: str) -> str:
        body: Any = {
            "model": "model",
            "messages": [{"role": "user", "content": f"prompt {number}"}],
        }
        body["stream"] = kind == "good" and number % 4 == 0
        if kind == "bad":
            body = BAD[number % len(BAD)]
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        own = {"content-type": "application/json"}
        post = session.post(f"{url}/v1/chat/completions", data=data, headers=own)
        if kind == "gone":
            try:
                async with asyncio.timeout(rng.random() / 20):
                    async with post as response:
                        await response.read()
            except TimeoutError:
                return "gone"
            return "answered before it was gone"
        async with post as response:
            text = await response.text()
        if kind == "bad":
            return "refused" if response.status in (400, 404) else f"bad: {response.status}"
        if response.status in (429, 502, 503):
            return "again"
        if response.status != 200:
            return f"good: {response.status} {text[:200]}"
        if "data: " in text:
            pieces = [json.loads(x[6:]) for x in text.split("\n\n") if x.startswith("data: {")]
            if "error" in pieces[-1]:
                return "again"
            said = "".join(p["choices"][0]["delta"].get("content") or "" for p in pieces)
        else:
            said = json.loads(text)["choices"][0]["message"]["content"]
        return "right" if said == f"answer to prompt {number}" else f"mixed: {said}"

    async def client(session: aiohttp.ClientSession) -> None:
        for place, (number, kind) in left:
            if place in kills:
                async with killing:
                    await asyncio.to_thread(upstream.kill)
                    await asyncio.sleep(0.3)
                    await asyncio.to_thread(upstream.start)
                    counts["kills"] += 1
            for _ in range(30):
                outcome = await one(session, number, kind)
                if outcome != "again":
                    break
                await asyncio.sleep(0.5)
            counts[outcome] += 1

    connector = aiohttp.TCPConnector(limit=clients)
    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(*(client(session) for _ in range(clients)))
    return counts


@pytest.mark.parametrize(("clients", "requests"), [(256, 2000)])
def test_nothing_is_lost_mixed_or_left(clients: int, requests: int, tmp_path: Path) -> None:
    with FaultyServer() as upstream:
        options = ["--engine", upstream.spec, "--reward", "longest", "-n", "2"]
        options += ["--model-name", "model", "--max-running", "32"]
        with command(tmp_path / "log", *options) as serving:
            url = serving.server.url
            warm = asyncio.run(storm(url, clients, requests // 4, upstream))
            before = serving.memory
            counts = asyncio.run(storm(url, clients, requests, upstream))
            after = serving.memory
            server = serving.server
            wait_until(lambda: server.metric("bestofn_entered") == 0)
            wait_until(lambda: server.metric("bestofn_engine_running") == 0)
            wait_until(lambda: upstream.running == 0)
            assert serving.server.get("/ready").status == 200
    print(counts, f"{before / 2**20:.0f} MiB, then {after / 2**20:.0f} MiB")
    for found, count in ((warm, requests // 4), (counts, requests)):
        gone = found["gone"] + found["answered before it was gone"]
        assert found["kills"] == 3
        assert found["right"] == count * 8 // 10, found
        assert found["refused"] == count // 10, found
        assert gone == count // 10
        assert found["gone"] > 0
    assert after < 1.1 * before


def test_a_dead_engine_is_unavailable_and_a_new_one_is_not(tmp_path: Path) -> None:
    with FaultyServer() as upstream:
        options = ["--engine", upstream.spec, "--reward", "longest", "-n", "2"]
        options += ["--model-name", "model", "--engine-arg", "max_retries=0"]
        with command(tmp_path / "log", *options) as serving:
            server = serving.server
            assert server.get("/ready").status == 200
            upstream.kill()
            status, body, headers = server.chat()
            assert (status, body["error"]["code"]) == (503, "engine_unavailable")
            assert int(headers["retry-after"]) > 0
            assert server.get("/ready").status == 503
            assert server.get("/health").status == 200
            upstream.start()
            assert server.get("/ready").status == 200
            assert server.chat().status == 200


def test_sigterm_drains(tmp_path: Path) -> None:
    with FaultyServer(delay=1.0) as upstream:
        options = ["--engine", upstream.spec, "--reward", "longest", "-n", "2"]
        options += ["--model-name", "model"]
        with command(tmp_path / "log", *options) as serving:

            async def ask_and_end() -> str:
                url = f"{serving.server.url}/v1/chat/completions"
                body = {"model": "model", "messages": ASKED, "stream": True}
                async with (
                    aiohttp.ClientSession() as session,
                    session.post(url, json=body) as response,
                ):
                    await response.content.readline()
                    os.kill(serving.process.pid, signal.SIGTERM)
                    return (await response.read()).decode()

            answer = asyncio.run(ask_and_end())
            assert "answer to Name 3 fruits." in answer
            assert answer.endswith("data: [DONE]\n\n")
            assert serving.process.wait(20) == 143
        assert upstream.aborted == 0
