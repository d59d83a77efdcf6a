"""Measures the embedded model: what the model card reports, as Markdown and JSON.

    python recipes/tiny/evaluate.py [--engine hf:OUT] [--tasks 320] [-m 32] [--json FILE]

Draws a pool of M candidates for each held-out instruction of the evaluation set at temperature 1
and reports, for each selector and N, the share of instructions whose selected answer is right:
its expectation over all subsets of size N, with 95 % intervals over instructions.
"""

import argparse
import json
import time
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from bestofn import FLIPLikelihood, FLIPReward, concurrency, load_engine
from bestofn.analysis.curves import ProxyCurve, ScalingCurve
from bestofn.analysis.lengths import concordance
from bestofn.analysis.proxies import scores_of
from bestofn.dataset.pools import add, draw
from bestofn.engines.base import Engine, SamplingParams
from bestofn.estimators import best_of_n, bootstrap_mean
from bestofn.generators import EngineGenerator
from bestofn.prompts import as_prompt
from bestofn.rewards.baselines import MeanLogprob
from bestofn.rewards.gold import Gold
from bestofn.scoring import RewardModel, add_scores
from bestofn.tiny import Task, answer, heldout_tasks, verify
from bestofn.types import Candidate, Pool
from bestofn.verifiers.base import load_verifier

GOLD = "gold"
NS = [1, 2, 4, 8, 16]
PROXIES = ["random", "longest", "majority", "mean-logprob", "flip", "flip-likelihood"]
WEIGHTS = [0.1, 0.25, 0.5, 1.0, 2.0]
MAX_TOKENS = 400  # longer than any right answer of the tiny world
TUNING_SEED = 7  # another draw of held-out instructions than the evaluation set's


def within_prompt_auc(pools: list[Pool], name: str) -> float:
    """Probability that a right candidate scores above a wrong one of the same prompt."""
    rates = [concordance(pool, name, GOLD) for pool in pools]
    return float(np.nanmean(rates))


def tuned_weight(pools: list[Pool]) -> float:
    """The weight of the forward log-probability that does best on the tuning instructions."""
    gold = np.array([scores_of(pool, GOLD) for pool in pools])
    backward = np.array([scores_of(pool, "flip-likelihood") for pool in pools])
    forward = np.array([scores_of(pool, "mean-logprob") for pool in pools])
    return max(WEIGHTS, key=lambda w: best_of_n(backward + w * forward, gold, [16]).mean())


def mixed(pools: list[Pool], weight: float) -> str:
    """Adds the mix to every candidate's scores, under the name returned."""
    name = f"flip-likelihood, forward_weight={weight:g}"
    for pool in pools:
        for candidate in pool.candidates:
            score = candidate.scores["flip-likelihood"]
            assert candidate.mean_logprob is not None
            mix = score.value + weight * candidate.mean_logprob
            candidate.scores[name] = type(score)(mix, score.reason)
    return name


def preference(reward: RewardModel, cases: list[tuple[str, str, str]]) -> dict[str, float]:
    """How often a reward prefers a bad response to a right one, and how often it ties.

    Args:
        reward: Pointwise.
        cases: Instruction, right response, bad response.
    """
    worse = ties = failed = 0
    for instruction, right, bad in cases:
        pair = [Candidate(0, right), Candidate(1, bad)]
        first, second = (
            s.value for s in concurrency.run(reward.score(as_prompt(instruction), pair))
        )
        worse += second > first
        ties += second == first
        failed += bool(np.isnan(first) or np.isnan(second))
    count = len(cases)
    return {"prefers_bad": worse / count, "ties": ties / count, "failed": failed / count}


def milliseconds(pools: list[Pool], reward: RewardModel) -> float:
    """Time to score one candidate, when all are given at once."""

    async def work(pool: Pool) -> None:
        await add_scores(pool.prompt, pool.candidates, reward)

    started = time.perf_counter()
    for _ in concurrency.map_in_window(work, pools, 32):
        pass
    return 1000 * (time.perf_counter() - started) / sum(len(pool.candidates) for pool in pools)


def wrong_results(tasks: list[Task]) -> list[tuple[str, str, str]]:
    """Sums and differences that are off by a little, on the right numbers."""
    rng, cases = Random(0), []
    for task in tasks:
        if task.family in ("add", "subtract"):
            right = answer(task, rng)
            head, result = right.rsplit(" ", 1)
            cases.append(
                (task.instruction, right, f"{head} {int(result) + rng.choice([1, 2, 10])}")
            )
    return cases


def quotes(tasks: list[Task]) -> list[tuple[str, str, str]]:
    """The instruction itself as the response."""
    rng = Random(0)
    return [(task.instruction, answer(task, rng), task.instruction) for task in tasks]


def lengths(pools: list[Pool]) -> dict[str, float]:
    counts = [c.token_count or 0 for pool in pools for c in pool.candidates]
    shares = np.quantile(counts, [0.05, 0.5, 0.95, 1.0])
    return dict(zip(("5 %", "median", "95 %", "longest"), map(float, shares), strict=True))


