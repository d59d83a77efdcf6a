"""Which checkpoints and share of early rejection suit a pool's prompts."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np

from bestofn.analysis.early import Drawing, Drawn, draw_early
from bestofn.analysis.findings import FEW, Finding, as_json, as_result, coverage, too_few
from bestofn.analysis.lengths import limits_of
from bestofn.analysis.proxies import Array, scores_of, unknown_gold
from bestofn.config import AdviseConfig
from bestofn.dataset.pools import cut_name
from bestofn.errors import ConfigError
from bestofn.estimators import Interval, bootstrap_mean
from bestofn.rejection import EarlyRejection
from bestofn.store import pool
from bestofn.types import Pool

CHECKPOINTS = 3  # the most that are tried together
ORDERS = 16  # of each prompt's candidates, for each of many settings
GOLD = "gold"


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
        n: Candidates that are drawn; all numbers are expectations over orders of a pool's.
        candidates: Of a prompt in the pool, the fewest and the most.
        prompts: How many it was found on, and how many it was checked on.
        left_out: Prompts of which `value` is not known, with the reason.
        agreement: By checkpoint, how often the candidate chosen by the first tokens is the one
            chosen by whole responses, on all prompts.
        best: The recommendation, which saves most of those whose loss is shown to be at most the
            margin, by the upper end of an interval that allows for as many settings as were tried
            (Bonferroni); None if there are none that save any.
        promised: On the half that it was found on.
        checked: On the other half.
        margin: The most that may be lost.
    """

    reward: str
    value: str
    n: int
    candidates: tuple[int, int]
    prompts: tuple[int, int]
    left_out: list[tuple[str, str]]
    agreement: dict[int, Interval]
    best: EarlyRejection | None
    promised: Effect | None
    checked: Effect | None
    margin: float

    def findings(self) -> Iterator[Finding]:
        """What is said of it."""
        sizes = " to ".join(map(str, dict.fromkeys(self.candidates)))
        yield Finding(f"{sum(self.prompts)} prompts, {self.n} of {sizes} candidates each")
        if self.left_out:
            count, first = len(self.left_out), ": ".join(self.left_out[0])
            yield Finding(f"{count} others are left out; the first, {first}")
        if min(self.prompts) < FEW:
            yield too_few("prompts of each half")
            return
        if self.best is None or self.promised is None or self.checked is None:
            text = (
                f"No setting saves tokens and is shown to lose at most {self.margin:g} {self.value}"
            )
            yield Finding(f"{text}: reject none, or ask with more prompts")
            return
        option = ",".join(map(str, self.best.at))
        use = f"Recommended: --reject {option} --reject-keep {self.best.keep:g}"
        yield Finding(f"{use}, found on {self.prompts[0]} prompts")
        for where, effect in (("there", self.promised), ("on the others", self.checked)):
            saved = f"Tokens saved {where}, of those drawn and scored"
            yield Finding(saved, effect.saving, kind="rate")
            yield Finding(f"{self.value} lost {where}", effect.loss, self._verdict(effect))

    def _verdict(self, effect: Effect) -> str:
        if effect.saving.mean <= 0:
            return "nothing is saved; reject none"
        shown = effect.loss.high <= self.margin
        within = "at most" if shown else "not shown to be at most"
        return f"{within} {self.margin:g}"


