"""Token choice: distributions, filters, penalties and seeds."""

import numpy as np
import pytest
import torch
from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from bestofn.engines.base import SamplingParams
from bestofn.engines.hf.sampling import RowParams, as_row, choose, uniforms
from bestofn.errors import ConfigError

DRAWS = 40_000
LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -3.0])


def draw(params: SamplingParams, seen: torch.Tensor | None = None) -> np.ndarray:
    """Frequencies of the tokens over many draws, each with a seed of its own."""
    matrix = np.array([as_row(params)] * DRAWS, np.float32)
    rows = RowParams.of(matrix, torch.device("cpu"))
    uniform = uniforms(np.arange(DRAWS, dtype=np.uint64), np.zeros(DRAWS, np.uint64))
    if seen is not None:
        seen = seen.expand(DRAWS, -1)
    tokens, _ = choose(LOGITS.expand(DRAWS, -1), rows, uniform, seen)
    return np.bincount(tokens.numpy(), minlength=len(LOGITS)) / DRAWS


def reference(params: SamplingParams) -> np.ndarray:
    """The same distribution by transformers' own filters."""
    scores = (LOGITS / params.temperature)[None]
    if params.min_p:
        scores = MinPLogitsWarper(params.min_p)(None, scores)
    if params.top_k:
        scores = TopKLogitsWarper(params.top_k)(None, scores)
    if params.top_p < 1:
        scores = TopPLogitsWarper(params.top_p)(None, scores)
    return torch.softmax(scores[0], dim=-1).numpy()


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(),
        SamplingParams(temperature=0.5),
        SamplingParams(temperature=2.0),
        SamplingParams(top_k=2),
        SamplingParams(top_p=0.8),
        SamplingParams(top_p=0.01),
        SamplingParams(min_p=0.2),
        SamplingParams(temperature=1.5, top_k=4, top_p=0.9, min_p=0.05),
    ],
)
def test_frequencies_are_those_of_transformers(params: SamplingParams) -> None:
    # Four standard deviations of a frequency near one half.
    np.testing.assert_allclose(draw(params), reference(params), atol=4 * 0.5 / DRAWS**0.5)


def test_repetition_penalty() -> None:
    seen = torch.tensor([True, False, False, False, True, False])
    penalised = LOGITS.clone()
    penalised[0] /= 1.5
    penalised[4] *= 1.5
    expected = torch.softmax(penalised, dim=-1).numpy()
    np.testing.assert_allclose(
        draw(SamplingParams(repetition_penalty=1.5), seen), expected, atol=4 * 0.5 / DRAWS**0.5
    )


def test_rows_keep_their_own_parameters() -> None:
    params = [SamplingParams(temperature=0), SamplingParams(top_k=1), SamplingParams()]
    rows = RowParams.of(np.array([as_row(p) for p in params], np.float32), torch.device("cpu"))
    last = np.array([0.999999] * 3)
    tokens, logprobs = choose(LOGITS.expand(3, -1), rows, last, None)
    assert tokens.tolist() == [0, 0, 5]
    expected = torch.log_softmax(LOGITS, dim=-1)[tokens]
    torch.testing.assert_close(logprobs, expected)


def test_log_probabilities_are_the_raw_models() -> None:
    """Neither temperature nor filters nor penalties enter them."""
    params = SamplingParams(temperature=0.1, top_k=1, repetition_penalty=3.0)
    rows = RowParams.of(np.array([as_row(params)], np.float32), torch.device("cpu"))
    seen = torch.ones(1, len(LOGITS), dtype=torch.bool)
    tokens, logprobs = choose(LOGITS[None], rows, np.array([0.5]), seen)
    torch.testing.assert_close(logprobs, torch.log_softmax(LOGITS, dim=-1)[tokens])


def test_uniforms_are_splitmix64() -> None:
    """The published sequence for seed 1234567."""
    seeds = np.full(3, 1234567, np.uint64)
    numbers = uniforms(seeds, np.arange(3, dtype=np.uint64))
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    np.testing.assert_allclose(numbers, [(value >> 11) / 2**53 for value in published], rtol=0)


def test_uniforms_are_uniform_over_seeds_and_steps() -> None:
    for seeds, steps in [
        (np.arange(10_000), np.zeros(10_000)),
        (np.zeros(10_000), np.arange(10_000)),
    ]:
        numbers = uniforms(seeds.astype(np.uint64), steps.astype(np.uint64))
        counts, _ = np.histogram(numbers, bins=20, range=(0, 1))
        # Chi-squared with 19 degrees of freedom exceeds 50 once in ten thousand.
        assert ((counts - 500) ** 2 / 500).sum() < 50


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("temperature", -0.1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("min_p", 2.0),
        ("repetition_penalty", 0.0),
        ("max_tokens", 0),
        ("stop", ("",)),
        ("stop", "word"),
    ],
)
def test_parameters_out_of_range(option: str, value: object) -> None:
    with pytest.raises(ConfigError, match=option):
        SamplingParams(**{option: value})  # type: ignore[arg-type]
