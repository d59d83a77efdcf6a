"""BestOfN on the embedded engine against a careful hand-written loop over `generate`.

Both draw 16 candidates for each of 16 prompts with the same model at temperature 1 and infer an
instruction from each with FLIP's `direct` template, greedily. By hand: for each prompt one
`generate(num_return_sequences=16)`, then one batched `generate` over its 16 backward prompts,
sorted by length and left-padded. The two sides alternate in one process; ratios of medians.

    python benchmarks/bench_throughput.py [--repeats 5] [--json FILE]
"""

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bestofn import BestOfN, FLIPReward, SamplingParams, load_engine
from bestofn.engines.hf import TransformersEngine
from bestofn.rewards.parsing import parse_plain
from bestofn.rewards.similarity import f1
from bestofn.rewards.templates import load_template
from bestofn.tiny import heldout_tasks

PROMPTS, N, MAX_TOKENS, BACKWARD_TOKENS = 16, 16, 400, 64


class ByHand:
    """What a careful user writes with transformers alone."""

    def __init__(self, folder: str) -> None:
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
            [prompt], do_sample=True, num_return_sequences=N, max_new_tokens=MAX_TOKENS
        )
        backward = []
        for response in responses:
            turns = self.template.fill(response).messages
            backward.append(self.chat([{"role": t.role, "content": t.content} for t in turns]))
        order = sorted(range(N), key=lambda i: len(backward[i]))
        inferred = self.generate(
            [backward[i] for i in order], do_sample=False, max_new_tokens=BACKWARD_TOKENS
        )
        scores = [0.0] * N
        for i, text in zip(order, inferred, strict=True):
            scores[i] = f1(parse_plain(text).text or "", instruction)
        return responses[max(range(N), key=scores.__getitem__)]


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


def timed(run: Any) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.manual_seed(0)
    engine = load_engine("tiny")
    assert isinstance(engine, TransformersEngine)
    hand = ByHand(engine.folder)
    instructions = [task.instruction for task in heldout_tasks(PROMPTS)]
    reward = FLIPReward(engine, max_tokens=BACKWARD_TOKENS)
    sampler = BestOfN(engine, reward, n=N, sampling=SamplingParams(max_tokens=MAX_TOKENS))

    def ours() -> None:
        list(sampler.select_many(instructions, progress=False))

    def theirs() -> None:
        for instruction in instructions:
            hand.select(instruction)

    ours()
    hand.select(instructions[0])
    forward = ForwardTime(engine._scheduler.model)
    rows, outside = [], []
    for _ in range(args.repeats):
        before = forward.seconds
        seconds = timed(ours)
        outside.append(1 - (forward.seconds - before) / seconds)
        rows.append((seconds, timed(theirs)))
    report = {
        "prompts": PROMPTS,
        "n": N,
        "repeats": args.repeats,
        "bestofn_seconds": median(a for a, _ in rows),
        "by_hand_seconds": median(b for _, b in rows),
        "ratios": [b / a for a, b in rows],
        "speed_up": median(b / a for a, b in rows),
        "outside_forward_passes": median(outside),
    }
    print("| | seconds | candidates/s |\n|---|---|---|")
    for name, key in (("BestOfN", "bestofn_seconds"), ("by hand", "by_hand_seconds")):
        print(f"| {name} | {report[key]:.2f} | {PROMPTS * N / report[key]:.0f} |")
    print(f"\nspeed-up {report['speed_up']:.2f} (each pair: ", end="")
    print(", ".join(f"{ratio:.2f}" for ratio in report["ratios"]), end=")\n")
    print(f"wall time outside forward passes: {report['outside_forward_passes']:.1%}")
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