def by_family(pools: list[Pool], tasks: list[Task]) -> dict[str, dict[str, float]]:
    """pass@1 and selection at 16 for each family."""
    rows: dict[str, dict[str, float]] = {}
    for family in dict.fromkeys(task.family for task in tasks):
        chosen = [p for p, t in zip(pools, tasks, strict=True) if t.family == family]
        curve = ScalingCurve(
            chosen, proxies=["random", "flip", "flip-likelihood", "oracle"], ns=[16]
        )
        rows[family] = {proxy.name: float(proxy.gold.mean[0]) for proxy in curve.curves}
    return rows


def table(curves: list[ProxyCurve]) -> str:
    def cell(curve: ProxyCurve, i: int) -> str:
        interval = curve.gold
        return f"{interval.mean[i]:.3f} [{interval.low[i]:.3f}, {interval.high[i]:.3f}]"

    lines = ["| selector | " + " | ".join(f"N={n}" for n in NS) + " |", "|---" * 6 + "|"]
    lines += [
        f"| {curve.name} | " + " | ".join(cell(curve, i) for i in range(len(NS))) + " |"
        for curve in curves
    ]
    return "\n".join(lines)


def as_json(curve: ProxyCurve) -> dict[str, Any]:
    parts: dict[str, Any] = {"ties": curve.ties.tolist(), "failures": curve.failures.tolist()}
    for name in ("gold", "gain"):
        interval = getattr(curve, name)
        parts[name] = {k: getattr(interval, k).tolist() for k in ("mean", "low", "high")}
    return parts


def draw_pools(engine: Engine, tasks: list[Task], m: int, rewards: list[RewardModel]) -> list[Pool]:
    """M candidates at temperature 1 for each instruction, with the rewards' and gold scores."""
    generator = EngineGenerator(engine, SamplingParams(max_tokens=MAX_TOKENS), 0, keep_tokens=False)
    prompts = [as_prompt(task.instruction) for task in tasks]
    return list(add(draw(prompts, generator, m), [*rewards, Gold(load_verifier("tiny"))]))


def measure(engine: Engine, tasks: list[Task], m: int) -> dict[str, Any]:
    sampled = FLIPReward(engine, samples=4, temperature=1.0, name="flip, 4 samples")
    rewards: list[RewardModel] = [FLIPReward(engine), FLIPLikelihood(engine), MeanLogprob()]
    started = time.perf_counter()
    pools = draw_pools(engine, tasks, m, [*rewards, sampled])
    seconds = time.perf_counter() - started
    held = {task.instruction for task in tasks}
    drawn = heldout_tasks(max(1, len(tasks) * 3 // 8), TUNING_SEED)
    others = [task for task in drawn if task.instruction not in held]
    tuning = draw_pools(engine, others, 16, rewards)
    mix = mixed(pools, tuned_weight(tuning))
    scored = ["flip", "flip-likelihood", "mean-logprob", sampled.name, mix]
    curves = ScalingCurve(pools, proxies=[*PROXIES, sampled.name, mix, "oracle"], ns=NS).curves
    print(table(curves), "\n")
    paired = bootstrap_mean(
        best_of_n([scores_of(p, "flip-likelihood") for p in pools], gold(pools), NS)
        - best_of_n([scores_of(p, "flip") for p in pools], gold(pools), NS)
    )
    rewards = rewards[:2]
    strict = [FLIPReward(engine, copy_guard="strip"), FLIPLikelihood(engine, copy_guard="strip")]
    return {
        "tasks": len(tasks),
        "m": m,
        "seconds": seconds,
        "candidates_per_second": len(tasks) * m / seconds,
        "lengths": lengths(pools),
        "ns": NS,
        "curves": {curve.name: as_json(curve) for curve in curves},
        "likelihood_minus_flip": {k: getattr(paired, k).tolist() for k in ("mean", "low", "high")},
        "auc": {name: within_prompt_auc(pools, name) for name in scored},
        "by_family": by_family(pools, tasks),
        "milliseconds": {reward.name: milliseconds(pools[:64], reward) for reward in rewards},
        "wrong_results": {r.name: preference(r, wrong_results(tasks)) for r in rewards},
        "quotes": {r.name: preference(r, quotes(tasks)) for r in rewards},
        "quotes_stripped": {r.name: preference(r, quotes(tasks)) for r in strict},
    }


def gold(pools: list[Pool]) -> list[list[float]]:
    return [scores_of(pool, GOLD) for pool in pools]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", default="tiny")
    parser.add_argument("--tasks", type=int, default=320)
    parser.add_argument("-m", type=int, default=32)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    tasks = heldout_tasks(args.tasks)
    assert all(verify(task.instruction, answer(task, Random(0))) for task in tasks)
    report = measure(load_engine(args.engine), tasks, args.m)
    text = json.dumps(report, indent=1)
    print(text)
    if args.json:
        args.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
