"""From conversations to token ids and back, by the model's own chat template."""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any, get_args

from bestofn.errors import ConfigError, ContextLengthError, EngineError
from bestofn.prompts import Tools, as_turns, clean, split_opening, spoken, transcript
from bestofn.thinking import ends_in_opening, split_thinking
from bestofn.tools import declared_in_system
from bestofn.types import Message, Prompt, Role

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REASONING_FIRST = (
    "the chat template starts the answer with reasoning, so that an answer can neither be scored "
    "nor begun; switch it off, such as by with_options(chat_template_kwargs="
    "{'enable_thinking': False}), or take the reward 'flip' with a template that opens no answer"
)
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
Messages = tuple[Message, ...]
Change = Callable[[Messages], Messages]
Way = tuple[Change, Change, tuple[str, ...]]
"""What becomes of tools and of the system's turns, and the roles that have content parts."""
FORMS: list[tuple[str, ...]] = [(), ("user",), get_args(Role)]
# What is tried to see which turns a template writes.
CALL = {"name": "probe_tool", "arguments": '{"probe_argument": "probe value"}'}
PROBE = {"name": "probe_tool", "description": "", "parameters": {"type": "object"}}
CALLS = [{"id": "probe0123", "type": "function", "function": CALL}]
RESULT = {"tool_call_id": "probe0123", "name": "probe_tool"}

CUT = "\ufdd0"  # a noncharacter; the text before and after it is tokenised apart


