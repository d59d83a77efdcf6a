"""The engine for servers, against servers as there are many: strict, new, half compatible."""

import warnings
from typing import Any

import pytest
from faulty_server import PAGE, Body, FaultyServer, Response
from test_openai import generate, serving

from bestofn import BestOfN, FLIPReward
from bestofn.engines.base import SamplingParams, load_engine
from bestofn.errors import ConfigError, EngineError

BEYOND = ("top_k", "min_p", "repetition_penalty")
PLAIN = SamplingParams()
INFERRED = '{"reasoning": "a greeting", "instruction": "say hello"}'


def refused(message: str, param: str | None = None, status: int = 400, **more: Any) -> Response:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": None}
    return status, {"error": error | more}


def extra_inputs(names: list[str]) -> Response:
    """As pydantic refuses fields; it repeats the request."""
    found = [
        {"loc": ["body", name], "msg": "Extra inputs are not permitted", "input": {"seed": 1}}
        for name in names
    ]
    return 422, {"detail": found}


# How a server names the fields that it does not know: all at once, or the first alone.
STRICT = {
    "plural": lambda names: refused(f"Unrecognized request arguments supplied: {', '.join(names)}"),
    "pydantic": extra_inputs,
    "singular": lambda names: refused(f"Unknown parameter: '{names[0]}'.", names[0]),
    "groq": lambda names: refused(f"property '{names[0]}' is unsupported"),
}


def strict(mode: str, *unknown: str) -> FaultyServer:
    def refuse(body: Body) -> Response | None:
        names = [name for name in unknown or BEYOND if name in body]
        return STRICT[mode](names) if names else None

    return FaultyServer(refuse=refuse)


def no_old_limit(body: Body) -> Response | None:
    said = "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    return refused(f"Unsupported parameter: {said}", "max_tokens") if "max_tokens" in body else None


def only_temperature_1(body: Body) -> Response | None:
    said = "'temperature' does not support 0.0 with this model. Only 1 is supported."
    other = body.get("temperature", 1) != 1
    return refused(f"Unsupported value: {said}", "temperature") if other else None


def no_zero_top_k(body: Body) -> Response | None:
    said = "top_k must be -1 (disable), or at least 1, got 0."
    return refused(said) if body.get("top_k") == 0 else None


def told(warned: Any) -> list[str]:
    return [str(warning.message) for warning in warned if warning.category is UserWarning]


# --- fields that are not taken --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "top_k", "penalty"),
    [
        ("vllm", 0, "repetition_penalty"),
        ("sglang", -1, BEYOND[2]),
        ("llamacpp", 0, "repeat_penalty"),
    ],
)
def test_what_does_nothing_is_sent_as_the_server_spells_it(
    owner: str, top_k: int, penalty: str
) -> None:
    """Else many servers take the values from the model's generation_config.json."""
    refuse = no_zero_top_k if owner == "sglang" else lambda body: None
    server = FaultyServer(owner=owner, refuse=refuse)
    with serving(server) as engine:
        generate(engine, params=PLAIN)
        generate(engine.with_options(guided=True), params=PLAIN)
    expected = {"temperature": 1, "top_p": 1, "top_k": top_k, "min_p": 0, penalty: 1}
    assert len(server.requests) == (3 if owner == "sglang" else 2)
    for body in server.requests[-2:]:
        assert body.items() >= expected.items()


@pytest.mark.parametrize(
    ("mode", "requests"), [("plural", 2), ("pydantic", 2), ("singular", 4), ("groq", 4)]
)
def test_strict_servers_get_what_they_know(mode: str, requests: int) -> None:
    server = strict(mode)
    with serving(server) as engine:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # nothing that matters is left out
            generate(engine, params=PLAIN)
            assert len(server.requests) == requests
            generate(engine.with_options(guided=True), params=PLAIN)
        assert len(server.requests) == requests + 1
        assert not {*BEYOND}.intersection(server.requests[-1])
        assert engine.stats.left_out == ("min_p=0.0", "repetition_penalty=1.0", "top_k=0")
        for params, value in [
            (SamplingParams(top_k=5), 5),
            (SamplingParams(extra={"top_k": 0}), 0),
        ]:
            with pytest.raises(EngineError, match=rf"top_k.*; leave out top_k={value}"):
                generate(engine, params=params)
            assert server.requests[-1]["top_k"] == value


def test_the_limit_under_its_new_name() -> None:
    server = FaultyServer(refuse=no_old_limit)
    with serving(server) as engine:
        for view in (engine, engine.with_options(guided=True)):
            generate(view, params=SamplingParams(max_tokens=7))
        assert engine.stats.renamed == {"max_tokens": "max_completion_tokens"}
    limits = [(b.get("max_tokens"), b.get("max_completion_tokens")) for b in server.requests]
    assert limits == [(7, None), (None, 7), (None, 7)]


def test_a_limit_that_is_too_large_is_reported() -> None:
    said = "max_tokens is too large. This model supports at most 5."
    server = FaultyServer(refuse=lambda body: refused(said, [*body][7]))
    with serving(server) as engine, pytest.raises(EngineError, match="supports at most 5"):
        generate(engine)


@pytest.mark.parametrize("new", [False, True])
def test_flip_where_only_temperature_1_is_taken(new: bool) -> None:
    def refuse(body: Body) -> Response | None:
        return (no_old_limit(body) if new else None) or only_temperature_1(body)

    server = FaultyServer(refuse=refuse, message=lambda _: {"content": INFERRED})
    with serving(server) as engine:
        with pytest.warns(UserWarning, match=r"temperature=0.0, so it is left out") as warned:
            selection = BestOfN(engine, FLIPReward(engine), n=20).select("say hello")
        assert len(told(warned)) == 1
        assert [score.value for score in selection.scores] == [1.0] * 20
        generate(engine, params=PLAIN)
        assert server.requests[-1]["temperature"] == 1  # a refused value says nothing of others
        assert engine.stats.left_out == ("temperature=0.0",)


