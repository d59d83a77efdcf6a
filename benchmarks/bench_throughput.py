"""BestOfN on the engine for transformers against a careful hand-written loop over `generate`.

Both draw N candidates for each prompt with the same model at temperature 1 and infer an
instruction from each with FLIP's `direct` template, greedily. By hand: for each prompt one
`generate(num_return_sequences=N)`, then one batched `generate` over its N backward prompts,
sorted by length and left-padded. The two sides alternate in one process; ratios of medians.

    python benchmarks/bench_throughput.py [--model tiny] [--prompts 16] [--n 16]
        [--max-tokens 400] [--repeats 5] [--json FILE]
"""

import time
from statistics import median
from typing import Any

import common
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bestofn import BestOfN, FLIPReward, SamplingParams, load_engine
from bestofn.engines.hf import TransformersEngine
from bestofn.rewards.parsing import parse_plain
from bestofn.rewards.similarity import f1
from bestofn.rewards.templates import load_template
from bestofn.tiny import heldout_tasks

BACKWARD_TOKENS = 64
LONGEST = 400  # characters of a prompt


class ByHand:
    """What a careful user writes with transformers alone."""

    def __init__(self, folder: str, n: int, max_tokens: int) -> None:
        self.n, self.max_tokens = n, max_tokens
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.template = load_template("direct")

    def generate(self, texts: list[str], **options: Any) -> list[str]:
        batch = self.tokenizer(
            texts, return_tensors="pt", padding=True, add_special_tokens=False,
            return_token_type_ids=False,
        )  # fmt: skip
        with torch.inference_mode():
            out = self.model.generate(
                **batch, pad_token_id=self.tokenizer.pad_token_id, top_k=0, **options
            )
        new = out[:, batch["input_ids"].shape[1] :]
        return self.tokenizer.batch_decode(new, skip_special_tokens=True)

    def chat(self, messages: list[dict[str, str]]) -> str:
        return self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )

    def select(self, instruction: str) -> str:
        prompt = self.chat([{"role": "user", "content": instruction}])
        responses = self.generate(
            [prompt], do_sample=True, num_return_sequences=self.n, max_new_tokens=self.max_tokens
        )
        backward = []
        for response in responses:
            turns = self.template.fill(response).messages
            backward.append(self.chat([{"role": t.role, "content": t.content} for t in turns]))
        order = sorted(range(self.n), key=lambda i: len(backward[i]))
        inferred = self.generate(
            [backward[i] for i in order], do_sample=False, max_new_tokens=BACKWARD_TOKENS
        )
        scores = [0.0] * self.n
        for i, text in zip(order, inferred, strict=True):
            scores[i] = f1(parse_plain(text).text or "", instruction)
        return responses[max(range(self.n), key=scores.__getitem__)]


class ForwardTime:
    """Seconds that a model has spent in its forward passes."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.seconds = self._started = 0.0
        model.register_forward_pre_hook(self._start)
        model.register_forward_hook(self._stop)

    def _start(self, *_: Any) -> None:
        self._started = time.perf_counter()

    def _stop(self, *_: Any) -> None:
        self.seconds += time.perf_counter() - self._started


def main() -> None:
    parser = common.arguments(__doc__ or "", prompts=16, n=16, max_tokens=400, repeats=5)
    parser.add_argument("--model", default="tiny", choices=("tiny", "smollm2"))
    args = parser.parse_args()
    torch.manual_seed(0)
    folder = common.model_folder(args.model, args.data)
    engine = load_engine("tiny" if args.model == "tiny" else f"hf:{folder}")
    assert isinstance(engine, TransformersEngine)
    hand = ByHand(engine.folder, args.n, args.max_tokens)
    if args.model == "tiny":
        instructions = [task.instruction for task in heldout_tasks(args.prompts)]
    else:
        rows = [row for row in common.load_pools(args.data) if len(row["prompt"]) < LONGEST]
        instructions = [row["prompt"] for row in rows[: args.prompts]]
    reward = FLIPReward(engine, template="direct", max_tokens=BACKWARD_TOKENS)
    sampling = SamplingParams(max_tokens=args.max_tokens)
    sampler = BestOfN(engine, reward, n=args.n, sampling=sampling)

    def ours() -> None:
        list(sampler.select_many(instructions, progress=False))

    def theirs() -> None:
        for instruction in instructions:
            hand.select(instruction)

    ours()
    hand.select(instructions[0])
    forward = ForwardTime(engine._scheduler.model)
    pairs, outside = [], []
    for _ in range(args.repeats):
        before = forward.seconds
        seconds = common.timed(ours)
        outside.append(1 - (forward.seconds - before) / seconds)
        pairs.append((seconds, common.timed(theirs)))
    report = {
        "model": args.model,
        "prompts": args.prompts,
        "n": args.n,
        "repeats": args.repeats,
        "bestofn_seconds": median(a for a, _ in pairs),
        "by_hand_seconds": median(b for _, b in pairs),
        "ratios": [b / a for a, b in pairs],
        "speed_up": median(b / a for a, b in pairs),
        "outside_forward_passes": median(outside),
    }
    print("| | seconds | candidates/s |\n|---|---|---|")
    for name, key in (("BestOfN", "bestofn_seconds"), ("by hand", "by_hand_seconds")):
        print(f"| {name} | {report[key]:.2f} | {args.prompts * args.n / report[key]:.3g} |")
    print(f"\nspeed-up {report['speed_up']:.2f} (each pair: ", end="")
    print(", ".join(f"{ratio:.2f}" for ratio in report["ratios"]), end=")\n")
    print(f"wall time outside forward passes: {report['outside_forward_passes']:.1%}")
    common.write(args.json, report)


if __name__ == "__main__":
    main()
