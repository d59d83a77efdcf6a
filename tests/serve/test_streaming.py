"""Streams: progress at once and while candidates are drawn, then the answer in pieces."""

import asyncio
import http.client
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from fakes import ScriptedEngine, wait_until
from served import ASKED, JSON, Served, served

from bestofn.engines.base import Completion, SamplingParams
from bestofn.errors import EngineError
from bestofn.rewards.baselines import First
from bestofn.serve import app
from bestofn.types import Prompt, Usage

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


def lines(server: Served, **fields: Any) -> Iterator[str]:
    """The lines of a stream, as they come."""
    body = {"model": "model", "messages": ASKED, "stream": True} | fields
    connection = http.client.HTTPConnection(*server.address, timeout=30)
    connection.request("POST", "/v1/chat/completions", json.dumps(body), JSON)
    response = connection.getresponse()
    assert response.status == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    try:
        while line := response.readline():
            if line.strip():
                yield line.decode().rstrip("\n")
    finally:
        response.close()
        connection.close()


class Gate(ScriptedEngine):
    """Answers when the gate is opened."""

    def __init__(self, answer: Any = "answer 1") -> None:
        super().__init__(answer)
        self.open = False

    async def _work(self, prompt: Prompt) -> None:
        self.running += 1
        try:
            while not self.open:
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.aborted += 1
            raise
        finally:
            self.running -= 1


def test_the_first_line_comes_before_any_candidate() -> None:
    gate = Gate()
    with served(gate) as server:
        stream = lines(server)
        assert next(stream) == ": 0 of 4 candidates"
        wait_until(lambda: gate.running == 4)
        gate.open = True
        rest = list(stream)
    events = [
        json.loads(line.removeprefix("data: ")) for line in rest if line.startswith("data: {")
    ]
    assert rest[-1] == "data: [DONE]"
    deltas = [event["choices"][0]["delta"] for event in events]
    assert deltas == [{"role": "assistant", "content": ""}, {"content": "answer 1"}, {}]
    assert events[-1]["choices"][0]["finish_reason"] == "stop"
    assert events[-1]["bestofn"]["n"] == 4
    assert {event["object"] for event in events} == {"chat.completion.chunk"}


def test_a_stream_is_never_silent_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    assert app.KEEP_ALIVE + app.TICK < 10
    monkeypatch.setattr(app, "KEEP_ALIVE", 0.05)
    monkeypatch.setattr(app, "TICK", 0.02)
    gate = Gate()
    with served(gate) as server:
        stream = lines(server)
        assert [next(stream) for _ in range(4)] == [": 0 of 4 candidates"] * 4
        gate.open = True
        assert list(stream)[-1] == "data: [DONE]"


def test_a_client_that_hangs_up_frees_its_candidates() -> None:
    gate = Gate()
    with served(gate) as server:
        stream = lines(server)
        next(stream)
        wait_until(lambda: gate.running == 4)
        stream.close()
        wait_until(lambda: gate.running == 0)
        assert gate.aborted == 4
        connection = http.client.HTTPConnection(*server.address)
        body = json.dumps({"model": "model", "messages": ASKED})
        connection.request("POST", "/v1/chat/completions", body, JSON)
        wait_until(lambda: gate.running == 4)
        connection.close()
        wait_until(lambda: gate.running == 0)
        wait_until(lambda: server.metric("bestofn_entered") == 0)
        assert gate.aborted == 8


def test_a_failure_is_an_event() -> None:
    def fail(prompt: Prompt, params: SamplingParams, seed: int | None) -> Exception:
        return EngineError("out of memory")

    with served(ScriptedEngine(fail)) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0)
        with pytest.raises(openai.APIError, match="out of memory"):
            list(client.chat.completions.create(model="model", messages=ASKED, stream=True))  # type: ignore[call-overload]
        rest = list(lines(server))
    assert json.loads(rest[-2].removeprefix("data: "))["error"]["code"] == "no_candidate"
    assert rest[-1] == "data: [DONE]"


def test_usage_and_several_choices() -> None:
    with served() as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0)
        stream = client.chat.completions.create(
            model="model",
            messages=ASKED,  # type: ignore[arg-type]
            n=2,
            stream=True,
            stream_options={"include_usage": True},
        )
        texts, usage = {0: "", 1: ""}, None
        for chunk in stream:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
    assert texts == {0: "answer 3", 1: "answer 2"}
    assert usage is not None
    assert usage.completion_tokens == 12


class Calling(ScriptedEngine):
    """Calls a tool, as a server tells calls apart from the text."""

    async def generate(
        self, prompt: Prompt, params: SamplingParams, seed: int | None = None
    ) -> Completion:
        city = "Bonn, " * 30 + "Köln"
        call = {"name": "weather", "arguments": json.dumps({"city": city}, ensure_ascii=False)}
        calls = [{"id": "call_1", "type": "function", "function": call}]
        usage = Usage(prompt_tokens=10, generated_tokens=5)
        return Completion("Let me look.", None, "stop", [1], [-0.5], usage, tool_calls=calls)


def test_a_tool_call_streams_and_is_parsed_by_the_client() -> None:
    with served(Calling(), First()) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0)
        whole = client.chat.completions.create(
            model="model",
            messages=ASKED,
            tools=[TOOL],  # type: ignore[list-item, arg-type]
        )
        with client.chat.completions.stream(
            model="model",
            messages=ASKED,
            tools=[TOOL],  # type: ignore[list-item, arg-type]
        ) as stream:
            for _ in stream:
                pass
            final = stream.get_final_completion()
    for completion in (whole, final):
        choice = completion.choices[0]
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content == "Let me look."
        (call,) = choice.message.tool_calls or []
        assert (call.id, call.type) == ("call_1", "function")
        assert call.function.name == "weather"
        assert json.loads(call.function.arguments)["city"].endswith("Köln")
