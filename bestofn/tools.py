"""Tools: what a prompt declares, and the calls in what a model wrote."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any

from bestofn.errors import ConfigError
from bestofn.prompts import Tools, clean, plain, spoken
from bestofn.schemas import check_schema, refuse, violation
from bestofn.types import Candidate, Message

Call = dict[str, Any]
"""A call as OpenAI's API has it: `id`, `type` and `function` with `name` and `arguments` (JSON)."""
NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)
TAKEN = ("auto", "none", "required")
ID = 9  # characters of an id, letters and digits: the templates of Mistral's models take no other
# What models write in front of calls: Hermes and Qwen; Qwen3-Coder and Llama; Mistral; Llama. In
# backticks it is a mention.
OPENING = re.compile(
    r"(?<!`)<tool_call>\s*(?:<function=(?P<inner>[\w.-]{1,64})>\s*)?"
    r"|(?<!`)<function=(?P<function>[\w.-]{1,64})>\s*"
    r"|\[TOOL_CALLS\]\s*(?:(?P<name>[\w.-]{1,64})(?:\[CALL_ID\]\w{0,64})?(?:\[ARGS\])?\s*)?"
    r"|<\|python_tag\|>\s*"
)
PARAMETER = re.compile(r"<parameter=([\w.-]{1,64})>")
BEHIND = re.compile(r"\s*(?:</function>\s*)?(?:</tool_call>|</s>)?[\s;]*")
DECODER = json.JSONDecoder(parse_constant=refuse)
WRITING = (
    "You can call functions. To call some, answer with a line for each and nothing else:\n"
    '<tool_call>{"name": "NAME", "arguments": {...}}</tool_call>\n'
    "The functions, one in a line:\n"
)


def as_tools(value: Any, *, bounded: bool = False) -> Tools:
    """Declared functions, each `{"type": "function", "function": {"name", ...}}`.

    Args:
        value: A list of these or of the inner objects, or the same as JSON text; None and an empty
            text mean no tools.
        bounded: Refuse schemas that take long to check, for values of strangers.

    Raises:
        ConfigError: it is of another form, or the parameters of a function are no JSON schema.
    """
    try:
        listed = plain(json.loads(value or "[]") if isinstance(value, str) else value)
    except (ValueError, RecursionError):
        listed = value
    if not isinstance(listed, list | None):
        raise ConfigError("tools are a list of declared functions")
    tools = tuple(_declared(place, tool, bounded) for place, tool in enumerate(listed or ()))
    names = [name_of(tool) for tool in tools]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"two tools are called {twice[0]!r}")
    return tools


def _declared(place: int, tool: Any, bounded: bool) -> dict[str, Any]:
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
        what = f"the parameters of the tool {name!r}"
        check_schema(function["parameters"], what, "tools", bounded=bounded)
    return {"type": "function", "function": dict(function)}


def name_of(tool: Mapping[str, Any]) -> str:
    """What a declared tool is called."""
    return str(tool["function"]["name"])


