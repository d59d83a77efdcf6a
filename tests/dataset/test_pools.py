"""Pools as streams: drawn in order, scored once, cut at tokens."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
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
from bestofn.thinking import split_thinking
from bestofn.types import Candidate, Pool, Prompt, Score, Usage
from bestofn.verifiers import load_verifier

PROMPTS = [as_prompt(f"Say {word}.", word) for word in "one two three four five".split()]


class Recording:
    """Scores a response by its length and remembers what it was asked."""

    pointwise = True

    def __init__(self, name: str = "length", fails: bool = False) -> None:
        self.name = name
        self.fails = fails
        self.asked: list[tuple[str, str]] = []

    async def score(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Score]:
        await asyncio.sleep(0)
        if self.fails:
            raise EngineError("it broke")
        self.asked += [(prompt.id, candidate.text) for candidate in candidates]
        return [Score(float(len(c.text)), usage=Usage(prompt_tokens=7)) for c in candidates]


class Setwise(Recording):
    pointwise = False


def drawn(engine: ScriptedEngine, prompts: Sequence[Prompt] = PROMPTS, m: int = 3) -> list[Pool]:
    generator = EngineGenerator(engine, SamplingParams(), 0, keep_tokens=True)
    return list(draw(prompts, generator, m))


def pool_of(*texts: str, prompt: Prompt = PROMPTS[0]) -> Pool:
    return Pool(prompt, [Candidate(index, text) for index, text in enumerate(texts)])


# --- drawing --------------------------------------------------------------------------------------


def test_pools_come_in_the_order_of_the_prompts() -> None:
    slow_first = ScriptedEngine(delay=lambda p: 0.03 if "one" in p.messages[-1].content else 0)
    pools = drawn(slow_first)
    assert [pool.prompt.id for pool in pools] == [prompt.id for prompt in PROMPTS]
    assert all([c.index for c in pool.candidates] == [0, 1, 2] for pool in pools)


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


def test_a_window_bounds_what_is_under_way() -> None:
    engine = ScriptedEngine(delay=lambda _: 0.005)
    list(draw(PROMPTS, EngineGenerator(engine, SamplingParams(), 0, False), 3, window=2))
    assert engine.most_running <= 6


def test_a_candidate_that_cannot_be_drawn_is_kept() -> None:
    (pool,) = drawn(ScriptedEngine(lambda *_: EngineError("too long")), PROMPTS[:1], 2)
    assert [(c.finish_reason, c.error) for c in pool.candidates] == [("error", "too long")] * 2


def test_m_below_one() -> None:
    with pytest.raises(ConfigError, match="m must be at least 1, not 0"):
        drawn(ScriptedEngine(), m=0)


# --- scoring --------------------------------------------------------------------------------------


def test_each_distinct_response_is_scored_once() -> None:
    reward = Recording()
    (pool,) = add([pool_of("a", "bb", "a", "bb", "a")], [reward])
    assert sorted(reward.asked) == [("one", "a"), ("one", "bb")]
    assert [c.scores["length"].value for c in pool.candidates] == [1, 2, 1, 2, 1]
    costs = [c.scores["length"].usage.prompt_tokens for c in pool.candidates]
    assert costs == [7, 7, 0, 0, 0]


def test_equal_responses_to_other_prompts_are_scored_by_themselves() -> None:
    reward = Recording()
    list(add([pool_of("a", prompt=prompt) for prompt in PROMPTS], [reward]))
    assert sorted(reward.asked) == sorted((prompt.id, "a") for prompt in PROMPTS)


def test_scores_that_are_there_stay() -> None:
    pool = pool_of("a", "bb")
    for candidate in pool.candidates:
        candidate.scores["length"] = Score(9.0)
    reward = Recording()
    list(add([pool], [reward]))
    assert reward.asked == []
    assert pool.candidates[0].scores["length"].value == 9
    assert pool.seconds == {}


def test_failed_scores_that_are_there_stay_too() -> None:
    pool = pool_of("a")
    pool.candidates[0].scores["length"] = Score(reason="parse: empty")
    list(add([pool], [Recording()]))
    assert isnan(pool.candidates[0].scores["length"].value)


def test_again_replaces_them() -> None:
    pool = pool_of("a", "bb")
    for candidate in pool.candidates:
        candidate.scores |= {"length": Score(9.0), "other": Score(8.0)}
    list(add([pool], [Recording()], again=True))
    assert [c.scores["length"].value for c in pool.candidates] == [1, 2]
    assert [c.scores["other"].value for c in pool.candidates] == [8, 8]


def test_a_pool_that_has_only_some_scores_is_scored() -> None:
    pool = pool_of("a", "bb")
    pool.candidates[0].scores["length"] = Score(9.0)
    list(add([pool], [Recording()]))
    assert has_scores(pool, "length")
    assert pool.candidates[1].scores["length"].value == 2


def test_several_rewards_each_with_its_seconds() -> None:
    pools = [pool_of("a", "bb", prompt=prompt) for prompt in PROMPTS]
    started = time.perf_counter()
    scored = list(add(pools, [Recording("x"), Setwise("y")]))
    wall = time.perf_counter() - started
    assert all(has_scores(pool, name) for pool in scored for name in ("x", "y"))
    assert {*scored[0].seconds} == {"x", "y"}
    assert 0 < sum(sum(pool.seconds.values()) for pool in scored) <= wall


def test_a_reward_that_breaks_ends_the_run() -> None:
    with pytest.raises(EngineError, match="it broke"):
        list(add([pool_of("a")], [Recording(fails=True)]))


# --- cuts -----------------------------------------------------------------------------------------


def cut_pool(engine: ScriptedEngine, *texts: str) -> Pool:
    """A pool whose tokens are the engine's words, and the one that ends the response."""
    pool = pool_of(*texts)
    for candidate in pool.candidates:
        candidate.token_ids = [engine._token(word) for word in candidate.text.split()] + [END]
        candidate.token_logprobs = [-float(i) for i in range(len(candidate.token_ids))]
        candidate.token_count = len(candidate.token_ids)
    return pool


