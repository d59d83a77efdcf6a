"""Adaptive N against fixed N on pools of scored candidates: tunes the rule, reports, draws.

    python recipes/adaptive.py TUNING.jsonl TEST.jsonl -o OUT [--reward flip-likelihood flip]
        [--round-size 1 4] [--budget 4 8]

Every prompt's candidates are put into many random orders, and `ExpectedGain` says where each order
would have ended. On the tuning pool, whose candidates are the prior as well, weight and cost are
chosen: those of the highest gold that draw no more candidates than the budget, in the mean. The
test pool must hold other prompts. A fixed N of the same mean number is what the rule is compared
with: the exact expectation over all subsets.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bestofn import ExpectedGain, pool
from bestofn.errors import ConfigError
from bestofn.estimators import Interval, best_of_n, bootstrap_mean
from bestofn.experiments.expected import score_matrix
from bestofn.types import Pool

Array = NDArray[np.float64]

GOLD = "gold"
WEIGHTS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 64.0)
COSTS = np.append(np.geomspace(10.0, 1e-5, 92), 0.0)  # in units of the reward
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")


class Orders:
    """Random orders of each prompt's candidates.

    Args:
        scores: `[prompts, M]`, what the reward says, NaN where scoring failed.
        gold: `[prompts, M]`, finite.
        count: Orders of each prompt.
        seed: Of the orders.

    Attributes:
        scores: `[prompts, count, M]`, in order.
        chosen: `[prompts, count, M]`, gold of the best among the first 1 to M.
        fixed: `[prompts, M]`, its expectation over all subsets of size 1 to M.
    """

    def __init__(self, scores: Array, gold: Array, *, count: int = 200, seed: int = 0) -> None:
        prompts, size = scores.shape
        places = np.broadcast_to(np.arange(size), (prompts, count, size))
        orders = np.random.default_rng(seed).permuted(places, axis=-1)
        self.scores = np.take_along_axis(scores[:, None], orders, axis=-1)
        leaders = np.take_along_axis(orders, _leaders(self.scores), axis=-1)
        self.chosen = np.take_along_axis(gold[:, None], leaders, axis=-1)
        self.fixed = best_of_n(scores, gold, range(1, size + 1))

    def stop(self, enough: NDArray[np.bool_], round_size: int) -> tuple[Array, Array]:
        """What stopping gives, by prompt: mean number of candidates and mean gold.

        Args:
            enough: `[prompts, count, M]`, whether the rule would stop after each draw.
            round_size: It is asked after every so many draws.
        """
        asked = np.zeros(enough.shape[-1], dtype=np.bool_)
        asked[round_size - 1 :: round_size] = True
        ends = enough & asked
        ends[..., -1] = True
        last = ends.argmax(axis=-1)
        gold = np.take_along_axis(self.chosen, last[..., None], axis=-1)[..., 0]
        return (last + 1.0).mean(axis=1), gold.mean(axis=1)

    def fixed_at(self, drawn: float) -> tuple[Array, Array]:
        """Gold of a fixed N by prompt, and its slope; between whole numbers linear."""
        below = min(int(drawn), self.fixed.shape[1] - 1)
        slope = self.fixed[:, below] - self.fixed[:, below - 1]
        return self.fixed[:, below - 1] + slope * (drawn - below), slope


def _leaders(scores: Array) -> NDArray[np.intp]:
    """Where the best among the first 1 to M stands, the earliest of equal ones; same shape."""
    values = np.where(np.isnan(scores), -np.inf, scores)
    best = np.maximum.accumulate(values, axis=-1)
    places = np.zeros(values.shape, dtype=np.intp)
    rises = values[..., 1:] > best[..., :-1]
    places[..., 1:] = np.where(rises, np.arange(1, values.shape[-1]), 0)
    return np.maximum.accumulate(places, axis=-1)


@dataclass(frozen=True, slots=True)
class Point:
    """One cost on one pool.

    Attributes:
        cost: In units of the reward.
        drawn: Mean number of candidates.
        gold: Mean gold of the selected candidate, with its interval over prompts.
        fixed: Mean gold of the fixed N at that mean number.
        gain: Adaptive minus fixed, paired by prompt.
    """

    cost: float
    drawn: float
    gold: Interval
    fixed: float
    gain: Interval


def measure(orders: Orders, gains: Array, cost: float, round_size: int) -> Point:
    """The rule at one cost against the fixed N of the same mean number.

    The number that the other prompts of a resample would draw is not the same. Each prompt's
    difference is therefore charged for what it draws above the mean, at the slope of the mean
    curve of fixed N: this leaves the mean as it is, and puts the scatter into the interval.
    """
    drawn, gold = orders.stop(gains <= cost, round_size)
    fixed, slope = orders.fixed_at(drawn.mean())
    paired = gold - fixed - slope.mean() * (drawn - drawn.mean())
    return Point(
        cost, float(drawn.mean()), bootstrap_mean(gold), float(fixed.mean()), bootstrap_mean(paired)
    )


@dataclass(frozen=True, slots=True)
class Frontier:
    """One reward and round size, tuned on the one pool and measured on the other.

    Attributes:
        reward: Its name.
        round_size: Candidates drawn at once.
        weight: That of the rule, tuned.
        points: On the test pool, one for each cost, costs falling; the last cost is 0.
        budgets: On the test pool, by the mean number within which the cost was tuned.
    """

    reward: str
    round_size: int
    weight: float
    points: list[Point]
    budgets: dict[float, Point]


def frontier(
    reward: str,
    tuning: Sequence[Pool],
    test: Sequence[Pool],
    *,
    round_size: int,
    budgets: Sequence[float],
    orders: int = 200,
) -> Frontier:
    """Tunes weight and costs by gold on one pool and measures them on the other.

    Raises:
        ConfigError: a pool lacks scores, or a round is larger than a budget.
    """
    prior = score_matrix(tuning, reward)
    known = Orders(prior, score_matrix(tuning, GOLD), count=orders)
    candidates = [
        _tuned(known, ExpectedGain(0.0, prior=prior, weight=weight), round_size, budgets)
        for weight in WEIGHTS
    ]
    _, weight, costs = max(candidates)
    new = Orders(score_matrix(test, reward), score_matrix(test, GOLD), count=orders)
    gains = ExpectedGain(0.0, prior=prior, weight=weight).gain(new.scores)
    points = {cost: measure(new, gains, cost, round_size) for cost in map(float, COSTS)}
    by_budget = {budget: points[cost] for budget, cost in zip(budgets, costs, strict=True)}
    return Frontier(reward, round_size, weight, list(points.values()), by_budget)


def _tuned(
    orders: Orders, rule: ExpectedGain, round_size: int, budgets: Sequence[float]
) -> tuple[float, float, list[float]]:
    """Mean gold at the budgets, the rule's weight, and for each budget the best cost within it."""
    gains = rule.gain(orders.scores)
    means = [[part.mean() for part in orders.stop(gains <= cost, round_size)] for cost in COSTS]
    drawn, gold = np.array(means).T
    if min(budgets) < drawn.min():
        raise ConfigError(f"rounds of {round_size} draw more than a budget of {min(budgets):g}")
    within = np.where(drawn <= np.array(budgets)[:, None], gold, -np.inf)
    return float(within.max(axis=1).mean()), rule.weight, COSTS[within.argmax(axis=1)].tolist()