def declared_in_system(messages: tuple[Message, ...], tools: Tools) -> tuple[Message, ...]:
    """A conversation that tells of tools at the end of the system's text."""
    listed = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    first, text = messages[0], WRITING + listed
    if first.role not in ("system", "developer"):
        return (Message("system", text), *messages)
    return (replace(first, content=f"{first.content}\n\n{text}".strip()), *messages[1:])


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
    """The JSON schema that a stranger's `response_format` of OpenAI's API asks for, None for none.

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
    check_schema(named["schema"], "response_format", "response_format", bounded=True)
    return named["schema"]


def calls_schema(tools: Tools, choice: str, parallel: bool = True) -> dict[str, Any]:
    """The JSON schema of a list of calls: of any tool, or of the one that `choice` names."""
    kinds, definitions = [], {}
    for place, tool in enumerate(tools):
        if choice not in ("required", name_of(tool)):
            continue
        parameters = tool["function"].get("parameters") or {"type": "object"}
        if _has_references(parameters):  # whose places are elsewhere in the whole
            own = f"tool{place}"
            definitions[own] = _moved(parameters, f"#/$defs/{own}")
            parameters = {"$ref": f"#/$defs/{own}"}
        kinds.append(
            {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "enum": [name_of(tool)]},
                    "arguments": parameters,
                },
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    one = {"maxItems": 1} if choice != "required" or not parallel else {}
    defined = {"$defs": definitions} if definitions else {}
    return {"type": "array", "minItems": 1, **one, "items": {"anyOf": kinds}, **defined}


def _has_references(schema: Any) -> bool:
    return '"$ref"' in json.dumps(schema)


def _moved(schema: Any, place: str) -> Any:
    """A schema with its references as they are where the schema is at a place of another one."""
    if isinstance(schema, Mapping):
        return {
            key: f"{place}{value[1:]}"
            if key == "$ref" and isinstance(value, str) and value.startswith("#")
            else _moved(value, place)
            for key, value in schema.items()
        }
    return [_moved(item, place) for item in schema] if isinstance(schema, list) else schema


# --- what a model wrote ---------------------------------------------------------------------------


def read_calls(text: str, tools: Tools) -> tuple[str, list[Any]]:
    """The rest of a model's text, and the calls in it; what is begun and no call is a text.

    Known are `<tool_call>{...}</tool_call>`, `[TOOL_CALLS]`, `<function=NAME>` with JSON or with a
    `<parameter=NAME>` for each argument, `<|python_tag|>`, and an answer that is nothing but one
    or several calls of declared tools as JSON.
    """
    alone = _bare_calls(text, {name_of(tool) for tool in tools})
    if alone:
        return "", alone
    rest, written, place = [], list[Any](), 0
    for opening in OPENING.finditer(text):
        if opening.start() < place:
            continue
        name = opening["inner"] or opening["function"] or opening["name"]
        call, end = _call_at(text, opening.end(), name, tools)
        if call is None:
            continue
        rest.append(text[place : opening.start()])
        written += call
        behind = BEHIND.match(text, end)
        place = behind.end() if behind else end
        if isinstance(call[-1], str):
            break
    if not written:
        return text, []
    return "".join([*rest, text[place:]]).strip(), written


def _call_at(text: str, start: int, name: str | None, tools: Tools) -> tuple[list[Any] | None, int]:
    """The calls behind an opening, a text if they are broken, None if there are none; their end."""
    if name is not None and text.startswith("<parameter=", start):
        return _with_parameters(text, start, name, tools)
    if not text.startswith(("{", "["), start):
        declared = any(name_of(tool) == name for tool in tools)
        return ([{"name": name, "arguments": {}}] if declared else None), start
    try:
        value, end = DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return [text[start:]], len(text)
    if name is not None:
        return [{"name": name, "arguments": value}], end
    found = _listed(value)
    return (found if all(isinstance(call, dict) for call in found) else None), end


def _with_parameters(text: str, start: int, name: str, tools: Tools) -> tuple[list[Any], int]:
    """A call with an element for each argument, which is JSON where the tool takes no text."""
    declared = next((t["function"].get("parameters") for t in tools if name_of(t) == name), None)
    kinds = (declared or {}).get("properties") or {}
    arguments: dict[str, Any] = {}
    while parameter := PARAMETER.match(text, start):
        end = text.find("</parameter>", parameter.end())
        if end < 0:
            return [text[start:]], len(text)
        value, key = text[parameter.end() : end].strip("\n"), parameter[1]
        takes_text = isinstance(kinds.get(key), Mapping) and kinds[key].get("type") == "string"
        arguments[key] = value if takes_text else _loaded(value)
        start = end + len("</parameter>")
        start += len(text[start:]) - len(text[start:].lstrip())
    return [{"name": name, "arguments": arguments}], start


def _bare_calls(text: str, names: set[Any]) -> list[Any]:
    """The calls of declared tools that a text is made of, none if it is made of anything else."""
    text = text.strip()
    if text.startswith("```") and text.endswith("```") and len(text) > 6:
        text = text[3:-3].removeprefix("json").strip()
    found, place = list[Any](), 0
    while place < len(text):
        try:
            value, place = DECODER.raw_decode(text, place)
        except (ValueError, RecursionError):
            return []
        found += _listed(value)
        while place < len(text) and (text[place].isspace() or text[place] == ";"):
            place += 1
    for call in found:
        if not isinstance(call, dict) or call.get("name") not in names:
            return []
        if not call.keys() & {"arguments", "parameters"}:
            return []
    return found


def _loaded(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return text


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


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
        if schema is not None and (wrong := violation(schema, arguments)):
            raise ConfigError(f"the arguments of its call of {name!r} are wrong: {wrong}")
        text = (
            given if isinstance(given, str) and given else json.dumps(arguments, ensure_ascii=False)
        )
        text = clean(text)
        own = blake2b(f"{key}\x1f{place}\x1f{text}".encode(), digest_size=8).hexdigest()[:ID]
        known = call.get("id")
        calls.append(
            {
                "id": clean(known) if isinstance(known, str) and known else own,
                "type": "function",
                "function": {"name": name, "arguments": text},
            }
        )
    return calls


def with_calls(content: str, calls: Sequence[Call]) -> str:
    """The text of an answer that calls tools."""
    return spoken(Message("assistant", content.strip(), {"tool_calls": list(calls)}))


def called(candidate: Candidate) -> list[str]:
    """The tools that a candidate calls."""
    return [call["function"]["name"] for call in candidate.tool_calls or ()]
