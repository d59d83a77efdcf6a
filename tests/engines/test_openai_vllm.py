"""The engine for servers, against vLLM's server of the embedded model and the model itself."""

import asyncio
import json
import re
import time
from collections.abc import Iterator
from urllib.request import urlopen

import pytest

from bestofn import BestOfN, EarlyRejection, FLIPLikelihood, FLIPReward
from bestofn.engines.base import Completion, Engine, SamplingParams, TokenScores, load_engine
from bestofn.engines.hf import TransformersEngine
from bestofn.engines.openai import OpenAIEngine
from bestofn.errors import ContextLengthError
from bestofn.generators import EngineGenerator
from bestofn.prompts import as_prompt
from bestofn.tiny.world import heldout_tasks
from bestofn.types import Message, Prompt, Selection

TASKS = [task.instruction for task in heldout_tasks(20)]
RESPONSES = ["fig, peach", "1, 2, 3", "Zoë 🦉 said:\n\tno", " lead"]


@pytest.fixture(scope="module")
def remote(vllm_server: str) -> Iterator[OpenAIEngine]:
    engine = load_engine(f"openai:{vllm_server}/v1#tiny", template="direct")
    assert isinstance(engine, OpenAIEngine)
    yield engine
    engine.close()


def greedy(engine: Engine, max_tokens: int = 48) -> list[Completion]:
    params = SamplingParams(temperature=0, max_tokens=max_tokens)

    async def all_of_them() -> list[Completion]:
        work = (engine.generate(as_prompt(task), params) for task in TASKS[:10])
        return await asyncio.gather(*work)

    return asyncio.run(all_of_them())


def test_greedy_decoding_is_the_same(remote: OpenAIEngine, tiny: TransformersEngine) -> None:
    for ours, theirs in zip(greedy(remote), greedy(tiny), strict=True):
        assert ours.text == theirs.text
        assert ours.finish_reason == theirs.finish_reason
        assert ours.token_ids == theirs.token_ids
        assert ours.token_logprobs == pytest.approx(theirs.token_logprobs, abs=1e-3)
        assert ours.usage.prompt_tokens == theirs.usage.prompt_tokens
        assert ours.usage.generated_tokens == theirs.usage.generated_tokens
    params = SamplingParams(temperature=0, max_tokens=32, stop=("3", ";"))
    ours, theirs = (
        asyncio.run(engine.generate(as_prompt("Count from 1 to 9."), params))
        for engine in (remote, tiny)
    )
    assert (ours.text, ours.finish_reason) == (theirs.text, theirs.finish_reason)


def scores(engine: Engine) -> list[TokenScores]:
    async def all_of_them() -> list[TokenScores]:
        work = [
            engine.loglikelihood(
                Prompt((Message("system", "Infer."), Message("user", RESPONSES[number % 4]))),
                task,
                close=number % 2 == 0,
                max_tokens=4 if number % 5 == 0 else None,
            )
            for number, task in enumerate(TASKS)
        ]
        return await asyncio.gather(*work)

    return asyncio.run(all_of_them())


def test_scores_are_the_same(remote: OpenAIEngine, tiny: TransformersEngine) -> None:
    for ours, theirs in zip(scores(remote), scores(tiny), strict=True):
        assert ours.token_ids == theirs.token_ids
        assert ours.token_logprobs == pytest.approx(theirs.token_logprobs, abs=1e-3)
        assert ours.complete == theirs.complete
        assert ours.usage.prompt_tokens == theirs.usage.prompt_tokens
        assert ours.usage.scored_tokens == theirs.usage.scored_tokens


@pytest.mark.parametrize("text", ["fig " * 508, "fig " * 509, "fig " * 2000])
def test_overlong_prompt(remote: OpenAIEngine, tiny: TransformersEngine, text: str) -> None:
    """vLLM's server words its refusal in three ways, by how much too long the prompt is."""
    assert remote.context == 512
    errors = []
    for engine in (remote, tiny):
        with pytest.raises(ContextLengthError) as raised:
            asyncio.run(engine.generate(as_prompt(text), SamplingParams()))
        errors.append((raised.value.length, raised.value.limit, raised.value.prompt_tokens))
        with pytest.raises(ContextLengthError):
            asyncio.run(engine.loglikelihood(as_prompt(text), "fig"))
    assert errors[0] == errors[1]


def test_what_just_fits(remote: OpenAIEngine) -> None:
    prompt = as_prompt("fig " * 506)  # 510 tokens in all: one to score, one that vLLM adds
    for max_tokens in (10, 512, 5000):
        params = SamplingParams(temperature=0, max_tokens=max_tokens)
        completion = asyncio.run(remote.generate(prompt, params))
        assert completion.usage.generated_tokens == 2
        assert completion.finish_reason == "length"
    assert len(asyncio.run(remote.loglikelihood(prompt, "fig")).token_ids) == 1
    with pytest.raises(ContextLengthError):
        asyncio.run(remote.loglikelihood(prompt, "fig fig"))


