"""The engine for servers, against servers as there are many: strict, new, half compatible."""

import asyncio
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from mock_server import ABOUT_TAGS, BEYOND, FRUITS, MockServer, refused
from typer.testing import CliRunner, Result

from bestofn import BestOfN
from bestofn.cli import app
from bestofn.engines.base import Completion, Engine, SamplingParams, load_engine
from bestofn.engines.openai import OpenAIEngine
from bestofn.errors import ConfigError, EngineError
from bestofn.prompts import as_prompt
from bestofn.rewards.baselines import Longest

Load = Callable[..., OpenAIEngine]
KEY = "sk-proj-0123456789abcdef"


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[MockServer]:
    for name in ("OPENAI_API_KEY", "ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    with MockServer() as server:
        yield server


def ask(spec: str, *arguments: str, reward: str = "flip") -> Result:
    command = ["ask", "Name 4 fruits.", "--engine", spec, "-n", "2", "--seed", "1"]
    return CliRunner().invoke(app, [*command, "--reward", reward, *arguments])


def chosen(spec: str, *arguments: str, code: int = 0) -> dict[str, Any]:
    """The selection that `ask` prints."""
    result = ask(spec, "--json", *arguments)
    assert result.exit_code == code, result.output
    selection = json.loads(result.stdout)
    assert isinstance(selection, dict)
    return selection


@pytest.fixture
def load() -> Iterator[Load]:
    """`load_engine`, of which each engine is closed."""
    engines: list[OpenAIEngine] = []

    def load(spec: str, **options: Any) -> OpenAIEngine:
        engine = load_engine(spec, **options)
        assert isinstance(engine, OpenAIEngine)
        engines.append(engine)
        return engine

    yield load
    for engine in engines:
        engine.close()


def generate(
    engine: Engine, params: SamplingParams | None = None, seed: int | None = None
) -> Completion:
    return asyncio.run(engine.generate(as_prompt("hello"), params or SamplingParams(), seed))


def own(warned: Any) -> list[str]:
    return [str(warning.message) for warning in warned if warning.category is UserWarning]


def sampling_of(body: dict[str, Any]) -> dict[str, Any]:
    named = ("temperature", "top_p", *BEYOND, "repeat_penalty")
    return {name: body[name] for name in named if name in body}


# --- sampling as it was asked for -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("plain", {"top_k": 0, "min_p": 0, "repetition_penalty": 1}),
        ("vllm", {"top_k": 0, "min_p": 0, "repetition_penalty": 1}),
        ("sglang", {"top_k": -1, "min_p": 0, "repetition_penalty": 1}),
        ("llamacpp", {"top_k": 0, "min_p": 0, "repeat_penalty": 1}),
    ],
)
def test_what_does_nothing_is_sent_as_the_server_spells_it(
    servers: MockServer, mode: str, expected: dict[str, float]
) -> None:
    """Else many servers take the values from the model's generation_config.json."""
    chosen(servers.spec(mode))
    for body in servers.bodies[mode]:
        assert sampling_of(body).items() >= expected.items()
        assert len(sampling_of(body)) == 5


def test_the_neutral_top_k_is_spelt_as_the_refusal_says(servers: MockServer, load: Load) -> None:
    engine = load(servers.spec("litellm"))
    assert [generate(engine).text for _ in range(2)] == [FRUITS] * 2
    assert [body["top_k"] for body in servers.bodies["litellm"]] == [0, -1, -1]


@pytest.mark.parametrize(
    ("mode", "requests"), [("plural", 2), ("pydantic", 2), ("singular", 4), ("groq", 4)]
)
def test_strict_servers_get_what_they_know(
    servers: MockServer, mode: str, requests: int, load: Load
) -> None:
    engine = load(servers.spec(mode))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # nothing that matters is left out
        assert generate(engine).text == FRUITS
        assert len(servers.bodies[mode]) == requests
        assert generate(engine.with_options(guided=True)).text == FRUITS
    assert len(servers.bodies[mode]) == requests + 1
    assert sampling_of(servers.bodies[mode][-1]) == {"temperature": 1, "top_p": 1}
    assert engine.stats.left_out == ("min_p=0.0", "repetition_penalty=1.0", "top_k=0")


