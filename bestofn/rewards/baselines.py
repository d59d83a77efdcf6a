"""Selectors that any reward has to beat."""

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from bestofn.identity import identity_of
from bestofn.prompts import candidate_seed
from bestofn.rewards.weighted import Composable
from bestofn.types import Candidate, Prompt, Score


class _Baseline(Composable):
    """Scores all candidates of a prompt together; one that could not be drawn fails.

    Setwise, though most could do with one candidate: equal texts may have different indices and
    log-probabilities, and a pointwise reward would be asked about only one of them.
    """

    name: str
    pointwise = False

    def identity(self) -> dict[str, Any]:
        """What scores depend on; see `bestofn.identity`."""
        return {"kind": type(self).__name__, "name": self.name}

    async def score(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Score]:
        drawn = [candidate for candidate in candidates if candidate.finish_reason != "error"]
        scores = dict(zip(map(id, drawn), self._score(prompt, drawn), strict=True))
        return [
            scores.get(id(candidate)) or Score(reason=f"no response: {candidate.error}")
            for candidate in candidates
        ]

    def _score(self, prompt: Prompt, drawn: list[Candidate]) -> list[Score]:
        raise NotImplementedError


class RandomChoice(_Baseline):
    """A number for each candidate, drawn from seed, prompt id and index."""

    name = "random"

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"seed": self.seed}

    def _score(self, prompt: Prompt, drawn: list[Candidate]) -> list[Score]:
        seeds = (candidate_seed(self.seed, prompt, candidate.index) for candidate in drawn)
        return [Score(Random(seed).random()) for seed in seeds]


class First(_Baseline):
    """The first candidate, as if only one had been drawn."""

    name = "first"

    def _score(self, prompt: Prompt, drawn: list[Candidate]) -> list[Score]:
        return [Score(-float(candidate.index)) for candidate in drawn]


class Longest(_Baseline):
    """The number of tokens, of characters where the generator counts no tokens."""

    name = "longest"

    def _score(self, prompt: Prompt, drawn: list[Candidate]) -> list[Score]:
        return [Score(float(_length(candidate))) for candidate in drawn]


class Shortest(_Baseline):
    """The negative length."""

    name = "shortest"

    def _score(self, prompt: Prompt, drawn: list[Candidate]) -> list[Score]:
        return [Score(-float(_length(candidate))) for candidate in drawn]


def _length(candidate: Candidate) -> int:
    return len(candidate.text) if candidate.token_count is None else candidate.token_count


class MeanLogprob(_Baseline):
    """The generator's own mean log-probability of the response, in nats per token."""

    name = "mean-logprob"

    def _score(self, prompt: Prompt, drawn: list[Candidate]) -> list[Score]:
        missing = "the generator gives no log-probabilities"
        values = [candidate.mean_logprob for candidate in drawn]
        return [Score(reason=missing) if value is None else Score(value) for value in values]


class Majority(_Baseline):
    """How many candidates give the same answer (self-consistency, arXiv 2203.11171).

    Args:
        answer: Reduces a response to what is compared, by default the stripped text.
    """

    name = "majority"

    def __init__(self, answer: Callable[[str], str] = str.strip) -> None:
        self.answer = answer

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"answer": identity_of(self.answer)}

    def _score(self, prompt: Prompt, drawn: list[Candidate]) -> list[Score]:
        answers = [self.answer(candidate.text) for candidate in drawn]
        votes = Counter(answers)
        return [
            Score(float(votes[answer])) if answer else Score(reason="it gives no answer")
            for answer in answers
        ]
