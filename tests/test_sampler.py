"""BestOfN: streaming, deduplication, seeds, ties, failures, cancelling, any generator."""

import asyncio
import itertools
import os
import signal
import threading
import time
from collections.abc import Sequence
from math import isnan, nan
from typing import Any

import pytest
from fakes import Recorded, ScriptedEngine, wait_until

from bestofn import BestOfN, ExpectedGain, FLIPLikelihood, FLIPReward, SamplingParams, concurrency
from bestofn.engines.hf import TransformersEngine
from bestofn.errors import ConfigError, EngineError
from bestofn.prompts import as_prompt
from bestofn.rewards.baselines import Longest, Majority
from bestofn.sampler import choose
from bestofn.types import Candidate, Prompt, Score

# --- selection ------------------------------------------------------------------------------------


def select(values: list[float]) -> Any:
    candidates = [Candidate(i, str(i), scores={"r": Score(v)}) for i, v in enumerate(values)]
    return choose(as_prompt("x"), candidates, "r")


@pytest.mark.parametrize(
    ("values", "index", "tie", "fallback"),
    [
        ([0.1, 0.9, 0.5], 1, False, False),
        ([0.5, 0.9, 0.9], 1, True, False),
        ([0.5, 0.5, 0.9], 2, False, False),
        ([nan, 0.0, nan], 1, False, False),
        ([nan, -1e9, -float("inf")], 1, False, False),
        ([nan, nan], 0, False, True),
        ([0.0], 0, False, False),
    ],
)
def test_choice(values: list[float], index: int, tie: bool, fallback: bool) -> None:
    selection = select(values)
    assert (selection.index, selection.tie, selection.fallback) == (index, tie, fallback)
    assert selection.text == str(index)
    assert len(selection.candidates) == len(values)


def test_ties_go_to_the_lowest_index_though_another_finished_first() -> None:
    names, delays = itertools.count(), itertools.count(4, -1)
    engine = ScriptedEngine(lambda *_: f"answer {next(names)}", delay=lambda _: 0.01 * next(delays))
    selection = BestOfN(engine, Recorded(), n=4).select("x")
    assert selection.index == 0
    assert selection.tie


def test_scores_sit_on_their_candidates() -> None:
    values = {f"answer {i}": float(i) for i in range(6)}
    names, delays = itertools.count(), itertools.count(6, -1)
    engine = ScriptedEngine(lambda *_: f"answer {next(names)}", delay=lambda _: 0.01 * next(delays))
    selection = BestOfN(engine, Recorded(values), n=6).select("x")
    assert [c.index for c in selection.candidates] == list(range(6))
    for candidate in selection.candidates:
        assert candidate.scores["recorded"].value == values[candidate.text]
    assert selection.text == "answer 5"
    assert [score.value for score in selection.scores] == list(range(6))


# --- how it works ---------------------------------------------------------------------------------


def test_a_candidate_is_scored_while_its_siblings_are_drawn() -> None:
    """The backward request of the quick candidate starts before the slow one is there."""
    events: list[str] = []

    class Watched(ScriptedEngine):
        async def generate(self, prompt: Any, params: Any, seed: Any = None) -> Any:
            slow = not self.generated
            result = await super().generate(prompt, params, seed)
            await asyncio.sleep(0.2 if slow else 0)
            events.append("slow drawn" if slow else "quick drawn")
            return result

        async def loglikelihood(self, *args: Any, **kwargs: Any) -> Any:
            events.append("scored")
            return await super().loglikelihood(*args, **kwargs)

    texts = iter(["slow", "quick"])
    engine = Watched(lambda *_: next(texts))
    BestOfN(engine, FLIPLikelihood(engine), n=2).select("x")
    assert events == ["quick drawn", "scored", "slow drawn", "scored"]


def test_equal_responses_are_scored_once() -> None:
    texts = itertools.cycle(["a", "b", "a"])
    reward = Recorded({"a": 1.0})
    selection = BestOfN(ScriptedEngine(lambda *_: next(texts)), reward, n=9).select("x")
    assert sorted(reward.asked) == [["a"], ["b"]]
    assert [c.scores["recorded"].value for c in selection.candidates] == [1, 0, 1] * 3
    first, _, third = selection.candidates[:3]
    assert first.scores["recorded"] is not third.scores["recorded"]


def test_the_cost_of_a_shared_score_is_counted_once() -> None:
    engine = ScriptedEngine("same")
    selection = BestOfN(engine, FLIPLikelihood(engine), n=5).select("x")
    assert selection.usage.scored_tokens == 2
    assert selection.usage.prompt_tokens == 5 * 10 + 10
    assert selection.usage.generated_tokens == 5 * 2
    assert selection.usage.seconds > 0


