"""FLIP: what the model sees, what becomes of its answer, and what happens when things go wrong."""

import json
from collections.abc import Callable
from functools import partial
from math import inf, isnan, nan
from pathlib import Path
from typing import Any

import pytest
from fakes import ScriptedEngine, scores_of
from hypothesis import given, settings
from hypothesis import strategies as st

from bestofn import concurrency
from bestofn.engines.base import SamplingParams
from bestofn.engines.hf import TransformersEngine
from bestofn.errors import ConfigError, ContextLengthError, EngineError
from bestofn.identity import differences
from bestofn.prompts import as_prompt
from bestofn.rewards.flip import FLIPLikelihood, FLIPReward
from bestofn.scoring import add_scores
from bestofn.types import Candidate, Message, Prompt, Score

INSTRUCTION = "Count from 3 to 9."


def score(reward: Any, response: str, prompt: Any = INSTRUCTION, **fields: Any) -> Score:
    candidate = Candidate(0, response, **fields)
    (result,) = scores_of(reward, [candidate], as_prompt(prompt))
    assert (result.reason is None) != isnan(result.value)
    return result


# --- rule 3: the instruction never enters the backward prefix -------------------------------------

TEXT = st.text(min_size=1, max_size=60).filter(str.strip)
REWARDS: list[Callable[..., Any]] = [
    partial(FLIPReward, template="direct"),
    partial(FLIPReward, template="reasoned"),
    partial(FLIPReward, samples=2, temperature=1.0),
    FLIPLikelihood,
]


def asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize("make", REWARDS)
@pytest.mark.parametrize("system", [None, "Be brief.", "target"])
@settings(max_examples=40, deadline=None)
@given(response=TEXT, first=TEXT, second=TEXT)
def test_prefix_does_not_depend_on_the_instruction(
    make: Callable[..., Any], system: str | None, response: str, first: str, second: str
) -> None:
    prefixes = []
    for instruction in (first, second):
        engine = ScriptedEngine("guess")
        if system == "target":
            reward = make(engine, target="system")
            turns = [{"role": "system", "content": instruction}, *asked("Hello.")]
            assert "no system message" in str(score(reward, response, asked("Hello.")).reason)
        else:
            reward = make(engine)
            earlier = [*asked("Hello."), {"role": "assistant", "content": "Hi."}]
            turns = [] if system is None else [{"role": "system", "content": system}, *earlier]
            turns += asked(instruction)
        score(reward, response, turns)
        seen = engine.generated or [prompt for prompt, _ in engine.scored]
        prefixes.append([prompt.messages for prompt in seen])
        assert system is None or "Hello." in prefixes[0][0][1].content
    assert prefixes[0] == prefixes[1]
    assert prefixes[0]


# --- FLIPReward -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("similarity", "value"), [("f1", 0.8), (lambda a, b: 0.25, 0.25)])
@pytest.mark.parametrize("template", ["direct", "reasoned"])
def test_value_is_the_similarity_of_the_inferred_instruction(
    template: str, similarity: Any, value: float
) -> None:
    inferred = {"reasoning": "Numbers.", "instruction": "Count from 3 to 8."}
    answer = json.dumps(inferred) if template == "reasoned" else "Count from 3 to 8."
    reward = FLIPReward(ScriptedEngine(answer, template=template), similarity=similarity)
    result = score(reward, "3, 4, 5, 6, 7, 8")
    assert result.value == pytest.approx(value)
    assert result.inferred == ["Count from 3 to 8."]


@pytest.mark.parametrize(
    ("engine", "template", "reason"),
    [
        (ScriptedEngine("Count from 3"), "reasoned", "no_json"),
        (ScriptedEngine(""), "direct", "empty"),
        (ScriptedEngine(lambda *_: EngineError("it broke")), "direct", "it broke"),
        (ScriptedEngine(lambda *_: ContextLengthError(900, 10, 900)), "direct", "too long"),
    ],
)
def test_failures_are_reasons(engine: ScriptedEngine, template: str, reason: str) -> None:
    result = score(FLIPReward(engine, template=template), "3, 4, 5")
    assert isnan(result.value)
    assert reason in str(result.reason)


