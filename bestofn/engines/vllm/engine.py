"""The public face of the vLLM engine: requests in, candidates and guarded scores out."""

import copy
import difflib
import inspect
import itertools
import json
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from vllm import AsyncEngineArgs
from vllm.inputs import tokens_input
from vllm.lora.request import LoRARequest
from vllm.v1.engine.exceptions import EngineDeadError

from bestofn import concurrency
from bestofn.engines.base import Completion, Engine, SamplingParams, TokenScores
from bestofn.engines.chat import ChatFormat, require_room, room_behind
from bestofn.engines.identity import Described
from bestofn.engines.model_files import default_template, first_sentence, load_tokenizer, locate
from bestofn.engines.vllm import versions
from bestofn.engines.vllm.process import EngineProcess
from bestofn.engines.vllm.scores import read_scores, scoring_usage
from bestofn.errors import ConfigError, EngineError
from bestofn.thinking import split_thinking
from bestofn.types import Prompt, Usage

# What only the text shows; without them it is made once, at the end.
TEXTUAL = frozenset(
    "stop include_stop_str_in_output skip_special_tokens spaces_between_special_tokens".split()
)
# Set by this engine, so that candidates stay what they are.
OWN = frozenset(
    "n logprobs prompt_logprobs flat_logprobs detokenize output_kind skip_reading_prefix_cache "
    "skip_clone seed structured_outputs".split()
)


@dataclass(slots=True)
class Stats:
    """Counts since the engine was loaded, over all its views.

    Attributes:
        scored: Calls of `loglikelihood` that were answered.
        rescored: Those of them whose first result could not be trusted, and was computed again
            without the prefix cache.
    """

    scored: int = 0
    rescored: int = 0


