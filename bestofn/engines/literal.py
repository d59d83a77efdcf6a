"""Text of users and models as token ids, none of which is a control token."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bestofn.prompts import clean
from bestofn.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OPEN, CLOSE = "\ufdd0", "\ufdd1"  # noncharacters: around the number of a literal
MARK = re.compile(f"{OPEN}(\\d+){CLOSE}")
# How common models spell control tokens: ChatML and its relatives, Llama, Mistral, Gemma, DeepSeek,
# BERT; tags of reasoning and tools.
CONTROL = re.compile(
    r"<[|｜][^|｜<>\n]{1,40}[|｜]>|</?s>|<(?:[be]os|unk|pad|mask)>|<(?:start|end)_of_(?:turn|image)>"
    r"|\[/?(?:INST|[A-Z]+_(?:TOOLS|CALLS|RESULTS|PROMPT))\]|<</?SYS>>"
    r"|</?(?:think|tool_call|tool_response)>"
)
HTML = re.compile(
    r"</?(?:table|caption|thead|tbody|tfoot|tr|th|td|h[1-6]|blockquote|strong|em|b|i|u|s|sub|sup|code"
    r"|pre|ul|ol|li|p|br|hr|a|img|div|span)>"
)
NONCHARACTER = re.compile(f"[{OPEN}{CLOSE}]")


class Literals:
    """How text that spells one of a tokenizer's added tokens stays text.

    Chat templates write such tokens, special ones and others like `<think>` or `<tool_call>`; what
    users and models write must not become one. The tags of HTML, the single characters and the runs
    of white space that some tokenizers add control nothing, and count as text.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._tokenizer = tokenizer
        added: Mapping[int, Any] = getattr(tokenizer, "added_tokens_decoder", {})
        control = {token: a for token, a in added.items() if _controls(a)}
        # What the tokenizer does not know reads as an unknown token, and spells none.
        self._ids = frozenset(control) - {tokenizer.unk_token_id}
        spellings = sorted((a.content.strip() for a in control.values()), key=len, reverse=True)
        self._spelling = re.compile(f"({'|'.join(map(re.escape, spellings)) or '(?!)'})")
        # In capitals or wide letters, where a tokenizer brings text to one form before it looks.
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self._has_variants = bool(getattr(backend, "normalizer", None)) and any(
            a.normalized for a in control.values()
        )

    def find(self, text: str) -> list[str]:
        """The control tokens that a text spells, each once."""
        found = self._spelling.findall(text)
        if self._has_variants:
            ids = self._ids.intersection(self._tokenise(text))
            found += map(self._tokenizer.convert_ids_to_tokens, sorted(ids))
        return list(dict.fromkeys(found))

    def encode(self, text: str) -> list[int]:
        """Ids of a text, as ordinary tokens."""
        pieces = self._spelling.split(text)
        if len(pieces) == 1 and not self._has_variants:
            return self._tokenise(text)
        ids: list[int] = []
        for place, piece in enumerate(pieces):
            # A spelling is cut behind its first character, which ends what it spells.
            for part in (piece[:1], piece[1:]) if place % 2 else (piece,):
                ids += self._ordinary(part) if part else []
        return ids

    def _ordinary(self, text: str) -> list[int]:
        """A text that would still hold a control token is cut in two, which are tokenised apart."""
        ids = self._tokenise(text)
        if len(text) < 2 or self._ids.isdisjoint(ids):
            return ids
        middle = len(text) // 2
        return self._ordinary(text[:middle]) + self._ordinary(text[middle:])

    def _tokenise(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(clean(text), add_special_tokens=False, verbose=False)[
            "input_ids"
        ]
        return ids

    def take_out(self, messages: tuple[Message, ...]) -> tuple[tuple[Message, ...], list[str]]:
        """The messages with a mark for each literal, which no template takes for anything else.

        Returns:
            The messages as they are where there is no literal, and the literals by number.
        """
        taken: list[str] = []
        marked = tuple(
            replace(
                message,
                content=self._marked(message.content, taken),
                extra=self._marked(message.extra, taken),
            )
            for message in messages
        )
        return (marked, taken) if taken else (messages, [])

    def _marked(self, value: Any, taken: list[str]) -> Any:
        if isinstance(value, Mapping):
            return {
                self._marked(key, taken): self._marked(item, taken) for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._marked(item, taken) for item in value]
        if not isinstance(value, str):
            return value
        pieces = self._spelling.split(NONCHARACTER.sub("\ufffd", value))
        for place, piece in enumerate(pieces):
            variant = self._has_variants and not self._ids.isdisjoint(self._tokenise(piece))
            if place % 2 or variant:
                taken.append(piece)
                pieces[place] = f"{OPEN}{len(taken) - 1}{CLOSE}"
        return "".join(pieces)


def _controls(token: Any) -> bool:
    """Whether an added token is more than a frequent piece of text."""
    content = token.content.strip()
    return len(content) > 1 and bool(token.special or not HTML.fullmatch(content))
