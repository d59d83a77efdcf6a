"""The reward function in every form of TRL's data, called as its trainer calls it."""

from math import nan
from typing import Any

import pytest
from fakes import Recorded, ScriptedEngine
from hypothesis import given
from hypothesis import strategies as st

from bestofn import FLIPReward
from bestofn.errors import EngineError
from bestofn.integrations.trl import flip_reward_func
from bestofn.rewards.baselines import Majority
from bestofn.rewards.gold import Gold
from bestofn.types import Candidate, Prompt, Score
from bestofn.verifiers import load_verifier


class Watched(Recorded):
    """Remembers the prompts and candidates as well."""

    def __init__(self, values: dict[str, float] | None = None, pointwise: bool = True) -> None:
        super().__init__(values, pointwise)
        self.seen: list[tuple[Prompt, Candidate]] = []

    async def score(self, prompt: Prompt, candidates: Any) -> list[Score]:
        self.seen += [(prompt, candidate) for candidate in candidates]
        return await super().score(prompt, candidates)


def said(text: str, **more: Any) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": text, **more}]


def asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


# --- forms ----------------------------------------------------------------------------------------


def test_texts_and_conversations_are_scored_alike() -> None:
    func = flip_reward_func(Recorded({"a": 0.25, "b": 0.5, "c": 1.0}))
    texts = func(["x", "x", "y"], ["a", "b", "c"])
    chats = func([asked("x"), asked("x"), asked("y")], [said("a"), said("b"), said("c")])
    assert texts == chats == [0.25, 0.5, 1.0]


def test_columns_come_along_and_what_the_trainer_adds_does_not() -> None:
    reward = Watched()
    flip_reward_func(reward)(
        prompts=["x", "x"],
        completions=["a", "b"],
        completion_ids=[[1], [2]],
        trainer_state=object(),
        environments=[object(), object()],
        answer=["7", "7"],
        weights=[[1.0, nan], [1.0, nan]],
    )
    assert [dict(prompt.columns) for prompt, _ in reward.seen] == [
        {"answer": "7", "weights": [1.0, None]}
    ] * 2


def test_a_verifier_reads_the_columns_of_its_row() -> None:
    func = flip_reward_func(Gold(load_verifier("exact:answer")))
    # The same question twice, one after the other, with different reference answers.
    assert func(["x"] * 4, ["7", "8", "7", "8"], answer=["7", "7", "8", "8"]) == [1, 0, 0, 1]


@pytest.mark.parametrize(
    ("completion", "reasoning", "text"),
    [
        ("<think>hm</think>\n\nan answer", "hm", "an answer"),
        ("It ends with </think>, always.", None, "It ends with </think>, always."),
        ("Write `<think>` first.", None, "Write `<think>` first."),
        (said("Write `<think>` first."), None, "Write `<think>` first."),
        ("<think>hm", "hm", ""),
        (said("<think>hm</think>an answer"), "hm", "an answer"),
        (said("an answer", reasoning_content="hm"), "hm", "an answer"),
        (said("an answer", thinking="hm"), "hm", "an answer"),
        (said(None, reasoning_content="hm"), "hm", ""),  # type: ignore[arg-type]
        ("an answer", None, "an answer"),
    ],
)
def test_reasoning_is_split_off(completion: Any, reasoning: str | None, text: str) -> None:
    reward = Watched()
    flip_reward_func(reward)(["x"], [completion])
    assert (reward.seen[0][1].reasoning, reward.seen[0][1].text) == (reasoning, text)


@pytest.mark.parametrize(
    ("prompt", "opened"), [("x<think>\n", False), ("x", True), (asked("x"), True)]
)
def test_reasoning_that_the_template_opened_and_nothing_closed_is_no_response(
    prompt: Any, opened: bool
) -> None:
    func = flip_reward_func(FLIPReward(ScriptedEngine("x")), opened=opened)
    completions = ["still thinking", "hm</think>an answer"]
    if not isinstance(prompt, str):
        completions = [said(text) for text in completions]  # type: ignore[misc]
    scores = func([prompt, prompt], completions)
    assert scores[0] is None
    assert scores[1] is not None


def calling(content: str | None) -> list[dict[str, Any]]:
    call = {"type": "function", "function": {"name": "w", "arguments": "{}"}}
    return [{"role": "assistant", "content": content, "tool_calls": [call]}]


RESULT = [{"role": "tool", "tool_call_id": "1", "content": "20 C"}]
DEEP: list[Any] = []
for _ in range(50_000):
    DEEP = [DEEP]
