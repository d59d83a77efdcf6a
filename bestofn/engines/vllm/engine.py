"""Models on vLLM: requests in, candidates and guarded scores out."""

import copy
import json
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

from safetensors import SafetensorError, safe_open
from vllm import SamplingParams as VLLMParams
from vllm.inputs import tokens_input
from vllm.lora.request import LoRARequest
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
from vllm.v1.engine.exceptions import EngineDeadError

from bestofn import concurrency
from bestofn.engines.base import Completion, SamplingParams, TokenScores, Watch, WatchedEngine
from bestofn.engines.chat import ChatFormat, require_room
from bestofn.engines.identity import Described
from bestofn.engines.model_files import (
    default_template,
    first_sentence,
    load_tokenizer,
    locate,
)
from bestofn.engines.vllm import versions
from bestofn.engines.vllm.arguments import checked_args, tokenizer_args
from bestofn.engines.vllm.process import EngineProcess
from bestofn.engines.vllm.versions import read_scores
from bestofn.errors import ConfigError, EngineError
from bestofn.thinking import split_thinking
from bestofn.types import Prompt, Usage

# What only the text shows; without them it is made once, at the end.
TEXTUAL = frozenset(
    "stop include_stop_str_in_output skip_special_tokens spaces_between_special_tokens".split()
)
SHARED = "temperature top_p top_k min_p repetition_penalty max_tokens".split()
# Set by this engine, so that candidates stay what they are.
OWN = frozenset(
    "n logprobs prompt_logprobs flat_logprobs detokenize output_kind skip_reading_prefix_cache "
    "skip_clone seed structured_outputs".split()
)


