"""Clients that people use, against the embedded model, and a real one on vLLM."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from served import ASKED, Served, served

from bestofn import FLIPLikelihood, FLIPReward, load_engine
from bestofn.engines.hf import TransformersEngine

ASKED_OF_REAL = [{"role": "user", "content": "What is the capital of France?"}]
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Bonn", "Paris", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": CITY}}


@pytest.fixture(scope="module")
def server(tiny: TransformersEngine) -> Iterator[Served]:
    rewards = FLIPLikelihood(tiny), FLIPReward(tiny)
    with served(tiny, *rewards, max_tokens=40) as found:
        yield found


@pytest.fixture(scope="module")
def real(smollm2: str) -> Iterator[Served]:
    from serving import require_vllm

    require_vllm()
    engine = load_engine(f"vllm:{smollm2}", max_model_len=1024, kv_cache_memory_bytes=1 << 29)
    with served(engine, FLIPLikelihood(engine), n=2, max_tokens=16) as found:
        yield found
    engine.close()


def check_openai(server: Served, asked: Any) -> None:
    """The synchronous and the asynchronous client, whole and as a stream."""
    given: Any = {"model": "model:best-of-3", "messages": asked, "seed": 5, "max_tokens": 16}
    connection: Any = {"base_url": f"{server.url}/v1", "api_key": "none", "max_retries": 0}
    client = openai.OpenAI(**connection)
    assert "model" in [model.id for model in client.models.list()]
    whole = client.chat.completions.create(**given)
    text = whole.choices[0].message.content
    assert text
    assert whole.model_extra is not None
    assert whole.model_extra["bestofn"]["n"] == 3

    usage = {"include_usage": True}
    chunks = list(client.chat.completions.create(**given, stream=True, stream_options=usage))
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == text
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens  # type: ignore[union-attr]

    async def ask() -> tuple[Any, str]:
        async with openai.AsyncOpenAI(**connection) as own:
            answer = await own.chat.completions.create(**given)
            stream = await own.chat.completions.create(**given, stream=True)
            parts = [c.choices[0].delta.content or "" async for c in stream if c.choices]
        return answer.choices[0].message.content, "".join(parts)

    assert asyncio.run(ask()) == (text, text)
    with pytest.raises(openai.BadRequestError, match="unknown key 'nonsense'"):
        client.chat.completions.create(**given, extra_body={"nonsense": 1})


def test_openai(server: Served) -> None:
    check_openai(server, ASKED)


def check_curl(server: Served, asked: Any) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not on this machine")
    body = json.dumps({"model": "model", "messages": asked, "bestofn": {"n": 2}})
    command = [curl, "-sS", f"{server.url}/v1/chat/completions", "--json", body]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert answer["bestofn"]["n"] == 2
    body = json.dumps({"model": "model", "messages": asked, "stream": True})
    command = [curl, "-sSN", f"{server.url}/v1/chat/completions", "--json", body]
    stream = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert stream.startswith(": 0 of ")
    assert stream.endswith("data: [DONE]\n\n")


def test_curl(server: Served) -> None:
    check_curl(server, ASKED)


def check_langchain(server: Served, question: str) -> None:
    chat = pytest.importorskip("langchain_openai").ChatOpenAI
    model = chat(base_url=f"{server.url}/v1", api_key="none", model="model", seed=3, max_retries=0)
    answer = model.invoke(question)
    assert answer.content
    assert answer.usage_metadata["output_tokens"] > 0
    assert "".join(chunk.content for chunk in model.stream(question)) == answer.content
    assert [answer.content for answer in model.batch([question] * 3)] == [answer.content] * 3


def test_langchain(server: Served) -> None:
    check_langchain(server, "Name 3 fruits.")


def check_lm_eval(server: Served, folder: Path, question: str, answer: str) -> dict[str, Any]:
    """A task of two items, by the harness's own command."""
    pytest.importorskip("lm_eval")
    rows = [{"question": question, "answer": answer}] * 2
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "task": "small",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 24, "temperature": 1.0},
        "metric_list": [{"metric": "exact_match", "ignore_case": True}],
    }
    (folder / "small.yaml").write_text(json.dumps(task))
    arguments = {
        "--model": "local-chat-completions",
        "--model_args": f"model=model,base_url={server.url}/v1/chat/completions,max_retries=1",
        "--tasks": "small",
        "--include_path": str(folder),
        "--output_path": str(folder / "results"),
    }
    named = [part for argument in arguments.items() for part in argument]
    done = subprocess.run(
        [sys.executable, "-m", "lm_eval", *named, "--apply_chat_template", "--log_samples"],
        cwd=folder,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (results,) = (folder / "results").rglob("results_*.json")
    found: dict[str, Any] = json.loads(results.read_text())
    assert found["n-samples"]["small"]["effective"] == 2
    (samples,) = (folder / "results").rglob("samples_small_*.jsonl")
    answers = [json.loads(line)["resps"][0][0] for line in samples.read_text().splitlines()]
    assert all(answers)
    return found


def test_lm_eval(server: Served, tmp_path: Path) -> None:
    check_lm_eval(server, tmp_path, "Spell the word plum backwards.", "mulp")
    assert server.metric('bestofn_candidates_total{outcome="drawn"}') >= 8


@pytest.mark.real
def test_all_of_them_with_a_real_model(real: Served, tmp_path: Path) -> None:
    check_openai(real, ASKED_OF_REAL)
    check_curl(real, ASKED_OF_REAL)
    check_langchain(real, "What is the capital of France?")
    check_lm_eval(real, tmp_path, "What is the capital of France?", "Paris")
    client = openai.OpenAI(base_url=f"{real.url}/v1", api_key="none", max_retries=0)
    answer = client.chat.completions.create(
        model="model",
        messages=ASKED_OF_REAL,  # type: ignore[arg-type]
        tools=[WEATHER],  # type: ignore[list-item]
        tool_choice="required",
        max_tokens=60,
    )
    (call,) = (answer.choices[0].message.tool_calls or [])[:1]
    assert call.function.name == "weather"  # type: ignore[union-attr]
    assert json.loads(call.function.arguments)["city"] in CITY["properties"]["city"]["enum"]  # type: ignore[union-attr, index]