def advise(path: Path, config: AdviseConfig) -> tuple[Advice, dict[str, Any]]:
    """Tries all settings on a random half of a pool's prompts and checks the best one on the rest.

    A setting is one to three of the limits that the pool has scores for, and a share. The second
    part of the result is the first as JSON has it.

    Raises:
        ConfigError: the pool lacks scores of beginnings, or has too few prompts.
    """
    every = [*pool.read(path)]
    if not every:
        raise ConfigError(f"the pool {path} has no rows")
    named = {name for row in every for c in row.candidates for name in c.scores}
    gold = config.gold or (GOLD if GOLD in named else None)
    reward, limits = _reward(every, config.reward, gold or GOLD)
    value = gold or reward
    reasons = {row.prompt.id: _unknown(row, gold, reward) for row in every}
    pools = [row for row in every if reasons[row.prompt.id] is None]
    left_out = [(name, why) for name, why in reasons.items() if why is not None]
    if len(pools) < 2:
        why = "; the first that is left out, {}: {}".format(*left_out[0]) if left_out else ""
        raise ConfigError(f"{path} has {len(pools)} prompts to learn from, too few to halve{why}")
    # By chance: neighbours in a data set are often of alternating kinds.
    order = np.random.default_rng(config.bootstrap_seed).permutation(len(pools))
    halves = [[pools[i] for i in sorted(part)] for part in np.array_split(order, 2)]
    sizes = [len(row.candidates) for row in pools]
    n = config.n or max(min(sizes) // 2, 1)
    if n > min(sizes):
        raise ConfigError(f"N={n} needs more than the {min(sizes)} candidates of a prompt")

    def mean(values: Array, level: float = config.level) -> Interval:
        resampled: Any = {"resamples": config.resamples, "seed": config.bootstrap_seed}
        return bootstrap_mean(values, level=level, **resampled)

    tried = [
        EarlyRejection(chosen, keep)
        for count in range(1, min(CHECKPOINTS, len(limits)) + 1)
        for chosen in combinations(limits, count)
        for keep in config.keeps
    ]
    first, second = (_Half(half, reward, value, n) for half in halves)
    strict = 1 - (1 - config.level) / max(len(tried), 1)
    best = first.best(tried, lambda lost: float(mean(lost, strict).high) <= config.margin)
    advice = Advice(
        reward=reward,
        value=value,
        n=n,
        candidates=(min(sizes), max(sizes)),
        prompts=(len(halves[0]), len(halves[1])),
        left_out=left_out,
        agreement={limit: mean(_agreement(pools, reward, limit)) for limit in limits},
        best=best,
        promised=None if best is None else Effect(*map(mean, first.effect(best))),
        checked=None if best is None else Effect(*map(mean, second.effect(best))),
        margin=config.margin,
    )
    covered = coverage(config.level, "prompts", config.resamples, "generator, reward or data set")
    return advice, as_json(advice) | as_result([*advice.findings(), covered])


def _reward(pools: Sequence[Pool], wanted: str | None, gold: str) -> tuple[str, list[int]]:
    """The reward that has scores of beginnings, and their lengths."""
    limits, rewards, lacking = limits_of(pools, gold)
    if wanted in lacking:
        raise ConfigError(
            f"{wanted} lacks the score {lacking[wanted]}; add it with `bestofn score`"
        )
    if wanted is None and len(rewards) == 1:
        wanted = rewards[0]
    if wanted is None or wanted not in rewards:
        raise ConfigError(
            f"rewards with scores of beginnings in the pool: {', '.join(rewards) or 'none'}; name "
            "one with --reward, or add them with `bestofn score POOL --reward flip-likelihood "
            "--limits 32,64,128`"
        )
    return wanted, limits


def _unknown(row: Pool, gold: str | None, reward: str) -> str | None:
    """Why nothing can be said of a prompt, None if something can."""
    if gold is not None:
        return unknown_gold(row, gold)
    return f"every {reward} failed" if all(map(isnan, scores_of(row, reward))) else None


class _Half:
    """Some of the prompts, and what best-of-N chooses and spends on them."""

    def __init__(self, pools: Sequence[Pool], reward: str, value: str, n: int) -> None:
        self.pools, self.reward, self.ns = pools, reward, [n]
        self.truth = [_finite(scores_of(row, value)) for row in pools]
        self.plain = self._drawn(None)

    def effect(self, rejection: EarlyRejection) -> tuple[Array, Array]:
        """`[prompts]` each: tokens saved over the mean prompt's, and value lost."""
        early = self._drawn(rejection)
        before, after = (drawn.generated + drawn.scored for drawn in (self.plain, early))
        saved = (before - after) / max(before.mean(), 1.0)
        return saved[:, 0], (self.plain.values - early.values)[:, 0]

    def best(
        self, tried: Sequence[EarlyRejection], loses_little: Callable[[Array], bool]
    ) -> EarlyRejection | None:
        """Whichever saves most and loses little, None if nothing does both."""
        best, most = None, 0.0
        for each in tried:
            saved, lost = self.effect(each)
            if saved.mean() > most and loses_little(lost):
                best, most = each, float(saved.mean())
        return best

    def _drawn(self, rejection: EarlyRejection | None) -> Drawn:
        drawing = Drawing(self.reward, reject=rejection)
        return draw_early(self.pools, drawing, self.truth, self.ns, orders=ORDERS)


def _finite(values: Sequence[float]) -> list[float]:
    """The values, a missing one as low as the lowest."""
    return np.nan_to_num(values, nan=np.nanmin(values)).tolist()  # type: ignore[no-any-return]


def _agreement(pools: Sequence[Pool], reward: str, limit: int) -> Array:
    """`[prompts]`, how likely both choose the same candidate, ties broken at random."""
    chances = []
    for row in pools:
        names = (reward, cut_name(reward, limit))
        values = [np.nan_to_num(scores_of(row, name), nan=-np.inf) for name in names]
        bests = [(v == v.max()) / (v == v.max()).sum() for v in values]
        chances.append(float(bests[0] @ bests[1]))
    return np.array(chances)
