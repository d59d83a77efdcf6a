"""Guarded tail scoring on vLLM's prefix cache against the other ways to score, and nested cuts.

Real responses cut to a length in tokens, behind a header of about 200 tokens, and 20 tokens of the
real instruction to be scored; lengths are those of the model's own tokenizer.

- default: vLLM's own `prompt_logprobs`, which reads nothing from the cache.
- generating: 30 tokens of an instruction, greedily, behind the same prefix.
- transformers: one padded forward pass in float32 over all requests, logits for the tails alone.
- nested cuts: 64, 128, 256, 512 tokens of each response, ascending, against each by itself with
  vLLM's default, in computed tokens by the engine's counters and in time.
- seeds: the price of a seed for each request when generating.

    python benchmarks/bench_backward.py [--model 12x512] [--repeats 5] [--json FILE]
"""

import asyncio
import random
from functools import partial
from typing import Any

import common

from bestofn import SamplingParams, concurrency, load_engine
from bestofn.rewards.templates import InverseTemplate
from bestofn.types import Prompt

TOKENS = 20  # of an instruction, scored
GENERATED = 30  # of an instruction, written
CUTS = {"tiny": (32, 64, 128, 256), "other": (64, 128, 256, 512)}
LENGTHS = {"tiny": (50, 100, 200), "other": (50, 150, 300, 600, 1000)}
RULES = (
    "Name what was wanted, in which form, and under which limits of length, tone or order. ",
    "Say nothing that the response does not show, and leave out what only decorates it. ",
    "Where the response answers several questions at once, put them into a single sentence. ",
    "Keep names, numbers, quoted words and languages as they stand in the response. ",
    "Do not answer, correct or continue the response, and do not judge how good it is. ",
    "If it refuses, name what it refuses; if it asks back, name what it was asked at first. ",
)


def template(tokenizer: Any, header: int) -> InverseTemplate:
    """The built-in order of things with a header of so many tokens."""
    system, rules = "Infer the one instruction that the response most plausibly answers. ", ""
    while len(tokenizer(system + rules)["input_ids"]) < header:
        rules += RULES[len(rules) % len(RULES)]
    ids = tokenizer(system + rules)["input_ids"][:header]
    user = "Response:\n{response}\n\nInstruction:"
    return InverseTemplate(system=tokenizer.decode(ids), user=user, output="text")


class Requests:
    """Backward prefixes of real responses at one length, with their instructions."""

    def __init__(self, pools: list[dict[str, Any]], engine: Any, header: int) -> None:
        self.engine, self.tokenizer = engine, engine._chat.tokenizer
        self.template = template(self.tokenizer, header)
        self.rows = [(row["prompt"], c["text"]) for row in pools for c in row["candidates"]]
        random.Random(0).shuffle(self.rows)
        self.at = 0

    def draw(self, count: int, *lengths: int) -> list[tuple[list[Prompt], str]]:
        """Further responses, each cut to the given lengths, that have the largest of them."""
        drawn: list[tuple[list[Prompt], str]] = []
        while len(drawn) < count:
            instruction, response = self.rows[self.at % len(self.rows)]
            self.at += 1
            ids = self.tokenizer(response)["input_ids"]
            if len(ids) >= max(lengths) and len(self.tokenizer(instruction)["input_ids"]) >= TOKENS:
                cuts = [self.tokenizer.decode(ids[:length]) for length in lengths]
                drawn.append(([self.template.fill(cut) for cut in cuts], instruction))
        return drawn


async def default_score(engine: Any, prefix: Prompt, instruction: str) -> int:
    """As one asks vLLM for it by hand; returns the tokens computed."""
    from vllm import SamplingParams as Params

    ids, tail, _ = engine._chat.encode_scored(prefix, instruction, False, TOKENS)
    output = await engine._request(
        ids + tail, Params(max_tokens=1, prompt_logprobs=0, temperature=0)
    )
    return len(output.prompt_token_ids) - (output.num_cached_tokens or 0)


async def tail_score(engine: Any, prefix: Prompt, instruction: str) -> int:
    scores = await engine.loglikelihood(prefix, instruction, max_tokens=TOKENS)
    return int(scores.usage.computed_tokens)


async def generate(engine: Any, prefix: Prompt, _: str) -> int:
    forced = {"min_tokens": GENERATED, "ignore_eos": True}
    params = SamplingParams(temperature=0.0, max_tokens=GENERATED, extra=forced)
    return int((await engine.generate(prefix, params)).usage.computed_tokens)


async def _all(work: Any, engine: Any, pairs: list[tuple[list[Prompt], str]]) -> int:
    """One request for each response, all at once; returns the tokens computed."""
    return sum(await asyncio.gather(*(work(engine, cuts[0], text) for cuts, text in pairs)))


async def _nested(engine: Any, pairs: list[tuple[list[Prompt], str]]) -> int:
    """The cuts of a response one after another, the responses side by side."""

    async def one(cuts: list[Prompt], text: str) -> int:
        return sum([await tail_score(engine, cut, text) for cut in cuts])

    return sum(await asyncio.gather(*(one(cuts, text) for cuts, text in pairs)))


async def _apart(engine: Any, pairs: list[tuple[list[Prompt], str]]) -> int:
    scores = [default_score(engine, cut, text) for cuts, text in pairs for cut in cuts]
    return sum(await asyncio.gather(*scores))


def forget(engine: Any, warm: tuple[list[Prompt], str]) -> None:
    """Empties the cache but for the header, which every request of a run shares."""
    concurrency.run(engine._process.llm.reset_prefix_cache())
    concurrency.run(default_score(engine, warm[0][0], warm[1]))


