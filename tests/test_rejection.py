"""Early rejection: who is ended when, and that whoever is left is as without it."""

import asyncio
from math import ceil, nan

import pytest
from fakes import Recorded, ScriptedEngine
from hypothesis import given, settings
from hypothesis import strategies as st

from bestofn import BestOfN, SamplingParams, concurrency, load_engine
from bestofn.engines.base import Completion, Watch
from bestofn.errors import ConfigError, EngineError
from bestofn.prompts import as_prompt
from bestofn.rejection import EarlyRejection
from bestofn.rewards.baselines import Longest
from bestofn.rewards.flip import FLIPLikelihood
from bestofn.types import Score, Usage

PROMPT = "Name 4 fruits as a numbered list."


class Typewriter(ScriptedEngine):
    """Writes each candidate word by word, some faster than others."""

    name = "typewriter"
    shows_unfinished = True

    def __init__(self, texts: list[str], pauses: list[float]) -> None:
        super().__init__()
        self.texts, self.pauses = texts, pauses
        self.written: dict[int, int] = {}
        self.drawn = 0

    async def generate_watched(self, prompt, params, seed, watch: Watch) -> Completion:
        index, self.drawn = self.drawn, self.drawn + 1
        words = self.texts[index].split()
        for count in range(1, len(words) + 1):
            await asyncio.sleep(self.pauses[index])
            watch.generated = self.written[index] = count
            if count in watch.at and count < len(words):
                watch.reached(count, self._completion(words[:count], "length"))
        return self._completion(words, "stop")

    async def generate(self, prompt, params, seed=None) -> Completion:
        index, self.drawn = self.drawn, self.drawn + 1
        return self._completion(self.texts[index].split(), "stop")

    def _completion(self, words: list[str], reason) -> Completion:
        ids = [self._token(word) for word in words]
        usage = Usage(prompt_tokens=3, generated_tokens=len(ids))
        return Completion(" ".join(words), None, reason, ids, [-0.5] * len(ids), usage)


class Words(Recorded):
    """The sum of the words' values, NaN where one is "?"."""

    name = "words"

    async def score(self, prompt, candidates) -> list[Score]:
        self.asked.append([candidate.text for candidate in candidates])
        return [Score(total(c.text), usage=Usage(prompt_tokens=len(c.text))) for c in candidates]


def total(text: str) -> float:
    return sum(nan if word == "?" else float(word) for word in text.split())


def by_hand(texts: list[str], at: tuple[int, ...], keep: float) -> dict[int, int]:
    """At which checkpoint each is rejected, if it is."""
    out: dict[int, int] = {}
    for count in at:
        long = [i for i, t in enumerate(texts) if i not in out and len(t.split()) > count]
        values = {i: total(" ".join(texts[i].split()[:count])) for i in long}
        known = sorted((v for v in values.values() if v == v), reverse=True)
        if known and ceil(len(long) * keep) < len(long):
            last = known[ceil(len(known) * keep) - 1]
            out |= dict.fromkeys([i for i in long if values[i] < last], count)
    return out


TEXT = st.lists(st.sampled_from(["1", "2", "-1", "?"]), min_size=1, max_size=6).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=6), st.sampled_from([0.3, 0.5, 0.75]), st.randoms())
def test_who_is_rejected_depends_on_the_texts_alone(texts, keep, random) -> None:
    pauses = [random.choice([0, 0.001, 0.004]) for _ in texts]
    engine, at = Typewriter(texts, pauses), (1, 3)
    best = BestOfN(engine, Words(), n=len(texts), reject=EarlyRejection(at, keep))
    selection = best.select("x")
    found = {c.index: c.token_count for c in selection.candidates if c.finish_reason == "rejected"}
    assert found == by_hand(texts, at, keep)
    for candidate in selection.candidates:
        words = texts[candidate.index].split()
        assert candidate.text == " ".join(words[: found.get(candidate.index)])
        score = candidate.scores["words"]
        if candidate.index in found:
            assert "rejected at" in score.reason
            assert candidate.scores[f"words@{candidate.token_count} tokens"].value == total(
                candidate.text
            )
            assert candidate.token_count <= candidate.usage.generated_tokens <= len(words)
        elif score.value == score.value:
            assert score.value == total(candidate.text)
    assert selection.best.finish_reason != "rejected"
    kept = [c.scores["words"].value for c in selection.candidates if c.index not in found]
    if any(v == v for v in kept):
        assert selection.best.scores["words"].value == max(v for v in kept if v == v)


def test_usage_has_every_token_and_every_score() -> None:
    texts = ["1 1 1 1", "2 2 2 2", "3", "-1 -1 -1 -1"]
    best = BestOfN(Typewriter(texts, [0.002] * 4), Words(), n=4, reject=EarlyRejection((2,), 0.3))
    selection = best.select("x")
    drawn = sum(c.usage.generated_tokens for c in selection.candidates)
    assert selection.usage.generated_tokens == drawn
    scored = sum(len(text) for asked in best.reward.asked for text in asked)
    assert selection.usage.prompt_tokens == 3 * 4 + scored
    assert best.reward.asked.count(["2 2"]) == 1


