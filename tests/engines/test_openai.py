"""The engine for servers, against one that fails by script."""

import asyncio
import importlib
import math
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from fakes import Recorded
from faulty_server import CONTEXT, SPECIAL, FaultyServer, Key, seeded

from bestofn import BestOfN, EarlyRejection, concurrency
from bestofn.engines.base import Completion, Engine, SamplingParams, Watch, load_engine
from bestofn.engines.hf import TransformersEngine
from bestofn.engines.model_files import locate
from bestofn.engines.openai import OpenAIEngine
from bestofn.errors import ConfigError, ContextLengthError, EngineError
from bestofn.prompts import as_prompt
from bestofn.rewards.baselines import Longest
from bestofn.types import Candidate, Message, Prompt, Score

KINDS = ("429", "500", "503", "slow", "cut", "garbage", "page", "no_choices")
GREEDY = SamplingParams(temperature=0, max_tokens=8)
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


@contextmanager
def serving(server: FaultyServer, **options: Any) -> Iterator[OpenAIEngine]:
    """The engine; a busy machine may take a second for what should be at once."""
    with server:
        engine = load_engine(server.spec, **({"timeout": 5} | options))
        assert isinstance(engine, OpenAIEngine)
        try:
            yield engine
        finally:
            engine.close()


def always(kind: str) -> Callable[[Key, int], str]:
    return lambda key, attempt: kind


def generate(
    engine: Engine, text: str = "hello", params: SamplingParams = GREEDY, seed: int | None = None
) -> Any:
    return asyncio.run(engine.generate(as_prompt(text), params, seed))


def score(engine: Engine, text: str = "hello", continuation: str = "yes", **options: Any) -> Any:
    return asyncio.run(engine.loglikelihood(as_prompt(text), continuation, **options))


# --- failures -------------------------------------------------------------------------------------


def test_every_prompt_ends_with_its_candidates_or_a_reason() -> None:
    prompts = [f"prompt {number}" for number in range(200)]
    server = FaultyServer(seeded(0.3, KINDS))
    with serving(server, max_retries=2, timeout=4) as engine:
        best = BestOfN(engine, Longest(), n=2, seed=1)
        selections = list(best.select_many(prompts, progress=False))
    assert [selection.prompt.messages[-1].content for selection in selections] == prompts
    assert set(server.faults) == set(KINDS)
    failed = 0
    for selection, prompt in zip(selections, prompts, strict=True):
        assert [candidate.index for candidate in selection.candidates] == [0, 1]
        for candidate in selection.candidates:
            key = (prompt, candidate.seed)
            answered = candidate.error is None
            assert server.successes[key] == answered
            assert server.attempts[key] <= 3
            assert candidate.text == (f"answer to {prompt}" if answered else "")
            assert answered or "failed 3 times" in str(candidate.error)
            failed += not answered
    # 0.3 ** 3 of 400 are expected to fail in all three attempts.
    assert 2 < failed < 30


@pytest.mark.parametrize("kind", KINDS)
def test_each_fault_passes(kind: str) -> None:
    server = FaultyServer(lambda key, attempt: kind if attempt == 0 else None)
    with serving(server, timeout=0.5 if kind == "slow" else 5) as engine:
        assert generate(engine, seed=5).text == "answer to hello"
    assert server.attempts == {("hello", 5): 2}


@pytest.mark.parametrize(
    ("kind", "retries", "attempts", "message"),
    [
        ("slow", 0, 1, "no answer within 0.5 s"),
        ("cut", 0, 1, "a broken connection"),
        ("429", 0, 1, r"failed 1 times, at last with status 429 \(scripted"),
        # Unparseable answers are asked for three times, however many retries there are.
        ("garbage", 6, 3, "failed 3 times, at last with text that is not JSON"),
        ("page", 6, 3, r"a web page \('Open WebUI'\) instead of JSON"),
        ("no_choices", 6, 3, "JSON without usable 'choices'"),
        ("400", 6, 1, r"refuses \(400: scripted"),
        ("401", 6, 1, "OPENAI_API_KEY"),
        ("403", 6, 1, "allowed"),
        ("404", 6, 1, "model's name"),
    ],
)
def test_failures_are_named_and_repeated_where_that_may_help(
    kind: str, retries: int, attempts: int, message: str
) -> None:
    server = FaultyServer(always(kind))
    with (
        serving(server, max_retries=retries, timeout=0.5) as engine,
        pytest.raises(EngineError, match=message) as raised,
    ):
        generate(engine)
    assert "\n" not in str(raised.value)
    assert server.attempts.total() == attempts


