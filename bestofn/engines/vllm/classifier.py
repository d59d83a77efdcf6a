"""A sequence-classification model on vLLM's pooling runner: sequences in, logits out."""

import itertools
import time
import weakref
from collections.abc import Sequence
from typing import Any

from vllm import PoolingParams
from vllm.inputs import tokens_input

from bestofn import concurrency
from bestofn.engines.classifiers import Logit, classifier_chat, classifier_config
from bestofn.engines.model_files import locate
from bestofn.engines.vllm.engine import checked_args, of_tokenizer
from bestofn.engines.vllm.process import EngineProcess
from bestofn.types import Usage


class VLLMClassifier:
    """A reward model on vLLM, which batches by itself and keeps prefixes that candidates share.

    Args:
        model: A folder or a repository of the model hub.
        engine_args: Every argument of vLLM's `AsyncEngineArgs` by its name, such as `dtype`,
            `max_model_len`, `gpu_memory_utilization`, `tensor_parallel_size`.

    Raises:
        ConfigError: there is no such argument.
        EngineError: vLLM cannot start with these, or the model is no reward model.
    """

    def __init__(self, model: str, **engine_args: Any) -> None:
        folder = locate(model)
        # Prefix caching is left to vLLM, which knows the models that pool over every token.
        args = checked_args(folder, {"enable_prefix_caching": None, **engine_args})
        args.runner = "pooling"
        of_model = {**of_tokenizer(args), "revision": args.revision}
        self._pad_id = classifier_config(folder, **of_model).get_text_config().pad_token_id
        self.chat = classifier_chat(args.tokenizer or folder, **of_tokenizer(args))
        self._process = EngineProcess(args)
        self.context = int(self._process.opened().vllm_config.model_config.max_model_len)
        scheduler = self._process.opened().vllm_config.scheduler_config
        self._ranks = scheduler.policy == "priority"
        self._request_ids = itertools.count()
        # The engine ends with this object, and with the interpreter.
        weakref.finalize(self, self._process.close)

    async def logit(self, ids: Sequence[int]) -> Logit:
        started = time.perf_counter()
        read = self._read_part(ids)
        output = await concurrency.on_background_loop(self._submit(read))
        usage = Usage(
            prompt_tokens=len(read),
            cached_tokens=output.num_cached_tokens or 0,
            seconds=time.perf_counter() - started,
        )
        return Logit(output.outputs.data.item(), usage)

    def _read_part(self, ids: Sequence[int]) -> list[int]:
        """The sequence up to the token that transformers reads the logit off.

        It is the last one that is no padding, and vLLM's the last one: the two differ where a
        model pads with the token that closes an answer.
        """
        read = list(ids)
        while len(read) > 1 and read[-1] == self._pad_id:
            read.pop()
        return read

    async def _submit(self, ids: list[int]) -> Any:
        request_id = str(next(self._request_ids))
        # The head's output as it is: by default vLLM puts one label through a sigmoid.
        params = PoolingParams(task="classify", use_activation=False)
        priority = concurrency.place_in_run() if self._ranks else 0
        return await self._process.last_output(
            request_id,
            lambda llm: llm.encode(tokens_input(ids), params, request_id, priority=priority),
        )

    def close(self) -> None:
        self._process.close()
