"""How many prompts BestOfN should keep in flight on a vLLM engine.

The same work as `bench_pipeline.py`, with the window from 4 to 64 prompts: time, and the share of
prompt tokens that came from the prefix cache.

    python benchmarks/bench_window.py [--model tiny] [--prompts 48] [--repeats 2] [--json FILE]
"""

from typing import Any

import common
from bench_pipeline import Forced, _reset, workload

from bestofn import BestOfN, FLIPReward, concurrency, load_engine
from bestofn.types import Usage

WINDOWS = (4, 8, 16, 32, 64)


def main() -> None:
    parser = common.arguments(__doc__ or "", prompts=48, n=16, scale=0.25, repeats=2, dtype="")
    parser.add_argument("--model", default="tiny", choices=common.NAMES)
    args = parser.parse_args()
    folder = common.model_folder(args.model, args.data)
    room = 512 if args.model == "tiny" else 2048
    options = common.engine_options(args.model, args.dtype, max_model_len=room)
    engine: Any = load_engine(f"vllm:{folder}", **options)
    pools = common.load_pools(args.data)
    prompts, lengths = workload(
        pools, engine._chat.tokenizer, args.prompts, args.n, args.scale, room
    )
    forced = Forced(engine, lengths)
    cached: dict[int, float] = {}

    def run(window: int) -> None:
        forced.start()
        best = BestOfN(forced, FLIPReward(forced), n=args.n, window=window)
        usages = [s.usage for s in best.select_many(prompts, progress=False)]
        total = sum(usages, Usage())
        cached[window] = total.cached_tokens / total.prompt_tokens

    run(WINDOWS[0])
    sides = {str(window): lambda w=window: run(w) for window in WINDOWS}
    seconds = common.interleaved(sides, args.repeats, lambda: concurrency.run(_reset(engine)))
    engine.close()
    fastest = min(common.mid(values) for values in seconds.values())
    common.table(
        ["prompts in flight", "candidates in flight", "seconds", "over the fastest", "cached"],
        [
            (
                window,
                window * args.n,
                f"{common.mid(seconds[str(window)]):.1f}",
                f"{common.mid(seconds[str(window)]) / fastest:.2f}",
                f"{cached[window]:.0%}",
            )
            for window in WINDOWS
        ],
    )
    common.write(
        args.json, {"model": args.model, "n": args.n, "seconds": seconds, "cached": cached}
    )


if __name__ == "__main__":
    main()