@pytest.mark.parametrize(
    "options",
    [
        {"api_key": "secret-key"},
        {"api_key": " ken\n"},  # which is a part of "tokens"
        {"api_key": "x", "headers": {"Authorization": "Basic secret-key"}},
    ],
)
def test_no_message_holds_the_key(options: dict[str, Any]) -> None:
    server = FaultyServer(always("400"))
    with serving(server, **options) as engine, pytest.raises(EngineError) as raised:
        generate(engine)
    error: BaseException | None = raised.value
    assert "scripted for tokens of key" in str(error)
    assert "(key)" in str(error)
    while error is not None:
        assert not {"secret-key", "ken"}.intersection(str(error).split())
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_key_and_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with FaultyServer(key="right") as server:
        with pytest.raises(EngineError, match=r"wrong key.*; set OPENAI_API_KEY"):
            load_engine(server.spec)
        load_engine(server.spec, api_key="right", headers={"X-Team": "ours"}).close()
        monkeypatch.setenv("OPENAI_API_KEY", " right\n")
        load_engine(server.spec).close()
        for options, what in [
            ({"api_key": "sk-first\nsk-second"}, "the API key"),
            ({"api_key": "sk-\u201cquoted\u201d"}, "the API key"),
            ({"headers": {"X-Team": "sk-a\nb"}}, "the header 'X-Team'"),
            ({"headers": {"X Team": "sk-"}}, "the header 'X Team'"),
        ]:
            with pytest.raises(ConfigError, match=f"{what} holds a character") as raised:
                load_engine(server.spec, **options)
            assert "sk-" not in str(raised.value)
        monkeypatch.setenv("OPENAI_ORG_ID", "org\nid")
        with pytest.raises(ConfigError, match="the header 'OpenAI-Organization' holds"):
            load_engine(server.spec)
    assert any(headers.get("X-Team") == "ours" for headers in server.headers)


# --- requests at once -----------------------------------------------------------------------------


def test_concurrency_is_bounded_over_all_views_and_earliest_prompts_go_first() -> None:
    server = FaultyServer(delay=0.2)
    with serving(server, max_concurrency=5) as engine:
        views = [engine, engine.with_options(guided=True)]

        async def item(number: int) -> None:
            await asyncio.sleep(0.001 * (20 - number))  # later ones ask earlier
            await asyncio.gather(*(view.generate(as_prompt(str(number)), GREEDY) for view in views))

        list(concurrency.map_in_window(item, range(20), 20))
    assert server.most_running == 5
    assert server.successes.total() == 40
    order = [int(body["messages"][0]["content"]) for body in server.requests[5:]]
    assert all(abs(a - b) <= 3 for a, b in zip(order, sorted(order), strict=True))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def test_cancelling_closes_the_request() -> None:
    server = FaultyServer(always("slow"))
    with serving(server, timeout=60, max_concurrency=1) as engine:

        async def cancel() -> None:
            tasks = [asyncio.create_task(engine.generate(as_prompt("x"), GREEDY)) for _ in "ab"]
            await until(lambda: server.running == 1)
            for task in reversed(tasks):
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            await until(lambda: server.running == 0)

        asyncio.run(cancel())
        concurrency.run(cancel())
    assert server.aborted == server.attempts.total() == 2


