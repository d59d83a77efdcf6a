"""How often each selector picks a right answer, on the tiny world's held-out instructions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bestofn import loop
from bestofn.engines.base import Engine, SamplingParams
from bestofn.estimators import Interval, best_of_n, bootstrap_mean, failure_rate, tie_rate
from bestofn.generators import EngineGenerator, collect
from bestofn.prompts import as_prompt
from bestofn.rewards.base import RewardModel
from bestofn.rewards.baselines import Longest, Majority, MeanLogprob, Oracle, RandomChoice
from bestofn.rewards.flip import FLIPLikelihood, FLIPReward
from bestofn.rewards.scoring import add_scores
from bestofn.tiny import Task, verify
from bestofn.types import Candidate, Prompt

MAX_TOKENS = 400  # longer than any right answer of the tiny world
GOLD = "oracle"


@dataclass(slots=True)
class ScoredPool:
    """The candidates of one prompt, scored by every selector and by the verifier."""

    prompt: Prompt
    candidates: list[Candidate]

    def values(self, name: str) -> list[float]:
        return [candidate.scores[name].value for candidate in self.candidates]


def default_selectors(engine: Engine) -> list[RewardModel]:
    """The selectors of the demo, by the order of its table; the last one is gold."""
    return [
        RandomChoice(),
        Longest(),
        Majority(),
        MeanLogprob(),
        FLIPReward(engine),
        FLIPLikelihood(engine),
        Oracle(verify),
    ]


def draw_pools(
    engine: Engine,
    tasks: Sequence[Task],
    n: int,
    seed: int,
    selectors: Sequence[RewardModel],
    window: int = 32,
) -> Iterator[ScoredPool]:
    """Draws `n` candidates for each task at temperature 1 and scores them with every selector.

    Args:
        engine: Generates; the selectors bring their own.
        tasks: Their instructions are the prompts.
        n: Candidates of each.
        seed: Run seed.
        selectors: All are applied to the same candidates.
        window: Prompts in flight.
    """
    sampling = SamplingParams(max_tokens=MAX_TOKENS)
    generator = EngineGenerator(engine, sampling, seed, keep_tokens=False)

    async def work(prompt: Prompt) -> ScoredPool:
        pool = ScoredPool(prompt, await collect(generator.draw(prompt, n)))
        for selector in selectors:
            await add_scores(prompt, pool.candidates, selector)
        return pool

    prompts = [as_prompt(task.instruction) for task in tasks]
    return loop.map_in_window(work, prompts, window)


@dataclass(frozen=True, slots=True)
class SelectorCurve:
    """One selector over all prompts.

    Attributes:
        name: The selector's.
        accuracy: `[len(ns)]`, share of prompts whose selected answer is right, expected over all
            subsets of each size; with its interval over prompts.
        gain: The same minus the accuracy of one random candidate, paired by prompt.
        ties: `[len(ns)]`, share of draws with several best candidates.
        failures: `[len(ns)]`, share of draws in which every score failed.
        failed_scores: Share of the candidates that have no score.
    """

    name: str
    accuracy: Interval
    gain: Interval
    ties: NDArray[np.float64]
    failures: NDArray[np.float64]
    failed_scores: float


def selector_curves(
    pools: Sequence[ScoredPool], names: Sequence[str], ns: Sequence[int]
) -> list[SelectorCurve]:
    """Selection accuracy of each selector at each n, from pools of equal size."""
    gold = np.array([pool.values(GOLD) for pool in pools])
    chance = gold.mean(axis=1, keepdims=True)
    curves = []
    for name in names:
        proxy = np.array([pool.values(name) for pool in pools])
        # The expectation of a random choice is known: no need for one draw's noise.
        accuracy = best_of_n(np.zeros_like(gold) if name == "random" else proxy, gold, ns)
        curves.append(
            SelectorCurve(
                name,
                bootstrap_mean(accuracy),
                bootstrap_mean(accuracy - chance),
                tie_rate(proxy, ns).mean(axis=0),
                failure_rate(proxy, ns).mean(axis=0),
                float(np.isnan(proxy).mean()),
            )
        )
    return curves
