"""What the estimators cost, and how far from the truth other ways to read a pool are.

Synthetic pools whose law is known, with ties: rewards are normal and rounded, 2 % of them fail,
and a candidate is right with a chance that rises with its reward. The shuffle is the vectorised
way to all N without the formula: each pool in one random order, and its running best. Resampling
with replacement, 1,000 times, is how verl's best@N reads a pool, here vectorised as well.

    python benchmarks/bench_estimators.py [--repeats 7] [--json FILE]
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import common
import numpy as np
from numpy.typing import NDArray

from bestofn.estimators import Votes, best_of_n, bootstrap_mean, expected_votes

Array = NDArray[np.float64]
STEP = 0.05  # of the rounded rewards
PROMPTS, POOL = 10_000, 256
VOTERS = 300  # prompts of the votes
Row = tuple[str, str, str, str]


def draw_pool(prompts: int, pool: int, seed: int, failing: float = 0.02) -> tuple[Array, Array]:
    """Rewards, NaN where they failed, and whether each candidate is right."""
    rng = np.random.default_rng(seed)
    rewards = np.round(rng.normal(size=(prompts, pool)) / STEP) * STEP
    right = rng.random(rewards.shape) < 1 / (1 + np.exp(-rewards))
    return np.where(rng.random(rewards.shape) < failing, np.nan, rewards), right.astype(np.float64)


def draw_answers(prompts: int, pool: int, seed: int) -> tuple[NDArray[np.int64], Array]:
    """Answers, of which 0 is the right one and -1 none, and whether each is right."""
    rng = np.random.default_rng(seed)
    known = rng.beta(1.5, 2.5, size=(prompts, 1))
    wrong = rng.geometric(0.15, size=(prompts, pool))
    answers = np.where(rng.random(wrong.shape) < known, 0, wrong)
    answers[rng.random(answers.shape) < 0.05] = -1
    return answers, (answers == 0).astype(np.float64)


def shuffle_once(proxy: Array, value: Array, rng: np.random.Generator) -> Array:
    """Best of the first n in a random order, for all n."""
    order = rng.random(proxy.shape).argsort(axis=1)
    rewards = np.take_along_axis(np.nan_to_num(proxy, nan=-np.inf), order, axis=1)
    leads = rewards == np.maximum.accumulate(rewards, axis=1)
    places = np.where(leads, np.arange(proxy.shape[1]), 0)
    chosen = np.take_along_axis(order, np.maximum.accumulate(places, axis=1), axis=1)
    return np.take_along_axis(value, chosen, axis=1)


def with_replacement(rewards: Array, n: int, rng: np.random.Generator, draws: int = 1000) -> Array:
    """Mean over draws, with replacement, of the highest of n: `[prompts]`."""
    pool = rewards.shape[1]
    return np.array(
        [row[rng.integers(pool, size=(draws, n))].max(axis=1).mean() for row in rewards]
    )


def expected_maximum(n: int) -> float:
    """Of n rounded normal rewards: sum over the grid of x (F(x)^n - F(x - step)^n)."""
    from statistics import NormalDist

    grid = np.arange(-200, 201) * STEP
    below = np.array([NormalDist().cdf(x + STEP / 2) for x in grid]) ** n
    return float(grid @ np.diff(below, prepend=0.0))


def all_sizes(repeats: int) -> tuple[list[Row], dict[str, Any]]:
    proxy, value = draw_pool(PROMPTS, POOL, seed=0)
    rng = np.random.default_rng(1)
    ns = range(1, POOL + 1)
    seconds = common.interleaved(
        {
            "best_of_n": lambda: best_of_n(proxy, value, ns),
            "shuffle": lambda: shuffle_once(proxy, value, rng),
        },
        repeats,
    )
    ratio = common.ratio(seconds["shuffle"], seconds["best_of_n"])
    off = np.abs((shuffle_once(proxy, value, rng) - best_of_n(proxy, value, ns)).mean(axis=0)).max()
    ours, other = common.mid(seconds["best_of_n"]), common.mid(seconds["shuffle"])
    what = f"all N, {PROMPTS:,} x {POOL}; against one shuffle"
    row = (what, f"{ours:.2f} s, exact", f"{other:.2f} s, off by up to {off:.4f}", interval(ratio))
    return [row], {"best_of_n_s": ours, "shuffle_s": other, "shuffle_off": float(off)} | ratio


def paired() -> dict[str, float]:
    """Two rewards on one pool: both curves and the interval of their difference, at every N."""
    proxy, value = draw_pool(PROMPTS, POOL, seed=0)
    other, _ = draw_pool(PROMPTS, POOL, seed=2)
    started = time.perf_counter()
    curves = [best_of_n(reward, value, range(1, POOL + 1)) for reward in (proxy, other)]
    bootstrap_mean(curves[0] - curves[1], resamples=1000)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": seconds, "peak_gib": peak}


def paired_rows(repeats: int) -> tuple[list[Row], dict[str, Any]]:
    """Each in a process of its own, for the peak of its memory."""
    command = [sys.executable, __file__, "--paired"]
    runs = [
        json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        for _ in range(repeats)
    ]
    seconds = common.mid([run["seconds"] for run in runs])
    peak = max(run["peak_gib"] for run in runs)
    what = f"two rewards, all N, {PROMPTS:,} x {POOL}, 1,000 paired resamples"
    row = (what, f"{seconds:.2f} s, peak {peak:.2f} GiB", "", "")
    return [row], {"seconds": seconds, "peak_gib": peak, "runs": runs}


def replacement(
    n: int, pool: int, repeats: int, prompts: int = 2000
) -> tuple[list[Row], dict[str, Any]]:
    """The bias of either way at one N, from the known expectation, and the time."""
    rewards, _ = draw_pool(prompts, pool, seed=3, failing=0.0)
    rng = np.random.default_rng(4)
    ways: dict[str, Callable[[], Array]] = {
        "best_of_n": lambda: best_of_n(rewards, rewards, [n])[:, 0],
        "replacement": lambda: with_replacement(rewards, n, rng),
    }
    seconds = common.interleaved(ways, repeats)
    report: dict[str, Any] = common.ratio(seconds["replacement"], seconds["best_of_n"])
    cells = []
    for name, way in ways.items():
        off = way() - expected_maximum(n)
        bias, error = float(off.mean()), float(off.std(ddof=1) / np.sqrt(prompts))
        taken = common.mid(seconds[name])
        report[name] = {"bias": bias, "error": error, "seconds": taken}
        cells.append(f"{bias:+.3f} ± {error:.3f}, {taken:.3g} s")
    what = f"bias of the highest of {n} from {pool}, in standard deviations; against replacement"
    return [(what, cells[0], cells[1], interval(report))], report


def first_n(pool: int = 64, prompts: int = 20_000) -> tuple[list[Row], dict[str, Any]]:
    """Pools of one law: their scatter is that of the estimator alone."""
    proxy, value = draw_pool(prompts, pool, seed=5)
    ns = [1, 4, 16, 32]
    ours = best_of_n(proxy, value, ns).std(axis=0, ddof=1)
    firsts = [best_of_n(proxy[:, :n], value[:, :n], [n])[:, 0].std(ddof=1) for n in ns]
    rows, report = [], {}
    for n, exact, first in zip(ns, ours, firsts, strict=True):
        what = f"standard deviation, one prompt, N = {n} of {pool}; against the first N"
        rows.append((what, f"{exact:.3f}", f"{first:.3f}", f"{first / exact:.2f}"))
        report[str(n)] = {"ours": float(exact), "first_n": float(first)}
    return rows, report


def by_permutations(*arguments: Any) -> Votes:
    with patch("bestofn.estimators.votes.EXACT_UP_TO", 0):
        return expected_votes(*arguments)


def votes(pool: int, repeats: int) -> tuple[list[Row], dict[str, Any]]:
    answers, right = draw_answers(VOTERS, pool, seed=6)
    ns = range(1, pool + 1)
    ways = {
        "exact": lambda: expected_votes(answers, right, ns),
        "monte_carlo": lambda: by_permutations(answers, right, ns),
    }
    seconds = common.interleaved(ways, repeats)
    ratio = common.ratio(seconds["monte_carlo"], seconds["exact"])
    exact, sampled = ways["exact"](), ways["monte_carlo"]()
    off = float(np.abs((sampled.values - exact.values).mean(axis=0)).max())
    error = float(sampled.error.max())
    ours, other = common.mid(seconds["exact"]), common.mid(seconds["monte_carlo"])
    what = f"vote, all N, {VOTERS} x {pool}; against 1,000 permutations"
    told = f"{other:.2f} s, off by up to {off:.4f}, error told {error:.4f}"
    report = {"exact_s": ours, "monte_carlo_s": other, "off": off, "error": error}
    return [(what, f"{ours:.2f} s, exact", told, interval(ratio))], report | ratio


def interval(ratio: dict[str, Any]) -> str:
    low, high = ratio["interval"]
    return f"{ratio['ratio']:.3g} [{low:.3g}, {high:.3g}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--paired", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.paired:
        print(json.dumps(paired()))
        return
    parts = {
        "all_sizes": all_sizes(args.repeats),
        "paired": paired_rows(args.repeats),
        "replacement_16_of_16": replacement(16, 16, args.repeats),
        "replacement_16_of_64": replacement(16, 64, args.repeats),
        "replacement_64_of_64": replacement(64, 64, args.repeats),
        "first_n": first_n(),
        "votes_32": votes(32, args.repeats),
        "votes_64": votes(64, args.repeats),
    }
    rows = [row for found, _ in parts.values() for row in found]
    common.table(["what", "bestofn", "the other way", "ratio, of it to bestofn"], rows)
    reports = {name: report for name, (_, report) in parts.items()}
    common.write(args.json, {"numpy": np.__version__, "repeats": args.repeats, **reports})


if __name__ == "__main__":
    main()