def test_closed_engine_fails_at_once() -> None:
    server = FaultyServer(always("slow"))
    with serving(server, timeout=60) as engine:

        async def close_under_way() -> None:
            texts = [as_prompt(str(number)) for number in range(3)]
            tasks = [asyncio.create_task(engine.generate(text, GREEDY)) for text in texts]
            await until(lambda: server.running == 3)
            engine.close()
            for task in tasks:
                with pytest.raises(EngineError, match="closed"):
                    await task

        asyncio.run(close_under_way())
        with pytest.raises(EngineError, match="closed"):
            generate(engine.with_options())


# --- what is asked and what is answered -----------------------------------------------------------


def test_request_holds_what_was_asked_for() -> None:
    server = FaultyServer()
    params = SamplingParams(
        temperature=0.5, top_p=0.9, stop=("END",), max_tokens=7, json_schema=SCHEMA
    )
    with serving(server) as engine:
        prompt = Prompt((Message("system", "Be brief \ud83d."), Message("user", "hello")))
        asyncio.run(engine.generate(prompt, params, seed=3))
        extra = {"frequency_penalty": 0.5, "max_completion_tokens": 2}
        generate(engine, params=SamplingParams(top_k=5, min_p=0.1, extra=extra))
        with pytest.raises(ConfigError, match="n, stream"):
            generate(engine, params=SamplingParams(extra={"stream": True, "n": 2}))
    first, second = server.requests
    assert first == {
        "model": "model",
        "messages": [
            {"role": "system", "content": "Be brief \ufffd."},
            {"role": "user", "content": "hello"},
        ],
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "max_tokens": 7,
        "logprobs": True,
        "stop": ["END"],
        "seed": 3,
    }
    assert second.items() >= {"top_k": 5, "min_p": 0.1, **extra}.items()
    assert "max_tokens" not in second


def test_completion_and_usage() -> None:
    with serving(FaultyServer(vllm=True)) as engine:
        completion = generate(engine)
    assert completion.token_ids == [7, 8, 1001]
    assert completion.token_logprobs == [-0.5] * 3
    usage = completion.usage
    assert (usage.prompt_tokens, usage.cached_tokens, usage.generated_tokens) == (9, 4, 3)
    with serving(FaultyServer()) as engine:  # which names no tokens
        selection = BestOfN(engine, Longest(), n=1).select("hello")
    assert (selection.best.token_count, selection.best.mean_logprob) == (3, -0.5)


ABOUT_TAGS = "In HTML you would write `<think>` as &lt;think&gt;. That shows the tag."
PARTS = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "yes"}]


@pytest.mark.parametrize(
    ("message", "reasoning", "text"),
    [
        ({"content": "<think>hm</think>yes"}, "hm", "yes"),
        ({"content": "yes", "reasoning_content": "hm"}, "hm", "yes"),
        ({"content": None, "reasoning": " hm"}, "hm", ""),
        ({"content": " yes ", "reasoning": None}, None, " yes "),
        ({"content": "<think>\nis a tag.", "reasoning": "hm"}, "hm", "<think>\nis a tag."),
        ({"content": ABOUT_TAGS}, None, ABOUT_TAGS),
        ({"content": PARTS}, None, "yes"),
        ({"content": ""}, None, ""),
    ],
)
def test_reasoning(message: dict[str, Any], reasoning: str | None, text: str) -> None:
    with serving(FaultyServer(message=lambda _: message)) as engine:
        completion = generate(engine)
    assert (completion.reasoning, completion.text) == (reasoning, text)


@pytest.mark.parametrize(
    "content", ["hm\n</think>\n\nyes", "With:\n\n</reasoning>\n\nThat is all."]
)
def test_a_closing_tag_that_nothing_opened_cuts_nothing(content: str) -> None:
    with (
        serving(FaultyServer(message=lambda _: {"content": content})) as engine,
        pytest.warns(UserWarning, match="start the server with a reasoning parser"),
    ):
        completion = generate(engine)
    assert (completion.reasoning, completion.text) == (None, content)


def test_reasoning_that_the_template_opens() -> None:
    server = FaultyServer(vllm=True, thinks=True, message=lambda _: {"content": "hm, let me"})
    with serving(server) as engine:
        assert generate(engine).reasoning == "hm, let me"
        with pytest.raises(EngineError, match="enable_thinking"):
            score(engine)
        calm = engine.with_options(chat_template_kwargs={"think": False})
        assert generate(calm).text == "hm, let me"
        assert score(calm).token_ids == [*b"yes"]


