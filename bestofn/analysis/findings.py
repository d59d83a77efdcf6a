"""What the numbers of a curve say, in sentences with the numbers and their intervals."""

from math import isnan

import numpy as np

from bestofn.analysis.curves import Difference, ProxyCurve, ScalingCurve
from bestofn.analysis.expected import ORACLE, RANDOM
from bestofn.analysis.lengths import CutCurves, LengthAnalysis
from bestofn.estimators import Interval

FEW = 10
"""With fewer prompts an interval says nothing: that of one prompt has no width at all."""


def summary(curve: ScalingCurve, lengths: LengthAnalysis | None = None) -> list[str]:
    """The findings, the most important ones first; of a few prompts there are none."""
    if curve.prompts < FEW:
        return [_setting(curve), _too_few(), *_missing(curve)]
    return [
        _setting(curve),
        *(_rise(c, curve) for c in curve.curves if c.name not in (RANDOM, ORACLE)),
        *_headroom(curve),
        *_comparisons(curve),
        *(length_answers(curve, lengths) if lengths else []),
        *_missing(curve),
        intervals_hold(curve),
    ]


def _setting(curve: ScalingCurve) -> str:
    sizes = " to ".join(dict.fromkeys(str(size) for size in (curve.sizes[0], curve.sizes[-1])))
    seeds = f", drawn {len(curve.pools)} times" if len(curve.pools) > 1 else ""
    chance = shown(_last(curve.interval(curve.chance)))
    text = (
        f"{curve.prompts} prompts with {sizes} candidates each{seeds}. A random candidate has "
        f"{curve.gold} {chance}."
    )
    if curve.ns[-1] == curve.sizes[0] < curve.sizes[-1]:
        text += (
            f" Curves end at the smallest pool's N={curve.ns[-1]}; a larger N (--ns) leaves "
            "smaller pools out and names them."
        )
    if curve.kl_bound is None:
        text += (
            " The candidates are no independent draws of one model: curves say how a proxy chooses "
            "among these, and nothing of drawing more."
        )
    return text


def _too_few() -> str:
    return (
        f"{FEW} prompts is the least from which anything is concluded here; means are shown as "
        "they are, and intervals of so few prompts mean nothing."
    )


def _rise(proxy: ProxyCurve, curve: ScalingCurve) -> str:
    last = curve.ns[-1]
    gain, text = _last(proxy.gain), f"{proxy.name}: {shown(_last(proxy.gold))} at N={last}"
    if last == 1:
        return f"{text}."
    if float(gain.low) > 0:
        text += f"; its curve rises, by {signed(gain)} over one random candidate"
    elif float(gain.high) < 0:
        text += f"; its curve falls: choosing by it is worse than at random, by {signed(gain)}"
    else:
        text += f"; its curve does not rise measurably ({signed(gain)} over one random candidate)"
    if proxy.noise is not None:
        new = _last(proxy.noise)
        text += f"; new pools for the same prompts would give {new.low:.3f} to {new.high:.3f}"
    peak, after = proxy.after_peak
    if peak not in (1, last) and float(after.high[0]) < 0:
        change = signed(_last(after))
        text += f"; it is highest at N={peak} and falls after that, by {change}: over-optimisation"
    if proxy.ties[-1] > 0.5:
        text += f"; several candidates share its best score in {proxy.ties[-1]:.0%} of the draws"
    if proxy.failed_scores:
        text += f"; {proxy.failed_scores:.1%} of its scores failed"
    return text + "."


def _headroom(curve: ScalingCurve) -> list[str]:
    by_name = {c.name: c for c in curve.curves}
    others = [c for name, c in by_name.items() if name not in (RANDOM, ORACLE)]
    if ORACLE not in by_name or not others:
        return []
    best = max(others, key=lambda c: float(c.gold.mean[-1]))
    most, taken = by_name[ORACLE].gain.mean[-1], best.gain.mean[-1]
    text = f"An oracle would reach {shown(_last(by_name[ORACLE].gold))} at N={curve.ns[-1]}"
    if most > 0 and taken > 0:
        text += f"; {best.name}, the highest here, takes {taken / most:.0%} of that gain"
    return [text + "."]


def _comparisons(curve: ScalingCurve) -> list[str]:
    """How the highest proxy stands to the others."""
    if not curve.differences:
        return []
    pairs = {name for d in curve.differences for name in (d.a, d.b)}
    best = max(
        (c for c in curve.curves if c.name in pairs), key=lambda c: float(c.gold.mean[-1])
    ).name
    ours = [d for d in curve.differences if best in (d.a, d.b)]
    told = [d for d in ours if _sign(_last(d.gold))]
    alike = [d.b if d.a == best else d.a for d in ours if not _sign(_last(d.gold))]
    sentences = [_comparison(d, curve.ns[-1]) for d in told]
    if alike:
        sentences.append(
            f"Between {best} and {', '.join(alike)} there is no measurable difference at "
            f"N={curve.ns[-1]}."
        )
    return sentences


