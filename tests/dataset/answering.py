"""Selects over a dataset with a scripted engine that takes its time, to be killed on the way.

python answering.py INPUT OUTPUT SECONDS
"""

import sys
from hashlib import blake2b
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fakes import ScriptedEngine

from bestofn.dataset import select_dataset
from bestofn.engines.base import SamplingParams
from bestofn.rewards.flip import FLIPReward
from bestofn.sampler import BestOfN
from bestofn.types import Prompt


def answer(prompt: Prompt, params: SamplingParams, seed: int | None) -> str:
    """Some words that depend on the prompt and the seed alone."""
    text = f"{prompt.messages[-1].content} {seed}"
    digest = blake2b(text.encode(), digest_size=8).hexdigest()
    return " ".join(["name", "a", "fruit", "or", "two", "of", "them", digest][int(digest[0], 16) :])


def sampler(seconds: float) -> BestOfN:
    def delay(prompt: Prompt) -> float:
        return seconds * blake2b(repr(prompt.messages).encode(), digest_size=1).digest()[0] / 128

    engine = ScriptedEngine(answer, delay=delay)
    return BestOfN(engine, FLIPReward(engine), n=8, seed=1, window=6)


if __name__ == "__main__":
    source, output, seconds = sys.argv[1:]
    select_dataset(source, output, sampler(float(seconds)), progress=False)
