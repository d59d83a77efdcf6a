"""Which setting, a proxy at an N, is best for a budget, and which is as good for less."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bestofn.analysis.curves import ProxyCurve, ScalingCurve
from bestofn.analysis.findings import Finding, at, verdict
from bestofn.analysis.proxies import FROM_GOLD, Array
from bestofn.estimators import Interval

KINDS = {
    "tokens": "tokens drawn and scored for a prompt",
    "seconds": "seconds to the last score, in the median prompt",
    "money": "money for 1,000 prompts",
}
BUDGETS = (0.25, 0.5)  # shares of what the setting of the highest gold costs
FORMS = {"tokens": ",.0f", "seconds": ".3g", "money": ".3g"}


@dataclass(frozen=True, slots=True)
class Setting:
    """One proxy at one N, what it costs and what it is worth."""

    proxy: str
    n: int
    cost: float
    gold: float

    @property
    def named(self) -> str:
        return f"{self.proxy} at N={self.n}"


def cost_of(curve: ProxyCurve, kind: str) -> Array | None:
    """`[ns]`, what a proxy costs, see `KINDS`; None where that is not known."""
    if kind == "seconds":
        return None if curve.latency is None else curve.latency[0]
    if kind == "money":
        return None if curve.money is None else 1000 * curve.money
    generated = curve.generated_tokens
    return None if generated is None else generated + curve.scored_tokens


def settings(curve: ScalingCurve, kind: str) -> list[Setting]:
    """All that can be had without gold and whose cost is known."""
    return [
        Setting(proxy.name, n, float(cost[place]), float(proxy.gold.mean[place]))
        for proxy in curve.curves
        if proxy.name not in FROM_GOLD and (cost := cost_of(proxy, kind)) is not None
        for place, n in enumerate(curve.ns)
    ]


def frontier(curve: ScalingCurve, kind: str) -> list[Setting]:
    """The settings that are better than all that cost no more, by rising cost."""
    found: list[Setting] = []
    for setting in sorted(settings(curve, kind), key=lambda s: (s.cost, -s.gold)):
        if not found or setting.gold > found[-1].gold:
            found.append(setting)
    return found


def of_costs(curve: ScalingCurve, margin: float) -> Iterator[Finding]:
    """The cheapest setting that loses no more than `margin` gold, and the best for some budgets."""
    for kind, what in KINDS.items():
        best = frontier(curve, kind)
        if len(best) < 2:
            continue
        top, form = best[-1], FORMS[kind]
        cheapest = next(s for s in best if s.gold >= top.gold - margin)
        if cheapest != top:
            loss = _minus(curve, cheapest, top)
            share = f"{cheapest.cost:{form}}, {cheapest.cost / top.cost:.0%} of what that takes"
            found = f"{verdict(loss, 'better', 'worse')}; {share}"
            claim = f"Least {what} within {margin:g} of the highest, {top.named}: {cheapest.named}"
            yield Finding(claim, loss, found, "difference")
        told = {cheapest}
        for budget in BUDGETS:
            within = [s for s in best if s.cost <= budget * top.cost]
            if within and within[-1] not in told:
                told.add(within[-1])
                claim = f"Highest with up to {budget * top.cost:{form}} {what}: {within[-1].named}"
                yield Finding(
                    claim, _minus(curve, within[-1], top), f"minus {top.named}", "difference"
                )


def _minus(curve: ScalingCurve, a: Setting, b: Setting) -> Interval:
    first, second = (curve.gold_of(s.proxy)[:, :, [curve.ns.index(s.n)]] for s in (a, b))
    return at(curve.interval(np.asarray(first - second)), 0)