@pytest.mark.parametrize(
    "changed",
    [
        lambda answer: answer["choices"][0].update(finish_reason=None, logprobs=None),
        lambda answer: answer["choices"][0].update(logprobs={"content": None}),
        lambda answer: answer.update(usage=None),
        lambda answer: answer.update(usage={"prompt_tokens": -1, "completion_tokens": 8}),
    ],
)
def test_what_can_be_done_without(changed: Callable[[dict[str, Any]], None]) -> None:
    with serving(FaultyServer(changed=changed)) as engine:
        completion = generate(engine)
    assert (completion.text, completion.finish_reason) == ("answer to hello", "stop")
    assert completion.usage.prompt_tokens >= 0


def test_an_answer_that_was_broken_off_is_an_error() -> None:
    server = FaultyServer(changed=lambda a: a["choices"][0].update(finish_reason="content_filter"))
    with serving(server) as engine, pytest.raises(EngineError, match="content_filter"):
        generate(engine)


def test_views() -> None:
    server = FaultyServer(vllm=True, models=("model", "some/adapter"))
    params = SamplingParams(max_tokens=8, json_schema=SCHEMA)
    with serving(server) as engine:
        view = engine.with_options(
            lora="some/adapter", guided=True, chat_template_kwargs={"think": False}
        )
        generate(view, params=params)
        generate(engine, params=params)
        assert view.context == CONTEXT
        with pytest.raises(ConfigError, match="no option beam"):
            engine.with_options(beam=3)
        with pytest.raises(ConfigError, match="no adapter 'other', only model, some/adapter"):
            engine.with_options(lora="other")
    own, plain = server.requests
    assert own["model"] == "some/adapter"
    assert own["response_format"]["type"] == "json_schema"
    assert own["response_format"]["json_schema"]["schema"] == SCHEMA
    assert own["chat_template_kwargs"] == {"think": False}
    assert plain["model"] == "model"
    assert {"response_format", "chat_template_kwargs"}.isdisjoint(plain)


# --- prompts that fit, and scores -----------------------------------------------------------------


def test_lengths_on_vllm() -> None:
    server = FaultyServer(vllm=True)
    with serving(server) as engine:
        generate(engine, "x" * 40, SamplingParams(max_tokens=60))
        assert [body["max_tokens"] for body in server.requests] == [60, CONTEXT - 42]
        with pytest.raises(ContextLengthError) as raised:
            generate(engine, "x" * 70)
        assert (raised.value.limit, raised.value.prompt_tokens) == (CONTEXT, 72)
        assert asyncio.run(engine.count_tokens(as_prompt("hello"))) == 7
        # A score leaves room for the token that the server adds.
        assert len(score(engine, "x" * 50, "y" * 11).token_ids) == 11
        with pytest.raises(ContextLengthError) as raised:
            score(engine, "x" * 50, "y" * 12)
        assert (raised.value.length, raised.value.prompt_tokens) == (65, 52)
    with serving(FaultyServer()) as engine:
        assert asyncio.run(engine.count_tokens(as_prompt("hello"))) is None


@pytest.mark.parametrize(
    ("reason", "tokens", "limit"),
    [
        ("context length is 8192 tokens. You requested 9000 (8500 in the messages, ", 8500, 8192),
        (
            "context length is 512 tokens, but the prompt contains at least 513 input tokens",
            513,
            512,
        ),
        (
            "context length of 4096 tokens. 4000 tokens from the input messages and 1000 ",
            4000,
            4096,
        ),
        ("The input (600 tokens) is longer than the context length (512 tokens).", 600, 512),
        ("context length is 512 tokens and your request has 100 input tokens", 100, 512),
    ],
)
def test_lengths_in_messages(reason: str, tokens: int, limit: int) -> None:
    server = FaultyServer(refuse=lambda body: (400, {"error": {"message": reason}}))
    with serving(server) as engine, pytest.raises(EngineError) as raised:
        generate(engine, params=SamplingParams(max_tokens=limit))
    if tokens >= limit:
        assert isinstance(raised.value, ContextLengthError)
        assert (raised.value.limit, raised.value.prompt_tokens) == (limit, tokens)
    else:  # cut to what fits, which this server refuses as well
        assert [body["max_tokens"] for body in server.requests] == [limit, limit - tokens]


