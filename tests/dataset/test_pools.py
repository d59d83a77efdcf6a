"""Pools as streams: drawn in order, scored once, cut at tokens."""

import time
from collections.abc import Sequence
from math import isnan

import pytest
from fakes import END, ScriptedEngine

from bestofn.dataset.pools import add, cut_name, draw, has_scores
from bestofn.engines.base import SamplingParams
from bestofn.errors import ConfigError, EngineError
from bestofn.generators import EngineGenerator
from bestofn.prompts import as_prompt
from bestofn.rewards.base import load_reward
from bestofn.rewards.gold import Gold
from bestofn.scoring import RewardModel
from bestofn.thinking import split_thinking
from bestofn.types import Candidate, Pool, Prompt, Score, Usage
from bestofn.verifiers import load_verifier

PROMPTS = [as_prompt(f"Say {word}.", word) for word in "one two three four five".split()]


class Recording:
    """Scores a response by its length and remembers what it was asked."""

    def __init__(self, name: str = "length", pointwise: bool = True) -> None:
        self.name = name
        self.pointwise = pointwise
        self.asked: list[Candidate] = []

    async def score(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Score]:
        self.asked += candidates
        usage = Usage(prompt_tokens=7)
        return [Score(float(len(c.text)), None, [], ["f"], {"n": 1}, usage) for c in candidates]

    @property
    def texts(self) -> list[str]:
        return [candidate.text for candidate in self.asked]


def drawn(engine: ScriptedEngine, m: int = 3, window: int | None = None) -> list[Pool]:
    generator = EngineGenerator(engine, SamplingParams(), 0, keep_tokens=True)
    return list(draw(PROMPTS, generator, m, window))


def pool_of(*texts: str, prompt: Prompt = PROMPTS[0]) -> Pool:
    return Pool(prompt, [Candidate(index, text) for index, text in enumerate(texts)])


def values(pool: Pool, name: str = "length") -> list[float]:
    return [candidate.scores[name].value for candidate in pool.candidates]


# --- drawing --------------------------------------------------------------------------------------


def test_pools_come_in_the_order_of_the_prompts() -> None:
    slow_first = ScriptedEngine(delay=lambda p: 0.03 if "one" in p.messages[-1].content else 0)
    pools = drawn(slow_first, window=2)
    assert [pool.prompt.id for pool in pools] == [prompt.id for prompt in PROMPTS]
    assert all([c.index for c in pool.candidates] == [0, 1, 2] for pool in pools)
    assert slow_first.most_running <= 6


def test_seconds_are_the_time_of_the_run_shared_out() -> None:
    engine = ScriptedEngine(delay=lambda _: 0.01)
    started = time.perf_counter()
    pools = []
    for pool in draw(PROMPTS, EngineGenerator(engine, SamplingParams(), 0, False), 3):
        pools.append(pool)
        time.sleep(0.02)
    wall = time.perf_counter() - started
    total = sum(pool.seconds["sample"] for pool in pools)
    assert all(pool.seconds["sample"] >= 0 for pool in pools)
    assert 0.01 <= total <= wall - 5 * 0.02


def test_a_candidate_that_cannot_be_drawn_is_kept() -> None:
    pool, *_ = drawn(ScriptedEngine(lambda *_: EngineError("too long")), 2)
    assert [(c.finish_reason, c.error) for c in pool.candidates] == [("error", "too long")] * 2


# --- scoring --------------------------------------------------------------------------------------


def test_each_distinct_response_of_a_prompt_is_scored_once() -> None:
    reward = Recording()
    texts = ("a", "bb", "a", "bb", "a")
    pools = list(add([pool_of(*texts, prompt=prompt) for prompt in PROMPTS], [reward]))
    assert sorted(reward.texts) == ["a"] * 5 + ["bb"] * 5
    assert values(pools[0]) == [1, 2, 1, 2, 1]
    costs = [c.scores["length"].usage.prompt_tokens for c in pools[0].candidates]
    assert costs == [7, 7, 0, 0, 0]


def test_scores_that_are_there_stay_failed_ones_too() -> None:
    pool = pool_of("a", "bb")
    pool.candidates[0].scores["length"] = Score(9.0)
    pool.candidates[1].scores["length"] = Score(reason="parse: empty")
    reward = Recording()
    list(add([pool], [reward]))
    assert reward.asked == []
    assert values(pool)[0] == 9
    assert isnan(values(pool)[1])
    assert pool.seconds == {}


def test_a_pool_that_has_only_some_scores_is_scored() -> None:
    pool = pool_of("a", "bb")
    pool.candidates[0].scores["length"] = Score(9.0)
    list(add([pool], [Recording()]))
    assert values(pool) == [1, 2]


def test_several_rewards_each_with_its_seconds() -> None:
    pools = [pool_of("a", "bb", prompt=prompt) for prompt in PROMPTS]
    started = time.perf_counter()
    scored = list(add(pools, [Recording("x"), Recording("y", pointwise=False)]))
    wall = time.perf_counter() - started
    assert all(has_scores(pool, name) for pool in scored for name in ("x", "y"))
    assert {*scored[0].seconds} == {"x", "y"}
    assert 0 < sum(sum(pool.seconds.values()) for pool in scored) <= wall


# --- cuts -----------------------------------------------------------------------------------------


def cut(
    engine: ScriptedEngine,
    *texts: str,
    limits: Sequence[int],
    reward: RewardModel | None = None,
    answer: str | None = None,
) -> Pool:
    """A pool whose tokens are the engine's words, and the one that ends the response, scored."""
    pool = pool_of(*texts)
    for candidate in pool.candidates:
        candidate.token_ids = [engine._token(word) for word in candidate.text.split()] + [END]
        candidate.token_logprobs = [-float(i) for i in range(len(candidate.token_ids))]
        candidate.token_count = len(candidate.token_ids)
    if answer is not None:
        pool.prompt = as_prompt("Say yes.", columns={"answer": answer})
        pool.candidates.append(Candidate(len(texts), "", finish_reason="error", error="too long"))
    list(add([pool], [reward or Recording()], limits=limits, decoder=engine))
    return pool


