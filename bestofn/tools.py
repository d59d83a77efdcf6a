"""Answers that have a form: calls of tools that a prompt declares, and JSON by a schema."""

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import jsonschema_rs

from bestofn.errors import ConfigError
from bestofn.prompts import Tools, clean, plain, spoken
from bestofn.types import Candidate, Message

Call = dict[str, Any]
"""A call as OpenAI's API has it: `id`, `type` and `function` with `name` and `arguments` (JSON)."""
NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)
TAKEN = ("auto", "none", "required")
ID = 9  # characters of an id, letters and digits: the templates of Mistral's models take no other
# What models write around calls: Hermes and Qwen; Mistral; Llama. A tag in backticks is a mention.
TAGGED = re.compile(r"(?<!`)<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
LISTED = re.compile(r"\[TOOL_CALLS\]\s*(?=[\[{])(.*)\Z", re.DOTALL)
NAMED = re.compile(
    r"\[TOOL_CALLS\]\s*([\w.-]+)\s*(?:\[ARGS\])?\s*(\{.*?\})\s*(?=\[TOOL_CALLS\]|\Z)", re.DOTALL
)
FUNCTION = re.compile(r"(?<!`)<function=([\w.-]+)>\s*(\{.*?\})\s*</function>", re.DOTALL)
FENCED = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL)
WRITING = (
    "You can call functions. To call some, answer with a line for each and nothing else:\n"
    '<tool_call>{"name": "NAME", "arguments": {...}}</tool_call>\n'
    "The functions, one in a line:\n"
)


def as_tools(value: Any) -> Tools:
    """Declared functions, each `{"type": "function", "function": {"name", ...}}`.

    Args:
        value: A list of these or of the inner objects, or the same as JSON text; None and an empty
            text are none.

    Raises:
        ConfigError: it is of another form, or the parameters of a function are no JSON schema.
    """
    try:
        listed = json.loads(value or "[]") if isinstance(value, str) else plain(value)
    except (ValueError, RecursionError):
        listed = value
    if not isinstance(listed, list | None):
        raise ConfigError("tools are a list of declared functions")
    tools = tuple(_declared(place, tool) for place, tool in enumerate(listed or ()))
    names = [name_of(tool) for tool in tools]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"two tools are called {twice[0]!r}")
    return tools


def _declared(place: int, tool: Any) -> dict[str, Any]:
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or tool.get("type", "function") != "function":
        raise ConfigError(f"tool {place} (counted from 0) is no function with a name")
    name = function.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name) or name in TAKEN:
        raise ConfigError(
            f"tool {place} (counted from 0) needs a name of up to 64 letters, digits, '_', '-' and "
            "'.', other than 'auto', 'none' and 'required'"
        )
    if function.get("parameters") is not None:
        check_schema(function["parameters"], f"the parameters of the tool {name!r}")
    return {"type": "function", "function": dict(function)}


def name_of(tool: Mapping[str, Any]) -> str:
    """What a declared tool is called."""
    return str(tool["function"]["name"])


def declaration(tools: Tools) -> str:
    """What tells a model of tools where its chat template does not."""
    return WRITING + "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)


