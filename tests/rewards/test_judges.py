"""Judges by an engine whose verdicts are scripted, and on the embedded model."""

import json
import re
from collections.abc import Callable, Sequence
from math import isnan, log
from pathlib import Path
from typing import Any

import pytest
from fakes import ScriptedEngine, scores_of
from hypothesis import given
from hypothesis import strategies as st

from bestofn.engines.base import TokenScores
from bestofn.engines.hf import TransformersEngine
from bestofn.errors import ConfigError, ContextLengthError, EngineError
from bestofn.prompts import as_prompt
from bestofn.rewards.judges import ListwiseJudge, PairwiseJudge, PointwiseJudge
from bestofn.rewards.templates import load_judge_template
from bestofn.scoring import RewardModel
from bestofn.types import Candidate, Prompt, Score, Usage

ASKED = as_prompt("Which is best?")
NUMBERED = re.compile(r"\[(\d+)\]\n(.*)")


def candidates(*texts: str) -> list[Candidate]:
    return [Candidate(index, text) for index, text in enumerate(texts)]


def scored(judge: RewardModel, *texts: str, prompt: Prompt = ASKED) -> list[Score]:
    return scores_of(judge, candidates(*texts), prompt)


def values(scores: Sequence[Score]) -> list[float]:
    return [score.value for score in scores]


def total(scores: Sequence[Score], name: str) -> int:
    return sum(score.counts.get(name, 0) for score in scores)


def answers(field: str, say: Callable[[str], object]) -> ScriptedEngine:
    """A judge whose verdict is a function of the question's text."""

    def answer(prompt: Prompt, *_: object) -> str:
        return json.dumps({"reasoning": "It is so.", field: say(prompt.messages[-1].content)})

    return ScriptedEngine(answer)


def shown_pair(question: str) -> tuple[str, str]:
    first = question.split("Answer A:\n")[1].split("\n\n")[0]
    return first, question.split("Answer B:\n")[1].split("\n\n")[0]


def longer(question: str) -> str:
    first, second = shown_pair(question)
    return "A" if len(first) >= len(second) else "B"


def longest(question: str) -> int:
    shown = NUMBERED.findall(question)
    return int(max(shown, key=lambda item: len(item[1]))[0])


# --- verdicts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ({"score": 7}, 7),
        ({"score": "7"}, 7),
        ({"score": 7.5}, 7.5),
        ({"score": "8/10"}, 8),
        ({"SCORE": "9 out of 10"}, 9),
        ({"score": "**10**"}, 10),
        ({"score": [3]}, 3),
    ],
)
def test_a_grade_is_read(said: object, value: float) -> None:
    assert values(scored(PointwiseJudge(ScriptedEngine(json.dumps(said))), "x")) == [value]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ('{"score": 0}', "parse: not a number from 1 to 10"),
        ('{"score": -5}', "parse: not a number from 1 to 10"),
        ('{"score": 11}', "parse: not a number from 1 to 10"),
        ('{"score": "good"}', "parse: not a number from 1 to 10"),
        ('{"score": true}', "parse: wrong_type"),
        ('{"score": null}', "parse: wrong_type"),
        ('{"grade": 5}', "parse: missing_field"),
        ("Five.", "parse: no_json"),
        ("", "parse: empty"),
        (EngineError("it broke"), "engine: it broke"),
        (ContextLengthError(9, 8, 7), "too long: the prompt needs 9 tokens"),
    ],
)
def test_what_is_no_grade_has_a_reason(said: str | Exception, reason: str) -> None:
    (score,) = scored(PointwiseJudge(ScriptedEngine(lambda *_: said)), "x")
    assert isnan(score.value)
    assert score.reason is not None
    assert score.reason.startswith(reason)
    assert score.counts == {"calls": 1, "unreadable": 1}


@pytest.mark.parametrize(
    ("judge", "field", "said", "read"),
    [
        (PairwiseJudge, "better", ["A", "[[A]]", "answer a."], "first"),
        (PairwiseJudge, "better", ["b", "Response B"], "second"),
        (PairwiseJudge, "better", ["C", "AB", "both", "A or B", 1], "parse: not A or B"),
        (ListwiseJudge, "best", [1, "1.0", "[1]", "Response 1"], "place_1"),
        (ListwiseJudge, "best", [0, 5, "none", 2.5], "parse: not a number from 1 to 2"),
    ],
)
def test_a_choice_is_read_or_fails(judge: type, field: str, said: list[object], read: str) -> None:
    for verdict in said:
        scores = scored(judge(answers(field, lambda _, verdict=verdict: verdict)), "x", "y")
        failed = read.startswith("parse")
        assert [score.reason for score in scores] == [read if failed else None] * 2
        assert total(scores, "unreadable" if failed else read) == total(scores, "calls")