def test_seeds_and_cached_prefixes(remote: OpenAIEngine) -> None:
    prompt, params = as_prompt("peach " * 100), SamplingParams(max_tokens=24)
    first, second, other = (
        asyncio.run(remote.generate(prompt, params, seed)) for seed in (2**63 - 1, 2**63 - 1, 7)
    )
    assert first.token_ids == second.token_ids != other.token_ids
    assert second.usage.cached_tokens == 96


def test_best_of_n_end_to_end(vllm_server: str, remote: OpenAIEngine) -> None:
    spec, params = f"openai:{vllm_server}/v1#tiny", SamplingParams(max_tokens=48)
    for reward in (FLIPReward(remote, max_tokens=32), FLIPLikelihood(remote)):
        best = BestOfN(spec, reward, n=4, sampling=params, seed=0)
        for selection in best.select_many(TASKS[:4], progress=False):
            assert not selection.fallback
            assert all(candidate.error is None for candidate in selection.candidates)


def test_rewards_agree_with_the_embedded_engine(
    remote: OpenAIEngine, tiny: TransformersEngine
) -> None:
    responses = [*RESPONSES[:2], "fig " * 900]  # the last is cut to the context

    def values(engine: Engine) -> list[float]:
        best = BestOfN(lambda prompt, n: responses, FLIPLikelihood(engine), n=3)
        return [score.value for score in best.select(TASKS[0]).scores]

    assert values(remote) == pytest.approx(values(tiny), abs=1e-3)


def test_guided_answer(remote: OpenAIEngine) -> None:
    schema = {
        "type": "object",
        "properties": {"fruit": {"enum": ["fig", "peach"]}},
        "required": ["fruit"],
        "additionalProperties": False,
    }
    params = SamplingParams(temperature=0, max_tokens=200, json_schema=schema)
    answers = [
        asyncio.run(engine.generate(as_prompt("Name 2 fruits."), params)).text
        for engine in (remote, remote.with_options(guided=True))
    ]
    assert not answers[0].startswith("{")
    assert json.loads(answers[1])["fruit"] in ("fig", "peach")


def test_the_worst_are_ended_early_and_the_others_are_the_same(
    vllm_server: str, remote: OpenAIEngine
) -> None:
    reward, params = FLIPLikelihood(remote), SamplingParams(max_tokens=64)

    def drawn(reject: EarlyRejection | None) -> Selection:
        generator = EngineGenerator(remote, params, seed=0, keep_tokens=True)
        return BestOfN(generator, reward, n=8, reject=reject).select(
            "Name 4 fruits as a numbered list."
        )

    plain, early = drawn(None), drawn(EarlyRejection((4, 8), 0.5))
    ended = [c.finish_reason == "rejected" for c in early.candidates]
    assert any(ended)
    for one, other, rejected in zip(plain.candidates, early.candidates, ended, strict=True):
        assert other.token_ids is not None
        assert one.token_ids is not None
        assert other.token_ids == one.token_ids[: len(other.token_ids)]
        assert (other.text == one.text) or rejected
    for _ in range(100):
        if running(vllm_server) == 0:
            break
        time.sleep(0.1)
    assert running(vllm_server) == 0


def running(url: str) -> float:
    with urlopen(f"{url}/metrics", timeout=10) as answer:
        found = re.search(r"vllm:num_requests_running\{.*?\} (\S+)", answer.read().decode())
    assert found is not None
    return float(found[1])


def test_cancelling_frees_the_server(vllm_server: str, remote: OpenAIEngine) -> None:
    params = SamplingParams(max_tokens=500, extra={"ignore_eos": True})

    async def draw_on(task: str) -> None:
        while True:
            await remote.generate(as_prompt(task), params)

    async def cancel() -> None:
        tasks = [asyncio.create_task(draw_on(task)) for task in TASKS[:8]]
        async with asyncio.timeout(60):
            while await asyncio.to_thread(running, vllm_server) < 4:
                assert not any(task.done() for task in tasks), tasks
                await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        assert all(
            isinstance(result, asyncio.CancelledError)
            for result in await asyncio.gather(*tasks, return_exceptions=True)
        )
        # The server counts anew with each step of its engine, so that it takes a request to see.
        async with asyncio.timeout(60):
            while True:
                await remote.generate(as_prompt(TASKS[0]), SamplingParams(max_tokens=1))
                if await asyncio.to_thread(running, vllm_server) == 0:
                    return
                await asyncio.sleep(0.05)

    asyncio.run(cancel())
