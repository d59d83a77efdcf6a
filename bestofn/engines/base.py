"""The Engine base class, what goes in and comes out of it, and `load_engine`."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from bestofn.engines.chat import CONTROL
from bestofn.errors import ConfigError, EngineError
from bestofn.redaction import without_secrets
from bestofn.registry import construct, find, is_own, make
from bestofn.types import FinishReason, Prompt, Usage


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How one candidate is drawn.

    Attributes:
        temperature: 0 is greedy.
        top_p: Keep the smallest set of tokens with at least this probability, in (0, 1].
        top_k: Keep the k most likely tokens; 0 keeps all.
        min_p: Keep tokens at least this share as likely as the most likely one, in [0, 1].
        repetition_penalty: Divide positive and multiply negative logits of tokens that occurred,
            in the prompt or since; 1 does nothing.
        max_tokens: Tokens to generate at most.
        stop: End before any of these strings.
        logprobs: Whether the log-probabilities of the generated tokens are wanted; an engine may
            be faster without, or give them all the same.
        json_schema: What the output is meant to be. Engine views with `guided=True` decode
            nothing else; all others leave it to the model.
        extra: Further options, passed to the engine by name.

    Raises:
        ConfigError: a value is out of its range.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    logprobs: bool = True
    json_schema: Mapping[str, Any] | None = field(default=None, hash=False)
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        require = [
            (self.temperature >= 0, "temperature", "at least 0"),
            (0 < self.top_p <= 1, "top_p", "above 0 and at most 1"),
            (self.top_k >= 0, "top_k", "at least 0"),
            (0 <= self.min_p <= 1, "min_p", "between 0 and 1"),
            (self.repetition_penalty > 0, "repetition_penalty", "above 0"),
            (self.max_tokens >= 1, "max_tokens", "at least 1"),
            (
                isinstance(self.stop, tuple) and all(self.stop),
                "stop",
                "a tuple of non-empty strings",
            ),
        ]
        for holds, name, rule in require:
            if not holds:
                raise ConfigError(f"{name} must be {rule}, not {getattr(self, name)!r}")


@dataclass(slots=True)
class Completion:
    """One generated response.

    Attributes:
        text: The response without its reasoning and without a stop string.
        reasoning: What stood in thinking tags, None if nothing did.
        finish_reason: "stop" or "length".
        token_ids: Every generated token, the closing one included.
        token_logprobs: Their log-probabilities in nats under the raw model, before temperature
            and truncation; None where the engine gives none, or none were wanted.
        usage: What it cost.
    """

    text: str
    reasoning: str | None
    finish_reason: FinishReason
    token_ids: list[int]
    token_logprobs: list[float] | None
    usage: Usage


@dataclass(slots=True)
class TokenScores:
    """Log-probabilities of a continuation, one for each of its tokens.

    Attributes:
        token_ids: The continuation's tokens.
        token_logprobs: log p(token | prompt, the tokens before it) of the raw model, in nats.
        usage: What it cost.
        complete: Whether these are all of the continuation's tokens, or only the first.
    """

    token_ids: list[int]
    token_logprobs: list[float]
    usage: Usage
    complete: bool = True


class Engine(ABC):
    """A language model that generates and scores; subclass it for a model of your own.

    A subclass sets `name` and defines `generate`; the rest has defaults. An engine whose results
    depend on more than its class and name also has a method `identity`, see `bestofn.identity`.
    Calls run concurrently, on the package's background event loop.
    """

    name: str
    """What the engine was loaded from, for people to read."""
    default_template: str = "reasoned"
    """The backward template that suits the model."""
    context: int | None = None
    """Tokens that prompt and response may have together, None if the engine cannot tell."""

    @abstractmethod
    async def generate(
        self, prompt: Prompt, params: SamplingParams, seed: int | None = None
    ) -> Completion:
        """One candidate. Cancelling the task aborts the request.

        Raises:
            ContextLengthError: the prompt leaves no room for a single token.
            EngineError: the engine failed.
        """

    async def loglikelihood(
        self,
        prompt: Prompt,
        continuation: str,
        *,
        close: bool = False,
        max_tokens: int | None = None,
    ) -> TokenScores:
        """Log-probabilities of `continuation` as the answer to `prompt`.

        Prompt and continuation are tokenised apart, so that the prompt's tokens are the same
        whatever follows. `close` appends the token that ends an answer; only the first
        `max_tokens` tokens are scored.

        Raises:
            ContextLengthError: the two together, and one token more, do not fit.
            EngineError: the engine failed, or cannot score.
        """
        raise EngineError(f"the engine {self.name!r} cannot score a given answer; use FLIPReward")

    async def decode(self, prompt: Prompt, token_ids: Sequence[int]) -> tuple[str | None, str]:
        """What the first tokens of a response to `prompt` read as: reasoning, if any, and answer.

        Raises:
            EngineError: the engine cannot tell.
        """
        raise EngineError(f"the engine {self.name!r} cannot decode tokens")

    async def count_tokens(self, prompt: Prompt) -> int | None:
        """Tokens of the prompt as the model reads it, None if the engine cannot tell.

        Raises:
            EngineError: the engine failed.
        """
        return None

    def control_tokens(self, text: str) -> list[str]:
        """What in a text is spelt like one of the model's control tokens, each once.

        An engine that tokenises reads it as text all the same. The default goes by the control
        tokens of common models.
        """
        return spelt_like_control_tokens(text)

    def with_options(self, **options: Any) -> Self:
        """A view on the same engine with other options; it costs nothing.

        Args:
            options: `chat_template_kwargs` (a mapping for the chat template) on every engine of
                the package; `lora` (a folder with an adapter) and `guided` (hold outputs to their
                JSON schema) where the engine has them.

        Raises:
            ConfigError: the engine has no such option.
        """
        if options:
            raise ConfigError(f"the engine {self.name!r} has no option {', '.join(options)}")
        return self

    def close(self) -> None:  # noqa: B027 (there may be nothing to free)
        """Frees what the engine holds; requests in flight fail."""


def spelt_like_control_tokens(text: str) -> list[str]:
    """What in a text is spelt like a control token of common models, each once."""
    return list(dict.fromkeys(CONTROL.findall(text)))


def load_engine(spec: str, **options: Any) -> Engine:
    """The engine that a spec names.

    Args:
        spec: "tiny" for the model that ships with the package; "vllm:MODEL" for any model that
            vLLM serves, in this process's own engine; "hf:MODEL" for any causal language model
            that transformers loads; "openai:URL#MODEL" for a model behind an OpenAI-compatible
            server; "package.module:Name" for a class or object of your own. MODEL is a folder or a
            repository of the model hub, or "tiny" with the first two.
        options: Passed to the engine, see `VLLMEngine`, `TransformersEngine` and `OpenAIEngine`.

    Raises:
        ConfigError: the spec names no engine, or the engine does not take these options.
        EngineError: the model cannot be loaded.
    """
    found, model = find("engine", spec)
    what = f"engine {without_secrets(spec)!r}"
    if not is_own("engine", spec):
        engine: Engine = construct(what, found, model or [spec], {"name": spec} | options)
        return engine
    own = make(what, found, [], options)
    if not isinstance(own, Engine):
        raise ConfigError(
            f"{spec!r} is no bestofn.engines.Engine; a generator draws candidates but does not "
            "score them, so name an engine for that"
        )
    return own
