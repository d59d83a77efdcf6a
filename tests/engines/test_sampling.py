"""Token choice: distributions, filters, penalties and seeds."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from bestofn.engines.base import SamplingParams
from bestofn.engines.hf.scheduler import sample, uniform
from bestofn.errors import ConfigError

DRAWS = 40_000
LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -3.0])


def draw(params: SamplingParams, seen: Sequence[int] = ()) -> np.ndarray:
    """Frequencies of the tokens over many draws, each with a seed of its own."""
    numbers = [uniform(seed, 0) for seed in range(DRAWS)]
    tokens = sample(LOGITS.expand(DRAWS, -1), [params] * DRAWS, numbers, [seen] * DRAWS)
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
    penalised = LOGITS.clone()
    penalised[0] /= 1.5
    penalised[4] *= 1.5
    expected = torch.softmax(penalised, dim=-1).numpy()
    drawn = draw(SamplingParams(repetition_penalty=1.5), seen=[0, 4, 4])
    np.testing.assert_allclose(drawn, expected, atol=4 * 0.5 / DRAWS**0.5)


def test_rows_keep_their_own_parameters() -> None:
    params = [SamplingParams(), SamplingParams(temperature=0), SamplingParams(top_k=1)]
    params += [SamplingParams(temperature=0, repetition_penalty=9.0), SamplingParams()]
    tokens = sample(LOGITS.expand(5, -1), params, [0.999999] * 5, [(), (), (), (0,), ()])
    assert tokens.tolist() == [5, 0, 0, 1, 5]


def test_numbers_are_splitmix64() -> None:
    """The published sequence for seed 1234567."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    drawn = [uniform(1234567, step) for step in range(3)]
    assert drawn == [(value >> 11) / 2**53 for value in published]


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