def test_a_setwise_reward_gets_all_candidates_at_once() -> None:
    reward = Recorded(pointwise=False)
    BestOfN(lambda prompt, n: ["a", "b", "a"], reward, n=3).select("x")
    assert reward.asked == [["a", "b", "a"]]


def test_seeds_depend_on_run_prompt_and_index_alone() -> None:
    def seeds(prompts: list[str], run_seed: int | None) -> dict[str, list[int | None]]:
        sampler = BestOfN(ScriptedEngine(), Longest(), n=3, seed=run_seed)
        return {
            s.prompt.messages[0].content: [c.seed for c in s.candidates]
            for s in sampler.select_many(prompts, progress=False)
        }

    one = seeds(["a", "b", "c"], 7)
    assert seeds(["c", "a"], 7) == {"c": one["c"], "a": one["a"]}
    assert len({seed for row in one.values() for seed in row}) == 9
    assert seeds(["a"], 8) != {"a": one["a"]}
    assert seeds(["a"], None) == {"a": [None] * 3}


def test_the_window_bounds_the_prompts_in_flight_and_the_reading() -> None:
    engine = ScriptedEngine(delay=lambda _: 0.005)
    read: list[int] = []

    def prompts() -> Any:
        for i in range(40):
            read.append(i)
            yield f"prompt {i}"

    sampler = BestOfN(engine, Longest(), n=2, window=3)
    for done, selection in enumerate(sampler.select_many(prompts(), progress=False), 1):
        assert selection.prompt.messages[0].content == f"prompt {done - 1}"
        assert len(read) <= done + 3
    assert engine.most_running <= 6
    assert len(read) == 40


# --- faults ---------------------------------------------------------------------------------------


def test_a_candidate_that_fails_loses_and_says_why() -> None:
    answers = iter([EngineError("out of luck"), "fine"])
    engine = ScriptedEngine(lambda *_: next(answers))
    selection = BestOfN(engine, FLIPLikelihood(engine), n=2).select("x")
    failed = next(c for c in selection.candidates if c.finish_reason == "error")
    assert failed.error == "out of luck"
    assert failed.scores["flip-likelihood"].reason == "no response: out of luck"
    assert selection.text == "fine"
    assert not selection.fallback
    assert selection.error is None


def test_when_all_fail_the_first_stands_in() -> None:
    engine = ScriptedEngine(lambda *_: EngineError("out of luck"))
    selection = BestOfN(engine, FLIPReward(engine), n=3).select("x")
    assert selection.fallback
    assert selection.index == 0
    assert len(selection.candidates) == 3
    assert selection.error == "all 3 candidates failed: out of luck"


def test_an_error_in_a_reward_reaches_the_caller_and_stops_the_rest() -> None:
    class Broken(Recorded):
        async def score(self, prompt: Any, candidates: Any) -> Any:
            raise RuntimeError("my own bug")

    engine = ScriptedEngine(delay=lambda _: 0.01)
    with pytest.raises(RuntimeError, match="my own bug"):
        list(BestOfN(engine, Broken(), n=4).select_many(["a", "b"], progress=False))
    time.sleep(0.05)
    assert engine.running == 0


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"n": 0}, "n must be at least 1"),
        ({"n": -1}, "n must be at least 1"),
        ({"n": 1, "window": 0}, "window"),
        ({"n": 1, "stop": ExpectedGain(0.1), "round_size": 0}, "round_size"),
        ({"n": 1, "stop": ExpectedGain(0.1), "reward": Majority()}, "compares candidates"),
        ({"n": 1, "reward": "flip"}, "no reward"),
        ({"n": 1, "generator": 7}, "no generator"),
        ({"n": 1, "generator": "nonesuch"}, "no engine"),
    ],
)
def test_bad_arguments(options: dict[str, Any], match: str) -> None:
    arguments = {"generator": ScriptedEngine(), "reward": Longest(), **options}
    with pytest.raises(ConfigError, match=match):
        BestOfN(**arguments)


def test_results_before_a_bad_prompt_come_first() -> None:
    sampler = BestOfN(ScriptedEngine("yes"), Longest(), n=1)
    finished = []
    with pytest.raises(ConfigError, match="prompt 2"):
        finished.extend(sampler.select_many(["a", "b", "", "c"], progress=False))
    assert [s.prompt.messages[0].content for s in finished] == ["a", "b"]


