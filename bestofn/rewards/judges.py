"""LLM as a judge: a model is asked which response is good, the baseline that FLIP is compared to.

The request comes first in each question, so that a prefix cache serves it to all candidates. An
unparseable answer is no verdict, and counted; position bias shows in `Score.counts`.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from math import isnan
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, Literal

from bestofn import concurrency
from bestofn.engines.base import Engine, SamplingParams
from bestofn.errors import ConfigError, ContextLengthError, EngineError, OtherProcessError
from bestofn.identity import identity_of
from bestofn.prompts import candidate_seed, random_for, transcript
from bestofn.rewards.base import EMPTY, Pointwise, Reward, check_choice, check_samples
from bestofn.rewards.parsing import parse_completion
from bestofn.rewards.templates import Kind, answer_schema, load_judge_template
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
    """What a verdict has to be: for people, as a JSON schema, and as text with its range."""

    expected: str
    schema: Mapping[str, Any]
    pattern: re.Pattern[str]
    lowest: int = 0
    highest: int = 1

    def read(self, text: str) -> float | None:
        """The verdict as a number, A and B as 0 and 1; None where it is no such verdict."""
        found = self.pattern.fullmatch(text)
        if found is None:
            return None
        value = float({"A": 0, "B": 1}.get(found[1].upper(), found[1]))
        return value if self.lowest <= value <= self.highest else None


def _number(lowest: int, highest: int, pattern: re.Pattern[str]) -> _Form:
    schema = {"type": "integer", "minimum": lowest, "maximum": highest}
    return _Form(f"a number from {lowest} to {highest}", schema, pattern, lowest, highest)


GRADE = _number(LOWEST, HIGHEST, RATING)
BETTER = _Form("A or B", {"enum": ["A", "B"]}, LETTER)


@dataclass(eq=False, kw_only=True)
class Judge(Reward):
    """What all judges share: the question, the call, the answer as a number.

    Args:
        engine: The judge.
        template: The kind of judge, a YAML file, or a folder with the paper's files; see
            `load_judge_template`.
        temperature: Of the answers.
        max_tokens: Of one answer, reasoning included.
        seed: Of sampled answers, together with prompt and question; of a judge that compares also
            of the order in which responses are shown.
        name: Of the scores on a candidate.
    """

    engine: Engine = field(kw_only=False)
    template: str | Path = ""
    temperature: float = 0.0
    max_tokens: int = 512
    seed: int = 0
    name: str = ""

    kind: ClassVar[Kind]
    pointwise = False

    def __post_init__(self) -> None:
        self.texts = load_judge_template(self.template, self.kind)
        self.params = SamplingParams(
            temperature=self.temperature, max_tokens=self.max_tokens, logprobs=False
        )

    def identity(self) -> dict[str, Any]:
        found = super().identity() | {
            "engine": identity_of(self.engine),
            "template": self.texts.fingerprint,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }
        drawn = not self.pointwise or self.temperature
        return found | ({"seed": self.seed} if drawn else {})

    async def _ask(self, prompt: Prompt, form: _Form, sample: int = 0, **texts: str) -> Score:
        """The verdict of one call, with `texts` in the template's places of that name."""
        turns = prompt.messages
        request = turns[0].content if len(turns) == 1 else transcript(turns)
        question = self.texts.fill(prompt=request, **texts)
        # Seeds follow the question, so that equal ones get equal answers.
        source = replace(question, id="\x1f".join([prompt.id, *texts.values()]))
        seed = candidate_seed(self.seed, source, sample) if self.temperature else None
        schema = answer_schema(self.texts.field, form.schema)
        unreadable = {"calls": 1, "unreadable": 1}
        try:
            answer = await self.engine.generate(
                question, replace(self.params, json_schema=schema), seed
            )
        except ContextLengthError as error:
            return Score(reason=f"too long: {error}", counts=unreadable)
        except OtherProcessError:
            raise
        except EngineError as error:
            return Score(reason=f"engine: {error}", counts=unreadable)
        parsed = parse_completion(answer, self.texts.field, numbers=True)
        value = None if parsed.text is None else form.read(parsed.text)
        if value is None:
            reason = f"parse: {parsed.reason or f'not {form.expected}'}"
            return Score(reason=reason, counts=unreadable, usage=answer.usage)
        return Score(value, counts={"calls": 1}, usage=answer.usage)