@pytest.mark.parametrize("mode", ["plural", "pydantic", "singular", "groq"])
def test_what_is_asked_for_is_never_dropped(servers: MockServer, mode: str, load: Load) -> None:
    engine = load(servers.spec(mode))
    generate(engine)  # which learns that the server takes no top_k
    with pytest.raises(EngineError, match=r"top_k.*; leave out top_k=5"):
        generate(engine, SamplingParams(top_k=5))
    assert servers.bodies[mode][-1]["top_k"] == 5
    with pytest.raises(EngineError, match=r"top_k.*; leave out top_k=0"):
        generate(engine, SamplingParams(extra={"top_k": 0}))


def test_extra_fields_are_never_dropped(servers: MockServer, load: Load) -> None:
    engine = load(servers.spec("nopenalty"))
    with pytest.raises(EngineError, match=r"frequency_penalty.*; leave out frequency_penalty=0.5"):
        generate(engine, SamplingParams(extra={"frequency_penalty": 0.5}))
    assert len(servers.bodies["nopenalty"]) == 1


# --- servers of today -----------------------------------------------------------------------------


def test_the_limit_under_its_new_name(servers: MockServer, load: Load) -> None:
    engine = load(servers.spec("gpt5"))
    for view in (engine, engine.with_options(guided=True)):
        assert generate(view, SamplingParams(max_tokens=7)).text == FRUITS
    limits = [
        (body.get("max_tokens"), body.get("max_completion_tokens"))
        for body in servers.bodies["gpt5"]
    ]
    assert limits == [(7, None), (None, 7), (None, 7)]
    assert engine.stats.renamed == {"max_tokens": "max_completion_tokens"}
    generate(engine, SamplingParams(extra={"max_completion_tokens": 9}))
    assert servers.bodies["gpt5"][-1]["max_completion_tokens"] == 9


def test_a_limit_that_is_too_large_is_told(servers: MockServer, load: Load) -> None:
    servers.refuse["small"] = lambda body: refused(
        f"max_tokens is too large: {body.get('max_tokens')}. This model supports at most 5.",
        "max_completion_tokens" if "max_tokens" not in body else "max_tokens",
    )
    with pytest.raises(EngineError, match="supports at most 5"):
        generate(load(servers.spec("small")))


@pytest.mark.parametrize("mode", ["temp1", "gpt5full"])
def test_flip_where_only_temperature_1_is_taken(servers: MockServer, mode: str) -> None:
    with pytest.warns(UserWarning, match=r"temperature=0.0, so it is left out") as warned:
        selection = chosen(servers.spec(mode))
    assert len(own(warned)) == 1
    scores = [candidate["scores"]["flip"]["value"] for candidate in selection["candidates"]]
    assert scores == [1, 1]


def test_a_refused_value_says_nothing_of_others(servers: MockServer, load: Load) -> None:
    engine = load(servers.spec("temp1"))
    with pytest.warns(UserWarning, match="temperature"):
        generate(engine, SamplingParams(temperature=0))
    generate(engine, SamplingParams(temperature=1))
    assert servers.bodies["temp1"][-1]["temperature"] == 1
    assert engine.stats.left_out == ("temperature=0",)


def test_a_seed_that_is_not_taken_is_told_once(servers: MockServer, load: Load) -> None:
    engine = load(servers.spec("noseed"))
    with pytest.warns(UserWarning, match="seed, so it is left out: .* not reproducible") as warned:
        answers = [generate(engine, seed=seed).text for seed in (1, 2)]
    assert len(own(warned)) == 1
    assert answers == [FRUITS] * 2
    assert ["seed" in body for body in servers.bodies["noseed"]] == [True, False, False]
    assert engine.stats.left_out == ("seed",)


@pytest.mark.parametrize("mode", ["nologprobs", "nologprobs2"])
def test_logprobs_that_are_not_given(servers: MockServer, mode: str, load: Load) -> None:
    engine = load(servers.spec(mode))
    for _ in range(2):
        assert generate(engine).token_logprobs is None
    assert ["logprobs" in body for body in servers.bodies[mode]] == [True, False, False]


