"""Chat completions: what an answer holds, what a request may say, and what is refused."""

from math import nan
from typing import Any

import pytest
from fakes import Recorded, ScriptedEngine
from served import served

from bestofn import BestOfN, FLIPLikelihood, SamplingParams
from bestofn.engines.hf import TransformersEngine
from bestofn.errors import ConfigError, EngineError
from bestofn.rewards.baselines import Longest
from bestofn.types import Prompt


def test_the_best_is_the_answer_and_says_how_it_was_chosen() -> None:
    with served() as server:
        status, body, headers = server.chat()
    assert status == 200
    (choice,) = body["choices"]
    assert choice["message"] == {"role": "assistant", "content": "answer 3", "refusal": None}
    assert choice["finish_reason"] == "stop"
    assert body["model"] == "model"
    assert body["object"] == "chat.completion"
    assert body["id"] == f"chatcmpl-{headers['x-request-id']}"
    # The prompt once, what all candidates wrote.
    assert body["usage"]["prompt_tokens"] == 10
    assert body["usage"]["completion_tokens"] == 4 * 3
    own = body["bestofn"]
    assert (own["n"], own["index"], own["indices"], own["reward"]) == (4, 3, [3], "recorded")
    assert own["scores"] == [0.0, 1.0, 2.0, 3.0]
    assert (own["tie"], own["fallback"], own["failures"]) == (False, False, [])
    assert own["usage"]["generated_tokens"] == 12
    assert "candidates" not in own


def test_the_same_as_in_process(tiny: TransformersEngine) -> None:
    best = BestOfN(tiny, FLIPLikelihood(tiny), n=3, seed=7)
    expected = best.select("Name 3 fruits.")
    with served(tiny, FLIPLikelihood(tiny)) as server:
        body = server.chat(seed=7, bestofn={"n": 3}, logprobs=True).body
    choice = body["choices"][0]
    assert choice["message"]["content"] == expected.text
    assert body["bestofn"]["index"] == expected.index
    assert body["bestofn"]["scores"] == pytest.approx(
        [score.value for score in expected.scores], abs=1e-4
    )
    entries = choice["logprobs"]["content"]
    assert "".join(entry["token"] for entry in entries) == expected.text
    assert sum(entry["logprob"] for entry in entries) == pytest.approx(
        expected.best.sum_logprob, abs=1e-4
    )
    assert entries[0]["bytes"] == list(entries[0]["token"].encode())


def test_n_gives_the_best_by_rank() -> None:
    values = {"answer 0": 1.0, "answer 1": 3.0, "answer 2": nan, "answer 3": 2.0}
    with served(None, Recorded(values)) as server:
        body = server.chat(n=3).body
        few = server.chat(n=6).body
    assert [choice["message"]["content"] for choice in body["choices"]] == [
        "answer 1",
        "answer 3",
        "answer 0",
    ]
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert body["bestofn"]["indices"] == [1, 3, 0]
    assert body["bestofn"]["scores"][2] is None
    assert body["bestofn"]["failures"] == [{"index": 2, "reason": "failed"}]
    assert few["bestofn"]["n"] == 6  # as many are drawn as are wanted


def test_a_candidate_that_failed_is_no_choice() -> None:
    def answer(prompt: Prompt, params: SamplingParams, seed: int | None) -> str | Exception:
        return next(answers, EngineError("out of memory"))

    answers = iter(["answer 1", "answer 2"])
    with served(ScriptedEngine(answer)) as server:
        body = server.chat(n=4).body
    assert [choice["message"]["content"] for choice in body["choices"]] == ["answer 2", "answer 1"]
    assert [failure["reason"] for failure in body["bestofn"]["failures"]] == ["out of memory"] * 2


@pytest.mark.parametrize(
    ("fields", "n"),
    [
        ({}, 4),
        ({"model": "model:best-of-7"}, 7),
        ({"bestofn": {"n": 2}}, 2),
        ({"model": "model:best-of-7", "bestofn": {"n": 3}}, 3),
        ({"bestofn": {"budget_tokens": 3}, "max_tokens": 50}, 1),
        ({"bestofn": {"budget_tokens": 13}, "max_tokens": 5}, 3),  # of 3 tokens each: 2, then 1
        ({"bestofn": {"n": 1}}, 1),
    ],
)
def test_how_many_are_drawn(fields: dict[str, Any], n: int) -> None:
    with served() as server:
        assert server.chat(**fields).body["bestofn"]["n"] == n


