"""What is written of a curve: JSON with everything, CSV with a row for each proxy and N."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bestofn.analysis.curves import ScalingCurve
from bestofn.analysis.findings import intervals_hold, summary
from bestofn.analysis.lengths import LengthAnalysis
from bestofn.errors import ConfigError
from bestofn.estimators import Interval
from bestofn.store.journal import write_atomically

JSON, CSV = "curve.json", "curve.csv"
NEEDED = {"differences", "gold", "lengths", "ns", "pools", "proxies", "summary", "title"}


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
        "variance": intervals_hold(curve),
        "iid": curve.kl_bound is not None,
        "kl_bound": as_json(curve.kl_bound),
        "chance": as_json(curve.interval(curve.chance)),
        "proxies": {proxy.name: _without_name(as_json(proxy)) for proxy in curve.curves},
        "differences": [
            as_json(d) | {"most": [{"id": name, "difference": gap} for name, gap in d.most]}
            for d in curve.differences
        ],
        "lengths": None if lengths is None else _lengths(lengths),
        "summary": summary(curve, lengths),
    }


def _without_name(proxy: dict[str, Any]) -> dict[str, Any]:
    peak, after = proxy["after_peak"]
    return {name: value for name, value in proxy.items() if name != "name"} | {
        "after_peak": {"n": peak, "gold": after}
    }


def _lengths(lengths: LengthAnalysis) -> dict[str, Any]:
    names = (
        "limits",
        "cut_share",
        "bins",
        "longer",
        "spearman",
        "selected_length",
        "pool_length",
        "unit",
        "counted",
    )
    found = {name: as_json(getattr(lengths, name)) for name in (*names, "beyond_length")}
    return found | {"rewards": as_json(lengths.cuts)}


def as_json(value: Any) -> Any:
    """Dataclasses as mappings, arrays as lists, NaN as None."""
    if isinstance(value, Interval) or is_dataclass(value):
        return {field.name: as_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return as_json(value.tolist())
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def table(curve: ScalingCurve) -> list[dict[str, Any]]:
    """A row for each proxy and N; costs are means for a prompt."""
    rows = []
    for proxy in curve.curves:
        for place, n in enumerate(curve.ns):
            row: dict[str, Any] = {"proxy": proxy.name, "n": n}
            for name, interval in (("gold", proxy.gold), ("gain", proxy.gain)):
                row |= {
                    name: interval.mean[place],
                    f"{name}_low": interval.low[place],
                    f"{name}_high": interval.high[place],
                }
            columns = {
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
            row |= {name: None if c is None else c[place] for name, c in columns.items()}
            rows.append(row)
    return rows


def write(folder: Path, curve: ScalingCurve, result: dict[str, Any]) -> None:
    """Writes curve.json and curve.csv into a folder, which is made.

    Raises:
        BestOfNError: they cannot be written.
    """
    write_atomically(folder / JSON, json.dumps(result, ensure_ascii=False, indent=1) + "\n")
    rows = table(curve)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(as_json(rows))
    write_atomically(folder / CSV, text.getvalue())


def read(folder: Path) -> dict[str, Any]:
    """The content of a folder's curve.json.

    Raises:
        ConfigError: it is not there, or is not what `write` wrote.
    """
    path = folder / JSON
    try:
        result = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}); make it with `bestofn curve -o {folder}`"
        ) from None
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from None
    if not isinstance(result, dict) or not result.keys() >= NEEDED:
        raise ConfigError(f"{path} is no curve; make it with `bestofn curve -o {folder}`")
    return result
