"""Early rejection against plain best-of-N on a vLLM engine: seconds, tokens, and what is lost.

Both sides draw from the same seed for blocks of real prompts, in alternation. The loss is that of
the choosing reward, the backward likelihood, paired by prompt.

    python benchmarks/bench_rejection.py [--model smollm2] [--prompts 60] [--n 16] [--blocks 3]
        [--at 32 64 128] [--keep 0.5] [--json FILE]
"""

import sys
import time
from collections.abc import Sequence
from typing import Any

import common
import numpy as np

from bestofn import BestOfN, EarlyRejection, FLIPLikelihood, SamplingParams, load_engine
from bestofn.estimators import bootstrap_mean
from bestofn.types import Selection, Usage


def main() -> None:
    parser = common.arguments(__doc__ or "", prompts=60, n=16, blocks=3, max_tokens=256, dtype="")
    parser.add_argument("--model", default="smollm2", choices=common.NAMES)
    parser.add_argument("--at", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--keep", type=float, default=0.5)
    args = parser.parse_args()
    folder = common.model_folder(args.model, args.data)
    options = common.engine_options(args.model, args.dtype, max_model_len=2048)
    engine: Any = load_engine(f"vllm:{folder}", **options)
    prompts = [row["prompt"] for row in common.load_pools(args.data)[: args.prompts]]
    sampling = SamplingParams(max_tokens=args.max_tokens, temperature=0.8)
    sides = {"plain": None, "rejecting": EarlyRejection(tuple(args.at), args.keep)}
    chosen: dict[str, list[Selection]] = {name: [] for name in sides}

    def run(name: str, part: Sequence[str]) -> list[Selection]:
        best = BestOfN(
            engine,
            FLIPLikelihood(engine),
            n=args.n,
            sampling=sampling,
            seed=0,
            reject=sides[name],
        )
        return list(best.select_many(part, progress=False))

    for name in sides:
        run(name, prompts[:2])
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for block in range(args.blocks):
        part = prompts[block :: args.blocks]
        # Which side comes first alternates.
        for name in (*sides,) if block % 2 else reversed(sides):
            started = time.perf_counter()
            chosen[name] += run(name, part)
            seconds[name].append(time.perf_counter() - started)
            print(f"  {name}: {seconds[name][-1]:.1f} s", file=sys.stderr, flush=True)
    engine.close()
    plain, early = chosen["plain"], chosen["rejecting"]
    tokens = {name: _tokens(found) for name, found in chosen.items()}
    saved = 1 - tokens["rejecting"].sum() / tokens["plain"].sum()
    loss = bootstrap_mean(
        np.array([_value(a) - _value(b) for a, b in zip(plain, early, strict=True)])
    )
    same = float(np.mean([a.text == b.text for a, b in zip(plain, early, strict=True)]))
    ratios = {"plain over rejecting, seconds": common.ratio(seconds["plain"], seconds["rejecting"])}
    common.ratio_table(ratios)
    print(
        f"{saved:.0%} of the tokens drawn and scored are saved; the chosen one's likelihood is "
        f"{loss.mean:.3f} [{loss.low:.3f}, {loss.high:.3f}] lower, and {same:.0%} are the same text"
    )
    report = {
        "model": args.model,
        "prompts": args.prompts,
        "n": args.n,
        "max_tokens": args.max_tokens,
        "at": args.at,
        "keep": args.keep,
        "seconds": seconds,
        "ratios": ratios,
        "tokens": {name: float(found.mean()) for name, found in tokens.items()},
        "saved": float(saved),
        "loss": [float(end) for end in (loss.mean, loss.low, loss.high)],
        "same_text": same,
    }
    common.write(args.json, report)


def _value(selection: Selection) -> float:
    return selection.scores[selection.index].value


def _tokens(selections: Sequence[Selection]) -> Any:
    """`[prompts]`, tokens that were drawn and computed for scores."""
    usages = [
        sum((score.usage for c in s.candidates for score in c.scores.values()), Usage())
        for s in selections
    ]
    drawn = [sum(c.usage.generated_tokens for c in s.candidates) for s in selections]
    return np.array(drawn) + [usage.computed_tokens for usage in usages]


if __name__ == "__main__":
    main()
