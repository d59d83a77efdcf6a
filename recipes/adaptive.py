"""Adaptive N against fixed N on pools of scored candidates: tunes the rule, reports, draws.

    python recipes/adaptive.py TUNING.jsonl TEST.jsonl -o OUT [--reward flip-likelihood flip]
        [--round-size 1 4] [--budget 4 8]

Every prompt's candidates are put into many random orders, and `ExpectedGain` says where each order
would have ended. Weight and cost, or n at cost 0, are chosen on the tuning pool, whose candidates
are the prior as well: those of the highest gold that draw no more than the budget in the mean. The
test pool must hold other prompts. The rule is compared with a fixed N of the same mean number: the
exact expectation over all subsets. All prompts have as many candidates.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bestofn import ExpectedGain
from bestofn.analysis.proxies import score_matrix
from bestofn.errors import ConfigError
from bestofn.estimators import Interval, best_of_n, bootstrap_mean
from bestofn.store import pool
from bestofn.types import Pool

Array = NDArray[np.float64]

GOLD = "gold"
WEIGHTS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 64.0)
COSTS = [*np.geomspace(10.0, 1e-5, 92).tolist(), 0.0]  # in units of the reward
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

    def stop(self, enough: NDArray[np.bool_], n: int, round_size: int) -> tuple[Array, Array]:
        """What stopping gives, by prompt: mean number of candidates and mean gold.

        Args:
            enough: `[prompts, count, M]`, whether the rule would stop after each draw.
            n: The most candidates.
            round_size: It is asked after every so many draws.
        """
        asked = np.zeros(enough.shape[-1], dtype=np.bool_)
        asked[round_size - 1 :: round_size] = True
        ends = enough & asked
        ends[..., n - 1] = True
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
class Setting:
    """What is tuned: the most candidates, and the weight and cost of the rule."""

    n: int
    weight: float
    cost: float


def by_cost(size: int) -> list[list[Setting]]:
    """Up to all candidates of a pool, at many costs; a family for each weight."""
    return [[Setting(size, weight, cost) for cost in COSTS] for weight in WEIGHTS]


def at_ceiling(size: int) -> list[list[Setting]]:
    """Cost 0, which stops at the top of the prior alone, up to 1, 2, ... candidates."""
    return [[Setting(n, 1.0, 0.0) for n in range(1, size + 1)]]


@dataclass(frozen=True, slots=True)
class Point:
    """One setting on one pool.

    Attributes:
        setting: The setting.
        drawn: Mean number of candidates.
        gold: Mean gold of the selected candidate, with its interval over prompts.
        fixed: Mean gold of the fixed N at that mean number.
        gain: Adaptive minus fixed, paired by prompt.
    """

    setting: Setting
    drawn: float
    gold: Interval
    fixed: float
    gain: Interval


def measure(orders: Orders, gains: Array, setting: Setting, round_size: int) -> Point:
    """The rule in one setting against the fixed N of the same mean number.

    The number that the other prompts of a resample would draw is not the same. Each prompt's
    difference is therefore charged for what it draws above the mean, at the slope of the mean
    curve of fixed N: this leaves the mean as it is, and puts the scatter into the interval.
    """
    drawn, gold = orders.stop(gains <= setting.cost, setting.n, round_size)
    mean = float(drawn.mean())
    fixed, slope = orders.fixed_at(mean)
    paired = gold - fixed - slope.mean() * (drawn - mean)
    return Point(setting, mean, bootstrap_mean(gold), float(fixed.mean()), bootstrap_mean(paired))


@dataclass(frozen=True, slots=True)
class Frontier:
    """One reward, tuned on the one pool and measured on the other.

    Attributes:
        reward: Its name.
        rule: What is tuned, in words.
        points: On the test pool, one for each setting of the best family.
        budgets: Those of them that were tuned, by the mean number that they had to keep within.
    """

    reward: str
    rule: str
    points: list[Point]
    budgets: dict[float, Point]


class Trial:
    """A tuning pool and a test pool under one reward.

    Args:
        reward: The name of its scores.
        tuning: Chooses among settings, and is the prior.
        test: Other prompts.
        count: Orders of each prompt.

    Raises:
        ConfigError: a pool lacks scores.
    """

    def __init__(
        self, reward: str, tuning: Sequence[Pool], test: Sequence[Pool], *, count: int = 200
    ) -> None:
        self.reward = reward
        self.prior = score_matrix(tuning, reward)
        self.tuning = Orders(self.prior, score_matrix(tuning, GOLD), count=count)
        self.test = Orders(score_matrix(test, reward), score_matrix(test, GOLD), count=count)

    def frontier(
        self,
        rule: str,
        families: Sequence[Sequence[Setting]],
        *,
        round_size: int,
        budgets: Sequence[float],
    ) -> Frontier:
        """The family that does best on the tuning pool, over its settings on the test pool.

        Args:
            rule: Names the frontier.
            families: Each of settings with one weight.
            round_size: Candidates drawn at once.
            budgets: Mean numbers of candidates on the tuning pool.

        Raises:
            ConfigError: a round is larger than a budget.
        """
        tuned = [self._tuned(family, round_size, budgets) for family in families]
        best = max(range(len(families)), key=lambda i: tuned[i][0])
        gains = self._gains(self.test, families[best][0].weight)
        points = [measure(self.test, gains, setting, round_size) for setting in families[best]]
        chosen = [points[place] for place in tuned[best][1]]
        return Frontier(self.reward, rule, points, dict(zip(budgets, chosen, strict=True)))

    def _gains(self, orders: Orders, weight: float) -> Array:
        return ExpectedGain(0.0, prior=self.prior, weight=weight).gain(orders.scores)

    def _tuned(
        self, family: Sequence[Setting], round_size: int, budgets: Sequence[float]
    ) -> tuple[float, list[int]]:
        """Mean gold at the budgets, and for each budget the place of the best setting within it."""
        gains = self._gains(self.tuning, family[0].weight)
        results = [self.tuning.stop(gains <= s.cost, s.n, round_size) for s in family]
        drawn, gold = np.array(results).mean(axis=2).T
        if min(budgets) < drawn.min():
            raise ConfigError(f"rounds of {round_size} draw more than a budget of {min(budgets):g}")
        within = np.where(drawn <= np.array(budgets)[:, None], gold, -np.inf)
        return float(within.max(axis=1).mean()), within.argmax(axis=1).tolist()


# --- what people read -----------------------------------------------------------------------------


def table(frontiers: Sequence[Frontier]) -> str:
    """The budgets as Markdown."""
    head = "reward | rule | n | weight | cost | candidates | adaptive | fixed N | difference"
    lines = [f"| {head} |", "|---" * 9 + "|"]
    for line in frontiers:
        for point in line.budgets.values():
            setting, gain = point.setting, point.gain
            lines.append(
                f"| {line.reward} | {line.rule} | {setting.n} | {setting.weight:g} "
                f"| {setting.cost:.2g} | {point.drawn:.1f} | {point.gold.mean:.3f} "
                f"| {point.fixed:.3f} | {gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] |"
            )
    return "\n".join(lines)


def as_json(frontiers: Sequence[Frontier]) -> list[dict[str, Any]]:
    return [
        {
            "reward": line.reward,
            "rule": line.rule,
            "frontier": [_point(point) for point in line.points],
            "budgets": {f"{budget:g}": _point(point) for budget, point in line.budgets.items()},
        }
        for line in frontiers
    ]


def _point(point: Point) -> dict[str, Any]:
    parts: dict[str, Any] = asdict(point.setting) | {"drawn": point.drawn, "fixed": point.fixed}
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
        for axes, reward in zip(all_axes, rewards, strict=True):
            _panel(axes, reward, [line for line in frontiers if line.reward == reward], test)
        figure.savefig(folder / "adaptive.svg", metadata={"Date": None})
        figure.savefig(folder / "adaptive.png", dpi=160)


def _panel(axes: Any, reward: str, lines: Sequence[Frontier], test: Sequence[Pool]) -> None:
    gold = score_matrix(test, GOLD)
    ns = np.arange(1, gold.shape[1] + 1)
    fixed = bootstrap_mean(best_of_n(score_matrix(test, reward), gold, ns.tolist()))
    _line(axes, ns, (fixed.mean, fixed.low, fixed.high), "fixed N", "#888888")
    for i, line in enumerate(lines):
        rows = [[p.drawn, p.gold.mean, p.gold.low, p.gold.high] for p in line.points]
        drawn, *band = np.array(rows).T
        _line(axes, drawn, band, line.rule, COLOURS[i % len(COLOURS)])
    axes.set(title=reward, xlabel="candidates, mean", ylabel=GOLD)
    axes.set_xscale("log", base=2)
    ticks = [n for n in ns.tolist() if n & (n - 1) == 0]
    axes.set_xticks(ticks, [str(n) for n in ticks])
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.legend(frameon=False, loc="upper left")


def _line(axes: Any, x: Array, band: Sequence[Array], label: str, colour: str) -> None:
    mean, low, high = band
    axes.plot(x, mean, color=colour, label=label, linewidth=1.5)
    axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)


def read(tuning: Path, test: Path) -> tuple[list[Pool], list[Pool]]:
    """Both pools.

    Raises:
        ConfigError: they cannot be read, share a prompt, or prompts differ in their candidates'
            number.
    """
    pools = list(pool.read(tuning)), list(pool.read(test))
    shared = {p.prompt.messages for p in pools[0]} & {p.prompt.messages for p in pools[1]}
    if shared:
        raise ConfigError(f"{len(shared)} prompts stand in both pools; tune on other prompts")
    sizes = sorted({len(p.candidates) for part in pools for p in part})
    if len(sizes) != 1:
        raise ConfigError(f"all prompts need as many candidates, here they have one of {sizes}")
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
    size, smallest = len(test[0].candidates), min(args.round_size)
    rules = [(f"rounds of {rounds}", by_cost(size), rounds) for rounds in args.round_size]
    rules.append((f"cost 0, rounds of {smallest}", at_ceiling(size), smallest))
    trials = [Trial(reward, tuning, test, count=args.orders) for reward in args.reward]
    frontiers = [
        trial.frontier(name, families, round_size=rounds, budgets=args.budget)
        for trial in trials
        for name, families, rounds in rules
    ]
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "adaptive.json").write_text(json.dumps(as_json(frontiers), indent=1) + "\n")
    draw(frontiers, test, args.output)
    print(table(frontiers))


if __name__ == "__main__":
    main()
