"""LLM as a judge: a model that is asked which response is good, the rewards FLIP stands against.

The request comes first in each question, so that a prefix cache serves it to all candidates. What
cannot be read is no verdict, and counted; a judge that favours a place is seen in `Score.counts`.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from bestofn import concurrency
from bestofn.engines.base import Engine, SamplingParams
from bestofn.errors import ConfigError, ContextLengthError, EngineError, OtherProcessError
from bestofn.identity import fingerprint, identity_of
from bestofn.prompts import candidate_seed, random_for, transcript
from bestofn.rewards.parsing import parse_completion
from bestofn.rewards.templates import answer_schema
from bestofn.rewards.templates.judging import Kind, load_judge_template
from bestofn.rewards.weighted import Composable
from bestofn.scoring import without_cost
from bestofn.types import Candidate, Prompt, Score, Usage

Tournament = Literal["knockout", "round-robin"]

LOWEST, HIGHEST = 1, 10
OPENING, CLOSING = r"""[\s*\["'(#]*""", r"""[\s*\]"').]*"""
RATING = re.compile(OPENING + r"(\d+(?:\.\d+)?)(?:\s*(?:/|out of)\s*10)?" + CLOSING, re.IGNORECASE)
LETTER = re.compile(OPENING + r"(?:(?:response|answer)\s+)?([AB])" + CLOSING, re.IGNORECASE)
NUMBER = re.compile(OPENING + r"(?:(?:response|answer)\s+)?(\d+)(?:\.0)?" + CLOSING, re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Form:
    """What a verdict is to be: as a JSON schema, in words, and how its text is read."""

    schema: Mapping[str, Any]
    words: str
    read: Callable[[str], float | None]


def _read_grade(text: str) -> float | None:
    found = RATING.fullmatch(text)
    grade = float(found[1]) if found else 0.0
    return grade if LOWEST <= grade <= HIGHEST else None


def _read_letter(text: str) -> float | None:
    found = LETTER.fullmatch(text)
    return float("AB".index(found[1].upper())) if found else None


GRADE = _Form(
    {"type": "integer", "minimum": LOWEST, "maximum": HIGHEST},
    f"a number from {LOWEST} to {HIGHEST}",
    _read_grade,
)
BETTER = _Form({"enum": ["A", "B"]}, "A or B", _read_letter)


def _numbered(first: int, n: int) -> _Form:
    """The number of one of n responses."""

    def read(text: str) -> float | None:
        found = NUMBER.fullmatch(text)
        place = int(found[1]) - first if found else -1
        return float(place) if 0 <= place < n else None

    last = first + n - 1
    schema = {"type": "integer", "minimum": first, "maximum": last}
    return _Form(schema, f"a number from {first} to {last}", read)


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What one call said: a rating, or the place of the response that it prefers, from 0."""

    value: float | None
    reason: str | None
    usage: Usage


class _Judge(Composable):
    """What all judges share: the question, the call, the answer as a number."""

    kind: Kind
    pointwise = False

    def __init__(
        self,
        engine: Engine,
        template: str | Path,
        temperature: float,
        max_tokens: int,
        seed: int,
        name: str,
    ) -> None:
        self.engine = engine
        self.template = load_judge_template(template, self.kind)
        self.params = SamplingParams(temperature=temperature, max_tokens=max_tokens, logprobs=False)
        self.seed = seed
        self.name = name

    def identity(self) -> dict[str, Any]:
        """What scores depend on; see `bestofn.identity`."""
        drawn = not self.pointwise or self.params.temperature
        return {
            "kind": type(self).__name__,
            "name": self.name,
            "engine": identity_of(self.engine),
            "template": fingerprint(self.template.model_dump_json(exclude_defaults=True)),
            "temperature": self.params.temperature,
            "max_tokens": self.params.max_tokens,
        } | ({"seed": self.seed} if drawn else {})

    async def _ask(self, prompt: Prompt, form: _Form, sample: int = 0, **texts: str) -> _Verdict:
        """One call; texts stand in the template's places of that name."""
        question = self.template.fill(prompt=_request(prompt), **texts)
        # Seeds follow the question, so that equal ones get equal answers.
        source = replace(question, id="\x1f".join([prompt.id, *texts.values()]))
        seed = candidate_seed(self.seed, source, sample) if self.params.temperature else None
        schema = answer_schema(self.template.field, form.schema)
        try:
            answer = await self.engine.generate(
                question, replace(self.params, json_schema=schema), seed
            )
        except ContextLengthError as error:
            return _Verdict(None, f"too long: {error}", Usage())
        except OtherProcessError:
            raise
        except EngineError as error:
            return _Verdict(None, f"engine: {error}", Usage())
        parsed = parse_completion(answer, self.template.field, numbers=True)
        if parsed.text is None:
            return _Verdict(None, f"parse: {parsed.reason}", answer.usage)
        value = form.read(parsed.text)
        reason = f"parse: not {form.words}" if value is None else None
        return _Verdict(value, reason, answer.usage)


def _request(prompt: Prompt) -> str:
    """The last user message; of a longer conversation all turns, each with its role."""
    if len(prompt.messages) == 1:
        return prompt.messages[0].content
    return transcript(prompt.messages)


def _unusable(candidate: Candidate) -> str | None:
    """Why there is nothing to judge, None if there is."""
    if candidate.finish_reason == "error":
        return f"no response: {candidate.error}"
    return None if candidate.text.strip() else "empty response"


class PointwiseJudge(_Judge):
    """A grade from 1 to 10 for each response by itself, after a short reasoning.

    Args:
        engine: The judge.
        template: "pointwise", a YAML file, or a folder with the paper's files; see
            `load_judge_template`.
        samples: Grades to average; the mean is over those that could be read.
        temperature: Of the answers. Several greedy ones would be the same one.
        max_tokens: Of one answer, reasoning included.
        seed: Of sampled answers, together with the question.
        name: Of the scores on a candidate.

    Source: the pointwise baseline of arXiv 2602.13551.
    """

    kind = "pointwise"
    pointwise = True

    def __init__(
        self,
        engine: Engine,
        *,
        template: str | Path = "pointwise",
        samples: int = 1,
        temperature: float = 0.0,
        max_tokens: int = 512,
        seed: int = 0,
        name: str = "pointwise",
    ) -> None:
        if samples < 1:
            raise ConfigError(f"samples must be at least 1, not {samples}")
        if samples > 1 and temperature == 0:
            raise ConfigError("several samples need a temperature above 0")
        super().__init__(engine, template, temperature, max_tokens, seed, name)
        self.samples = samples

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"samples": self.samples}

    def calls(self, n: int) -> int:
        """Calls of the judge for n different responses."""
        return n * self.samples

    async def score(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Score]:
        return await concurrency.gather(
            *(self._grade(prompt, candidate) for candidate in candidates)
        )

    async def _grade(self, prompt: Prompt, candidate: Candidate) -> Score:
        if reason := _unusable(candidate):
            return Score(reason=reason)
        verdicts = await concurrency.gather(
            *(self._ask(prompt, GRADE, k, response=candidate.text) for k in range(self.samples))
        )
        tally = _Tally()
        for verdict in verdicts:
            tally.add_call(verdict)
            tally.add_outcome(verdict.value, verdict)
        return tally.score()


@dataclass(slots=True)
class _Tally:
    """What the calls about one response came to."""

    outcomes: list[float] = field(default_factory=list)
    reasons: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    usage: Usage = field(default_factory=Usage)

    def add_call(self, verdict: _Verdict) -> None:
        self.counts["calls"] += 1
        self.counts["unreadable"] += verdict.value is None
        self.usage += verdict.usage

    def add_outcome(self, outcome: float | None, *verdicts: _Verdict) -> None:
        """What came of some calls; None where one of them could not be read."""
        if outcome is None:
            self.reasons |= {v.reason for v in verdicts if v.reason is not None}
        else:
            self.outcomes.append(outcome)

    def score(self, value: float | None = None) -> Score:
        """The value, by default the mean outcome; it fails where nothing could be read."""
        score = Score(counts={k: n for k, n in self.counts.items() if n}, usage=self.usage)
        if self.outcomes:
            score.value = fmean(self.outcomes) if value is None else value
        else:
            score.reason = "; ".join(sorted(self.reasons))
        return score


class _SetwiseJudge(_Judge):
    """Compares the different responses to a prompt; equal ones share a score.

    They are compared in an order drawn from seed and prompt, so that no index has a favoured
    place. Of equal responses the first bears costs and counts. A response with nothing to be
    compared with gets 1.
    """

    async def score(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Score]:
        responses = list(dict.fromkeys(c.text for c in candidates if _unusable(c) is None))
        random_for("judge order", self.seed, prompt).shuffle(responses)
        if len(responses) > 1:
            scores = await self._compare(prompt, responses)
        else:
            scores = {text: Score(1.0, flags=["not_compared"]) for text in responses}
        given = set[str]()
        return [self._share(candidate, scores, given) for candidate in candidates]

    def _share(self, candidate: Candidate, scores: Mapping[str, Score], given: set[str]) -> Score:
        if reason := _unusable(candidate):
            return Score(reason=reason)
        score = scores[candidate.text]
        if candidate.text in given:
            return without_cost(score)
        given.add(candidate.text)
        return score

    async def _compare(self, prompt: Prompt, responses: list[str]) -> dict[str, Score]:
        """The scores of two or more responses, by response."""
        raise NotImplementedError


class PairwiseJudge(_SetwiseJudge):
    """Which of two responses is better, asked in both orders.

    A response wins a pair if both orders say so; if they disagree the pair is split, half a win
    for each; if one cannot be read the pair counts nothing. `Score.counts` has the calls, how many
    picked the response shown first or second, and how many pairs were split: a judge without
    position bias picks each place equally often.

    Args:
        engine: The judge.
        tournament: "knockout" pairs the winners round by round, 2 (n - 1) calls for n different
            responses, and the value is the number of rounds survived. A split or unreadable pair
            is decided by lot for the rounds to come, flagged "by_lot", and the two get the value
            that the one in play gets: no lot makes a winner. "round-robin" compares each with
            each, n (n - 1) calls, and the value is the mean outcome.
        template: "pairwise", a YAML file, or a folder with the paper's files; see
            `load_judge_template`.
        temperature: Of the answers.
        max_tokens: Of one answer, reasoning included.
        seed: Of order, lots and sampled answers, together with the prompt.
        name: Of the scores on a candidate.

    Source: the pairwise baseline of arXiv 2602.13551; the tournaments are ours.
    """

    kind = "pairwise"

    def __init__(
        self,
        engine: Engine,
        *,
        tournament: Tournament = "knockout",
        template: str | Path = "pairwise",
        temperature: float = 0.0,
        max_tokens: int = 512,
        seed: int = 0,
        name: str = "pairwise",
    ) -> None:
        if tournament not in ("knockout", "round-robin"):
            raise ConfigError(f"tournament must be 'knockout' or 'round-robin', not {tournament!r}")
        super().__init__(engine, template, temperature, max_tokens, seed, name)
        self.tournament = tournament

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"tournament": self.tournament}

    def calls(self, n: int) -> int:
        """Calls of the judge for n different responses."""
        return 2 * (n - 1) if self.tournament == "knockout" else n * (n - 1)

    async def _compare(self, prompt: Prompt, responses: list[str]) -> dict[str, Score]:
        tallies = {text: _Tally() for text in responses}
        if self.tournament == "knockout":
            return await self._knockout(prompt, responses, tallies)
        pairs = combinations(responses, 2)
        await concurrency.gather(*(self._meet(prompt, a, b, tallies) for a, b in pairs))
        return {text: tally.score() for text, tally in tallies.items()}

    async def _knockout(
        self, prompt: Prompt, responses: list[str], tallies: Mapping[str, _Tally]
    ) -> dict[str, Score]:
        rng = random_for("judge lots", self.seed, prompt)
        survived = dict.fromkeys(responses, 0)
        by_lot = dict[str, str]()  # from who is out to who plays on
        left = responses
        while len(left) > 1:
            odd = len(left) % 2  # the first one then plays on
            pairs = list(zip(left[odd::2], left[odd + 1 :: 2], strict=True))
            outcomes = await concurrency.gather(
                *(self._meet(prompt, a, b, tallies) for a, b in pairs)
            )
            left = left[:odd]
            for pair, outcome in zip(pairs, outcomes, strict=True):
                if outcome in (0, 1):
                    left.append(pair[0] if outcome else pair[1])
                else:
                    winner, loser = rng.sample(pair, 2)
                    by_lot[loser] = winner
                    left.append(winner)
            for text in left:
                survived[text] += 1
        scores = {}
        for text, tally in tallies.items():
            stands_for = text
            while stands_for in by_lot:
                stands_for = by_lot[stands_for]
            value = float(survived[stands_for])
            scores[text] = tally.score(value)
            if tallies[stands_for].outcomes and not tally.outcomes:
                scores[text].value, scores[text].reason = value, None
            if text in by_lot or text in by_lot.values():
                scores[text].flags.append("by_lot")
        return scores

    async def _meet(
        self, prompt: Prompt, a: str, b: str, tallies: Mapping[str, _Tally]
    ) -> float | None:
        """Whether a is better than b: 1, 0, or 0.5 where the two orders disagree."""
        verdicts = await concurrency.gather(
            self._ask(prompt, BETTER, response1=a, response2=b),
            self._ask(prompt, BETTER, response1=b, response2=a),
        )
        for shown_first, verdict in zip((a, b), verdicts, strict=True):
            tally = tallies[shown_first]
            tally.add_call(verdict)
            if verdict.value is not None:
                tally.counts["second" if verdict.value else "first"] += 1
        one, other = (verdict.value for verdict in verdicts)
        outcome = None if one is None or other is None else (1 - one + other) / 2
        tallies[a].counts["pairs"] += 1
        tallies[a].counts["split"] += outcome == 0.5
        tallies[a].add_outcome(outcome, *verdicts)
        tallies[b].add_outcome(None if outcome is None else 1 - outcome, *verdicts)
        return outcome


class ListwiseJudge(_SetwiseJudge):
    """Which of all responses is the best, asked once for each of some orders.

    The value is the share of the readable orders in which a response was picked: 1 for one and 0
    for the others with a single order. `Score.counts` has the place in which it stood each time,
    as "place_1" and so on: a judge without position bias picks each place equally often.

    Args:
        engine: The judge.
        orders: How often the responses are shuffled and shown.
        template: "listwise", a YAML file, or a folder with the paper's files; see
            `load_judge_template`.
        temperature: Of the answers.
        max_tokens: Of one answer, reasoning included.
        seed: Of orders and sampled answers, together with the prompt.
        name: Of the scores on a candidate.

    Source: the listwise baseline of arXiv 2602.13551.
    """

    kind = "listwise"

    def __init__(
        self,
        engine: Engine,
        *,
        orders: int = 1,
        template: str | Path = "listwise",
        temperature: float = 0.0,
        max_tokens: int = 512,
        seed: int = 0,
        name: str = "listwise",
    ) -> None:
        if orders < 1:
            raise ConfigError(f"orders must be at least 1, not {orders}")
        super().__init__(engine, template, temperature, max_tokens, seed, name)
        self.orders = orders

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"orders": self.orders}

    def calls(self, n: int) -> int:
        """Calls of the judge for n different responses."""
        return self.orders if n > 1 else 0

    async def _compare(self, prompt: Prompt, responses: list[str]) -> dict[str, Score]:
        rng = random_for("judge lists", self.seed, prompt)
        shown = [rng.sample(responses, len(responses)) for _ in range(self.orders)]
        form = _numbered(self.template.first_number, len(responses))
        verdicts = await concurrency.gather(
            *(
                self._ask(prompt, form, k, response_list=self.template.listed(order))
                for k, order in enumerate(shown)
            )
        )
        tallies = {text: _Tally() for text in responses}
        for order, verdict in zip(shown, verdicts, strict=True):
            tallies[order[0]].add_call(verdict)
            place = verdict.value
            for position, text in enumerate(order):
                outcome = None if place is None else float(position == place)
                tallies[text].add_outcome(outcome, verdict)
            if place is not None:
                tallies[order[int(place)]].counts[f"place_{int(place) + 1}"] += 1
        return {text: tally.score() for text, tally in tallies.items()}
