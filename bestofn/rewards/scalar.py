"""Scalar reward models: a sequence-classification model with one label scores a conversation."""

import os
from typing import Any

from bestofn.engines.identity import Described
from bestofn.engines.model_files import load_classifier
from bestofn.errors import ConfigError, EngineError, OtherProcessError
from bestofn.rewards.base import Pointwise
from bestofn.types import Candidate, Prompt, Score


class ScalarReward(Pointwise):
    """The raw logit that a trained reward model gives the prompt with the response as its answer.

    The conversation is written by the model's own chat template. One that is too long fails.

    Args:
        model: A folder or a repository of the model hub, for `AutoModelForSequenceClassification`
            with one label and a chat template.
        backend: "transformers" runs padded batches of what waits, "vllm" its pooling runner.
        max_length: Tokens of a conversation at most, by default as many as the model takes.
        name: Of the scores on a candidate.
        options: Passed to the backend. transformers: `device`, `dtype`, `batch_size` and what
            `from_pretrained` takes; vLLM: its engine arguments, such as `max_model_len`.

    Raises:
        EngineError: the model cannot be loaded, has more than one label or no chat template.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        backend: str = "transformers",
        max_length: int | None = None,
        name: str = "scalar",
        **options: Any,
    ) -> None:
        if max_length is not None and max_length < 1:
            raise ConfigError(f"max_length must be at least 1, not {max_length}")
        place = os.fspath(model)
        self.name = name
        self._described = self.described(
            place, backend=backend, max_length=max_length, name=name, **options
        )
        self.classifier = load_classifier(place, backend, **options)
        self.max_length = min(max_length or self.classifier.context, self.classifier.context)

    @classmethod
    def described(
        cls,
        model: str,
        *,
        name: str,
        backend: str = "transformers",
        max_length: int | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """The identity of a reward with these arguments, without loading its model."""
        kind = "hf" if backend == "transformers" else backend
        engine = Described(f"{kind}:{model}", options).identity()
        return {"kind": cls.__name__, "name": name, "engine": engine, "max_length": max_length}

    def identity(self) -> dict[str, Any]:
        return self._described | {"name": self.name}

    async def score_one(self, prompt: Prompt, candidate: Candidate) -> Score:
        try:
            ids = self.classifier.chat.encode_answered(prompt, candidate.text)
            if len(ids) > self.max_length:
                return Score(reason=f"too long: {len(ids)} tokens, over {self.max_length}")
            logit = await self.classifier.logit(ids)
        except OtherProcessError:
            raise
        except EngineError as error:
            return Score(reason=f"engine: {error}")
        return Score(logit.value, usage=logit.usage)

    def close(self) -> None:
        """Frees the model; requests in flight fail."""
        self.classifier.close()