UNUSABLE = {
    "answered prompt": (asked("x") + said("y"), "a", "last message of a prompt must be a user"),
    "no prompt": (None, "a", "prompt: a prompt is a string or a list of chat messages"),
    "picture": ([{"role": "user", "content": [{"type": "image"}]}], "a", "of type 'image'"),
    "deep prompt": ([DEEP], "a", "prompt: nested too deeply"),
    "no messages": ("x", [], "completion: a completion is a text or chat messages"),
    "a number": ("x", 7, "completion: a completion is a text or chat messages"),
    "call": ("x", calling(None), "completion: it ends with a call of a tool"),
    "result": ("x", calling(None) + RESULT, "message of the role 'tool'"),
    "null": ("x", [{"role": "assistant", "content": None}], "a text `content`"),
    "part": ("x", said([{"type": "refusal"}]), "a part of type 'refusal'"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("pointwise", [True, False])
@pytest.mark.parametrize("kind", UNUSABLE)
def test_other_forms_have_no_score_and_a_reason(kind: str, pointwise: bool) -> None:
    prompt, completion, reason = UNUSABLE[kind]
    extra: dict[str, list[str]] = {}
    # A reward that gives every text a value, so that no score is a matter of the form.
    func = flip_reward_func(Recorded({"a": 0.5}, pointwise))
    scores = func(["x", prompt, "x"], ["a", completion, "a"], log_extra=extra.__setitem__)
    assert scores == [0.5, None, 0.5]
    first, middle, last = extra["recorded/reason"]
    assert (first, last) == ("", "")
    assert reason in middle


# --- groups ---------------------------------------------------------------------------------------


def test_equal_responses_of_a_group_are_scored_once() -> None:
    engine = ScriptedEngine("x")
    func = flip_reward_func(FLIPReward(engine))
    assert func(["x", "x", "x", "y", "y"], ["a", "b", "a", "a", "a"]) == [1, 1, 1, 0, 0]
    assert len(engine.generated) == 3


def test_a_setwise_reward_is_given_the_whole_group() -> None:
    reward = Recorded({"a": 1.0}, pointwise=False)
    assert flip_reward_func(reward)(["x", "x", "y", "y"], ["a", "b", "c", "a"]) == [1, 0, 0, 1]
    assert reward.asked == [["a", "b"], ["c", "a"]]
    majority = flip_reward_func(Majority())
    shares = majority(["x"] * 3 + ["y"] * 3, ["a", "b", "b", "c", "c", "b"])
    assert [s == max(shares) for s in shares] == [False, True, True, True, True, False]  # type: ignore[type-var]


@given(
    st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from("abcd")), max_size=12),
    st.booleans(),
)
def test_each_completion_gets_its_own_score(rows: list[tuple[str, str]], pointwise: bool) -> None:
    class Both:
        name = "both"

        async def score(self, prompt: Prompt, candidates: Any) -> list[Score]:
            text = prompt.messages[-1].content
            return [Score(float(ord(text) * 1000 + ord(c.text))) for c in candidates]

    reward: Any = Both()
    reward.pointwise = pointwise
    scores = flip_reward_func(reward)([x for x, _ in rows], [a for _, a in rows])
    assert scores == [ord(x) * 1000 + ord(a) for x, a in rows]


# --- what the trainer logs ------------------------------------------------------------------------


def test_a_failed_score_is_none_and_counted() -> None:
    engine = ScriptedEngine(lambda p, *_: EngineError("gone") if "bad" in str(p) else "x")
    metrics: dict[str, float] = {}
    extra: dict[str, list[str]] = {}
    func = flip_reward_func(FLIPReward(engine, name="mine"))
    scores = func(
        ["x"] * 4,
        ["bad", "fine", "", "fine"],
        log_metric=metrics.__setitem__,
        log_extra=extra.__setitem__,
    )
    assert scores == [None, 1.0, None, 1.0]
    # Of the six pairs one has two equal scores; failed scores equal nothing.
    assert metrics["mine/failure_rate"] == 0.5
    assert metrics["mine/tie_rate"] == pytest.approx(1 / 6)
    # Ten of the prompt and two decoded, for one of the two equal responses.
    assert metrics["mine/tokens"] == pytest.approx(12 / 4)
    assert extra["mine/reason"] == ["engine: gone", "", "empty response", ""]
    assert extra["mine/inferred"] == ["", "x", "", "x"]
