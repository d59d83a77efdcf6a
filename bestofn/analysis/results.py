"""What is said and written of a curve: findings, JSON, and CSV with a row for each proxy and N."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any

import yaml

from bestofn.analysis.curves import Difference, ProxyCurve, ScalingCurve
from bestofn.analysis.findings import (
    FEW,
    Finding,
    as_json,
    as_result,
    at,
    coverage,
    shown,
    too_few,
    verdict,
)
from bestofn.analysis.frontier import KINDS, cost_of, frontier, of_costs
from bestofn.analysis.lengths import CutCurves, LengthAnalysis
from bestofn.analysis.proxies import ORACLE, RANDOM
from bestofn.errors import ConfigError
from bestofn.estimators import Interval
from bestofn.redaction import without_secrets
from bestofn.section import Section
from bestofn.store.journal import write_atomically

CURVE, RECIPE = "curve", "recipe.yaml"
LENGTHS = (
    "limits", "cut_share", "longer", "spearman", "selected_length", "pool_length", "unit",
    "counted", "beyond_length", "given_length",
)  # fmt: skip


def flat(name: str, interval: Mapping[str, Any] | Interval) -> dict[str, Any]:
    """An interval as columns of a table: NAME, NAME_low and NAME_high."""
    ends = as_json(interval)
    return {name: ends["mean"], f"{name}_low": ends["low"], f"{name}_high": ends["high"]}


def write_results(
    folder: Path, name: str, result: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]
) -> None:
    """Writes NAME.json and NAME.csv, with a line for each of `rows`, and makes the folder."""
    text = json.dumps(result, ensure_ascii=False, indent=1) + "\n"
    write_atomically(folder / f"{name}.json", text)
    lines = [as_json(row) for row in rows]
    columns = dict.fromkeys(column for line in lines for column in line)
    table = io.StringIO()
    writer = csv.DictWriter(table, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_atomically(folder / f"{name}.csv", table.getvalue())


def write_recipe(folder: Path, recipe: Section) -> None:
    """Writes a recipe as it was run, without secrets."""
    shown = without_secrets(recipe.model_dump(mode="json"))
    text = yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)
    write_atomically(folder / RECIPE, text)


# --- JSON and CSV ---------------------------------------------------------------------------------


def as_dict(
    curve: ScalingCurve,
    lengths: LengthAnalysis | None = None,
    margin: float = 0.02,
    *,
    title: str = "",
    pools: Sequence[Path] = (),
) -> dict[str, Any]:
    """Everything that was estimated, as JSON can hold it; NaN is null.

    A setting that loses up to `margin` gold counts as good as the best. `title` is that of page and
    pictures, `pools` are the files that the pools were read from.
    """
    proxies = {}
    for proxy in curve.curves:
        (peak, after), found = proxy.after_peak, as_json(proxy)
        del found["name"]
        costs = {kind: as_json(cost_of(proxy, kind)) for kind in KINDS}
        after_peak = {"n": peak, "gold": as_json(after)}
        proxies[proxy.name] = found | {"after_peak": after_peak, "costs": costs}
    by_length = None
    if lengths is not None:
        by_length = {name: as_json(getattr(lengths, name)) for name in LENGTHS}
        by_length["rewards"] = as_json(lengths.cuts)
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
        "proxies": proxies,
        "differences": [
            as_json(d) | {"most": [{"id": name, "difference": gap} for name, gap in d.most]}
            for d in curve.differences
        ],
        "lengths": by_length,
        "frontier": {kind: as_json(frontier(curve, kind)) for kind in KINDS},
        **as_result(findings(curve, lengths, margin)),
    }


def table(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A row for each proxy and N of what `as_dict` returned; costs are means for a prompt."""
    for name, proxy in result["proxies"].items():
        noise, own = proxy["noise"] or {}, proxy["proxy"] or {}
        columns = {
            **flat("gold", proxy["gold"]),
            **flat("gain", proxy["gain"]),
            "noise_low": noise.get("low"),
            "noise_high": noise.get("high"),
            "proxy_value": own.get("mean"),
            "failure_rate": proxy["failures"],
            "tie_rate": proxy["ties"],
            **{c: proxy[c] for c in ("generated_tokens", "scored_tokens", "seconds")},
            "seconds_p50": proxy["latency"] and proxy["latency"][0],
            "seconds_p95": proxy["latency"] and proxy["latency"][1],
            "money": proxy["money"],
            "kl_bound": result["kl_bound"],
            "monte_carlo_error": proxy["monte_carlo_error"],
        }
        for place, n in enumerate(result["ns"]):
            values = {column: c and c[place] for column, c in columns.items()}
            yield {"proxy": name, "n": n, **values}