def test_cuts_are_the_first_tokens() -> None:
    engine, reward = ScriptedEngine(), Recording()
    pool = cut_pool(engine, "a bb ccc dddd", "x yy")
    list(add([pool], [reward], limits=[1, 3, 5], decoder=engine))
    first, second = pool.candidates
    assert {name: score.value for name, score in first.scores.items()} == {
        "length": 13, "length@1": 1, "length@3": 8, "length@5": 13,
    }  # fmt: skip
    assert {name: score.value for name, score in second.scores.items()} == {
        "length": 4, "length@1": 1, "length@3": 4, "length@5": 4,
    }  # fmt: skip
    assert [text for _, text in reward.asked] == ["a bb ccc dddd", "x yy", "a", "x", "a bb ccc"]


def test_a_shorter_candidate_has_its_own_score_at_no_cost() -> None:
    engine = ScriptedEngine()
    pool = cut_pool(engine, "a bb ccc", "x")
    list(add([pool], [Recording()], limits=[2], decoder=engine))
    costs = [c.scores["length@2"].usage.computed_tokens for c in pool.candidates]
    assert costs == [7, 0]
    assert pool.candidates[1].scores["length"].usage.computed_tokens == 7


def test_what_a_score_took_is_counted_once() -> None:
    class Counting(Recording):
        async def score(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Score]:
            scores = await super().score(prompt, candidates)
            return [replace(s, counts={"calls": 1}, flags=["f"]) for s in scores]

    engine, reward = ScriptedEngine(), Counting()
    pool = cut_pool(engine, "a bb ccc", "x")
    list(add([pool], [reward], limits=[2], decoder=engine))
    counts = [s.counts.get("calls", 0) for c in pool.candidates for s in c.scores.values()]
    assert sum(counts) == len(reward.asked) == 3
    own, cut = pool.candidates[1].scores.values()
    assert cut.flags == own.flags == ["f"]
    assert cut.flags is not own.flags


def test_cuts_that_are_equal_are_scored_once() -> None:
    engine, reward = ScriptedEngine(), Recording()
    pool = cut_pool(engine, "a b c d", "a b x y")
    list(add([pool], [reward], limits=[2], decoder=engine))
    assert [text for _, text in reward.asked].count("a b") == 1
    costs = [c.scores["length@2"].usage.computed_tokens for c in pool.candidates]
    assert costs == [7, 0]


