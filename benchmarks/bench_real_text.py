"""Real responses through FLIPLikelihood on the embedded model: how many get a score, how fast.

The tiny model knows no English beyond its world, so the scores mean nothing here; what counts is
that real text of any length and script ends in a finite score or a reason.

    python benchmarks/bench_real_text.py alpaca_eval_pools.jsonl.gz [--json FILE]
"""

import argparse
import gzip
import json
import math
import time
from collections import Counter
from pathlib import Path

from bestofn import FLIPLikelihood, concurrency, load_engine
from bestofn.prompts import as_prompt
from bestofn.scoring import add_scores
from bestofn.types import Candidate, Prompt


def score_all(
    reward: FLIPLikelihood, pools: list[tuple[Prompt, list[Candidate]]], window: int = 32
) -> None:
    async def work(pool: tuple[Prompt, list[Candidate]]) -> None:
        await add_scores(*pool, reward)

    for _ in concurrency.map_in_window(work, pools, window):
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pools", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with gzip.open(args.pools, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    pools = [
        (
            as_prompt(row["prompt"], row["id"]),
            [Candidate(i, c["text"]) for i, c in enumerate(row["candidates"])],
        )
        for row in rows
    ]
    reward = FLIPLikelihood(load_engine("tiny"))
    started = time.perf_counter()
    score_all(reward, pools)
    seconds = time.perf_counter() - started
    scores = [c.scores[reward.name] for _, candidates in pools for c in candidates]
    finite = sum(math.isfinite(score.value) for score in scores)
    report = {
        "responses": len(scores),
        "finite": finite / len(scores),
        "flags": Counter(flag for score in scores for flag in score.flags),
        "reasons": Counter(str(score.reason) for score in scores if score.reason),
        "without_value_or_reason": sum(
            not math.isfinite(score.value) and not score.reason for score in scores
        ),
        "seconds": seconds,
        "candidates_per_second": len(scores) / seconds,
    }
    print("| responses | finite | cut to the context | candidates/s |\n|---|---|---|---|")
    cut = report["flags"]["cut_to_context"] / len(scores)
    rate = report["candidates_per_second"]
    print(f"| {len(scores)} | {finite / len(scores):.1%} | {cut:.1%} | {rate:.0f} |")
    for reason, count in report["reasons"].most_common():
        print(f"- {count}: {reason}")
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
