"""The vLLM engine with the embedded model, against the embedded engine with the same weights."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from reward_models import random_model
from serving import require_vllm
from test_docs import VIEWS, run_example

from bestofn import ScalarReward, concurrency
from bestofn.engines.base import SamplingParams
from bestofn.engines.hf import TransformersEngine
from bestofn.errors import ConfigError, ContextLengthError, EngineError
from bestofn.prompts import as_prompt
from bestofn.rewards.flip import FLIPLikelihood, FLIPReward
from bestofn.rewards.templates import load_template
from bestofn.sampler import BestOfN
from bestofn.scoring import add_nested_scores
from bestofn.tiny import heldout_tasks
from bestofn.types import Candidate, Message, Prompt, Usage

GREEDY = SamplingParams(temperature=0.0, max_tokens=400)
PROMPTS = [as_prompt(task.instruction) for task in heldout_tasks(24)]


async def generate_all(
    engine: Any, params: SamplingParams = GREEDY, seed: int | None = None
) -> Any:
    return await asyncio.gather(*(engine.generate(prompt, params, seed) for prompt in PROMPTS))


def test_greedy_answers_equal_transformers(vllm_tiny: Any, tiny: TransformersEngine) -> None:
    ours, theirs = asyncio.run(generate_all(vllm_tiny)), asyncio.run(generate_all(tiny))
    for our, their in zip(ours, theirs, strict=True):
        assert our.text == their.text
        assert our.token_ids == their.token_ids
        assert our.token_logprobs == pytest.approx(their.token_logprobs, abs=1e-3)
        assert our.finish_reason == their.finish_reason
        assert our.usage.generated_tokens == len(our.token_ids)
        assert our.usage.prompt_tokens == their.usage.prompt_tokens


def test_log_probabilities_are_raw(vllm_tiny: Any, tiny: TransformersEngine) -> None:
    """Those of the model, before temperature and truncation."""
    params = SamplingParams(temperature=2.0, top_p=0.5, max_tokens=60)
    compared = 0
    for prompt, completion in zip(
        PROMPTS, asyncio.run(generate_all(vllm_tiny, params)), strict=True
    ):
        closed = completion.finish_reason == "stop"
        truth = concurrency.run(tiny.loglikelihood(prompt, completion.text, close=closed))
        if truth.token_ids == completion.token_ids:  # text may be split into tokens otherwise
            assert completion.token_logprobs == pytest.approx(truth.token_logprobs, abs=1e-3)
            compared += 1
    assert compared >= 8


def test_seeds_repeat_and_differ(vllm_tiny: Any) -> None:
    params = SamplingParams(max_tokens=60)
    first, again = (
        [c.token_ids for c in asyncio.run(generate_all(vllm_tiny, params, 11))] for _ in range(2)
    )
    other = [c.token_ids for c in asyncio.run(generate_all(vllm_tiny, params, 12))]
    same = sum(a == b for a, b in zip(first, again, strict=True))
    assert same >= len(first) - 1  # rounding differs with the batch
    assert sum(a != b for a, b in zip(first, other, strict=True)) > len(first) // 2


def test_limits_stops_and_extra(vllm_tiny: Any) -> None:
    prompt = as_prompt("Count from 3 to 9.")
    cut = concurrency.run(vllm_tiny.generate(prompt, SamplingParams(temperature=0.0, max_tokens=3)))
    assert cut.finish_reason == "length"
    assert len(cut.token_ids) == 3
    whole = concurrency.run(vllm_tiny.generate(prompt, GREEDY))
    stop = SamplingParams(temperature=0.0, max_tokens=64, stop=("6",))
    stopped = concurrency.run(vllm_tiny.generate(prompt, stop))
    assert stopped.finish_reason == "stop"
    assert stopped.text == whole.text[: whole.text.index("6")]
    forced = SamplingParams(max_tokens=40, extra={"min_tokens": 40, "ignore_eos": True})
    assert len(concurrency.run(vllm_tiny.generate(prompt, forced)).token_ids) == 40


@pytest.mark.parametrize("extra", [{"best_of": 3}, {"n": 2}, {"logprobs": 5}, {"min_tokens": -1}])
def test_refused_sampling_options(vllm_tiny: Any, extra: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="vLLM"):
        concurrency.run(vllm_tiny.generate(PROMPTS[0], SamplingParams(extra=extra)))


def test_prompts_of_one_batch_share_the_cache(vllm_tiny: Any) -> None:
    prompt = as_prompt("Name 4 fruits. " * 20)
    completions = [
        concurrency.run(vllm_tiny.generate(prompt, SamplingParams(max_tokens=4))) for _ in range(2)
    ]
    cached = [completion.usage.cached_tokens for completion in completions]
    assert cached[0] < cached[1]
    assert cached[1] % 32 == 0
    assert completions[1].usage.prompt_tokens - cached[1] <= 32


def test_over_long_prompts(vllm_tiny: Any) -> None:
    long = as_prompt("word " * 600)
    with pytest.raises(ContextLengthError) as raised:
        concurrency.run(vllm_tiny.generate(long, GREEDY))
    assert raised.value.limit == 512
    with pytest.raises(ContextLengthError):
        concurrency.run(vllm_tiny.loglikelihood(long, "x"))
    # The longest that fits, as on every engine: vLLM generates a token behind what it scores.
    prompt = as_prompt("fox")
    room = 512 - concurrency.run(vllm_tiny.loglikelihood(prompt, "x")).usage.prompt_tokens
    text = "fox " * 600
    fits = concurrency.run(vllm_tiny.loglikelihood(prompt, text, max_tokens=room - 1))
    assert len(fits.token_ids) == room - 1
    with pytest.raises(ContextLengthError):
        concurrency.run(vllm_tiny.loglikelihood(prompt, text, max_tokens=room))
    with pytest.raises(ConfigError, match="empty"):
        concurrency.run(vllm_tiny.loglikelihood(prompt, ""))


def test_the_package_end_to_end(vllm_tiny: Any, tiny: TransformersEngine) -> None:
    reward = FLIPReward(vllm_tiny) + FLIPLikelihood(vllm_tiny)
    best = BestOfN(vllm_tiny, reward, n=8, seed=0)
    selections = list(best.select_many([prompt.messages[0].content for prompt in PROMPTS]))
    assert all(not selection.fallback for selection in selections)
    assert all(selection.usage.scored_tokens > 0 for selection in selections)
    # The scores are those that the embedded engine gives the same candidates.
    truth = FLIPReward(tiny) + FLIPLikelihood(tiny)
    selection = selections[0]
    expected = concurrency.run(truth.score(selection.prompt, selection.candidates))
    values = [score.value for score in selection.scores]
    assert values == pytest.approx([score.value for score in expected], abs=1e-3)


def test_cancelled_requests_are_gone(vllm_tiny: Any) -> None:
    forced = SamplingParams(max_tokens=400, extra={"min_tokens": 400, "ignore_eos": True})

    async def cancelled() -> tuple[int, int]:
        tasks = [asyncio.create_task(vllm_tiny.generate(p, forced)) for p in PROMPTS]
        async with asyncio.timeout(60):
            while vllm_tiny.running < len(PROMPTS):
                await asyncio.sleep(0.01)
        running = vllm_tiny.running
        assert not await vllm_tiny._process.llm.reset_prefix_cache()  # blocks are in use
        await concurrency.cancel(tasks)
        async with asyncio.timeout(60):
            # The engine itself: it empties its cache only when no request holds a block of it.
            while not await vllm_tiny._process.llm.reset_prefix_cache():
                await asyncio.sleep(0.01)
        return running, vllm_tiny.running

    assert concurrency.run(cancelled()) == (len(PROMPTS), 0)


def test_nested_cuts_compute_only_what_is_new(vllm_tiny: Any) -> None:
    """Cuts at 64, 128, 256 tokens in ascending order, by the engine's own counters."""
    text = " ".join(f"{number}, fox and {number + 1} pears;" for number in range(300, 340))
    ids = vllm_tiny._chat.tokenizer(text, add_special_tokens=False)["input_ids"]
    lengths = (64, 128, 256)
    cuts = [
        Candidate(i, vllm_tiny._chat.tokenizer.decode(ids[:length]))
        for i, length in enumerate(lengths)
    ]
    reward = FLIPLikelihood(vllm_tiny)
    concurrency.run(add_nested_scores(PROMPTS[0], [cuts], reward))
    usages = [cut.scores[reward.name].usage for cut in cuts]
    # Each finds the whole blocks of the cut before it, up to the word at its end.
    for shorter, usage in zip(lengths, usages[1:], strict=False):
        assert usage.cached_tokens >= shorter - 32
    total = sum(usages, Usage())
    apart = total.prompt_tokens + total.scored_tokens
    assert total.computed_tokens < 0.75 * apart


