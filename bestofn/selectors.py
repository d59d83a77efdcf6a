"""Which of a prompt's candidates is chosen, by their scores and by what they say."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import isfinite, isnan, sqrt
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bestofn.errors import ConfigError
from bestofn.estimators import Flags, Rule, evenly, highest, vote
from bestofn.identity import identity_of
from bestofn.prompts import candidate_seed
from bestofn.registry import construct, find, is_own, make
from bestofn.rewards.similarity import Similarity, name_of, resolve
from bestofn.types import Candidate, Prompt
from bestofn.verifiers.base import load_answer

Array = NDArray[np.float64]
Whole = NDArray[np.int64]


class Selector(ABC):
    """Chooses one of the candidates that were drawn for a prompt.

    One that cannot be chosen, such as a candidate without a score, is chosen only where no other
    can; then at random among all.
    """

    name: str
    reads_scores: ClassVar[bool] = True
    """Whether it depends on the reward's values."""
    draws: ClassVar[bool] = False
    """Whether it draws by its probabilities, and does not take the likeliest."""
    seed: int = 0
    """Of those draws."""
    parameter: ClassVar[str | None] = None
    """The argument that a spec can give, as in "soft=0.1"."""

    def able(self, candidates: Sequence[Candidate], values: Array) -> Flags:
        """Which can be chosen, `[M]`: by default those with a value, `[M]`."""
        return ~np.isnan(values)

    @abstractmethod
    def rule(self, candidates: Sequence[Candidate], values: Array) -> Rule:
        """What chooses among any of a prompt's candidates.

        Args:
            candidates: All of the pool, `[M]`.
            values: Their scores, `[M]`, NaN where one failed.

        Returns:
            A function of draws `[draws, n]`, numbers of candidates: with which probability each of
            the n is chosen, `[draws, n]`, and whether several were equally good, `[draws]`.
        """

    def choose(
        self, prompt: Prompt, candidates: Sequence[Candidate], values: Sequence[float]
    ) -> tuple[int | None, bool]:
        """Which of all candidates is chosen, None if none can be; whether others were as good.

        The likeliest, of equal ones the first; or a draw that depends on seed and prompt alone.
        """
        known = np.asarray(values, dtype=np.float64)
        if not self.able(candidates, known).any():
            return None, False
        chances, tied = self.rule(candidates, known)(np.arange(len(candidates))[None])
        if self.draws:
            rng = np.random.default_rng(candidate_seed(self.seed, prompt, 0))
            return int(rng.choice(len(candidates), p=chances[0])), False
        return int(np.argmax(chances[0])), bool(tied[0])

    def identity(self) -> dict[str, Any]:
        """What choices depend on; see `bestofn.identity`."""
        own = {self.parameter: getattr(self, self.parameter)} if self.parameter else {}
        seed = {"seed": self.seed} if self.draws else {}
        return {"kind": type(self).__name__, "name": self.name} | own | seed


class Best(Selector):
    """The candidate with the highest score: best-of-N."""

    name = "best"

    def choose(
        self, prompt: Prompt, candidates: Sequence[Candidate], values: Sequence[float]
    ) -> tuple[int | None, bool]:
        # Exactly, and without arrays: this is done for every prompt.
        best = max((value for value in values if not isnan(value)), default=None)
        if best is None:
            return None, False
        return list(values).index(best), list(values).count(best) > 1

    def rule(self, candidates: Sequence[Candidate], values: Array) -> Rule:
        return lambda drawn: evenly(highest(values[drawn], ~np.isnan(values[drawn])))


class SoftBest(Selector):
    """A candidate drawn with probability proportional to exp(score / temperature).

    Near 0 it is best-of-N, at infinity a random choice. Source: soft best-of-N, arXiv 2505.03156.

    Args:
        temperature: In units of the score, above 0.

    Raises:
        ConfigError: the temperature is not.
    """

    name, draws, parameter = "soft", True, "temperature"

    def __init__(self, temperature: float = 0.1, *, seed: int = 0) -> None:
        self.temperature, self.seed = _positive("temperature", temperature), seed

    def rule(self, candidates: Sequence[Candidate], values: Array) -> Rule:
        def softly(drawn: Whole) -> tuple[Array, Flags]:
            known = _known(values[drawn])
            with np.errstate(invalid="ignore"):  # of rows without a value
                weights = np.exp((known - known.max(axis=1, keepdims=True)) / self.temperature)
            return _shares(weights)

        return softly


