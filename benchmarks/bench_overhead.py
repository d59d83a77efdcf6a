"""What the orchestrator itself costs: an engine that answers at once, prompts by the thousand.

Each number of prompts runs in a process of its own, pinned to one core: candidates a second, and
the peak of the memory that is resident.

    python benchmarks/bench_overhead.py [--n 16] [--json FILE]
"""

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common

from bestofn import BestOfN
from bestofn.engines.base import Completion, Engine, SamplingParams, TokenScores
from bestofn.rewards.flip import FLIPLikelihood
from bestofn.types import Prompt, Usage

SIZES = (1_000, 10_000, 100_000)
TEXT = "A sentence that stands for a response of ordinary length. " * 8


class AtOnce(Engine):
    """Answers in the same turn of the event loop; responses differ, so that each is scored."""

    name, default_template, context = "at once", "direct", None

    def __init__(self) -> None:
        self.drawn = 0

    async def generate(
        self, prompt: Prompt, params: SamplingParams, seed: int | None = None
    ) -> Completion:
        await asyncio.sleep(0)
        self.drawn += 1
        usage = Usage(prompt_tokens=20, generated_tokens=100)
        return Completion(f"{self.drawn} {TEXT}", None, "stop", [1] * 100, [-1.0] * 100, usage)

    async def loglikelihood(self, prompt: Prompt, continuation: str, **options: Any) -> TokenScores:
        await asyncio.sleep(0)
        return TokenScores([1] * 20, [-1.0] * 20, Usage(prompt_tokens=100, scored_tokens=20))

    async def decode(self, prompt: Prompt, token_ids: Sequence[int]) -> tuple[None, str]:
        return None, TEXT

    def with_options(self, **options: Any) -> "AtOnce":
        return self

    def close(self) -> None:
        pass


def measure(prompts: int, n: int) -> dict[str, float]:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    engine = AtOnce()
    best = BestOfN(engine, FLIPLikelihood(engine), n=n)
    texts = (f"Write something about the number {i}." for i in range(prompts))
    started = time.perf_counter()
    done = sum(1 for _ in best.select_many(texts, progress=False))
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"prompts": done, "candidates_per_second": done * n / seconds, "peak_mib": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--n", type=int, default=16)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        print(json.dumps(measure(args.only, args.n)))
        return
    rows = []
    for size in SIZES:
        command = [sys.executable, __file__, "--n", str(args.n), "--only", str(size)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout))
    common.table(
        ["prompts", "candidates/s on one core", "peak memory, MiB"],
        [(r["prompts"], f"{r['candidates_per_second']:.0f}", f"{r['peak_mib']:.0f}") for r in rows],
    )
    common.write(args.json, {"n": args.n, "sizes": rows})


if __name__ == "__main__":
    main()
