"""What is written of an evaluation: JSON with everything, CSV with a row for each subset."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bestofn.analysis.findings import as_result
from bestofn.analysis.plots import colours_of, new_figure, numbers, save_all, shared_legend, styled
from bestofn.analysis.results import as_json, flat, write_results
from bestofn.evals.rewardbench.accuracy import CONVENTIONS, CREDIT, STRICT, Accuracy, Evaluation
from bestofn.evals.rewardbench.items import MEAN, TIES
from bestofn.evals.rewardbench.summary import findings, shares

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "rewardbench"
TITLES = {STRICT: "ties are wrong", CREDIT: "ties are broken by a draw"}


def as_dict(evaluation: Evaluation, *, title: str = "", data: str = "") -> dict[str, Any]:
    """Everything that was estimated, as JSON can hold it.

    Args:
        evaluation: The estimates.
        title: Of the picture.
        data: Where the items are from.
    """
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
        "rewards": {a.line.label: _accuracy(a) for a in evaluation.accuracies},
        "overall": {a.line.label: _accuracy(a) for a in evaluation.overall},
        "differences": as_json(evaluation.differences),
        **as_result(findings(evaluation)),
    }


def _accuracy(accuracy: Accuracy) -> dict[str, Any]:
    cost = accuracy.cost
    return {
        "reward": accuracy.line.reward,
        "kind": accuracy.line.kind,
        "model": accuracy.line.model,
        "subsets": as_json(accuracy.by_subset),
        "ties": as_json(accuracy.ties),
        "ties_failure_rate": accuracy.ties_failures,
        "tokens": cost.tokens,
        "seconds": cost.seconds,
        "counts": dict(cost.counts),
        "places": shares(cost.counts),
    }


def table(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
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
            rates = {rate: found[rate] for rate in ("tie_rate", "failure_rate", "all_failed")}
            subset = {"subset": name, "items": sizes[name], "chance": found["chance"]}
            accuracies = flat(STRICT, found[STRICT]) | flat(CREDIT, found[CREDIT])
            yield head | subset | accuracies | rates | costs
        if line["ties"] is not None:
            subset = {"subset": TIES, "items": result["ties_items"]}
            failed = {"failure_rate": line["ties_failure_rate"]}
            yield head | subset | flat("score", line["ties"]) | failed | costs


def write(folder: Path, result: Mapping[str, Any]) -> None:
    """Writes rewardbench.json and rewardbench.csv.

    Raises:
        BestOfNError: they cannot be written.
    """
    write_results(folder, NAME, result, table(result))


# --- the picture ----------------------------------------------------------------------------------


def draw(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draws what `as_dict` returned: rewardbench.svg and rewardbench.png.

    With several models bars are means over models, and a third panel shows each. There is no
    picture of items that are all of the subset Ties.

    Returns:
        The files that were written.

    Raises:
        BestOfNError: they cannot be written.
    """
    if not result["subsets"]:
        return []
    with styled():
        figure, axes = new_figure(1, 2 + bool(result["models"]), result["title"])
        colours = colours_of([*result["overall"]])
        for axis, convention in zip(axes, CONVENTIONS, strict=False):
            _bars(axis, result, convention, colours)
        for axis in axes[2:]:
            _by_model(axis, result, colours)
        shared_legend(figure, axes[0])
    return save_all({NAME: figure}, folder)


def _bars(
    axes: "Axes", result: Mapping[str, Any], convention: str, colours: Mapping[str, str]
) -> None:
    names = [*result["subsets"], MEAN]
    width = 0.8 / len(result["overall"])
    for number, (label, line) in enumerate(result["overall"].items()):
        places = np.arange(len(names)) - 0.4 + (number + 0.5) * width
        found = [line["subsets"][name][convention] for name in names]
        mean, low, high = (numbers([f[part] for f in found]) for part in ("mean", "low", "high"))
        axes.bar(places, mean, width * 0.92, color=colours[label], label=label, zorder=2)
        axes.vlines(places, low, high, color="#333333", linewidth=1, zorder=3)
    chances = [subset["chance"] for subset in result["subsets"].values()] + [result["chance"]]
    sides = np.arange(len(names))
    axes.hlines(
        chances, sides - 0.45, sides + 0.45, "#000000", "--", linewidth=1, label="chance", zorder=4
    )
    axes.grid(visible=False, axis="x")
    axes.set_xticks(range(len(names)), names)
    axes.set(ylim=(0, 1), ylabel="accuracy", title=TITLES[convention])


def _by_model(axes: "Axes", result: Mapping[str, Any], colours: Mapping[str, str]) -> None:
    """The mean over subsets of each model, ties being wrong."""
    for line in result["rewards"].values():
        if line["model"] is not None:
            place = result["models"].index(line["model"])
            mean = line["subsets"][MEAN][STRICT]["mean"]
            axes.plot(place, mean, "o", color=colours[line["reward"]], markersize=5)
    axes.axhline(result["chance"], color="#000000", linestyle="--", linewidth=1)
    axes.set_xticks(range(len(result["models"])), result["models"], rotation=40, ha="right")
    axes.set(ylim=(0, 1), ylabel="accuracy", title=f"{MEAN} over subsets, {TITLES[STRICT]}")
