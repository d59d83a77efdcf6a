"""From conversations to token ids and back, by the model's own chat template."""

from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from bestofn.engines.literal import MARK, Literals
from bestofn.engines.template import ChatTemplate
from bestofn.errors import ConfigError, ContextLengthError, EngineError
from bestofn.prompts import clean
from bestofn.thinking import ends_in_opening, split_thinking
from bestofn.types import Message, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REASONING_FIRST = (
    "the chat template starts the answer with reasoning, so that an answer cannot be scored; "
    "switch it off, such as by with_options(chat_template_kwargs={'enable_thinking': False})"
)


class ChatFormat:
    """One tokenizer's view of prompts, continuations and completions.

    What users and models wrote is tokenised as text, even where it spells a control token.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.template_kwargs = dict(template_kwargs or {})
        self.template = ChatTemplate(tokenizer, self.template_kwargs)
        self.has_template = self.template.exists
        self._literals = Literals(tokenizer)
        self.closing_ids = self._find_closing_ids()
        # One prompt is encoded once for all its candidates.
        self.encode = lru_cache(maxsize=512)(self._encode)

    def with_kwargs(self, template_kwargs: Mapping[str, Any]) -> "ChatFormat":
        return ChatFormat(self.tokenizer, self.template_kwargs | dict(template_kwargs))

    def render(self, messages: tuple[Message, ...], prompt: bool = True) -> str:
        """The conversation as the text that the model reads, see `ChatTemplate.render`."""
        return self.template.render(messages, prompt)

    def control_tokens(self, text: str) -> list[str]:
        """The tokenizer's added tokens that a text spells, each once."""
        return self._literals.find(text)

    def _encode(self, prompt: Prompt) -> tuple[tuple[int, ...], bool]:
        """Token ids of the prompt, and whether it ends inside an opened thinking tag."""
        messages, literals = self._take_out(prompt.messages)
        text = self.render(messages)
        # A template writes its own special tokens; plain text needs the tokenizer's.
        ids = self._put_back(text, literals, special=not self.has_template)
        return tuple(ids), ends_in_opening(text)

    def encode_answered(self, prompt: Prompt, answer: str) -> list[int]:
        """Token ids of a conversation that ends with an answer, as the chat template closes it.

        Raises:
            EngineError: the template refuses it.
        """
        messages, literals = self._take_out((*prompt.messages, Message("assistant", answer)))
        text = self.render(messages, prompt=False)
        # The template writes its own special tokens, the first one included.
        return self._put_back(text, literals, special=False)

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
        return (*self._literals.encode(text), *(self.closing_ids if close else ()))

    def _take_out(self, messages: tuple[Message, ...]) -> tuple[tuple[Message, ...], list[str]]:
        """The messages with marks for what spells a control token, and what the marks are for."""
        messages = tuple(map(self._with_reasoning_apart, messages))
        return self._literals.take_out(messages)

    def _with_reasoning_apart(self, message: Message) -> Message:
        """An earlier answer's reasoning in a field of its own, for a template that looks for it."""
        if message.role != "assistant" or not self.template.splits_reasoning:
            return message
        reasoning, answer = split_thinking(message.content)
        if reasoning is None or not self.control_tokens(message.content):
            return message
        return Message("assistant", answer, {"reasoning_content": reasoning, **message.extra})

    def _put_back(self, text: str, literals: list[str], special: bool) -> list[int]:
        """Token ids of a rendered text, its literals as ordinary tokens in the places of marks."""
        if not literals:
            return self._tokenise(text, special)
        first, *rest = MARK.split(text)
        ids = self._tokenise(first, special)
        for number, piece in zip(rest[::2], rest[1::2], strict=True):
            ids += self._literals.encode(literals[int(number)])
            ids += self._tokenise(piece, special=False) if piece else []
        return ids

    def _tokenise(self, text: str, special: bool) -> list[int]:
        ids: list[int] = self.tokenizer(clean(text), add_special_tokens=special, verbose=False)[
            "input_ids"
        ]
        return ids

    def decode(self, ids: list[int], thinking_opened: bool) -> tuple[str | None, str]:
        """Reasoning (None if there is none) and answer."""
        return split_thinking(self.text(ids), opened=thinking_opened)

    def text(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        """The text of tokens, to the last space."""
        text = self.tokenizer.decode(
            ids, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
        )
        assert isinstance(text, str)
        return text

    def _find_closing_ids(self) -> tuple[int, ...]:
        """The token that the template sets after an answer, else the end of sequence."""
        with suppress(EngineError):  # a template may know no assistant turns
            after = self.template.after_answer()
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


def require_room(prefix: tuple[int, ...], ids: tuple[int, ...], context: int) -> None:
    """Checks that a continuation can be scored behind a prefix.

    On every engine it takes one token more than the two together, since vLLM and its servers
    generate one behind what they score.

    Raises:
        ContextLengthError: it cannot.
    """
    length = len(prefix) + len(ids) + 1
    if length > context:
        raise ContextLengthError(length, context, len(prefix))