class VLLMEngine(Engine):
    """A model on vLLM, for generation and for backward scoring.

    Each candidate is a request of its own that shares its prompt with its siblings through the
    prefix cache, so that it can be scored as soon as it ends. The engine runs in a process of its
    own, which ends with this one.

    Args:
        model: A folder or a repository of the model hub; "tiny" is the embedded model.
        name: What to call the engine.
        engine_args: Every argument of vLLM's `AsyncEngineArgs` by its name, such as
            `tensor_parallel_size`, `dtype`, `max_model_len`, `gpu_memory_utilization`,
            `quantization`, `enable_lora`. Prefix caching is on by default, statistics always.

    Raises:
        ConfigError: there is no such argument.
        EngineError: vLLM cannot start with these; the message says why and what to change.
    """

    on_finished: Callable[[Any], None] | None = None
    """Called with each finished request as vLLM returns it, for measurements."""

    def __init__(self, model: str, *, name: str | None = None, **engine_args: Any) -> None:
        self.name = name or f"vllm:{model}"
        self.folder = locate(model)
        self._described = Described(f"vllm:{model}", engine_args)
        args = checked_args(self.folder, engine_args)
        self._chat = ChatFormat(load_tokenizer(args.tokenizer or self.folder, **of_tokenizer(args)))
        self.default_template = default_template(self.folder)
        self.stats = Stats()
        versions.count_preemptions()
        self._process = EngineProcess(args)
        assert self._process.llm is not None
        config = self._process.llm.vllm_config
        self.context: int = int(config.model_config.max_model_len)
        self._fixed_ids = versions.scores_fixed_ids(config)
        self._dies_of_seeds = versions.dies_of_seeds(config)
        self._misplaces_logits = versions.misplaces_logits(config)
        self._ranks = config.scheduler_config.policy == "priority"
        self._block = int(config.cache_config.block_size)
        self._caches = bool(config.cache_config.enable_prefix_caching)
        self._takes_lora = config.lora_config is not None
        self._adapted = config.lora_config.target_modules if self._takes_lora else None
        self._adapters: dict[str, LoRARequest] = {}
        self._loaded: set[str] = set()
        self._lora: LoRARequest | None = None
        self._guided = False
        self._request_ids = itertools.count()
        # The engine ends with its last view, and with the interpreter.
        self._lifetime = _Lifetime()
        weakref.finalize(self._lifetime, self._process.close)

    async def generate(
        self, prompt: Prompt, params: SamplingParams, seed: int | None = None
    ) -> Completion:
        if seed is not None and self._dies_of_seeds:
            raise ConfigError(
                "on a CPU vLLM dies of a seed where it computes prompts in chunks; load the engine "
                "with enable_chunked_prefill=False, or draw without a seed"
            )
        ids, thinking = self._chat.encode(prompt)
        options = self._options(params, room_behind(ids, self.context), seed)
        started = time.perf_counter()
        output = await self._request(ids, options)
        completion = output.outputs[0]
        if completion.finish_reason not in ("stop", "length", "repetition"):
            raise EngineError(f"vLLM ended a request early: {completion.finish_reason}")
        tokens = list(completion.token_ids)
        text = completion.text if options.detokenize else self._chat.text(tokens)
        reasoning, answer = split_thinking(text, opened=thinking)
        return Completion(
            text=answer,
            reasoning=reasoning,
            # What vLLM ends because it repeats itself is broken off, too.
            finish_reason="stop" if completion.finish_reason == "stop" else "length",
            token_ids=tokens,
            token_logprobs=list(completion.logprobs.logprobs) if params.logprobs else None,
            usage=Usage(
                prompt_tokens=len(ids),
                cached_tokens=output.num_cached_tokens or 0,
                generated_tokens=len(tokens),
                seconds=time.perf_counter() - started,
            ),
        )

    def _options(self, params: SamplingParams, room: int, seed: int | None) -> Any:
        """vLLM's parameters for ours."""
        unknown = [name for name in params.extra if name not in versions.FIELDS - OWN]
        if unknown:
            raise ConfigError(
                f"vLLM takes no sampling option {', '.join(unknown)} here; "
                "`extra` holds fields of its SamplingParams that the engine does not set itself"
            )
        options: dict[str, Any] = {
            "temperature": params.temperature,
            "top_p": params.top_p,
            "top_k": params.top_k,
            "min_p": params.min_p,
            "repetition_penalty": params.repetition_penalty,
            "max_tokens": params.max_tokens,
            "stop": list(params.stop),
            "seed": None if seed is None else seed % (1 << 63),
        } | dict(params.extra)
        options["max_tokens"] = min(options["max_tokens"] or room, room)
        if not options.get("ignore_eos"):
            stops = params.extra.get("stop_token_ids") or []
            options["stop_token_ids"] = [*stops, *self._chat.closing_ids]
        textual = bool(params.stop) or bool(TEXTUAL & set(params.extra))
        schema = params.json_schema if self._guided else None
        try:
            return versions.generation_params(params.logprobs, textual, schema, **options)
        except (*versions.REFUSALS, TypeError) as error:
            raise ConfigError(f"vLLM refuses a sampling option: {first_sentence(error)}") from error

    async def loglikelihood(
        self,
        prompt: Prompt,
        continuation: str,
        *,
        close: bool = False,
        max_tokens: int | None = None,
    ) -> TokenScores:
        if self._misplaces_logits:
            raise EngineError(
                "vLLM cannot score with an adapter on the output layer; load the engine with "
                "lora_target_modules that leave lm_head out"
            )
        prefix, ids, complete = self._chat.encode_scored(prompt, continuation, close, max_tokens)
        require_room(prefix, ids, self.context)
        started = time.perf_counter()
        outputs = await self._fill_cache(prefix)
        outputs.append(await self._score(prefix, ids, read_cache=True))
        logprobs = read_scores(outputs[-1], len(prefix), ids)
        if logprobs is None:
            self.stats.rescored += 1
            outputs.append(await self._score(prefix, ids, read_cache=False))
            logprobs = read_scores(outputs[-1], len(prefix), ids, cache_was_read=False)
        if logprobs is None:
            raise EngineError(
                "vLLM returned no usable log-probabilities of the prompt; check that the engine "
                "arguments do not switch them off"
            )
        self.stats.scored += 1
        usage = scoring_usage(outputs, len(prefix), len(ids))
        usage.seconds = time.perf_counter() - started
        return TokenScores(list(ids), logprobs, usage, complete=complete)

    async def decode(self, prompt: Prompt, token_ids: Sequence[int]) -> tuple[str | None, str]:
        return self._chat.decode(list(token_ids), self._chat.encode(prompt)[1])

    async def count_tokens(self, prompt: Prompt) -> int | None:
        return len(self._chat.encode(prompt)[0])

    def control_tokens(self, text: str) -> list[str]:
        return self._chat.control_tokens(text)

    async def _fill_cache(self, prefix: tuple[int, ...]) -> list[Any]:
        """Computes the prefix's whole blocks without logits; returns the request, if one is made.

        A scoring request computes logits over the vocabulary for every position that it does not
        find in the cache, on most runners, and they cost as much as some layers. With the prefix
        there, they are left for its last block and the continuation.
        """
        filled = (len(prefix) - 1) // self._block * self._block
        if self._fixed_ids or not self._caches or not filled:
            return []
        # With one token more, as vLLM always computes the last one and caches whole blocks.
        return [await self._request(prefix[: filled + 1], versions.filling_params())]

    async def _score(
        self, prefix: tuple[int, ...], ids: tuple[int, ...], *, read_cache: bool
    ) -> Any:
        params = versions.scoring_params(
            len(prefix), ids, read_cache=read_cache, fixed_ids=self._fixed_ids
        )
        return await self._request(prefix + ids, params)

    async def _request(self, ids: tuple[int, ...], params: Any) -> Any:
        """The finished request. AsyncLLM belongs to the package's event loop."""
        output = await concurrency.on_background_loop(self._submit(ids, params))
        if self.on_finished is not None:
            self.on_finished(output)
        return output

    async def _submit(self, ids: tuple[int, ...], params: Any) -> Any:
        if self._lora is not None and self._lora.lora_path not in self._loaded:
            await self._load_adapter(self._process.opened(), self._lora)
        request_id = str(next(self._request_ids))
        return await self._process.last_output(
            request_id,
            lambda llm: llm.generate(
                tokens_input(list(ids)),
                params,
                request_id,
                lora_request=self._lora,
                priority=concurrency.place_in_run() if self._ranks else 0,
            ),
        )

    def with_options(
        self,
        *,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        lora: str | None = None,
        guided: bool | None = None,
        **other: Any,
    ) -> Self:
        """A view on the same engine.

        Args:
            chat_template_kwargs: For the model's chat template, such as `enable_thinking=False`.
            lora: A folder with a LoRA adapter, which requests of this view use; the engine must
                have been loaded with `enable_lora=True`. Its `lora_target_modules` are by default
                all linear layers but the output layer, with which vLLM cannot score.
            guided: Hold outputs to their JSON schema where the sampling parameters have one.
        """
        if other:
            raise ConfigError(f"the vLLM engine has no option {', '.join(other)}")
        view = copy.copy(self)
        if chat_template_kwargs:
            view._chat = self._chat.with_kwargs(chat_template_kwargs)
        if lora is not None:
            view._lora = self._adapter(lora)
        if guided is not None:
            view._guided = guided
        return view

    def identity(self) -> dict[str, Any]:
        """What results depend on; see `bestofn.identity`."""
        view = {
            "chat_template_kwargs": self._chat.template_kwargs,
            "lora": self._lora and self._lora.lora_path,
            "guided": self._guided,
        }
        return replace(self._described, view=view).identity()

    def _adapter(self, folder: str) -> LoRARequest:
        if not self._takes_lora:
            raise ConfigError("a LoRA adapter needs an engine loaded with enable_lora=True")
        if not (Path(folder) / "adapter_config.json").is_file():
            raise ConfigError(f"{folder!r} is no LoRA adapter: it has no adapter_config.json")
        path = str(Path(folder).resolve())
        changed = _adapted_modules(Path(path))
        left_out = sorted(changed - set(self._adapted or changed))
        if left_out:
            raise ConfigError(
                f"the adapter {folder!r} changes {', '.join(left_out)}, which the engine would "
                "leave out without a word; load it with lora_target_modules that have them"
            )
        if path not in self._adapters:
            number = len(self._adapters) + 1
            self._adapters[path] = LoRARequest(f"adapter-{number}", number, path)
        return self._adapters[path]

    async def _load_adapter(self, llm: Any, adapter: LoRARequest) -> None:
        """Ahead of its first request, in the middle of which a bad one would end the engine."""
        try:
            await llm.add_lora(adapter)
        except EngineDeadError as error:
            raise EngineError(self._process.death_message()) from error
        except Exception as error:  # vLLM passes on whatever the loading raised as this
            raise ConfigError(
                f"vLLM cannot load the adapter {adapter.lora_path!r}: {first_sentence(error)}"
            ) from error
        self._loaded.add(adapter.lora_path)

    @property
    def running(self) -> int:
        """Requests that vLLM has not finished, over all views."""
        llm = self._process.llm
        return 0 if llm is None else llm.output_processor.get_num_unfinished_requests()

    def close(self) -> None:
        self._process.close()