def test_what_a_request_says_is_how_candidates_are_drawn() -> None:
    seen: list[tuple[Prompt, SamplingParams, int | None]] = []

    def answer(prompt: Prompt, params: SamplingParams, seed: int | None) -> str:
        seen.append((prompt, params, seed))
        return "answer 1"

    with served(ScriptedEngine(answer), system="Be brief.", temperature=0.7) as server:
        server.chat(
            top_p=0.5,
            stop="\n",
            max_completion_tokens=9,
            seed=1,
            messages=[{"role": "user", "content": [{"type": "text", "text": "Hi."}]}],
        )
        server.chat(
            max_tokens=8,
            stop=["a", "b"],
            parallel_tool_calls=False,
            response_format={"type": "json_object"},
            messages=[
                {"role": "developer", "content": "Be kind."},
                {"role": "user", "content": "Weather?"},
                {
                    "role": "assistant",
                    "content": None,
                    "refusal": None,
                    "tool_calls": [
                        {
                            "id": "1",
                            "type": "function",
                            "function": {"name": "w", "arguments": "{}"},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "1", "content": "20 C"},
            ],
        )
    prompt, params, seed = seen[0]
    assert [(turn.role, turn.content) for turn in prompt.messages] == [
        ("system", "Be brief."),
        ("user", "Hi."),
    ]
    assert (params.temperature, params.top_p, params.stop, params.max_tokens) == (
        0.7,
        0.5,
        ("\n",),
        9,
    )
    assert seed is not None
    assert len({seed for _, _, seed in seen[:4]}) == 4
    prompt, params, seed = seen[4]
    assert [turn.role for turn in prompt.messages] == ["developer", "user", "assistant", "tool"]
    assert (params.max_tokens, params.stop, seed) == (8, ("a", "b"), None)
    assert params.parallel_tool_calls is False
    assert params.json_schema == {"type": "object"}
    assert seen[0][1].parallel_tool_calls is True


def test_what_clients_send_without_meaning_anything() -> None:
    idle: dict[str, Any] = {
        "user": "ann",
        "store": False,
        "metadata": {"a": "b"},
        "service_tier": "auto",
        "tools": [],
        "stop": "",
        "logit_bias": None,
        "functions": None,
        "bestofn": None,
        "stream_options": {"include_usage": None},
    }
    history = [
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": None, "refusal": "No.", "annotations": []},
        {"role": "user", "content": "Please."},
    ]
    with served() as server:
        kind = {"content-type": "Application/JSON; charset=utf-8"}
        assert server.chat(kind, **idle, messages=history).status == 200
        assert server.get("/v1/models/model:best-of-4").body["id"] == "model:best-of-4"
        assert server.get("/v1/models/other").status == 404


def test_the_servers_n_gives_way_to_its_limit() -> None:
    with served(n=8, max_n=2) as server:
        assert server.chat().body["bestofn"]["n"] == 2


def test_rewards_and_selectors_by_name() -> None:
    texts = iter(["a", "b b", "b b", "c c c"] * 4)
    engine = ScriptedEngine(lambda *_: next(texts))
    with served(engine, Recorded({"a": 1.0}), Longest()) as server:
        assert server.chat().body["choices"][0]["message"]["content"] == "a"
        body = server.chat(bestofn={"reward": "longest", "candidates": True}).body
        assert body["choices"][0]["message"]["content"] == "c c c"
        assert [c["text"] for c in body["bestofn"]["candidates"]] == ["a", "b b", "b b", "c c c"]
        assert body["bestofn"]["candidates"][1]["scores"]["longest"]["value"] == 3.0
        voted = server.chat(bestofn={"selector": "majority"}).body
        assert voted["choices"][0]["message"]["content"] == "b b"


def test_early_rejection(tiny: TransformersEngine) -> None:
    with served(tiny, FLIPLikelihood(tiny), n=6) as server:
        body = server.chat(seed=2, bestofn={"reject": [2], "reject_keep": 0.5}).body
    reasons = [failure["reason"] for failure in body["bestofn"]["failures"]]
    assert 1 <= len(reasons) <= 3  # with ties all are kept
    assert all("rejected at 2 tokens" in reason for reason in reasons)


def test_reasoning_is_apart() -> None:
    with served(ScriptedEngine("answer 1", reasoning="Hm.")) as server:
        message = server.chat().body["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("answer 1", "Hm.")


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"tempperature": 1}, "tempperature", "did you mean 'temperature'?"),
    ({"chat_template_kwargs": {}}, "chat_template_kwargs", "unknown key"),
    ({"bestofn": {"N": 3}}, "bestofn.N", "unknown key"),
    ({"bestofn": {"n": 0}}, "bestofn.n", "greater than or equal to 1"),
    ({"bestofn": {"n": 65}}, "bestofn.n", "may be 1 to 64"),
    ({"model": "model:best-of-0"}, "bestofn.n", "may be 1 to 64"),
    ({"n": 5, "bestofn": {"n": 4}}, "n", "may be 1 to 4"),
    ({"n": "4"}, "n", "valid integer"),
    ({"temperature": -1}, "temperature", "at least 0"),
    ({"temperature": "warm"}, "temperature", "valid number"),
    ({"top_p": 0}, "top_p", "above 0"),
    ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
    ({"max_tokens": 10**9}, "max_tokens", "may be 1 to 4096"),
    ({"top_logprobs": 5}, "top_logprobs", "Input should be 0"),
    ({"messages": []}, "messages", "at least 1"),
    ({"messages": [{"role": "user", "content": " "}]}, "messages", "empty"),
    ({"messages": [{"role": "pilot", "content": "x"}]}, "messages", "role"),
    ({"messages": [{"role": "assistant", "content": "x"}]}, "messages", "last message"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        "messages",
        "only text",
    ),
    ({"bestofn": {"reward": "os:system"}}, "reward", "only 'recorded'"),
    ({"bestofn": {"selector": "os:system"}}, "bestofn.selector", "built-in"),
    ({"bestofn": {"reject": [2, 1]}}, "", "shows unfinished"),
    ({"response_format": {"type": "xml"}}, "response_format", "'json_schema'"),
    ({"tool_choice": "required"}, "tool_choice", "no tools"),
    ({"tools": [{"type": "function"}]}, "", "needs a name"),
]