# --- what people read -----------------------------------------------------------------------------


def table(frontiers: Sequence[Frontier]) -> str:
    """The budgets and the cost 0 as Markdown."""
    head = "reward | rounds of | weight | cost | candidates | adaptive | fixed N | difference"
    lines = [f"| {head} |", "|---" * 8 + "|"]
    for line in frontiers:
        for point in (*line.budgets.values(), line.points[-1]):
            gain = point.gain
            lines.append(
                f"| {line.reward} | {line.round_size} | {line.weight:g} | {point.cost:.2g} "
                f"| {point.drawn:.1f} | {point.gold.mean:.3f} | {point.fixed:.3f} "
                f"| {gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] |"
            )
    return "\n".join(lines)


def as_json(frontiers: Sequence[Frontier]) -> list[dict[str, Any]]:
    return [
        {
            "reward": line.reward,
            "round_size": line.round_size,
            "weight": line.weight,
            "frontier": [_point(point) for point in line.points],
            "budgets": {f"{budget:g}": _point(point) for budget, point in line.budgets.items()},
        }
        for line in frontiers
    ]


def _point(point: Point) -> dict[str, Any]:
    parts: dict[str, Any] = {"cost": point.cost, "drawn": point.drawn, "fixed": point.fixed}
    for name in ("gold", "gain"):
        interval: Interval = getattr(point, name)
        parts[name] = {k: float(getattr(interval, k)) for k in ("mean", "low", "high")}
    return parts


