"""The transformers engine against plain, unbatched transformers, and its behaviour under load."""

import asyncio
import gc
import itertools
import random
import re
import time
from collections.abc import Awaitable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM as AutoModel
from transformers import (
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedModel,
    Qwen3Config,
)

from bestofn import concurrency
from bestofn.engines.base import Completion, SamplingParams, TokenScores, load_engine
from bestofn.engines.hf import TransformersEngine
from bestofn.engines.hf.batch import BLOCK, Batch, PrefixCache
from bestofn.engines.hf.scheduler import Scheduler
from bestofn.engines.model_files import locate
from bestofn.errors import ConfigError, ContextLengthError, EngineError
from bestofn.prompts import as_prompt
from bestofn.tiny import heldout_tasks
from bestofn.types import Message, Prompt

GREEDY = SamplingParams(temperature=0, max_tokens=40)
STORY = "Write a story of 28 sentences about Mia the baker and a fox."
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "head_dim": 8,
}
CONFIGS = {
    "llama with grouped heads": LlamaConfig(**SMALL),
    "qwen3": Qwen3Config(**SMALL),
    "mistral with a window of 8": MistralConfig(**SMALL, sliding_window=8),
    "gemma2 with a window of 8 and capped logits": Gemma2Config(
        **SMALL, sliding_window=8, final_logit_softcapping=5.0, query_pre_attn_scalar=8
    ),
    "gpt2 with learnt positions": GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=256),
}


def together(calls: list[Awaitable[Any]]) -> list[Any]:
    async def gather() -> list[Any]:
        return await asyncio.gather(*calls, return_exceptions=True)

    return concurrency.run(gather())


def model_of(engine: TransformersEngine) -> PreTrainedModel:
    return engine._scheduler.model


def random_text(rng: random.Random, words: int) -> str:
    vocabulary = "count from 3 to 9 the fox, lake; JSON 47 Zoë {x} river \n is".split(" ")
    return " ".join(rng.choice(vocabulary) for _ in range(words))


def plain(engine: TransformersEngine, prompt: str, ids: list[int]) -> tuple[Any, Any]:
    """Log-probabilities of the tokens, and the largest ones: one forward pass, no cache."""
    prefix, _ = engine._chat.encode(as_prompt(prompt))
    with torch.inference_mode():
        logits = model_of(engine)(torch.tensor([[*prefix, *ids]])).logits[0].float()
    logprobs = logits.log_softmax(-1)[len(prefix) - 1 : -1]
    return logprobs.gather(1, torch.tensor(ids)[:, None])[:, 0], logprobs.max(dim=-1).values


def assert_scored(engine: TransformersEngine, prompt: str, scores: TokenScores) -> None:
    expected, _ = plain(engine, prompt, scores.token_ids)
    assert torch.allclose(torch.tensor(scores.token_logprobs), expected, atol=1e-4)


def assert_greedy(engine: TransformersEngine, prompt: str, completion: Completion) -> None:
    """Each token is the most likely one after those before it, with its true log-probability."""
    chosen, largest = plain(engine, prompt, completion.token_ids)
    assert completion.token_logprobs is not None
    assert torch.allclose(torch.tensor(completion.token_logprobs), chosen, atol=1e-4)
    assert bool((largest - chosen < 1e-4).all())


