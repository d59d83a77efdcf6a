"""What sampling itself says of a response: how certain the model was while it wrote it.

Nothing is asked of a model: values come with candidates that were drawn with
`SamplingParams(confidence=...)`, `--confidence` on the command line. Each is higher where the model
was more certain and never negative, so it can weigh votes ("weighted:self-certainty").
"""

from math import exp, log

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from bestofn.errors import ConfigError
from bestofn.rewards.baselines import Baseline
from bestofn.types import Candidate, Prompt, Score


class SelfCertainty(Baseline):
    """The mean over tokens of KL(uniform || model), in nats (arXiv 2502.18581).

    That is minus the mean of log(V p) over a vocabulary of V tokens, exact where candidates were
    drawn with `confidence="all"`. Drawn with k, it is the same over the k likeliest tokens, and
    flagged "likeliest_tokens".
    """

    name = "self-certainty"
    reads_confidence = True

    async def score_one(self, prompt: Prompt, candidate: Candidate) -> Score:
        if not candidate.token_confidences:
            return Score(reason="the candidate was drawn without `confidence`")
        flags = ["likeliest_tokens"] if candidate.confidence_over else []
        return Score(self.summary(np.array(candidate.token_confidences)), flags=flags)

    def summary(self, tokens: NDArray[np.float64]) -> float:
        """The value of a response from that of its tokens, `[tokens]`."""
        return float(tokens.mean())


class Confidence(SelfCertainty):
    """The mean over tokens of DeepConf's confidence, in nats (arXiv 2508.15260).

    That is minus the mean log-probability of the k likeliest tokens, `confidence=k`; the paper
    takes 20. With "all" it is `SelfCertainty`.
    """

    name = "confidence"

    async def score_one(self, prompt: Prompt, candidate: Candidate) -> Score:
        score = await super().score_one(prompt, candidate)
        score.value += log(candidate.confidence_over or 1)
        return Score(score.value, score.reason)


class LowestConfidence(Confidence):
    """The lowest mean confidence of any window of tokens, the weakest step.

    Args:
        window: Tokens; a shorter response is one window. DeepConf takes 2,048, for long reasoning.

    Raises:
        ConfigError: the window is less than 1.
    """

    name = "lowest-confidence"
    settings = ("window",)

    def __init__(self, window: int = 64) -> None:
        if window < 1:
            raise ConfigError(f"window must be at least 1, not {window}")
        self.window = window

    def summary(self, tokens: NDArray[np.float64]) -> float:
        windows = sliding_window_view(tokens, min(self.window, len(tokens)))
        return float(windows.mean(axis=1).min())


class TailConfidence(LowestConfidence):
    """The mean confidence of the last tokens, where the answer is.

    Args:
        window: How many.

    Raises:
        ConfigError: the window is less than 1.
    """

    name = "tail-confidence"

    def summary(self, tokens: NDArray[np.float64]) -> float:
        return float(tokens[-self.window :].mean())


class InversePerplexity(Baseline):
    """exp(mean log-probability) of the response: 1 / perplexity, in (0, 1]."""

    name = "inverse-perplexity"

    async def score_one(self, prompt: Prompt, candidate: Candidate) -> Score:
        if candidate.mean_logprob is None:
            return Score(reason="the generator gives no log-probabilities")
        return Score(exp(candidate.mean_logprob))