def test_a_seed_that_is_not_taken_is_told_once() -> None:
    server = strict("pydantic", "seed")
    with serving(server) as engine:
        with pytest.warns(UserWarning, match="seed, so it is left out: .* not reproducible"):
            generate(engine, seed=1)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            generate(engine, seed=2)
        assert engine.stats.left_out == ("seed",)
    assert ["seed" in body for body in server.requests] == [True, False, False]


@pytest.mark.parametrize(
    "refusal",
    [
        refused("logprobs is not supported", "logprobs"),
        refused("You are not allowed to request logprobs from this model", status=403),
    ],
)
def test_logprobs_that_are_not_given(refusal: Response) -> None:
    server = FaultyServer(refuse=lambda body: refusal if body.get("logprobs") else None)
    with serving(server) as engine:
        for _ in range(2):
            assert generate(engine).token_logprobs is None
    assert ["logprobs" in body for body in server.requests] == [True, False, False]


# --- which model ----------------------------------------------------------------------------------

LISTS: list[tuple[Response, str | None]] = [
    (refused("Not Found", status=404), "Not Found.; name the model, as "),
    (refused("listing is not permitted", status=403), "is not permitted.; name the model, as "),
    ((200, [{"id": "m"}]), None),
    ((200, {"data": [{"id": "openai/*"}]}), r"name one of the models .*it has openai/\*"),
    ((200, {"data": [{"id": "models/m"}, {"id": "models/n"}]}), "name one of .*it has models/m, "),
    ((200, {"models": []}), "name one of .*it has none"),
]


@pytest.mark.parametrize(("listed", "sentence"), LISTS)
def test_lists_of_models_that_lack_the_named_one(listed: Response, sentence: str | None) -> None:
    with FaultyServer(models=("m",), listed=listed) as server:
        engine = load_engine(server.spec)
        if listed[0] != 200:  # no list, so that an adapter cannot be looked up
            engine = engine.with_options(lora="m")
        generate(engine)
        assert server.requests[0]["model"] == "m"
        if sentence is None:
            assert load_engine(server.spec.removesuffix("#m")).model == "m"
        else:
            with pytest.raises((ConfigError, EngineError), match=sentence):
                load_engine(server.spec.removesuffix("#m"))


def test_which_model() -> None:
    with FaultyServer(models=("first", "second")) as server:
        server.listed = (200, {"data": [{"id": "first"}, {"id": "second"}]})
        assert load_engine(f"openai:{server.url}#second").context is None
        with pytest.raises(EngineError, match=r"has no model 'third'; it has first, second"):
            load_engine(f"openai:{server.url}#third")
        with pytest.raises(ConfigError, match=r"name one of the models .* first, second"):
            load_engine(f"openai:{server.url}")
    with FaultyServer(models=("only", "an/adapter"), vllm=True) as server:
        assert load_engine(f"openai:{server.url}").context == 64
        engine = load_engine(f"openai:{server.url}#an/adapter", template="direct")
        assert (engine.default_template, engine.context) == ("direct", 64)


# --- what is no answer ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "elsewhere", [(404, {"detail": "Not Found"}), (200, {"error": "Unexpected endpoint (GET)"})]
)
def test_a_url_without_v1(elsewhere: Response) -> None:
    with FaultyServer(elsewhere=elsewhere) as server:
        with pytest.raises(ConfigError) as raised:
            load_engine(server.spec.replace("/v1", ""))
        assert f"API is at {server.url}; write openai:{server.url}#MODEL" in str(raised.value)
        assert len(server.headers) == 2  # nothing was tried again


@pytest.mark.parametrize("path", ["/v1", ""])
def test_a_web_page_is_called_one(path: str) -> None:
    with FaultyServer(listed=(200, PAGE), elsewhere=(200, PAGE)) as server:
        with pytest.raises(EngineError, match=r"a web page \('Open WebUI'\) instead of JSON"):
            load_engine(server.spec.replace("/v1", path))
        assert len(server.headers) <= 2


CREDITS = {"message": "Provider returned error: out of credits", "code": 402}
QUOTA = {"message": "You exceeded your current quota.", "code": "insufficient_quota"}


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (
            (200, {"choices": None, "error": CREDITS}),
            r"refuses \(402: Provider returned error: out",
        ),
        ((429, {"error": QUOTA}), r"refuses \(429: You exceeded your current quota\)"),
        ((400, {"error": "no such thing"}), r"refuses \(400: no such thing\)"),
        ((400, {"object": "error", "message": "no such thing"}), r"refuses \(400: no such thing\)"),
        ((400, [{"error": {"message": "no such thing"}}]), r"refuses \(400: no such thing\)"),
    ],
)
def test_errors_that_are_final(answer: Response, sentence: str) -> None:
    server = FaultyServer(refuse=lambda body: answer)
    with serving(server) as engine, pytest.raises(EngineError, match=sentence):
        generate(engine)
    assert len(server.requests) == 1


@pytest.mark.parametrize("code", [429, "503"])
def test_an_error_with_status_200_that_may_pass(code: Any) -> None:
    busy = (200, {"error": {"message": "upstream is busy", "code": code}})
    server = FaultyServer(refuse=lambda body: busy if len(server.requests) == 1 else None)
    with serving(server) as engine:
        assert generate(engine).text == "answer to hello"
