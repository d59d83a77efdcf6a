"""What the numbers of an evaluation say, in sentences."""

from collections.abc import Iterator

from bestofn.analysis.findings import FEW, shown, signed
from bestofn.estimators import Interval
from bestofn.evals.rewardbench.accuracy import (
    CREDIT,
    STRICT,
    Accuracy,
    Difference,
    Evaluation,
)
from bestofn.evals.rewardbench.items import MEAN

OURS = ("flip", "flip-likelihood")


def summary(evaluation: Evaluation) -> list[str]:
    """The findings; of a subset with a few items only the setting."""
    setting = _setting(evaluation)
    sizes = [*evaluation.subsets.values(), *filter(None, [evaluation.ties_items])]
    if min(sizes) < FEW:
        return [
            setting,
            f"{FEW} items a subset are the least from which anything is concluded here; accuracies "
            "are shown as they are, and intervals of so few items mean nothing.",
        ]
    return [
        setting,
        *(sentence for accuracy in evaluation.overall for sentence in _line(accuracy)),
        *_comparisons(evaluation),
        _intervals_hold(evaluation),
    ]


def _setting(evaluation: Evaluation) -> str:
    sizes = [f"{name} {size}" for name, size in evaluation.subsets.items()]
    if evaluation.ties_items:
        sizes.append(f"Ties {evaluation.ties_items}")
    items = sum(evaluation.subsets.values()) + evaluation.ties_items
    text = f"{items} items ({', '.join(sizes)})"
    if evaluation.seeds > 1:
        text += f", scored {evaluation.seeds} times in other orders and with other seeds"
    if evaluation.models:
        text += f", by {len(evaluation.models)} models, of which means are told"
    if MEAN in evaluation.chance:
        text += f". A random choice is right in {evaluation.chance[MEAN]:.3f} of them in the mean"
    return text + "."


def _line(accuracy: Accuracy) -> Iterator[str]:
    label = accuracy.line.label
    if accuracy.by_subset and _said_nothing(accuracy):
        yield (
            f"{label}: all of its scores failed. It is wrong everywhere where such items are "
            "wrong, a random choice otherwise, and stands for nothing to compare with."
        )
    elif accuracy.by_subset:
        mean = accuracy.by_subset[MEAN]
        yield (
            f"{label}: {shown(mean.strict)} in the mean over subsets where ties are wrong, "
            f"{shown(mean.credit)} where a draw breaks them; {mean.tie_rate:.1%} of its items are "
            f"ties, {mean.failure_rate:.1%} of its scores failed, all of an item's in "
            f"{mean.all_failed:.1%}."
        )
        yield from _against_chance(accuracy)
    if accuracy.ties is not None:
        yield (
            f"{label} has the score {shown(accuracy.ties)} on Ties, where "
            f"{accuracy.ties_failures:.1%} of its scores failed."
        )
    counts = accuracy.cost.counts
    if counts["first"] + counts["second"]:
        picks = counts["first"] + counts["second"]
        yield (
            f"{label} picks the response that it is shown first in {counts['first'] / picks:.1%} "
            f"of {picks:,} comparisons."
        )
    places = {name: n for name, n in counts.items() if name.startswith("place_")}
    if picks := sum(places.values()):
        favourite = max(places, key=lambda name: places[name])
        yield (
            f"{label} picks place {favourite.removeprefix('place_')} of its lists most often, in "
            f"{places[favourite] / picks:.1%} of {picks:,}, where {1 / len(places):.1%} is even."
        )


def _said_nothing(accuracy: Accuracy) -> bool:
    return accuracy.by_subset[MEAN].failure_rate == 1


def _against_chance(accuracy: Accuracy) -> Iterator[str]:
    """Where the accuracy is not above that of a random choice, in either convention."""
    said = {
        how: _not_above(accuracy, convention)
        for convention, how in ((STRICT, "with ties wrong"), (CREDIT, "with ties drawn"))
    }
    if len({*said.values()}) == 1:
        said = {"in either convention": said["with ties wrong"]}
    for how, verdict in said.items():
        if verdict:
            yield f"{accuracy.line.label} is, {how}, {verdict}."


def _not_above(accuracy: Accuracy, convention: str) -> str:
    """Such as "below chance on Math"; empty where it is above chance everywhere."""
    below, at = [], []
    for name, found in accuracy.by_subset.items():
        interval: Interval = getattr(found, convention)
        where = "the mean over subsets" if name == MEAN else name
        if float(interval.high) < found.chance:
            below.append(where)
        elif float(interval.low) <= found.chance:
            at.append(where)
    verdicts = {"below chance": below, "not measurably above chance": at}
    return " and ".join(f"{v} on {', '.join(names)}" for v, names in verdicts.items() if names)


def _comparisons(evaluation: Evaluation) -> Iterator[str]:
    """FLIP against each of the others that has any score, in the mean over subsets."""
    if not evaluation.subsets:
        return
    known = {a.line.label: a.line.kind for a in evaluation.overall if not _said_nothing(a)}
    ours = [label for label, kind in known.items() if kind in OURS]
    told = [d for d in evaluation.differences if d.a in ours and d.b in known.keys() - {*ours}]
    for strict in (d for d in told if d.convention == STRICT):
        (credit,) = (d for d in told if (d.a, d.b, d.convention) == (strict.a, strict.b, CREDIT))
        yield (
            f"{strict.a} against {strict.b}: {_told(strict)} where ties are wrong, {_told(credit)} "
            "where a draw breaks them."
        )


def _told(difference: Difference) -> str:
    """The difference, the gain in percent, and the subsets where it is lower."""
    minus, gain = difference.minus[MEAN], difference.gain[MEAN]
    text = signed(minus)
    if gain is not None:
        text += f" (a gain of {_percent(gain)})"
    worse = [name for name, d in difference.minus.items() if float(d.high) < 0 and name != MEAN]
    return f"{text}, lower on {', '.join(worse)}" if worse else text


def _percent(gain: Interval) -> str:
    """A gain and its interval, as in +99.4 % [+80.1, +120.3]."""
    return f"{float(gain.mean):+.1f} % [{float(gain.low):+.1f}, {float(gain.high):+.1f}]"


def _intervals_hold(evaluation: Evaluation) -> str:
    """What is in the intervals and what is not."""
    return (
        f"Intervals ({evaluation.level:.0%}) resample items in subsets {evaluation.resamples:,} "
        "times: they hold how items scatter, and nothing of another model or data set."
    )
