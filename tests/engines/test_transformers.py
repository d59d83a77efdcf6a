"""The embedded engine against plain, unbatched transformers, and its behaviour under load."""

import asyncio
import itertools
import json
import random
from collections.abc import Awaitable, Iterator
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
from bestofn.engines.hf.kv import BLOCK
from bestofn.errors import ConfigError, ContextLengthError, EngineError
from bestofn.prompts import as_prompt
from bestofn.tiny import heldout_tasks

GREEDY = SamplingParams(temperature=0, max_tokens=40)
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
    return engine._scheduler.runner.model


def random_text(rng: random.Random, words: int) -> str:
    vocabulary = "count from 3 to 9 the fox, lake; JSON 47 Zoë {x} river \n is".split(" ")
    return " ".join(rng.choice(vocabulary) for _ in range(words))


def reference_logprobs(
    engine: TransformersEngine, prompt: str, scores: TokenScores
) -> torch.Tensor:
    """One plain forward pass over prompt and continuation, no batch, no cache."""
    prefix, _ = engine._chat.encode(as_prompt(prompt))
    ids = torch.tensor([[*prefix, *scores.token_ids]])
    with torch.inference_mode():
        logprobs = model_of(engine)(ids).logits[0].float().log_softmax(-1)
    targets = torch.tensor(scores.token_ids)[:, None]
    return logprobs[len(prefix) - 1 : -1].gather(1, targets)[:, 0]


def largest_difference(engine: TransformersEngine, pairs: list[tuple[str, str]]) -> float:
    results = together([engine.loglikelihood(as_prompt(p), c, close=True) for p, c in pairs])
    return max(
        float((reference_logprobs(engine, p, r) - torch.tensor(r.token_logprobs)).abs().max())
        for (p, _), r in zip(pairs, results, strict=True)
    )


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
    engine = TransformersEngine(str(folder), device="cpu", max_rows=6, wave_tokens=128)
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
    # Twice: the second time from the prefix cache.
    assert largest_difference(tiny, pairs) < 1e-4
    assert largest_difference(tiny, pairs) < 1e-4


def test_other_architectures_score_and_decode_exactly(other_model: TransformersEngine) -> None:
    rng = random.Random(1)
    stem = random_text(rng, 25)
    pairs = [
        (stem[: rng.randrange(len(stem))] + random_text(rng, rng.randint(1, 20)), "a fox 3")
        for _ in range(24)
    ]
    prompts = [prompt for prompt, _ in pairs]
    # Scored while others decode, so that waves and steps interleave.
    decoding = [other_model.generate(as_prompt(prompt), GREEDY) for prompt in prompts]
    scoring = [other_model.loglikelihood(as_prompt(p), c, close=True) for p, c in pairs]
    results = together([*decoding, *scoring])
    for prompt, completion, scores in zip(prompts, results[:24], results[24:], strict=True):
        expected = reference_logprobs(other_model, prompt, scores)
        assert torch.allclose(torch.tensor(scores.token_logprobs), expected, atol=1e-4)
        assert_greedy(other_model, prompt, completion)


def assert_greedy(engine: TransformersEngine, prompt: str, completion: Completion) -> None:
    """Each token is the most likely one after those before it, with its true log-probability."""
    prefix, _ = engine._chat.encode(as_prompt(prompt))
    ids = torch.tensor([[*prefix, *completion.token_ids]])
    with torch.inference_mode():
        logprobs = model_of(engine)(ids).logits[0].float().log_softmax(-1)[len(prefix) - 1 : -1]
    chosen = logprobs.gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0]
    assert completion.token_logprobs is not None
    assert torch.allclose(torch.tensor(completion.token_logprobs), chosen, atol=1e-4)
    assert bool((logprobs.max(dim=-1).values - chosen < 1e-4).all())


def test_greedy_decoding_in_a_crowd(tiny: TransformersEngine) -> None:
    """Long and short requests join and leave; each decodes as if it were alone."""
    prompts = [task.instruction for task in heldout_tasks(60)]
    results = together([tiny.generate(as_prompt(prompt), GREEDY) for prompt in prompts])
    for prompt, completion in zip(prompts, results, strict=True):
        assert_greedy(tiny, prompt, completion)


def test_order_of_requests_does_not_count(tiny: TransformersEngine) -> None:
    pairs = [
        (task.instruction, random_text(random.Random(i), 9))
        for i, task in enumerate(heldout_tasks(40))
    ]
    order = random.Random(5).sample(range(40), 40)
    straight = together([tiny.loglikelihood(as_prompt(p), c) for p, c in pairs])
    shuffled = together([tiny.loglikelihood(as_prompt(pairs[i][0]), pairs[i][1]) for i in order])
    for place, i in enumerate(order):
        assert shuffled[place].token_logprobs == pytest.approx(straight[i].token_logprobs, abs=1e-4)


