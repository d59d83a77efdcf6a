"""Reward models on vLLM: token ids in, the head's raw output out."""

import time
import weakref
from collections.abc import Sequence
from typing import Any

from vllm import PoolingParams
from vllm.inputs import tokens_input

from bestofn import concurrency
from bestofn.engines.model_files import Logit, classifier_files, locate
from bestofn.engines.vllm.arguments import checked_args, tokenizer_args
from bestofn.engines.vllm.process import EngineProcess
from bestofn.types import Usage


class VLLMClassifier:
    """A reward model on vLLM's pooling runner, loaded with the same arguments as `VLLMEngine`.

    Raises:
        ConfigError: there is no such argument.
        EngineError: vLLM cannot start with these, or the model is no reward model.
    """

    def __init__(self, model: str, **engine_args: Any) -> None:
        folder = locate(model)
        # Caching is left to vLLM, which knows the models that pool over every token.
        args = checked_args(folder, {"enable_prefix_caching": None, **engine_args})
        args.runner = "pooling"
        own = tokenizer_args(args)
        of_model = {**own, "revision": args.revision}
        config, self.chat = classifier_files(folder, of_model, args.tokenizer or folder, own)
        self._pad_id = config.get_text_config().pad_token_id
        self._process = EngineProcess(args)
        self.context = int(self._process.config.model_config.max_model_len)
        # The engine ends with this object, and with the interpreter.
        weakref.finalize(self, self._process.close)

    async def logit(self, ids: Sequence[int]) -> Logit:
        started = time.perf_counter()
        # transformers reads the logit off the last token that is no padding, and vLLM off the last
        # one: the two differ where a model pads with the token that closes an answer.
        read = list(ids)
        while len(read) > 1 and read[-1] == self._pad_id:
            read.pop()
        # The head's output as it is: by default vLLM puts one label through a sigmoid.
        params = PoolingParams(task="classify", use_activation=False)
        output = await concurrency.on_background_loop(
            self._process.last_output(
                lambda llm, **own: llm.encode(tokens_input(read), params, **own)
            )
        )
        usage = Usage(
            prompt_tokens=len(read),
            cached_tokens=output.num_cached_tokens or 0,
            seconds=time.perf_counter() - started,
        )
        return Logit(output.outputs.data.item(), usage)

    def close(self) -> None:
        self._process.close()