class Transformers:
    """The same model with random weights, for the time alone."""

    def __init__(self, folder: str) -> None:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        self.torch = torch
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        self.model = model.to(device, dtype).eval()

    def score(self, engine: Any, pairs: list[tuple[list[Prompt], str]]) -> None:
        torch = self.torch
        rows = []
        for cuts, text in pairs:
            ids, tail, _ = engine._chat.encode_scored(cuts[0], text, False, TOKENS)
            rows.append(torch.tensor(ids + tail))
        # Padded on the left, so that the tails stand in the same columns.
        batch = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_side="left")
        mask = torch.nn.utils.rnn.pad_sequence(
            [torch.ones_like(row) for row in rows], batch_first=True, padding_side="left"
        )
        device = self.model.device
        with torch.inference_mode():
            out = self.model(
                input_ids=batch.to(device), attention_mask=mask.to(device),
                logits_to_keep=TOKENS + 1, use_cache=False,
            )  # fmt: skip
            out.logits[:, :-1].float().log_softmax(-1).sum().item()


def by_length(engine: Any, args: Any, requests: Requests, plain: Transformers) -> dict[str, Any]:
    found = {}
    for length in LENGTHS.get(args.model, LENGTHS["other"]):
        seconds: dict[str, list[float]] = {}
        for _ in range(args.repeats):
            pairs, (warm,) = requests.draw(args.requests, length), requests.draw(1, length)
            sides = {
                "tail": lambda p=pairs: concurrency.run(_all(tail_score, engine, p)),
                "default": lambda p=pairs: concurrency.run(_all(default_score, engine, p)),
                "generating": lambda p=pairs: concurrency.run(_all(generate, engine, p)),
                "transformers": lambda p=pairs: plain.score(engine, p),
            }
            timings = common.interleaved(sides, 1, partial(forget, engine, warm))
            for name, values in timings.items():
                seconds.setdefault(name, []).extend(values)
        found[str(length)] = {
            "seconds": {name: common.mid(values) for name, values in seconds.items()},
            **{
                f"{name}_over_tail": common.ratio(seconds[name], seconds["tail"])
                for name in ("default", "generating", "transformers")
            },
        }
    return found


def nested_cuts(engine: Any, args: Any, requests: Requests) -> dict[str, Any]:
    cuts = CUTS.get(args.model, CUTS["other"])
    seconds: dict[str, list[float]] = {"nested": [], "apart": []}
    tokens = {"nested": 0, "apart": 0}
    for _ in range(args.repeats):
        pairs, (warm,) = requests.draw(args.requests, *cuts), requests.draw(1, *cuts)
        for name, run in (("nested", _nested), ("apart", _apart)):
            forget(engine, warm)

            def work(name: str = name, run: Any = run, pairs: Any = pairs) -> None:
                tokens[name] += concurrency.run(run(engine, pairs))

            seconds[name].append(common.timed(work))
    return {
        "cuts": cuts,
        "computed_tokens": tokens,
        "token_share": tokens["nested"] / tokens["apart"],
        "nested_over_apart": common.ratio(seconds["nested"], seconds["apart"]),
    }


def price_of_seeds(engine: Any, args: Any, requests: Requests) -> dict[str, Any]:
    params = SamplingParams(max_tokens=64, extra={"min_tokens": 64, "ignore_eos": True})
    prompts = [cuts[0] for cuts, _ in requests.draw(32, 50)]

    async def draw(seeded: bool) -> None:
        await asyncio.gather(
            *(engine.generate(p, params, i if seeded else None) for i, p in enumerate(prompts))
        )

    sides = {
        "seeds": lambda: concurrency.run(draw(True)),
        "none": lambda: concurrency.run(draw(False)),
    }
    for run in sides.values():
        run()
    seconds = common.interleaved(sides, args.repeats)
    return common.ratio(seconds["seeds"], seconds["none"])


def main() -> None:
    parser = common.arguments(__doc__ or "", repeats=5, requests=8, header=200, dtype="")
    parser.add_argument("--model", default="12x512", choices=common.NAMES)
    args = parser.parse_args()
    folder = common.model_folder(args.model, args.data)
    room = 512 if args.model == "tiny" else 2048
    options = common.engine_options(args.model, args.dtype, max_model_len=room)
    engine = load_engine(f"vllm:{folder}", **options)
    header = min(args.header, 150) if args.model == "tiny" else args.header
    requests = Requests(common.load_pools(args.data), engine, header)
    report = {
        "model": args.model,
        "header_tokens": header,
        "requests": args.requests,
        "block": engine._block,  # type: ignore[attr-defined]
        "lengths": by_length(engine, args, requests, Transformers(folder)),
        "nested": nested_cuts(engine, args, requests),
        "seeds_over_none": price_of_seeds(engine, args, requests),
        "rescored": engine.stats.rescored,  # type: ignore[attr-defined]
    }
    engine.close()
    rows = [
        (
            length,
            *(
                f"{found[f'{n}_over_tail']['ratio']:.2f}"
                for n in ("default", "generating", "transformers")
            ),
        )
        for length, found in report["lengths"].items()
    ]
    common.table(["response tokens", "default", "generating", "transformers"], rows)
    nested = report["nested"]
    print(f"nested cuts {nested['cuts']}: {nested['token_share']:.2f} of the tokens", end=", ")
    print(f"{nested['nested_over_apart']['ratio']:.2f} of the time", nested["nested_over_apart"])
    print("a seed for each request takes", report["seeds_over_none"], "of the time without")
    common.write(args.json, report)


if __name__ == "__main__":
    main()
