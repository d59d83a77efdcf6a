"""BestOfN on one vLLM engine against the ways to write the same by hand.

All sides draw n candidates for each prompt and infer an instruction from each, greedily, with the
same model and the same requests: lengths of the candidates are those of real responses, forced
request by request, since random weights never end.

(a) Two phases: `LLM.generate` over all candidates, then `LLM.generate` over all inferences.
(b) Prompt by prompt: one `LLM.generate` for its candidates, one for their inferences.
(c) its_hub 1.2 against `BestOfN` on the same vLLM server, with natural lengths: once as its manual
    shows it, one prompt after another, once with all prompts at once. With the embedded model and
    its own tasks, or with SmolLM2, real prompts and at most 128 tokens a response. Needs
    `pip install its_hub[lm]==1.2.0`; left out with --no-server.

    python benchmarks/bench_pipeline.py [--model 12x512] [--dtype bfloat16] [--pairs 7]
"""

import asyncio
import copy
import random
import sys
from collections import defaultdict
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any

import common

from bestofn import BestOfN, FLIPReward, SamplingParams, load_engine
from bestofn.engines.base import Completion, Engine
from bestofn.prompts import as_prompt
from bestofn.rewards.parsing import parse_plain
from bestofn.rewards.similarity import f1
from bestofn.rewards.templates import load_template
from bestofn.tiny import heldout_tasks
from bestofn.types import Candidate, Prompt, Score

BACKWARD = 30  # tokens of an inferred instruction
SHORT = 300  # characters of a real prompt, at most, on a server
DIRECT = load_template("direct")


# Whether the request at hand is a candidate, and of which prompt.
AT_HAND: ContextVar[tuple[bool, str]] = ContextVar("AT_HAND")


class Forced(Engine):
    """The engine, with the length of each candidate and of each inference prescribed."""

    def __init__(self, engine: Any, lengths: dict[str, list[int]]) -> None:
        self.engine, self.lengths = engine, lengths
        self.name, self.default_template, self.context = engine.name, "direct", engine.context
        self.loglikelihood, self.close = engine.loglikelihood, engine.close
        self.count_tokens, self.control_tokens = engine.count_tokens, engine.control_tokens
        self.start()

    def start(self) -> None:
        self.left = copy.deepcopy(self.lengths)

    async def generate(
        self, prompt: Prompt, params: SamplingParams, seed: int | None = None
    ) -> Completion:
        length = BACKWARD
        if prompt.id:
            length = self.left[prompt.id].pop()
            AT_HAND.set((True, prompt.id))
        extra = {"min_tokens": length, "ignore_eos": True}
        forced = replace(params, max_tokens=length, extra=extra)
        return await self.engine.generate(prompt, forced, seed)

    def with_options(self, **options: Any) -> "Forced":
        return self


class Noted(FLIPReward):
    """FLIPReward that notes which prompt its requests belong to."""

    async def score(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Score]:
        AT_HAND.set((False, prompt.id))
        return await super().score(prompt, candidates)


class ByHand:
    """What one writes with vLLM's `LLM` alone."""

    def __init__(self, folder: str, options: dict[str, Any], prompts: list[Prompt], chat: Any):
        from vllm import LLM

        self.llm = LLM(folder, **options)
        self.prompts, self.chat = prompts, chat

    def run(self, prompts: list[Prompt], lengths: dict[str, list[int]]) -> list[str]:
        """The selected responses, in two calls of `generate`."""
        from vllm import SamplingParams as Params

        requests = [(prompt, length) for prompt in prompts for length in lengths[prompt.id]]
        responses = self._generate(
            [self.chat.render(prompt.messages) for prompt, _ in requests],
            [Params(max_tokens=n, min_tokens=n, ignore_eos=True) for _, n in requests],
        )
        greedy = Params(temperature=0, max_tokens=BACKWARD, min_tokens=BACKWARD, ignore_eos=True)
        inferred = self._generate(
            [self.chat.render(DIRECT.fill(response).messages) for response in responses],
            [greedy] * len(responses),
        )
        best: dict[str, tuple[float, str]] = {}
        for (prompt, _), response, text in zip(requests, responses, inferred, strict=True):
            score = f1(parse_plain(text).text or "", prompt.messages[-1].content)
            if score > best.get(prompt.id, (-1.0, ""))[0]:
                best[prompt.id] = score, response
        return [best[prompt.id][1] for prompt in prompts]

    def _generate(self, texts: list[str], params: list[Any]) -> list[str]:
        outputs = self.llm.generate(texts, params, use_tqdm=False)
        return [output.outputs[0].text for output in outputs]


