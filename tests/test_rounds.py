"""BestOfN with `stop`: rounds, the fixed run's first candidates, costs, failures, cancelling."""

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from fakes import Recorded, ScriptedEngine, wait_until

from bestofn import BestOfN, ExpectedGain, FLIPLikelihood, FLIPReward, concurrency
from bestofn.sampler import choose
from bestofn.types import Candidate, Prompt, Score


def numbered(engine: ScriptedEngine) -> ScriptedEngine:
    """The engine, whose answers now are "answer SEED"."""
    engine.answer = lambda prompt, params, seed: f"answer {seed}"
    return engine


class BySeed(Recorded):
    """A score from 0 to 1 by the response alone; of 20 responses one has the highest, 1."""

    async def score(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Score]:
        await super().score(prompt, candidates)
        return [Score(int(c.text.removeprefix("answer ")) % 20 / 19) for c in candidates]


PROMPTS = [f"prompt {i}" for i in range(30)]


@pytest.mark.parametrize("round_size", [1, 3, 4, 16, 99])
def test_an_adaptive_run_draws_the_first_candidates_of_a_fixed_run(round_size: int) -> None:
    fixed = BestOfN(numbered(ScriptedEngine()), BySeed(), n=16, seed=5)
    engine, stop = numbered(ScriptedEngine()), ExpectedGain(0.01, weight=4.0)
    adaptive = BestOfN(engine, BySeed(), n=16, seed=5, stop=stop, round_size=round_size)
    runs = [sampler.select_many(PROMPTS, progress=False) for sampler in (fixed, adaptive)]
    sizes = []
    for whole, part in zip(*runs, strict=True):
        size = len(part.candidates)
        assert [c.index for c in part.candidates] == list(range(size))
        assert [c.text for c in part.candidates] == [c.text for c in whole.candidates[:size]]
        assert [c.seed for c in part.candidates] == [c.seed for c in whole.candidates[:size]]
        assert part.index == choose(part.prompt, part.candidates, part.reward).index
        # The first end of a round at which the rule says stop, on the scores of the fixed run.
        stops = stop.stops([score.value for score in whole.scores]).tolist()
        ends = [end for end in range(round_size, 16, round_size) if stops[end - 1]]
        assert size == min([*ends, 16])
        sizes.append(size)
    assert len(engine.generated) == sum(sizes)
    assert round_size >= 16 or sum(sizes) < 16 * len(PROMPTS)


def test_at_cost_0_a_reward_with_a_ceiling_selects_as_the_fixed_run_does() -> None:
    fixed = BestOfN(numbered(ScriptedEngine()), BySeed(), n=32, seed=3)
    engine = numbered(ScriptedEngine())
    adaptive = BestOfN(engine, BySeed(), n=32, seed=3, stop=ExpectedGain(0.0), round_size=2)
    runs = [sampler.select_many(PROMPTS, progress=False) for sampler in (fixed, adaptive)]
    assert all(whole.text == part.text for whole, part in zip(*runs, strict=True))
    assert len(engine.generated) < 0.8 * 32 * len(PROMPTS)


def test_over_all_rounds_equal_responses_are_scored_and_paid_once() -> None:
    texts = itertools.cycle(["a", "b", "a"])
    reward = Recorded({"a": 0.5})
    stop = ExpectedGain(0.0)
    sampler = BestOfN(ScriptedEngine(lambda *_: next(texts)), reward, n=9, stop=stop, round_size=2)
    selection = sampler.select("x")
    assert sorted(reward.asked) == [["a"], ["b"]]
    assert [c.scores["recorded"].value for c in selection.candidates] == [0.5, 0, 0.5] * 3
    engine = ScriptedEngine("same")
    likelihood = FLIPLikelihood(engine)
    stop = ExpectedGain(0.0, prior=[0.0])
    paid = BestOfN(engine, likelihood, n=5, stop=stop, round_size=2).select("x").usage
    assert paid.scored_tokens == 2
    assert paid.prompt_tokens == 5 * 10 + 10


def test_a_function_is_called_for_each_round() -> None:
    asked: list[int] = []

    def function(prompt: str, n: int) -> list[str]:
        asked.append(n)
        return [f"{len(asked)}.{i}" for i in range(n)]

    reward = Recorded({"2.1": 1.0})
    sampler = BestOfN(function, reward, n=10, stop=ExpectedGain(0.0), round_size=3)
    selection = sampler.select("x")
    assert asked == [3, 3]
    assert [c.index for c in selection.candidates] == list(range(6))
    assert selection.text == "2.1"
    asked.clear()
    reward.values = {}
    assert len(sampler.select("x").candidates) == 10
    assert asked == [3, 3, 3, 1]


def test_a_prompt_on_which_all_fails_is_given_up() -> None:
    def broken(prompt: str, n: int) -> list[str]:
        raise OSError("no network")

    reward = FLIPReward(ScriptedEngine())
    selection = BestOfN(broken, reward, n=64, stop=ExpectedGain(0.05)).select("x")
    assert selection.fallback
    assert [c.index for c in selection.candidates] == list(range(12))
    assert "no network" in str(selection.error)


def test_the_window_is_that_of_the_candidates_in_flight() -> None:
    def window(**options: Any) -> tuple[int, int]:
        found = BestOfN(ScriptedEngine(), Recorded(), n=32, **options).window
        return found.least, found.size

    assert window() == window(round_size=4) == (8, 16)
    assert window(stop=ExpectedGain(0.1), round_size=4) == (64, 128)
    assert window(stop=ExpectedGain(0.1), round_size=99) == (8, 16)
    assert window(window=5) == (5, 5)


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


def test_work_knows_its_place_in_the_run() -> None:
    async def place(_: str) -> int:
        await asyncio.sleep(0)
        return concurrency.place_in_run()

    assert list(concurrency.map_in_window(place, "abcdef", 2)) == [0, 1, 2, 3, 4, 5]
    assert concurrency.place_in_run() == 0


def test_cancelling_in_a_later_round_leaves_nothing_running() -> None:
    engine = ScriptedEngine()
    engine.delay = lambda _: 0.0 if len(engine.generated) <= 3 else 30.0
    stop = ExpectedGain(0.0)
    sampler = BestOfN(engine, Recorded(), n=9, stop=stop, round_size=3)

    async def main() -> None:
        task = asyncio.create_task(sampler.aselect("x"))
        while engine.running < 3:
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    wait_until(lambda: engine.running == 0)
    assert len(engine.generated) == 6
    assert engine.aborted == 3


def test_an_error_of_the_reward_in_a_later_round_reaches_the_caller() -> None:
    class Breaking(Recorded):
        async def score(self, prompt: Any, candidates: Any) -> Any:
            if len(self.asked) == 2:
                raise RuntimeError("my own bug")
            return await super().score(prompt, candidates)

    texts = itertools.count()
    engine = ScriptedEngine(lambda *_: str(next(texts)))
    sampler = BestOfN(engine, Breaking(), n=8, stop=ExpectedGain(0.0), round_size=2)
    with pytest.raises(RuntimeError, match="my own bug"):
        sampler.select("x")
    assert len(engine.generated) == 4