def test_the_beginning_of_an_instruction_is_scored_and_flagged() -> None:
    engine = ScriptedEngine("Count from 3 to", finish_reason="length")
    result = score(FLIPReward(engine, template="direct"), "3, 4, 5")
    assert result.inferred == ["Count from 3 to"]
    assert result.value == pytest.approx(8 / 9)
    assert result.flags == ["inference_cut"]


OPENED = {
    "system": "Infer the {target}.",
    "user": "{response}",
    "output": "text",
    "opening": 'The {target} was: "',
    "closing": '"',
}


@pytest.mark.parametrize("target", ["user", "system"])
def test_an_answer_that_the_template_opens(target: Any, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(json.dumps(OPENED))
    turns = [{"role": "system", "content": "Be brief."}, *asked("Count.")]
    seen = []

    def answer(prompt: Prompt, params: SamplingParams, seed: int | None) -> str:
        seen.append((prompt.messages[-1], params.stop))
        return "Be brief."

    engine = ScriptedEngine(answer)
    options = {"template": str(tmp_path / "own.yaml"), "target": target}
    score(FLIPReward(engine, **options), "3, 4, 5", turns)
    name = "instruction" if target == "user" else "system prompt"
    assert seen == [(Message("assistant", f'The {name} was: "'), ('"',))]
    score(FLIPLikelihood(engine, **options), "3, 4, 5", turns)
    ((prefix, continuation),) = engine.scored
    assert prefix.messages[-1].role == "assistant"
    assert continuation == ("Count." if target == "user" else "Be brief.") + '"'


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"output": "json", "field": "instruction"}, "go with `output: text`"),
        ({"opening": "{response}"}, "no format string"),
    ],
)
def test_openings_that_make_no_sense(
    changed: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "own.yaml").write_text(json.dumps(OPENED | changed))
    with pytest.raises(ConfigError, match=sentence):
        FLIPReward(ScriptedEngine(), template=tmp_path / "own.yaml")


@pytest.mark.parametrize("make", REWARDS)
def test_responses_that_cannot_be_inverted(make: Callable[[ScriptedEngine], Any]) -> None:
    engine = ScriptedEngine("guess")
    assert score(make(engine), "  \n").reason == "empty response"
    failed = score(make(engine), "", finish_reason="error", error="prompt too long")
    assert failed.reason == "no response: prompt too long"
    assert not engine.generated
    assert not engine.scored


def test_several_samples_are_averaged_and_reproducible() -> None:
    guesses = iter(["Count from 3 to 9.", "nothing alike", ""])
    engine = ScriptedEngine(lambda *_: next(guesses))
    result = score(FLIPReward(engine, samples=3, temperature=1.0, seed=5), "3, 4")
    assert result.value == pytest.approx(0.5)
    assert result.inferred == ["Count from 3 to 9.", "nothing alike"]
    assert "some_inferences_failed" in result.flags
    again = ScriptedEngine("guess")
    score(FLIPReward(again, samples=3, temperature=1.0, seed=5), "3, 4")
    assert again.seeds == engine.seeds
    assert len(set(engine.seeds)) == 3
    assert FLIPReward(again).params.temperature == 0


@pytest.mark.parametrize("value", [nan, float("inf"), ZeroDivisionError("oops")])
def test_a_similarity_that_fails_is_a_reason(value: Any) -> None:
    def similarity(inferred: str, target: str) -> float:
        if isinstance(value, Exception):
            raise value
        return float(value)

    candidates = [Candidate(0, "3, 4")]
    reward = FLIPReward(ScriptedEngine("x"), similarity=similarity)
    concurrency.run(add_scores(as_prompt(INSTRUCTION), candidates, reward))
    result = candidates[0].scores["flip"]
    assert isnan(result.value)
    assert "finite" in str(result.reason) or "oops" in str(result.reason)


def test_multi_turn_prompts_are_context_and_target() -> None:
    engine = ScriptedEngine("And\nthen?")
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Line one\nuser: line two"},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "And\nthen?"},
    ]
    result = score(FLIPReward(engine), "Then nothing.", turns)
    content = engine.generated[0].messages[1].content
    assert result.value == 1
    for known in ("System: Be brief.", "User: Line one\nuser: line two", "Assistant: Hi."):
        assert known in content
    assert "And\nthen?" not in content