def test_samples_are_averaged_over_those_that_can_be_read() -> None:
    said = iter(["4", "no grade", "8"])
    engine = answers("score", lambda _: next(said))
    (score,) = scored(PointwiseJudge(engine, samples=3, temperature=1.0), "x")
    assert score.value == 6
    assert score.counts == {"calls": 3, "unreadable": 1}
    assert len({*engine.seeds}) == 3


# --- comparing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("tournament", ["knockout", "round-robin"])
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=9))
def test_pairwise_finds_the_best_in_the_stated_number_of_calls(
    tournament: str, lengths: list[int]
) -> None:
    judge = PairwiseJudge(answers("better", longer), tournament=tournament)  # type: ignore[arg-type]
    texts = ["x" * length for length in lengths]
    scores = scored(judge, *texts)
    if tournament == "round-robin" and {*texts} == {"x", "xx", "xxx"}:
        assert {*values(scores)} == {0, 0.5, 1}
    assert values(scores).index(max(values(scores))) == texts.index(max(texts, key=len))
    different = len({*texts})
    pairs = different - 1 if tournament == "knockout" else different * (different - 1) // 2
    assert total(scores, "calls") == 2 * pairs
    if different > 1:
        assert total(scores, "first") == total(scores, "second") == total(scores, "pairs")


@pytest.mark.parametrize("tournament", ["knockout", "round-robin"])
@pytest.mark.parametrize("n", [2, 3, 4, 7])
def test_a_judge_that_always_says_a_makes_all_equal(tournament: str, n: int) -> None:
    judge = PairwiseJudge(answers("better", lambda _: "A"), tournament=tournament)  # type: ignore[arg-type]
    scores = scored(judge, *(f"answer {k}" for k in range(n)))
    assert len({*values(scores)}) == 1
    assert total(scores, "first") == total(scores, "calls")
    assert total(scores, "split") == total(scores, "pairs")


@pytest.mark.parametrize("verdict", ["A", "?"])
def test_chance_makes_no_winner(verdict: str) -> None:
    """Two that a judge cannot tell apart stay equal, whatever comes after."""

    def cannot_tell(question: str) -> str:
        return verdict if {*shown_pair(question)} == {"xxx", "yyy"} else longer(question)

    for seed in range(8):
        judge = PairwiseJudge(answers("better", cannot_tell), seed=seed)
        scores = scored(judge, "xxx", "yyy", "a", "bb")
        assert values(scores[:2]) == [2, 2]
        assert all(score.value < 2 for score in scores[2:])
        assert all("by_lot" in score.flags for score in scores[:2])


def test_listwise_picks_one_wherever_it_stands() -> None:
    for seed in range(10):
        judge = ListwiseJudge(answers("best", longest), seed=seed)
        scores = scored(judge, "x", "xxxx", "xx", "xxx")
        assert values(scores) == [0, 1, 0, 0]
        assert total(scores, "calls") == 1


def test_listwise_orders_are_votes() -> None:
    judge = ListwiseJudge(answers("best", lambda _: 1), orders=40)
    scores = scored(judge, "x", "y", "z")
    assert sum(values(scores)) == pytest.approx(1)
    assert total(scores, "place_1") == 40
    assert all(value > 0 for value in values(scores))


@pytest.mark.parametrize(
    "judge",
    [
        PairwiseJudge(answers("better", longer)),
        ListwiseJudge(answers("best", longest)),
        PointwiseJudge(answers("score", lambda question: min(10, len(question) % 11 + 1))),
    ],
)
def test_what_cannot_be_judged_is_left_out_and_named(judge: RewardModel) -> None:
    drawn = [
        Candidate(0, "", finish_reason="error", error="it broke"),
        Candidate(1, "  "),
        Candidate(2, "xx"),
        Candidate(3, "xxx"),
        Candidate(4, "xx"),
    ]
    scores = scores_of(judge, drawn, ASKED)
    assert [score.reason for score in scores[:2]] == ["no response: it broke", "empty response"]
    assert scores[2].value == scores[4].value
    if not judge.pointwise:
        assert scores_of(judge, drawn[:3], ASKED)[2].flags == ["not_compared"]
        assert scores[3].value > scores[2].value
        assert scores[4].counts == {}
        assert scores[4].usage == Usage()


