"""BestOfN: streaming, deduplication, seeds, ties, failures, rounds, cancelling, any generator."""

import asyncio
import itertools
import os
import signal
import threading
import time
import warnings
from collections.abc import AsyncGenerator, Sequence
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


def numbered(**options: Any) -> ScriptedEngine:
    """An engine whose answers are "answer SEED", or where there is no seed "answer NUMBER"."""
    numbers = itertools.count()

    def answer(prompt: Prompt, params: SamplingParams, seed: int | None) -> str:
        return f"answer {next(numbers) if seed is None else seed}"

    return ScriptedEngine(answer, **options)


def broken(prompt: str, n: int) -> list[str]:
    raise OSError("no network")


class Breaking(Recorded):
    """Fails at one of its calls."""

    at = 0

    async def score(self, prompt: Any, candidates: Any) -> Any:
        if len(self.asked) == self.at:
            raise RuntimeError("my own bug")
        return await super().score(prompt, candidates)


# --- selection ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "index", "tie", "fallback"),
    [
        ([0.1, 0.9, 0.5], 1, False, False),
        ([0.5, 0.9, 0.9], 1, True, False),
        ([0.5, 0.5, 0.9], 2, False, False),
        ([nan, 0.0, nan], 1, False, False),
        ([nan, -1e9, -float("inf")], 1, False, False),
        ([nan, nan], 0, False, True),
    ],
)
def test_choice(values: list[float], index: int, tie: bool, fallback: bool) -> None:
    candidates = [Candidate(i, str(i), scores={"r": Score(v)}) for i, v in enumerate(values)]
    selection = choose(as_prompt("x"), candidates, "r")
    assert (selection.index, selection.tie, selection.fallback) == (index, tie, fallback)
    assert selection.text == str(index)


def test_scores_are_on_their_candidates_and_ties_go_to_the_lowest_index() -> None:
    """Though another one finished first."""
    for values in ({}, {f"answer {i}": float(i) for i in range(6)}):
        delays = itertools.count(6, -1)
        engine = numbered(delay=lambda _, delays=delays: 0.01 * next(delays))
        selection = BestOfN(engine, Recorded(values), n=6).select("x")
        assert [c.text for c in selection.candidates] == [f"answer {i}" for i in range(6)]
        assert [s.value for s in selection.scores] == [
            values.get(f"answer {i}", 0) for i in range(6)
        ]
        assert (selection.index, selection.tie) == ((5, False) if values else (0, True))


def test_a_candidate_is_scored_while_its_siblings_are_drawn() -> None:
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


@pytest.mark.parametrize("rounds", [{}, {"stop": ExpectedGain(0.0, prior=[9.0]), "round_size": 2}])
def test_equal_responses_are_scored_and_paid_once(rounds: dict[str, Any]) -> None:
    texts = itertools.cycle(["a", "b", "a"])
    reward = Recorded({"a": 1.0})
    selection = BestOfN(ScriptedEngine(lambda *_: next(texts)), reward, n=9, **rounds).select("x")
    assert sorted(reward.asked) == [["a"], ["b"]]
    assert [score.value for score in selection.scores] == [1, 0, 1] * 3
    assert selection.scores[0] is not selection.scores[2]
    engine = ScriptedEngine("same")
    usage = BestOfN(engine, FLIPLikelihood(engine), n=5, **rounds).select("x").usage
    assert (usage.scored_tokens, usage.generated_tokens) == (2, 5 * 2)
    assert usage.prompt_tokens == 5 * 10 + 10
    assert usage.seconds > 0


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


# --- faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("pointwise", [True, False])
def test_a_candidate_that_was_not_drawn_never_wins(pointwise: bool) -> None:
    class Short(Recorded):
        async def score(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Score]:
            return [Score(-float(len(candidate.text))) for candidate in candidates]

    drawn = [Candidate(0, "", finish_reason="error", error="timed out"), Candidate(0, "good")]
    reward = Short(pointwise=pointwise)
    selection = BestOfN(lambda prompt, n: drawn, reward, n=2).select("x")
    assert selection.text == "good"
    assert selection.scores[0].reason == "no response: timed out"
    assert isnan(selection.scores[0].value)


