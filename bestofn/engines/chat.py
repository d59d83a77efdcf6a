"""From conversations to token ids and back, by the model's own chat template."""

from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from bestofn.errors import ConfigError, ContextLengthError, EngineError
from bestofn.prompts import as_turns
from bestofn.thinking import ends_in_opening, split_thinking
from bestofn.types import Message, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBE = "probe text"
REASONING_FIRST = (
    "the chat template starts the answer with reasoning, so that an answer cannot be scored; "
    "switch it off, such as by with_options(chat_template_kwargs={'enable_thinking': False})"
)


class ChatFormat:
    """One tokenizer's view of prompts, continuations and completions.

    Two rules cover models that lack something. Without a chat template a conversation becomes
    plain text: "User: ...", "Assistant: ..." in paragraphs, ending in "Assistant:". Without a
    system role in the template the system text goes in front of the first user message.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.template_kwargs = dict(template_kwargs or {})
        self.has_template = bool(tokenizer.chat_template)
        self.has_system_role = self._probe_system_role()
        self.closing_ids = self._find_closing_ids()
        # One prompt is encoded once for all its candidates.
        self.encode = lru_cache(maxsize=512)(self._encode)

    def with_kwargs(self, template_kwargs: Mapping[str, Any]) -> "ChatFormat":
        return ChatFormat(self.tokenizer, self.template_kwargs | dict(template_kwargs))

    def render(self, messages: tuple[Message, ...], prompt: bool = True) -> str:
        """The conversation as the text that the model reads, up to where it is to answer.

        Args:
            messages: The turns.
            prompt: Whether they end with a question; the text of an answered one ends with them.
        """
        if not self.has_template:
            turns = [f"{message.role.capitalize()}: {message.content}" for message in messages]
            return "\n\n".join([*turns, "Assistant:"])
        if messages[0].role == "system" and not self.has_system_role:
            messages = _merge_system(messages)
        try:
            return self._apply(messages, prompt)
        except TemplateError as error:
            raise EngineError(f"the model's chat template refuses the prompt: {error}") from error

    def _encode(self, prompt: Prompt) -> tuple[tuple[int, ...], bool]:
        """Token ids of the prompt, and whether it ends inside an opened thinking tag."""
        text = self.render(prompt.messages)
        # A template writes its own special tokens; plain text needs the tokenizer's.
        ids = self._tokenise(text, special=not self.has_template)
        return tuple(ids), ends_in_opening(text)

    def encode_answered(self, prompt: Prompt, answer: str) -> list[int]:
        """Token ids of a conversation that ends with an answer, as the chat template closes it.

        Raises:
            EngineError: the template refuses it.
        """
        text = self.render((*prompt.messages, Message("assistant", answer)), prompt=False)
        # The template writes its own special tokens, the first one included.
        return self._tokenise(text, special=False)

    def encode_scored(
        self, prompt: Prompt, continuation: str, close: bool, max_tokens: int | None
    ) -> tuple[tuple[int, ...], tuple[int, ...], bool]:
        """Ids of a prompt and of the continuation to be scored, and whether that is all of it.

        Raises:
            ConfigError: there is nothing to score.
            EngineError: the answer would start with reasoning.
        """
        prefix, thinking = self.encode(prompt)
        if thinking:
            raise EngineError(REASONING_FIRST)
        whole = self.encode_continuation(continuation, close)
        ids = whole[:max_tokens]
        if not ids:
            raise ConfigError("the continuation to score is empty")
        return prefix, ids, ids == whole

    def encode_continuation(self, text: str, close: bool) -> tuple[int, ...]:
        return (*self._tokenise(text, special=False), *(self.closing_ids if close else ()))

    def _tokenise(self, text: str, special: bool) -> list[int]:
        # Half a surrogate pair, as cut emoji leave behind, is no text that a tokenizer takes.
        text = text.encode("utf-8", "replace").decode("utf-8")
        ids: list[int] = self.tokenizer(text, add_special_tokens=special, verbose=False)[
            "input_ids"
        ]
        return ids

    def decode(self, ids: list[int], thinking_opened: bool) -> tuple[str | None, str]:
        """Reasoning (None if there is none) and answer."""
        return split_thinking(self.text(ids), opened=thinking_opened)

    def text(self, ids: list[int]) -> str:
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        assert isinstance(text, str)
        return text

    def _apply(self, messages: tuple[Message, ...], prompt: bool = True) -> str:
        text = self.tokenizer.apply_chat_template(
            as_turns(messages), tokenize=False, add_generation_prompt=prompt, **self.template_kwargs
        )
        assert isinstance(text, str)
        return text

    def _probe_system_role(self) -> bool:
        """Whether the template keeps a system message; some raise, some drop it silently."""
        if not self.has_template:
            return True
        try:
            return PROBE in self._apply((Message("system", PROBE), Message("user", "x")))
        except TemplateError:
            return False

    def _find_closing_ids(self) -> tuple[int, ...]:
        """The token that the template sets after an answer, else the end of sequence."""
        turn = (Message("user", "x"), Message("assistant", PROBE))
        with suppress(TemplateError):  # a template may know no assistant turns
            after = (
                self._apply(turn, prompt=False).rpartition(PROBE)[2] if self.has_template else ""
            )
            ids = self._tokenise(after, special=False)
            if ids and ids[0] in self.tokenizer.all_special_ids:
                return (ids[0],)
        end = self.tokenizer.eos_token_id
        return () if end is None else (end,)


def room_behind(prompt: tuple[int, ...], context: int) -> int:
    """Tokens that can be generated behind a prompt.

    Raises:
        ContextLengthError: none.
    """
    if len(prompt) >= context:
        raise ContextLengthError(len(prompt) + 1, context, len(prompt))
    return context - len(prompt)


def _merge_system(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    system, first, *rest = (*messages, Message("user", "")) if len(messages) == 1 else messages
    return (Message("user", f"{system.content}\n\n{first.content}".rstrip()), *rest)