class ChatFormat:
    """One tokenizer's view of prompts, continuations and completions.

    A chat template writes the turns that it knows, with their content as a text or, where it wants
    that, as content parts. What it does not know becomes something that it does: a developer is
    the system; without a system role the system text goes in front of the first user message; tool
    calls and their results become readable text; tools that may be called are described in the
    system text. Without a template a conversation is plain text:
    "User: ...", "Assistant: ..." in paragraphs, ending in "Assistant:".

    Chat templates write added tokens, special ones and others like `<think>` or `<tool_call>`; what
    users and models write must not become one, and is tokenised as text. The tags of HTML, the
    single characters and the runs of white space that some tokenizers add count as text.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.template_kwargs = dict(template_kwargs or {})
        source = tokenizer.chat_template or ""
        self._source = source if isinstance(source, str) else " ".join(source.values())
        self.has_template = bool(source)
        self._ways = lru_cache(maxsize=256)(self._find_ways)
        added: Mapping[int, Any] = getattr(tokenizer, "added_tokens_decoder", {})
        control = {token: a for token, a in added.items() if _controls(a)}
        # What the tokenizer does not know reads as an unknown token, and spells none.
        self._control_ids = frozenset(control) - {tokenizer.unk_token_id}
        spellings = sorted((a.content.strip() for a in control.values()), key=len, reverse=True)
        self._spelling = re.compile(f"({'|'.join(map(re.escape, spellings)) or '(?!)'})")
        # In capitals or wide letters, where a tokenizer brings text to one form before it looks.
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self._has_variants = bool(getattr(backend, "normalizer", None)) and any(
            a.normalized for a in control.values()
        )
        self.closing_ids = self._find_closing_ids()
        # One prompt is encoded once for all its candidates.
        self.encode = lru_cache(maxsize=512)(self._encode)

    def with_kwargs(self, template_kwargs: Mapping[str, Any]) -> "ChatFormat":
        return ChatFormat(self.tokenizer, self.template_kwargs | dict(template_kwargs))

    def render(self, messages: Messages, prompt: bool = True, tools: Tools = ()) -> str:
        """The conversation as text, up to where the model is to answer.

        Args:
            messages: The turns.
            prompt: Whether they end with a question; the text of an answered one ends with them.
            tools: What the answer may call.

        Raises:
            EngineError: the template refuses the conversation, or drops a part of it.
        """
        if tools and not self._writes_tools:
            messages, tools = declared_in_system(messages, tools), ()
        if not self.has_template:
            return f"{transcript(messages)}\n\nAssistant:"
        ways = self._ways(tuple((turn.role, bool(_calls(turn))) for turn in messages), prompt)
        text, failure = None, None
        for way in ways or [SIMPLEST]:
            try:
                text = self._apply(way, messages, prompt, tools)
                break
            except Exception as error:  # a template can go wrong like any other program
                failure = error
        if text is None:
            kind = type(failure).__name__
            reason = "" if kind == "TemplateError" else f"{kind}: "  # a template's own words
            reason += " ".join(str(failure).split()).rstrip(".")
            raise EngineError(f"the model's chat template refuses the prompt: {reason}")
        for turn in () if ways else messages:
            if turn.role in ("user", "assistant") and turn.content.strip() not in text:
                raise EngineError(
                    f"the model's chat template drops the text of {turn.role} messages; put one "
                    "that writes it beside the model, as chat_template.jinja"
                )
        return text

    def _find_ways(self, shape: tuple[tuple[str, bool], ...], prompt: bool) -> list[Way]:
        """The ways in which all of a conversation of these roles and tool calls arrives."""
        roles, calls = {role for role, _ in shape}, any(calls for _, calls in shape)
        probe = tuple(_probe(place, *turn) for place, turn in enumerate(shape))
        parts = [turn.content for turn in probe] + ["probe_tool", "probe value"] * calls
        tools: list[Change] = [_parsed, tuple, _without_tools]
        systems: list[Change] = [_one_system, _without_system]
        # A template that writes any role by its name does not know this one.
        if "developer" in self._source:
            systems.insert(0, tuple)
        found: list[Way] = []
        for changes in product(
            tools if calls or "tool" in roles else [tuple],
            systems if roles & {"system", "developer"} else [tuple],
        ):
            for in_parts in FORMS:
                if self._arrives((*changes, in_parts), probe, prompt, parts):
                    found.append((*changes, in_parts))
                    break
        return found

    def _arrives(self, way: Way, probe: Messages, prompt: bool, parts: list[str]) -> bool:
        try:
            text = self._apply(way, probe, prompt).lower()
        except Exception:  # of any kind: not taken
            return False
        return all(part in text for part in parts)

    @cached_property
    def _writes_tools(self) -> bool:
        """Whether the chat template shows the model which tools there are."""
        declared = ({"type": "function", "function": PROBE},)
        try:
            text = self._apply((tuple, tuple, ()), (Message("user", "x"),), True, declared)
        except Exception:  # of any kind: not written
            return False
        return "probe_tool" in text

    def _apply(self, way: Way, messages: Messages, prompt: bool, declared: Tools = ()) -> str:
        tools, system, in_parts = way
        turns = as_turns(system(tools(messages)))
        for turn in turns:
            if turn["role"] in in_parts:
                turn["content"] = [{"type": "text", "text": turn["content"]}]
        text = self.tokenizer.apply_chat_template(
            turns,
            tokenize=False,
            add_generation_prompt=prompt,
            **({"tools": list(declared)} if declared else {}),
            **self.template_kwargs,
        )
        assert isinstance(text, str)
        return text

    def control_tokens(self, text: str) -> list[str]:
        """The tokenizer's added tokens that a text spells, each once."""
        found = self._spelling.findall(text)
        if self._has_variants:
            ids = self._control_ids.intersection(self._tokenise(text))
            found += map(self.tokenizer.convert_ids_to_tokens, sorted(ids))
        return list(dict.fromkeys(found))

    def _encode(self, prompt: Prompt) -> tuple[tuple[int, ...], bool]:
        """Token ids of the prompt, and whether it ends inside an opened thinking tag."""
        messages, opening = split_opening(prompt)
        text = self.render(self._as_text(messages), tools=self._cut(prompt.tools))
        thinking = ends_in_opening(text)
        # A template writes its own special tokens; plain text needs the tokenizer's.
        ids = self._ids(text, special=not self.has_template)
        if opening:
            if thinking:
                raise EngineError(REASONING_FIRST)
            opening = opening if self.has_template else f" {opening}"
            ids += self._ids(self._cut(opening))
        return tuple(ids), thinking

    def encode_answered(self, prompt: Prompt, answer: str) -> list[int]:
        """Token ids of a conversation that ends with an answer, as the chat template closes it.

        Raises:
            EngineError: the template refuses it.
        """
        messages = self._as_text((*prompt.messages, Message("assistant", answer)))
        return self._ids(self.render(messages, prompt=False, tools=self._cut(prompt.tools)))

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
        return (*self._ids(self._cut(text)), *(self.closing_ids if close else ()))

    def _as_text(self, messages: Messages) -> Messages:
        """The messages, cut wherever they spell a control token."""
        messages = tuple(map(self._with_reasoning_apart, messages))
        return tuple(
            replace(turn, content=self._cut(turn.content), extra=self._cut(turn.extra))
            for turn in messages
        )

    def _with_reasoning_apart(self, message: Message) -> Message:
        """An earlier answer's reasoning in a field of its own, for a template that looks for it."""
        if message.role != "assistant" or "</think>" not in self._source:
            return message
        reasoning, answer = split_thinking(message.content)
        if reasoning is None or not self.control_tokens(message.content):
            return message
        return Message("assistant", answer, {"reasoning_content": reasoning, **message.extra})

    def _cut(self, value: Any) -> Any:
        """A text, or all those inside a value, with cuts in each control token that it spells."""
        if isinstance(value, Mapping):
            return {self._cut(key): self._cut(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._cut(item) for item in value]
        if not isinstance(value, str):
            return value
        pieces = self._spelling.split(value.replace(CUT, "\ufffd"))
        for place, piece in enumerate(pieces):
            if place % 2:  # its first character apart ends what it spells
                pieces[place] = CUT + piece[:1] + CUT + self._halved(piece[1:]) + CUT
            elif self._has_variants and (halved := self._halved(piece)) != piece:
                pieces[place] = CUT + halved + CUT
        return "".join(pieces)

    def _halved(self, text: str) -> str:
        """The text, cut in two again and again while a part would be read as a control token."""
        if len(text) < 2 or self._control_ids.isdisjoint(self._tokenise(text)):
            return text
        middle = len(text) // 2
        return self._halved(text[:middle]) + CUT + self._halved(text[middle:])

    def _ids(self, text: str, special: bool = False) -> list[int]:
        """Token ids of a text with cuts; `special` for those that the tokenizer puts in front."""
        first, *rest = text.split(CUT)
        ids = self._tokenise(first, special)
        for piece in filter(None, rest):
            ids += self._tokenise(piece)
        return ids

    def _tokenise(self, text: str, special: bool = False) -> list[int]:
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
            turns = Message("user", "x"), Message("assistant", "probe of an answer")
            text = self.render(turns, prompt=False)
            ids = self._tokenise(text.rpartition(turns[1].content)[2])
            if ids and ids[0] in self.tokenizer.all_special_ids:
                return (ids[0],)
        end = self.tokenizer.eos_token_id
        return () if end is None else (end,)


def require_room(prompt: tuple[int, ...], needed: int, context: int) -> int:
    """Tokens that fit into the context behind a prompt, where so many are needed.

    To score a continuation it takes one more than its tokens on every engine, since vLLM and its
    servers generate one behind what they score.

    Raises:
        ContextLengthError: there is not enough room.
    """
    if len(prompt) + needed > context:
        raise ContextLengthError(len(prompt) + needed, context, len(prompt))
    return context - len(prompt)


def _controls(token: Any) -> bool:
    """Whether an added token is more than a frequent piece of text."""
    content = token.content.strip()
    return len(content) > 1 and bool(token.special or not HTML.fullmatch(content))


def _probe(place: int, role: Any, calls: bool) -> Message:
    extra: dict[str, Any] = {"tool_calls": CALLS} if calls else RESULT if role == "tool" else {}
    return Message(role, "" if calls else f"probe {place} of {role}", extra)


def _one_system(messages: Messages) -> Messages:
    """Developers as the system."""
    return tuple(
        replace(turn, role="system") if turn.role == "developer" else turn for turn in messages
    )


def _without_system(messages: Messages) -> Messages:
    """System texts in front of the user message that follows."""
    turns: list[Message] = []
    waiting: list[str] = []
    for message in messages:
        if message.role in ("system", "developer"):
            waiting.append(message.content)
            continue
        if message.role == "user" and waiting:
            content = "\n\n".join([*waiting, message.content]).rstrip()
            message, waiting = replace(message, content=content), []
        turns.append(message)
    return (*turns, *(Message("user", text) for text in waiting))


def _without_tools(messages: Messages) -> Messages:
    """Tool calls and results as text, with users and answers taking turns."""
    if not any(turn.role == "tool" or _calls(turn) for turn in messages):
        return messages
    turns: list[Message] = []
    for message in messages:
        if message.role == "tool":
            message = Message("user", spoken(message))
        elif _calls(message):
            message = Message(message.role, spoken(message))
        if turns and turns[-1].role == message.role == "user":
            message = Message("user", f"{turns.pop().content}\n\n{message.content}")
        turns.append(message)
    return tuple(turns)


def _parsed(messages: Messages) -> Messages:
    """Tool calls with arguments as templates want them: APIs have them as JSON in a text."""
    turns = []
    for turn in messages:
        calls = [
            {**call, "function": {**call["function"], "arguments": _loaded(call["function"])}}
            for call in _calls(turn) or []
        ]
        turns.append(replace(turn, extra={**turn.extra, "tool_calls": calls}) if calls else turn)
    return tuple(turns)


def _loaded(function: Mapping[str, Any]) -> Any:
    arguments = function["arguments"]
    return json.loads(arguments) if isinstance(arguments, str) else arguments


def _calls(message: Message) -> Any:
    return message.extra.get("tool_calls")


SIMPLEST: Way = (_without_tools, _without_system, ())
