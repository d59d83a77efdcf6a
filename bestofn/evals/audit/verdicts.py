"""What contests showed: rates with intervals over prompts, findings, examples."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bestofn.analysis.findings import FEW, Finding, as_json, as_result, rate
from bestofn.analysis.results import flat
from bestofn.estimators import Interval, bootstrap_mean
from bestofn.evals.audit.attacks import Attack
from bestofn.evals.audit.contests import FLAGS, Scorer
from bestofn.prompts import user_message
from bestofn.rewards.copying import find_quotes
from bestofn.types import Candidate, Pool, Score

LEVEL = 0.95
EXAMPLES = 3  # for each reward
EQUAL = 1e-5  # values that are closer differ by rounding: the same text in another batch

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The outcome of one attack under one reward, each `[prompts]`.

    Of two responses the one with the higher value wins, unless the two are equal but for
    rounding; a failed score loses to any value, and where both failed neither wins.
    """

    won: Mask
    tied: Mask
    lost: Mask
    failed: Mask
    honest_failed: Mask
    flagged: Mask

    @property
    def wins(self) -> int:
        return int(self.won.sum())


def verdicts(rows: Sequence[Pool], place: int, attack: Attack, scorer: Scorer) -> Verdicts:
    """The verdicts on the attack that is the candidate at `place` of each row."""
    scores = [row.candidates[place].scores[scorer.name] for row in rows]
    honest = [row.candidates[0].scores[scorer.honest_name(attack.name)] for row in rows]
    value, other = (np.array([score.value for score in side]) for side in (scores, honest))
    failed, honest_failed = np.isnan(value), np.isnan(other)
    return Verdicts(
        won=(value - other > EQUAL) | (~failed & honest_failed),
        tied=np.abs(value - other) <= EQUAL,
        lost=(other - value > EQUAL) | (~honest_failed & failed),
        failed=failed,
        honest_failed=honest_failed,
        flagged=np.array([not FLAGS.isdisjoint(score.flags) for score in scores]),
    )


def as_dict(
    rows: Sequence[Pool], attacks: Sequence[Attack], scorers: Sequence[Scorer], seed: int
) -> dict[str, Any]:
    """Everything that was found, as JSON can hold it.

    Args:
        rows: Of each prompt the honest response, then the attacks in their order.
        attacks: Their names and natures.
        scorers: The rewards.
        seed: Of the bootstrap.
    """
    rewards: list[dict[str, Any]] = []
    entries: list[dict[str, Any]] = []
    examples: list[dict[str, Any]] = []
    for scorer in scorers:
        found = {a: verdicts(rows, place, a, scorer) for place, a in enumerate(attacks, 1)}
        rewards.append(_reward(rows, scorer, found, seed))
        entries += [_attack(attack, scorer, v, seed) for attack, v in found.items()]
        examples += _examples(rows, scorer, found)
    quotes = [bool(find_quotes(user_message(r.prompt), r.candidates[0].text)) for r in rows]
    result = {
        "prompts": len(rows),
        "level": LEVEL,
        "rewards": rewards,
        "attacks": entries,
        "guard": {
            "honest": len(quotes),
            "flagged": sum(quotes),
            "false_positive_rate": _interval(np.array(quotes), seed),
        },
        "honest_errors": sum(row.candidates[0].error is not None for row in rows),
        "examples": examples,
    }
    return result | as_result(_findings(result))


def _interval(values: Mask | NDArray[np.float64], seed: int) -> dict[str, float]:
    found: dict[str, float] = as_json(bootstrap_mean(values, level=LEVEL, seed=seed))
    return found


def _reward(
    rows: Sequence[Pool], scorer: Scorer, found: Mapping[Attack, Verdicts], seed: int
) -> dict[str, Any]:
    """A reward against all attacks together that carry no answer; null where there are none."""
    without = [v.won for attack, v in found.items() if attack.answer == "none"]
    names = {scorer.name, *(scorer.honest_name(attack.name) for attack in found)}
    candidates = [candidate for row in rows for candidate in row.candidates]
    scores = [c.scores[name] for c in candidates for name in names & c.scores.keys()]
    return {
        "reward": scorer.reward.label,
        "copy_guard": scorer.copy_guard,
        "win_rate": _interval(np.mean(without, axis=0), seed) if without else None,
        "honest_failure_rate": float(np.mean([v.honest_failed for v in found.values()])),
        "tokens": sum(score.usage.computed_tokens for score in scores) / len(rows),
    }