def test_keeping_all_is_best_of_n() -> None:
    engine = load_engine("tiny")
    with_all = EarlyRejection((4, 8), keep=1.0)
    plain, kept = (
        BestOfN(engine, FLIPLikelihood(engine), n=6, seed=3, keep_tokens=True, reject=reject)
        for reject in (None, with_all)
    )
    a, b = plain.select(PROMPT), kept.select(PROMPT)
    for one, other in zip(a.candidates, b.candidates, strict=True):
        assert (one.text, one.token_ids, one.finish_reason) == (
            other.text, other.token_ids, other.finish_reason,
        )  # fmt: skip
        assert one.scores["flip-likelihood"].value == pytest.approx(
            other.scores["flip-likelihood"].value, abs=1e-4
        )
    assert a.index == b.index


def test_survivors_are_as_without_rejection_and_nothing_goes_on_running() -> None:
    engine = load_engine("tiny")
    sampling = SamplingParams(max_tokens=64)
    options = {"n": 8, "seed": 5, "sampling": sampling, "keep_tokens": True}
    reward = FLIPLikelihood(engine)
    plain = BestOfN(engine, reward, **options).select(PROMPT)
    rejecting = BestOfN(engine, reward, **options, reject=EarlyRejection((4, 8), 0.5))
    selection = rejecting.select(PROMPT)
    rejected = [c for c in selection.candidates if c.finish_reason == "rejected"]
    assert rejected
    for one, other in zip(plain.candidates, selection.candidates, strict=True):
        if other in rejected:
            assert other.token_ids == one.token_ids[: other.token_count]
            assert other.token_count in (4, 8)
        else:
            assert (other.text, other.token_ids) == (one.text, one.token_ids)
    assert selection.usage.generated_tokens < plain.usage.generated_tokens
    assert not [r for r in engine._scheduler.running if not r.future.done()]


@pytest.mark.parametrize("values", [{"at": ()}, {"at": (0,)}, {"at": (8, 4)}, {"at": (4, 4)},
                                    {"keep": 0}, {"keep": 1.5}, {"keep": nan}])  # fmt: skip
def test_values_out_of_range(values) -> None:
    with pytest.raises(ConfigError):
        EarlyRejection(**values)


def test_what_cannot_be_rejected_is_refused() -> None:
    with pytest.raises(ConfigError, match="compares candidates"):
        BestOfN("tiny", Longest(), n=2, reject=EarlyRejection())
    with pytest.raises(ConfigError, match="unfinished"):
        BestOfN(lambda prompt, n: ["a"] * n, Words(), n=2, reject=EarlyRejection())
    with pytest.raises(ConfigError, match="unfinished"):
        BestOfN(ScriptedEngine(), Words(), n=2, reject=EarlyRejection())


def test_an_error_of_the_reward_is_raised_and_nothing_is_left_running() -> None:
    class Broken(Words):
        async def score(self, prompt, candidates):
            raise ConfigError("broken")

    engine = Typewriter(["1 " * 2000] * 4, [0.001] * 4)
    best = BestOfN(engine, Broken(), n=4, reject=EarlyRejection((2,), 0.5))
    with pytest.raises(ConfigError, match="broken"):
        best.select("x")
    assert max(engine.written.values()) < 2000


def test_a_run_that_is_cancelled_leaves_nothing_running() -> None:
    class Slow(Words):
        async def score(self, prompt, candidates):
            self.asked.append(candidates)
            await asyncio.sleep(60)

    engine = Typewriter(["1 " * 2000] * 4, [0.001] * 4)
    best = BestOfN(engine, Slow(), n=4, reject=EarlyRejection((2, 3), 0.5))

    async def cancelled() -> int:
        task = asyncio.ensure_future(best._select(as_prompt("x")))
        while not best.reward.asked:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        return len([task for task in left if "_Race" in repr(task) or "score" in repr(task)])

    assert concurrency.run(cancelled()) == 0


def test_equal_beginnings_stay_together_and_reasoning_is_not_judged() -> None:
    assert EarlyRejection((2,), 0.5).kept([1.0, 1.0, 1.0, 0.0]) == [True, True, True, False]
    assert EarlyRejection((2,), 0.5).kept([nan, nan]) == [True, True]
    assert sum(EarlyRejection((2,), 0.55).kept([float(i) for i in range(20)])) == 11

    class Thinking(Typewriter):
        def _completion(self, words, reason):
            done = super()._completion(words, reason)
            if "/" not in words:
                done.text, done.reasoning = "", done.text
            return done

    texts = ["5 5 / 1 1".replace("/ ", "/ "), "1 1 1 1 1", "2 2 2 2 2"]
    engine = Thinking([t.replace("/", "0 /") for t in texts], [0.001] * 3)

    class Length(Words):
        async def score(self, prompt, candidates):
            return [Score(float(len(c.text))) for c in candidates]

    best = BestOfN(engine, Length(), n=3, reject=EarlyRejection((2,), 0.3))
    assert all(c.finish_reason != "rejected" for c in best.select("x").candidates)


def test_where_the_last_ones_fail_there_is_no_response() -> None:
    class Failing(Typewriter):
        async def generate_watched(self, prompt, params, seed, watch):
            index = self.drawn
            done = await super().generate_watched(prompt, params, seed, watch)
            if index == 0:
                raise EngineError("it broke")
            return done

    engine = Failing(["5 5 5 5", "1 1 1 1"], [0.002, 0.002])
    selection = BestOfN(engine, Words(), n=2, reject=EarlyRejection((2,), 0.5)).select("x")
    assert "it broke; the others had been rejected" in selection.error
