"""The gold verdict as a reward: what every proxy is measured against."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from math import isfinite
from typing import Any, SupportsFloat

from bestofn import concurrency
from bestofn.errors import ConfigError
from bestofn.identity import identity_of
from bestofn.rewards.base import Reward
from bestofn.types import Candidate, Prompt, Score
from bestofn.verifiers import Verifier


class Gold(Reward):
    """A verifier's verdict on each response.

    No response at all is a wrong one: 0. A verifier that fails is a NaN score with a reason; a
    `ConfigError`, for a prompt whose columns it cannot use, ends the run. Verdicts are given one at
    a time, in a thread of their own: checkers are slow and seldom made for threads.
    """

    pointwise = True
    takes_undrawn = True

    def __init__(self, verifier: Verifier, name: str = "gold") -> None:
        self.verifier = verifier
        self.name = name
        self._worker = concurrency.PerProcess(
            lambda: ThreadPoolExecutor(1, thread_name_prefix="bestofn-gold")
        )

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"verifier": identity_of(self.verifier)}

    async def score_one(self, prompt: Prompt, candidate: Candidate) -> Score:
        if candidate.finish_reason == "rejected":
            return Score(reason="rejected before its end")
        if not candidate.whole:
            return Score(0.0)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._worker(), self._judge, prompt, candidate.text)

    def _judge(self, prompt: Prompt, response: str) -> Score:
        try:
            verdict = self.verifier(prompt, response)
            # A verifier of one's own may return anything; "1" is no number.
            if isinstance(verdict, SupportsFloat) and isfinite(value := float(verdict)):
                return Score(value)
        except ConfigError:
            raise
        except Exception as error:
            return Score(reason=f"verifier: {type(error).__name__}: {error}")
        return Score(reason=f"verifier: {verdict!r} is no finite number")
