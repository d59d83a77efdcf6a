"""How certain the model was: values against a direct computation, and what is made of them."""

from math import exp, log

import numpy as np
import pytest
import torch
from fakes import scores_of
from transformers import AutoModelForCausalLM, AutoTokenizer

from bestofn import BestOfN, SamplingParams, load_engine
from bestofn.engines.model_files import locate
from bestofn.errors import ConfigError
from bestofn.prompts import as_prompt
from bestofn.rewards.base import load_reward
from bestofn.rewards.confidence import (
    Confidence,
    InversePerplexity,
    LowestConfidence,
    SelfCertainty,
    TailConfidence,
)
from bestofn.types import Candidate

PROMPT = as_prompt("Name 4 fruits as a numbered list.")


def by_hand(token_ids: list[int], ids: list[int], k: int | None) -> list[float]:
    """From the full logits of one plain forward pass."""
    model = AutoModelForCausalLM.from_pretrained(locate("tiny"), dtype=torch.float32)
    with torch.inference_mode():
        logits = model(torch.tensor([[*ids, *token_ids]])).logits[0, len(ids) - 1 : -1]
    logprobs = logits.double().log_softmax(-1)
    size = logprobs.shape[1]
    likeliest = logprobs.sort(descending=True).values[:, : k or size]
    return [-float(row.mean()) - log(k or size) for row in likeliest]


@pytest.mark.parametrize("asked", ["all", 5])
def test_values_are_those_of_the_full_logits(asked) -> None:
    engine = load_engine("tiny")
    params = SamplingParams(max_tokens=24, confidence=asked)
    best = BestOfN(engine, SelfCertainty(), n=3, seed=1, sampling=params, keep_tokens=True)
    tokenizer = AutoTokenizer.from_pretrained(locate("tiny"))
    turns = [{"role": "user", "content": PROMPT.messages[0].content}]
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True)
    ids = list(ids["input_ids"]) if hasattr(ids, "keys") else list(ids)
    for candidate in best.select(PROMPT).candidates:
        k = None if asked == "all" else asked
        expected = by_hand(candidate.token_ids, ids, k)
        assert candidate.token_confidences == pytest.approx(expected, abs=1e-4)
        assert candidate.confidence_over == k
        score = candidate.scores["self-certainty"]
        assert score.value == pytest.approx(np.mean(expected), abs=1e-4)
        assert score.flags == ([] if k is None else ["likeliest_tokens"])


def scored(reward, values: list[float] | None, over: int | None = 4, logprob=None):
    candidate = Candidate(
        0, "x", token_confidences=values, confidence_over=over, mean_logprob=logprob
    )
    (score,) = scores_of(reward, [candidate], PROMPT)
    return score


def test_what_is_made_of_the_values() -> None:
    values = [1.0, 2.0, 6.0, 3.0, 3.0]
    assert scored(SelfCertainty(), values).value == pytest.approx(3.0)
    assert scored(Confidence(), values).value == pytest.approx(3.0 + log(4))
    assert scored(Confidence(), values, None).value == pytest.approx(3.0)
    assert scored(LowestConfidence(2), values).value == pytest.approx(1.5 + log(4))
    assert scored(LowestConfidence(9), values).value == pytest.approx(3.0 + log(4))
    assert scored(TailConfidence(3), values).value == pytest.approx(4.0 + log(4))
    assert scored(InversePerplexity(), None, logprob=-1.5).value == pytest.approx(exp(-1.5))


def test_what_was_not_asked_for_is_a_failed_score() -> None:
    assert "without `confidence`" in scored(SelfCertainty(), None).reason
    assert "without `confidence`" in scored(TailConfidence(), None).reason
    assert "no log-probabilities" in scored(InversePerplexity(), None).reason


def test_values_out_of_range() -> None:
    for confidence in (0, -1, 1.5, "some"):
        with pytest.raises(ConfigError):
            SamplingParams(confidence=confidence)
    with pytest.raises(ConfigError):
        load_reward("tail-confidence", window=0)
    assert load_reward("lowest-confidence", window=7).window == 7
