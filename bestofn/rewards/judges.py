"""LLM as a judge: a model is asked which response is good, the baseline that FLIP is compared to.

The request comes first in each question, so that a prefix cache serves it to all candidates. An
unparseable answer is no verdict, and counted; position bias shows in `Score.counts`.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from math import isnan, nan
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
from bestofn.rewards.verdicts import from_probabilities
from bestofn.scoring import without_cost
from bestofn.types import Candidate, Prompt, Score, Usage

Tournament = Literal["knockout", "round-robin"]
Verdict = Literal["text", "logits"]
READ_FROM_LOGITS = {"pointwise": "grade", "pairwise": "letter"}
"""The templates of judges whose verdict is not written but read from probabilities."""

LOWEST, HIGHEST = 1, 10
LETTERS = {"A": 0, "B": 1}
VERDICTS: dict[Kind, str] = {
    "pointwise": r"(\d+(?:\.\d+)?)(?:\s*(?:/|out of)\s*10)?",
    "pairwise": r"(?:(?:response|answer)\s+)?([AB])",
    "listwise": r"(?:(?:response|answer)\s+)?(\d+)(?:\.0)?",
}


@dataclass(eq=False, kw_only=True)
class Judge(Reward):
    """What all judges share. One that compares sees the different responses to a prompt.

    They are compared in an order drawn from seed and prompt, so that no index has a favoured
    place. Equal ones share a score, of which the first bears costs and counts. A response with
    nothing to be compared with gets 1.

    Args:
        engine: The judge.
        template: The kind of judge, which is the default, or a path; see `load_judge_template`.
            With `verdict="logits"` it is "grade", the default, or "yes" for a pointwise judge, and
            "letter" for a pairwise one.
        verdict: "text" lets the judge write a reasoning and a verdict. "logits" reads the verdict
            from the probabilities of what it could answer at once, by one forward pass: the
            expected grade, the log-odds of Yes against No, or how probable it is that the first
            response is the better one. It is readable unless the engine fails.
        temperature: Of the answers.
        max_tokens: Of one answer, reasoning included.
        seed: Of sampled answers, together with prompt and question; of a judge that compares also
            of the order in which responses are shown.
        name: Of the scores on a candidate, by default the kind of judge.
    """

    engine: Engine = field(kw_only=False)
    template: str | Path = ""
    verdict: Verdict = "text"
    temperature: float = 0.0
    max_tokens: int = 512
    seed: int = 0
    name: str = ""

    kind: ClassVar[Kind]
    pointwise = False

    def __post_init__(self) -> None:
        self.name = self.name or self.kind
        check_choice("verdict", self.verdict, Verdict)
        reads = self.verdict == "logits"
        usual = READ_FROM_LOGITS.get(self.kind) if reads else self.kind
        if usual is None:
            raise ConfigError(f"a {self.kind} judge has no verdict='logits'")
        self.texts = load_judge_template(self.template or usual, self.kind)
        if reads != bool(self.texts.answers):
            raise ConfigError(
                "verdict='logits' goes with a template that has `answers`, such as 'grade', and "
                f"'text' with one that has a `field`; {self.template!r} is of the other kind"
            )
        if reads and (self.temperature or self.max_tokens != Judge.max_tokens):
            raise ConfigError(
                "verdict='logits' draws nothing; leave out temperature and max_tokens"
            )
        if self.kind == "pairwise" and "".join(self.texts.answers).isdecimal():
            raise ConfigError("the `answers` of a pairwise judge are two words, not numbers")
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
        if self.verdict == "logits":
            found |= {"verdict": "logits"}
            del found["max_tokens"]
        drawn = not self.pointwise or self.temperature
        return found | ({"seed": self.seed} if drawn else {})

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

    async def _ask(
        self, prompt: Prompt, lowest: int, highest: int, sample: int = 0, **texts: str
    ) -> Score:
        """The verdict of one call, A and B as 0 and 1, with `texts` in the template's places."""
        turns = prompt.messages
        request = turns[0].content if len(turns) == 1 else transcript(turns)
        question = self.texts.fill(prompt=request, **texts)
        if self.texts.answers:
            return await from_probabilities(
                self.engine, question, self.texts.answers, as_share=self.kind == "pairwise"
            )
        # Seeds follow the question, so that equal ones get equal answers.
        source = replace(question, id="\x1f".join([prompt.id, *texts.values()]))
        seed = candidate_seed(self.seed, source, sample) if self.temperature else None
        assert self.texts.field is not None
        verdict: dict[str, Any] = {"type": "integer", "minimum": lowest, "maximum": highest}
        expected = f"a number from {lowest} to {highest}"
        if self.kind == "pairwise":
            verdict, expected = {"enum": [*LETTERS]}, "A or B"
        params = replace(self.params, json_schema=answer_schema(self.texts.field, verdict))
        score = Score(counts={"calls": 1, "unreadable": 1})
        try:
            answer = await self.engine.generate(question, params, seed)
        except OtherProcessError:
            raise
        except EngineError as error:
            cause = "too long" if isinstance(error, ContextLengthError) else "engine"
            score.reason = f"{cause}: {error}"
            return score
        score.usage = answer.usage
        parsed = parse_completion(answer, self.texts.field, numbers=True)
        found = re.fullmatch(
            rf"""[\s*\["'(#]*{VERDICTS[self.kind]}[\s*\]"').]*""", parsed.text or "", re.IGNORECASE
        )
        value = float(LETTERS.get(found[1].upper(), found[1])) if found else nan
        if lowest <= value <= highest:
            score.value, score.counts = value, {"calls": 1}
        else:
            score.reason = f"parse: {parsed.reason or f'not {expected}'}"
        return score