@pytest.fixture(scope="module", params=CONFIGS.values(), ids=CONFIGS)
def other_model(
    request: pytest.FixtureRequest, tiny: TransformersEngine, tmp_path_factory: Any
) -> Iterator[TransformersEngine]:
    """A randomly initialised model of another architecture, with the tiny model's tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    config = request.param
    config.vocab_size, config.eos_token_id = len(tiny._chat.tokenizer), 1
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    tiny._chat.tokenizer.save_pretrained(folder)
    engine = TransformersEngine(str(folder), device="cpu", max_rows=6)
    yield engine
    engine.close()


# --- exactness ------------------------------------------------------------------------------------


def test_loglikelihood_equals_plain_forward(tiny: TransformersEngine) -> None:
    rng = random.Random(0)
    stems = [random_text(rng, 30) for _ in range(5)]
    pairs = [
        (
            (rng.choice(stems) if rng.random() < 0.5 else "")
            + random_text(rng, rng.randint(1, 80)),
            random_text(rng, rng.randint(1, 30)),
        )
        for _ in range(200)
    ]
    for _ in range(2):  # the second time from the prefix cache, in another order
        rng.shuffle(pairs)
        calls = [tiny.loglikelihood(as_prompt(p), c, close=True) for p, c in pairs]
        for (prompt, _), scores in zip(pairs, together(calls), strict=True):
            assert_scored(tiny, prompt, scores)


def test_other_architectures_score_and_decode_exactly(other_model: TransformersEngine) -> None:
    rng = random.Random(1)
    stem = random_text(rng, 25)
    prompts = [
        stem[: rng.randrange(len(stem))] + random_text(rng, rng.randint(1, 20)) for _ in range(24)
    ]
    # Scored while others decode, so that waves and steps interleave.
    decoding = [other_model.generate(as_prompt(prompt), GREEDY) for prompt in prompts]
    scoring = [other_model.loglikelihood(as_prompt(p), "a fox 3", close=True) for p in prompts]
    results = together([*decoding, *scoring])
    for prompt, completion, scores in zip(prompts, results[:24], results[24:], strict=True):
        assert_scored(other_model, prompt, scores)
        assert_greedy(other_model, prompt, completion)


def test_bfloat16_on_request(tiny: TransformersEngine) -> None:
    """Coarser numbers, the same model: each token's log-probability differs a little."""
    engine = load_engine("tiny", dtype="bfloat16", device="cpu")
    assert isinstance(engine, TransformersEngine)
    assert (model_of(tiny).dtype, model_of(engine).dtype) == (torch.float32, torch.bfloat16)
    task = heldout_tasks(1)[0]
    prompt, answer = as_prompt(task.instruction), "Count from 3 to 9."
    coarse, fine = together([e.loglikelihood(prompt, answer) for e in (engine, tiny)])
    drawn, again = together([engine.generate(prompt, GREEDY, seed=1) for _ in range(2)])
    engine.close()
    assert coarse.token_logprobs == pytest.approx(fine.token_logprobs, rel=0.05, abs=0.1)
    assert coarse.token_logprobs != fine.token_logprobs
    assert drawn.token_ids == again.token_ids
    with pytest.raises(EngineError, match="cannot load model"):
        load_engine("tiny", dtype="bfloat17")


# --- sampling -------------------------------------------------------------------------------------


def test_a_seed_fixes_a_candidate_whatever_runs_beside_it(tiny: TransformersEngine) -> None:
    prompt = as_prompt("Write a story of 4 sentences about Mia the baker and a fox.")
    params = SamplingParams(max_tokens=60)
    (alone,) = together([tiny.generate(prompt, params, seed=7)])
    crowd = together([tiny.generate(prompt, params, seed=seed) for seed in range(12)])
    assert crowd[7].token_ids == alone.token_ids
    assert len({tuple(c.token_ids) for c in crowd}) > 6
    unseeded = together([tiny.generate(prompt, SamplingParams()) for _ in range(6)])
    assert len({c.text for c in unseeded}) > 1


def test_length_and_stop(tiny: TransformersEngine) -> None:
    prompt = as_prompt("Write Ivy, age 31, baker, as JSON.")
    cut, whole = together(
        [tiny.generate(prompt, params) for params in (replace(GREEDY, max_tokens=3), GREEDY)]
    )
    assert (cut.finish_reason, len(cut.token_ids), cut.usage.generated_tokens) == ("length", 3, 3)
    assert whole.finish_reason == "stop"
    assert whole.token_ids[-1] == tiny._chat.tokenizer.eos_token_id
    stop = whole.text[8:11]
    (stopped,) = together([tiny.generate(prompt, replace(GREEDY, stop=("never there", stop)))])
    assert stopped.text == whole.text[: whole.text.index(stop)]
    assert stopped.finish_reason == "stop"
    assert len(stopped.token_ids) < len(whole.token_ids)