@pytest.mark.parametrize(("fields", "param", "said"), REFUSED, ids=lambda value: str(value)[:30])
def test_what_cannot_be_done_is_refused_by_name(
    fields: dict[str, Any], param: str, said: str
) -> None:
    with served() as server:
        status, body, _ = server.chat(**fields)
        assert status == 400
        error = body["error"]
        assert error["type"] == "invalid_request_error"
        assert (error["param"] or "") == param
        assert said in error["message"]
        assert server.chat().status == 200


def test_another_model_is_not_found() -> None:
    with served() as server:
        status, body, _ = server.chat(model="gpt-9")
        listed = [model["id"] for model in server.get("/v1/models").body["data"]]
        assert all(server.chat(model=name).status == 200 for name in listed)
    assert status == 404
    assert body["error"]["code"] == "model_not_found"
    assert listed[:2] == ["model", "model:best-of-2"]
    assert len(listed) == 7


def test_a_prompt_that_is_too_long(tiny: TransformersEngine) -> None:
    long = [{"role": "user", "content": "a b " * 600}]
    with served(tiny, Longest()) as server:
        status, body, _ = server.chat(messages=long)
        assert server.chat().status == 200
    assert status == 400
    assert body["error"]["code"] == "context_length_exceeded"
    with served(tiny, Longest(), max_prompt_tokens=3) as server:
        assert server.chat().body["error"]["code"] == "context_length_exceeded"


def test_scores(tiny: TransformersEngine) -> None:
    flip = FLIPLikelihood(tiny)
    request = {
        "prompts": ["Name 3 fruits.", [{"role": "user", "content": "Name 2 animals."}]],
        "responses": [["apple, fig, plum", "wolf, bear"], "wolf, bear"],
    }
    with served(tiny, flip, Longest()) as server:
        body = server.post("/v1/score", request).body
        longest = server.post("/v1/score", request | {"reward": "longest"}).body
        uneven = server.post("/v1/score", request | {"responses": ["x"]})
        bad = server.post("/v1/score", request | {"prompts": ["", "x"]})
        empty = server.post("/v1/score", {"prompts": ["x"], "responses": [[""]]}).body
    right, wrong = body["data"][0]["scores"]
    assert right["value"] > wrong["value"]
    assert body["data"][1]["scores"][0]["value"] > wrong["value"]
    assert body["usage"]["scored_tokens"] > 0
    assert [score["value"] for score in longest["data"][0]["scores"]] == [16.0, 10.0]
    assert (uneven.status, bad.status) == (400, 400)
    assert empty["data"][0]["scores"][0] == {"value": None, "reason": "empty response"}


def test_metrics_count() -> None:
    with served(None, Recorded({"answer 0": 1.0, "answer 1": 1.0})) as server:
        server.chat()
        server.chat(n=9, model="other")
        assert server.metric('bestofn_candidates_total{outcome="drawn"}') == 4
        assert server.metric('bestofn_selections_total{outcome="tie"}') == 1
        assert server.metric('bestofn_tokens_total{kind="generated"}') == 12
        assert server.metric("bestofn_running") == 0
        count = 'bestofn_requests_total{path="/v1/chat/completions",status="404"}'
        assert server.metric(count) == 1


def test_a_generator_that_is_no_engine_is_refused() -> None:
    with (
        pytest.raises(ConfigError, match="only an engine can be served"),
        served(lambda prompt, n: ["a"] * n, Longest()),
    ):
        pass
