"""From logits to tokens, for rows that each have their own parameters and their own seed."""

from dataclasses import dataclass

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


PARAMS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


def as_row(params: SamplingParams) -> tuple[float, ...]:
    """The parameters as one row of the matrix that `RowParams.of` reads."""
    return tuple(float(getattr(params, name)) for name in PARAMS)


@dataclass(slots=True)
class RowParams:
    """The sampling parameters of a batch, one tensor `[rows]` each, and which of them matter."""

    temperature: torch.Tensor
    top_p: torch.Tensor
    top_k: torch.Tensor
    min_p: torch.Tensor
    repetition_penalty: torch.Tensor
    greedy: bool
    filtered: bool
    penalised: bool

    @classmethod
    def of(cls, matrix: np.ndarray, device: torch.device) -> "RowParams":
        """From a float32 matrix `[rows, len(PARAMS)]`."""
        columns = dict(zip(PARAMS, matrix.T, strict=True))
        tensors = dict(zip(PARAMS, torch.from_numpy(matrix).to(device).unbind(dim=1), strict=True))
        return cls(
            **tensors,
            greedy=not columns["temperature"].any(),
            filtered=bool(
                (columns["top_p"] < 1).any() or columns["top_k"].any() or columns["min_p"].any()
            ),
            penalised=bool((columns["repetition_penalty"] != 1).any()),
        )


def choose(
    logits: torch.Tensor,
    rows: RowParams,
    uniform: np.ndarray,
    seen: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The next token of each row and its log-probability under the raw model.

    Args:
        logits: `[rows, vocabulary]`, float32.
        rows: The parameters.
        uniform: `[rows]`, in [0, 1).
        seen: bool `[rows, vocabulary]`, the tokens that occurred; needed where a row has a
            repetition penalty.

    Returns:
        Token ids int64 `[rows]`, log-probabilities float32 `[rows]`.
    """
    raw = logits
    if rows.penalised:
        assert seen is not None
        penalty = rows.repetition_penalty[:, None]
        logits = torch.where(
            seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits
        )
    tokens = logits.argmax(dim=-1)
    if not rows.greedy:
        drawn = _draw(logits, rows, torch.from_numpy(uniform))
        tokens = torch.where(rows.temperature > 0, drawn, tokens)
    chosen = raw.gather(1, tokens[:, None])[:, 0]
    return tokens, chosen - raw.logsumexp(dim=-1)


def _draw(logits: torch.Tensor, rows: RowParams, uniform: torch.Tensor) -> torch.Tensor:
    """Inverse-CDF sampling: one uniform number picks one token."""
    probs = torch.softmax(logits / rows.temperature.clamp_min(1e-6)[:, None], dim=-1)
    order = None
    if rows.filtered:
        probs, order = _filter(probs, rows)
    # MPS has no float64; float32 sums err by about 1e-6 there.
    precise = torch.float32 if logits.device.type == "mps" else torch.float64
    cumulative = probs.to(precise).cumsum(dim=-1)
    target = uniform.to(precise).to(logits.device)[:, None] * cumulative[:, -1:]
    picked = torch.searchsorted(cumulative, target, right=True).clamp_max(probs.shape[-1] - 1)
    return (picked if order is None else order.gather(1, picked))[:, 0]


def _filter(probs: torch.Tensor, rows: RowParams) -> tuple[torch.Tensor, torch.Tensor]:
    """min_p, then top_k, then top_p, on probabilities sorted from the most likely down."""
    probs, order = probs.sort(dim=-1, descending=True)
    probs = probs.masked_fill(probs < rows.min_p[:, None] * probs[:, :1], 0.0)
    rank = torch.arange(probs.shape[-1], device=probs.device)
    top_k = torch.where(rows.top_k > 0, rows.top_k, float(probs.shape[-1]))
    probs = probs.masked_fill(rank >= top_k[:, None], 0.0)
    probs = probs / probs.sum(dim=-1, keepdim=True)
    before = probs.cumsum(dim=-1) - probs
    outside = (before >= rows.top_p[:, None]) & (rows.top_p < 1)[:, None]
    return probs.masked_fill(outside, 0.0), order