def chosen_tool(choice: Any, tools: Tools) -> str:
    """What `SamplingParams` has for a `tool_choice` of OpenAI's API, which may be an object.

    Raises:
        ConfigError: it is of another form, or names none of the tools.
    """
    if choice in (None, *TAKEN):
        return choice or "auto"
    function = choice.get("function") if isinstance(choice, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if name not in [name_of(tool) for tool in tools]:
        said = "tool_choice is 'none', 'auto', 'required' or one of the tools"
        raise ConfigError(said, "tool_choice")
    return str(name)


def held_schema(form: Any) -> Any:
    """The JSON schema that a `response_format` of OpenAI's API asks for, None for none.

    Raises:
        ConfigError: it is of another form.
    """
    kind = form.get("type") if isinstance(form, Mapping) else form
    if kind in (None, "text"):
        return None
    if kind == "json_object":
        return {"type": "object"}
    named = form.get("json_schema") if kind == "json_schema" else None
    if not isinstance(named, Mapping) or not isinstance(named.get("schema"), Mapping):
        raise ConfigError(
            "response_format has the type 'text', 'json_object', or 'json_schema' with a "
            "json_schema that has a schema",
            "response_format",
        )
    check_schema(named["schema"], "the values in response_format", "response_format")
    return named["schema"]


def calls_schema(tools: Tools, choice: str) -> dict[str, Any]:
    """The JSON schema of a list of calls: of any tool, or of the one that `choice` names."""
    wanted = [tool["function"] for tool in tools if choice in ("required", name_of(tool))]
    kinds = [
        {
            "type": "object",
            "properties": {
                "name": {"type": "string", "enum": [function["name"]]},
                "arguments": function.get("parameters") or {"type": "object"},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for function in wanted
    ]
    several = {} if choice == "required" else {"maxItems": 1}
    return {"type": "array", "minItems": 1, **several, "items": {"anyOf": kinds}}


# --- what a model wrote ---------------------------------------------------------------------------


def read_calls(text: str) -> tuple[str, list[Any]]:
    """The rest of a model's text, and the calls in it, which may be of any form.

    Known are `<tool_call>{...}</tool_call>`, `[TOOL_CALLS]`, `<function=NAME>{...}</function>`, and
    a text that is nothing but one call or a list of them.
    """
    for pattern in (TAGGED, FUNCTION, NAMED, LISTED):
        if found := pattern.findall(text):
            written = [
                {"name": part[0], "arguments": _loaded(part[1])}
                if isinstance(part, tuple)
                else _loaded(part)
                for part in found
            ]
            return pattern.sub("", text).strip(), [c for part in written for c in _listed(part)]
    fenced = FENCED.fullmatch(text.strip())
    alone = _listed(_loaded(fenced[1] if fenced else text))
    if alone and all(map(_is_call, alone)):
        return "", alone
    return text, []


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _is_call(value: Any) -> bool:
    known = isinstance(value, Mapping) and isinstance(value.get("name"), str)
    return known and bool(value.keys() & {"arguments", "parameters"})


def as_calls(written: Sequence[Any], tools: Tools, key: str) -> list[Call]:
    """Calls in the form of the API, with ids of their own where they have none.

    Args:
        written: What a model wrote or a server answered.
        tools: Those that may be called.
        key: Tells ids from those of other answers.

    Raises:
        ConfigError: one is no call, is of no declared tool, or its arguments are wrong; the message
            says which and why.
    """
    functions = {name_of(tool): tool["function"] for tool in tools}
    calls = []
    for place, call in enumerate(written):
        function = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise ConfigError("a call of a tool is no JSON object with a name and arguments")
        name, given = clean(function["name"]), function.get("arguments", function.get("parameters"))
        if name not in functions:
            declared = ", ".join(map(repr, functions)) or "none"
            raise ConfigError(f"it calls {name!r}, which is no declared tool ({declared})")
        arguments = plain(_loaded(given or "{}") if isinstance(given, str) else given or {})
        if not isinstance(arguments, Mapping):
            raise ConfigError(f"the arguments of its call of {name!r} are no JSON object")
        schema = functions[name].get("parameters")
        if schema is not None and (wrong := _violation(schema, arguments)):
            raise ConfigError(f"the arguments of its call of {name!r} are wrong: {wrong}")
        text = (
            given if isinstance(given, str) and given else json.dumps(arguments, ensure_ascii=False)
        )
        own = blake2b(f"{key}\x1f{place}\x1f{text}".encode(), digest_size=8).hexdigest()[:ID]
        known = call.get("id")
        calls.append(
            {
                "id": clean(known) if isinstance(known, str) and known else own,
                "type": "function",
                "function": {"name": name, "arguments": clean(text)},
            }
        )
    return calls


def with_calls(content: str, calls: Sequence[Call]) -> str:
    """The text of an answer that calls tools."""
    return spoken(Message("assistant", content.strip(), {"tool_calls": list(calls)}))


def called(candidate: Candidate) -> list[str]:
    """The tools that a candidate calls."""
    return [call["function"]["name"] for call in candidate.tool_calls or ()]


# --- JSON by a schema -----------------------------------------------------------------------------


def check_schema(schema: Any, what: str, field: str | None = None) -> None:
    """Refuses what is no JSON schema, or refers to another document."""
    if not isinstance(schema, Mapping):
        raise ConfigError(f"{what} are no JSON schema, which is an object", field)
    try:
        _validator(json.dumps(plain(schema), sort_keys=True))
    except (ValueError, jsonschema_rs.ValidationError) as error:
        raise ConfigError(f"{what} are no JSON schema: {_sentence(error)}", field) from None


def check_json(text: str, schema: Mapping[str, Any]) -> str | None:
    """What is wrong with a text that is to be JSON by a schema, None if nothing is."""
    try:
        value = json.loads(text, parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        return f"it is not JSON: {getattr(error, 'msg', error)}"
    wrong = _violation(schema, value)
    return wrong and f"it does not fit the schema: {wrong}"


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _violation(schema: Mapping[str, Any], value: Any) -> str | None:
    try:
        _validator(json.dumps(plain(schema), sort_keys=True)).validate(value)
    except (ValueError, jsonschema_rs.ValidationError) as error:
        return _sentence(error)
    return None


@lru_cache(maxsize=32)
def _validator(schema: str) -> Any:
    # A pattern that backtracks without end fails, and no other document is fetched.
    patterns = jsonschema_rs.FancyRegexOptions(backtrack_limit=100_000)
    return jsonschema_rs.validator_for(json.loads(schema), pattern_options=patterns, offline=True)


def _sentence(error: Exception) -> str:
    said = getattr(error, "message", None) or str(error)
    place = "".join(f"[{part!r}]" for part in getattr(error, "instance_path", ()))
    first = said.splitlines()[0][:200].rstrip(".")
    return f"{first} (at {place})" if place else first