# --- sampling -------------------------------------------------------------------------------------


def test_a_seed_fixes_a_candidate_whatever_runs_beside_it(tiny: TransformersEngine) -> None:
    prompt = as_prompt("Write a story of 4 sentences about Mia the baker and a fox.")
    params = SamplingParams(max_tokens=60)
    (alone,) = together([tiny.generate(prompt, params, seed=7)])
    crowd = together([tiny.generate(prompt, params, seed=seed) for seed in range(12)])
    assert crowd[7].token_ids == alone.token_ids
    assert len({tuple(c.token_ids) for c in crowd}) > 6


def test_without_a_seed_candidates_differ(tiny: TransformersEngine) -> None:
    prompt = as_prompt("Write a story of 4 sentences about Mia the baker and a fox.")
    drawn = together([tiny.generate(prompt, SamplingParams()) for _ in range(6)])
    assert len({c.text for c in drawn}) > 1


def test_repetition_penalty_forbids_repeats(tiny: TransformersEngine) -> None:
    prompt = as_prompt("Write the word fox 9 times.")
    params = SamplingParams(temperature=0, max_tokens=20, repetition_penalty=1e6)
    plain = SamplingParams(max_tokens=20)
    results = together([tiny.generate(prompt, p, seed=0) for p in (params, plain, params)])
    seen = set(tiny._chat.encode(prompt)[0])
    assert len(set(results[0].token_ids)) == len(results[0].token_ids)
    assert not seen & set(results[0].token_ids[:-1])
    assert results[2].token_ids == results[0].token_ids


def test_length_and_stop(tiny: TransformersEngine) -> None:
    prompt = as_prompt("Count from 3 to 30.")
    cut, whole = together(
        [
            tiny.generate(prompt, SamplingParams(temperature=0, max_tokens=3)),
            tiny.generate(as_prompt("Write Ivy, age 31, baker, as JSON."), GREEDY),
        ]
    )
    assert (cut.finish_reason, len(cut.token_ids)) == ("length", 3)
    assert whole.finish_reason == "stop"
    assert whole.token_ids[-1] == tiny._chat.tokenizer.eos_token_id
    assert cut.usage.generated_tokens == 3


def test_stop_strings_end_and_are_removed(tiny: TransformersEngine) -> None:
    prompt = as_prompt("Write Ivy, age 31, baker, as JSON.")
    (plain,) = together([tiny.generate(prompt, GREEDY)])
    stop = plain.text[8:11]
    params = SamplingParams(temperature=0, max_tokens=40, stop=("never there", stop))
    (stopped,) = together([tiny.generate(prompt, params)])
    assert stopped.text == plain.text[: plain.text.index(stop)]
    assert stopped.finish_reason == "stop"
    assert len(stopped.token_ids) < len(plain.token_ids)


def test_generation_ends_at_the_context(tiny: TransformersEngine) -> None:
    ids = "x" * (tiny.context - 10)
    length = len(tiny._chat.encode(as_prompt(ids))[0])
    (result,) = together([tiny.generate(as_prompt(ids), SamplingParams(max_tokens=500), seed=1)])
    assert len(result.token_ids) <= tiny.context - length


def test_an_overlong_prompt_fails_alone(tiny: TransformersEngine) -> None:
    long = as_prompt("x" * 2000)
    fine = as_prompt("Add 2 and 3.")
    failed, result, unscored = together(
        [
            tiny.generate(long, GREEDY),
            tiny.generate(fine, GREEDY),
            tiny.loglikelihood(long, "5"),
        ]
    )
    assert isinstance(failed, ContextLengthError)
    assert failed.limit == 512
    assert failed.length > 2000
    assert isinstance(unscored, ContextLengthError)
    assert isinstance(result, Completion)


# --- work that is shared, saved or given up -------------------------------------------------------


def computed(engine: TransformersEngine, calls: list[Awaitable[Any]]) -> tuple[int, list[Any]]:
    before = engine.stats.computed_tokens
    results = together(calls)
    return engine.stats.computed_tokens - before, results


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


def test_a_shared_beginning_is_computed_once_even_in_one_wave(tiny: TransformersEngine) -> None:
    stem = fresh_prompt()
    stem_ids = len(tiny._chat.encode(as_prompt(stem))[0])
    prompts = [as_prompt(f"{stem} {i}") for i in range(6)]
    tokens, _ = computed(tiny, [tiny.loglikelihood(p, "9") for p in prompts])
    assert tokens < stem_ids + 6 * 2 * BLOCK


