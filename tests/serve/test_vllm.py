"""The server over vLLM: answers in a form, calls of tools, and that nothing is left running."""

import http.client
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fakes import wait_until
from served import ASKED, JSON, Answered, Served, served

from bestofn import FLIPLikelihood
from bestofn.schemas import check_json

FRUIT = {"type": "string", "enum": ["apple", "fig", "plum"]}
SCHEMAS: list[dict[str, Any]] = [
    {
        "type": "object",
        "properties": {"fruit": FRUIT, "count": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["fruit", "count"],
        "additionalProperties": False,
    },
    {"type": "array", "items": FRUIT, "minItems": 1, "maxItems": 3},
    {
        "type": "object",
        "properties": {"ripe": {"type": "boolean"}, "inner": {"$ref": "#/$defs/inner"}},
        "required": ["ripe", "inner"],
        "additionalProperties": False,
        "$defs": {"inner": {"type": "object", "properties": {"f": FRUIT}, "required": ["f"]}},
    },
    FRUIT,
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {"of": {"$ref": "#/$defs/f"}},
                "required": ["of"],
                "additionalProperties": False,
                "$defs": {"f": {"enum": ["fig", "plum"]}},
            },
        },
    }
    for name in ("wash", "peel")
]


@pytest.fixture(scope="module")
def server(vllm_tiny: Any) -> Iterator[Served]:
    with served(vllm_tiny, FLIPLikelihood(vllm_tiny), n=2, max_tokens=80) as found:
        yield found


def test_200_answers_by_schema_are_all_valid(server: Served) -> None:
    def ask(number: int) -> Answered:
        named = {"name": "x", "schema": SCHEMAS[number % len(SCHEMAS)], "strict": True}
        form = {"type": "json_schema", "json_schema": named}
        asked = [{"role": "user", "content": f"Name {number % 9 + 1} fruits."}]
        return server.chat(messages=asked, response_format=form)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(200)))
    assert {answer.status for answer in answers} == {200}
    for number, answer in enumerate(answers):
        text = answer.body["choices"][0]["message"]["content"]
        assert check_json(text, SCHEMAS[number % len(SCHEMAS)]) is None, text
        assert answer.body["bestofn"]["failures"] == []


def test_required_and_named_tools(server: Served) -> None:
    # Two tools would fill the context of so small a model.
    for tool, choice, name in (
        (TOOLS[0], "required", "wash"),
        (TOOLS[1], {"type": "function", "function": {"name": "peel"}}, "peel"),
    ):
        status, body, _ = server.chat(tools=[tool], tool_choice=choice, parallel_tool_calls=False)
        assert status == 200, body
        choice = body["choices"][0]
        (call,) = choice["message"]["tool_calls"]
        assert choice["finish_reason"] == "tool_calls"
        assert call["function"]["name"] == name
        assert json.loads(call["function"]["arguments"])["of"] in ("fig", "plum")


def test_what_vllm_refuses_is_refused(server: Served) -> None:
    schema = {"type": "string", "pattern": "(?=x)y", "minLength": 3}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert server.chat(response_format=form).status in (400, 422)
    assert server.chat().status == 200


def test_a_client_that_hangs_up_leaves_nothing_in_the_engine(
    server: Served, vllm_tiny: Any
) -> None:
    body = json.dumps({"model": "model", "messages": ASKED, "stream": True, "bestofn": {"n": 16}})
    for _ in range(5):
        connection = http.client.HTTPConnection(*server.address)
        connection.request("POST", "/v1/chat/completions", body, JSON)
        connection.getresponse().readline()
        connection.close()
    wait_until(lambda: vllm_tiny.running == 0)
    wait_until(lambda: server.metric("bestofn_engine_running") == 0)
    assert server.get("/ready").status == 200
