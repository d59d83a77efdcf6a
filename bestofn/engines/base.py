"""The Engine base class, what goes in and comes out of it, and `load_engine`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from bestofn import concurrency
from bestofn.engines.chat import CONTROL
from bestofn.errors import ConfigError, EngineError
from bestofn.redaction import without_secrets
from bestofn.registry import construct, find, is_own, make
from bestofn.tools import calls_schema
from bestofn.types import FinishReason, Prompt, Usage


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How one candidate is drawn; raises ConfigError where a value is out of its range."""

    temperature: float = 1.0  # 0 is greedy
    top_p: float = 1.0  # keep the smallest set of tokens with at least this probability
    top_k: int = 0  # keep the k most likely tokens; 0 keeps all
    min_p: float = 0.0  # keep tokens at least this share as likely as the most likely one
    # Divide positive and multiply negative logits of tokens that occurred; 1 does nothing.
    repetition_penalty: float = 1.0
    max_tokens: int = 512
    stop: tuple[str, ...] = ()  # end before any of these strings
    logprobs: bool = True  # whether the log-probabilities of the generated tokens are wanted
    # Tokens that confidence is read from, see `Completion`: so many of the likeliest, or "all".
    confidence: int | Literal["all"] | None = None
    # What the output is meant to be; only views with `guided=True` enforce it. A candidate that is
    # not has an error.
    json_schema: Mapping[str, Any] | None = field(default=None, hash=False)
    # Of a prompt with tools: "auto", "required", or the name of the one that has to be called.
    tool_choice: str = "auto"
    parallel_tool_calls: bool = True  # whether an answer may have several calls
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)  # passed on by name

    def __post_init__(self) -> None:
        stop = isinstance(self.stop, tuple) and all(self.stop)
        own_count = isinstance(self.confidence, int) and self.confidence >= 1
        for name, holds, rule in (
            ("temperature", self.temperature >= 0, "at least 0"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("top_k", self.top_k >= 0, "at least 0"),
            ("min_p", 0 <= self.min_p <= 1, "between 0 and 1"),
            ("repetition_penalty", self.repetition_penalty > 0, "above 0"),
            ("max_tokens", self.max_tokens >= 1, "at least 1"),
            ("stop", stop, "a tuple of non-empty strings"),
            (
                "tool_choice",
                self.tool_choice not in ("", "none"),
                "a tool's name; 'none' is no tools",
            ),
            ("confidence", self.confidence in (None, "all") or own_count, "'all' or at least 1"),
        ):
            if not holds:
                raise ConfigError(f"{name} must be {rule}, not {getattr(self, name)!r}", name)

    def schema_for(self, prompt: Prompt) -> Mapping[str, Any] | None:
        """The JSON schema of what a model has to write: of the answer, or of calls."""
        if prompt.tools and self.tool_choice != "auto":
            return calls_schema(prompt.tools, self.tool_choice, self.parallel_tool_calls)
        return self.json_schema


@dataclass(slots=True)
class Completion:
    """One generated response."""

    text: str  # without its reasoning and without a stop string
    reasoning: str | None  # what was in thinking tags
    finish_reason: FinishReason  # "stop" or "length"
    token_ids: list[int]  # all that were generated, the closing one included
    # In nats under the raw model, before temperature and truncation; None where there are none.
    token_logprobs: list[float] | None
    usage: Usage
    # How certain the model was of each generated token, where that was asked for: minus the mean of
    # log(k p) over the k likeliest tokens, or all, in nats under the raw model. That is from 0 on,
    # and over all tokens KL(uniform || model).
    token_confidences: list[float] | None = None
    tool_calls: list[Any] | None = None  # as a server tells them apart; others leave them in `text`


@dataclass(slots=True)
class Watch:
    """Looks at a response while it is being written."""

    at: tuple[int, ...]  # tokens after which to look, rising
    # Called on the package's event loop with each of these counts that the response has and does
    # not end with, and with its first so many tokens.
    reached: Callable[[int, Completion], None]
    generated: int = 0  # tokens so far; an aborted request leaves here what it cost


@dataclass(slots=True)
class TokenScores:
    """Log-probabilities of a continuation, one for each of its tokens."""

    token_ids: list[int]
    token_logprobs: list[float]  # log p(token | prompt, the tokens before it), in nats
    usage: Usage
    complete: bool = True  # whether these are all of its tokens, or only the first


class Engine(ABC):
    """A language model that generates and scores; subclass it for a model of your own.

    A subclass sets `name` and defines `generate`; the rest has defaults. If its results depend on
    more than its class and name it also has a method `identity`, see `bestofn.identity`. Calls run
    concurrently, on the package's background event loop, and raise EngineError where they fail.
    """

    name: str  # what the engine was loaded from, for people to read
    default_template: str = "reasoned"  # the backward template that suits the model
    context: int | None = None  # tokens of prompt and response together, if it can tell
    shows_unfinished: bool = False  # whether it has `generate_watched`

    @abstractmethod
    async def generate(
        self, prompt: Prompt, params: SamplingParams, seed: int | None = None
    ) -> Completion:
        """One candidate. Cancelling the task aborts the request.

        Raises:
            ContextLengthError: the prompt leaves no room for a single token.
        """

    async def generate_watched(
        self, prompt: Prompt, params: SamplingParams, seed: int | None, watch: Watch
    ) -> Completion:
        """`generate`, which gives the same candidate, with a look at it on the way.

        Raises:
            EngineError: the engine cannot show an unfinished response.
        """
        raise EngineError(f"the engine {self.name!r} cannot show unfinished responses")

    async def loglikelihood(
        self,
        prompt: Prompt,
        continuation: str,
        *,
        close: bool = False,
        max_tokens: int | None = None,
    ) -> TokenScores:
        """Log-probabilities of `continuation` as the answer to `prompt`, each tokenised apart.

        `close` appends the token that ends an answer; only the first `max_tokens` are scored.

        Raises:
            ContextLengthError: the two together, and one token more, do not fit.
        """
        raise EngineError(f"the engine {self.name!r} cannot score a given answer; use FLIPReward")

    async def first_tokens(self, prompt: Prompt, answers: Sequence[str]) -> TokenScores:
        """Log-probabilities of the first token of each answer, as what comes next behind a prompt.

        They are in the order of the answers, of which several may begin with the same token. Here
        `loglikelihood` is asked for each.

        Raises:
            ContextLengthError: the prompt leaves no room.
            EngineError: the engine cannot tell.
        """
        scores = await concurrency.gather(
            *(self.loglikelihood(prompt, answer, max_tokens=1) for answer in answers)
        )
        return TokenScores(
            [score.token_ids[0] for score in scores],
            [score.token_logprobs[0] for score in scores],
            sum((score.usage for score in scores), Usage()),
            complete=False,
        )

    async def decode(self, prompt: Prompt, token_ids: Sequence[int]) -> tuple[str | None, str]:
        """Reasoning, if any, and answer that the first tokens of a response to `prompt` read as."""
        raise EngineError(f"the engine {self.name!r} cannot decode tokens")

    async def token_texts(self, prompt: Prompt, token_ids: Sequence[int]) -> list[str]:
        """The text of each token of a response; U+FFFD where it is no character by itself."""
        raise EngineError(f"the engine {self.name!r} does not name its tokens")

    async def check(self) -> None:  # noqa: B027 (most cannot tell)
        """Raises EngineError if the engine cannot work any more, or its server does not answer."""

    async def count_tokens(self, prompt: Prompt) -> int | None:
        """Tokens of the prompt as the model reads it, None if the engine cannot tell."""
        return None

    def control_tokens(self, text: str) -> list[str]:
        """What in a text is spelt like a control token, by default of common models, each once."""
        return list(dict.fromkeys(CONTROL.findall(text)))

    def with_options(self, **options: Any) -> Self:
        """A view on the same engine with other options; it costs nothing.

        Engines of the package have `chat_template_kwargs` (a mapping for the chat template), some
        `lora` (a folder with an adapter) and `guided` (hold outputs to their JSON schema).

        Raises:
            ConfigError: the engine has no such option.
        """
        if options:
            raise ConfigError(f"the engine {self.name!r} has no option {', '.join(options)}")
        return self

    def close(self) -> None:  # noqa: B027 (there may be nothing to free)
        """Frees what the engine holds; requests in flight fail."""


class WatchedEngine(Engine):
    """An engine that can show unfinished responses; a subclass defines `_generate`."""

    shows_unfinished = True

    async def generate(
        self, prompt: Prompt, params: SamplingParams, seed: int | None = None
    ) -> Completion:
        return await self._generate(prompt, params, seed, None)

    async def generate_watched(
        self, prompt: Prompt, params: SamplingParams, seed: int | None, watch: Watch
    ) -> Completion:
        return await self._generate(prompt, params, seed, watch)

    @abstractmethod
    async def _generate(
        self, prompt: Prompt, params: SamplingParams, seed: int | None, watch: Watch | None
    ) -> Completion:
        """One candidate, with a look at it on the way where `watch` is given."""


def load_engine(spec: str, **options: Any) -> Engine:
    """The engine that a spec names.

    Args:
        spec: "tiny" for the model that ships with the package; "vllm:MODEL" for any model that
            vLLM serves, in this process's own engine; "hf:MODEL" for any causal language model
            that transformers loads; "openai:URL#MODEL" for a model behind an OpenAI-compatible
            server; "package.module:Name" for your own. MODEL is a folder or a repository of the
            model hub, or "tiny" with the first two.
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