class Pessimistic(Selector):
    """A candidate drawn with probability max(score - level, 0) / (n * strength).

    The level is the one for which these add up to 1, so that a high score has to be shared by
    several before they are preferred to the rest: what a reward is wrong about is mostly a single
    candidate far above the others. It is the exact distribution that the rejection sampling of
    InferenceTimePessimism (arXiv 2503.21878) has in expectation. Near 0 it is best-of-N, with a
    large strength a random choice.

    Args:
        strength: The paper's beta, of the regularisation, in units of the score, above 0.

    Raises:
        ConfigError: the strength is not.
    """

    name, draws, parameter = "pessimistic", True, "strength"

    def __init__(self, strength: float = 0.1, *, seed: int = 0) -> None:
        self.strength, self.seed = _positive("strength", strength), seed

    def rule(self, candidates: Sequence[Candidate], values: Array) -> Rule:
        def cautiously(drawn: Whole) -> tuple[Array, Flags]:
            known, n = _known(values[drawn]), drawn.shape[1]
            with np.errstate(invalid="ignore"):  # of rows without a value
                known = known - known.max(axis=1, keepdims=True)
                # The level is that of the highest k alone, for the largest k all above it.
                ordered = -np.sort(-known, axis=1)
                levels = (np.cumsum(ordered, axis=1) - n * self.strength) / np.arange(1, n + 1)
                held = np.maximum((ordered > levels).sum(axis=1, keepdims=True), 1)
                level = np.take_along_axis(levels, held - 1, axis=1)
                return _shares(np.maximum(known - level, 0.0))

        return cautiously


class Vote(Selector):
    """A candidate of the answer that has the most votes (self-consistency, arXiv 2203.11171).

    Among the candidates that give the answer the choice is even.

    Args:
        answer: Reduces a response to what is compared, by default the stripped text; or the name of
            a verifier that does, such as "math".
    """

    name = "majority"
    reads_scores = False

    def __init__(self, answer: str | Callable[[str], str] = str.strip) -> None:
        self.answer = load_answer(answer)

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"answer": identity_of(self.answer)}

    def able(self, candidates: Sequence[Candidate], values: Array) -> Flags:
        return self.answers(candidates, values) >= 0

    def rule(self, candidates: Sequence[Candidate], values: Array) -> Rule:
        return vote(self.answers(candidates, values), np.ones(len(candidates)))

    def answers(self, candidates: Sequence[Candidate], values: Array) -> Whole:
        """A number for each candidate, `[M]`, equal where answers are; -1 without an answer."""
        numbers: dict[str, int] = {}
        said = [c.whole and self.answer(c.text) for c in candidates]
        found = np.array([numbers.setdefault(a, len(numbers)) if a else -1 for a in said])
        return np.where(np.isnan(values), -1, found) if self.reads_scores else found


class WeightedVote(Vote):
    """A candidate of the answer whose candidates' scores add up to most.

    Scores are weights, so none may be negative. Source: best-of-N weighted, arXiv 2206.02336 and
    2408.03314; with a confidence as the score it is a confidence-weighted vote, arXiv 2508.15260.
    """

    name = "weighted"
    reads_scores = True

    def rule(self, candidates: Sequence[Candidate], values: Array) -> Rule:
        if np.nanmin(values, initial=0.0) < 0:
            raise ConfigError(
                "a vote's weight cannot be negative, but the scores have negative values; weigh "
                "with a reward from 0 on, such as 'flip'"
            )
        return vote(self.answers(candidates, values), values)


class MajorityOfTheBests(Vote):
    """A candidate of the answer that best-of-m most often gives, m drawn with replacement.

    A score that is wrong about one candidate makes it the best of all, but not the most likely
    answer of the best of a few. The probability is exact: of n drawn, sorted by score, the best of
    m lies at place i with probability (i / n)^m - ((i - 1) / n)^m. Of the candidates that give the
    answer the best one is chosen, of several such answers the one whose best is better. Source:
    arXiv 2511.18630, whose own rule for m is not built.

    Args:
        answer: As of `Vote`.
        m: How many are drawn, by default the root of n, rounded.

    Raises:
        ConfigError: m is less than 1.
    """

    name, reads_scores, parameter = "mob", True, "m"

    def __init__(
        self, answer: str | Callable[[str], str] = str.strip, *, m: int | None = None
    ) -> None:
        super().__init__(answer)
        if m is not None and m < 1:
            raise ConfigError(f"m must be at least 1, not {m}")
        self.m = m

    def rule(self, candidates: Sequence[Candidate], values: Array) -> Rule:
        answers = self.answers(candidates, values)

        def mode(drawn: Whole) -> tuple[Array, Flags]:
            given, n = answers[drawn], drawn.shape[1]
            known = np.where(given < 0, -np.inf, values[drawn])
            bests = _best_of(known, self.m or round(sqrt(n)))
            same = given[:, :, None] == given[:, None, :]
            # Of each of the drawn the chance of its answer.
            modal = highest((same * bests[:, None, :]).sum(axis=2), given >= 0)
            return evenly(highest(known, modal))

        return mode