def draw(frontiers: Sequence[Frontier], test: Sequence[Pool], folder: Path) -> None:
    """A picture for each reward, side by side: gold against the mean number of candidates."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rewards = list(dict.fromkeys(line.reward for line in frontiers))
    with mpl.rc_context({"font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "bestofn"}):
        figure = Figure(figsize=(4.6 * len(rewards), 3.6), layout="constrained")
        FigureCanvasAgg(figure)
        all_axes = figure.subplots(1, len(rewards), squeeze=False, sharey=True)[0]
        gold = score_matrix(test, GOLD)
        for axes, reward in zip(all_axes, rewards, strict=True):
            ns = np.arange(1, gold.shape[1] + 1)
            fixed = bootstrap_mean(best_of_n(score_matrix(test, reward), gold, ns.tolist()))
            _line(axes, ns, (fixed.mean, fixed.low, fixed.high), "fixed N", "#888888")
            for line, colour in zip(
                [line for line in frontiers if line.reward == reward], COLOURS, strict=False
            ):
                rows = [[p.drawn, p.gold.mean, p.gold.low, p.gold.high] for p in line.points]
                drawn, *band = np.array(rows).T
                _line(axes, drawn, band, f"adaptive, rounds of {line.round_size}", colour)
            axes.set(title=reward, xlabel="candidates, mean", ylabel=GOLD)
            axes.set_xscale("log", base=2)
            ticks = [n for n in ns.tolist() if n & (n - 1) == 0]
            axes.set_xticks(ticks, [str(n) for n in ticks])
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(color="#e4e4e4", linewidth=0.6)
            axes.legend(frameon=False, loc="upper left")
        figure.savefig(folder / "adaptive.svg", metadata={"Date": None})
        figure.savefig(folder / "adaptive.png", dpi=160)


def _line(axes: Any, x: Array, band: Sequence[Array], label: str, colour: str) -> None:
    mean, low, high = band
    axes.plot(x, mean, color=colour, label=label, linewidth=1.5)
    axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)


def read(tuning: Path, test: Path) -> tuple[list[Pool], list[Pool]]:
    """Both pools, which share no prompt."""
    pools = list(pool.read(tuning)), list(pool.read(test))
    shared = {p.prompt.messages for p in pools[0]} & {p.prompt.messages for p in pools[1]}
    if shared:
        raise ConfigError(f"{len(shared)} prompts stand in both pools; tune on other prompts")
    return pools


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tuning", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--reward", nargs="+", default=["flip-likelihood", "flip"])
    parser.add_argument("--round-size", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--budget", type=float, nargs="+", default=[4.0, 8.0])
    parser.add_argument("--orders", type=int, default=200)
    args = parser.parse_args()
    tuning, test = read(args.tuning, args.test)
    frontiers = [
        frontier(reward, tuning, test, round_size=size, budgets=args.budget, orders=args.orders)
        for reward, size in product(args.reward, args.round_size)
    ]
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "adaptive.json").write_text(json.dumps(as_json(frontiers), indent=1) + "\n")
    draw(frontiers, test, args.output)
    print(table(frontiers))


if __name__ == "__main__":
    main()