@pytest.mark.parametrize("mode", ["nomodels", "nomodels403", "barelist", "wildcard", "google"])
def test_lists_of_models_that_lack_the_named_one(servers: MockServer, mode: str) -> None:
    selection = chosen(servers.spec(mode))
    assert selection["text"] == FRUITS
    assert servers.bodies[mode][0]["model"] == "m"


@pytest.mark.parametrize(
    ("mode", "sentence"),
    [
        ("nomodels", "name the model, as .*no list of its models .Not Found"),
        ("nomodels403", "name the model, as .*listing models is not permitted"),
        ("wildcard", r"name one of the models .*it has openai/\*"),
        ("google", "name one of the models .*it has models/m, models/n"),
    ],
)
def test_no_model_is_named_and_none_is_listed(
    servers: MockServer, mode: str, sentence: str, load: Load
) -> None:
    with pytest.raises((ConfigError, EngineError), match=sentence):
        load(servers.spec(mode).removesuffix("#m"))


def test_the_only_model_of_a_bare_list(servers: MockServer, load: Load) -> None:
    assert load(servers.spec("barelist").removesuffix("#m")).model == "m"


def test_an_adapter_where_no_models_are_listed(servers: MockServer, load: Load) -> None:
    generate(load(servers.spec("nomodels")).with_options(lora="mine"))
    assert servers.bodies["nomodels"][0]["model"] == "mine"


# --- what is no answer ----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["lmstudio", "nov1"])
def test_a_url_without_v1(servers: MockServer, mode: str) -> None:
    result = ask(f"openai:{servers.root}/{mode}#m")
    assert result.exit_code == 2
    full = f"{servers.root}/{mode}/v1"
    assert f"API is at {full}; write openai:{full}#MODEL" in result.output
    assert len(servers.gets) == 2  # nothing was tried again


@pytest.mark.parametrize("path", ["/html/v1", "/html"])
def test_a_web_page_is_called_one(servers: MockServer, path: str) -> None:
    result = ask(f"openai:{servers.root}{path}#m")
    assert result.exit_code == 2
    assert "a web page ('Open WebUI') instead of JSON" in result.output
    assert len(servers.gets) <= 2


@pytest.mark.parametrize("endpoint", ["/chat/completions", "/completions", "/models", "/models/"])
def test_the_url_of_one_endpoint(endpoint: str, load: Load) -> None:
    with pytest.raises(ConfigError, match=r"one endpoint .* openai:http://host/v1#MODEL"):
        load(f"openai:http://host/v1{endpoint}#m")


def test_an_error_with_status_200_is_final(servers: MockServer, load: Load) -> None:
    with pytest.raises(EngineError, match=r"refuses \(402: Provider returned error: out of cred"):
        generate(load(servers.spec("err200")))
    assert len(servers.bodies["err200"]) == 1


@pytest.mark.parametrize("code", [429, "503"])
def test_an_error_with_status_200_that_may_pass(servers: MockServer, code: Any, load: Load) -> None:
    busy = (200, {"error": {"message": "upstream is busy", "code": code}})
    servers.refuse["busy"] = lambda body: busy if len(servers.bodies["busy"]) == 1 else None
    assert generate(load(servers.spec("busy"))).text == FRUITS


def test_an_error_as_a_text_or_an_object(servers: MockServer, load: Load) -> None:
    answers = {
        "text": {"error": "no such thing"},
        "object": {"object": "error", "message": "no such thing", "code": 400},
        "list": [{"error": {"message": "no such thing", "code": 400}}],
    }
    for mode, answer in answers.items():
        servers.refuse[mode] = lambda body, answer=answer: (400, answer)
        with pytest.raises(EngineError, match=r"refuses \(400: no such thing\)"):
            generate(load(servers.spec(mode)))


def test_a_spent_quota_is_not_waited_for(servers: MockServer, load: Load) -> None:
    with pytest.raises(EngineError, match=r"refuses \(429: You exceeded your current quota"):
        generate(load(servers.spec("quota")))
    assert len(servers.bodies["quota"]) == 1


