"""Which checkpoints and share of early rejection suit a pool's prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from bestofn.analysis.costs import spent
from bestofn.analysis.early import Drawing, draw_early
from bestofn.analysis.findings import FEW, Finding, as_json, as_result, coverage, too_few
from bestofn.analysis.lengths import CUT
from bestofn.analysis.proxies import Array, scores_of, unknown_gold
from bestofn.config import AdviseConfig
from bestofn.dataset.pools import cut_name
from bestofn.errors import ConfigError
from bestofn.estimators import Interval, best_of_n, bootstrap_mean
from bestofn.rejection import EarlyRejection
from bestofn.store import pool
from bestofn.types import Pool

CHECKPOINTS = 3  # the most that are tried together


@dataclass(frozen=True, slots=True)
class Effect:
    """Early rejection against best-of-N on some prompts."""

    saving: Interval  # share of the tokens drawn and scored
    loss: Interval  # of the chosen candidate's value, paired by prompt


@dataclass(frozen=True, slots=True)
class Advice:
    """What is recommended from half of a pool's prompts, and how it does on the other half.

    Attributes:
        reward: The score that rejects and chooses.
        value: The score that says what is lost: gold, or the reward itself.
        candidates: Of a prompt, the fewest and the most.
        prompts: How many it was found on, and how many it was checked on.
        agreement: By checkpoint, how often the candidate chosen by the first tokens is the one
            chosen by whole responses, on all prompts.
        best: The recommendation; None if every setting loses more than the margin.
        promised: On the half that it was found on.
        checked: On the other half.
        margin: The most that may be lost.
    """

    reward: str
    value: str
    candidates: tuple[int, int]
    prompts: tuple[int, int]
    agreement: dict[int, Interval]
    best: EarlyRejection | None
    promised: Effect | None
    checked: Effect | None
    margin: float

    def findings(self, level: float, resamples: int) -> list[Finding]:
        """What is said of it."""
        sizes = " to ".join(map(str, dict.fromkeys(self.candidates)))
        found = [Finding(f"{sum(self.prompts)} prompts with {sizes} candidates each")]
        if min(self.prompts) < FEW:
            return [*found, too_few("prompts of each half")]
        if self.best is None or self.promised is None or self.checked is None:
            text = f"Every setting loses more than {self.margin:g} {self.value}: reject none"
            return [*found, Finding(text)]
        option = ",".join(map(str, self.best.at))
        use = f"Best for least: --reject {option} --reject-keep {self.best.keep:g}"
        found.append(Finding(f"{use}, found on {self.prompts[0]} prompts"))
        for where, effect in (("there", self.promised), ("on the other half", self.checked)):
            saved = f"Tokens saved {where}, of those drawn and scored"
            found.append(Finding(saved, effect.saving, kind="rate"))
            found.append(Finding(f"{self.value} lost {where}", effect.loss, kind="difference"))
        return [*found, coverage(level, "prompts", resamples, "generator, reward or data set")]


def advise(path: Path, config: AdviseConfig) -> tuple[Advice, dict[str, Any]]:
    """Tries all settings on every other prompt of a pool and checks the cheapest good one.

    A setting is one to three of the limits that the pool has scores for, and a share. The second
    part of the result is the first as JSON has it.

    Raises:
        ConfigError: the pool lacks scores of beginnings, or has too few prompts.
    """
    pools = [*pool.read(path)]
    if not pools:
        raise ConfigError(f"the pool {path} has no rows")
    reward, limits = _reward(pools, config.reward)
    known = all(config.gold in c.scores for row in pools for c in row.candidates)
    value = config.gold if known else reward
    pools = [row for row in pools if unknown_gold(row, value) is None]
    if len(pools) < 2:
        raise ConfigError(
            f"{len(pools)} prompts of {path} have all {value}; half of them is too few"
        )
    sizes = [len(row.candidates) for row in pools]
    halves = pools[::2], pools[1::2]
    bootstrap: Any = {
        "resamples": config.resamples,
        "level": config.level,
        "seed": config.bootstrap_seed,
    }
    tried = [
        EarlyRejection(chosen, keep)
        for count in range(1, min(CHECKPOINTS, len(limits)) + 1)
        for chosen in combinations(limits, count)
        for keep in config.keeps
    ]
    trials = [(rejection, _measure(halves[0], reward, value, rejection)) for rejection in tried]
    good = [t for t in trials if t[1][0].mean() > 0 and t[1][1].mean() <= config.margin]
    best = max(good, key=lambda trial: trial[1][0].mean(), default=None)
    promised = checked = None
    if best is not None:
        promised = Effect(*(bootstrap_mean(part, **bootstrap) for part in best[1]))
        again = _measure(halves[1], reward, value, best[0])
        checked = Effect(*(bootstrap_mean(part, **bootstrap) for part in again))
    advice = Advice(
        reward=reward,
        value=value,
        candidates=(min(sizes), max(sizes)),
        prompts=(len(halves[0]), len(halves[1])),
        agreement={
            limit: bootstrap_mean(_agreement(pools, reward, limit), **bootstrap) for limit in limits
        },
        best=best and best[0],
        promised=promised,
        checked=checked,
        margin=config.margin,
    )
    return advice, as_json(advice) | as_result(advice.findings(config.level, config.resamples))


def _reward(pools: Sequence[Pool], wanted: str | None) -> tuple[str, list[int]]:
    """The reward that has scores of beginnings, and their lengths."""
    first = pools[0].candidates[0].scores
    found: dict[str, list[int]] = {}
    for name in first:
        if (match := CUT.fullmatch(name)) and match[1] in first:
            found.setdefault(match[1], []).append(int(match[2]))
    if wanted is None and len(found) == 1:
        wanted = next(iter(found))
    if wanted not in found:
        known = ", ".join(found) or "no reward"
        raise ConfigError(
            f"{known} has scores of beginnings in the pool; name one with --reward, or add them "
            "with `bestofn score POOL --reward flip-likelihood --limits 32,64,128`"
        )
    return wanted, sorted(found[wanted])


def _measure(
    pools: Sequence[Pool], reward: str, value: str, rejection: EarlyRejection
) -> tuple[Array, Array]:
    """`[prompts]` each: tokens saved over the mean prompt's, and value lost."""
    found = np.zeros((3, len(pools)))
    sizes = [len(row.candidates) for row in pools]
    for n in dict.fromkeys(sizes):
        block = np.flatnonzero(np.equal(sizes, n))
        part = [pools[i] for i in block]
        truth = np.array([scores_of(row, value) for row in part])
        early = draw_early(part, Drawing(reward, reject=rejection), truth, [n])
        generated, scored, *_ = spent(part, reward, [n], {})
        kept = best_of_n([scores_of(row, reward) for row in part], truth, [n])
        whole, less = generated + scored, early.generated + early.scored
        found[:, block] = whole[:, 0], less[:, 0], (kept - early.values)[:, 0]
    whole, less, lost = found
    return (whole - less) / whole.mean(), lost


def _agreement(pools: Sequence[Pool], reward: str, limit: int) -> Array:
    """`[prompts]`, how likely both choose the same candidate, ties broken at random."""
    chances = []
    for row in pools:
        names = (reward, cut_name(reward, limit))
        values = [np.nan_to_num(scores_of(row, name), nan=-np.inf) for name in names]
        bests = [(v == v.max()) / (v == v.max()).sum() for v in values]
        chances.append(float(bests[0] @ bests[1]))
    return np.array(chances)
