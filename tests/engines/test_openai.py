"""The engine for servers, against one that fails by script."""

import asyncio
import importlib
import math
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from faulty_server import CONTEXT, FaultyServer, Key, no_fault, seeded

from bestofn import BestOfN, FLIPReward, concurrency
from bestofn.engines.base import Engine, SamplingParams, load_engine
from bestofn.engines.hf import TransformersEngine
from bestofn.engines.model_files import locate
from bestofn.engines.openai import OpenAIEngine
from bestofn.errors import ConfigError, ContextLengthError, EngineError
from bestofn.prompts import as_prompt
from bestofn.rewards.baselines import Longest
from bestofn.types import Message, Prompt

KINDS = ("429", "500", "503", "slow", "cut", "garbage", "page", "no_choices")
# A busy machine may take a second for what should be at once: time-outs are meant to be scripted.
QUICK: dict[str, Any] = {"timeout": 5}
GREEDY = SamplingParams(temperature=0, max_tokens=8)
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


@contextmanager
def serving(server: FaultyServer, **options: Any) -> Iterator[OpenAIEngine]:
    with server:
        engine = load_engine(server.spec, **(QUICK | options))
        assert isinstance(engine, OpenAIEngine)
        try:
            yield engine
        finally:
            engine.close()


def always(kind: str) -> Callable[[Key, int], str]:
    return lambda key, attempt: kind


def at_first(kind: str) -> Callable[[Key, int], str | None]:
    return lambda key, attempt: kind if attempt == 0 else None


def generate(
    engine: Engine,
    text: str = "hello",
    params: SamplingParams = GREEDY,
    seed: int | None = None,
) -> Any:
    return asyncio.run(engine.generate(as_prompt(text), params, seed))


def score(engine: Engine, text: str = "hello", continuation: str = "yes", **options: Any) -> Any:
    return asyncio.run(engine.loglikelihood(as_prompt(text), continuation, **options))


def test_every_prompt_ends_with_its_candidates_or_a_reason() -> None:
    prompts = [f"prompt {number}" for number in range(500)]
    server = FaultyServer(seeded(0.3, KINDS))
    with serving(server, max_retries=2, timeout=8) as engine:
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
    # 0.3 ** 3 of 1000 are expected to fail in all three attempts.
    assert 5 < failed < 60
    assert len(server.attempts) == 1000


@pytest.mark.parametrize("kind", KINDS)
def test_each_fault_passes(kind: str) -> None:
    server = FaultyServer(at_first(kind))
    with serving(server, timeout=0.5 if kind == "slow" else 5) as engine:
        assert generate(engine, seed=5).text == "answer to hello"
    assert server.attempts == {("hello", 5): 2}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("slow", "no answer within 0.5 s"),
        ("cut", "a broken connection"),
        ("garbage", "text that is not JSON"),
        ("page", "a web page instead of JSON"),
        ("no_choices", "JSON without usable 'choices'"),
        ("429", r"status 429 \(too many requests\)"),
        ("500", r"failed 1 times, at last with status 500 \(scripted failure"),
    ],
)
def test_the_last_failure_is_named(kind: str, message: str) -> None:
    with (
        serving(FaultyServer(always(kind)), max_retries=0, timeout=0.5) as engine,
        pytest.raises(EngineError, match=message),
    ):
        generate(engine)


