"""The picture of an evaluation: bars by subset with intervals, and what chance would give."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bestofn.analysis.plots import STYLE, colours_of, new_figure, save
from bestofn.evals.rewardbench.accuracy import CONVENTIONS, CREDIT, STRICT
from bestofn.evals.rewardbench.items import MEAN

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "rewardbench"
TITLES = {STRICT: "ties are wrong", CREDIT: "ties are broken by a draw"}


def draw(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draws what `results.as_dict` returned: rewardbench.svg and rewardbench.png.

    With several models bars are means over models, and a third panel shows each. There is no
    picture of items that are all of the subset Ties.

    Returns:
        The files that were written.

    Raises:
        BestOfNError: they cannot be written.
    """
    import matplotlib as mpl

    if not result["subsets"]:
        return []
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(1, 2 + bool(result["models"]), result["title"])
        colours = colours_of([*result["overall"]])
        for axis, convention in zip(axes, CONVENTIONS, strict=False):
            _bars(axis, result, convention, colours)
        for axis in axes[2:]:
            _by_model(axis, result, colours)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=min(len(labels), 8), frameon=False
        )
        return [save(figure, folder / f"{NAME}{suffix}") for suffix in (".svg", ".png")]


def _bars(
    axes: "Axes", result: Mapping[str, Any], convention: str, colours: Mapping[str, str]
) -> None:
    names = [*result["subsets"], MEAN]
    width = 0.8 / len(result["overall"])
    for number, (label, line) in enumerate(result["overall"].items()):
        places = np.arange(len(names)) - 0.4 + (number + 0.5) * width
        found = [line["subsets"][name][convention] for name in names]
        mean, low, high = (np.array([f[part] for f in found]) for part in ("mean", "low", "high"))
        axes.bar(places, mean, width * 0.92, color=colours[label], label=label, zorder=2)
        axes.vlines(places, low, high, color="#333333", linewidth=1, zorder=3)
    chances = [subset["chance"] for subset in result["subsets"].values()] + [result["chance"]]
    for place, chance in enumerate(chances):
        sides = (place - 0.45, place + 0.45)
        axes.plot(sides, (chance, chance), "--", color="#000000", linewidth=1, zorder=4)
    axes.plot([], [], "--", color="#000000", linewidth=1, label="chance")
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