def test_a_cut_is_what_would_have_been_drawn() -> None:
    seen: list[Candidate] = []

    class Keeps(Recording):
        async def score(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Score]:
            seen.extend(candidates)
            return await super().score(prompt, candidates)

    engine = ScriptedEngine()
    list(add([cut_pool(engine, "a b c d")], [Keeps()], limits=[3], decoder=engine))
    whole, cut = seen
    assert whole.token_ids is not None
    assert (cut.finish_reason, cut.token_count) == ("length", 3)
    assert (cut.mean_logprob, cut.sum_logprob) == (-1.0, -3.0)
    assert cut.token_ids == whole.token_ids[:3]


def test_limits_are_scored_from_short_to_long() -> None:
    """So that a prefix cache computes only what a cut has more than the last."""
    engine, reward = ScriptedEngine(), Recording()
    list(add([cut_pool(engine, "a b c d e f")], [reward], limits=[1, 2, 4], decoder=engine))
    assert [text for _, text in reward.asked] == ["a b c d e f", "a", "a b", "a b c d"]


def test_only_the_limits_that_are_missing_are_scored() -> None:
    engine = ScriptedEngine()
    pool = cut_pool(engine, "a b c d e f", "x")
    list(add([pool], [Recording()], limits=[1, 4], decoder=engine))
    reward = Recording()
    list(add([pool], [reward], limits=[1, 2, 4], decoder=engine))
    assert [text for _, text in reward.asked] == ["a b"]
    assert has_scores(pool, cut_name("length", 2))


def test_gold_judges_what_was_cut() -> None:
    engine = ScriptedEngine()
    pool = cut_pool(engine, "yes", "yes but no", "no")
    pool.prompt = as_prompt("Say yes.", columns={"answer": "yes"})
    list(add([pool], [Gold(load_verifier("exact:answer"))], limits=[1], decoder=engine))
    assert [c.scores["gold"].value for c in pool.candidates] == [1, 0, 0]
    assert [c.scores["gold@1"].value for c in pool.candidates] == [1, 1, 0]


def test_flip_infers_from_what_was_cut() -> None:
    engine = ScriptedEngine("Say one.")
    pool = cut_pool(engine, "a b c d e f")
    list(add([pool], [load_reward("flip", engine=engine)], limits=[2], decoder=engine))
    assert pool.candidates[0].scores["flip@2"].value == 1
    backward = [prompt.messages[-1].content for prompt in engine.generated]
    assert ["a b c" in text for text in backward] == [True, False]
    assert "a b" in backward[1]


def test_a_reward_that_compares_has_no_cuts() -> None:
    engine = ScriptedEngine()
    pool = cut_pool(engine, "a b c d", "x")
    list(add([pool], [Setwise()], limits=[2], decoder=engine))
    assert {*pool.candidates[0].scores} == {"length"}


def test_candidates_without_tokens_are_named() -> None:
    pool = pool_of("a", "b")
    with pytest.raises(
        ConfigError, match=r"candidate 0 of prompt 'one' has no token ids.*keep_tok"
    ):
        list(add([pool], [Recording()], limits=[2], decoder=ScriptedEngine()))


def test_a_candidate_that_could_not_be_drawn_needs_no_tokens() -> None:
    engine = ScriptedEngine()
    pool = cut_pool(engine, "yes no", "")
    pool.candidates[1] = Candidate(1, "", finish_reason="error", error="too long")
    pool.prompt = as_prompt("Say yes.", columns={"answer": "yes"})
    list(add([pool], [Gold(load_verifier("exact:answer"))], limits=[1], decoder=engine))
    assert pool.candidates[1].scores["gold@1"].value == 0


def test_another_model_than_the_one_that_drew_cannot_cut() -> None:
    engine = ScriptedEngine()
    pool = cut_pool(engine, "a b c d e f")
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
    pool = Pool(PROMPTS[0], [candidate])
    limits = list(range(1, len(output)))
    reward = Recording()
    list(add([pool], [reward], limits=limits, decoder=Thinking()))
    assert len(candidate.scores) == len(limits) + 1
    assert all(text.startswith(asked.rstrip()) for _, asked in reward.asked)


def test_limits_need_an_engine_that_decodes() -> None:
    with pytest.raises(ConfigError, match="limits need the engine that drew"):
        add([], [Recording()], limits=[2])
