"""A tokenizer's chat template, and what becomes of turns that it does not take."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from jinja2 import TemplateError

from bestofn.engines.model_files import first_sentence
from bestofn.errors import EngineError
from bestofn.prompts import as_turns, spoken, transcript
from bestofn.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Form = Literal["text", "parts"]
Messages = tuple[Message, ...]

# What is tried to see which turns a template writes. A user's turn must survive beside the others.
USER, ANSWER = Message("user", "probe text"), Message("assistant", "probe of an answer")
PROBES: tuple[Messages, ...] = (
    (USER,),
    (Message("system", "probe of the system"), USER),
    (Message("developer", "probe of the developer"), USER),
    (USER, ANSWER),
)
LATER: Messages = (USER, ANSWER, Message("user", "probe of a later turn"))
CALL = {"name": "probe_tool", "arguments": '{"probe_argument": "probe value"}'}
CALLS = [{"id": "probe0123", "type": "function", "function": CALL}]
TOOLS: Messages = (
    USER,
    Message("assistant", "", {"tool_calls": CALLS}),
    Message("tool", "probe result", {"tool_call_id": "probe0123", "name": "probe_tool"}),
)


class ChatTemplate:
    """The text that a model reads for a conversation.

    A template writes the turns that it knows, with their content as a text or, where it wants
    that, as content parts. What it does not know becomes something that it does: a developer is
    the system; without a system role the system text goes in front of the first user message; tool
    calls and their results become readable text. Without a template a conversation is plain text:
    "User: ...", "Assistant: ..." in paragraphs, ending in "Assistant:".
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", options: Mapping[str, Any]) -> None:
        self._tokenizer = tokenizer
        self._options = dict(options)
        source = tokenizer.chat_template or ""
        self._source = source if isinstance(source, str) else " ".join(source.values())
        self.exists = bool(self._source)
        self._forms: dict[str, Form] = {}
        self._keeps_later = False
        if self.exists:
            self._probe()
            self._keeps_later = self._arrives(LATER, [turn.content for turn in LATER])

    @property
    def splits_reasoning(self) -> bool:
        """Whether it looks for reasoning inside the text of an answer."""
        return "</think>" in self._source

    def render(self, messages: Messages, prompt: bool = True) -> str:
        """The conversation as text, up to where the model is to answer.

        Args:
            messages: The turns.
            prompt: Whether they end with a question; the text of an answered one ends with them.

        Raises:
            EngineError: the template refuses the conversation, or drops a part of it.
        """
        if not self.exists:
            return f"{transcript(messages)}\n\nAssistant:"
        *others, last = self._versions(messages)
        for version in others:
            try:
                return self._checked(version, prompt)
            except EngineError:
                continue  # the next version says the same in a simpler way
        return self._checked(last, prompt)

    def after_answer(self) -> str:
        """What it writes behind an answer; nothing without a template.

        Raises:
            EngineError: it takes no answers.
        """
        if not self.exists:
            return ""
        text = self.render((Message("user", "x"), ANSWER), prompt=False)
        return text.rpartition(ANSWER.content)[2]

    def _checked(self, messages: Messages, prompt: bool) -> str:
        try:
            text = self._apply(messages, prompt)
        except TemplateError as error:
            raise EngineError(f"the model's chat template refuses the prompt: {error}") from error
        except Exception as error:  # a template can go wrong like any other program
            raise EngineError(
                "the model's chat template fails on the prompt: "
                f"{type(error).__name__}: {first_sentence(error)}"
            ) from error
        for place, message in enumerate(messages):
            known = message.role in self._forms and (self._keeps_later or not place)
            unknown = message.role in ("user", "assistant") and not known
            if unknown and message.content.strip() not in text:
                raise EngineError(
                    f"the model's chat template drops the text of {message.role} messages; put one "
                    "that writes it beside the model, as chat_template.jinja"
                )
        return text

    def _versions(self, messages: Messages) -> Iterator[Messages]:
        """The conversation in terms of the template, the one that any template takes last."""
        messages = tuple(self._as_known(message) for message in messages)
        if "system" not in self._forms:
            messages = _without_system(messages)
        if any(message.role == "tool" or _calls(message) for message in messages):
            for write in (_parsed, tuple):
                if self._arrives(write(TOOLS), ("probe_tool", "probe value", "probe result")):
                    yield write(messages)
            messages = _without_tools(messages)
        yield messages

    def _as_known(self, message: Message) -> Message:
        known = message.role != "developer" or "developer" in self._forms
        return message if known else replace(message, role="system")

    def _probe(self) -> None:
        """Finds the form in which the content of each role arrives."""
        for turns in PROBES:
            role = next((turn.role for turn in turns if turn != USER), "user")
            # A template that writes any role as it is called does not know this one.
            if role == "developer" and role not in self._source:
                continue
            for form in ("text", "parts"):
                self._forms[role] = form
                if self._arrives(turns, [turn.content for turn in turns]):
                    break
                del self._forms[role]

    def _arrives(self, messages: Messages, parts: Sequence[str]) -> bool:
        try:
            text = self._apply(messages, prompt=messages[-1].role == "user")
        except Exception:  # of any kind: not taken
            return False
        return all(part in text.lower() for part in parts)

    def _apply(self, messages: Messages, prompt: bool = True) -> str:
        turns = as_turns(messages)
        for turn in turns:
            if self._forms.get(turn["role"]) == "parts":
                turn["content"] = [{"type": "text", "text": turn["content"]}]
        text = self._tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=prompt, **self._options
        )
        assert isinstance(text, str)
        return text


def _without_system(messages: Messages) -> Messages:
    """System texts in front of the user message that follows."""
    turns: list[Message] = []
    waiting: list[str] = []
    for message in messages:
        if message.role == "system":
            waiting.append(message.content)
            continue
        if message.role == "user" and waiting:
            content = "\n\n".join([*waiting, message.content]).rstrip()
            message, waiting = replace(message, content=content), []
        turns.append(message)
    return (*turns, *(Message("user", text) for text in waiting))


def _without_tools(messages: Messages) -> Messages:
    """Tool calls and results as text, with users and answers taking turns."""
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
    return tuple(
        replace(message, extra={**message.extra, "tool_calls": _with_objects(_calls(message))})
        if _calls(message)
        else message
        for message in messages
    )


def _calls(message: Message) -> Any:
    return message.extra.get("tool_calls")


def _with_objects(calls: Any) -> Any:
    if isinstance(calls, list | tuple):
        return [_with_objects(call) for call in calls]
    if not isinstance(calls, Mapping):
        return calls
    call = {name: _with_objects(v) if name == "function" else v for name, v in calls.items()}
    if isinstance(call.get("arguments"), str):
        with suppress(ValueError):
            call["arguments"] = json.loads(call["arguments"])
    return call