def test_no_choices(servers: MockServer, load: Load) -> None:
    with pytest.raises(EngineError, match="failed 3 times, at last with JSON without usable 'ch"):
        generate(load(servers.spec("nochoices")))
    assert len(servers.bodies["nochoices"]) == 3


@pytest.mark.parametrize("mode", ["empty", "lostthink"])
def test_an_empty_answer_has_a_reason(servers: MockServer, mode: str) -> None:
    selection = chosen(servers.spec(mode), code=1)
    assert selection["text"] == ""
    for candidate in selection["candidates"]:
        assert candidate.get("error") is None
        assert candidate["scores"]["flip"]["reason"] == "empty response"


@pytest.mark.parametrize("mode", ["logprobsnull", "finishnull", "floatusage", "parts"])
def test_what_can_be_done_without(servers: MockServer, mode: str, load: Load) -> None:
    completion = generate(load(servers.spec(mode)))
    assert (completion.text, completion.finish_reason) == (FRUITS, "stop")
    assert completion.usage.prompt_tokens >= 0
    assert completion.token_logprobs is None


# --- reasoning ------------------------------------------------------------------------------------


def test_an_answer_about_the_tag_is_whole(servers: MockServer) -> None:
    assert chosen(servers.spec("think"))["text"] == ABOUT_TAGS


def test_what_the_server_has_split_is_not_split_again(servers: MockServer, load: Load) -> None:
    completion = generate(load(servers.spec("splitoff")))
    assert (completion.reasoning, completion.text) == ("hm", "<think>\nis a tag.")


CLOSING = ("hm\n</think>\n\nyes", "Close with:\n\n</reasoning>\n\nThat is all.")


@pytest.mark.parametrize("content", CLOSING)
def test_a_closing_tag_that_nothing_opened_cuts_nothing(
    servers: MockServer, content: str, load: Load
) -> None:
    message = {"content": content}
    servers.refuse["opened"] = lambda body: (200, {"choices": [{"message": message}]})
    with pytest.warns(UserWarning, match="start the server with a reasoning parser"):
        completion = generate(load(servers.spec("opened")))
    assert (completion.reasoning, completion.text) == (None, content)


# --- keys, headers, proxies -----------------------------------------------------------------------


