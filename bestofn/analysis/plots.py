"""Pictures, drawn with matplotlib: what all of them share, and those of a curve."""

import base64
import io
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bestofn.errors import BestOfNError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Values = Mapping[str, Any]

# Okabe and Ito's colours, which the colour-blind can tell apart.
COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F3C8D", "#117733"),
    *("#882255", "#999933", "#44AA99", "#AA4499"),
)
PLAIN = {"random": "#888888", "oracle": "#000000"}
GREY = "#cccccc"
BY_LENGTH = {
    "spearman": "rank correlation with length within prompts",
    "beyond_length": "{gold} minus choosing by length alone",
    "longer": "right order of pairs, longer minus shorter half",
}
COSTS = {
    "tokens": "tokens drawn and scored, per prompt",
    "seconds": "seconds to the last score, median and 95th percentile",
    "money": "money, per 1,000 prompts",
}
DOTS = 160  # per inch
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "lines.markersize": 3,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # and a dollar a dollar
    "svg.hashsalt": "bestofn",  # the same result gives the same file
}


def styled() -> AbstractContextManager[None]:
    """The style in which all pictures are drawn."""
    import matplotlib as mpl

    return mpl.rc_context(STYLE)


def new_figure(
    rows: int, columns: int, title: str, panel: tuple[float, float] = (4.2, 3.4)
) -> tuple["Figure", list["Axes"]]:
    """A figure with a grid of axes, row by row; `panel` is the size of each in inches."""
    # No pyplot: its figures are global, and it wants a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(panel[0] * columns, panel[1] * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    if title:
        figure.suptitle(title, fontsize=11)
    return figure, axes


def save(figure: "Figure", path: Path) -> Path:
    """Writes a figure as SVG or PNG, by the path's ending.

    Raises:
        BestOfNError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_rendered(figure, path.suffix.removeprefix(".")))
    except OSError as error:
        raise BestOfNError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def save_all(figures: Mapping[str, "Figure"], folder: Path) -> list[Path]:
    """Writes each figure as NAME.svg and NAME.png; see `save`."""
    forms = ("svg", "png")
    return [save(f, folder / f"{name}.{form}") for name, f in figures.items() for form in forms]


def as_image(figure: "Figure") -> str:
    """A figure as the data URI of an SVG image, in which nothing runs."""
    return "data:image/svg+xml;base64," + base64.b64encode(_rendered(figure, "svg")).decode()


def _rendered(figure: "Figure", form: str) -> bytes:
    content = io.BytesIO()
    with styled():
        metadata = {"Date": None} if form == "svg" else None
        figure.savefig(content, format=form, dpi=DOTS, metadata=metadata)
    return content.getvalue()


def colours_of(names: Sequence[str]) -> dict[str, str]:
    """A colour for each name."""
    others = [name for name in names if name not in PLAIN]
    return PLAIN | {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(others)}


def numbers(values: Sequence[float | None]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The values with NaN for None."""
    return np.array(values, dtype=np.float64)


def shared_legend(figure: "Figure", axes: "Axes") -> None:
    """The legend of one panel below all of them."""
    handles, labels = axes.get_legend_handles_labels()
    widest = 0.7 + 0.075 * max(map(len, labels), default=0)  # inches
    columns = max(1, int(figure.get_figwidth() / widest))
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), columns))


# --- a curve --------------------------------------------------------------------------------------


def figures(result: Values) -> dict[str, "Figure"]:
    """The pictures of what `results.as_dict` returned.

    They are `scaling`, `costs` where seconds or money are known, and `lengths` if it has them.
    """
    with styled():
        found = {"scaling": _scaling(result)}
        if result["frontier"]["seconds"] or result["frontier"]["money"]:
            found["costs"] = _costs(result)
        if result["lengths"] is not None:
            found["lengths"] = _lengths(result)
    return found


def _scaling(result: Values) -> "Figure":
    """All curves without bands, then for each proxy its gain with one, the others in grey."""
    proxies, ns, gold = result["proxies"], result["ns"], result["gold"]
    gains = {name: proxies[name]["gain"] for name in proxies if name not in PLAIN}
    figure, axes = _grid(2 + len(gains), result)
    colours = colours_of([*proxies])
    for name, curve in proxies.items():
        style = {"color": colours[name], "label": name, "ls": "--" if name in PLAIN else "-"}
        axes[0].plot(ns, curve["gold"]["mean"], "o", **style)
        if curve["costs"]["tokens"] is not None:
            axes[1].plot(curve["costs"]["tokens"], curve["gold"]["mean"], "o", **style)
    _log2(axes[0], ns, "N", gold, f"{gold} of the selected candidate")
    _log10(axes[1])
    axes[1].set(xlabel="tokens drawn and scored, per prompt", ylabel=gold, title="by cost")
    shared_legend(figure, axes[0])
    for panel, name in zip(axes[2:], gains, strict=True):
        panel.sharey(axes[2])
        for gain in gains.values():
            panel.plot(ns, gain["mean"], color=GREY, lw=1)
        _banded(panel, ns, gains[name], colours[name])
        panel.axhline(0, color=PLAIN["random"], ls="--", lw=1)
        _log2(panel, ns, "N", f"minus random, {result['level']:.0%} interval", name)
    return figure