@dataclass(slots=True)
class _Tally:
    """The verdicts on one response; an outcome is NaN where a call for it was unparseable."""

    outcomes: list[float] = field(default_factory=list)
    reasons: set[str] = field(default_factory=set)
    flags: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    usage: Usage = field(default_factory=Usage)

    def add_call(self, verdict: Score) -> None:
        self.counts.update(verdict.counts)
        self.flags.update(verdict.flags)
        self.usage += verdict.usage

    def add_outcome(self, outcome: float, *verdicts: Score) -> None:
        if isnan(outcome):
            self.reasons |= {v.reason for v in verdicts if v.reason is not None}
        else:
            self.outcomes.append(outcome)

    def mean(self) -> Score:
        return self.score(fmean(self.outcomes) if self.outcomes else nan)

    def score(self, value: float) -> Score:
        reason = "; ".join(sorted(self.reasons)) if isnan(value) else None
        counts = {name: count for name, count in self.counts.items() if count}
        return Score(value, reason, flags=sorted(self.flags), counts=counts, usage=self.usage)


@dataclass(eq=False, kw_only=True)
class PointwiseJudge(Pointwise, Judge):
    """A grade from 1 to 10 for each response by itself: the pointwise baseline of arXiv 2602.13551.

    Args:
        samples: Grades to average; the mean is over those that can be parsed. Several need a
            temperature above 0, as greedy ones would be the same. The rest: see `Judge`.
    """

    samples: int = 1
    kind = "pointwise"
    pointwise = True
    settings = ("samples",)

    def __post_init__(self) -> None:
        check_samples(self.samples, self.temperature)
        super().__post_init__()

    async def score_one(self, prompt: Prompt, candidate: Candidate) -> Score:
        if self.verdict == "logits":
            return await self._ask(prompt, LOWEST, HIGHEST, response=candidate.text)
        tally = _Tally()
        calls = (
            self._ask(prompt, LOWEST, HIGHEST, sample, response=candidate.text)
            for sample in range(self.samples)
        )
        for verdict in await concurrency.gather(*calls):
            tally.add_call(verdict)
            tally.add_outcome(verdict.value, verdict)
        return tally.mean()