def test_guided_view_holds_to_the_schema(vllm_tiny: Any) -> None:
    """The tiny model has never seen JSON; held to the schema it writes nothing else."""
    template = load_template("reasoned")
    assert template.json_schema is not None
    params = SamplingParams(temperature=1.0, max_tokens=200, json_schema=template.json_schema)
    prefix = template.fill("3, 4, 5, 6")
    guided = vllm_tiny.with_options(guided=True)
    texts = [concurrency.run(guided.generate(prefix, params, seed)).text for seed in range(4)]
    assert all(text.lstrip().startswith("{") for text in texts)
    closed = [text for text in texts if text.rstrip().endswith("}")]
    assert all(list(json.loads(text)) == ["reasoning", "instruction"] for text in closed)
    free = concurrency.run(vllm_tiny.generate(prefix, params, 0))
    assert not free.text.startswith("{")


@pytest.mark.parametrize(("page", "code"), VIEWS)
def test_examples_of_views_run(
    page: str, code: str, vllm_tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_example(code, vllm_tiny, tmp_path, monkeypatch)


def test_chat_template_options_make_a_view(vllm_tiny: Any) -> None:
    view = vllm_tiny.with_options(chat_template_kwargs={"enable_thinking": False})
    assert view._chat.template_kwargs == {"enable_thinking": False}
    assert vllm_tiny._chat.template_kwargs == {}
    assert view.stats is vllm_tiny.stats
    with pytest.raises(ConfigError, match="no option adapter"):
        vllm_tiny.with_options(adapter="x")


# --- LoRA -----------------------------------------------------------------------------------------


def write_adapter(
    folder: Path, model: Path, seed: int, rank: int = 8, also: str | None = None
) -> dict[str, Any]:
    """A random adapter of the attention's q_proj and v_proj; returns its matrices by layer."""
    import torch
    from safetensors.torch import save_file

    config = json.loads((model / "config.json").read_text())
    width, generator = config["hidden_size"], torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        for name in ("q_proj", "v_proj"):
            key = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            tensors[f"{key}.lora_A.weight"] = torch.randn(rank, width, generator=generator) * 0.2
            tensors[f"{key}.lora_B.weight"] = torch.randn(width, rank, generator=generator) * 0.2
    if also:
        tensors[f"base_model.model.{also}.lora_A.weight"] = torch.zeros(rank, width)
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "bias": "none"}
    settings |= {"target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return tensors


def merged(tiny: TransformersEngine, tensors: dict[str, Any], folder: Path) -> TransformersEngine:
    """The embedded engine with the adapter's weights added to the model's."""
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny.folder, folder)
    weights = load_file(folder / "model.safetensors")
    for key, down in tensors.items():
        if key.endswith("lora_A.weight"):
            up = tensors[key.replace("lora_A", "lora_B")]
            target = key.removeprefix("base_model.model.").replace(".lora_A", "")
            weights[target] = weights[target] + up @ down
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return TransformersEngine(str(folder))