def test_when_all_fail_the_first_is_taken() -> None:
    engine = ScriptedEngine(lambda *_: EngineError("out of luck"))
    selection = BestOfN(engine, FLIPReward(engine), n=3).select("x")
    assert (selection.fallback, selection.index, len(selection.candidates)) == (True, 0, 3)
    assert selection.error == "all 3 candidates failed: out of luck"


@pytest.mark.parametrize("at", [0, 2])
def test_an_error_in_a_reward_reaches_the_caller_and_stops_the_rest(at: int) -> None:
    reward = Breaking()
    reward.at = at
    engine = numbered(delay=lambda _: 0.01)
    stop = ExpectedGain(0.0)
    sampler = BestOfN(engine, reward, n=8, stop=stop, round_size=2, window=2)
    with pytest.raises(RuntimeError, match="my own bug"):
        list(sampler.select_many(["a", "b"], progress=False))
    time.sleep(0.05)
    assert engine.running == 0
    assert len(engine.generated) <= 8


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"n": 0}, "n must be at least 1"),
        ({"n": 1, "window": 0}, "window"),
        ({"n": 1, "stop": ExpectedGain(0.1), "round_size": 0}, "round_size"),
        ({"n": 1, "stop": ExpectedGain(0.1), "reward": Majority()}, "compares candidates"),
        ({"n": 1, "reward": "flip"}, "no reward"),
        ({"n": 1, "generator": 7}, "no generator"),
        ({"n": 1, "generator": "nonesuch"}, "no engine"),
        *(
            ({"n": 1, "generator": broken, **options}, "for engines")
            for options in ({"seed": 1}, {"sampling": SamplingParams()}, {"keep_tokens": True})
        ),
    ],
)
def test_bad_arguments(options: dict[str, Any], match: str) -> None:
    arguments = {"generator": ScriptedEngine(), "reward": Longest(), **options}
    with pytest.raises(ConfigError, match=match):
        BestOfN(**arguments)


def test_results_before_a_bad_prompt_come_first() -> None:
    sampler = BestOfN(ScriptedEngine("yes"), Longest(), n=1)
    finished = []
    with pytest.raises(ConfigError, match=r"prompt 2 .*empty"):
        finished.extend(sampler.select_many(["a", "b", "", "c"], progress=False))
    assert [s.prompt.messages[0].content for s in finished] == ["a", "b"]
    with pytest.raises(ConfigError, match="empty"):
        sampler.select("")
    for many in (sampler.select_many, sampler.aselect_many):
        with pytest.raises(ConfigError, match="use `select`"):
            many("hello")


def test_a_synchronous_call_inside_a_reward_says_so() -> None:
    inner = BestOfN(ScriptedEngine(), Longest(), n=1)

    class Nested(Recorded):
        async def score(self, prompt: Any, candidates: Any) -> Any:
            inner.select("x")

    with pytest.raises(ConfigError, match="aselect"):
        BestOfN(ScriptedEngine(), Nested(), n=1).select("x")


# --- generators -----------------------------------------------------------------------------------


async def later(prompt: str, n: int) -> list[str]:
    await asyncio.sleep(0.01)
    return [f"{prompt} {i}" for i in range(n)]


class Remote:
    async def __call__(self, prompt: str, n: int) -> Any:
        return (f"{prompt} {i}" for i in range(n))


@pytest.mark.parametrize(
    "function", [lambda prompt, n: [f"{prompt} {i}" for i in range(n)], later, Remote()]
)
def test_functions_sync_and_async(function: Any) -> None:
    selection = BestOfN(function, Recorded({"x 2": 1.0}), n=3).select("x")
    assert selection.text == "x 2"
    assert [c.text for c in selection.candidates] == ["x 0", "x 1", "x 2"]


def test_a_function_may_return_candidates_which_are_copied_and_gets_chats_as_messages() -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "x"}]
    kept = Candidate(99, "same", mean_logprob=-1.0)

    def function(prompt: Any, n: int) -> list[Candidate]:
        assert prompt == turns
        return [kept] * n

    sampler = BestOfN(function, Recorded({"same": 1.0}), n=2)
    first = sampler.select(turns)
    sampler.reward = Recorded({"same": 6.0})
    sampler.select(turns)
    assert [c.index for c in first.candidates] == [0, 1]
    assert first.best.mean_logprob == -1.0
    assert first.scores[0].value == 1.0
    assert not kept.scores


