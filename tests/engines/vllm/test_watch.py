"""Unfinished responses on vLLM: early rejection, and how certain the model was of each token."""

import pytest
from serving import require_vllm

from bestofn import BestOfN, FLIPLikelihood, SamplingParams, concurrency
from bestofn.errors import ConfigError
from bestofn.prompts import as_prompt
from bestofn.rejection import EarlyRejection
from bestofn.rewards.confidence import SelfCertainty

require_vllm()

PROMPTS = ["Name 4 fruits as a numbered list.", "Name 3 colours.", "Add 2 and 3."]
SAMPLING = SamplingParams(max_tokens=64)


def drawn(engine, prompts=PROMPTS, **options):
    options = {"n": 6, "seed": 5, "sampling": SAMPLING, "keep_tokens": True} | options
    best = BestOfN(engine, FLIPLikelihood(engine), **options)
    return list(best.select_many(prompts, progress=False))


def test_survivors_are_as_without_rejection_and_the_rest_is_freed(vllm_tiny) -> None:
    rejecting = drawn(vllm_tiny, reject=EarlyRejection((4, 8), 0.5))
    assert vllm_tiny.running == 0
    llm = vllm_tiny._process.llm
    # Which it can only where no request holds a block.
    assert concurrency.run(concurrency.on_background_loop(llm.reset_prefix_cache()))
    plain = drawn(vllm_tiny)
    rejected = 0
    for one, other in zip(plain, rejecting, strict=True):
        for whole, candidate in zip(one.candidates, other.candidates, strict=True):
            if candidate.finish_reason == "rejected":
                rejected += 1
                assert candidate.token_ids == whole.token_ids[: candidate.token_count]
                assert candidate.token_count in (4, 8)
                assert candidate.usage.generated_tokens >= candidate.token_count
            else:
                assert candidate.token_ids == whole.token_ids
                assert candidate.finish_reason == whole.finish_reason
    assert rejected
    spent = [sum(s.usage.generated_tokens for s in each) for each in (rejecting, plain)]
    assert spent[0] < spent[1]


def test_keeping_all_is_best_of_n(vllm_tiny) -> None:
    for one, other in zip(
        drawn(vllm_tiny), drawn(vllm_tiny, reject=EarlyRejection((4,), 1.0)), strict=True
    ):
        assert one.index == other.index
        for a, b in zip(one.candidates, other.candidates, strict=True):
            assert (a.text, a.token_ids, a.token_logprobs) == (
                b.text,
                b.token_ids,
                b.token_logprobs,
            )


def test_a_beginning_is_the_first_tokens(vllm_tiny) -> None:
    from bestofn.engines.base import Watch

    seen = {}
    watch = Watch((1, 5, 60), lambda at, completion: seen.setdefault(at, completion))
    prompt = as_prompt(PROMPTS[0])
    greedy = SamplingParams(temperature=0.0, max_tokens=12, stop=("5",))
    whole = concurrency.run(vllm_tiny.generate_watched(prompt, greedy, None, watch))
    alone = concurrency.run(vllm_tiny.generate(prompt, greedy))
    assert (whole.text, whole.token_ids) == (alone.text, alone.token_ids)
    assert [*seen] == [at for at in (1, 5) if at < len(whole.token_ids)]
    for at, beginning in seen.items():
        assert beginning.token_ids == whole.token_ids[:at]
        assert beginning.token_logprobs == whole.token_logprobs[:at]
    assert watch.generated == len(whole.token_ids)


def test_confidence_is_that_of_the_transformers_engine(vllm_tiny, tiny) -> None:
    params = SamplingParams(temperature=0.0, max_tokens=16, confidence=5)
    values = []
    for engine in (vllm_tiny, tiny):
        best = BestOfN(engine, SelfCertainty(), n=1, sampling=params, keep_tokens=True)
        (candidate,) = best.select(PROMPTS[0]).candidates
        values.append((candidate.token_ids, candidate.token_confidences))
        assert len(candidate.token_logprobs) == len(candidate.token_ids)
    assert values[0][0] == values[1][0]
    assert values[0][1] == pytest.approx(values[1][1], abs=1e-3)


def test_more_than_the_engine_gives_is_refused(vllm_tiny) -> None:
    params = SamplingParams(confidence="all")
    with pytest.raises(ConfigError, match="max_logprobs=-1"):
        BestOfN(vllm_tiny, SelfCertainty(), n=1, sampling=params).select("x")