# --- templates ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pointwise", "pairwise", "listwise"])
def test_the_request_comes_first(kind: str) -> None:
    template = load_judge_template(kind, kind)  # type: ignore[arg-type]
    texts = {"response": "R1", "response1": "R1", "response2": "R2", "response_list": "R1"}
    question = template.fill(prompt="{braces} are data", **texts).messages[-1].content
    assert question.index("{braces} are data") < question.index("R1")
    assert '{"reasoning"' in template.fill(prompt="", **texts).messages[0].content


def test_a_conversation_is_shown_whole() -> None:
    engine = ScriptedEngine('{"score": 5}')
    turns = [("system", "Be brief."), ("user", "Hi."), ("assistant", "Hello."), ("user", "Well?")]
    talk = as_prompt([{"role": role, "content": text} for role, text in turns])
    scored(PointwiseJudge(engine), "Fine.", prompt=talk)
    question = engine.generated[0].messages[-1].content
    assert "System: Be brief.\n\nUser: Hi.\n\nAssistant: Hello.\n\nUser: Well?" in question


def test_the_answer_may_be_held_to_a_schema() -> None:
    schemas: list[object] = []

    def answer(prompt: Prompt, params: object, seed: int | None) -> str:
        schemas.append(params.json_schema["properties"])  # type: ignore[attr-defined]
        return "{}"

    scored(PointwiseJudge(ScriptedEngine(answer)), "x")
    scored(PairwiseJudge(ScriptedEngine(answer)), "x", "y")
    scored(ListwiseJudge(ScriptedEngine(answer)), "x", "y", "z")
    reasoning = {"type": "string"}
    assert schemas == [
        {"reasoning": reasoning, "score": {"type": "integer", "minimum": 1, "maximum": 10}},
        {"reasoning": reasoning, "better": {"enum": ["A", "B"]}},
        {"reasoning": reasoning, "better": {"enum": ["A", "B"]}},
        {"reasoning": reasoning, "best": {"type": "integer", "minimum": 1, "maximum": 3}},
    ]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda e: PointwiseJudge(e, samples=0), "samples"),
        (lambda e: PointwiseJudge(e, samples=2), "temperature"),
        (lambda e: PairwiseJudge(e, tournament="swiss"), "tournament"),
        (lambda e: ListwiseJudge(e, orders=0), "orders"),
    ],
)
def test_options_are_checked(make: Callable[[ScriptedEngine], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(ScriptedEngine())


# --- verdicts from probabilities ------------------------------------------------------------------


class Probable(ScriptedEngine):
    """Answers with these probabilities, one token a character as where digits are split."""

    def __init__(self, say: Callable[[str], dict[str, float]]) -> None:
        super().__init__()
        self.say = say

    async def first_tokens(self, prompt: Prompt, answers: Sequence[str]) -> TokenScores:
        shares = self.say(prompt.messages[-1].content)
        firsts = [answer[0] for answer in answers]
        sums = [sum(p for text, p in shares.items() if text[0] == first) for first in firsts]
        logprobs = list(map(log, sums))
        usage = Usage(prompt_tokens=10, scored_tokens=1)
        return TokenScores([ord(first) for first in firsts], logprobs, usage, complete=False)

    async def loglikelihood(self, prompt: Prompt, continuation: str, **_: Any) -> TokenScores:
        share = self.say(prompt.messages[-1].content)[continuation]
        ids = [ord(character) for character in continuation]
        return TokenScores(ids, [log(share) / len(ids)] * len(ids), Usage(scored_tokens=len(ids)))


def test_the_grade_is_what_the_probabilities_expect() -> None:
    shares = {str(grade): 0.01 for grade in range(1, 11)} | {"1": 0.2, "8": 0.3, "10": 0.1}
    (score,) = scored(PointwiseJudge(Probable(lambda _: shares), verdict="logits"), "an answer")
    total = sum(shares.values())
    expected = sum(int(grade) * share for grade, share in shares.items()) / total
    assert score.value == pytest.approx(expected)
    assert score.counts == {"calls": 1}
    assert score.flags == []


def test_yes_is_the_log_odds() -> None:
    judge = PointwiseJudge(
        Probable(lambda _: {"Yes": 0.06, "No": 0.02}), verdict="logits", template="yes"
    )
    (score,) = scored(judge, "an answer")
    assert score.value == pytest.approx(log(3))
    assert score.flags == ["unlikely_answers"]


@pytest.mark.parametrize("tournament", ["knockout", "round-robin"])
def test_a_pair_is_read_in_both_orders(tournament: Any) -> None:
    def say(question: str) -> dict[str, float]:
        first, second = shown_pair(question)
        odds = 3 * len(first) / len(second)  # and a taste for the first place
        return {"A": odds / (1 + odds), "B": 1 / (1 + odds)}

    judge = PairwiseJudge(Probable(say), verdict="logits", tournament=tournament)
    texts = ["a", "bbb", "cc", "dddd"]
    scores = scored(judge, *texts)
    assert max(zip(values(scores), texts, strict=True))[1] == "dddd"
    assert total(scores, "unreadable") == 0
    if tournament == "round-robin":
        assert sorted(values(scores)) == [scores[i].value for i in (0, 2, 1, 3)]
        assert sum(values(scores)) == pytest.approx(len(texts) / 2)  # each pair gives one in all


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        (["1", "2", "3"], "are two words, not numbers"),
        (["A", "A"], "two different words"),
        (["A", "B", "C"], "two different words"),
        (["A"], "two different words"),
    ],
)
def test_answers_that_make_no_sense(answers: list[str], sentence: str, tmp_path: Path) -> None:
    places = "{prompt} {response1} {response2}"
    (tmp_path / "own.yaml").write_text(
        json.dumps({"system": "Choose.", "user": places, "answers": answers})
    )
    with pytest.raises(ConfigError, match=sentence):
        PairwiseJudge(ScriptedEngine(), verdict="logits", template=tmp_path / "own.yaml")