def test_one_prompt_is_not_several() -> None:
    sampler = BestOfN(ScriptedEngine(), Longest(), n=1)
    with pytest.raises(ConfigError, match="use `select`"):
        sampler.select_many("hello")
    with pytest.raises(ConfigError, match="use `select`"):
        sampler.aselect_many(as_prompt("hello"))


def test_options_of_an_engine_are_refused_for_a_function() -> None:
    for options in ({"seed": 1}, {"sampling": SamplingParams()}, {"keep_tokens": True}):
        with pytest.raises(ConfigError, match="for engines"):
            BestOfN(lambda prompt, n: ["a"], Longest(), n=1, **options)  # type: ignore[arg-type]


def test_one_run_may_feed_another() -> None:
    first = BestOfN(ScriptedEngine("yes"), Longest(), n=2)
    second = BestOfN(ScriptedEngine("no"), Longest(), n=2)
    texts = (s.text for s in first.select_many(["a", "b", "c"], progress=False))
    assert [s.text for s in second.select_many(texts, progress=False)] == ["no"] * 3


def test_a_synchronous_call_inside_a_reward_says_so() -> None:
    inner = BestOfN(ScriptedEngine(), Longest(), n=1)

    class Nested(Recorded):
        async def score(self, prompt: Any, candidates: Any) -> Any:
            inner.select("x")

    with pytest.raises(ConfigError, match="aselect"):
        BestOfN(ScriptedEngine(), Nested(), n=1).select("x")


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(ConfigError, match="empty"):
        BestOfN(ScriptedEngine(), Longest(), n=1).select("")
    sampler = BestOfN(ScriptedEngine(), Longest(), n=1)
    with pytest.raises(ConfigError, match="empty"):
        list(sampler.select_many(["fine", " "], progress=False))


# --- generators -----------------------------------------------------------------------------------


def test_functions_sync_and_async() -> None:
    async def later(prompt: str, n: int) -> list[str]:
        await asyncio.sleep(0.01)
        return [f"{prompt} {i}" for i in range(n)]

    for function in (lambda prompt, n: [f"{prompt} {i}" for i in range(n)], later):
        selection = BestOfN(function, Recorded({"x 2": 1.0}), n=3).select("x")
        assert selection.text == "x 2"
        assert [c.text for c in selection.candidates] == ["x 0", "x 1", "x 2"]