def _comparison(difference: Difference, n: int) -> str:
    gold, win, lose = (_last(i) for i in (difference.gold, difference.win, difference.lose))
    better, worse = difference.a, difference.b
    if float(gold.mean) < 0:
        better, worse = worse, better
        gold, win, lose = Interval(-gold.mean, -gold.high, -gold.low), lose, win
    return (
        f"{better} is better than {worse} at N={n}: {signed(gold)}, higher on "
        f"{float(win.mean):.0%} of the prompts and lower on {float(lose.mean):.0%}."
    )


def length_answers(curve: ScalingCurve, lengths: LengthAnalysis) -> list[str]:
    """For each reward: is it better on longer outputs, or does it only like them? And from how
    many tokens on is its choice as good as on the whole response?
    """
    scored = [c.name for c in curve.curves if c.name in lengths.names and c.scored_tokens[-1] > 0]
    return [
        *_unit(lengths),
        *(_better_or_likes(name, curve, lengths) for name in scored),
        *(_enough(name, cuts, lengths, curve.ns[-1]) for name, cuts in lengths.cuts.items()),
        *(
            f"{name} is left out of the ablation by first tokens: it has no score {missing}."
            for name, missing in lengths.lacking.items()
        ),
    ]


def _unit(lengths: LengthAnalysis) -> list[str]:
    """Where lengths are not in tokens although some are known."""
    if lengths.unit == "tokens" or not lengths.counted:
        return []
    return [
        f"Lengths are in characters: {1 - lengths.counted:.1%} of the candidates have no token "
        "count."
    ]


def _better_or_likes(name: str, curve: ScalingCurve, lengths: LengthAnalysis) -> str:
    taste, truth = lengths.spearman[name], lengths.spearman[curve.gold]
    longer, beyond = lengths.longer[name], lengths.beyond_length[name]
    likes = {1: "likes longer responses", -1: "likes shorter responses"}.get(
        _sign(taste), "has no measurable taste for length"
    )
    better = {1: "better", -1: "worse"}.get(_sign(longer), "neither better nor worse, measurably,")
    more = {
        1: "knows more than length",
        -1: "is worse than choosing by length alone",
    }.get(_sign(beyond), "is not measurably more than a choice by length alone")
    selected = f"{float(_last(lengths.selected_length[name]).mean):.1f} {lengths.unit}"
    return (
        f"{name} {likes}: its rank correlation with length within prompts is {shown(taste)} (that "
        f"of {curve.gold} is {shown(truth)}), and it selects {selected} "
        f"where a candidate has {lengths.pool_length:.1f} in the mean. It {more}: "
        f"{signed(beyond)}. It orders candidates {better} on the half of the prompts with longer "
        f"responses: {signed(longer)} in the share of pairs in the right order."
    )


def _enough(name: str, cuts: CutCurves, lengths: LengthAnalysis, n: int) -> str:
    largest = lengths.limits[-1]
    at = lengths.limits.index(cuts.enough) if cuts.enough else len(lengths.limits) - 1
    gap = signed(_at(cuts.difference, at))
    if cuts.enough is None:
        verdict = f"is not shown to choose as well from the first {largest} tokens as"
        if _sign(_at(cuts.difference, at)) < 0:
            verdict = f"chooses worse from the first {largest} tokens than"
        return (
            f"{name} {verdict} from the whole response at N={n}: {gap}, where up to "
            f"{cuts.margin:g} less counts as the same."
        )
    share = lengths.cut_share[at]
    return (
        f"From {cuts.enough} tokens on, {name} chooses as well as from the whole response at N={n} "
        f"(within {cuts.margin:g}): {gap}."
        + ("" if isnan(share) else f" {share:.0%} are longer than that.")
    )


def _missing(curve: ScalingCurve) -> list[str]:
    if not curve.left_out:
        return []
    name, reason = curve.left_out[0]
    several = "prompts are" if len(curve.left_out) > 1 else "prompt is"
    return [f"{len(curve.left_out)} {several} left out; the first, {name}: {reason}."]


def intervals_hold(curve: ScalingCurve) -> str:
    """What is in the intervals and what is not."""
    pools = "its pool" if len(curve.pools) == 1 else f"all its {len(curve.pools)} pools"
    return (
        f"Intervals ({curve.level:.0%}) resample prompts, each with {pools}, {curve.resamples:,} "
        "times: they hold how prompts and draws scatter, and nothing of another generator, reward "
        "model or data set."
    )


def shown(interval: Interval) -> str:
    """A mean and its interval, as in 0.51 [0.47, 0.56]."""
    mean, low, high = (float(x) for x in (interval.mean, interval.low, interval.high))
    if isnan(mean):
        return "unknown"
    digits = 3 if abs(mean) < 10 else 1
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def signed(interval: Interval) -> str:
    """A difference and its interval, as in +0.19 [+0.16, +0.22]."""
    # Adding 0 makes a zero of minus zero.
    mean, low, high = (
        round(float(x), 3) + 0.0 for x in (interval.mean, interval.low, interval.high)
    )
    return "unknown" if isnan(mean) else f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def _last(interval: Interval) -> Interval:
    return _at(interval, -1)


def _at(interval: Interval, place: int) -> Interval:
    return Interval(*(np.asarray(x)[place] for x in (interval.mean, interval.low, interval.high)))


def _sign(interval: Interval) -> int:
    """1 or -1 where the whole interval lies on that side of zero, else 0."""
    return int(float(interval.low) > 0) - int(float(interval.high) < 0)