@pytest.mark.parametrize("text", ["yes", "say <|end|> now", "<|end|><|end|>", "<think>", "a <b>"])
def test_scores(text: str) -> None:
    """A spelled control token stays text."""
    ids = [*text.encode()]
    with serving(FaultyServer(vllm=True)) as engine:
        scores = score(engine, "hello", text, close=True)
        assert scores.token_ids == [*ids, 1001]
        assert scores.token_logprobs == [-token / 1000 for token in scores.token_ids]
        assert (scores.usage.prompt_tokens, scores.usage.scored_tokens) == (7, len(ids) + 1)
        assert scores.complete
        beginning = score(engine, "hello", text, max_tokens=2)
        assert (beginning.token_ids, beginning.complete) == (ids[:2], False)
        with pytest.raises(ConfigError, match="empty"):
            score(engine, "hello", "")


@pytest.mark.parametrize("vllm", [False, True])
def test_a_tokenizer_on_this_machine(vllm: bool, tiny: TransformersEngine) -> None:
    prompt, text = as_prompt("Name 2 fruits."), "fig <|end|>"
    with serving(FaultyServer(vllm=vllm), tokenizer=locate("tiny")) as engine:
        count = asyncio.run(engine.count_tokens(prompt))
        assert count == asyncio.run(tiny.count_tokens(prompt))
        assert engine.control_tokens(text) == tiny.control_tokens(text)
        ids = score(tiny, "Name 2 fruits.", text, close=True).token_ids
        assert asyncio.run(engine.decode(prompt, ids)) == (None, text)
        if vllm:
            assert score(engine, "Name 2 fruits.", text, close=True).token_ids == ids


TAMPERINGS: dict[str, Callable[[list[Any]], Any]] = {
    "another token": lambda entries: [*entries[:-1], {"5": {"logprob": -1.0}}],
    "none": lambda entries: [*entries[:-1], None],
    "too short": lambda entries: entries[:-1],
    "too long": lambda entries: [*entries, entries[-1]],
    "shifted": lambda entries: [*entries[1:], entries[0]],
    "not finite": lambda entries: [*entries[:-1], {"115": {"logprob": math.nan}}],
    "a placeholder": lambda entries: [*entries[:-1], {"115": {"logprob": -9999.0}}],
}


@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_no_wrong_number_for_a_score(tampering: str) -> None:
    server = FaultyServer(vllm=True)
    with serving(server) as engine:
        assert score(engine).token_logprobs
        server.tampered = TAMPERINGS[tampering]
        with pytest.raises(EngineError, match=r"other tokens .* or of no finite value"):
            score(engine)


def test_servers_that_cannot_score(monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = r"cannot score .* no /tokenize; use FLIPReward"
    with serving(FaultyServer()) as engine, pytest.raises(EngineError, match=sentence):
        score(engine)
    server = FaultyServer(vllm=True)
    server.tampered = lambda entries: None
    with serving(server) as engine, pytest.raises(EngineError, match="no prompt_logprobs"):
        score(engine)
    monkeypatch.setitem(SPECIAL, 1001, "\n")  # a template that ends answers with no token
    sentence = r"load the engine with tokenizer='\.\.\.'"
    with serving(FaultyServer(vllm=True)) as engine, pytest.raises(EngineError, match=sentence):
        score(engine, close=True)


# --- loading --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000/v1",
        "http://",
        "ftp://host/v1",
        "http://host:port/v1",
        "http://host/v1?key=secret",
        "http://me:secret@host/v1",
        "http://host/v1/chat/completions",
        "http://host/v1/models/",
    ],
)
def test_a_wrong_url_is_refused_without_the_key_in_it(url: str) -> None:
    sentence = r"openai:http://HOST:PORT/v1#MODEL, with no endpoint .* OPENAI_API_KEY"
    with pytest.raises(ConfigError, match=sentence) as raised:
        load_engine(f"openai:{url}#model")
    assert "secret" not in str(raised.value)


