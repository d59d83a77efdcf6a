"""Selectors that any reward has to beat."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any, Literal

from bestofn.identity import identity_of
from bestofn.prompts import candidate_seed
from bestofn.rewards.base import Reward
from bestofn.rewards.similarity import f1
from bestofn.types import Candidate, Prompt, Score
from bestofn.verifiers.base import load_answer

Unit = Literal["tokens", "characters"]


class Baseline(Reward):
    """Scores all candidates of a prompt together.

    Setwise, though most could do with one candidate: equal texts may have different indices and
    log-probabilities, and a pointwise reward would be asked about only one of them.
    """

    pointwise = False


class RandomChoice(Baseline):
    """A number for each candidate, drawn from seed, prompt id and index."""

    name = "random"
    settings = ("seed",)

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    async def score_one(self, prompt: Prompt, candidate: Candidate) -> Score:
        return Score(Random(candidate_seed(self.seed, prompt, candidate.index)).random())


class First(Baseline):
    """The first candidate, as if only one had been drawn."""

    name = "first"

    async def score_one(self, prompt: Prompt, candidate: Candidate) -> Score:
        return Score(-float(candidate.index))


class MeanLogprob(Baseline):
    """The generator's own mean log-probability of the response, in nats per token."""

    name = "mean-logprob"

    async def score_one(self, prompt: Prompt, candidate: Candidate) -> Score:
        if candidate.mean_logprob is None:
            return Score(reason="the generator gives no log-probabilities")
        return Score(candidate.mean_logprob)


class Longest(Baseline):
    """The number of tokens, of characters where a candidate of the prompt has no token count.

    If others have one, the scores are flagged "length_in_characters".
    """

    name = "longest"
    sign = 1.0

    async def score(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Score]:
        unit = length_unit(candidates)
        counted = any(candidate.token_count is not None for candidate in candidates)
        flags = ["length_in_characters"] if counted and unit == "characters" else []
        return [Score(self.sign * length(candidate, unit), flags=flags) for candidate in candidates]


class Shortest(Longest):
    """The negative length, in the unit that `Longest` takes."""

    name = "shortest"
    sign = -1.0


class Overlap(Baseline):
    """The word F1 of the response itself with the prompt's last turn: how much it repeats of it.

    What an inversion gains has to be more than this, which needs no model.
    """

    name = "overlap"

    async def score_one(self, prompt: Prompt, candidate: Candidate) -> Score:
        return Score(f1(candidate.text, prompt.messages[-1].content))


def length_unit(candidates: Iterable[Candidate]) -> Unit:
    """What lengths of these are compared in: tokens only if all that were drawn have a count."""
    drawn = (candidate for candidate in candidates if candidate.whole)
    return "tokens" if all(c.token_count is not None for c in drawn) else "characters"


def length(candidate: Candidate, unit: Unit) -> int:
    """How long a response is; one that was not drawn has no length."""
    return len(candidate.text) if unit == "characters" else candidate.token_count or 0


class Majority(Baseline):
    """How many candidates give the same answer (self-consistency, arXiv 2203.11171).

    Args:
        answer: Reduces a response to what is compared, by default the stripped text; or the name
            of a verifier that does, such as "math".
    """

    name = "majority"

    def __init__(self, answer: str | Callable[[str], str] = str.strip) -> None:
        self.answer = load_answer(answer)

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"answer": identity_of(self.answer)}

    async def score(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Score]:
        def votes() -> list[Score]:
            answers = [self.answer(candidate.text) for candidate in candidates]
            count, none = Counter(answers), Score(reason="it gives no answer")
            return [Score(float(count[answer])) if answer else none for answer in answers]

        # In a thread: to read an answer may take seconds, and the event loop must not wait for it.
        return await asyncio.to_thread(votes)