@dataclass(eq=False, kw_only=True)
class PairwiseJudge(Judge):
    """Which of two responses is better, asked in both orders, as in arXiv 2602.13551.

    A response wins a pair if both orders say so; if they disagree the pair is split, half a win
    for each; if one is unparseable the pair counts nothing. `Score.counts` has the calls, how many
    picked the response shown first or second, and how many pairs were split.

    Args:
        tournament: "knockout" pairs the winners round by round, 2 (n - 1) calls for n different
            responses, and the value is the number of rounds survived. A split or unparseable pair
            is decided at random for the rounds to come, flagged "by_lot", and the two get the value
            that the one in play gets: chance makes no winner. "round-robin" compares each with
            each, n (n - 1) calls, and the value is the mean outcome. The rest: see `Judge`.
    """

    tournament: Tournament = "knockout"
    kind = "pairwise"
    settings = ("tournament",)

    def __post_init__(self) -> None:
        check_choice("tournament", self.tournament, Tournament)
        super().__post_init__()

    async def _compare(self, prompt: Prompt, responses: list[str]) -> dict[str, Score]:
        tallies = {text: _Tally() for text in responses}
        if self.tournament == "round-robin":
            await self._meet(prompt, list(combinations(responses, 2)), tallies)
            return {text: tally.mean() for text, tally in tallies.items()}
        rng = random_for("judge lots", self.seed, prompt)
        left, survived = responses, Counter[str]()
        groups = {text: [text] for text in responses}  # with those that it put out by chance
        while len(left) > 1:
            odd = len(left) % 2  # the first one has no opponent and plays on
            pairs = list(zip(left[odd::2], left[odd + 1 :: 2], strict=True))
            left = left[:odd]
            for pair, outcome in zip(pairs, await self._meet(prompt, pairs, tallies), strict=True):
                winner, loser = pair if outcome > 0.5 else pair[::-1]
                if outcome == 0.5 or isnan(outcome):
                    winner, loser = rng.sample(pair, 2)
                    groups[winner] += groups.pop(loser)
                left.append(winner)
            survived.update(left)
        scores = {}
        for last, group in groups.items():
            for text in group:
                judged = tallies[last].outcomes or tallies[text].outcomes
                scores[text] = tallies[text].score(float(survived[last]) if judged else nan)
                scores[text].flags += ["by_lot"] if len(group) > 1 else []
        return scores

    async def _meet(
        self, prompt: Prompt, pairs: Sequence[tuple[str, str]], tallies: Mapping[str, _Tally]
    ) -> list[float]:
        """Of each pair how far the first is better: 1, 0, 0.5 for a split, NaN for no verdict."""
        shown = [order for a, b in pairs for order in ((a, b), (b, a))]
        verdicts = await concurrency.gather(
            *(self._ask(prompt, 0, 1, response1=one, response2=other) for one, other in shown)
        )
        for (first, _), verdict in zip(shown, verdicts, strict=True):
            tallies[first].add_call(verdict)
            if not isnan(verdict.value):
                tallies[first].counts["second" if verdict.value > 0.5 else "first"] += 1
        outcomes = []
        for (a, b), *both in zip(pairs, verdicts[::2], verdicts[1::2], strict=True):
            outcomes.append(outcome := (1 - both[0].value + both[1].value) / 2)
            tallies[a].counts["pairs"] += 1
            sides = [verdict.value > 0.5 for verdict in both if not isnan(verdict.value)]
            tallies[a].counts["split"] += len(sides) == 2 and sides[0] == sides[1]
            tallies[a].add_outcome(outcome, *both)
            tallies[b].add_outcome(1 - outcome, *both)
        return outcomes


@dataclass(eq=False, kw_only=True)
class ListwiseJudge(Judge):
    """Which of all responses is the best, asked in some orders, as in arXiv 2602.13551.

    The value is the share of the parsed answers in which a response was picked. `Score.counts` has
    the places at which it was picked, as "place_1" and so on.

    Args:
        orders: How often the responses are shuffled and shown. The rest: see `Judge`.
    """

    orders: int = 1
    kind = "listwise"
    settings = ("orders",)

    def __post_init__(self) -> None:
        if self.orders < 1:
            raise ConfigError(f"orders must be at least 1, not {self.orders}")
        super().__post_init__()

    async def _compare(self, prompt: Prompt, responses: list[str]) -> dict[str, Score]:
        rng = random_for("judge lists", self.seed, prompt)
        shown = [rng.sample(responses, len(responses)) for _ in range(self.orders)]
        first = self.texts.first_number
        verdicts = await concurrency.gather(
            *(
                self._ask(
                    prompt,
                    first,
                    first + len(responses) - 1,
                    sample,
                    response_list=self.texts.listed(order),
                )
                for sample, order in enumerate(shown)
            )
        )
        tallies = {text: _Tally() for text in responses}
        for order, verdict in zip(shown, verdicts, strict=True):
            tallies[order[0]].add_call(verdict)
            picked = None if isnan(verdict.value) else order[int(verdict.value) - first]
            for text in order:
                tallies[text].add_outcome(nan if picked is None else text == picked, verdict)
            if picked is not None:
                tallies[picked].counts[f"place_{order.index(picked) + 1}"] += 1
        return {text: tally.mean() for text, tally in tallies.items()}