def test_nested_cuts_cost_little_more_than_the_longest(tiny: TransformersEngine) -> None:
    text = fresh_prompt(words=150)
    cuts = [as_prompt(text[: 7 * words]) for words in (20, 40, 80, 150)]
    longest = len(tiny._chat.encode(cuts[-1])[0])
    tokens, _ = computed(tiny, [tiny.loglikelihood(cut, "9") for cut in cuts])
    assert tokens < longest + len(cuts) * 2 * BLOCK


def test_cancelled_requests_leave_and_others_finish(tiny: TransformersEngine) -> None:
    story = as_prompt("Write a story of 28 sentences about Mia the baker and a fox.")
    scheduler = tiny._scheduler

    async def cancel_some() -> list[Any]:
        params = SamplingParams(max_tokens=200)
        tasks = [asyncio.create_task(tiny.generate(story, params, seed=i)) for i in range(10)]
        while not scheduler.batch.requests:
            await asyncio.sleep(0.005)
        for task in tasks[:6]:
            task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    results = concurrency.run(cancel_some())
    assert all(isinstance(r, asyncio.CancelledError) for r in results[:6])
    expected = together(
        [tiny.generate(story, SamplingParams(max_tokens=200), seed=i) for i in range(6, 10)]
    )
    assert [r.token_ids for r in results[6:]] == [r.token_ids for r in expected]
    assert not scheduler.batch.requests


def test_little_memory_only_slows_down(tiny: TransformersEngine) -> None:
    """With room for a few rows the rest wait, and come out the same."""
    engine = load_engine("tiny", kv_cache_gib=0.002, max_rows=3, wave_tokens=64)
    assert isinstance(engine, TransformersEngine)
    prompts = [as_prompt(task.instruction) for task in heldout_tasks(12)]
    params = SamplingParams(max_tokens=30)
    narrow = together([engine.generate(p, params, seed=3) for p in prompts])
    wide = together([tiny.generate(p, params, seed=3) for p in prompts])
    assert [r.token_ids for r in narrow] == [r.token_ids for r in wide]
    assert engine._scheduler.cache.tokens <= engine._scheduler.cache.capacity
    engine.close()