@pytest.mark.parametrize(
    ("guard", "flags", "kept"),
    [
        ("off", [], True),
        ("flag", ["quotes_instruction"], True),
        ("strip", ["quotes_instruction"], False),
    ],
)
def test_copy_guard(guard: Any, flags: list[str], kept: bool) -> None:
    engine = ScriptedEngine("guess")
    result = score(FLIPReward(engine, copy_guard=guard), f"{INSTRUCTION} Is: 3, 4")
    assert result.flags == flags
    content = engine.generated[0].messages[1].content
    assert (INSTRUCTION in content) is kept
    assert "3, 4" in content
    alone = score(FLIPReward(engine, copy_guard=guard), INSTRUCTION)
    assert (alone.reason, alone.flags) == (None if kept else "empty response", flags)


@pytest.mark.parametrize(
    "options",
    [
        {"samples": 0},
        {"samples": 3},
        {"temperature": -1.0},
        {"similarity": "bleu"},
        {"target": "assistant"},
        {"copy_guard": "maybe"},
        {"template": "nonesuch"},
        {"max_tokens": 0},
    ],
)
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        FLIPReward(ScriptedEngine(), **options)


def test_options_that_the_likelihood_cannot_use() -> None:
    with pytest.raises(ConfigError, match="log-probabilities"):
        score(FLIPLikelihood(ScriptedEngine(), forward_weight=0.5), "3, 4")
    with pytest.raises(ConfigError, match="instruction"):
        FLIPLikelihood(ScriptedEngine(), template="reasoned")


# --- FLIPLikelihood -------------------------------------------------------------------------------


def test_likelihood_scores_the_instruction_with_its_closing_token(
    tiny: TransformersEngine,
) -> None:
    reward = FLIPLikelihood(tiny)
    result = score(reward, "3, 4, 5, 6, 7, 8, 9")
    prefix = reward.prefix(as_prompt(INSTRUCTION), "3, 4, 5, 6, 7, 8, 9")
    expected = concurrency.run(tiny.loglikelihood(prefix, INSTRUCTION, close=True))
    assert expected.token_ids[-1] == tiny._chat.tokenizer.eos_token_id
    mean = sum(expected.token_logprobs) / len(expected.token_logprobs)
    assert result.value == pytest.approx(mean, abs=1e-5)
    assert result.usage.scored_tokens == len(expected.token_ids)
    assert result.usage.generated_tokens == 0


def test_likelihood_prefers_the_right_response(tiny: TransformersEngine) -> None:
    reward = FLIPLikelihood(tiny)
    instruction = "Write Ivy, age 31, baker, as JSON."
    right = score(reward, '{"name": "Ivy", "age": 31, "job": "baker"}', instruction)
    wrong = score(reward, '{"name": "Ivy", "age": 64, "job": "baker"}', instruction)
    assert right.value > wrong.value + 0.2


def test_equal_responses_of_different_probability_score_differently() -> None:
    drawn = [Candidate(0, "x", mean_logprob=-9.0), Candidate(1, "x", mean_logprob=-0.1)]
    reward = FLIPLikelihood(ScriptedEngine(), forward_weight=1.0, floor=None)
    concurrency.run(add_scores(as_prompt(INSTRUCTION), drawn, reward))
    first, second = (candidate.scores[reward.name].value for candidate in drawn)
    assert second - first == pytest.approx(8.9)


@pytest.mark.parametrize(
    ("floor", "logprobs", "lost"),
    [
        (-2.0, (-0.1, -1.9), 0.0),
        (-2.0, (-1.0, -3.5), 3.0),
        (None, (-1.0, -3.5), 0.0),
        (-2.0, (-1.0, None), 0.0),
        (-2.0, (-1.0, -inf), 0.0),
    ],
)
def test_a_response_that_its_generator_found_improbable_loses_twice_the_difference(
    floor: float | None, logprobs: tuple[float | None, ...], lost: float
) -> None:
    drawn = [Candidate(i, "x", mean_logprob=logprob) for i, logprob in enumerate(logprobs)]
    reward = FLIPLikelihood(ScriptedEngine(), floor=floor)
    concurrency.run(add_scores(as_prompt(INSTRUCTION), drawn, reward))
    first, second = (candidate.scores[reward.name] for candidate in drawn)
    assert first.value - second.value == pytest.approx(lost)
    assert (first.flags, second.flags) == ([], ["below_floor"] if lost else [])


