"""What is written of an evaluation: JSON with everything, CSV with a row for each subset."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bestofn.analysis.results import as_json
from bestofn.evals.rewardbench.accuracy import CONVENTIONS, Accuracy, Evaluation
from bestofn.evals.rewardbench.findings import summary
from bestofn.evals.rewardbench.items import MEAN, TIES
from bestofn.store.journal import write_atomically

JSON, CSV = "rewardbench.json", "rewardbench.csv"


def as_dict(evaluation: Evaluation, *, title: str = "", data: str = "") -> dict[str, Any]:
    """Everything that was estimated, as JSON can hold it.

    Args:
        evaluation: The estimates.
        title: Of the picture.
        data: Where the items are from.
    """
    chance = evaluation.chance
    sizes = dict(evaluation.subsets)
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
        "summary": summary(evaluation),
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


def shares(counts: Mapping[str, int]) -> dict[str, float]:
    """How often a judge's pick stood in each place, as shares of its picks.

    Empty for rewards that show responses in no places, or never picked one.
    """
    names = ["first", "second"] if counts.keys() & {"first", "second"} else []
    places = [name for name in counts if name.startswith("place_")]
    names += sorted(places, key=lambda name: int(name.removeprefix("place_")))
    picks = sum(counts.get(name, 0) for name in names)
    return {name: counts.get(name, 0) / picks for name in names} if picks else {}


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
            rates = ("tie_rate", "failure_rate", "all_failed")
            yield {
                **head,
                "subset": name,
                "items": sizes[name],
                "chance": found["chance"],
                **_named({convention: found[convention] for convention in CONVENTIONS}),
                **{rate: found[rate] for rate in rates},
                **costs,
            }
        if line["ties"] is not None:
            ties = _named({"score": line["ties"]})
            failed = {"failure_rate": line["ties_failure_rate"]}
            yield {**head, "subset": TIES, "items": result["ties_items"], **ties, **failed, **costs}


def _named(intervals: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """NAME, NAME_low and NAME_high of each."""
    return {
        name + suffix: interval[part]
        for name, interval in intervals.items()
        for part, suffix in (("mean", ""), ("low", "_low"), ("high", "_high"))
    }


def write(folder: Path, result: Mapping[str, Any]) -> None:
    """Writes rewardbench.json and rewardbench.csv.

    Raises:
        BestOfNError: they cannot be written.
    """
    write_atomically(folder / JSON, json.dumps(result, ensure_ascii=False, indent=1) + "\n")
    rows = list(table(result))
    text = io.StringIO()
    columns = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(folder / CSV, text.getvalue())