def read(folder: Path) -> dict[str, Any]:
    """The content of a folder's curve.json."""
    path, why = folder / f"{CURVE}.json", ""
    try:
        result = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        result, why = None, f": {error}"
    needed = {"findings", "proxies", "pools", "frontier"}
    if not isinstance(result, dict) or not result.keys() >= needed:
        raise ConfigError(
            f"{path} is not a curve of this version{why}; make it with `bestofn curve -o {folder}`"
        )
    return result


# --- findings -------------------------------------------------------------------------------------


def findings(
    curve: ScalingCurve, lengths: LengthAnalysis | None = None, margin: float = 0.02
) -> list[Finding]:
    """The findings, the most important ones first; of a few prompts there are none."""
    sizes = " to ".join(dict.fromkeys(str(size) for size in (curve.sizes[0], curve.sizes[-1])))
    seeds = f", drawn {len(curve.pools)} times" if len(curve.pools) > 1 else ""
    found = [
        Finding(f"{curve.prompts} prompts with {sizes} candidates each{seeds}"),
        Finding(f"{curve.gold} of a random candidate", at(curve.interval(curve.chance))),
    ]
    if curve.kl_bound is None:
        text = (
            "The candidates are not independent draws from one model: curves describe the choice "
            "among these candidates, not what drawing more would give"
        )
        found.append(Finding(text))
    left_out = []
    if curve.left_out:
        (name, reason), count = curve.left_out[0], len(curve.left_out)
        several = "prompts are" if count > 1 else "prompt is"
        left_out = [Finding(f"{count} {several} left out; the first, {name}: {reason}")]
    if curve.prompts < FEW:
        return [*found, too_few("prompts"), *left_out]
    n = curve.ns[-1]
    proxies = [c for c in curve.curves if c.name not in (RANDOM, ORACLE)]
    highest = max(proxies, key=lambda c: float(c.gold.mean[-1]), default=None)
    found += [finding for proxy in proxies for finding in _of_proxy(proxy, n)]
    if highest is not None:
        found += [_headroom(c, highest, n) for c in curve.curves if c.name == ORACLE]
        compared = [d for d in curve.differences if highest.name in (d.a, d.b)]
        found += [_comparison(difference, highest.name, n) for difference in compared]
    found += of_costs(curve, margin)
    return [*found, *(of_lengths(curve, lengths) if lengths else []), *left_out, covered(curve)]


def covered(curve: ScalingCurve) -> Finding:
    """What the intervals of a curve cover."""
    pools = "its pool" if len(curve.pools) == 1 else f"all its {len(curve.pools)} pools"
    not_covered = "generator, reward model or data set"
    return coverage(curve.level, f"prompts, each with {pools}", curve.resamples, not_covered)


def _of_proxy(proxy: ProxyCurve, n: int) -> Iterator[Finding]:
    name, notes = proxy.name, []
    if proxy.ties[-1] > 0.5:
        notes.append(f"several candidates share the best score in {proxy.ties[-1]:.0%} of draws")
    if proxy.failed_scores:
        notes.append(f"{proxy.failed_scores:.1%} of its scores failed")
    yield Finding(f"{name} at N={n}", at(proxy.gold), "; ".join(notes))
    if n == 1:
        return
    against = verdict(at(proxy.gain), "better than random", "worse than random")
    yield Finding(f"{name} minus random at N={n}", at(proxy.gain), against, "difference")
    if proxy.noise is not None:
        yield Finding(f"{name} at N={n} with new pools for the same prompts", at(proxy.noise))
    peak, after = proxy.after_peak
    if peak not in (1, n) and at(after).high < 0:
        claim = f"{name} at N={n} minus its peak at N={peak}"
        yield Finding(claim, at(after), "over-optimisation", "difference")


