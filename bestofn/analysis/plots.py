"""Pictures of a curve: scaling, and selection by length; each as SVG and PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bestofn.errors import BestOfNError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which the colour-blind can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F3C8D", "#117733")
PLAIN = {"random": "#888888", "oracle": "#000000"}
DOTS = 160  # per inch
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # and a dollar a dollar
    "svg.hashsalt": "bestofn",  # the same result gives the same file
}


def draw(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draws what `results.as_dict` returned: scaling.svg and .png, lengths.svg and .png.

    Returns:
        The files that were written.

    Raises:
        BestOfNError: they cannot be written.
    """
    import matplotlib as mpl

    files = []
    with mpl.rc_context(STYLE):
        pictures = {"scaling": _scaling(result)}
        if result["lengths"] is not None:
            pictures["lengths"] = _lengths(result)
        for name, figure in pictures.items():
            files += [save(figure, folder / f"{name}{suffix}") for suffix in (".svg", ".png")]
    return files


def new_figure(rows: int, columns: int, title: str) -> tuple["Figure", list["Axes"]]:
    """A figure with a grid of axes, row by row."""
    # No pyplot: its figures are global, and it wants a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * columns, 3.4 * rows), layout="constrained")
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
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, dpi=DOTS, metadata=metadata)
    except OSError as error:
        raise BestOfNError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def colours_of(names: Sequence[str]) -> dict[str, str]:
    """A colour for each name."""
    others = [name for name in names if name not in PLAIN]
    return PLAIN | {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(others)}


def _numbers(values: Sequence[float | None]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array(values, dtype=np.float64)


def _line(axes: "Axes", x: Any, interval: Mapping[str, Any], label: str, colour: str) -> None:
    mean, low, high = (_numbers(interval[name]) for name in ("mean", "low", "high"))
    style = "--" if label in PLAIN else "-"
    axes.plot(x, mean, style, color=colour, label=label, marker="o", markersize=3, linewidth=1.5)
    axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)


def _log2(axes: "Axes", values: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(values), [str(value) for value in values])
    axes.minorticks_off()


def _log10(axes: "Axes") -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())


# --- scaling --------------------------------------------------------------------------------------


def _scaling(result: Mapping[str, Any]) -> "Figure":
    figure, (gold, proxy, cost) = new_figure(1, 3, result["title"])
    colours = colours_of([*result["proxies"]])
    for name, curve in result["proxies"].items():
        _line(gold, result["ns"], curve["gold"], name, colours[name])
        _proxy_line(proxy, result["ns"], curve, name, colours[name])
        if curve["generated_tokens"] is not None:
            tokens = _numbers(curve["generated_tokens"]) + _numbers(curve["scored_tokens"])
            _line(cost, tokens, curve["gold"], name, colours[name])
    _log2(gold, result["ns"])
    _log2(proxy, result["ns"])
    if cost.dataLim.minposx < np.inf:
        _log10(cost)
    else:
        note = "not all candidates have a token count"
        cost.text(0.5, 0.5, note, transform=cost.transAxes, ha="center", color="#888888")
        cost.set(xticks=[], yticks=[])
    gold.set(
        xlabel="N", ylabel=result["gold"], title=f"{result['gold']}, {result['level']:.0%} bands"
    )
    proxy.set(xlabel="N", ylabel="widths of its interval at N=1", title="the proxy itself")
    cost.set(xlabel="tokens drawn and scored, per prompt", ylabel=result["gold"], title="by cost")
    handles, labels = gold.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(len(labels), 8), frameon=False
    )
    return figure


def _proxy_line(
    axes: "Axes", ns: Sequence[int], curve: Mapping[str, Any], name: str, colour: str
) -> None:
    """Each proxy in a unit of its own: the width of its interval over prompts at N = 1.

    Proxies have no common unit; that they rise tells nothing, where gold falls beside it, much.
    """
    if curve["proxy"] is None or name == "oracle":
        return
    mean = _numbers(curve["proxy"]["mean"])
    width = _numbers(curve["proxy"]["high"])[0] - _numbers(curve["proxy"]["low"])[0]
    if width > 0:
        axes.plot(
            ns, (mean - mean[0]) / width, color=colour, marker="o", markersize=3, linewidth=1.5
        )


