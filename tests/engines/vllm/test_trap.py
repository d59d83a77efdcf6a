"""No wrong log-probability may come out: vLLM's prefix cache against transformers."""

import asyncio
import random
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from serving import require_vllm

from bestofn.engines.base import SamplingParams, load_engine
from bestofn.engines.hf import TransformersEngine
from bestofn.rewards.templates import load_template
from bestofn.tiny import answer, heldout_tasks
from bestofn.types import Prompt

TOLERANCE = 1e-3  # nats, for one token


@pytest.fixture(scope="module")
def cramped() -> Iterator[Any]:
    """Room for two long requests, prompts in chunks: evictions and lost places."""
    require_vllm()
    engine = load_engine(
        "vllm:tiny",
        kv_cache_memory_bytes=4 << 20,
        enable_chunked_prefill=True,
        max_num_batched_tokens=64,
        max_num_seqs=24,
        enforce_eager=True,
    )
    yield engine
    engine.close()


def pairs(seed: int, responses: int) -> list[tuple[Prompt, str]]:
    """Backward prefixes with continuations that overlap each other, many of them more than once."""
    rng = random.Random(seed)
    tasks = heldout_tasks(320)
    texts = [answer(task, random.Random(i)) for i, task in enumerate(tasks)]
    template, drawn = load_template("direct"), []
    for _ in range(responses):
        response = "\n".join(rng.sample(texts, rng.choice([1, 1, 2, 4, 6])))[:700]
        first, second = (task.instruction for task in rng.sample(tasks, 2))
        cuts = [response, response[: len(response) // 2]]
        for cut in cuts:
            prefix = template.fill(cut)
            long = f"{first} {second} {first}"
            texts_behind = (first, long, first, long, f"{first} {second}", second)
            drawn += [(prefix, continuation) for continuation in texts_behind]
    return drawn


async def compare(engine: Any, reference: TransformersEngine, seed: int, responses: int) -> Any:
    """Scores every pair twice, together with generations behind the same prefixes."""
    drawn = pairs(seed, responses)
    shuffled = random.Random(seed).sample(drawn, len(drawn))
    before = engine.stats.scored, engine.stats.rescored
    prefixes = list(dict.fromkeys(prefix for prefix, _ in drawn))
    params = SamplingParams(temperature=0.0, max_tokens=48)
    generations = [asyncio.ensure_future(engine.generate(p, params)) for p in prefixes]
    largest = 0.0
    for attempt in (drawn, shuffled):
        results = await asyncio.gather(
            *(engine.loglikelihood(prefix, text, close=True) for prefix, text in attempt)
        )
        expected = await asyncio.gather(
            *(reference.loglikelihood(prefix, text, close=True) for prefix, text in attempt)
        )
        for result, truth in zip(results, expected, strict=True):
            assert result.token_ids == truth.token_ids
            errors = [
                abs(a - b) for a, b in zip(result.token_logprobs, truth.token_logprobs, strict=True)
            ]
            largest = max(largest, *errors)
    await asyncio.gather(*generations)
    scored, rescored = engine.stats.scored - before[0], engine.stats.rescored - before[1]
    return SimpleNamespace(scored=scored, rescored=rescored, largest=largest)


def test_nothing_wrong_with_room_to_cache(
    vllm_tiny: Any, tiny: TransformersEngine, record_property: Any
) -> None:
    found = asyncio.run(compare(vllm_tiny, tiny, seed=1, responses=60))
    print(f"\nroomy: {found}")
    assert found.scored == 1440
    # The provoked trap springs: the same request again has its tail in the cache.
    assert found.rescored > 100
    assert found.largest < TOLERANCE


def test_nothing_wrong_under_eviction_and_chunked_prefill(
    cramped: Any, tiny: TransformersEngine
) -> None:
    lost = []
    cramped.on_finished = lambda output: lost.append(output.metrics.num_preemptions)
    found = asyncio.run(compare(cramped, tiny, seed=2, responses=40))
    print(f"\ncramped: {found}, preempted {sum(count > 0 for count in lost)}")
    assert found.scored == 960
    assert found.rescored > 50
    assert any(lost)
    assert found.largest < TOLERANCE