def test_an_overlong_prompt_fails_alone(tiny: TransformersEngine) -> None:
    long, full = as_prompt("x" * 2000), as_prompt("x" * (tiny.context - 10))
    failed, unscored, cut = together(
        [
            tiny.generate(long, GREEDY),
            tiny.loglikelihood(long, "5"),
            tiny.generate(full, SamplingParams(max_tokens=500), seed=1),
        ]
    )
    for error in (failed, unscored):
        assert isinstance(error, ContextLengthError)
        assert error.limit == 512 < 2000 < error.length
    assert cut.usage.prompt_tokens + len(cut.token_ids) <= tiny.context


# --- work that is shared, saved or given up -------------------------------------------------------


def computed(engine: TransformersEngine, calls: list[Awaitable[Any]]) -> tuple[int, list[Any]]:
    """Positions that went through the model, padding included, and the results."""
    widths: list[int] = []
    hook = model_of(engine).register_forward_pre_hook(
        lambda _, __, inputs: widths.append(inputs["input_ids"].numel()), with_kwargs=True
    )
    results = together(calls)
    hook.remove()
    return sum(widths), results


SERIAL = itertools.count()


def fresh_prompt(words: int = 40) -> str:
    """A prompt that no other test has put into the cache."""
    return f"{next(SERIAL)} " + "river, " * words


def test_equal_prompts_are_computed_once(tiny: TransformersEngine) -> None:
    prompt = as_prompt(fresh_prompt())
    length = len(tiny._chat.encode(prompt)[0])
    params = SamplingParams(max_tokens=1)
    tokens, results = computed(tiny, [tiny.generate(prompt, params, seed=i) for i in range(8)])
    assert tokens <= length
    assert sum(r.usage.cached_tokens for r in results) == 8 * length - tokens
    again, _ = computed(tiny, [tiny.generate(prompt, params)])
    assert again <= BLOCK


def test_shared_beginnings_are_computed_once(tiny: TransformersEngine) -> None:
    """Also of requests that arrive together, and of nested cuts."""
    stem, text = fresh_prompt(), fresh_prompt(words=150)
    for prompts, longest in [
        ([f"{stem} {i}" for i in range(6)], stem),
        ([text[: 7 * words] for words in (20, 40, 80, 150)], text),
    ]:
        calls = [tiny.loglikelihood(as_prompt(prompt), "9") for prompt in prompts]
        tokens, results = computed(tiny, calls)
        length = len(tiny._chat.encode(as_prompt(longest))[0])
        assert tokens < length + len(prompts) * 2 * BLOCK
        counted = [r.usage.prompt_tokens - r.usage.cached_tokens for r in results]
        assert sum(counted) <= tokens


def test_cancelled_requests_leave_and_others_finish(tiny: TransformersEngine) -> None:
    params, scheduler = SamplingParams(max_tokens=200), tiny._scheduler

    async def cancel_some() -> list[Any]:
        calls = (tiny.generate(as_prompt(STORY), params, seed=i) for i in range(10))
        tasks = list(map(asyncio.ensure_future, calls))
        while not any(request.params is params for request in scheduler.running):
            await asyncio.sleep(0.005)
        for task in tasks[:6]:
            task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    results = concurrency.run(cancel_some())
    assert all(isinstance(r, asyncio.CancelledError) for r in results[:6])
    expected = together([tiny.generate(as_prompt(STORY), params, seed=i) for i in range(6, 10)])
    assert [r.token_ids for r in results[6:]] == [r.token_ids for r in expected]
    deadline = time.monotonic() + 30
    while scheduler.running and time.monotonic() < deadline:
        time.sleep(0.002)
    assert not scheduler.running


