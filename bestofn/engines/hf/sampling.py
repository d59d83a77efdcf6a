"""From logits to tokens, for rows that each have their own parameters and their own seed."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from bestofn.engines.base import SamplingParams

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)


def uniforms(seeds: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """One number in [0, 1) for each row: output `step` of SplitMix64 started at the row's seed.

    A candidate's tokens depend on its seed and on nothing else in the batch, and no generator
    state has to be kept. Source: Steele, Lea, Flood (2014), "Fast splittable pseudorandom number
    generators".

    Args:
        seeds: uint64 `[rows]`.
        steps: uint64 `[rows]`, the index of the token to be drawn, from 0.
    """
    with np.errstate(over="ignore"):
        z = seeds + (steps + np.uint64(1)) * _GAMMA
        z = (z ^ (z >> np.uint64(30))) * _MIX1
        z = (z ^ (z >> np.uint64(27))) * _MIX2
        z = z ^ (z >> np.uint64(31))
    numbers: np.ndarray = (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return numbers


def sample(
    logits: torch.Tensor,
    params: Sequence[SamplingParams],
    uniform: np.ndarray,
    seen: Sequence[Iterable[int]],
) -> torch.Tensor:
    """The next token of each row.

    Args:
        logits: float32 `[rows, vocabulary]`.
        params: One for each row; equal ones are drawn together.
        uniform: `[rows]`, in [0, 1).
        seen: The tokens that occurred in each row, for repetition penalties.

    Returns:
        Token ids, int64 `[rows]`.
    """
    groups: dict[SamplingParams, list[int]] = defaultdict(list)
    for row, own in enumerate(params):
        groups[own].append(row)
    tokens = torch.empty(len(params), dtype=torch.int64, device=logits.device)
    for own, rows in groups.items():
        part = logits[rows]
        if own.repetition_penalty != 1:
            part = _penalised(part, own.repetition_penalty, [seen[row] for row in rows])
        if own.temperature == 0:
            tokens[rows] = part.argmax(dim=-1)
        else:
            tokens[rows] = _draw(part, own, torch.from_numpy(uniform[rows]))
    return tokens


def _penalised(logits: torch.Tensor, penalty: float, seen: Sequence[Iterable[int]]) -> torch.Tensor:
    mask = torch.zeros(logits.shape, dtype=torch.bool)
    for row, tokens in enumerate(seen):
        mask[row, list(tokens)] = True
    penalised = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(mask.to(logits.device), penalised, logits)


def _draw(logits: torch.Tensor, params: SamplingParams, uniform: torch.Tensor) -> torch.Tensor:
    """Inverse-CDF sampling: one uniform number picks one token."""
    probs = torch.softmax(logits / max(params.temperature, 1e-6), dim=-1)
    order = None
    if params.top_p < 1 or params.top_k or params.min_p:
        probs, order = _filter(probs, params)
    # MPS has no float64; float32 sums err by about 1e-6 there.
    precise = torch.float32 if logits.device.type == "mps" else torch.float64
    cumulative = probs.to(precise).cumsum(dim=-1)
    target = uniform.to(precise).to(logits.device)[:, None] * cumulative[:, -1:]
    picked = torch.searchsorted(cumulative, target, right=True).clamp_max(probs.shape[-1] - 1)
    return (picked if order is None else order.gather(1, picked))[:, 0]


def _filter(probs: torch.Tensor, params: SamplingParams) -> tuple[torch.Tensor, torch.Tensor]:
    """min_p, then top_k, then top_p, on probabilities sorted from the most likely down."""
    probs, order = probs.sort(dim=-1, descending=True)
    probs = probs.masked_fill(probs < params.min_p * probs[:, :1], 0.0)
    if params.top_k:
        probs[:, params.top_k :] = 0.0
    probs = probs / probs.sum(dim=-1, keepdim=True)
    if params.top_p < 1:
        before = probs.cumsum(dim=-1) - probs
        probs = probs.masked_fill(before >= params.top_p, 0.0)
    return probs, order
