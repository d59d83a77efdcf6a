"""What the server costs: requests per second and latency, against `BestOfN` in process.

At each concurrency the same prompts are answered in alternation by `BestOfN.aselect` in this
process and through the server, which runs in a thread of it over the same engine; its clients are
in a process of their own. With `--server URL#MODEL`, a vLLM server, two further sides are measured
on it: `bestofn serve` as a gateway, and a client written by hand that asks for n answers and then
scores each in a second call.
"""

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from typing import Any

import aiohttp
import common
import numpy as np

SYSTEM = "Infer the instruction that most plausibly produced the response."
CUE = "Response:\n{}\n\nInstruction: {}"
REQUESTS = {1: 40, 8: 160, 64: 384, 256: 768}
Ask = Callable[[str], Awaitable[Any]]


async def storm(ask: Ask, prompts: list[str], concurrency: int) -> list[float]:
    """Seconds of each request, so many of them at once; the last is the time of all."""
    left, seconds = iter(prompts), list[float]()

    async def worker() -> None:
        for prompt in left:
            started = time.perf_counter()
            await ask(prompt)
            seconds.append(time.perf_counter() - started)

    started = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(concurrency)))
    return [*seconds, time.perf_counter() - started]


def summary(seconds: list[float]) -> dict[str, float]:
    *each, whole = seconds
    p50, p95 = np.quantile(each, [0.5, 0.95])
    return {"requests/s": len(each) / whole, "p50": float(p50), "p95": float(p95)}


# --- clients, in a process of their own ----------------------------------------------------------


async def through_server(url: str, prompts: list[str], concurrency: int, n: int) -> list[float]:
    """Asks for the best of n."""
    connector = aiohttp.TCPConnector(limit=concurrency)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        async with session.get(f"{url}/v1/models") as response:
            model = (await response.json())["data"][0]["id"]

        async def ask(prompt: str) -> None:
            body = {"model": model, "messages": [{"role": "user", "content": prompt}]}
            body |= {"bestofn": {"n": n}}
            async with session.post(f"{url}/v1/chat/completions", json=body) as response:
                answer = await response.json()
                assert answer["bestofn"]["n"] == n, answer

        return await storm(ask, prompts, concurrency)


async def by_hand(
    url: str, prompts: list[str], concurrency: int, n: int, model: str, max_tokens: int
) -> list[float]:
    """Asks a vLLM server for n answers, then for the likelihood of the instruction behind each."""
    timeout = aiohttp.ClientTimeout(total=None)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def post(path: str, **body: Any) -> Any:
            async with session.post(f"{url}{path}", json={"model": model} | body) as response:
                return await response.json()

        async def score(prompt: str, text: str) -> float:
            tokens = await post("/tokenize", prompt=prompt, add_special_tokens=False)
            whole = f"{SYSTEM}\n\n{CUE.format(text, prompt)}"
            answer = await post(
                "/v1/completions", prompt=whole, prompt_logprobs=0, max_tokens=1, temperature=0
            )
            entries = answer["choices"][0]["prompt_logprobs"][-len(tokens["tokens"]) :]
            values = [next(iter(entry.values()))["logprob"] for entry in entries if entry]
            return sum(values) / len(values)

        async def ask(prompt: str) -> str:
            answer = await post(
                "/v1/chat/completions",
                messages=[{"role": "user", "content": prompt}],
                n=n,
                max_tokens=max_tokens,
                temperature=1.0,
            )
            texts = [choice["message"]["content"] or "" for choice in answer["choices"]]
            scores = await asyncio.gather(*(score(prompt, text) for text in texts))
            return texts[int(np.argmax(scores))]

        return await storm(ask, prompts, concurrency)


def in_child(side: str, *given: Any) -> list[float]:
    """What one of the clients measures, in a process of its own."""
    asked = json.dumps([side, *given])
    command = [sys.executable, __file__, "--client"]
    done = subprocess.run(command, input=asked, stdout=subprocess.PIPE, text=True, check=True)
    found: list[float] = json.loads(done.stdout)
    return found