def _costs(result: Values) -> "Figure":
    """Gold against each known cost, and the settings that no cheaper one is as good as."""
    proxies, kinds = result["proxies"], [k for k, found in result["frontier"].items() if found]
    figure, axes = _grid(len(kinds), result)
    colours = colours_of([*proxies])
    for kind, panel in zip(kinds, axes, strict=True):
        for name in (name for name in proxies if name not in PLAIN):
            curve = proxies[name]
            costs, gold = curve["costs"][kind], curve["gold"]["mean"]
            if costs is None:
                continue
            panel.plot(costs, gold, "o-", color=colours[name], label=name)
            if kind == "seconds":
                panel.hlines(gold, costs, curve["latency"][1], color=colours[name], lw=0.5)
        points = result["frontier"][kind]
        steps = [[point[end] for point in points] for end in ("cost", "gold")]
        panel.step(*steps, where="post", color="#000000", lw=0.8, ls=":", label="best for less")
        _log10(panel)
        panel.set(xlabel=COSTS[kind], ylabel=result["gold"])
    shared_legend(figure, axes[0])
    return figure


def _lengths(result: Values) -> "Figure":
    """What each proxy prefers and is worth by length, then the choice by first tokens."""
    lengths, gold = result["lengths"], result["gold"]
    rewards, limits = lengths["rewards"], lengths["limits"]
    colours = colours_of([*dict.fromkeys([*result["proxies"], *rewards])])
    cut = {name: cuts for name, cuts in rewards.items() if cuts["cut"]}
    figure, axes = _grid(3 + bool(rewards) + bool(cut), result)
    for panel, (name, title) in zip(axes, BY_LENGTH.items(), strict=False):
        _whiskers(panel, lengths[name], colours, title.format(gold=gold))
    for name, cuts in rewards.items():
        _banded(axes[3], limits, cuts["difference"], colours[name], name)
        axes[3].axhline(-cuts["margin"], color=PLAIN["random"], ls=":", lw=1)
    for panel in axes[3:4]:
        panel.axhline(0, color=PLAIN["random"], lw=0.8)
    for name, cuts in cut.items():  # dotted, what whole responses give
        last = [row[-1] for row in cuts["cut"]["mean"]]
        axes[4].plot(limits, last, "o-", color=colours[name], label=name)
        axes[4].axhline(cuts["whole"]["mean"][-1], color=colours[name], ls=":", lw=1)
    chosen = f"full candidate chosen by its first tokens, N={result['ns'][-1]}"
    texts = [(f"{gold} minus by whole responses", chosen), (gold, "the cut candidate itself")]
    for panel, (label, title) in zip(axes[3:], texts, strict=False):
        _log2(panel, limits, "first tokens that the reward sees", label, title)
        panel.legend()
    return figure


def _grid(panels: int, result: Values) -> tuple["Figure", list["Axes"]]:
    """So many panels, three in a row."""
    figure, axes = new_figure(-(-panels // 3), 3, result["title"], (4.2, 2.9))
    for spare in axes[panels:]:
        spare.set_axis_off()
    return figure, axes[:panels]


def _banded(axes: "Axes", x: Any, interval: Values, colour: str, label: str | None = None) -> None:
    axes.plot(x, interval["mean"], "o-", color=colour, label=label)
    low, high = numbers(interval["low"]), numbers(interval["high"])
    axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)


def _log2(axes: "Axes", values: Sequence[int], xlabel: str, ylabel: str, title: str) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(values), [str(value) for value in values])
    axes.minorticks_off()
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)


def _log10(axes: "Axes") -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    if axes.dataLim.minposx < np.inf:  # where candidates have a token count
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())


def _whiskers(axes: "Axes", by_name: Values, colours: Mapping[str, str], title: str) -> None:
    for place, (name, interval) in enumerate(by_name.items()):
        mean, low, high = numbers([interval[end] for end in ("mean", "low", "high")])
        colour = colours.get(name, "#000000")
        axes.plot([mean], [place], "o", color=colour)
        axes.hlines(place, low, high, color=colour)  # need not contain the mean
    axes.axvline(0, color=PLAIN["random"], linewidth=0.8)
    axes.set_yticks(
        range(len(by_name)), [name if len(name) <= 32 else f"{name[:31]}…" for name in by_name]
    )
    axes.set(ylim=(max(len(by_name), 1) - 0.5, -0.5), xlabel=title)