def test_an_unreachable_server() -> None:
    with socket.socket() as listener:  # bound, but nobody listens
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        with pytest.raises(EngineError, match=f"no server answers at {url}; start it"):
            load_engine(f"openai:{url}#model")
    with FaultyServer() as server:
        with pytest.raises(EngineError, match=r"no secure connection .*SSL.*; write http://"):
            load_engine(server.spec.replace("http:", "https:"))
        with pytest.raises(ConfigError, match="max_concurrency must be at least 1"):
            load_engine(server.spec, max_concurrency=0)


@pytest.mark.parametrize("variable", ["ALL_PROXY", "HTTP_PROXY", "http_proxy"])
def test_proxies(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """None is used for this machine."""
    for name in ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setitem(sys.modules, "socksio", None)
    for proxy in ("socks5://user:secret@127.0.0.1:9", "http://127.0.0.1:9"):
        monkeypatch.setenv(variable, proxy)
        with FaultyServer() as server:
            for spec in (server.spec, server.spec.replace("127.0.0.1", "localhost")):
                assert generate(load_engine(spec)).text == "answer to hello"
    for proxy, sentence in [
        ("http://127.0.0.1:9", "no server answers .* the environment's proxy"),
        ("ftp://127.0.0.1:9", "the proxy in ALL_PROXY, HTTP_PROXY or HTTPS_PROXY is unusable"),
        ("socks5://user:secret@127.0.0.1:9", "pip install socksio"),
    ]:
        monkeypatch.setenv(variable, proxy)
        with pytest.raises((ConfigError, EngineError), match=sentence) as raised:
            load_engine("openai:http://server.invalid/v1#m")
        assert "secret" not in str(raised.value)


def test_without_the_client_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("bestofn.engines.openai")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ConfigError, match=r"pip install 'bestofn\[openai\]'"):
        importlib.import_module("bestofn.engines.openai")


# --- beginnings -----------------------------------------------------------------------------------

BEGUN = Prompt((Message("user", "hello"), Message("assistant", 'It was: "')))


@pytest.mark.parametrize(("vllm", "owner"), [(True, "vllm"), (False, "sglang")])
def test_a_server_that_can_goes_on_with_an_answer(vllm: bool, owner: str) -> None:
    server = FaultyServer(vllm=vllm, owner=owner)
    with serving(server) as engine:
        asyncio.run(engine.generate(BEGUN, GREEDY))
    (sent,) = server.requests
    assert sent["messages"][-1] == {"role": "assistant", "content": 'It was: "'}
    assert sent["continue_final_message"] is True
    assert sent["add_generation_prompt"] is False


def test_another_server_is_not_asked_to_go_on_with_an_answer() -> None:
    server = FaultyServer()
    with serving(server) as engine, pytest.raises(ConfigError, match="without `opening`"):
        asyncio.run(engine.generate(BEGUN, GREEDY))
    assert server.requests == []


def likeliest(answer: dict[str, Any]) -> None:
    named = {"7": -0.1, " 8": -2.5, "8": -9.0, "Well": -4.0}
    tops = [{"token": token, "logprob": logprob} for token, logprob in named.items()]
    entry = {"token": "7", "logprob": -0.1, "top_logprobs": tops}
    answer["choices"][0]["logprobs"] = {"content": [entry]}


def test_first_tokens_come_from_the_likeliest_that_a_server_names() -> None:
    server = FaultyServer(changed=likeliest)
    with serving(server) as engine:
        found = asyncio.run(engine.first_tokens(as_prompt("hello"), ["7", "8", "9"]))
        assert found.token_logprobs == [-0.1, -2.5, -9.0]  # the last one is not named
        assert found.token_ids == []
        with pytest.raises(EngineError, match="let the judge write its verdict"):
            asyncio.run(engine.first_tokens(as_prompt("hello"), ["A", "B"]))
    assert server.requests[0]["top_logprobs"] == 20
    assert server.requests[0]["max_tokens"] == 1


