"""Contests: an honest response against each attack on its prompt, under a reward."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from bestofn import concurrency
from bestofn.config import RewardConfig
from bestofn.engines.base import Engine
from bestofn.errors import EngineError
from bestofn.evals.audit.attacks import Attack
from bestofn.prompts import random_for, user_message
from bestofn.rewards.base import is_pointwise, takes
from bestofn.scoring import RewardModel, add_scores, without_cost
from bestofn.types import Candidate, Pool, Prompt

FLAG = "quotes_instruction"
FLAGS = frozenset({FLAG, "control_tokens"})
"""Flags of responses that somebody may want to discard."""


@dataclass(frozen=True, slots=True)
class Scorer:
    """A reward as it is attacked, with what its copy guard does, None where it has none."""

    reward: RewardConfig
    copy_guard: str | None = None

    @property
    def name(self) -> str:
        """Names its scores."""
        label = self.reward.label
        return label if self.copy_guard is None else f"{label}:{self.copy_guard}"

    def honest_name(self, attack: str) -> str:
        """Names the honest response's score in the contest with an attack.

        A reward that compares gives it one for each contest.
        """
        return self.name if is_pointwise(self.reward.reward) else f"{self.name}:{attack}"

    @property
    def options(self) -> dict[str, object]:
        """Arguments of the reward's class."""
        guard = {} if self.copy_guard is None else {"copy_guard": self.copy_guard}
        return self.reward.options | guard


def scorers_of(rewards: Sequence[RewardConfig]) -> list[Scorer]:
    """The rewards, those with a copy guard once for each thing that it can do.

    Raises:
        ConfigError: there is no such reward.
    """
    scorers = []
    for reward in rewards:
        guards = ("flag", "strip") if takes(reward.reward, "copy_guard") else (None,)
        if "copy_guard" in reward.options:
            guards = (reward.options["copy_guard"],)
        scorers += [Scorer(reward, guard) for guard in guards]
    return scorers


def attacked(prompt: Prompt, honest: Candidate, attacks: Sequence[Attack], seed: int) -> Pool:
    """The honest response, then the attacks in their order."""
    instruction = user_message(prompt)
    texts = [
        attack.write(instruction, honest.text, random_for(attack.name, seed, prompt))
        for attack in attacks
    ]
    return Pool(prompt, [honest, *(Candidate(i, text) for i, text in enumerate(texts, 1))])


async def add_logprobs(row: Pool, engine: Engine) -> None:
    """Sets how likely the engine finds each response; one that it cannot score stays without."""

    async def measure(candidate: Candidate) -> None:
        try:
            scores = await engine.loglikelihood(row.prompt, candidate.text, close=True)
        except EngineError:
            return
        candidate.mean_logprob = fmean(scores.token_logprobs)
        candidate.sum_logprob = sum(scores.token_logprobs)

    await concurrency.gather(*map(measure, row.candidates))


async def compete(
    row: Pool, names: Sequence[str], scorer: Scorer, reward: RewardModel, seed: int
) -> None:
    """Sets the reward's scores on the honest response and on the attacks, whose names are given.

    A pointwise reward scores each distinct response once; one that compares sees the honest
    response and one attack at a time, in an order drawn from the seed.
    """
    honest, *others = row.candidates

    async def compare(name: str, other: Candidate) -> None:
        order = random_for(name, seed, row.prompt).sample([honest, other], 2)
        pair = [replace(candidate, index=index, scores={}) for index, candidate in enumerate(order)]
        await add_scores(row.prompt, pair, reward)
        mine, its = pair if order[0] is honest else reversed(pair)
        honest.scores[f"{reward.name}:{name}"] = mine.scores[reward.name]
        other.scores[reward.name] = its.scores[reward.name]

    if not reward.pointwise:
        await concurrency.gather(*map(compare, names, others))
        return
    # Where the copy guard has flagged nothing there is nothing to strip: the score stays the same.
    flagging = replace(scorer, copy_guard="flag").name
    left = []
    for candidate in row.candidates:
        known = candidate.scores.get(flagging)
        if scorer.copy_guard != "strip" or known is None or FLAG in known.flags:
            left.append(candidate)
        else:
            candidate.scores[scorer.name] = without_cost(known)
    await add_scores(row.prompt, left, reward)
