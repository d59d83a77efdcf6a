"""What an evaluation says, as findings."""

from collections.abc import Iterator, Mapping

from bestofn.analysis.findings import FEW, Finding, coverage, too_few, verdict
from bestofn.analysis.findings import gain as written_gain
from bestofn.estimators import Interval
from bestofn.evals.rewardbench.accuracy import CREDIT, STRICT, Accuracy, Evaluation
from bestofn.evals.rewardbench.items import MEAN

OURS = ("flip", "flip-likelihood")
HOW = {STRICT: "ties wrong", CREDIT: "ties broken by a draw"}


def findings(evaluation: Evaluation) -> list[Finding]:
    """The findings; of a subset with a few items only the setting."""
    sizes = [*evaluation.subsets.values(), *filter(None, [evaluation.ties_items])]
    if min(sizes) < FEW:
        return [_setting(evaluation), too_few("items a subset")]
    not_covered = "model or data set"
    return [
        _setting(evaluation),
        *(finding for accuracy in evaluation.overall for finding in _of_reward(accuracy)),
        *_comparisons(evaluation),
        coverage(evaluation.level, "items in subsets", evaluation.resamples, not_covered),
    ]


def _setting(evaluation: Evaluation) -> Finding:
    sizes = [f"{name} {size}" for name, size in evaluation.subsets.items()]
    if evaluation.ties_items:
        sizes.append(f"Ties {evaluation.ties_items}")
    items = sum(evaluation.subsets.values()) + evaluation.ties_items
    text = f"{items} items ({', '.join(sizes)})"
    if evaluation.seeds > 1:
        text += f", scored {evaluation.seeds} times in other orders and with other seeds"
    if evaluation.models:
        text += f", means over {len(evaluation.models)} models"
    if MEAN in evaluation.chance:
        text += f"; a random choice is right in {evaluation.chance[MEAN]:.3f} of them on average"
    return Finding(text)


def _of_reward(accuracy: Accuracy) -> Iterator[Finding]:
    label = accuracy.line.label
    if accuracy.all_failed:
        found = "all of its scores failed; it is compared with nothing"
        yield Finding(label, None, found)
    elif accuracy.by_subset:
        mean = accuracy.by_subset[MEAN]
        for convention, how in HOW.items():
            value: Interval = getattr(mean, convention)
            against = _against_chance(accuracy, convention)
            yield Finding(f"{label}, mean over subsets, {how}", value, against)
        yield Finding(
            f"{label}: {mean.tie_rate:.1%} of its items are ties, {mean.failure_rate:.1%} of its "
            f"scores failed, all of an item's in {mean.all_failed:.1%}"
        )
    if accuracy.ties is not None:
        failed = f"{accuracy.ties_failures:.1%} of its scores failed"
        yield Finding(f"{label} on Ties", accuracy.ties, failed)
    if places := shares(accuracy.cost.counts):
        favourite = max(places, key=lambda name: places[name])
        picks = sum(accuracy.cost.counts[name] for name in places)
        yield Finding(
            f"{label} picks {favourite.replace('_', ' ')} of what it is shown most often, in "
            f"{places[favourite]:.1%} of {picks:,} picks, where {1 / len(places):.1%} is even"
        )


def _against_chance(accuracy: Accuracy, convention: str) -> str:
    """Such as "below chance on Math"."""
    below, at = [], []
    for name, found in accuracy.by_subset.items():
        interval: Interval = getattr(found, convention)
        where = "the mean" if name == MEAN else name
        if float(interval.high) < found.chance:
            below.append(where)
        elif float(interval.low) <= found.chance:
            at.append(where)
    verdicts = {"below chance": below, "not measurably above chance": at}
    found_there = [f"{v} on {', '.join(names)}" for v, names in verdicts.items() if names]
    return "; ".join(found_there) or "above chance on every subset"


def _comparisons(evaluation: Evaluation) -> Iterator[Finding]:
    """FLIP against each of the others that has any score, on the mean over subsets."""
    known = {a.line.label: a.line.kind for a in evaluation.overall if not a.all_failed}
    ours = [label for label, kind in known.items() if kind in OURS]
    for d in evaluation.differences:
        if d.a not in ours or d.b not in known or d.b in ours:
            continue
        minus, gain = d.minus[MEAN], d.gain[MEAN]
        parts = [verdict(minus, "better", "worse")]
        if gain is not None:
            parts.append(f"a gain of {written_gain(gain)}")
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