def test_a_failing_forward_pass_fails_its_requests_and_no_others(
    tiny: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = tiny._scheduler.runner
    prompt = as_prompt("Add 2 and 3.")
    for error, match in [
        (RuntimeError("bad kernel"), "bad kernel"),
        (torch.OutOfMemoryError("2 GiB asked for"), "out of memory"),
    ]:

        def fail(*args: Any, error: Exception = error, **kwargs: Any) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(type(runner), "forward", fail)
            (failed,) = together([tiny.generate(prompt, GREEDY)])
        assert isinstance(failed, EngineError)
        assert match in str(failed)
    (fine,) = together([tiny.generate(prompt, GREEDY)])
    assert isinstance(fine, Completion)


def test_a_failure_while_decoding_fails_the_running_requests(
    tiny: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = as_prompt("Count from 3 to 30.")
    batch_class = type(tiny._scheduler.batch)
    with monkeypatch.context() as patch:

        def fail(self: object) -> None:
            raise ZeroDivisionError("bad step")

        patch.setattr(batch_class, "step", fail)
        failed = together([tiny.generate(prompt, GREEDY) for _ in range(3)])
    assert all(isinstance(r, EngineError) for r in failed)
    (fine,) = together([tiny.generate(prompt, GREEDY)])
    assert isinstance(fine, Completion)


@pytest.mark.parametrize("broken", ["start", "_draw"])
def test_nothing_hangs_when_the_batch_breaks(
    tiny: TransformersEngine, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """A failure that leaves the batch in an unknown state fails all that is in flight."""
    story = as_prompt("Write a story of 28 sentences about Mia the baker and a fox.")
    scheduler = tiny._scheduler

    async def break_in_between() -> list[Any]:
        running = asyncio.create_task(tiny.generate(story, SamplingParams(max_tokens=300)))
        while not scheduler.batch.segments:
            await asyncio.sleep(0.002)

        def fail(*args: Any) -> None:
            raise MemoryError("no room")

        with monkeypatch.context() as patch:
            patch.setattr(type(scheduler.batch), broken, fail)
            calls = [tiny.generate(as_prompt("Add 2 and 3."), GREEDY) for _ in range(2)]
            return await asyncio.gather(running, *calls, return_exceptions=True)

    failed = concurrency.run(asyncio.wait_for(break_in_between(), 60))
    assert all(isinstance(result, EngineError) for result in failed)
    (fine,) = together([tiny.generate(as_prompt("Add 2 and 3."), GREEDY)])
    assert isinstance(fine, Completion)


def test_a_failing_plan_hangs_nobody(
    tiny: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise KeyError("bug")

    with monkeypatch.context() as patch:
        patch.setattr(type(tiny._scheduler.cache), "match", fail)
        (failed,) = together([tiny.generate(as_prompt("Add 2 and 3."), GREEDY)])
    assert isinstance(failed, EngineError)
    (fine,) = together([tiny.generate(as_prompt("Add 2 and 3."), GREEDY)])
    assert isinstance(fine, Completion)


def test_memory_stays_within_what_was_reserved(
    tiny: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of very different lengths that join one after another do not pad each other."""
    batch_class = type(tiny._scheduler.batch)
    original = batch_class.step
    shares: list[float] = []

    def watched(batch: Any) -> Any:
        reserved = batch.reserved
        done = original(batch)
        buffers = [segment.kv.layers[0].keys for segment in batch.segments]
        shares.append(sum(b.shape[0] * b.shape[2] for b in buffers) / reserved)
        return done

    async def join_one_by_one() -> None:
        params = SamplingParams(max_tokens=60)
        tasks = []
        for words in [3] * 30 + [20, 45, 90, 130, 3, 150, 40]:
            prompt = as_prompt(fresh_prompt(words))
            tasks.append(asyncio.create_task(tiny.generate(prompt, params)))
            await asyncio.sleep(0.01)
        await asyncio.gather(*tasks)

    monkeypatch.setattr(batch_class, "step", watched)
    concurrency.run(join_one_by_one())
    assert shares
    assert max(shares) <= 1


def test_a_closed_engine_says_so_at_once() -> None:
    engine = load_engine("tiny")
    assert isinstance(engine, TransformersEngine)
    story = as_prompt("Write a story of 28 sentences about Mia the baker and a fox.")

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
    assert not hasattr(engine._scheduler.runner, "model")  # its memory is free again


def test_a_view_shares_the_engine(tiny: TransformersEngine) -> None:
    view = tiny.with_options(chat_template_kwargs={"enable_thinking": False})
    first, second = together([e.generate(as_prompt("Add 2 and 3."), GREEDY) for e in (tiny, view)])
    assert first.text == second.text
    assert view.stats is tiny.stats


# --- loading --------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["", "hf:", "tin", "gpt4:x", "vllm"])
def test_unknown_specs(spec: str) -> None:
    with pytest.raises(ConfigError, match="no engine"):
        load_engine(spec)


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no such folder"):
        load_engine(f"hf:{tmp_path / 'nowhere'}")


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot load model"):
        load_engine(f"hf:{tmp_path}")


def test_an_unknown_device() -> None:
    with pytest.raises(EngineError, match="device 'abacus' does not work"):
        load_engine("tiny", device="abacus")


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


def test_a_model_names_its_template(tiny: TransformersEngine, other_model: Any) -> None:
    assert tiny.default_template == "direct"
    assert other_model.default_template == "reasoned"


def test_an_architecture_with_another_kind_of_state_is_refused(
    tiny: TransformersEngine, tmp_path: Path
) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(hidden_size=16, num_hidden_layers=1, state_size=4, vocab_size=1000)
    MambaForCausalLM(config).save_pretrained(tmp_path)
    tiny._chat.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(EngineError, match="does not run"):
        load_engine(f"hf:{tmp_path}")


def test_a_damaged_model_is_one_sentence(tiny: TransformersEngine, tmp_path: Path) -> None:
    for file in Path(tiny.folder).iterdir():
        data = file.read_bytes()
        (tmp_path / file.name).write_bytes(data[:5000] if file.suffix == ".safetensors" else data)
    with pytest.raises(EngineError, match="cannot load model"):
        load_engine(f"hf:{tmp_path}")


def test_half_a_surrogate_pair_is_no_crash(tiny: TransformersEngine) -> None:
    (scores,) = together([tiny.loglikelihood(as_prompt("Say \ud83d"), "yes \ude00")])
    assert isinstance(scores, TokenScores)


def test_the_model_card_facts(tiny: TransformersEngine) -> None:
    """At most 4 M parameters and 8 MB, as promised."""
    model = model_of(tiny)
    assert model.num_parameters() <= 4_000_000
    folder = Path(model.config.name_or_path)
    assert (folder / "model.safetensors").stat().st_size <= 8_000_000
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