def test_little_memory_only_slows_down(
    tiny: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for a few rows the rest wait, and come out the same."""
    engine = load_engine("tiny", kv_cache_gib=0.002, max_rows=6)
    assert isinstance(engine, TransformersEngine)
    scheduler, original, sizes = engine._scheduler, Scheduler._decode, [(0, 0)]

    def watched(self: Scheduler) -> None:
        original(self)
        sizes.append((len(self.running), len(self.running) * self.batch.columns))

    prompts = [as_prompt(task.instruction) for task in heldout_tasks(12)]
    prompts += [as_prompt(fresh_prompt(words)) for words in (3, 20, 45, 3)]
    params = SamplingParams(max_tokens=30)
    wide = together([tiny.generate(p, params, seed=3) for p in prompts])
    monkeypatch.setattr(Scheduler, "_decode", watched)
    narrow = together([engine.generate(p, params, seed=3) for p in prompts])
    assert [r.token_ids for r in narrow] == [r.token_ids for r in wide]
    assert 1 < max(rows for rows, _ in sizes) <= 6
    assert all(tokens <= scheduler.kv_tokens for _, tokens in sizes)
    assert scheduler.prefixes.tokens <= scheduler.prefixes.capacity
    engine.close()


async def while_decoding(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch, broken: Any, error: Exception
) -> list[Any]:
    """A running request, and two that come while a method fails, with their results."""

    def fail(*_: Any, **__: Any) -> None:
        raise error

    params = SamplingParams(max_tokens=300)
    running = asyncio.create_task(engine.generate(as_prompt(STORY), params, seed=4))
    # A request of an earlier test stays in the batch until the next turn.
    while not any(r.seed == 4 and not r.future.done() for r in engine._scheduler.running):
        await asyncio.sleep(0.002)
    with monkeypatch.context() as patch:
        patch.setattr(*broken, fail)
        calls = [engine.generate(as_prompt("Add 2 and 3."), GREEDY) for _ in range(2)]
        failed = await asyncio.gather(*calls, return_exceptions=True)
    return [*await asyncio.gather(running, return_exceptions=True), *failed]


@pytest.mark.parametrize(
    ("broken", "error", "match", "spared"),
    [
        ((Scheduler, "_decode"), ZeroDivisionError("bad step"), "ZeroDivisionError: bad ", False),
        ((Batch, "forward"), torch.OutOfMemoryError("2 GiB"), "out of memory; .* max_rows", False),
        ((Batch, "join"), MemoryError("no room"), "no room", False),
        ((PrefixCache, "match"), KeyError("bug"), "bug", False),
        ((Scheduler, "_prefill"), RuntimeError("bad kernel"), "bad kernel", True),
    ],
)
def test_nothing_hangs_when_the_batch_breaks(
    tiny: TransformersEngine,
    monkeypatch: pytest.MonkeyPatch,
    broken: Any,
    error: Exception,
    match: str,
    spared: bool,
) -> None:
    """What leaves the batch in an unknown state fails all in flight, a prefill its requests."""
    work = while_decoding(tiny, monkeypatch, broken, error)
    story, *failed = concurrency.run(asyncio.wait_for(work, 60))
    for result in failed if spared else [story, *failed]:
        assert isinstance(result, EngineError)
        assert re.search(match, str(result))
    params = SamplingParams(max_tokens=300)
    (alone,) = together([tiny.generate(as_prompt(STORY), params, seed=4)])
    assert not spared or story.token_ids == alone.token_ids


def test_a_closed_engine_says_so_at_once() -> None:
    engine = load_engine("tiny")
    assert isinstance(engine, TransformersEngine)
    story = as_prompt(STORY)

    async def close_in_between() -> Any:
        task = asyncio.create_task(engine.generate(story, SamplingParams(max_tokens=400)))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(engine.close)
        return await asyncio.gather(task, return_exceptions=True)

    (failed,) = concurrency.run(close_in_between())
    (late,) = together([engine.generate(story, GREEDY)])
    assert isinstance(failed, EngineError)
    assert isinstance(late, EngineError)
    assert "closed" in str(late)
    assert not hasattr(engine._scheduler, "model")  # its memory is free again


def test_a_view_shares_the_engine_and_keeps_it(tiny: TransformersEngine) -> None:
    engine = load_engine("tiny")
    assert isinstance(engine, TransformersEngine)
    view = engine.with_options(chat_template_kwargs={"enable_thinking": False})
    scheduler = engine._scheduler
    assert view._scheduler is scheduler
    del engine
    gc.collect()
    first, second = together([e.generate(as_prompt("Add 2 and 3."), GREEDY) for e in (tiny, view)])
    assert first.text == second.text
    with pytest.raises(ConfigError, match="no option lora; load the model with 'vllm:"):
        view.with_options(lora="adapter")
    del view
    gc.collect()
    assert not scheduler.is_alive()


# --- loading --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "options", "match"),
    [
        ("hf:{folder}/nowhere", {}, "no such folder"),
        ("hf:{folder}", {}, "cannot load model"),
        ("tiny", {"device": "abacus"}, "cannot load model .* device 'abacus'"),
    ],
)
def test_what_cannot_be_loaded(
    spec: str, options: dict[str, Any], match: str, tmp_path: Path
) -> None:
    for file in Path(locate("tiny")).iterdir():
        data = file.read_bytes()
        (tmp_path / file.name).write_bytes(data[:5000] if file.suffix == ".safetensors" else data)
    with pytest.raises(EngineError, match=match):
        load_engine(spec.format(folder=tmp_path), **options)


def test_options_are_checked(tiny: TransformersEngine) -> None:
    with pytest.raises(ConfigError, match="max_rows"):
        load_engine("tiny", max_rows=0)
    (unknown,) = together(
        [tiny.generate(as_prompt("Add 2 and 3."), SamplingParams(extra={"beam_width": 3}))]
    )
    assert isinstance(unknown, ConfigError)
    assert "beam_width" in str(unknown)
    (nothing,) = together([tiny.loglikelihood(as_prompt("Add 2 and 3."), "")])
    assert isinstance(nothing, ConfigError)


def test_an_architecture_with_another_kind_of_state_is_refused(
    tiny: TransformersEngine, tmp_path: Path
) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(hidden_size=16, num_hidden_layers=1, state_size=4, vocab_size=1000)
    MambaForCausalLM(config).save_pretrained(tmp_path)
    tiny._chat.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(EngineError, match="does not run"):
        load_engine(f"hf:{tmp_path}")


# --- the next token -------------------------------------------------------------------------------


def test_first_tokens_are_those_of_the_plain_forward_pass(tiny: TransformersEngine) -> None:
    prompt, answers = as_prompt("Name 4 fruits."), ["1", "10", "fig", "Yes"]
    found = concurrency.run(tiny.first_tokens(prompt, answers))
    ids, _ = tiny._chat.encode(prompt)
    model = tiny._scheduler.model
    with torch.inference_mode():
        expected = model(torch.tensor([ids])).logits[0, -1].float().log_softmax(-1)
    first = [tiny._chat.encode_continuation(answer, close=False)[0] for answer in answers]
    assert found.token_ids == first
    assert found.token_logprobs == pytest.approx([float(expected[i]) for i in first], abs=1e-4)
    assert found.usage.scored_tokens == len(answers)


def test_an_answer_that_has_begun_is_gone_on_with(tiny: TransformersEngine) -> None:
    """What comes behind the first tokens of a greedy answer is the rest of it."""
    asked = as_prompt("Name 4 fruits as a numbered list.")
    params = SamplingParams(temperature=0.0, max_tokens=60)
    whole = concurrency.run(tiny.generate(asked, params)).text
    cut = whole.index("\n")
    begun = Prompt((*asked.messages, Message("assistant", whole[:cut])))
    assert concurrency.run(tiny.generate(begun, params)).text.strip() == whole[cut:].strip()
    scores = concurrency.run(tiny.loglikelihood(begun, whole[cut:], close=True))
    assert min(scores.token_logprobs) > -3