def test_tokens_that_may_be_the_beginning_of_another_answer_are_refused() -> None:
    """Where a tokenizer splits digits, the token "1" stands for 1 and for 10."""

    def digits(answer: dict[str, Any]) -> None:
        tops = [{"token": str(n), "logprob": -1.0 - n} for n in range(1, 10)]
        answer["choices"][0]["logprobs"] = {"content": [{"token": "1", "top_logprobs": tops}]}

    grades = [str(grade) for grade in range(1, 11)]
    with serving(FaultyServer(changed=digits)) as engine:
        assert asyncio.run(engine.first_tokens(as_prompt("hello"), grades[:9])).token_logprobs
        with pytest.raises(EngineError, match="may not tell '10' from its beginning"):
            asyncio.run(engine.first_tokens(as_prompt("hello"), grades))


def test_a_server_without_likeliest_tokens_says_so() -> None:
    with serving(FaultyServer()) as engine, pytest.raises(EngineError, match="top_logprobs"):
        asyncio.run(engine.first_tokens(as_prompt("hello"), ["7", "8"]))


# --- streamed answers -----------------------------------------------------------------------------


def with_logprobs(word: str) -> dict[str, Any]:
    """A piece as OpenAI's servers send it."""
    entry = {"token": word, "bytes": [*word.encode()], "logprob": -0.5}
    return {"delta": {"content": word}, "logprobs": {"content": [entry]}}


def with_ids(word: str) -> dict[str, Any]:
    """A piece as vLLM's server sends it, here a token for each word, its first letter."""
    return {"delta": {"content": word}, "token_ids": [ord(word[0])]}


LONG = {"content": "one two three four five"}


def watched(engine: OpenAIEngine, at: tuple[int, ...]) -> tuple[Completion, Watch, list[Any]]:
    seen: list[Any] = []
    watch = Watch(at, lambda count, begun: seen.append((count, begun)))
    work = engine.generate_watched(as_prompt("Count."), SamplingParams(), 1, watch)
    return asyncio.run(work), watch, seen


def test_a_streamed_answer_is_seen_on_the_way() -> None:
    server = FaultyServer(message=lambda _: LONG, pieces=with_logprobs)
    with serving(server) as engine:
        completion, watch, seen = watched(engine, (2, 4, 5, 9))
    assert (completion.text, completion.finish_reason) == (LONG["content"], "stop")
    assert completion.token_logprobs == [-0.5] * 5
    assert (completion.usage.prompt_tokens, completion.usage.generated_tokens) == (9, 5)
    # It ends with its fifth token, so of that there is no beginning.
    assert [(count, begun.text) for count, begun in seen] == [
        (2, "one two "),
        (4, "one two three four "),
    ]
    assert seen[0][1].token_logprobs == [-0.5] * 2
    assert watch.generated == 5
    assert server.requests[-1]["stream"] is True


def test_beginnings_are_read_from_token_ids_where_there_are_any() -> None:
    server = FaultyServer(vllm=True, message=lambda _: LONG, pieces=with_ids)
    with serving(server) as engine:
        completion, _, seen = watched(engine, (3,))
    assert completion.token_ids == [ord(c) for c in "ottff"]
    assert [(count, begun.text, begun.token_ids) for count, begun in seen] == [
        (3, "ott", [ord(c) for c in "ott"])
    ]


@pytest.mark.parametrize("pieces", [None, lambda word: {"delta": {"content": word}}])
def test_a_server_that_does_not_name_what_it_streams(pieces: Any) -> None:
    server = FaultyServer(message=lambda _: LONG, pieces=pieces)
    with serving(server) as engine, pytest.raises(ConfigError, match="does not stream"):
        watched(engine, (2,))