class VLLMEngine(WatchedEngine):
    """A model on vLLM, for generation and for backward scoring.

    Each candidate is a request of its own, so that it can be scored as soon as it ends. The engine
    runs in a process of its own, which ends with this one.

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
        self._chat = ChatFormat(
            load_tokenizer(args.tokenizer or self.folder, **tokenizer_args(args))
        )
        # Over all views: calls of `loglikelihood`, and those that the prefix cache made uncertain.
        self.stats = SimpleNamespace(scored=0, rescored=0)
        versions.count_preemptions()
        self._process = EngineProcess(args)
        config = self._process.config
        of_model = config.model_config.hf_config.to_dict()
        self.default_template = default_template(self.folder, of_model)
        self.context: int = int(config.model_config.max_model_len)
        self._fixed_ids = versions.scores_fixed_ids(config)
        self._block = int(config.cache_config.block_size)
        self._caches = bool(config.cache_config.enable_prefix_caching)
        self._dies_of_seeds = versions.dies_of_seeds(config)
        self._lora_config = config.lora_config
        self._adapters: dict[str, LoRARequest] = {}
        self._loaded: set[str] = set()
        self._lora: LoRARequest | None = None
        self._guided = False
        self._viewed: Self | None = None
        # The engine ends with its last view, and with the interpreter.
        weakref.finalize(self, self._process.close)

    async def _generate(
        self, prompt: Prompt, params: SamplingParams, seed: int | None, watch: Watch | None
    ) -> Completion:
        if seed is not None and self._dies_of_seeds:
            raise ConfigError(
                "on a CPU vLLM dies of a seed where it computes prompts in chunks; load the engine "
                "with enable_chunked_prefill=False, or draw without a seed"
            )
        ids, thinking = self._chat.encode(prompt)
        options = self._options(prompt, params, require_room(ids, 1, self.context), seed)
        started = time.perf_counter()

        def read(output: Any, first: int | None = None) -> Completion:
            """The response, or its first tokens."""
            completion = output.outputs[0]
            tokens = list(completion.token_ids[:first])
            whole = options.detokenize and first is None
            text = completion.text if whole else self._chat.text(tokens)
            reasoning, answer = split_thinking(text, opened=thinking)
            ended = first is None and completion.finish_reason == "stop"
            return Completion(
                text=answer,
                reasoning=reasoning,
                # What vLLM ends because it repeats itself is broken off, too.
                finish_reason="stop" if ended else "length",
                token_ids=tokens,
                token_logprobs=(
                    versions.read_logprobs(completion, first) if params.logprobs else None
                ),
                usage=Usage(
                    prompt_tokens=len(ids),
                    cached_tokens=output.num_cached_tokens or 0,
                    generated_tokens=len(tokens),
                    seconds=time.perf_counter() - started,
                ),
                token_confidences=versions.read_confidences(completion, params.confidence, first),
            )

        if watch is None:
            output = await self._request(ids, options)
        else:
            options.output_kind = RequestOutputKind.CUMULATIVE
            output = await self._request(ids, options, partial(_look, watch, read))
        if (reason := output.outputs[0].finish_reason) not in ("stop", "length", "repetition"):
            raise EngineError(f"vLLM ended a request early: {reason}")
        return read(output)

    def _options(self, prompt: Prompt, params: SamplingParams, room: int, seed: int | None) -> Any:
        """vLLM's parameters for ours."""
        known = set(VLLMParams.__struct_fields__) - OWN
        if unknown := [name for name in params.extra if name not in known]:
            raise ConfigError(
                f"vLLM takes no sampling option {', '.join(unknown)} here; "
                "`extra` holds fields of its SamplingParams that the engine does not set itself"
            )
        options = {name: getattr(params, name) for name in SHARED}
        options |= {"stop": list(params.stop), **params.extra}
        options["max_tokens"] = min(options["max_tokens"] or room, room)
        if not options.get("ignore_eos"):
            stops = options.get("stop_token_ids") or []
            options["stop_token_ids"] = [*stops, *self._chat.closing_ids]
        if self._guided and (schema := params.schema_for(prompt)) is not None:
            options["structured_outputs"] = StructuredOutputsParams(json=dict(schema))
        try:
            return versions.params(
                **options,
                seed=None if seed is None else seed % (1 << 63),
                logprobs=self._wanted_logprobs(params),
                flat_logprobs=True,
                detokenize=bool(params.stop or TEXTUAL & set(params.extra)),
            )
        except Exception as error:  # of other types in each release
            raise ConfigError(f"vLLM refuses a sampling option: {first_sentence(error)}") from error

    def _wanted_logprobs(self, params: SamplingParams) -> int | None:
        """How many log-probabilities beside that of the sampled token; -1 for all."""
        if params.confidence is None:
            return 0 if params.logprobs else None
        most = self._process.config.model_config.max_logprobs
        if most != -1 and (params.confidence == "all" or params.confidence > most):
            raise ConfigError(
                f"confidence={params.confidence!r} needs an engine loaded with max_logprobs=-1; it "
                f"gives {most} log-probabilities of a token"
            )
        return -1 if params.confidence == "all" else params.confidence

    async def loglikelihood(
        self,
        prompt: Prompt,
        continuation: str,
        *,
        close: bool = False,
        max_tokens: int | None = None,
    ) -> TokenScores:
        # vLLM applies such an adapter to rows of the batch, and dies of a prompt's logits.
        adapted = self._lora_config and self._lora_config.target_modules
        if self._lora_config and (adapted is None or "lm_head" in adapted):
            raise EngineError(
                "vLLM cannot score with an adapter on the output layer; load the engine with "
                "lora_target_modules that leave lm_head out"
            )
        prefix, ids, complete = self._chat.encode_scored(prompt, continuation, close, max_tokens)
        require_room(prefix, len(ids) + 1, self.context)
        started = time.perf_counter()
        outputs = await self._fill_cache(prefix)
        logprobs = None
        for read_cache in (True, False) if self._caches else (False,):
            params = versions.scoring_params(
                len(prefix), ids, read_cache=read_cache, fixed_ids=self._fixed_ids
            )
            outputs.append(await self._request(prefix + ids, params))
            logprobs = read_scores(outputs[-1], len(prefix), ids, cache_was_read=read_cache)
            if logprobs is not None:
                break
            self.stats.rescored += read_cache
        if logprobs is None:
            raise EngineError(
                "vLLM returned no usable log-probabilities of the prompt; check that the engine "
                "arguments do not switch them off"
            )
        self.stats.scored += 1
        usage = versions.scoring_usage(outputs, len(prefix), len(ids))
        usage.seconds = time.perf_counter() - started
        return TokenScores(list(ids), logprobs, usage, complete=complete)

    async def first_tokens(self, prompt: Prompt, answers: Sequence[str]) -> TokenScores:
        if not versions.NAMED_LOGPROBS:
            return await super().first_tokens(prompt, answers)
        started = time.perf_counter()
        first = [self._chat.encode_scored(prompt, answer, False, 1) for answer in answers]
        prefix, ids = first[0][0], [token for _, (token,), _ in first]
        require_room(prefix, 1, self.context)
        params = versions.params(
            temperature=0.0, max_tokens=1, logprob_token_ids=sorted(set(ids)), flat_logprobs=True
        )
        output = await self._request(prefix, params)
        found = output.outputs[0].logprobs
        logprobs = dict(zip(found.token_ids, found.logprobs, strict=True))
        usage = Usage(
            prompt_tokens=len(prefix),
            cached_tokens=output.num_cached_tokens or 0,
            scored_tokens=1,
            seconds=time.perf_counter() - started,
        )
        return TokenScores(ids, [logprobs[token] for token in ids], usage, complete=False)

    async def decode(self, prompt: Prompt, token_ids: Sequence[int]) -> tuple[str | None, str]:
        return self._chat.decode(list(token_ids), self._chat.encode(prompt)[1])

    async def token_texts(self, prompt: Prompt, token_ids: Sequence[int]) -> list[str]:
        return [self._chat.text([token]) for token in token_ids]

    async def check(self) -> None:
        self._process.require_alive()

    async def count_tokens(self, prompt: Prompt) -> int | None:
        return len(self._chat.encode(prompt)[0])

    def control_tokens(self, text: str) -> list[str]:
        return self._chat.control_tokens(text)

    async def _fill_cache(self, prefix: tuple[int, ...]) -> list[Any]:
        """Computes the prefix's whole blocks without logits; returns the request, if one is made.

        On most runners a scoring request computes logits over the vocabulary for every position
        that it does not find in the cache, and they cost as much as some layers.
        """
        filled = (len(prefix) - 1) // self._block * self._block
        if self._fixed_ids or not self._caches or not filled:
            return []
        # With one token more, as vLLM always computes the last one and caches whole blocks.
        params = versions.params(temperature=0.0, max_tokens=1)
        return [await self._request(prefix[: filled + 1], params)]

    async def _request(
        self, ids: tuple[int, ...], params: Any, on_output: Callable[[Any], None] | None = None
    ) -> Any:
        """The finished request. AsyncLLM belongs to the package's event loop."""
        output = await concurrency.on_background_loop(self._submit(ids, params, on_output))
        if self.on_finished is not None:
            self.on_finished(output)
        return output

    async def _submit(
        self, ids: tuple[int, ...], params: Any, on_output: Callable[[Any], None] | None
    ) -> Any:
        lora = self._lora
        if lora is not None and lora.lora_path not in self._loaded:
            # Ahead of its first request, in the middle of which a bad one would end the engine.
            try:
                await self._process.opened().add_lora(lora)
                self._loaded.add(lora.lora_path)
            except EngineDeadError:
                pass  # as the request itself will say
            except Exception as error:  # vLLM passes on whatever the loading raised as this
                raise ConfigError(
                    f"vLLM cannot load the adapter {lora.lora_path!r}: {first_sentence(error)}"
                ) from error
        return await self._process.last_output(
            lambda llm, **own: llm.generate(
                tokens_input(list(ids)), params, lora_request=lora, **own
            ),
            on_output,
        )

    def with_options(
        self,
        *,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        lora: str | None = None,
        guided: bool | None = None,
        **other: Any,
    ) -> Self:
        """A view on the same engine, see `Engine.with_options`.

        An adapter needs an engine loaded with `enable_lora=True`. Its `lora_target_modules` are by
        default all linear layers but the output layer, with which vLLM cannot score.
        """
        if other:
            raise ConfigError(f"the vLLM engine has no option {', '.join(other)}")
        view = copy.copy(self)
        view._viewed = self  # so that it lives as long
        if chat_template_kwargs:
            view._chat = self._chat.with_kwargs(chat_template_kwargs)
        if lora is not None:
            view._lora = self._adapter(lora)
        if guided is not None:
            view._guided = guided
        return view

    def identity(self) -> dict[str, Any]:
        """What results depend on; see `bestofn.identity`."""
        lora = self._lora and self._lora.lora_path
        view = {"chat_template_kwargs": self._chat.template_kwargs, "lora": lora}
        return replace(self._described, view={**view, "guided": self._guided}).identity()

    def _adapter(self, folder: str) -> LoRARequest:
        if self._lora_config is None:
            raise ConfigError("a LoRA adapter needs an engine loaded with enable_lora=True")
        place = Path(folder).resolve()
        if not (place / "adapter_config.json").is_file():
            raise ConfigError(f"{folder!r} is no LoRA adapter: it has no adapter_config.json")
        weights, changed = place / "adapter_model.safetensors", set()
        try:
            if weights.is_file():
                with safe_open(weights, "np") as tensors:
                    layers = [key.partition(".lora_")[0] for key in tensors.keys()]  # noqa: SIM118
                changed = {layer.rpartition(".")[2] for layer in layers}
            else:  # weights in PyTorch's own format
                named = json.loads((place / "adapter_config.json").read_text("utf-8"))
                found = named.get("target_modules") or []
                changed = {found} if isinstance(found, str) else set(found)
        except SafetensorError as error:
            raise ConfigError(f"{str(weights)!r} is damaged: {first_sentence(error)}") from error
        if left_out := sorted(changed - set(self._lora_config.target_modules or changed)):
            raise ConfigError(
                f"the adapter {folder!r} changes {', '.join(left_out)}, which the engine would "
                "leave out without a word; load it with lora_target_modules that have them"
            )
        number = len(self._adapters) + 1
        adapter = LoRARequest(f"adapter-{number}", number, str(place))
        return self._adapters.setdefault(str(place), adapter)

    @property
    def running(self) -> int:
        """Requests that are not finished, over all views."""
        llm = self._process.llm
        return 0 if llm is None else llm.output_processor.get_num_unfinished_requests()

    def close(self) -> None:
        self._process.close()


def _look(watch: Watch, read: Callable[[Any, int], Completion], output: Any) -> None:
    """Shows what of an unfinished response is new, at each count that it now has."""
    before, count = watch.generated, len(output.outputs[0].token_ids)
    watch.generated = count
    for at in watch.at:
        if before < at < count or (at == count > before and not output.finished):
            watch.reached(at, read(output, at))