@pytest.mark.parametrize(
    ("status", "message"),
    [("400", "scripted"), ("401", "OPENAI_API_KEY"), ("403", "allowed"), ("404", "model's name")],
)
def test_what_cannot_pass_is_not_tried_again(
    status: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    server = FaultyServer(always(status))
    with serving(server) as engine:
        with pytest.raises(EngineError, match=message) as raised:
            generate(engine)
        assert "secret-key" not in engine.name
    assert "secret-key" not in str(raised.value)
    assert "\n" not in str(raised.value)
    assert server.attempts.total() == 1
    assert server.headers[0]["Authorization"] == "Bearer secret-key"


def test_key_and_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with FaultyServer(key="right") as server:
        with pytest.raises(EngineError, match=r"wrong key.*; set OPENAI_API_KEY"):
            load_engine(server.spec)
        load_engine(server.spec, api_key="right", headers={"X-Team": "ours"}).close()
    assert server.headers[-1]["X-Team"] == "ours"


def test_retry_after_is_honoured() -> None:
    server = FaultyServer(at_first("429"))
    server.retry_after = "0.4"
    with serving(server) as engine:
        generate(engine)
    first, second = server.times["hello", None]
    assert second - first >= 0.4


def test_concurrency_is_bounded_over_all_views() -> None:
    server = FaultyServer(delay=0.01)
    with serving(server, max_concurrency=5) as engine:
        views = [engine, engine.with_options(guided=True)]

        async def flood() -> None:
            prompts = [as_prompt(str(number)) for number in range(60)]
            await asyncio.gather(
                *(views[i % 2].generate(prompt, GREEDY) for i, prompt in enumerate(prompts))
            )

        asyncio.run(flood())
    assert server.most_running == 5
    assert server.successes.total() == 60


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def test_cancelling_closes_the_request() -> None:
    server = FaultyServer(always("slow"))
    with serving(server, timeout=60) as engine:

        async def cancel() -> None:
            task = asyncio.create_task(engine.generate(as_prompt("hello"), GREEDY))
            await until(lambda: server.running == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: server.running == 0)

        asyncio.run(cancel())
        concurrency.run(cancel())
    assert server.aborted == 2
    assert server.attempts.total() == 2


def test_calls_from_several_loops() -> None:
    with serving(FaultyServer(delay=0.02)) as engine:
        texts: list[str] = []
        threads = [
            threading.Thread(target=lambda: texts.append(generate(engine).text)) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert texts == ["answer to hello"] * 4


def test_closed_engine_fails_at_once() -> None:
    server = FaultyServer(always("slow"))
    with serving(server, timeout=60) as engine:

        async def close_under_way() -> None:
            tasks = [
                asyncio.create_task(engine.generate(as_prompt(str(number)), GREEDY))
                for number in range(3)
            ]
            await until(lambda: server.running == 3)
            engine.close()
            for task in tasks:
                with pytest.raises(EngineError, match="closed"):
                    await task

        asyncio.run(close_under_way())
        with pytest.raises(EngineError, match="closed"):
            generate(engine.with_options())
        engine.close()


def test_request_holds_what_was_asked_for() -> None:
    server = FaultyServer()
    params = SamplingParams(
        temperature=0.5, top_p=0.9, stop=("END",), max_tokens=7, json_schema=SCHEMA
    )
    with serving(server) as engine:
        prompt = Prompt((Message("system", "Be brief \ud83d."), Message("user", "hello")))
        asyncio.run(engine.generate(prompt, params, seed=3))
    assert server.requests == [
        {
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
    ]


def test_options_that_not_every_server_knows() -> None:
    server = FaultyServer()
    extra = {"frequency_penalty": 0.5, "min_tokens": 2}
    with serving(server) as engine:
        generate(engine, params=SamplingParams(top_k=5, min_p=0.1, extra=extra))
        with pytest.raises(ConfigError, match="n, stream"):
            generate(engine, params=SamplingParams(extra={"stream": True, "n": 2}))
    (sent,) = server.requests
    assert (sent["top_k"], sent["min_p"]) == (5, 0.1)
    assert (sent["frequency_penalty"], sent["min_tokens"]) == (0.5, 2)


def test_completion_and_usage() -> None:
    with serving(FaultyServer(vllm=True)) as engine:
        completion = generate(engine)
    assert completion.token_ids == [7, 8, 1001]
    assert completion.token_logprobs == [-0.5] * 3
    usage = completion.usage
    assert (usage.prompt_tokens, usage.cached_tokens, usage.generated_tokens) == (9, 4, 3)


def test_tokens_are_counted_where_they_are_not_named() -> None:
    with serving(FaultyServer()) as engine:
        selection = BestOfN(engine, Longest(), n=1).select("hello")
    assert selection.best.token_count == 3
    assert selection.best.mean_logprob == -0.5


@pytest.mark.parametrize(
    ("answer", "reasoning", "text"),
    [
        ({"content": "<think>hm</think>yes"}, "hm", "yes"),
        ({"content": "yes", "reasoning_content": "hm"}, "hm", "yes"),
        ({"content": None, "reasoning": " hm"}, "hm", ""),
        ({"content": " yes ", "reasoning": None}, None, " yes "),
    ],
)
def test_reasoning(answer: dict[str, Any], reasoning: str | None, text: str) -> None:
    with serving(FaultyServer(answer=lambda _: answer)) as engine:
        completion = generate(engine)
    assert (completion.reasoning, completion.text) == (reasoning, text)


def test_reasoning_that_the_template_opened_and_nothing_closed() -> None:
    server = FaultyServer(vllm=True, thinks=True, answer=lambda _: {"content": "hm, let me"})
    with serving(server) as engine:
        assert generate(engine).reasoning == "hm, let me"
        calm = engine.with_options(chat_template_kwargs={"think": False})
        assert generate(calm).text == "hm, let me"


def test_unfinished_answer_is_an_error() -> None:
    class Filtering(FaultyServer):
        def _completion(self, prompt: str, body: dict[str, Any]) -> dict[str, Any]:
            answer = super()._completion(prompt, body)
            answer["choices"][0]["finish_reason"] = "content_filter"
            return answer

    with serving(Filtering()) as engine, pytest.raises(EngineError, match="content_filter"):
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


def test_limit_is_cut_to_what_fits() -> None:
    server = FaultyServer(vllm=True)
    with serving(server) as engine:
        generate(engine, "x" * 40, SamplingParams(max_tokens=60))
    assert [request["max_tokens"] for request in server.requests] == [60, CONTEXT - 42]


def test_overlong_prompt_on_vllm() -> None:
    with serving(FaultyServer(vllm=True)) as engine, pytest.raises(ContextLengthError) as raised:
        generate(engine, "x" * 70)
    assert (raised.value.limit, raised.value.prompt_tokens) == (CONTEXT, 72)


def test_overlong_prompt_by_the_message() -> None:
    with (
        serving(FaultyServer(always("too_long"))) as engine,
        pytest.raises(ContextLengthError) as raised,
    ):
        generate(engine)
    assert (raised.value.limit, raised.value.prompt_tokens) == (100, 130)


@pytest.mark.parametrize(
    ("reason", "lengths"),
    [
        (
            "This model's maximum context length is 8192 tokens. However, you requested 9000 "
            "tokens (8500 in the messages, 500 in the completion).",
            (8500, 8192),
        ),
        (
            "This model's maximum context length is 512 tokens. However, your prompt contains at "
            "least 513 input tokens",
            (513, 512),
        ),
        (
            "Requested token count exceeds the model's maximum context length of 4096 tokens. You "
            "requested a total of 5000 tokens: 4000 tokens from the input messages and 1000 "
            "tokens for the completion.",
            (4000, 4096),
        ),
        (
            "The input (600 tokens) is longer than the model's context length (512 tokens).",
            (600, 512),
        ),
        (
            "max_tokens is too large: 500. This model's maximum context length is 512 tokens and "
            "your request has 100 input tokens",
            (100, 512),
        ),
    ],
)
def test_lengths_in_messages(reason: str, lengths: tuple[int, int]) -> None:
    prompt_tokens, limit = lengths
    server = FaultyServer(always("too_long"), refusal=reason)
    params = SamplingParams(max_tokens=limit)
    with serving(server) as engine, pytest.raises(EngineError) as raised:
        generate(engine, params=params)
    if prompt_tokens >= limit:
        assert isinstance(raised.value, ContextLengthError)
        assert (raised.value.limit, raised.value.prompt_tokens) == (limit, prompt_tokens)
    else:  # cut to what fits, which this server refuses as well
        assert [r["max_tokens"] for r in server.requests] == [limit, limit - prompt_tokens]


def test_scores() -> None:
    with serving(FaultyServer(vllm=True)) as engine:
        scores = score(engine, "hello", "yes", close=True)
        assert scores.token_ids == [*b"yes", 1001]
        assert scores.token_logprobs == [-token / 1000 for token in scores.token_ids]
        assert scores.complete
        assert (scores.usage.prompt_tokens, scores.usage.scored_tokens) == (7, 4)
        beginning = score(engine, "hello", "yes", close=True, max_tokens=2)
        assert beginning.token_ids == [*b"ye"]
        assert not beginning.complete
        with pytest.raises(ConfigError, match="empty"):
            score(engine, "hello", "")


def test_scores_leave_room_for_the_token_that_the_server_adds() -> None:
    with serving(FaultyServer(vllm=True)) as engine:
        assert len(score(engine, "x" * 50, "y" * 11).token_ids) == 11
        with pytest.raises(ContextLengthError) as raised:
            score(engine, "x" * 50, "y" * 12)
    assert (raised.value.length, raised.value.prompt_tokens) == (65, 52)


def test_tokens_of_a_prompt() -> None:
    with serving(FaultyServer(vllm=True)) as engine:
        assert asyncio.run(engine.count_tokens(as_prompt("hello"))) == 7
    with serving(FaultyServer()) as engine:
        assert asyncio.run(engine.count_tokens(as_prompt("hello"))) is None


@pytest.mark.parametrize("vllm", [False, True])
def test_a_tokenizer_on_this_machine(vllm: bool, tiny: TransformersEngine) -> None:
    server = FaultyServer(vllm=vllm)
    prompt = as_prompt("Name 2 fruits.")
    with serving(server, tokenizer=locate("tiny")) as engine:
        count = asyncio.run(engine.count_tokens(prompt))
        assert count == asyncio.run(tiny.count_tokens(prompt))
        assert engine.control_tokens("<|end|>") == tiny.control_tokens("<|end|>")
        ids = score(tiny, "Name 2 fruits.", "fig <|end|>", close=True).token_ids
        assert asyncio.run(engine.decode(prompt, ids)) == (None, "fig <|end|>")
        if vllm:
            scores = score(engine, "Name 2 fruits.", "fig <|end|>", close=True)
            assert scores.token_ids == ids
            assert scores.usage.prompt_tokens == count


def test_control_tokens_are_guessed_by_their_look() -> None:
    with serving(FaultyServer()) as engine:
        spelt = "<|im_end|> <|eot_id|></s>[/INST]<end_of_turn><think><｜User｜>"
        assert len(engine.control_tokens(spelt)) == 7
        assert engine.control_tokens("<b> a | b > c <|> </table> [INSTEAD] <|\n|>") == []


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


def test_server_that_cannot_score() -> None:
    with (
        serving(FaultyServer()) as engine,
        pytest.raises(EngineError, match=r"cannot score .* no /tokenize; use FLIPReward"),
    ):
        score(engine)
    server = FaultyServer(vllm=True)
    server.tampered = lambda entries: None
    with serving(server) as engine, pytest.raises(EngineError, match="no prompt_logprobs"):
        score(engine)


def test_no_score_where_the_answer_starts_with_reasoning() -> None:
    with serving(FaultyServer(vllm=True, thinks=True)) as engine:
        with pytest.raises(EngineError, match="enable_thinking"):
            score(engine)
        calm = engine.with_options(chat_template_kwargs={"think": False})
        assert score(calm).token_ids == [*b"yes"]


def test_closing_token_by_name() -> None:
    with serving(FaultyServer(vllm=True), closing="<|answer|>") as engine:
        assert score(engine, close=True).token_ids == [*b"yes", 1000]
    with (
        serving(FaultyServer(vllm=True), closing="end") as engine,
        pytest.raises(EngineError, match="closing='end' is 3 tokens"),
    ):
        score(engine, close=True)


@pytest.mark.parametrize("text", ["say <|end|> now", "<|end|><|end|>", "<think>", "a <b> [C]"])
def test_text_that_spells_a_control_token_stays_text(text: str) -> None:
    with serving(FaultyServer(vllm=True)) as engine:
        assert score(engine, "hello", text).token_ids == [*text.encode()]
        assert score(engine, "hello", text, close=True).token_ids == [*text.encode(), 1001]


def test_no_closing_token_is_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("faulty_server").SPECIAL, 1001, "\n")
    with (
        serving(FaultyServer(vllm=True)) as engine,
        pytest.raises(EngineError, match=r"closing='\.\.\.'"),
    ):
        score(engine, close=True)


@pytest.mark.parametrize(
    "spec",
    [
        "localhost:8000/v1#model",
        "http://#model",
        "ftp://host/v1#model",
        "http://host:port/v1#model",
        "http://host/v1?key=secret#model",
        "http://me:secret@host/v1#model",
    ],
)
def test_a_wrong_url_is_refused_without_the_key_in_it(spec: str) -> None:
    with pytest.raises(ConfigError, match=r"openai:http://HOST:PORT/v1#MODEL") as raised:
        load_engine(f"openai:{spec}")
    assert "secret" not in str(raised.value)
    assert ("OPENAI_API_KEY" in str(raised.value)) == ("secret" in spec)


@pytest.mark.parametrize("option", ["max_concurrency", "max_retries"])
def test_wrong_options(option: str) -> None:
    with pytest.raises(ConfigError, match=f"{option} must be at least"):
        load_engine("openai:http://host/v1#model", **{option: -1})


def test_unreachable_server() -> None:
    with socket.socket() as listener:  # bound, but nobody listens
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        with pytest.raises(EngineError, match=f"no server answers at {url}; start it"):
            load_engine(f"openai:{url}#model")


def test_which_model() -> None:
    with FaultyServer(models=("first", "second")) as server:
        assert load_engine(f"openai:{server.url}#second").context is None
        with pytest.raises(EngineError, match=r"has no model 'third'; it has first, second"):
            load_engine(f"openai:{server.url}#third")
        with pytest.raises(ConfigError, match=r"name one of the models .* first, second"):
            load_engine(f"openai:{server.url}")
        with pytest.raises(ConfigError, match=r"API is at http://.*/v1; write openai:http"):
            load_engine(f"openai:{server.url.removesuffix('/v1')}#first")
    with FaultyServer(models=("only", "an/adapter"), vllm=True) as server:
        assert load_engine(f"openai:{server.url}").context == CONTEXT
        engine = load_engine(f"openai:{server.url}#an/adapter", template="direct")
        assert (engine.default_template, engine.context) == ("direct", CONTEXT)


def test_without_the_client_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("bestofn.engines.openai")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ConfigError, match=r"pip install 'bestofn\[openai\]'"):
        importlib.import_module("bestofn.engines.openai")


def test_flip_reward_on_a_server() -> None:
    content = '{"reasoning": "a greeting", "instruction": "say hello"}'
    with serving(FaultyServer(no_fault, answer=lambda _: {"content": content})) as engine:
        selection = BestOfN(engine, FLIPReward(engine), n=2).select("say hello")
    assert [score.value for score in selection.scores] == [1.0, 1.0]
    assert isinstance(engine, Engine)