class _Lifetime:
    """Shared by all views of one engine; gone when the last of them is."""


def checked_args(folder: str, given: Mapping[str, Any]) -> AsyncEngineArgs:
    """vLLM's arguments: those that were given, and those that a user would have to know of.

    Raises:
        ConfigError: vLLM has no such argument, or refuses its value.
    """
    known = set(inspect.signature(AsyncEngineArgs).parameters)
    unknown = sorted(set(given) - known)
    if unknown:
        close = difflib.get_close_matches(unknown[0], known, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(f"vLLM has no engine argument {', '.join(unknown)}{hint}")
    args = versions.engine_defaults(given) | dict(given)
    # Without its statistics a request that lost its place could not be told from the others; and
    # in another mode what comes out are no log-probabilities of the model.
    fixed = {"disable_log_stats": False, "logprobs_mode": "raw_logprobs"}
    changed = [name for name, value in fixed.items() if given.get(name, value) != value]
    if changed:
        raise ConfigError(f"{changed[0]} has to stay {fixed[changed[0]]!r}, which scores rely on")
    try:
        return AsyncEngineArgs(model=folder, **args | fixed)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"vLLM refuses an engine argument: {first_sentence(error)}") from error


def of_tokenizer(args: AsyncEngineArgs) -> dict[str, Any]:
    """Those of vLLM's arguments that the model's tokenizer is loaded with."""
    return {
        "revision": args.tokenizer_revision or args.revision,
        "trust_remote_code": args.trust_remote_code,
        "token": args.hf_token,
    }


def _adapted_modules(adapter: Path) -> set[str]:
    """Names of the layers that a LoRA adapter has weights for."""
    from safetensors import SafetensorError, safe_open

    weights = adapter / "adapter_model.safetensors"
    if not weights.is_file():
        found = json.loads((adapter / "adapter_config.json").read_text("utf-8"))
        named = found.get("target_modules") or []
        return {named} if isinstance(named, str) else set(named)
    try:
        with safe_open(weights, "np") as tensors:
            layers = [key.partition(".lora_")[0] for key in tensors.keys()]  # noqa: SIM118
    except SafetensorError as error:
        raise ConfigError(
            f"the adapter's file {str(weights)!r} cannot be read: {first_sentence(error)}"
        ) from error
    return {layer.rpartition(".")[2] for layer in layers}
