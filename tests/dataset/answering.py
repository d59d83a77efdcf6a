"""Runs a command over a dataset with a scripted engine that takes its time, to be killed midway.

python answering.py sample|score|select INPUT OUTPUT SECONDS
"""

import sys
from hashlib import blake2b
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fakes import ScriptedEngine

import bestofn.models
from bestofn import concurrency
from bestofn.config import EngineConfig, SampleConfig, ScoreConfig
from bestofn.dataset import select_dataset
from bestofn.dataset.pools import sample_file
from bestofn.dataset.score import score_file
from bestofn.engines.base import SamplingParams
from bestofn.models import Engines
from bestofn.rewards.flip import FLIPReward
from bestofn.sampler import BestOfN
from bestofn.types import Prompt


def answer(prompt: Prompt, params: SamplingParams, seed: int | None) -> str:
    """Some words that depend on the prompt and the seed alone."""
    text = f"{prompt.messages[-1].content} {seed}"
    digest = blake2b(text.encode(), digest_size=8).hexdigest()
    return " ".join(["name", "a", "fruit", "or", "two", "of", "them", digest][int(digest[0], 16) :])


def main(command: str, source: str, output: str, seconds: str) -> None:
    def delay(prompt: Prompt) -> float:
        share = blake2b(repr(prompt.messages).encode(), digest_size=1).digest()[0] / 128
        return float(seconds) * share

    engine = ScriptedEngine(answer, delay=delay)
    concurrency.Window.MOST = 48  # so that scoring lasts as long as the rest
    bestofn.models.load_engine = lambda *_, **__: engine  # type: ignore[assignment]
    path = Path(output)
    with Engines() as engines:
        if command == "sample":
            config = SampleConfig(engine="scripted", prompts=source, m=8, seed=1, window=6)
            sample_file(config, path, engines)
        elif command == "score":
            scores, drawn_by = ScoreConfig(rewards=["flip"]), EngineConfig(engine="scripted")
            score_file(Path(source), scores, drawn_by, path, engines)
        else:
            best = BestOfN(engine, FLIPReward(engine), n=8, seed=1, window=6)
            select_dataset(source, path, best, progress=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