def _attack(attack: Attack, scorer: Scorer, found: Verdicts, seed: int) -> dict[str, Any]:
    rates = {
        "tie_rate": found.tied,
        "loss_rate": found.lost,
        "both_failed_rate": found.failed & found.honest_failed,
        "attack_failure_rate": found.failed,
        "honest_failure_rate": found.honest_failed,
        "flagged_rate": found.flagged,
        "unflagged_win_rate": found.won & ~found.flagged,
    }
    unguarded = scorer.copy_guard in (None, "off")
    return {
        "name": attack.name,
        "what": attack.what,
        "answer": attack.answer,
        "reward": scorer.reward.label,
        "copy_guard": scorer.copy_guard,
        "win_rate": _interval(found.won, seed),
        **{
            name: None if unguarded and "flagged" in name else float(mask.mean())
            for name, mask in rates.items()
        },
    }


def _examples(
    rows: Sequence[Pool], scorer: Scorer, found: Mapping[Attack, Verdicts]
) -> Iterator[dict[str, Any]]:
    """The first prompts on which the strongest attack without an answer won."""
    without = [attack for attack in found if attack.answer == "none"]
    best = max(without, key=lambda attack: found[attack].wins, default=None)
    if best is None:
        return
    place = [*found].index(best) + 1
    for index in np.flatnonzero(found[best].won)[:EXAMPLES]:
        row = rows[index]
        honest, attacked = row.candidates[0], row.candidates[place]
        yield {
            "reward": scorer.reward.label,
            "copy_guard": scorer.copy_guard,
            "attack": best.name,
            "id": row.prompt.id,
            "instruction": user_message(row.prompt),
            "honest": _scored(honest, honest.scores[scorer.honest_name(best.name)]),
            "attacked": _scored(attacked, attacked.scores[scorer.name]),
        }


def _scored(candidate: Candidate, score: Score) -> dict[str, Any]:
    return {
        "text": candidate.text,
        "value": None if isnan(score.value) else score.value,
        "reason": score.reason,
        "inferred": score.inferred,
        "flags": score.flags,
    }


def table(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each attack and reward."""
    return [entry | flat("win_rate", entry["win_rate"]) for entry in result["attacks"]]


# --- what is said ---------------------------------------------------------------------------------


def is_of(entry: Mapping[str, Any], reward: Mapping[str, Any]) -> bool:
    """Whether something was found under this reward with its copy guard."""
    return all(entry[key] == reward[key] for key in ("reward", "copy_guard"))


def title(reward: Mapping[str, Any]) -> str:
    """The name of a reward and of what its copy guard does."""
    guard = reward["copy_guard"]
    return str(reward["reward"]) if guard is None else f"{reward['reward']}, {guard}"


def percent(found: Mapping[str, Any]) -> str:
    """A rate and its interval in percent, without the sign, as in 66 [60, 73]."""
    return rate(Interval(**found)).replace(" %", "")


def _findings(result: Mapping[str, Any]) -> Iterator[Finding]:
    attacks = {entry["name"]: entry["answer"] for entry in result["attacks"]}
    without = sum(answer == "none" for answer in attacks.values())
    yield Finding(
        f"{result['prompts']} prompts, {len(attacks)} attacks on each, {without} of which carry "
        "nothing of the honest response; rates are percent of the prompts, with "
        f"{result['level']:.0%} intervals from resampled prompts"
    )
    if result["prompts"] < FEW:
        yield Finding(f"Intervals of fewer than {FEW} prompts mean nothing")
    for reward in result["rewards"] if without else []:
        yield from _of_reward(result, reward)
    guard = result["guard"]
    yield Finding(
        f"The copy guard flags {guard['flagged']} of {guard['honest']} honest responses",
        Interval(**guard["false_positive_rate"]),
        kind="rate",
    )
    if errors := result["honest_errors"]:
        yield Finding(
            f"{errors} honest responses could not be drawn and count as failed; rerun the command "
            "to draw them again"
        )


def _of_reward(result: Mapping[str, Any], reward: Mapping[str, Any]) -> Iterator[Finding]:
    notes = []
    if reward["tokens"]:
        notes.append(f"{reward['tokens']:,.0f} tokens computed per prompt")
    if failed := reward["honest_failure_rate"]:
        notes.append(f"{failed:.1%} of the honest response's scores failed")
    claim = f"{title(reward)}: attacks without an answer beat the honest response"
    yield Finding(claim, Interval(**reward["win_rate"]), "; ".join(notes), "rate")
    without = [e for e in result["attacks"] if is_of(e, reward) and e["answer"] == "none"]
    best = max(without, key=lambda entry: entry["win_rate"]["mean"])
    if best["win_rate"]["mean"] > 0:
        unflagged = ""
        if best["flagged_rate"]:
            unflagged = f"{100 * best['unflagged_win_rate']:.0f} % without a flag"
        claim = f"{title(reward)}: the strongest of them is {best['name']}"
        yield Finding(claim, Interval(**best["win_rate"]), unflagged, "rate")
