"""The public face of the engine: coroutines in front of the thread that owns the model."""

import asyncio
import copy
import inspect
import secrets
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Self

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from bestofn.engines.base import Completion, Engine, SamplingParams, TokenScores
from bestofn.engines.chat import ChatFormat, require_room, room_behind
from bestofn.engines.hf.model import context_of, load, of_tokenizer
from bestofn.engines.hf.scheduler import (
    GenerateRequest,
    Scheduler,
    ScoreRequest,
    TextRequest,
)
from bestofn.engines.identity import Described
from bestofn.engines.model_files import default_template, load_tokenizer, locate
from bestofn.errors import ConfigError, EngineError
from bestofn.types import Prompt

GIB = 1 << 30


class TransformersEngine(Engine):
    """A causal language model on the CPU or one GPU.

    Requests are gathered into batches whatever prompt they belong to: new ones join the running
    batch, finished ones leave it, and equal prefixes are computed once.

    Args:
        model: A folder or a repository of the model hub.
        name: What to call the engine.
        device: "auto" takes CUDA, then MPS, then the CPU.
        dtype: "auto" is float32 on the CPU and the model's own elsewhere.
        max_rows: Sequences decoded at once.
        wave_tokens: New prompt tokens of one forward pass.
        kv_cache_gib: Memory for keys and values, by default 2 GiB, on CUDA 60 % of what is free
            once the model is loaded. A quarter of it holds prefixes for later requests.
        model_options: Passed to `AutoModelForCausalLM.from_pretrained`; those that say where the
            model is from, such as `revision`, and `trust_remote_code` go to its tokenizer as well.

    Raises:
        EngineError: the model cannot be loaded or is of a kind that this engine does not run.
    """

    def __init__(
        self,
        model: str,
        *,
        name: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        max_rows: int = 256,
        wave_tokens: int = 4096,
        kv_cache_gib: float | None = None,
        **model_options: Any,
    ) -> None:
        self.name = name or f"hf:{model}"
        for option, value in (("max_rows", max_rows), ("wave_tokens", wave_tokens)):
            if value < 1:
                raise ConfigError(f"{option} must be at least 1, not {value}")
        self._described = Described(f"hf:{model}", {"dtype": dtype, **model_options})
        model = locate(model)
        loaded, _ = load(AutoModelForCausalLM, model, device, dtype, model_options)
        _check_architecture(model, loaded)
        self._chat = ChatFormat(load_tokenizer(model, **of_tokenizer(model_options)))
        self.folder = model
        self.default_template = default_template(model)
        self._ends = _end_ids(loaded, self._chat)
        self.context: int = context_of(loaded)
        self._viewed: Self | None = None
        self._scheduler = Scheduler(loaded, max_rows, wave_tokens, _kv_tokens(loaded, kv_cache_gib))
        self._scheduler.start()
        # The thread must not be inside the model when the interpreter exits, nor outlive the last
        # view of the engine.
        weakref.finalize(self, self._scheduler.close)

    async def generate(
        self, prompt: Prompt, params: SamplingParams, seed: int | None = None
    ) -> Completion:
        if params.extra:
            raise ConfigError(
                f"the transformers engine knows no sampling option {', '.join(params.extra)}"
            )
        ids, thinking = self._chat.encode(prompt)
        room = room_behind(ids, self.context)
        request = GenerateRequest(
            ids=ids,
            prompt_tokens=len(ids),
            params=params,
            seed=secrets.randbits(64) if seed is None else seed % (1 << 64),
            limit=min(params.max_tokens, room),
            ends=self._ends,
            decode=partial(self._chat.text, skip_special_tokens=False),
        )
        await self._run(request)
        reasoning, text = self._chat.decode(request.tokens, thinking)
        return Completion(
            text=_before_stop(text, params.stop),
            reasoning=reasoning,
            finish_reason=request.finish_reason,
            token_ids=request.tokens,
            token_logprobs=request.logprobs,
            usage=request.usage(generated_tokens=len(request.tokens)),
        )

    async def loglikelihood(
        self,
        prompt: Prompt,
        continuation: str,
        *,
        close: bool = False,
        max_tokens: int | None = None,
    ) -> TokenScores:
        prefix, ids, complete = self._chat.encode_scored(prompt, continuation, close, max_tokens)
        require_room(prefix, ids, self.context)
        request = ScoreRequest(
            ids=(*prefix, *ids[:-1]),
            prompt_tokens=len(prefix),
            tail=len(ids),
            continuation=ids,
        )
        await self._run(request)
        usage = request.usage(scored_tokens=len(ids))
        return TokenScores(list(ids), request.logprobs, usage, complete=complete)

    async def _run(self, request: TextRequest) -> None:
        self._scheduler.submit(request)
        await asyncio.wrap_future(request.future)

    async def decode(self, prompt: Prompt, token_ids: Sequence[int]) -> tuple[str | None, str]:
        return self._chat.decode(list(token_ids), self._chat.encode(prompt)[1])

    async def count_tokens(self, prompt: Prompt) -> int | None:
        return len(self._chat.encode(prompt)[0])

    def control_tokens(self, text: str) -> list[str]:
        return self._chat.control_tokens(text)

    def with_options(
        self, *, chat_template_kwargs: Mapping[str, Any] | None = None, **other: Any
    ) -> Self:
        if other:
            raise ConfigError(
                f"the transformers engine has no option {', '.join(other)}; load the model with "
                "'vllm:PATH_OR_REPO' for that"
            )
        view = copy.copy(self)
        view._viewed = self  # so that it lives as long
        view._chat = self._chat.with_kwargs(chat_template_kwargs or {})
        return view

    def identity(self) -> dict[str, Any]:
        """What results depend on; see `bestofn.identity`."""
        return replace(
            self._described, view={"chat_template_kwargs": self._chat.template_kwargs}
        ).identity()

    def close(self) -> None:
        self._scheduler.close()


def _check_architecture(model: str, loaded: PreTrainedModel) -> None:
    """Rows are padded and share their prefixes' keys and values, which attention alone allows."""
    layers = set(getattr(loaded.config.get_text_config(), "layer_types", None) or ())
    other = layers - {"full_attention", "sliding_attention"}
    explicit = "position_ids" in inspect.signature(loaded.forward).parameters
    if other or not explicit or loaded.get_output_embeddings() is None:
        kind = ", ".join(sorted(other)) or "no explicit positions"
        raise EngineError(
            f"model {model!r} has {kind}, which the transformers engine does not run; "
            "serve it with an engine of its own"
        )


def _end_ids(loaded: PreTrainedModel, chat: ChatFormat) -> frozenset[int]:
    config = loaded.generation_config
    ends = None if config is None else config.eos_token_id
    listed = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
    eos = chat.tokenizer.eos_token_id
    return frozenset([*listed, *chat.closing_ids, *([] if eos is None else [eos])])


def _kv_tokens(loaded: PreTrainedModel, gib: float | None) -> int:
    """Tokens whose keys and values fit into the memory set aside for them."""
    config = loaded.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    token_bytes = 2 * config.num_hidden_layers * heads * width * loaded.dtype.itemsize
    if gib is None:
        gib = 2.0
        if loaded.device.type == "cuda":
            gib = 0.6 * torch.cuda.mem_get_info(loaded.device)[0] / GIB
    return int(gib * GIB / token_bytes)


def _before_stop(text: str, stops: tuple[str, ...]) -> str:
    cuts = [text.find(stop) for stop in stops]
    return text[: min((cut for cut in cuts if cut >= 0), default=len(text))]
