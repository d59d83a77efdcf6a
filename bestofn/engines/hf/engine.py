"""Models on transformers: coroutines in front of the thread that owns the model."""

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
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from bestofn.engines.base import Completion, SamplingParams, TokenScores, Watch, WatchedEngine
from bestofn.engines.chat import ChatFormat, require_room
from bestofn.engines.hf.model import Request, Worker, context_of, load, of_tokenizer
from bestofn.engines.hf.scheduler import Scheduler, TextRequest
from bestofn.engines.identity import Described
from bestofn.engines.model_files import (
    Logit,
    classifier_files,
    default_template,
    load_tokenizer,
    locate,
)
from bestofn.errors import ConfigError, EngineError
from bestofn.types import Prompt, Usage

GIB = 1 << 30


class TransformersEngine(WatchedEngine):
    """A causal language model on the CPU or one GPU.

    Requests are gathered into batches whatever prompt they belong to: new ones join the running
    batch, finished ones leave it, and equal prefixes are computed once.

    Args:
        model: A folder or a repository of the model hub.
        name: What to call the engine.
        device: "auto" takes CUDA, then MPS, then the CPU.
        dtype: "auto" is float32 on the CPU and the model's own elsewhere.
        max_rows: Sequences decoded at once.
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
        kv_cache_gib: float | None = None,
        **model_options: Any,
    ) -> None:
        self.name = name or f"hf:{model}"
        if max_rows < 1:
            raise ConfigError(f"max_rows must be at least 1, not {max_rows}")
        self._described = Described(f"hf:{model}", {"dtype": dtype, **model_options})
        model = locate(model)
        loaded, _ = load(AutoModelForCausalLM, model, device, dtype, model_options)
        _check_architecture(model, loaded)
        self._chat = ChatFormat(load_tokenizer(model, **of_tokenizer(model_options)))
        self.folder = model
        self.default_template = default_template(model, loaded.config.to_dict())
        self.context: int = context_of(loaded)
        self._viewed: Self | None = None
        decode = partial(self._chat.text, skip_special_tokens=False)
        room = _kv_tokens(loaded, kv_cache_gib)
        self._scheduler = Scheduler(loaded, max_rows, room, _end_ids(loaded, self._chat), decode)
        self._scheduler.start()
        # The thread must not be inside the model when the interpreter exits, nor outlive the last
        # view of the engine.
        weakref.finalize(self, self._scheduler.close)

    async def _generate(
        self, prompt: Prompt, params: SamplingParams, seed: int | None, watch: Watch | None
    ) -> Completion:
        if params.extra:
            raise ConfigError(
                f"the transformers engine knows no sampling option {', '.join(params.extra)}"
            )
        ids, thinking = self._chat.encode(prompt)
        room = require_room(ids, 1, self.context)
        request = TextRequest(
            ids=ids,
            prompt_tokens=len(ids),
            params=params,
            seed=secrets.randbits(64) if seed is None else seed % (1 << 64),
            limit=min(params.max_tokens, room),
        )

        def read(first: int | None = None) -> Completion:
            """The response, or its first tokens."""
            tokens = request.tokens[:first]
            reasoning, text = self._chat.decode(tokens, thinking)
            cuts = [text.find(stop) for stop in params.stop if stop in text]
            return Completion(
                text=text[: min(cuts, default=len(text))],
                reasoning=reasoning,
                finish_reason="length" if first else request.finish_reason,
                token_ids=tokens,
                token_logprobs=request.logprobs[:first],
                usage=replace(request.usage, generated_tokens=len(tokens)),
                token_confidences=request.confidences[:first] or None,
            )

        if watch is not None:
            loop = asyncio.get_running_loop()

            def on_token() -> None:
                watch.generated = at = len(request.tokens)
                if at in watch.at:
                    loop.call_soon_threadsafe(lambda: watch.reached(at, read(at)))

            request.on_token = on_token
        await self._scheduler.run_request(request)
        return read()

    async def loglikelihood(
        self,
        prompt: Prompt,
        continuation: str,
        *,
        close: bool = False,
        max_tokens: int | None = None,
    ) -> TokenScores:
        prefix, ids, complete = self._chat.encode_scored(prompt, continuation, close, max_tokens)
        require_room(prefix, len(ids) + 1, self.context)
        request = TextRequest(ids=(*prefix, *ids[:-1]), prompt_tokens=len(prefix), scored=ids)
        await self._scheduler.run_request(request)
        return TokenScores(list(ids), request.logprobs, request.usage, complete=complete)

    async def decode(self, prompt: Prompt, token_ids: Sequence[int]) -> tuple[str | None, str]:
        return self._chat.decode(list(token_ids), self._chat.encode(prompt)[1])

    async def token_texts(self, prompt: Prompt, token_ids: Sequence[int]) -> list[str]:
        return [self._chat.text([token]) for token in token_ids]

    async def check(self) -> None:
        self._scheduler.require_alive()

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

    @property
    def running(self) -> int:
        """Requests that are not finished, over all views."""
        return self._scheduler.unfinished

    def identity(self) -> dict[str, Any]:
        """What results depend on; see `bestofn.identity`."""
        return replace(
            self._described, view={"chat_template_kwargs": self._chat.template_kwargs}
        ).identity()

    def close(self) -> None:
        self._scheduler.close()


class TransformersClassifier:
    """A reward model on transformers, loaded with the options of `TransformersEngine`.

    While it runs a batch requests gather; the next batch takes the oldest of them and others of
    similar length, `batch_size` at most.

    Raises:
        ConfigError: `batch_size` is below 1.
        EngineError: the model cannot be loaded, has more than one label, no weights for its head,
            or no chat template.
    """

    def __init__(
        self,
        model: str,
        *,
        device: str = "auto",
        dtype: str = "auto",
        batch_size: int = 16,
        **model_options: Any,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, not {batch_size}")
        folder = locate(model)
        _, self.chat = classifier_files(folder, model_options, folder, of_tokenizer(model_options))
        auto = AutoModelForSequenceClassification
        loaded, missing = load(auto, folder, device, dtype, model_options)
        if missing:
            raise EngineError(
                f"model {folder!r} has no weights for {', '.join(missing)}, "
                "which would be random numbers; give a reward model that was trained"
            )
        self.context = context_of(loaded)
        self._worker = ClassifierWorker(loaded, batch_size)
        self._worker.start()
        weakref.finalize(self, self._worker.close)

    async def logit(self, ids: Sequence[int]) -> Logit:
        request = Request(ids=tuple(ids))
        logit: float = await self._worker.run_request(request)
        return Logit(logit, Usage(prompt_tokens=len(ids), seconds=request.seconds))

    def close(self) -> None:
        """Frees the model once its batch is done; requests that wait fail."""
        self._worker.close()


class ClassifierWorker(Worker[Request]):
    """Runs the model on the oldest request and those nearest to it in length."""

    def __init__(self, model: PreTrainedModel, batch_size: int) -> None:
        super().__init__(model, "the reward model", "lower batch_size or max_length")
        model.config.use_cache = False
        self.batch_size = batch_size
        self._config = model.config.get_text_config()
        # The model's padding token, which may be another one than its tokenizer's.
        pad = self._config.pad_token_id
        self._pad_id = pad if pad is not None and 0 <= pad < self._config.vocab_size else None

    def turn(self) -> None:
        waiting = self.waiting
        length = len(waiting[0].ids) if waiting else 0

        def distance(request: Request) -> int:
            return abs(len(request.ids) - length)

        # Little of a batch is padding.
        near = [request for request in waiting if distance(request) <= 16 + length // 2]
        batch = sorted(near, key=distance)[: self.batch_size]
        with self.failing(batch):
            logits = self.forward([request.ids for request in batch]) if batch else []
            for request, logit in zip(batch, logits, strict=True):
                self.settle([request], logit)

    def forward(self, rows: Sequence[Sequence[int]]) -> list[float]:
        """The logits of sequences, which are padded on the right to the longest of them."""
        pad = self._pad_id
        if pad is None:  # a token that none of the sequences has
            free = set(range(self._config.vocab_size)).difference(*rows)
            if not free:
                raise EngineError("the model has no token to pad with; set batch_size to 1")
            pad = min(free)
        # The model reads its logit off the last token that is no padding.
        self._config.pad_token_id = pad
        ids = [torch.tensor(row, device=self.model.device) for row in rows]
        logits = self.model(
            input_ids=pad_sequence(ids, batch_first=True, padding_value=pad),
            attention_mask=pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
        ).logits
        values: list[float] = logits[:, 0].float().tolist()
        return values


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
    config = getattr(loaded.generation_config, "eos_token_id", None)
    ends = [*(config if isinstance(config, list) else [config]), chat.tokenizer.eos_token_id]
    return frozenset(chat.closing_ids).union(end for end in ends if end is not None)


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