def test_cuts_are_the_first_tokens_as_they_would_have_been_drawn() -> None:
    reward = Recording()
    pool = cut(ScriptedEngine(), "a bb ccc dddd", "x yy", limits=[1, 3, 5], reward=reward)
    first, second = pool.candidates
    assert {name: score.value for name, score in first.scores.items()} == {
        "length": 13, "length@1": 1, "length@3": 8, "length@5": 13,
    }  # fmt: skip
    assert {name: score.value for name, score in second.scores.items()} == {
        "length": 4, "length@1": 1, "length@3": 4, "length@5": 4,
    }  # fmt: skip
    # From short to long, so that a prefix cache computes only what a cut has more than the last.
    assert reward.texts == ["a bb ccc dddd", "x yy", "a", "x", "a bb ccc"]
    whole, *_, made = reward.asked
    assert (made.finish_reason, made.token_count) == ("length", 3)
    assert (made.mean_logprob, made.sum_logprob) == (-1.0, -3.0)
    assert whole.token_ids is not None
    assert made.token_ids == whole.token_ids[:3]


def test_what_a_score_took_is_counted_once() -> None:
    reward = Recording()
    pool = cut(ScriptedEngine(), "a bb ccc", "x", limits=[2], reward=reward)
    scores = [score for candidate in pool.candidates for score in candidate.scores.values()]
    assert sum(score.counts.get("n", 0) for score in scores) == len(reward.asked) == 3
    assert [score.usage.computed_tokens for score in scores] == [7, 7, 7, 0]
    own, at_2 = pool.candidates[1].scores.values()
    assert at_2.flags == own.flags == ["f"]
    assert at_2.flags is not own.flags


def test_cuts_that_are_equal_are_scored_once() -> None:
    reward = Recording()
    pool = cut(ScriptedEngine(), "a b c d", "a b x y", limits=[2], reward=reward)
    assert reward.texts.count("a b") == 1
    assert [c.scores["length@2"].usage.computed_tokens for c in pool.candidates] == [7, 0]


def test_only_the_limits_that_are_missing_are_scored() -> None:
    engine, reward = ScriptedEngine(), Recording()
    pool = cut(engine, "a b c d e f", "x", limits=[1, 4])
    list(add([pool], [reward], limits=[1, 2, 4], decoder=engine))
    assert reward.texts == ["a b"]
    assert has_scores(pool, cut_name("length", 2))


def test_gold_judges_what_was_cut_and_what_was_not_drawn() -> None:
    gold = Gold(load_verifier("exact:answer"))
    pool = cut(ScriptedEngine(), "yes", "yes but no", "no", limits=[1], reward=gold, answer="yes")
    assert values(pool, "gold") == [1, 0, 0, 0]
    assert values(pool, "gold@1") == [1, 1, 0, 0]


def test_flip_infers_from_what_was_cut() -> None:
    engine = ScriptedEngine("Say one.")
    pool = cut(engine, "a b c d e f", limits=[2], reward=load_reward("flip", engine=engine))
    assert values(pool, "flip@2") == [1]
    backward = [prompt.messages[-1].content for prompt in engine.generated]
    assert ["a b c" in text for text in backward] == [True, False]
    assert "a b" in backward[1]


def test_a_reward_that_compares_has_no_cuts() -> None:
    reward = Recording(pointwise=False)
    pool = cut(ScriptedEngine(), "a b c d", "x", limits=[2], reward=reward)
    assert {*pool.candidates[0].scores} == {"length"}


def test_what_cannot_be_cut_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match=r"candidate 0 of prompt 'one' has no token ids.*keep_to"):
        list(add([pool_of("a")], [Recording()], limits=[2], decoder=ScriptedEngine()))
    with pytest.raises(ConfigError, match="limits need the engine that drew"):
        add([], [Recording()], limits=[2])
    pool = cut(ScriptedEngine(), "a b c d e f", limits=[1])
    other = ScriptedEngine()
    other.words = ["z", "y", "x", "w", "v", "u"]
    with pytest.raises(ConfigError, match="do not read as its text; name the engine that drew"):
        list(add([pool], [Recording()], limits=[2], decoder=other))


class Thinking(ScriptedEngine):
    """A model that thinks: a token is a character."""

    async def decode(self, prompt: Prompt, token_ids: Sequence[int]) -> tuple[str | None, str]:
        return split_thinking("".join(map(chr, token_ids)))


@pytest.mark.parametrize(
    "output",
    [
        "<think>hm</think>Write `<think>` first.",
        "<think>a<think>b</think>c</think>d",
        "<think>a</think>\n<think>b</think>It ends with </think>.",
        "<think>What is <think>?</think>A tag.",
        "Write `<think>` before, `</think>` behind it.",
        "<think>never closed",
        "<think>a<think>b</think>not closed",
    ],
)
def test_cuts_of_a_thinking_models_output_grow(output: str) -> None:
    """Wherever it is cut, also in a tag, a cut is a beginning of the answer."""
    reasoning, text = split_thinking(output)
    candidate = Candidate(0, text, reasoning=reasoning, token_ids=[*map(ord, output)])
    limits = list(range(1, len(output)))
    reward = Recording()
    list(add([Pool(PROMPTS[0], [candidate])], [reward], limits=limits, decoder=Thinking()))
    assert len(candidate.scores) == len(limits) + 1
    assert all(text.startswith(asked.rstrip()) for asked in reward.texts)
