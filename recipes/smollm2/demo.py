"""Best-of-N with a real small model: each choice beside a random candidate, and what it cost.

    python recipes/smollm2/demo.py [-n 8] [--engine hf:MODEL] [--reward flip-likelihood]

By default SmolLM2-135M-Instruct draws and scores; the first run fetches it, see `fetch.py`.
"""

import argparse
import textwrap
import time
from pathlib import Path
from random import Random

from fetch import fetch, usual_folder
from rich.console import Console
from rich.text import Text

from bestofn import BestOfN, SamplingParams, Selection, load_engine
from bestofn.errors import BestOfNError
from bestofn.rewards.base import load_reward
from bestofn.types import Candidate, Usage

PROMPTS = [
    "Give me three tips for staying healthy.",
    "Write a short thank-you note to a neighbour who watered my plants.",
    "Explain in two sentences why the sky is blue.",
    "Suggest a name for a small bakery and say why it fits.",
    "What should I pack for a weekend of hiking in the mountains?",
]
LINES = 5  # of each response


def shown(label: str, candidate: Candidate, reward: str) -> Text:
    """A response in at most so many lines of 80 columns."""
    value = candidate.scores[reward].value
    text = Text(f"{label} (candidate {candidate.index}, score {value:.2f})\n", "bold")
    lines = textwrap.wrap(" ".join(candidate.text.split()), 76)
    cut = [*lines[:LINES], *(["..."] if len(lines) > LINES else [])]
    return text.append("\n".join(f"  {line}" for line in cut), "not bold")


def show(console: Console, selection: Selection, rng: Random) -> None:
    """The choice, and a candidate that chance would have taken."""
    others = [c for c in selection.candidates if c is not selection.best]
    console.rule(Text(selection.prompt.messages[-1].content, "bold cyan"), align="left")
    console.print(shown("chosen", selection.best, selection.reward))
    if others:
        console.print(shown("random", rng.choice(others), selection.reward))


def fast_dtype() -> str:
    """bfloat16 where the processor computes with it, which is twice as fast there."""
    flags = Path("/proc/cpuinfo")
    known = flags.is_file() and "avx512_bf16" in flags.read_text()
    return "bfloat16" if known else "auto"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-n", type=int, default=8, help="candidates for each prompt")
    parser.add_argument("--engine", help="by default SmolLM2 on transformers")
    parser.add_argument("--reward", default="flip-likelihood")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    console = Console(width=min(80, Console().width), highlight=False)
    try:
        options: dict[str, str] = {}
        if args.engine is None:
            options = {"dtype": fast_dtype()}
            args.engine = f"hf:{fetch(usual_folder())}"
        engine = load_engine(args.engine, **options)
        best = BestOfN(
            engine,
            load_reward(args.reward, engine=engine),
            n=args.n,
            sampling=SamplingParams(temperature=0.8, max_tokens=128),
            seed=args.seed,
        )
        rng, usage, started = Random(args.seed), Usage(), time.perf_counter()
        for selection in best.select_many(PROMPTS):
            show(console, selection, rng)
            usage += selection.usage
        seconds = time.perf_counter() - started
        engine.close()
    except BestOfNError as error:
        parser.exit(2, f"error: {error}\n")
    console.rule(align="left")
    console.print(
        f"{len(PROMPTS)} prompts, {args.n} candidates each, in {seconds:.0f} s on {args.engine}:\n"
        f"{usage.generated_tokens} tokens drawn, {usage.scored_tokens} scored, "
        f"{usage.prompt_tokens} read, {usage.cached_tokens} of them from the cache"
    )


if __name__ == "__main__":
    main()
