"""What a curve and its length analysis say, as findings."""

from collections.abc import Iterator
from math import isnan

from bestofn.analysis.curves import Difference, ProxyCurve, ScalingCurve
from bestofn.analysis.expected import ORACLE, RANDOM
from bestofn.analysis.findings import FEW, Finding, at, coverage, shown, sign, too_few, verdict
from bestofn.analysis.lengths import CutCurves, LengthAnalysis
from bestofn.estimators import Interval


def findings(curve: ScalingCurve, lengths: LengthAnalysis | None = None) -> list[Finding]:
    """The findings, the most important ones first; of a few prompts there are none."""
    if curve.prompts < FEW:
        return [*_setting(curve), too_few("prompts"), *_left_out(curve)]
    proxies = [c for c in curve.curves if c.name not in (RANDOM, ORACLE)]
    return [
        *_setting(curve),
        *(finding for proxy in proxies for finding in _of_proxy(proxy, curve.ns[-1])),
        *_headroom(curve),
        *_comparisons(curve),
        *(of_lengths(curve, lengths) if lengths else []),
        *_left_out(curve),
        covered(curve),
    ]


def covered(curve: ScalingCurve) -> Finding:
    """What the intervals of a curve cover."""
    pools = "its pool" if len(curve.pools) == 1 else f"all its {len(curve.pools)} pools"
    resampled = f"prompts, each with {pools}"
    not_covered = "generator, reward model or data set"
    return coverage(curve.level, resampled, curve.resamples, not_covered)


def _setting(curve: ScalingCurve) -> Iterator[Finding]:
    sizes = " to ".join(dict.fromkeys(str(size) for size in (curve.sizes[0], curve.sizes[-1])))
    seeds = f", drawn {len(curve.pools)} times" if len(curve.pools) > 1 else ""
    yield Finding(f"{curve.prompts} prompts with {sizes} candidates each{seeds}")
    yield Finding(f"{curve.gold} of a random candidate", at(curve.interval(curve.chance)))
    if curve.ns[-1] == curve.sizes[0] < curve.sizes[-1]:
        yield Finding(
            f"Curves end at the smallest pool's N={curve.ns[-1]}; a larger N (--ns) leaves smaller "
            "pools out and names them"
        )
    if curve.kl_bound is None:
        yield Finding(
            "The candidates are not independent draws from one model: curves describe the choice "
            "among these candidates, not what drawing more would give"
        )


def _of_proxy(proxy: ProxyCurve, n: int) -> Iterator[Finding]:
    name = proxy.name
    notes = []
    if proxy.ties[-1] > 0.5:
        notes.append(f"several candidates share the best score in {proxy.ties[-1]:.0%} of draws")
    if proxy.failed_scores:
        notes.append(f"{proxy.failed_scores:.1%} of its scores failed")
    yield Finding(f"{name} at N={n}", at(proxy.gold), "; ".join(notes))
    if n == 1:
        return
    gain = at(proxy.gain)
    against = verdict(gain, "better than random", "worse than random")
    yield Finding(f"{name} minus random at N={n}", gain, against, "difference")
    if proxy.noise is not None:
        yield Finding(f"{name} at N={n} with new pools for the same prompts", at(proxy.noise))
    peak, after = proxy.after_peak
    if peak not in (1, n) and sign(at(after)) < 0:
        claim = f"{name} at N={n} minus its peak at N={peak}"
        yield Finding(claim, at(after), "over-optimisation", "difference")


def _headroom(curve: ScalingCurve) -> Iterator[Finding]:
    by_name = {c.name: c for c in curve.curves}
    others = [c for name, c in by_name.items() if name not in (RANDOM, ORACLE)]
    if ORACLE not in by_name or not others:
        return
    best = max(others, key=lambda c: float(c.gold.mean[-1]))
    most, taken = by_name[ORACLE].gain.mean[-1], best.gain.mean[-1]
    share = ""
    if most > 0 and taken > 0:
        share = f"{best.name}, the highest here, takes {taken / most:.0%} of its gain over random"
    yield Finding(f"oracle at N={curve.ns[-1]}", at(by_name[ORACLE].gold), share)


def _comparisons(curve: ScalingCurve) -> Iterator[Finding]:
    """The highest proxy against each of the others."""
    pairs = {name for d in curve.differences for name in (d.a, d.b)}
    compared = [c for c in curve.curves if c.name in pairs]
    best = max(compared, key=lambda c: float(c.gold.mean[-1]), default=None)
    for difference in curve.differences:
        if best is not None and best.name in (difference.a, difference.b):
            yield _comparison(difference, best.name, curve.ns[-1])


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
    """Whether each reward is better on longer responses or only prefers them, and from how many
    tokens on its choice is as good as on the whole response.
    """
    if lengths.unit != "tokens" and lengths.counted:
        share = f"{1 - lengths.counted:.1%}"
        yield Finding(f"Lengths are in characters: {share} of the candidates have no token count")
    scored = {c.name for c in curve.curves if c.scored_tokens[-1] > 0}
    for name in (name for name in lengths.names if name in scored):
        yield from _of_length(name, curve, lengths)
    for name, cuts in lengths.cuts.items():
        yield _enough(name, cuts, lengths, curve.ns[-1])
    for name, missing in lengths.lacking.items():
        yield Finding(f"{name} is left out of the ablation by first tokens: no score {missing}")


def _of_length(name: str, curve: ScalingCurve, lengths: LengthAnalysis) -> Iterator[Finding]:
    preference, truth = lengths.spearman[name], lengths.spearman[curve.gold]
    prefers = verdict(
        preference,
        "prefers longer responses",
        "prefers shorter responses",
        "no measurable preference for length",
    )
    selected = float(at(lengths.selected_length[name]).mean)
    yield Finding(
        f"{name}: rank correlation with length within prompts",
        preference,
        f"{prefers} ({curve.gold}: {shown(truth)}); selects {selected:.1f} {lengths.unit} where "
        f"a candidate has {lengths.pool_length:.1f} on average",
    )
    beyond = lengths.beyond_length[name]
    than_length = verdict(beyond, "better than length alone", "worse than length alone")
    yield Finding(f"{name} minus choosing by length alone", beyond, than_length, "difference")
    longer = lengths.longer[name]
    on_longer = verdict(longer, "better on longer responses", "worse on longer responses")
    claim = f"{name}: pairs in the right order, longer half of the prompts minus shorter half"
    yield Finding(claim, longer, on_longer, "difference")


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


def _left_out(curve: ScalingCurve) -> Iterator[Finding]:
    if curve.left_out:
        name, reason = curve.left_out[0]
        several = "prompts are" if len(curve.left_out) > 1 else "prompt is"
        count = len(curve.left_out)
        yield Finding(f"{count} {several} left out; the first, {name}: {reason}")