def client() -> None:
    side, *given = json.load(sys.stdin)
    ask = {"server": through_server, "hand": by_hand}[side]
    print(json.dumps(asyncio.run(ask(*given))))


# --- sides ----------------------------------------------------------------------------------------


@contextmanager
def serving(config: Any) -> Any:
    """The URL of a server in a thread of this process, and the service in it."""
    import socket

    from bestofn.cli.serve import make_server
    from bestofn.serve.app import create_app
    from bestofn.serve.service import serving as loaded

    with loaded(config) as service, socket.create_server(("127.0.0.1", 0)) as listener:
        server = make_server(create_app(service, config), config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", service
        server.should_exit = True
        thread.join()


def main() -> None:
    if "--client" in sys.argv:
        client()
        return
    parser = common.arguments(__doc__ or "", n=8, max_tokens=64, repeats=3)
    parser.add_argument("--engine", default="tiny")
    parser.add_argument("--server", help="URL#MODEL of a vLLM server, without /v1")
    parser.add_argument("--concurrency", default="1,8,64,256")
    given = parser.parse_args()

    from bestofn import BestOfN
    from bestofn.config.serving import ServeConfig
    from bestofn.dataset.sources import read_prompts

    texts = [prompt.messages[0].content for prompt in read_prompts("tiny:800")]
    own: dict[str, Any] = {"n": given.n, "max_tokens": given.max_tokens, "max_running": 64}
    engine, hand = given.engine, ()
    if given.server:
        url, _, model = given.server.partition("#")
        engine, hand = f"openai:{url}/v1#{model}", (url, model)
    config = ServeConfig(engine=engine, reward="flip-likelihood", **own)
    rows: list[dict[str, Any]] = []
    with serving(config) as (url, service):
        reward = next(iter(service.rewards.values()))
        best = BestOfN(service.engine, reward, n=given.n, sampling=config.sampling())
        for concurrency in map(int, given.concurrency.split(",")):
            count = REQUESTS.get(concurrency, 4 * concurrency)
            found: dict[str, list[dict[str, float]]] = {}
            for repeat in range(given.repeats):
                start = repeat * 97 % len(texts)
                prompts = (texts[start:] + texts[:start])[:count]
                sides: dict[str, Callable[[], list[float]]] = {
                    "in process": lambda p=prompts, c=concurrency: asyncio.run(  # type: ignore[misc]
                        storm(best.aselect, p, c)
                    ),
                    "server": lambda p=prompts, c=concurrency: in_child(  # type: ignore[misc]
                        "server", url, p, c, given.n
                    ),
                }
                if hand:
                    sides["by hand"] = lambda p=prompts, c=concurrency: in_child(  # type: ignore[misc]
                        "hand", hand[0], p, c, given.n, hand[1], given.max_tokens
                    )
                names = list(sides)
                for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
                    found.setdefault(name, []).append(summary(sides[name]()))
                    print(f"{concurrency} {name}: {found[name][-1]}", file=sys.stderr, flush=True)
            for name, runs in found.items():
                rate = [run["requests/s"] for run in runs]
                against = [run["requests/s"] for run in found["in process"]]
                middle = {key: float(np.median([run[key] for run in runs])) for key in runs[0]}
                rows.append(
                    {"concurrency": concurrency, "side": name, **middle}
                    | {"of in process": common.ratio(rate, against)}
                )
    headings = ["concurrency", "side", "requests/s", "p50", "p95", "of in process, 95 %"]
    shown = []
    for row in rows:
        of, (low, high) = row["of in process"]["ratio"], row["of in process"]["interval"]
        times = [f"{row[key]:.3g}" for key in ("requests/s", "p50", "p95")]
        shown.append([row["concurrency"], row["side"], *times, f"{of:.2f} [{low:.2f}, {high:.2f}]"])
    common.table(headings, shown)
    common.write(given.json, {"engine": engine, **own, "repeats": given.repeats, "rows": rows})


if __name__ == "__main__":
    main()