def test_a_taste_for_a_place_splits_pairs_and_improbable_answers_are_flagged() -> None:
    judge = PairwiseJudge(Probable(lambda _: {"A": 0.05, "B": 0.01}), verdict="logits")
    scores = scored(judge, "an answer", "another")
    assert total(scores, "split") == 1
    assert total(scores, "first") == 2
    assert all("unlikely_answers" in score.flags for score in scores)


def test_what_goes_wrong_with_a_forward_pass_is_a_failed_verdict() -> None:
    def fail(_: str) -> dict[str, float]:
        raise EngineError("it broke")

    (score,) = scored(PointwiseJudge(Probable(fail), verdict="logits"), "an answer")
    assert isnan(score.value)
    assert score.reason == "engine: it broke"


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda e: ListwiseJudge(e, verdict="logits"), "a listwise judge has no"),
        (lambda e: PointwiseJudge(e, verdict="words"), "verdict must be"),
        (lambda e: PointwiseJudge(e, verdict="logits", temperature=1.0), "draws nothing"),
        (lambda e: PointwiseJudge(e, verdict="logits", max_tokens=9), "draws nothing"),
        (lambda e: PointwiseJudge(e, template="grade"), "goes with a template that has `answers`"),
        (
            lambda e: PointwiseJudge(e, verdict="logits", template="pointwise"),
            "goes with a template that has `answers`",
        ),
    ],
)
def test_verdicts_that_make_no_sense(make: Callable[[Any], Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        make(ScriptedEngine())


def test_logits_on_the_embedded_model(tiny: TransformersEngine) -> None:
    scores = [
        *scored(PointwiseJudge(tiny, verdict="logits"), "fig, peach", "Tuesday"),
        *scored(PointwiseJudge(tiny, verdict="logits", template="yes"), "fig, peach"),
        *scored(PairwiseJudge(tiny, verdict="logits"), "fig, peach", "Tuesday"),
    ]
    assert all(score.reason is None for score in scores)
    assert all(1 <= score.value <= 10 for score in scores[:2])


def test_the_way_to_a_verdict_is_part_of_the_identity() -> None:
    written = PointwiseJudge(ScriptedEngine()).identity()
    read = PointwiseJudge(ScriptedEngine(), verdict="logits").identity()
    assert "verdict" not in written
    assert read["verdict"] == "logits"