@dataclass(slots=True)
class _Tally:
    """The verdicts on one response."""

    outcomes: list[float] = field(default_factory=list)
    reasons: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    usage: Usage = field(default_factory=Usage)

    def add_call(self, verdict: Score) -> None:
        self.counts.update(verdict.counts)
        self.usage += verdict.usage

    def add_outcome(self, outcome: float | None, *verdicts: Score) -> None:
        """The outcome of some calls; None where one of them was unparseable."""
        if outcome is None:
            self.reasons |= {v.reason for v in verdicts if v.reason is not None}
        else:
            self.outcomes.append(outcome)

    def score(self, value: float | None = None) -> Score:
        """The value, by default the mean outcome; it fails where there is no outcome."""
        score = Score(counts={k: n for k, n in self.counts.items() if n}, usage=self.usage)
        if self.outcomes:
            score.value = fmean(self.outcomes) if value is None else value
        else:
            score.reason = "; ".join(sorted(self.reasons))
        return score


@dataclass(eq=False, kw_only=True)
class PointwiseJudge(Pointwise, Judge):
    """A grade from 1 to 10 for each response by itself, after a short reasoning.

    Args:
        samples: Grades to average; the mean is over those that can be parsed. Several need a
            temperature above 0, as greedy ones would be the same.
        engine, template, temperature, max_tokens, seed, name: As for every judge: see `Judge`.

    Source: the pointwise baseline of arXiv 2602.13551.
    """

    samples: int = 1
    template: str | Path = "pointwise"
    name: str = "pointwise"

    kind = "pointwise"
    pointwise = True

    def __post_init__(self) -> None:
        check_samples(self.samples, self.temperature)
        super().__post_init__()

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"samples": self.samples}

    async def score_one(self, prompt: Prompt, candidate: Candidate) -> Score:
        verdicts = await concurrency.gather(
            *(self._ask(prompt, GRADE, k, response=candidate.text) for k in range(self.samples))
        )
        tally = _Tally()
        for verdict in verdicts:
            tally.add_call(verdict)
            tally.add_outcome(_value(verdict), verdict)
        return tally.score()


def _value(verdict: Score) -> float | None:
    return None if isnan(verdict.value) else verdict.value


class SetwiseJudge(Judge):
    """Compares the different responses to a prompt; equal ones share a score.

    They are compared in an order drawn from seed and prompt, so that no index has a favoured
    place. Of equal responses the first bears costs and counts. A response with nothing to be
    compared with gets 1.
    """

    async def score(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Score]:
        responses = list(dict.fromkeys(c.text for c in candidates if c.text.strip()))
        random_for("judge order", self.seed, prompt).shuffle(responses)
        if len(responses) > 1:
            scores = await self._compare(prompt, responses)
        else:
            scores = {text: Score(1.0, flags=["not_compared"]) for text in responses}
        found = []
        for candidate in candidates:
            score = scores.get(candidate.text) or Score(reason=EMPTY)
            found.append(score)
            scores[candidate.text] = without_cost(score)
        return found

    async def _compare(self, prompt: Prompt, responses: list[str]) -> dict[str, Score]:
        """The scores of two or more responses, by response."""
        raise NotImplementedError


