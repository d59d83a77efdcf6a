"""What is said and written of an evaluation: findings, JSON, CSV, a picture."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bestofn.analysis.findings import (
    FEW,
    Finding,
    as_json,
    as_result,
    coverage,
    shown,
    too_few,
    verdict,
)
from bestofn.analysis.plots import colours_of, new_figure, numbers, save_all, shared_legend, styled
from bestofn.analysis.results import flat
from bestofn.evals.rewardbench.accuracy import (
    BALANCED,
    CONVENTIONS,
    CREDIT,
    LONGER,
    MEAN,
    MEASURES,
    SHORTER,
    STRICT,
    TIES,
    Accuracy,
    Evaluation,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Result = Mapping[str, Any]
NAME = "rewardbench"
OURS = ("flip", "flip-likelihood", "mutual")
HOW = {
    STRICT: "ties wrong",
    CREDIT: "ties broken by a draw",
    BALANCED: "balanced over length",
}
RATES = ("tie_rate", "failure_rate", "all_failed")


def as_dict(evaluation: Evaluation, *, title: str = "", data: str = "") -> dict[str, Any]:
    """Everything that was estimated, as JSON can hold it; `data` is where the items are from."""
    chance, sizes = evaluation.chance, evaluation.subsets
    return {
        "title": title,
        "data": data,
        "items": sum(sizes.values()) + evaluation.ties_items,
        "subsets": {name: {"items": size, "chance": chance[name]} for name, size in sizes.items()},
        "ties_items": evaluation.ties_items,
        "chance": chance.get(MEAN),
        "seeds": evaluation.seeds,
        "level": evaluation.level,
        "resamples": evaluation.resamples,
        "models": evaluation.models,
        "rewards": {a.label: _accuracy(a) for a in evaluation.accuracies},
        "overall": {a.label: _accuracy(a) for a in evaluation.overall},
        "differences": as_json(evaluation.differences),
        **as_result(findings(evaluation)),
    }


def _accuracy(accuracy: Accuracy) -> dict[str, Any]:
    names = [f.name for f in fields(accuracy) if f.repr and f.name != "label"]
    found = {name: as_json(getattr(accuracy, name)) for name in names}
    return found | {"places": shares(accuracy.counts)}


def table(result: Result) -> Iterator[dict[str, Any]]:
    """A row for each reward and model and each subset, their mean, and the score of Ties.

    With several models also rows for the mean over them; costs are means for an item.
    """
    lines = [(line["model"], line) for line in result["rewards"].values()]
    if result["models"]:
        lines += [("mean of models", line) for line in result["overall"].values()]
    sizes = {name: subset["items"] for name, subset in result["subsets"].items()}
    sizes[MEAN] = sum(sizes.values())
    for model, line in lines:
        head = {"reward": line["reward"], "model": model}
        costs = {"tokens": line["tokens"], "seconds": line["seconds"]}
        for name, found in line["subsets"].items():
            subset = {"subset": name, "items": sizes[name], "chance": found["chance"]}
            measures: dict[str, Any] = {}
            for measure in (*MEASURES, LONGER, SHORTER):
                measures |= flat(measure, found[measure])
            yield head | subset | measures | {rate: found[rate] for rate in RATES} | costs
        if line["ties"] is not None:
            subset = {"subset": TIES, "items": result["ties_items"]}
            failed = {"failure_rate": line["ties_failure_rate"]}
            yield head | subset | flat("score", line["ties"]) | failed | costs


# --- findings -------------------------------------------------------------------------------------


def findings(evaluation: Evaluation) -> list[Finding]:
    """The findings; of a subset with a few items only the setting."""
    sizes = evaluation.subsets
    if evaluation.ties_items:
        sizes = sizes | {TIES: evaluation.ties_items}
    named = ", ".join(f"{name} {size}" for name, size in sizes.items())
    text = f"{sum(sizes.values())} items ({named})"
    if evaluation.seeds > 1:
        text += f", scored {evaluation.seeds} times in other orders and with other seeds"
    if evaluation.models:
        text += f", means over {len(evaluation.models)} models"
    if MEAN in evaluation.chance:
        text += f"; a random choice is right in {evaluation.chance[MEAN]:.3f} of them on average"
    if min(sizes.values()) < FEW:
        return [Finding(text), too_few("items a subset")]
    not_covered = "model or data set"
    return [
        Finding(text),
        *(finding for accuracy in evaluation.overall for finding in _of_reward(accuracy)),
        *_comparisons(evaluation),
        coverage(evaluation.level, "items in subsets", evaluation.resamples, not_covered),
    ]


def _of_reward(accuracy: Accuracy) -> Iterator[Finding]:
    label = accuracy.label
    if accuracy.all_failed:
        yield Finding(label, None, "all of its scores failed; it is compared with nothing")
    elif accuracy.subsets:
        mean = accuracy.subsets[MEAN]
        for convention in CONVENTIONS:
            against = _against_chance(accuracy, convention)
            claim = f"{label}, mean over subsets, {HOW[convention]}"
            yield Finding(claim, mean[convention], against)
        if not isnan(mean[BALANCED].mean):
            longer, shorter = (shown(mean[measure]) for measure in (LONGER, SHORTER))
            yield Finding(
                f"{label}, mean over subsets, {HOW[BALANCED]}",
                mean[BALANCED],
                f"{longer} where the right response is longer, {shorter} where it is shorter; "
                "length alone has 0.5",
            )
        ties, failed, all_failed = (mean[rate] for rate in RATES)
        yield Finding(
            f"{label}: {ties:.1%} of its items are ties, {failed:.1%} of its scores failed, all of "
            f"an item's in {all_failed:.1%}"
        )
    if accuracy.ties is not None:
        failed = f"{accuracy.ties_failure_rate:.1%} of its scores failed"
        yield Finding(f"{label} on Ties", accuracy.ties, failed)
    if places := shares(accuracy.counts):
        favourite = max(places, key=lambda name: places[name])
        picks = sum(accuracy.counts[name] for name in places)
        yield Finding(
            f"{label} picks {favourite.replace('_', ' ')} of what it is shown most often, in "
            f"{places[favourite]:.1%} of {picks:,} picks, where {1 / len(places):.1%} is even"
        )


def _against_chance(accuracy: Accuracy, convention: str) -> str:
    """Such as "below chance on Math"."""
    found: dict[str, list[str]] = {"below chance": [], "not measurably above chance": []}
    below, at = found.values()
    for name, estimate in accuracy.subsets.items():
        interval, chance = estimate[convention], estimate["chance"]
        if interval.low <= chance:
            which = below if interval.high < chance else at
            which.append("the mean" if name == MEAN else name)
    on = [f"{verdict} on {', '.join(names)}" for verdict, names in found.items() if names]
    return "; ".join(on) or "above chance on every subset"


def _comparisons(evaluation: Evaluation) -> Iterator[Finding]:
    """FLIP against each of the others that has any score, on the mean over subsets."""
    known = {a.label: a.kind for a in evaluation.overall if not a.all_failed}
    ours = [label for label, kind in known.items() if kind in OURS]
    for d in evaluation.differences:
        if d.a not in ours or d.b not in known or d.b in ours:
            continue
        minus, gain = d.minus[MEAN], d.gain[MEAN]
        if isnan(minus.mean):
            continue
        parts = [verdict(minus, "better", "worse")]
        if gain is not None:
            parts.append(f"a gain of {shown(gain, 'gain')}")
        lower = [name for name, i in d.minus.items() if float(i.high) < 0 and name != MEAN]
        if lower:
            parts.append(f"lower on {', '.join(lower)}")
        claim = f"{d.a} minus {d.b}, mean over subsets, {HOW[d.convention]}"
        yield Finding(claim, minus, "; ".join(parts), "difference")


def shares(counts: Mapping[str, int]) -> dict[str, float]:
    """The shares of a judge's picks by place.

    Empty for rewards that show responses in no places, or never picked one.
    """
    names = ["first", "second"] if counts.keys() & {"first", "second"} else []
    places = [name for name in counts if name.startswith("place_")]
    names += sorted(places, key=lambda name: int(name.removeprefix("place_")))
    picks = sum(counts.get(name, 0) for name in names)
    return {name: counts.get(name, 0) / picks for name in names} if picks else {}


# --- the picture ----------------------------------------------------------------------------------


def draw(result: Result, folder: Path) -> list[Path]:
    """Draws what `as_dict` returned: rewardbench.svg and rewardbench.png.

    With several models bars are means over models. There is no picture of Ties alone.
    """
    if not result["subsets"]:
        return []
    bars = len(result["overall"]) * (1 + len(result["subsets"]))
    with styled():
        figure, axes = new_figure(len(MEASURES), 1, result["title"], (max(6.4, 0.11 * bars), 2.3))
        for axis, measure in zip(axes, MEASURES, strict=True):
            _bars(axis, result, measure)
        shared_legend(figure, axes[0])
    return save_all({NAME: figure}, folder)


def _bars(axes: "Axes", result: Result, measure: str) -> None:
    names, colours = [*result["subsets"], MEAN], colours_of([*result["overall"]])
    sides, width = np.arange(len(names)), 0.8 / len(result["overall"])
    for number, (label, line) in enumerate(result["overall"].items()):
        places = sides - 0.4 + (number + 0.5) * width
        found = [line["subsets"][name][measure] for name in names]
        mean, low, high = (numbers([f[part] for f in found]) for part in ("mean", "low", "high"))
        axes.bar(places, mean, width * 0.92, color=colours[label], label=label, zorder=2)
        axes.vlines(places, low, high, color="#333333", linewidth=1, zorder=3)
    chances = [subset["chance"] for subset in result["subsets"].values()] + [result["chance"]]
    if measure == BALANCED:
        chances = [0.5] * len(names)
    style: Any = {"linestyles": "--", "linewidth": 1, "label": "chance", "zorder": 4}
    axes.hlines(chances, sides - 0.45, sides + 0.45, "#000000", **style)
    axes.grid(visible=False, axis="x")
    axes.set_xticks(range(len(names)), [name.replace("-", "-\n", 1) for name in names])
    axes.set(ylim=(0, 1), ylabel="accuracy", title=HOW[measure])
