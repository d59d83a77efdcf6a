"""What is written of a curve: JSON with everything, CSV with a row for each proxy and N."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bestofn.analysis.curves import ScalingCurve
from bestofn.analysis.findings import as_result
from bestofn.analysis.lengths import LengthAnalysis
from bestofn.analysis.summary import covered, findings
from bestofn.errors import ConfigError
from bestofn.estimators import Interval
from bestofn.store.journal import write_atomically

NAME = "curve"
LENGTHS = (
    "limits", "cut_share", "longer", "spearman", "selected_length", "pool_length", "unit",
    "counted", "beyond_length",
)  # fmt: skip


def as_json(value: Any) -> Any:
    """Dataclasses as mappings, arrays as lists, NaN as None."""
    if is_dataclass(value):
        return {field.name: as_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return as_json(value.tolist())
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def flat(name: str, interval: Mapping[str, Any] | Interval) -> dict[str, Any]:
    """An interval as columns of a table: NAME, NAME_low and NAME_high."""
    ends = as_json(interval)
    return {name: ends["mean"], f"{name}_low": ends["low"], f"{name}_high": ends["high"]}


def write_results(
    folder: Path, name: str, result: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]
) -> None:
    """Writes NAME.json and, with a row for each of `rows`, NAME.csv into a folder, which is made.

    Raises:
        BestOfNError: they cannot be written.
    """
    text = json.dumps(result, ensure_ascii=False, indent=1) + "\n"
    write_atomically(folder / f"{name}.json", text)
    lines = [as_json(row) for row in rows]
    columns = dict.fromkeys(column for line in lines for column in line)
    table = io.StringIO()
    writer = csv.DictWriter(table, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_atomically(folder / f"{name}.csv", table.getvalue())


def as_dict(
    curve: ScalingCurve,
    lengths: LengthAnalysis | None = None,
    *,
    title: str = "",
    pools: Sequence[Path] = (),
) -> dict[str, Any]:
    """Everything that was estimated, as JSON can hold it; NaN is null.

    Args:
        curve: The curves.
        lengths: The same pools by length.
        title: Of the page and the pictures.
        pools: The files that the pools were read from.
    """
    return {
        "title": title,
        "pools": [str(path) for path in pools],
        "prompts": curve.prompts,
        "candidates": {"least": curve.sizes[0], "most": curve.sizes[-1]},
        "seeds": len(curve.pools),
        "gold": curve.gold,
        "left_out": [{"id": name, "reason": reason} for name, reason in curve.left_out],
        "ns": curve.ns,
        "level": curve.level,
        "resamples": curve.resamples,
        "variance": str(covered(curve)),
        "iid": curve.kl_bound is not None,
        "kl_bound": as_json(curve.kl_bound),
        "chance": as_json(curve.interval(curve.chance)),
        "proxies": {proxy.name: _proxy(as_json(proxy)) for proxy in curve.curves},
        "differences": [
            as_json(d) | {"most": [{"id": name, "difference": gap} for name, gap in d.most]}
            for d in curve.differences
        ],
        "lengths": None if lengths is None else _lengths(lengths),
        **as_result(findings(curve, lengths)),
    }


def _proxy(proxy: dict[str, Any]) -> dict[str, Any]:
    del proxy["name"]
    peak, after = proxy["after_peak"]
    return proxy | {"after_peak": {"n": peak, "gold": after}}


def _lengths(lengths: LengthAnalysis) -> dict[str, Any]:
    found = {name: as_json(getattr(lengths, name)) for name in LENGTHS}
    return found | {"rewards": as_json(lengths.cuts)}


def table(curve: ScalingCurve) -> Iterator[dict[str, Any]]:
    """A row for each proxy and N; costs are means for a prompt."""
    for proxy in curve.curves:
        for place, n in enumerate(curve.ns):
            columns = {
                **flat("gold", proxy.gold),
                **flat("gain", proxy.gain),
                "noise_low": None if proxy.noise is None else proxy.noise.low,
                "noise_high": None if proxy.noise is None else proxy.noise.high,
                "proxy_value": None if proxy.proxy is None else proxy.proxy.mean,
                "failure_rate": proxy.failures,
                "tie_rate": proxy.ties,
                "generated_tokens": proxy.generated_tokens,
                "scored_tokens": proxy.scored_tokens,
                "seconds": proxy.seconds,
                "kl_bound": curve.kl_bound,
                "monte_carlo_error": proxy.monte_carlo_error,
            }
            values = {name: None if c is None else c[place] for name, c in columns.items()}
            yield {"proxy": proxy.name, "n": n, **values}


def write(folder: Path, curve: ScalingCurve, result: dict[str, Any]) -> None:
    """Writes curve.json and curve.csv into a folder, which is made.

    Raises:
        BestOfNError: they cannot be written.
    """
    write_results(folder, NAME, result, table(curve))


def read(folder: Path) -> dict[str, Any]:
    """The content of a folder's curve.json.

    Raises:
        ConfigError: it is not there, or is not what `write` wrote.
    """
    path = folder / f"{NAME}.json"
    again = f"make it with `bestofn curve -o {folder}`"
    try:
        result = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} is unreadable ({error.strerror}); {again}") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from None
    if not isinstance(result, dict) or not result.keys() >= {"findings", "proxies", "pools"}:
        raise ConfigError(f"{path} is not a curve of this version; {again}")
    return result