class MinimumBayesRisk(Selector):
    """The candidate with the highest average similarity to the others.

    argmax over i of the mean over j of similarity(text_i, text_j): where the others are draws from
    the model, it has the least expected loss (arXiv 2005.10283, 2211.07634). Needs no reward.

    Args:
        similarity: "f1", word F1; "rouge_l"; "package.module:name" or a function of two texts.
    """

    name, reads_scores, parameter = "mbr", False, "similarity"

    def __init__(self, similarity: str | Similarity = "f1") -> None:
        self.similarity = resolve(similarity)

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"similarity": name_of(self.similarity)}

    def able(self, candidates: Sequence[Candidate], values: Array) -> Flags:
        return np.array([c.whole and bool(c.text.strip()) for c in candidates])

    def rule(self, candidates: Sequence[Candidate], values: Array) -> Rule:
        texts = [candidate.text for candidate in candidates]
        distinct = list(dict.fromkeys(texts))
        likeness = np.array([[self.similarity(a, b) for b in distinct] for a in distinct])
        places, able = [distinct.index(text) for text in texts], self.able(candidates, values)
        alike = likeness[np.ix_(places, places)] * able
        np.fill_diagonal(alike, 0.0)

        def nearest(drawn: Whole) -> tuple[Array, Flags]:
            each = alike[drawn[:, :, None], drawn[:, None, :]].sum(axis=2)
            return evenly(highest(each, able[drawn]))

        return nearest


def load_selector(spec: str, answer: str | Callable[[str], str] = str.strip) -> Selector:
    """The selector of that name.

    Args:
        spec: "best", "soft", "pessimistic", "majority", "weighted", "mob" or "mbr", some with a
            value of their parameter, as in "soft=0.1"; or "package.module:Name", a class or an
            object of your own.
        answer: For those that take one.

    Raises:
        ConfigError: there is no such selector, or it does not take this value.
    """
    name, equals, value = spec.partition("=")
    what, (kind, _) = f"the selector {spec!r}", find("selector", name)
    options: dict[str, Any] = {}
    if isinstance(kind, type) and issubclass(kind, Vote):
        options["answer"] = answer
    if equals:
        if getattr(kind, "parameter", None) is None:
            raise ConfigError(f"{what} takes no value; leave out {equals + value!r}")
        options[kind.parameter] = _read(value)
    found = (make if is_own("selector", name) else construct)(what, kind, [], options)
    if not isinstance(found, Selector):
        raise ConfigError(f"{spec!r} is no bestofn.selectors.Selector")
    return found


def _read(value: str) -> int | float | str:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(value)
    return value


def _positive(name: str, value: float) -> float:
    if not (isfinite(value) and value > 0):
        raise ConfigError(f"{name} must be a number above 0, not {value}")
    return value


def _known(values: Array) -> Array:
    """The values, with the lowest of all where one failed."""
    return np.where(np.isnan(values), -np.inf, values)


def _shares(weights: Array) -> tuple[Array, Flags]:
    """What a `Rule` returns for a draw by weight; by chance where no value is known."""
    known = np.where(np.isnan(weights).all(axis=1, keepdims=True), 1.0, np.nan_to_num(weights))
    return known / known.sum(axis=1, keepdims=True), np.zeros(len(known), dtype=np.bool_)


def _best_of(values: Array, m: int) -> Array:
    """The chance of each of n to be the best of m drawn from them with replacement, `[draws, n]`.

    Equal values share theirs.
    """
    n = values.shape[1]
    below = (values[:, :, None] > values[:, None, :]).sum(axis=2)
    upto = (values[:, :, None] >= values[:, None, :]).sum(axis=2)
    shared: Array = ((upto / n) ** m - (below / n) ** m) / (upto - below)
    return shared