def test_a_function_may_return_candidates_and_gets_chats_as_messages() -> None:
    def function(prompt: Any, n: int) -> list[Candidate]:
        assert prompt == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "x"},
        ]
        return [Candidate(99, "a", mean_logprob=-1.0), Candidate(99, "b", mean_logprob=-2.0)]

    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "x"}]
    selection = BestOfN(function, Recorded(), n=2).select(turns)
    assert [c.index for c in selection.candidates] == [0, 1]
    assert selection.best.mean_logprob == -1.0


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (lambda prompt, n: ["a"], "3 responses"),
        (lambda prompt, n: "abc", "not str"),
        (lambda prompt, n: None, "not NoneType"),
        (lambda prompt, n: {"a": 1, "b": 2, "c": 3}, "not dict"),
    ],
)
def test_a_function_that_returns_something_else(function: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        BestOfN(function, Recorded(), n=3).select("x")


def test_candidates_that_a_function_keeps_are_copied() -> None:
    kept = Candidate(0, "same")
    sampler = BestOfN(lambda prompt, n: [kept] * n, Recorded({"same": 1.0}), n=2)
    first = sampler.select("x")
    sampler.reward = Recorded({"same": 6.0})
    sampler.select("y")
    assert [c.index for c in first.candidates] == [0, 1]
    assert first.scores[0].value == 1.0
    assert not kept.scores


def test_an_object_with_an_async_call_and_a_lazy_list() -> None:
    class Remote:
        async def __call__(self, prompt: str, n: int) -> Any:
            return (f"{prompt} {i}" for i in range(n))

    assert BestOfN(Remote(), Recorded({"x 1": 1.0}), n=2).select("x").text == "x 1"


def test_a_function_that_raises_or_returns_rubbish_gives_failed_candidates() -> None:
    def broken(prompt: str, n: int) -> list[str]:
        raise OSError("no network")

    selection = BestOfN(broken, FLIPReward(ScriptedEngine()), n=2).select("x")
    assert selection.fallback
    assert "no network" in str(selection.best.error)
    mixed = BestOfN(lambda prompt, n: ["a", None], FLIPReward(ScriptedEngine()), n=2)
    assert "NoneType" in str(mixed.select("x").candidates[1].error)


# --- sync, async, interrupted ---------------------------------------------------------------------


def test_async_twins_and_sync_calls_inside_a_running_loop() -> None:
    sampler = BestOfN(ScriptedEngine("yes"), Longest(), n=2)

    async def main() -> None:
        assert (await sampler.aselect("x")).text == "yes"
        assert [s.text async for s in sampler.aselect_many(["a", "b"])] == ["yes", "yes"]
        assert sampler.select("x").text == "yes"  # as in a notebook cell

    asyncio.run(main())


def test_cancelling_aselect_leaves_nothing_running() -> None:
    engine = ScriptedEngine(delay=lambda _: 30.0)
    sampler = BestOfN(engine, Longest(), n=5)

    async def main() -> None:
        task = asyncio.create_task(sampler.aselect("x"))
        while engine.running < 5:
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    wait_until(lambda: engine.running == 0)
    assert engine.aborted == 5


def test_leaving_select_many_early_stops_the_rest() -> None:
    engine = ScriptedEngine(delay=lambda p: 0.2 if "0" in p.messages[0].content else 30.0)
    for _ in BestOfN(engine, Longest(), n=2).select_many(["0", "1", "2"], progress=False):
        break
    wait_until(lambda: engine.running == 0)
    assert engine.aborted == 4


@pytest.mark.usefixtures("sigint")
def test_an_interrupt_keeps_what_is_finished_and_stops_the_rest() -> None:
    engine = ScriptedEngine(delay=lambda p: 60.0 if "slow" in p.messages[-1].content else 0.0)
    sampler = BestOfN(engine, FLIPLikelihood(engine), n=3)
    finished = []
    others = asyncio.all_tasks(
        concurrency.background_loop()
    )  # of engines that other tests have loaded

    def interrupt() -> None:
        while engine.running < 3:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        finished.extend(sampler.select_many(["quick", "slow"], progress=False))
    wait_until(lambda: engine.running == 0)
    assert [s.prompt.messages[0].content for s in finished] == ["quick"]
    assert not asyncio.all_tasks(concurrency.background_loop()) - others


# --- on the embedded model ------------------------------------------------------------------------


def test_end_to_end_on_the_tiny_model(tiny: TransformersEngine) -> None:
    sampler = BestOfN(tiny, FLIPReward(tiny) + 0.1 * FLIPLikelihood(tiny), n=8, seed=1)
    prompts = ["Name 4 fruits.", "Write Ivy, age 31, baker, as JSON."]
    selections = list(sampler.select_many(prompts, progress=False))
    for selection in selections:
        best = max(score.value for score in selection.scores)
        assert selection.scores[selection.index].value == best
        assert all(c.mean_logprob is not None for c in selection.candidates)
        assert all(c.token_ids is None for c in selection.candidates)
    again = sampler.select(prompts[1])
    assert [c.text for c in again.candidates] == [c.text for c in selections[1].candidates]


def test_tokens_are_kept_on_request(tiny: TransformersEngine) -> None:
    sampler = BestOfN(tiny, Majority(), n=2, keep_tokens=True)
    candidate = sampler.select("Name 4 fruits.").best
    assert candidate.token_ids is not None
    assert candidate.token_logprobs is not None
    assert len(candidate.token_ids) == len(candidate.token_logprobs) == candidate.token_count
    assert candidate.sum_logprob == pytest.approx(sum(candidate.token_logprobs))


def test_a_spec_string_is_a_generator() -> None:
    assert BestOfN("tiny", Longest(), n=1).select("Name 4 fruits.").text


def test_progress_shows_rate_failures_and_cache(capsys: pytest.CaptureFixture[str]) -> None:
    engine = ScriptedEngine()
    list(BestOfN(engine, FLIPReward(engine), n=2).select_many(["a", "b"]))
    shown = capsys.readouterr().err
    assert "2 of 2 prompts" in shown
    assert "candidates/s" in shown
    assert "0.0% failed" in shown


@pytest.mark.parametrize("pointwise", [True, False])
def test_a_candidate_that_was_not_drawn_never_wins(pointwise: bool) -> None:
    class Short:
        name = "short"

        def __init__(self) -> None:
            self.pointwise = pointwise

        async def score(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Score]:
            return [Score(-float(len(candidate.text))) for candidate in candidates]

    failed = Candidate(0, "", finish_reason="error", error="timed out")
    drawn = [failed, Candidate(0, "good answer")]
    selection = BestOfN(lambda prompt, n: drawn, Short(), n=2).select("x")
    assert selection.text == "good answer"
    assert selection.scores[0].reason == "no response: timed out"
    assert isnan(selection.scores[0].value)