def test_an_answer_may_be_empty_but_must_end() -> None:
    with serving(FaultyServer(message=lambda _: {"content": ""}, pieces=with_logprobs)) as engine:
        completion, _, seen = watched(engine, (2,))
    assert (completion.text, completion.finish_reason, seen) == ("", "stop", [])
    server = FaultyServer(message=lambda _: LONG, pieces=with_logprobs, breaks="end")
    with serving(server) as engine, pytest.raises(EngineError, match="ended a stream"):
        watched(engine, (2,))


@pytest.mark.parametrize(("breaks", "said"), [("error", "out of memory"), ("json", "broke its")])
def test_a_stream_that_breaks_off_says_why(breaks: str, said: str) -> None:
    server = FaultyServer(message=lambda _: LONG, pieces=with_logprobs, breaks=breaks)
    with serving(server) as engine, pytest.raises(EngineError, match=said):
        watched(engine, (2,))


def test_reasoning_that_comes_apart_is_no_text() -> None:
    def thinking(word: str) -> dict[str, Any]:
        part = "reasoning_content" if word in ("one ", "two ") else "content"
        return with_logprobs(word) | {"delta": {part: word, "refusal": ""}}

    with serving(FaultyServer(message=lambda _: LONG, pieces=thinking)) as engine:
        completion, _, seen = watched(engine, (2, 4))
    assert (completion.reasoning, completion.text) == ("one two", "three four five")
    assert [begun.text for _, begun in seen] == ["", "three four"]


def test_a_stream_needs_no_slot_for_what_is_asked_about_it() -> None:
    server = FaultyServer(vllm=True, message=lambda _: LONG, pieces=with_ids)
    with serving(server, max_concurrency=1) as engine:
        assert [begun.text for _, begun in watched(engine, (3,))[2]] == ["ott"]


def test_a_refused_field_is_left_out_of_a_stream_too() -> None:
    def refuse(body: dict[str, Any]) -> Any:
        error = {"message": "unknown field stream_options", "param": "stream_options"}
        return (400, {"error": error}) if "stream_options" in body else None

    server = FaultyServer(message=lambda _: LONG, pieces=with_logprobs, refuse=refuse)
    with serving(server) as engine:
        completion = watched(engine, (2,))[0]
    assert (completion.text, completion.usage.generated_tokens) == (LONG["content"], 5)


def test_cancelling_ends_a_stream() -> None:
    server = FaultyServer(message=lambda _: LONG, pieces=with_logprobs, pause=0.2)

    async def cancelled(engine: OpenAIEngine) -> int:
        reached = asyncio.Event()
        loop = asyncio.get_running_loop()
        watch = Watch((1,), lambda *_: loop.call_soon_threadsafe(reached.set))
        work = engine.generate_watched(as_prompt("Count."), SamplingParams(), 1, watch)
        task = asyncio.create_task(work)
        await reached.wait()
        task.cancel()
        await asyncio.wait([task])
        return watch.generated

    with serving(server, max_concurrency=1) as engine:
        assert asyncio.run(cancelled(engine)) < 5
        for _ in range(100):
            if server.running == 0:
                break
            time.sleep(0.05)
        assert (server.running, server.aborted) == (0, 1)
        assert watched(engine, (2,))[0].text == LONG["content"]  # its slot is free again


def test_the_worst_are_ended_on_a_server() -> None:
    texts = {str(i): " ".join([str(i)] * 8) for i in range(4)}
    drawn = iter(texts.values())
    server = FaultyServer(
        message=lambda _: {"content": next(drawn)}, pieces=with_logprobs, pause=0.02
    )

    class First(Recorded):
        """The number that a response begins with."""

        async def score(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Score]:
            return [Score(float(candidate.text[0])) for candidate in candidates]

    with serving(server) as engine:
        rejection = EarlyRejection((3,), 0.5)
        best = BestOfN(engine, First(), n=4, reject=rejection)
        selection = best.select("Count.")
    assert selection.text == texts["3"]
    ended = [c for c in selection.candidates if c.finish_reason == "rejected"]
    assert sorted(c.text for c in ended) == ["0 0 0 ", "1 1 1 "]
