"""The page about a curve: its pictures, its tables, and a browser of its prompts."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bestofn.analysis.findings import shown, signed
from bestofn.analysis.plots import as_image, figures
from bestofn.analysis.report.browser import browsable, choose
from bestofn.analysis.report.page import Picture, Section, Table, write_page
from bestofn.estimators import Interval
from bestofn.types import Pool

TITLES = {
    "scaling": "{gold} by N under each proxy, and of each proxy minus a random candidate",
    "lengths": "Selection by length, and by the first tokens of responses",
}


def write_report(
    result: Mapping[str, Any],
    pools: Sequence[Pool],
    path: Path,
    *,
    title: str,
    limit: int = 500,
) -> None:
    """Writes one self-contained HTML page.

    Args:
        result: What `results.as_dict` returned.
        pools: The pools that it is about; the page has a browser for them.
        path: The file.
        title: Of the page.
        limit: Prompts that the browser shows at most; the page says which.

    Raises:
        BestOfNError: the file cannot be written.
    """
    chosen, sample = choose(pools, result, limit)
    known = {name for pool in chosen for c in pool.candidates for name in c.scores}
    names = [name for name in result["proxies"] if name in known]
    pictures = [
        Picture(TITLES[name].format(gold=result["gold"]), as_image(figure))
        for name, figure in figures(result).items()
    ]
    write_page(
        path,
        title=title,
        facts=_facts(result),
        result=result,
        sections=[
            Section("Curves", pictures=pictures),
            Section("Tables", tables=[*_tables(result)]),
        ],
        browser=browsable(chosen, names, result["gold"]),
        sample=sample,
    )


def _facts(result: Mapping[str, Any]) -> str:
    sizes = " to ".join(dict.fromkeys(str(size) for size in result["candidates"].values()))
    draws = f" × {result['seeds']} draws" if result["seeds"] > 1 else ""
    return (
        f"{result['prompts']} prompts × {sizes} candidates{draws} · gold: {result['gold']} · "
        f"{result['level']:.0%} intervals over prompts"
    )


def _tables(result: Mapping[str, Any]) -> Iterator[Table]:
    gold, ns, lengths = result["gold"], result["ns"], result["lengths"]
    head = ["proxy", "N", gold, "minus random", "proxy's value", "all failed", "ties"]
    head += ["tokens drawn", "tokens scored", "seconds", "KL bound", "simulation error"]
    costs = ("generated_tokens", "scored_tokens", "seconds")
    rows = [
        [name, str(n), shown(_at(p["gold"], i)), signed(_at(p["gain"], i))]
        + [_number((p["proxy"] or {}).get("mean"), i)]
        + [_number(p[rate], i, ".1%") for rate in ("failures", "ties")]
        + [_number(p[cost], i, ",.4g") for cost in costs]
        + [_number(result["kl_bound"], i), _number(p["monte_carlo_error"], i, ".4f")]
        for name, p in result["proxies"].items()
        for i, n in enumerate(ns)
    ]
    yield Table("Every proxy and N (tokens and seconds per prompt)", head, rows)
    if result["differences"]:
        head = ["a", "b", f"{gold}: a minus b", "a higher", "equal", "b higher"]
        rows = [
            [d["a"], d["b"], signed(_at(d["gold"], -1))]
            + [_number(d[share]["mean"], -1, ".1%") for share in ("win", "tie", "lose")]
            for d in result["differences"]
        ]
        yield Table(f"Differences at N={ns[-1]}, paired by prompt", head, rows)
    if lengths and lengths["rewards"]:
        head = ["reward", "first tokens", "candidates longer", f"{gold} of the full candidate"]
        head += ["minus by whole responses", "tokens computed", "without a cache"]
        rows = [
            [name, str(limit), _number(lengths["cut_share"], i, ".0%")]
            + [_number(cuts["full"]["mean"][i], -1), signed(_at(cuts["difference"], i))]
            + [_number(cuts[c], i, ",.4g") for c in ("computed_tokens", "separate_tokens")]
            for name, cuts in lengths["rewards"].items()
            for i, limit in enumerate(lengths["limits"])
        ]
        yield Table(f"First tokens, at N={ns[-1]} (tokens per prompt)", head, rows)


def _at(interval: Mapping[str, Any], place: int) -> Interval:
    return Interval(*(_known(interval[name][place]) for name in ("mean", "low", "high")))


def _known(value: float | None) -> Any:
    return float("nan") if value is None else value


def _number(values: Sequence[float | None] | None, place: int, form: str = ".3f") -> str:
    value = None if values is None else values[place]
    return "–" if value is None else f"{value:{form}}"