@pytest.mark.parametrize(
    ("responses", "match"),
    [
        (["a"], "3 responses"),
        ("abc", "not str"),
        (None, "not NoneType"),
        ({"a": 1, "b": 2, "c": 3}, "not dict"),
    ],
)
def test_a_function_that_returns_something_else(responses: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        BestOfN(lambda prompt, n: responses, Recorded(), n=3).select("x")


def test_a_function_that_raises_or_returns_rubbish_gives_failed_candidates() -> None:
    reward = FLIPReward(ScriptedEngine())
    selection = BestOfN(broken, reward, n=64, stop=ExpectedGain(0.05)).select("x")
    assert selection.fallback
    assert [c.index for c in selection.candidates] == list(range(12))  # the prompt is given up
    assert "no network" in str(selection.best.error)
    mixed = BestOfN(lambda prompt, n: ["a", None], reward, n=2)
    assert "NoneType" in str(mixed.select("x").candidates[1].error)


@pytest.mark.parametrize(("lost", "n"), [(5, 20), (4, 20), (20, 9)])
def test_candidates_that_are_cut_inside_their_reasoning(lost: int, n: int) -> None:
    """Once, and not where they are a fifth or less, or 18 that say nothing yet."""
    numbers = itertools.count()
    engine = ScriptedEngine(
        lambda *_: "" if next(numbers) % 20 >= 20 - lost else "an answer",
        finish_reason="length",
        reasoning="hm",
    )
    best = BestOfN(engine, Longest(), n=n, sampling=SamplingParams(max_tokens=64))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for prompt in ("one", "two"):
            best.select(prompt)
    messages = [str(warning.message) for warning in caught if warning.category is UserWarning]
    assert len(messages) == (lost == 5)
    for remedy in ("5 of the first 20", "raise max_tokens", "{'enable_thinking': False}"):
        assert all(remedy in message for message in messages)


# --- sync, async, interrupted ---------------------------------------------------------------------


def test_async_twins_and_sync_calls_inside_a_running_loop() -> None:
    sampler = BestOfN(ScriptedEngine("yes"), Longest(), n=2)

    async def main() -> None:
        assert (await sampler.aselect("x")).text == "yes"
        assert [s.text async for s in sampler.aselect_many(["a", "b"])] == ["yes", "yes"]
        assert sampler.select("x").text == "yes"  # as in a notebook cell

    asyncio.run(main())


@pytest.mark.parametrize("many", [False, True])
def test_cancelling_leaves_nothing_running(many: bool) -> None:
    """In the second round of a prompt."""
    engine = ScriptedEngine()
    engine.delay = lambda _: 0.0 if len(engine.generated) <= 3 else 30.0
    sampler = BestOfN(engine, Recorded(), n=9, stop=ExpectedGain(0.0), round_size=3)

    async def all_of() -> None:
        async for _ in sampler.aselect_many(["x"]):
            pass

    async def main() -> None:
        task = asyncio.create_task(all_of() if many else sampler.aselect("x"))
        while engine.running < 3:
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    wait_until(lambda: engine.running == 0)
    assert (len(engine.generated), engine.aborted) == (6, 3)


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
    others = asyncio.all_tasks(concurrency.background_loop())  # of engines of other tests

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


# --- the window -----------------------------------------------------------------------------------


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


def test_the_window_follows_the_time_of_an_item(monkeypatch: pytest.MonkeyPatch) -> None:
    window = concurrency.Window(at_once=8)

    async def nothing() -> None:
        pass

    def sizes(times: int) -> list[int]:
        return [(concurrency.run(window.timed(nothing())), window.size)[1] for _ in range(times)]

    assert sizes(3) == [64, 64, 64]
    monkeypatch.setattr(concurrency.Window, "PATIENCE", 0.0)
    assert sizes(100)[:2] == [63, 62]
    assert window.size == 32
    monkeypatch.undo()
    assert sizes(2) == [33, 34]
    window = concurrency.Window(at_once=8, begin=16)
    assert (window.size, sizes(3)) == (2, [3, 4, 5])
    monkeypatch.setattr(concurrency.Window, "PATIENCE", 0.0)
    assert sizes(2) == [5, 5]
    assert concurrency.Window(at_once=8, fixed=7, begin=16).size == 7


# --- rounds ---------------------------------------------------------------------------------------


class BySeed(Recorded):
    """A score from 0 to 1 by the response alone; of 20 responses one has the highest, 1."""

    async def score(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Score]:
        return [Score(int(c.text.removeprefix("answer ")) % 20 / 19) for c in candidates]


PROMPTS = [f"prompt {i}" for i in range(30)]


@pytest.mark.parametrize("round_size", [1, 3, 16, 99])
def test_an_adaptive_run_draws_the_first_candidates_of_a_fixed_run(round_size: int) -> None:
    stop, engine, sizes = ExpectedGain(0.01, weight=4.0), numbered(), []
    fixed = BestOfN(numbered(), BySeed(), n=16, seed=5)
    adaptive = BestOfN(engine, BySeed(), n=16, seed=5, stop=stop, round_size=round_size)
    runs = [sampler.select_many(PROMPTS, progress=False) for sampler in (fixed, adaptive)]
    for whole, part in zip(*runs, strict=True):
        size = len(part.candidates)
        assert [c.index for c in part.candidates] == list(range(size))
        assert [c.text for c in part.candidates] == [c.text for c in whole.candidates[:size]]
        assert [c.seed for c in part.candidates] == [c.seed for c in whole.candidates[:size]]
        # The first end of a round at which the rule says stop, on the scores of the fixed run.
        stops = stop.stops([score.value for score in whole.scores]).tolist()
        ends = [end for end in range(round_size, 16, round_size) if stops[end - 1]]
        assert size == min([*ends, 16])
        sizes.append(size)
    assert len(engine.generated) == sum(sizes)
    assert round_size >= 16 or sum(sizes) < 16 * len(PROMPTS)


# --- on the embedded model ------------------------------------------------------------------------


def test_end_to_end_on_the_tiny_model(tiny: TransformersEngine) -> None:
    reward = FLIPReward(tiny) + 0.1 * FLIPLikelihood(tiny)
    sampler = BestOfN(tiny, reward, n=8, seed=1, keep_tokens=True)
    prompts = ["Name 4 fruits.", "Write Ivy, age 31, baker, as JSON."]
    selections = list(sampler.select_many(prompts, progress=False))
    for selection in selections:
        best = max(score.value for score in selection.scores)
        assert selection.scores[selection.index].value == best
        for candidate in selection.candidates:
            assert candidate.token_ids is not None
            assert candidate.token_logprobs is not None
            assert len(candidate.token_ids) == candidate.token_count
            assert candidate.sum_logprob == pytest.approx(sum(candidate.token_logprobs))
    again = sampler.select(prompts[1])
    assert [c.text for c in again.candidates] == [c.text for c in selections[1].candidates]


def test_a_spec_is_a_generator_and_tokens_are_not_kept() -> None:
    best = BestOfN("tiny", Longest(), n=1).select("Name 4 fruits.").best
    assert best.text
    assert best.token_ids is None


def test_a_generator_that_gives_fewer_ends() -> None:
    class Fewer:
        async def draw(
            self, prompt: Prompt, n: int, *, start: int = 0
        ) -> AsyncGenerator[Candidate]:
            if start == 0:
                yield Candidate(0, "one")

    selection = BestOfN(Fewer(), Recorded(), n=6, stop=ExpectedGain(0.0), round_size=2).select("x")
    assert [candidate.text for candidate in selection.candidates] == ["one"]


def test_a_budget_holds() -> None:
    """Of three tokens each, where five are allowed."""
    engine = ScriptedEngine("an answer")
    for budget, n in ((5, 1), (9, 2), (12, 3), (100, 8)):
        sampling = SamplingParams(max_tokens=5)
        selection = BestOfN(engine, Recorded(), n=8, sampling=sampling, budget=budget).select("x")
        assert len(selection.candidates) == n
        assert selection.usage.generated_tokens <= budget
    with pytest.raises(ConfigError, match="at least max_tokens"):
        BestOfN(engine, Recorded(), n=8, sampling=SamplingParams(max_tokens=5), budget=4)
    with pytest.raises(ConfigError, match="needs an engine"):
        BestOfN(lambda prompt, n: ["a"] * n, Recorded(), n=8, budget=4)