def workload(
    pools: list[dict[str, Any]], tokenizer: Any, count: int, n: int, scale: float, room: int
) -> tuple[list[Prompt], dict[str, list[int]]]:
    """Real prompts, and for each the lengths of its real responses, times `scale`."""
    rng = random.Random(0)
    prompts, lengths = [], {}
    for row in rng.sample(pools, len(pools)):
        prompt = as_prompt(row["prompt"], row["id"])
        if len(tokenizer(row["prompt"])["input_ids"]) > room // 4:
            continue
        texts = [c["text"] for c in row["candidates"]]
        drawn = [texts[i % len(texts)] for i in range(n)]
        sizes = [int(scale * len(tokenizer(text)["input_ids"])) for text in drawn]
        lengths[prompt.id] = [min(max(size, 4), room // 2) for size in sizes]
        prompts.append(prompt)
        if len(prompts) == count:
            break
    return prompts, lengths


class Timeline:
    """When vLLM began and ended each request, by its own clock."""

    def __init__(self) -> None:
        self.ended: dict[str, float] = defaultdict(float)
        self.begun: list[tuple[str, float]] = []

    def note(self, output: Any) -> None:
        candidate, prompt_id = AT_HAND.get()
        if candidate:
            self.ended[prompt_id] = max(self.ended[prompt_id], output.metrics.last_token_ts)
        else:
            self.begun.append((prompt_id, output.metrics.scheduled_ts))

    def admitted_early(self) -> float:
        """The share of inferences that began before the last sibling of their prompt ended."""
        early = sum(at < self.ended[prompt_id] for prompt_id, at in self.begun)
        return early / max(len(self.begun), 1)


def against_llm(args: Any) -> dict[str, Any]:
    folder = common.model_folder(args.model, args.data)
    room = 512 if args.model == "tiny" else 2048
    options = common.engine_options(args.model, args.dtype, max_model_len=room)
    engine = load_engine(f"vllm:{folder}", **options)
    tokenizer = engine._chat.tokenizer  # type: ignore[attr-defined]
    prompts, lengths = workload(
        common.load_pools(args.data), tokenizer, args.prompts, args.n, args.scale, room
    )
    from bestofn.engines.vllm.arguments import engine_defaults

    forced = Forced(engine, lengths)
    # As by hand: nobody asks for the log-probabilities of the candidates.
    plain = SamplingParams(logprobs=False)
    window = args.window or None
    best = BestOfN(forced, Noted(forced), n=args.n, window=window, sampling=plain)
    usual = BestOfN(forced, Noted(forced), n=args.n, window=window)
    hand = ByHand(folder, engine_defaults(options) | options, prompts, engine._chat)  # type: ignore[attr-defined]

    def ours() -> None:
        forced.start()
        list(best.select_many(prompts, progress=False))

    def with_logprobs() -> None:
        forced.start()
        list(usual.select_many(prompts, progress=False))

    def two_phases() -> None:
        hand.run(prompts, lengths)

    def prompt_by_prompt() -> None:
        for prompt in prompts:
            hand.run([prompt], lengths)

    def forget() -> None:
        asyncio.run(_reset(engine))
        hand.llm.reset_prefix_cache()

    ours(), two_phases()
    sides = {"ours": ours, "with log-probabilities": with_logprobs, "two phases": two_phases}
    first = common.interleaved(sides, args.pairs, forget)
    second = common.interleaved({"ours": ours, "by prompt": prompt_by_prompt}, 3, forget)
    timeline = Timeline()
    engine.on_finished = timeline.note  # type: ignore[attr-defined]
    ours()
    tokens = sum(sum(sizes) for sizes in lengths.values())
    report = {
        "candidates": args.prompts * args.n,
        "generated_tokens": tokens,
        "seconds": {name: common.mid(s) for name, s in (first | second).items()},
        "ours_over_two_phases": common.ratio(first["ours"], first["two phases"]),
        "with_logprobs_over_ours": common.ratio(first["with log-probabilities"], first["ours"]),
        "by_prompt_over_ours": common.ratio(second["by prompt"], second["ours"]),
        "admitted_before_last_sibling_ended": timeline.admitted_early(),
    }
    engine.close()
    return report


async def _reset(engine: Any) -> None:
    from bestofn import concurrency

    await concurrency.on_background_loop(engine._process.llm.reset_prefix_cache())


# --- the same server ------------------------------------------------------------------------------


def against_its_hub(args: Any) -> dict[str, Any]:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from serving import serve

    log = common.CACHE.parent / "server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    real = args.model == "smollm2"
    instructions = [task.instruction for task in heldout_tasks(args.prompts)]
    server: dict[str, Any] = {}
    if real:
        pools = common.load_pools(args.data)
        short = [row["prompt"] for row in pools if len(row["prompt"]) < SHORT]
        instructions = random.Random(0).sample(short, args.prompts)
        dtype = args.dtype or "float32"
        folder = common.model_folder(args.model, args.data)
        server = {"model": folder, "dtype": dtype, "context": 2048, "cache": 4}
    with serve(log, **server) as url:
        model = Path(server.get("model", "tiny")).name
        most = 128 if real else 300
        engine = load_engine(f"openai:{url}/v1#{model}", template="direct")
        sampling = SamplingParams(max_tokens=most)
        best = BestOfN(engine, FLIPReward(engine, max_tokens=64), n=args.n, sampling=sampling)
        options = {"endpoint": f"{url}/v1", "model_name": model}

        def ours() -> None:
            list(best.select_many(instructions, progress=False))

        def one_by_one() -> None:
            asyncio.run(_its_hub(options, instructions, args.n, most, together=False))

        def together() -> None:
            asyncio.run(_its_hub(options, instructions, args.n, most, together=True))

        ours(), together()
        sides = {"ours": ours, "its_hub, one by one": one_by_one, "its_hub, all at once": together}
        seconds = common.interleaved(sides, args.pairs)
        engine.close()
    return {
        "seconds": {name: common.mid(s) for name, s in seconds.items()},
        "one_by_one_over_ours": common.ratio(seconds["its_hub, one by one"], seconds["ours"]),
        "all_at_once_over_ours": common.ratio(seconds["its_hub, all at once"], seconds["ours"]),
    }


async def _its_hub(
    options: dict[str, Any], instructions: list[str], n: int, most: int, *, together: bool
) -> list[Any]:
    from its_hub.api import AbstractOutcomeRewardModel, ChatMessage
    from its_hub.core.algorithms.bon import BestOfN as TheirBestOfN
    from its_hub.core.lms.openai_lm import OpenAICompatibleLanguageModel as Model

    class Flip(AbstractOutcomeRewardModel):
        """The same backward requests."""

        def __init__(self, model: Any) -> None:
            self.model = model

        def score(self, messages: Any, **options: Any) -> list[float]:
            raise NotImplementedError

        async def ascore(self, messages: Any, orchestrator: Any = None, **options: Any) -> Any:
            batch = [
                [
                    ChatMessage(role=m.role, content=m.content)
                    for m in DIRECT.fill(conversation[-1].content).messages
                ]
                for conversation in messages
            ]
            answers = await orchestrator.agenerate(self.model, batch)
            return [
                f1(parse_plain(answer.get("content") or "").text or "", turns[0].content)
                for answer, turns in zip(answers, messages, strict=True)
            ]

    generator = Model(**options, api_key="none", temperature=1.0, max_completion_tokens=most)
    inferrer = Model(**options, api_key="none", temperature=0.0, max_completion_tokens=64)
    algorithm = TheirBestOfN(Flip(inferrer))
    try:
        if together:
            runs = [algorithm.ainfer(generator, text, n) for text in instructions]
            return list(await asyncio.gather(*runs))
        return [await algorithm.ainfer(generator, text, n) for text in instructions]
    finally:
        await generator.close()
        await inferrer.close()


def main() -> None:
    parser = common.arguments(
        __doc__ or "", pairs=7, prompts=12, n=16, scale=0.25, window=0, dtype=""
    )
    parser.add_argument("--model", default="12x512", choices=common.NAMES)
    parser.add_argument("--no-server", action="store_true")
    parser.add_argument("--only-server", action="store_true")
    args = parser.parse_args()
    report: dict[str, Any] = {"model": args.model, "prompts": args.prompts, "n": args.n}
    ratios: dict[str, Any] = {}
    if not args.only_server:
        report |= against_llm(args)
        ratios |= {name: ratio for name, ratio in report.items() if "_over_" in name}
    if not args.no_server:
        server = report["server"] = against_its_hub(args)
        ratios |= {f"its_hub: {name}": r for name, r in server.items() if name != "seconds"}
    common.ratio_table(ratios)
    print({name: value for name, value in report.items() if not isinstance(value, dict)})
    print(report.get("seconds"), report.get("server", {}).get("seconds"))
    common.write(args.json, report)


if __name__ == "__main__":
    main()