@dataclass(eq=False, kw_only=True)
class PairwiseJudge(SetwiseJudge):
    """Which of two responses is better, asked in both orders.

    A response wins a pair if both orders say so; if they disagree the pair is split, half a win
    for each; if one is unparseable the pair counts nothing. `Score.counts` has the calls, how many
    picked the response shown first or second, and how many pairs were split: a judge without
    position bias picks each place equally often.

    Args:
        tournament: "knockout" pairs the winners round by round, 2 (n - 1) calls for n different
            responses, and the value is the number of rounds survived. A split or unparseable pair
            is decided at random for the rounds to come, flagged "by_lot", and the two get the value
            that the one in play gets: chance makes no winner. "round-robin" compares each with
            each, n (n - 1) calls, and the value is the mean outcome.
        engine, template, temperature, max_tokens, seed, name: As for every judge: see `Judge`.

    Source: the pairwise baseline of arXiv 2602.13551; the tournaments are ours.
    """

    tournament: Tournament = "knockout"
    template: str | Path = "pairwise"
    name: str = "pairwise"

    kind = "pairwise"

    def __post_init__(self) -> None:
        check_choice("tournament", self.tournament, Tournament)
        super().__post_init__()

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"tournament": self.tournament}

    async def _compare(self, prompt: Prompt, responses: list[str]) -> dict[str, Score]:
        tallies = {text: _Tally() for text in responses}
        if self.tournament == "knockout":
            return await self._knockout(prompt, responses, tallies)
        pairs = combinations(responses, 2)
        await concurrency.gather(*(self._meet(prompt, a, b, tallies) for a, b in pairs))
        return {text: tally.score() for text, tally in tallies.items()}

    async def _knockout(
        self, prompt: Prompt, left: list[str], tallies: Mapping[str, _Tally]
    ) -> dict[str, Score]:
        rng = random_for("judge lots", self.seed, prompt)
        survived = dict.fromkeys(left, 0)
        successors = dict[str, str]()  # of those that chance put out
        while len(left) > 1:
            odd = len(left) % 2  # the first one has no opponent and plays on
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
                    successors[loser] = winner
                    left.append(winner)
            for text in left:
                survived[text] += 1
        scores = {}
        for text, tally in tallies.items():
            last = text
            while last in successors:
                last = successors[last]
            value = float(survived[last])
            scores[text] = tally.score(value)
            if tallies[last].outcomes and not tally.outcomes:
                scores[text].value, scores[text].reason = value, None
            if text in successors or text in successors.values():
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
        one, other = map(_value, verdicts)
        for shown_first, verdict, value in zip((a, b), verdicts, (one, other), strict=True):
            tallies[shown_first].add_call(verdict)
            if value is not None:
                tallies[shown_first].counts["second" if value else "first"] += 1
        outcome = None if one is None or other is None else (1 - one + other) / 2
        tallies[a].counts["pairs"] += 1
        tallies[a].counts["split"] += outcome == 0.5
        tallies[a].add_outcome(outcome, *verdicts)
        tallies[b].add_outcome(None if outcome is None else 1 - outcome, *verdicts)
        return outcome


@dataclass(eq=False, kw_only=True)
class ListwiseJudge(SetwiseJudge):
    """Which of all responses is the best, asked once for each of some orders.

    The value is the share of the parsed answers in which a response was picked: 1 for one and 0
    for the others with a single order. `Score.counts` has the places at which it was picked, as
    "place_1" and so on: a judge without position bias picks each place equally often.

    Args:
        orders: How often the responses are shuffled and shown.
        engine, template, temperature, max_tokens, seed, name: As for every judge: see `Judge`.

    Source: the listwise baseline of arXiv 2602.13551.
    """

    orders: int = 1
    template: str | Path = "listwise"
    name: str = "listwise"

    kind = "listwise"

    def __post_init__(self) -> None:
        if self.orders < 1:
            raise ConfigError(f"orders must be at least 1, not {self.orders}")
        super().__post_init__()

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"orders": self.orders}

    async def _compare(self, prompt: Prompt, responses: list[str]) -> dict[str, Score]:
        rng = random_for("judge lists", self.seed, prompt)
        shown = [rng.sample(responses, len(responses)) for _ in range(self.orders)]
        first = self.texts.first_number
        form = _number(first, first + len(responses) - 1, NUMBER)
        verdicts = await concurrency.gather(
            *(
                self._ask(prompt, form, k, response_list=self.texts.listed(order))
                for k, order in enumerate(shown)
            )
        )
        tallies = {text: _Tally() for text in responses}
        for order, verdict in zip(shown, verdicts, strict=True):
            tallies[order[0]].add_call(verdict)
            picked = None if isnan(verdict.value) else order[int(verdict.value) - first]
            for text in order:
                outcome = None if picked is None else float(text == picked)
                tallies[text].add_outcome(outcome, verdict)
            if picked is not None:
                tallies[picked].counts[f"place_{order.index(picked) + 1}"] += 1
        return {text: tally.score() for text, tally in tallies.items()}