def test_a_lora_view_has_its_own_weights(
    vllm_tiny: Any, tiny: TransformersEngine, tmp_path: Path
) -> None:
    """Generator and reward model on one engine, though their weights differ."""
    tensors = write_adapter(tmp_path / "adapter", Path(tiny.folder), seed=5)
    reference = merged(tiny, tensors, tmp_path / "merged")
    view = vllm_tiny.with_options(lora=str(tmp_path / "adapter"))
    prefix, text = load_template("direct").fill("3, 4, 5, 6"), "Count from 3 to 6."
    try:
        truth = concurrency.run(reference.loglikelihood(prefix, text, close=True)).token_logprobs
    finally:
        reference.close()
    base = concurrency.run(tiny.loglikelihood(prefix, text, close=True)).token_logprobs
    assert max(abs(a - b) for a, b in zip(truth, base, strict=True)) > 0.05
    for _ in range(2):  # the second time from the cache, and not from that of other weights
        found = concurrency.run(view.loglikelihood(prefix, text, close=True)).token_logprobs
        assert found == pytest.approx(truth, abs=1e-3)
        plain = concurrency.run(vllm_tiny.loglikelihood(prefix, text, close=True)).token_logprobs
        assert plain == pytest.approx(base, abs=1e-3)
    selection = BestOfN(vllm_tiny, FLIPReward(view), n=2, seed=0).select("Name 4 fruits.")
    assert not selection.fallback