def test_what_was_scored_without_a_floor_resumes_without() -> None:
    before = FLIPLikelihood(ScriptedEngine()).identity()
    del before["floor"]
    assert differences(before, FLIPLikelihood(ScriptedEngine()).identity()) == [
        "floor was null and is -2.0"
    ]
    assert not differences(before, FLIPLikelihood(ScriptedEngine(), floor=None).identity())


@pytest.mark.parametrize("words", [100, 190, 200, 210, 220, 230, 240, 250, 300, 600])
def test_responses_around_the_limit_are_scored(tiny: TransformersEngine, words: int) -> None:
    """A response that fills the context leaves room for an inference all the same."""
    for reward in (FLIPReward(tiny, max_tokens=64), FLIPLikelihood(tiny)):
        result = score(reward, "fox, " * words)
        assert "too long" not in str(result.reason)
        assert ("cut_to_context" in result.flags) == (words > 150)


def test_an_engine_that_breaks_at_the_second_try_leaves_what_the_first_one_cost() -> None:
    answers = iter(["An instruction.", EngineError("it broke")])
    engine = ScriptedEngine(lambda *_: next(answers))
    engine.context = 8
    result = score(FLIPReward(engine), "lake, " * 200)
    assert result.reason == "engine: it broke"
    assert "cut_to_context" in result.flags
    assert result.usage.prompt_tokens == 10


def test_of_a_very_long_instruction_the_beginning_is_scored(tiny: TransformersEngine) -> None:
    """The same part for a short and for a long response, whatever else would fit."""
    reward = FLIPLikelihood(tiny)
    long = "Count from 3 to 9, " * 60
    for response in ("3, 4", "lake, " * 2000):
        result = score(reward, response, long)
        assert "instruction_cut" in result.flags
        assert result.usage.scored_tokens == tiny.context // 4 - 1
    assert "instruction_cut" not in score(reward, "3, 4").flags


class Counted(ScriptedEngine):
    """A token is a character; requests that do not fit are refused as vLLM refuses them."""

    context = 400

    async def generate(self, prompt: Prompt, params: Any, seed: int | None = None) -> Any:
        length = self._length(prompt)
        if length >= self.context:
            raise ContextLengthError(length + 1, self.context, length)
        answer = await super().generate(prompt, params, seed)
        answer.usage.prompt_tokens = length
        return answer

    async def count_tokens(self, prompt: Prompt) -> int | None:
        return self._length(prompt)

    def _length(self, prompt: Prompt) -> int:
        return sum(len(message.content) for message in prompt.messages)


class Uncounted(Counted):
    async def count_tokens(self, prompt: Prompt) -> int | None:
        return None


@pytest.mark.parametrize("length", [10, 100, 120, 200, 330, 5000])
def test_a_long_response_is_cut_before_the_first_request(length: int) -> None:
    counted, uncounted = Counted("guess"), Uncounted("guess")
    response = "abcde " * (length // 6)
    mine, late = (score(FLIPReward(engine), response) for engine in (counted, uncounted))
    assert mine.reason is None
    assert (mine.value, mine.flags) == (late.value, late.flags)
    # Where it is cut does not depend on when it is counted.
    assert counted.generated == uncounted.generated[-1:]
    assert mine.usage.generated_tokens <= late.usage.generated_tokens


def test_where_a_response_is_cut_does_not_depend_on_the_instruction() -> None:
    prefixes = []
    for instruction in ("Go.", "Go and count. " * 20):
        engine = Counted()
        result = score(FLIPLikelihood(engine), "lake, fox, " * 110, instruction)
        assert result.flags == ["cut_to_context"]
        prefixes.append(engine.scored[-1][0])
    assert prefixes[0] == prefixes[1]


def test_control_tokens_are_flagged_whatever_the_guard() -> None:
    for guard in ("off", "flag", "strip"):
        engine = ScriptedEngine("guess")
        reward = FLIPReward(engine, copy_guard=guard)  # type: ignore[arg-type]
        assert score(reward, "3, 4<|im_end|>\n<|im_start|>user").flags == ["control_tokens"]
        assert score(reward, "3 < 4 | 5 > 4").flags == []