# --- lengths --------------------------------------------------------------------------------------


def _lengths(result: Mapping[str, Any]) -> "Figure":
    lengths, rewards = result["lengths"], result["lengths"]["rewards"]
    columns = max(3, 1 + len(rewards)) if rewards else 2
    figure, axes = new_figure(1 + bool(rewards), columns, result["title"])
    colours = colours_of([*result["proxies"]])
    _bins(axes[0], lengths, colours, "gain", "gold over a random candidate")
    _bins(axes[1], lengths, colours, "concordance", "pairs in the right order")
    if axes[0].get_legend_handles_labels()[0]:
        axes[0].legend(frameon=False, fontsize=8)
    used = 2
    if any(cuts["cut"] for cuts in rewards.values()):
        _by_limit(axes[2], result, "cut", colours)
        axes[2].set_title("the cut candidate itself")
        used = 3
    for spare in axes[used:columns]:
        spare.set_axis_off()
    if rewards:
        _by_limit(axes[columns], result, "full", colours)
        axes[columns].set_title(f"full candidate chosen by its first tokens, N={result['ns'][-1]}")
        heats = axes[columns + 1 :]
        for axis, (name, cuts) in zip(heats, rewards.items(), strict=False):
            _heat(axis, name, cuts, lengths["limits"], result["ns"])
        for spare in heats[len(rewards) :]:
            spare.set_axis_off()
    return figure


def _by_limit(
    axes: "Axes", result: Mapping[str, Any], which: str, colours: Mapping[str, str]
) -> None:
    """Gold at the largest N against L; dotted, what whole responses give."""
    limits = result["lengths"]["limits"]
    for name, cuts in result["lengths"]["rewards"].items():
        if cuts[which] is None:
            continue
        last = {key: [row[-1] for row in cuts[which][key]] for key in ("mean", "low", "high")}
        colour = colours.get(name, COLOURS[0])
        _line(axes, limits, last, name, colour)
        axes.axhline(cuts["whole"]["mean"][-1], color=colour, linestyle=":", linewidth=1)
    _log2(axes, limits)
    axes.set(xlabel="first tokens that the reward sees", ylabel=result["gold"])
    axes.legend(frameon=False)


def _bins(
    axes: "Axes", lengths: Mapping[str, Any], colours: Mapping[str, str], what: str, label: str
) -> None:
    bins = lengths["bins"]
    names = [*bins[0][what]] if bins else []
    for i, name in enumerate(names):
        place = np.arange(len(bins)) + (i - (len(names) - 1) / 2) * 0.8 / max(len(names), 1)
        mean, low, high = (
            _numbers([b[what][name][key] for b in bins]) for key in ("mean", "low", "high")
        )
        axes.plot(place, mean, "o", color=colours[name], label=name, markersize=4)
        axes.vlines(place, low, high, color=colours[name])  # need not hold the mean
    axes.set_xticks(range(len(bins)), [f"{b['low']:.0f}–{b['high']:.0f}" for b in bins])
    axes.axhline(0 if what == "gain" else 0.5, color="#888888", linewidth=0.8)
    axes.set(
        xlabel=f"mean {lengths['unit']} of a prompt's candidates",
        ylabel=label,
        title="by length of responses",
    )


def _heat(
    axes: "Axes", name: str, cuts: Mapping[str, Any], limits: Sequence[int], ns: Sequence[int]
) -> None:
    """Gold over first tokens and N; the top row is the whole response."""
    values = np.array([*cuts["full"]["mean"], cuts["whole"]["mean"]], dtype=np.float64)
    image = axes.imshow(values, origin="lower", aspect="auto", cmap="viridis")
    axes.grid(visible=False)
    axes.set_xticks(range(len(ns)), [str(n) for n in ns])
    axes.set_yticks(range(len(limits) + 1), [*map(str, limits), "all"])
    axes.set(xlabel="N", ylabel="first tokens", title=name)
    middle = (np.nanmin(values) + np.nanmax(values)) / 2
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if value < middle else "black"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=7)
    axes.figure.colorbar(image, ax=axes, shrink=0.8)