def test_unusable_adapters_do_not_end_the_engine(
    vllm_tiny: Any, tiny: TransformersEngine, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"no adapter_config\.json"):
        vllm_tiny.with_options(lora=str(tmp_path))
    write_adapter(tmp_path / "large", Path(tiny.folder), seed=5, rank=64)
    large = vllm_tiny.with_options(lora=str(tmp_path / "large"))
    with pytest.raises(ConfigError, match="cannot load the adapter"):
        concurrency.run(large.generate(PROMPTS[0], GREEDY))
    write_adapter(tmp_path / "head", Path(tiny.folder), seed=5, also="lm_head")
    with pytest.raises(ConfigError, match="changes lm_head, which the engine would leave out"):
        vllm_tiny.with_options(lora=str(tmp_path / "head"))
    (tmp_path / "head" / "adapter_model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ConfigError, match="is damaged"):
        vllm_tiny.with_options(lora=str(tmp_path / "head"))
    assert concurrency.run(vllm_tiny.generate(PROMPTS[0], GREEDY)).text


# --- reward models --------------------------------------------------------------------------------


def test_a_reward_model_gives_the_logits_of_transformers(tmp_path: Path) -> None:
    require_vllm()
    # It pads with the token that ends an answer, so that the last token is not the one to read.
    folder = random_model(tmp_path, spread=0.5, pad_token_id=1)
    options = {"kv_cache_memory_bytes": 1 << 28, "enforce_eager": True, "dtype": "float32"}
    reward, plain = ScalarReward(folder, backend="vllm", **options), ScalarReward(folder)
    long = "Dear Ben, here is the hammer. " * 20
    drawn = [Candidate(i, long[:end]) for i, end in enumerate((3, 9, 30, 31, 100, 200, 500))]
    expected = [score.value for score in concurrency.run(plain.score(PROMPTS[0], drawn))]
    for _ in range(2):  # from the prefix cache the second time
        scores = concurrency.run(reward.score(PROMPTS[0], drawn))
        assert [score.value for score in scores] == pytest.approx(expected, abs=1e-4)
    assert all(score.usage.prompt_tokens > 0 and score.usage.seconds > 0 for score in scores)
    assert scores[-1].usage.cached_tokens > 0
    assert min(expected) < 0  # which no sigmoid gives
    (score,) = concurrency.run(reward.score(PROMPTS[0], [Candidate(0, long * 9)]))
    assert str(score.reason).endswith("tokens, over 512")
    reward.close()
    (score,) = concurrency.run(reward.score(PROMPTS[0], drawn[:1]))
    assert score.reason == "engine: the vLLM engine is closed; load it again"


def test_what_is_no_reward_model() -> None:
    require_vllm()
    with pytest.raises(EngineError, match="has 2 labels"):
        ScalarReward("tiny", backend="vllm")
    with pytest.raises(ConfigError, match="max_model_length; did you mean max_model_len"):
        ScalarReward("tiny", backend="vllm", max_model_length=9)


# --- beginnings -----------------------------------------------------------------------------------


def test_first_tokens_and_begun_answers_are_those_of_transformers(
    vllm_tiny: Any, tiny: TransformersEngine
) -> None:
    answers = ["1", "10", "fig", "Yes"]
    begun = [Prompt((*p.messages, Message("assistant", "1. fig"))) for p in PROMPTS[:4]]

    async def found(engine: Any) -> Any:
        # With a candidate in the same batch, whose own probabilities must stay what they are.
        work = [engine.first_tokens(prompt, answers) for prompt in (*PROMPTS[:6], *begun)]
        drawn = [engine.generate(prompt, GREEDY) for prompt in (*PROMPTS[:6], *begun)]
        return await asyncio.gather(*work, *drawn)

    ours, theirs = asyncio.run(found(vllm_tiny)), asyncio.run(found(tiny))
    for our, their in zip(ours, theirs, strict=True):
        assert our.token_ids == their.token_ids
        assert our.token_logprobs == pytest.approx(their.token_logprobs, abs=1e-3)


def test_first_tokens_of_releases_that_name_only_the_likeliest(
    vllm_tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = concurrency.run(vllm_tiny.first_tokens(PROMPTS[0], ["1", "fig"]))
    monkeypatch.setattr("bestofn.engines.vllm.versions.NAMED_LOGPROBS", False)
    scored = concurrency.run(vllm_tiny.first_tokens(PROMPTS[0], ["1", "fig"]))
    assert named.token_ids == scored.token_ids
    assert named.token_logprobs == pytest.approx(scored.token_logprobs, abs=1e-4)