def _headroom(oracle: ProxyCurve, best: ProxyCurve, n: int) -> Finding:
    most, taken, share = oracle.gain.mean[-1], best.gain.mean[-1], ""
    if most > 0 and taken > 0:
        share = f"{best.name}, the highest here, takes {taken / most:.0%} of its gain over random"
    return Finding(f"oracle at N={n}", at(oracle.gold), share)


def _comparison(difference: Difference, best: str, n: int) -> Finding:
    gold, win, lose = (at(i) for i in (difference.gold, difference.win, difference.lose))
    other = difference.b
    if best == difference.b:
        other, win, lose = difference.a, lose, win
        gold = Interval(-gold.mean, -gold.high, -gold.low)
    prompts = f"higher on {float(win.mean):.0%} of the prompts, lower on {float(lose.mean):.0%}"
    found = f"{verdict(gold, 'better', 'worse')}; {prompts}"
    return Finding(f"{best} minus {other} at N={n}", gold, found, "difference")


def of_lengths(curve: ScalingCurve, lengths: LengthAnalysis) -> Iterator[Finding]:
    """Is a reward better on longer responses or does it prefer them; how many tokens suffice?"""
    if lengths.unit != "tokens" and lengths.counted:
        share = f"{1 - lengths.counted:.1%}"
        yield Finding(f"Lengths are in characters: {share} of the candidates have no token count")
    scored = {c.name for c in curve.curves if c.scored_tokens[-1] > 0}
    for name in (name for name in lengths.names if name in scored):
        leans = ("prefers longer responses", "prefers shorter responses")
        prefers = verdict(lengths.spearman[name], *leans, "no measurable preference for length")
        selected = float(at(lengths.selected_length[name]).mean)
        yield Finding(
            f"{name}: rank correlation with length within prompts",
            lengths.spearman[name],
            f"{prefers} ({curve.gold}: {shown(lengths.spearman[curve.gold])}); selects "
            f"{selected:.1f} {lengths.unit} where a candidate has {lengths.pool_length:.1f} on "
            "average",
        )
        beyond, longer = lengths.beyond_length[name], lengths.longer[name]
        found = verdict(beyond, "better than length alone", "worse than length alone")
        yield Finding(f"{name} minus choosing by length alone", beyond, found, "difference")
        given = lengths.given_length[name]
        if not isnan(float(given.mean)):
            claim = f"{name}: rank correlation with {curve.gold} where length is held fixed"
            agree = ("agrees with it beyond length", "disagrees with it beyond length")
            yield Finding(claim, given, verdict(given, *agree, "nothing measurable beyond length"))
        claim = f"{name}: pairs in the right order, longer half of the prompts minus shorter half"
        found = verdict(longer, "better on longer responses", "worse on longer responses")
        yield Finding(claim, longer, found, "difference")
    for name, cuts in lengths.cuts.items():
        yield _enough(name, cuts, lengths, curve.ns[-1])
    for name, missing in lengths.lacking.items():
        yield Finding(f"{name} is left out of the ablation by first tokens: no score {missing}")


def _enough(name: str, cuts: CutCurves, lengths: LengthAnalysis, n: int) -> Finding:
    limit = cuts.enough or lengths.limits[-1]
    place = lengths.limits.index(limit)
    gap, share = at(cuts.difference, place), lengths.cut_share[place]
    if cuts.enough is not None:
        found = f"as good from {limit} tokens on, within {cuts.margin:g}"
    else:
        found = verdict(gap, "better", "worse", "not shown to be as good")
        found += f" up to {limit} tokens, where up to {cuts.margin:g} less counts as the same"
    if not isnan(share):
        found += f"; {share:.0%} of the candidates are longer"
    claim = f"{name} on the first {limit} tokens minus on whole responses at N={n}"
    return Finding(claim, gap, found, "difference")