def test_white_space_around_a_key_is_dropped(
    servers: MockServer, monkeypatch: pytest.MonkeyPatch, load: Load
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    generate(load(servers.spec("plain")))
    assert servers.keys == {f"Bearer {KEY}"}


@pytest.mark.parametrize("key", ["sk-first\nsk-second", "sk-\u201cquoted\u201d", "sk-\x00"])
def test_a_key_that_no_header_can_hold(
    servers: MockServer, monkeypatch: pytest.MonkeyPatch, key: str, load: Load
) -> None:
    if "\x00" not in key:  # which the environment cannot hold either
        monkeypatch.setenv("OPENAI_API_KEY", key)
        result = ask(servers.spec("plain"))
        assert result.exit_code == 2
        assert "the API key holds a character that HTTP headers cannot carry" in result.output
        assert "sk-" not in result.output
    with pytest.raises(ConfigError, match="the API key holds a character"):
        load(servers.spec("plain"), api_key=key)


@pytest.mark.parametrize(
    ("headers", "sentence"),
    [
        ({"X-Team": "a\nb"}, "the header X-Team holds a character"),
        ({"X Team": "a"}, "'X Team' is not the name of an HTTP header"),
        ({"X-Team": 5}, "the header 'X-Team' must be a text"),
    ],
)
def test_headers_that_cannot_be_sent(
    servers: MockServer, headers: dict[str, Any], sentence: str, load: Load
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load(servers.spec("plain"), headers=headers)


def test_headers_of_the_environment_that_cannot_be_sent(
    servers: MockServer, monkeypatch: pytest.MonkeyPatch, load: Load
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org\nid")
    with pytest.raises(ConfigError, match="the header OpenAI-Organization holds a character"):
        load(servers.spec("plain"))


@pytest.mark.parametrize("key", [KEY, "ken", "EMPTY"])
def test_no_message_holds_the_key_and_no_word_is_cut(
    servers: MockServer, key: str, load: Load
) -> None:
    with pytest.raises(EngineError) as raised:
        generate(load(servers.spec("echo"), api_key=key))
    assert "(400: unknown key Bearer (key); max_tokens=3)" in str(raised.value)


def test_no_message_holds_an_authorization_header(servers: MockServer, load: Load) -> None:
    with pytest.raises(EngineError) as raised:
        generate(load(servers.spec("echo"), headers={"Authorization": f"Basic {KEY}"}))
    assert KEY not in str(raised.value)
    assert "max_tokens=3" in str(raised.value)


def test_no_cause_of_an_error_repeats_the_key(servers: MockServer, load: Load) -> None:
    with pytest.raises(EngineError) as raised:
        generate(load(servers.spec("echo"), api_key=KEY))
    error: BaseException | None = raised.value
    while error is not None:
        assert KEY not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


@pytest.mark.parametrize("variable", ["ALL_PROXY", "HTTP_PROXY", "http_proxy"])
@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "http://127.0.0.1:9"])
def test_this_machine_is_reached_without_a_proxy(
    servers: MockServer, monkeypatch: pytest.MonkeyPatch, variable: str, proxy: str, load: Load
) -> None:
    monkeypatch.setenv(variable, proxy)
    assert generate(load(servers.spec("plain"))).text == FRUITS
    on_localhost = servers.spec("plain").replace("127.0.0.1", "localhost")
    assert generate(load(on_localhost)).text == FRUITS


def test_a_socks_proxy_without_its_package(
    servers: MockServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://user:secret@127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "socksio", None)
    result = ask("openai:http://server.invalid/v1#m")
    assert result.exit_code == 2
    assert "pip install socksio" in result.output
    assert "secret" not in result.output


def test_a_proxy_that_is_none(monkeypatch: pytest.MonkeyPatch, load: Load) -> None:
    monkeypatch.setenv("HTTP_PROXY", "ftp://127.0.0.1:9")
    with pytest.raises(ConfigError, match="the proxy in ALL_PROXY, HTTP_PROXY or HTTPS_PROXY"):
        load("openai:http://server.invalid/v1#m")


def test_a_proxy_that_does_not_answer_is_named(
    servers: MockServer, monkeypatch: pytest.MonkeyPatch, load: Load
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with pytest.raises(EngineError, match="through the proxy in HTTP_PROXY"):
        load("openai:http://server.invalid/v1#m")


def test_https_where_the_server_speaks_http(servers: MockServer) -> None:
    with pytest.raises(EngineError, match=r"no secure connection .*SSL.*; write http://"):
        load_engine(servers.spec("plain").replace("http:", "https:"))


# --- views ----------------------------------------------------------------------------------------


def test_a_view_with_other_template_options(servers: MockServer) -> None:
    options = ("--engine-option", "chat_template_kwargs={enable_thinking: false}")
    chosen(servers.spec("plain"), *options)
    for body in servers.bodies["plain"]:
        assert body["chat_template_kwargs"] == {"enable_thinking": False}


def test_views_that_there_are_not(servers: MockServer) -> None:
    result = ask(servers.spec("plain"), "--engine-option", "beam=3")
    assert result.exit_code == 2
    assert "the openai engine has no option beam" in result.output
    result = ask(servers.spec("plain"), "--engine-option", "chat_template_kwargs=no")
    assert result.exit_code == 2
    assert "chat_template_kwargs must be a mapping" in result.output


def test_many_candidates_learn_together(servers: MockServer, load: Load) -> None:
    engine = load(servers.spec("gpt5full"))
    best = BestOfN(engine, Longest(), n=20, sampling=SamplingParams(temperature=0))
    with pytest.warns(UserWarning, match="temperature=0") as warned:
        selection = best.select("hello")
    assert [candidate.error for candidate in selection.candidates] == [None] * 20
    assert len(own(warned)) == 1
