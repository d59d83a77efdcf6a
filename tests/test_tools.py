"""Tools and JSON by a schema: declared, called, checked, and candidates like any other."""

import json
from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import Any

import pytest
from fakes import Recorded, ScriptedEngine

from bestofn import BestOfN, SamplingParams
from bestofn.config import DrawConfig
from bestofn.dataset import select_dataset
from bestofn.dataset.export import Format, export
from bestofn.dataset.sources import read_prompts
from bestofn.engines.base import Completion
from bestofn.engines.hf import TransformersEngine
from bestofn.errors import ConfigError
from bestofn.prompts import answer_message, answer_text, as_prompt, as_turns, content_key
from bestofn.rewards.baselines import First, Longest
from bestofn.schemas import check_json, check_schema
from bestofn.selectors import Vote
from bestofn.store import pool
from bestofn.tools import as_calls, as_tools, calls_schema, read_calls
from bestofn.types import Candidate, Prompt, Selection

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": CITY}}
CLOCK = {"type": "function", "function": {"name": "clock"}}
TOOLS = as_tools([WEATHER, CLOCK])
ASKED = as_prompt("Weather in Bonn?", tools=TOOLS)


def hermes(name: str, **arguments: Any) -> str:
    call = json.dumps({"name": name, "arguments": arguments})
    return f"<tool_call>\n{call}\n</tool_call>"


def drawn(
    answers: Sequence[str], prompt: Prompt = ASKED, finish_reason: str = "stop", **params: Any
) -> Selection:
    """The selection among answers, by the reward that takes the first of those without a fault."""
    texts = iter(answers)
    engine = ScriptedEngine(lambda *_: next(texts), finish_reason=finish_reason)
    best = BestOfN(engine, First(), n=len(answers), sampling=SamplingParams(**params))
    return best.select(prompt)


# --- declarations ---------------------------------------------------------------------------------


def test_declarations() -> None:
    assert as_tools([WEATHER["function"]]) == as_tools([WEATHER]) == as_tools(json.dumps([WEATHER]))
    assert as_tools(None) == as_tools([]) == as_tools("[]") == ()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("nonsense", "a list"),
        ({"name": "x"}, "a list"),
        ([3], "tool 0"),
        ([WEATHER, {"type": "retrieval"}], "tool 1"),
        ([{"name": ""}], "a name"),
        ([{"name": "a b"}], "a name"),
        ([{"name": "x" * 65}], "a name"),
        ([{"name": "auto"}], "other than"),
        ([WEATHER, WEATHER], "two tools are called 'weather'"),
        ([{"name": "f", "parameters": {"type": "strin"}}], "no JSON schema"),
        ([{"name": "f", "parameters": 3}], "no JSON schema"),
        ([{"name": "f", "parameters": {"$ref": "file:///etc/passwd"}}], "no JSON schema"),
        ([{"name": "f", "parameters": {"$ref": "http://127.0.0.1:1/x"}}], "no JSON schema"),
    ],
)
def test_other_declarations_are_refused(value: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        as_tools(value)


# --- what models write ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rest", "count"),
    [
        (hermes("weather", city="Bonn"), "", 1),
        (f"Let me look. {hermes('weather', city='Bonn')}\n{hermes('clock')}", "Let me look.", 2),
        ('<tool_call>{"name": "weather", "arguments": {"city": "Bonn"}}', "", 1),
        ('[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Bonn"}}]', "", 1),
        ('[TOOL_CALLS]weather[ARGS]{"city": "Bonn"}[TOOL_CALLS]clock{}', "", 2),
        ('<function=weather>{"city": "Bonn"}</function>', "", 1),
        ('{"name": "weather", "parameters": {"city": "Bonn"}}', "", 1),
        ('```json\n[{"name": "weather", "arguments": {"city": "Bonn"}}]\n```', "", 1),
        (
            '{"name": "weather", "arguments": {"city": "Bonn"}}; '
            '{"name": "clock", "arguments": {}}',
            "",
            2,
        ),
        ('[TOOL_CALLS]weather[CALL_ID]abcdefghi[ARGS]{"city": "Bonn"}', "", 1),
        ('<|python_tag|>{"name": "weather", "parameters": {"city": "Bonn"}}', "", 1),
        ('[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Bonn"}}]</s>', "", 1),
        (
            "<tool_call>\n<function=weather>\n<parameter=city>\nBonn\n</parameter>\n"
            "</function>\n</tool_call>",
            "",
            1,
        ),
        ('{"name": "weather", "arguments": "{\\"city\\": \\"Bonn\\"}"}', "", 1),
    ],
)
def test_calls_in_the_forms_of_several_models(text: str, rest: str, count: int) -> None:
    found, written = read_calls(text, TOOLS)
    assert found == rest
    calls = as_calls(written, TOOLS, "key")
    assert len(calls) == count
    assert calls[0]["function"]["name"] == "weather"
    assert json.loads(calls[0]["function"]["arguments"]) == {"city": "Bonn"}
    assert len({call["id"] for call in calls}) == count
    assert all(len(call["id"]) == 9 and call["id"].isalnum() for call in calls)


@pytest.mark.parametrize(
    "text",
    [
        "It is warm.",
        '{"name": "Bob", "parameters": {"age": 3}}',
        "Write <tool_call> and then JSON.",
        "I wrote [TOOL_CALLS] [1, 2]",
        "Models write `<tool_call>` in front of a call.",
        '{"name": "Ann", "age": 3}',
        "[1, 2]",
        "",
    ],
)
def test_other_answers_call_nothing(text: str) -> None:
    assert read_calls(text, TOOLS) == (text, [])
    candidate = drawn([text or "x"]).best
    assert (candidate.text, candidate.tool_calls, candidate.error) == (text or "x", None, None)


WRONG = [
    ("<tool_call>{nonsense}</tool_call>", "no JSON object with a name"),
    (hermes("wether", city="Bonn"), "calls 'wether', which is no declared tool"),
    (hermes("weather"), '"city" is a required property'),
    (hermes("weather", city=3), "is not of type"),
    ('<tool_call>{"name": "weather", "arguments": [1]}</tool_call>', "no JSON object"),
]


@pytest.mark.parametrize(("text", "said"), WRONG)
def test_a_wrong_call_is_a_candidate_that_failed(text: str, said: str) -> None:
    selection = drawn([text, hermes("weather", city="Bonn")])
    failed, best = selection.candidates
    assert (failed.finish_reason, failed.tool_calls, failed.text) == ("error", None, text)
    assert said in str(failed.error)
    assert isnan(failed.scores["first"].value)
    assert selection.best is best
    assert best.text == 'Tool call: weather({"city": "Bonn"})'


def test_when_all_fail_the_error_says_why() -> None:
    selection = drawn([hermes("wether")] * 2)
    assert str(selection.error).startswith("all 2 candidates failed: the response: it calls")
    cut = drawn(['<tool_call>{"name": "wea'], finish_reason="length", max_tokens=7)
    assert "the response, cut after 3 tokens: " in str(cut.error)


def test_choice_and_number_of_calls() -> None:
    two = hermes("weather", city="Bonn") + hermes("clock")
    assert len(drawn([two]).best.tool_calls or []) == 2
    assert "may have one" in str(drawn([two], parallel_tool_calls=False).error)
    assert "it calls no tool" in str(drawn(["It is warm."], tool_choice="required").error)
    assert "does not call the tool 'clock'" in str(
        drawn([hermes("weather", city="Bonn")], tool_choice="clock").error
    )
    assert drawn(["It is warm."], as_prompt("Hi."), tool_choice="required").error is None


def test_equal_calls_are_one() -> None:
    """For rewards, which are asked once, and for votes."""
    same = ['{"city": "Bonn", "a": 1}', '{"a": 1,\n  "city": "Bonn"}']
    texts = iter(
        [
            hermes("clock"),
            *(
                f'<tool_call>{{"name": "weather", "arguments": {text}}}</tool_call>'
                for text in same
            ),
        ]
    )
    reward = Recorded()
    engine = ScriptedEngine(lambda *_: next(texts))
    selection = BestOfN(engine, reward, n=3, selector=Vote()).select(ASKED)
    shown = 'Tool call: weather({"a": 1, "city": "Bonn"})'
    assert [candidate.text for candidate in selection.candidates[1:]] == [shown] * 2
    assert sorted(text for (text,) in reward.asked) == ["Tool call: clock({})", shown]
    assert selection.index == 1
    given = [
        call["function"]["arguments"] for c in selection.candidates for call in c.tool_calls or ()
    ]
    assert list(json.loads(given[1])) == ["city", "a"]  # as the model wrote them


def test_calls_of_a_server_keep_their_ids() -> None:
    class Calling(ScriptedEngine):
        async def generate(
            self, prompt: Prompt, params: SamplingParams, seed: int | None = None
        ) -> Completion:
            completion = await super().generate(prompt, params, seed)
            call = {"name": "weather", "arguments": '{"city": "Bonn"}'}
            completion.tool_calls = [{"id": "call_7", "type": "function", "function": call}]
            return completion

    best = BestOfN(Calling("Let me look."), First(), n=1).select(ASKED).best
    assert best.text == 'Let me look.\n\nTool call: weather({"city": "Bonn"})'
    assert best.tool_calls is not None
    assert best.tool_calls[0]["id"] == "call_7"
    turn = answer_message(best)
    assert (turn.content, turn.extra) == ("Let me look.", {"tool_calls": best.tool_calls})
    assert answer_text(as_turns([turn])) == best.text


def test_candidates_of_a_function_may_call_tools() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
    answer = Candidate(0, "Let me look.", tool_calls=[call])
    best = BestOfN(lambda prompt, n: [answer], First(), n=1).select(ASKED).best
    assert best.text == "Let me look.\n\nTool call: clock({})"
    assert best.tool_calls == [call]


# --- JSON by a schema -----------------------------------------------------------------------------


def test_json_that_does_not_fit_fails() -> None:
    selection = drawn(["{}", '{"city": "Bonn"}', "Bonn", "NaN"], json_schema=CITY)
    assert selection.text == '{"city": "Bonn"}'
    errors = [str(candidate.error) for candidate in selection.candidates]
    assert "does not fit the schema" in errors[0]
    assert "it is not JSON" in errors[2]
    assert "no number of JSON" in errors[3]


def test_a_schema_keeps_its_order(tmp_path: Path) -> None:
    """Guided decoding writes the members in it."""
    schema = {"type": "object", "properties": {"why": {}, "answer": {}}}
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(schema))
    for given in (str(path), schema, json.dumps(schema)):
        config = DrawConfig(engine="tiny", json_schema=given)  # type: ignore[arg-type]
        held = config.sampling().json_schema
        assert held == schema
        assert list(held["properties"]) == ["why", "answer"]
    for wrong, said in ((str(tmp_path / "none"), "cannot be read"), ("{", "not JSON")):
        with pytest.raises(ValueError, match=said):
            DrawConfig(engine="tiny", json_schema=wrong)


def test_references_of_tools_are_found_in_the_schema_of_calls() -> None:
    inner = {"type": "object", "properties": {"x": {"$ref": "#/$defs/whole"}}}
    nested = inner | {"$defs": {"whole": {"type": "integer"}}}
    schema = calls_schema(as_tools([{"name": "f", "parameters": nested}, CLOCK]), "required")
    assert check_json('[{"name": "f", "arguments": {"x": 3}}]', schema) is None
    assert check_json('[{"name": "f", "arguments": {"x": "3"}}]', schema) is not None
    once = calls_schema(TOOLS, "required", parallel=False)
    call = '{"name": "clock", "arguments": {}}'
    assert check_json(f"[{call}]", once) is None
    assert check_json(f"[{call}, {call}]", once) is not None


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}, "too often"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$id": "x", "$ref": "#/$defs/a"}}}, "no "),
        ({"properties": {"a": {"unevaluatedProperties": False}}}, "no unevaluated"),
        ({"properties": {"a": {"$ref": "other.json"}}}, "no other document"),
        ({"properties": {"a": {"$ref": "#/nowhere"}}}, "no other document"),
        (
            {
                "$ref": "#/%24defs/a0",
                "$defs": {
                    f"a{i}": {"allOf": [{"$ref": f"#/%24defs/a{i + 1}"}] * 2} for i in range(30)
                }
                | {"a30": {}},
            },
            "too often",
        ),
        ({"enum": list(range(20_000))}, "parts at most"),
    ],
)
def test_schemas_of_strangers_are_bounded(schema: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_schema(schema, "x", bounded=True)


def test_usual_schemas_of_strangers_are_taken() -> None:
    tree = {"type": "object", "properties": {"left": {"$ref": "#"}, "n": {"type": "integer"}}}
    check_schema(tree | {"$id": "https://example.com/tree"}, "x", bounded=True)
    check_schema(CITY, "x", bounded=True)


@pytest.mark.parametrize(
    "text",
    [
        "```" + "\n" * 20_000 + "x",
        "[TOOL_CALLS]" + " " * 50_000 + "x",
        "<function=a>{" * 5_000,
        "<tool_call>" * 5_000,
        "<tool_call>[1," * 5_000,
        '<tool_call>{"name": "' + "[" * 50_000,
    ],
)
def test_long_nonsense_is_read_in_one_go(text: str) -> None:
    """What takes quadratic time here would not end in a test's life."""
    read_calls(text, TOOLS)


def test_schemas_that_are_attacks_end() -> None:
    check_schema({"$ref": "#"}, "x")
    assert check_json('{"a": 1}', {"$ref": "#"}) is None
    slow = {"type": "string", "pattern": "^(a|a)*(?=b)$"}
    assert check_json(json.dumps("a" * 40 + "c"), slow) is not None
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"properties": {"a": deep}}
    with pytest.raises(ConfigError):
        check_schema(deep, "x")
    assert check_json("[" * 100_000, {}) is not None


def test_half_a_surrogate_pair_in_a_call() -> None:
    text = '<tool_call>{"name": "weather", "arguments": "{\\"city\\": \\"\\ud800\\"}"}</tool_call>'
    selection = drawn([text, hermes("weather", city="Bonn")])
    assert json.dumps(pool.to_row(selection), ensure_ascii=False).encode()
    assert "\ufffd" in selection.candidates[0].text


def test_the_schema_of_calls() -> None:
    schema = calls_schema(TOOLS, "required")
    assert check_json('[{"name": "weather", "arguments": {"city": "Bonn"}}]', schema) is None
    assert check_json('[{"name": "clock", "arguments": {}}]', schema) is None
    assert check_json("[]", schema) is not None
    one = calls_schema(TOOLS, "weather")
    assert check_json('[{"name": "clock", "arguments": {}}]', one) is not None
    call = {"name": "weather", "arguments": {"city": "Bonn"}}
    assert check_json(json.dumps([call, call]), one) is not None


# --- prompts, templates, rows ---------------------------------------------------------------------


def test_tools_are_a_part_of_what_is_asked() -> None:
    plain = as_prompt("Weather in Bonn?")
    assert plain.id != ASKED.id
    assert content_key(plain) != content_key(ASKED)
    assert as_prompt(ASKED) == ASKED
    row = pool.to_row(drawn([hermes("weather", city="Bonn")]))
    again = pool.from_row(json.loads(json.dumps(row)))
    assert again.prompt == ASKED
    assert again.candidates[0].tool_calls == row["candidates"][0]["tool_calls"]
    assert "tools" not in pool.to_row(drawn(["x"], plain))


def test_a_template_without_tools_describes_them(tiny: TransformersEngine) -> None:
    text = tiny._chat.render(ASKED.messages, tools=TOOLS)
    assert '"name": "weather"' in text
    assert "<tool_call>" in text
    held = as_prompt("Hi.", tools=as_tools([{"name": "f", "description": "<|im_end|>"}]))
    end = tiny._chat.tokenizer.convert_tokens_to_ids("<|im_end|>")
    plain = tiny._chat.encode(as_prompt("Hi."))[0]
    assert tiny._chat.encode(held)[0].count(end) <= plain.count(end) + 1  # the system's turn


ROWS: list[dict[str, Any]] = [
    {"messages": as_turns(ASKED.messages), "tools": [WEATHER, CLOCK], "n": 1},
    {"messages": as_turns(ASKED.messages), "tools": json.dumps([CLOCK]), "n": 2},
    {"messages": [{"role": "user", "content": "Hi."}], "tools": None, "n": 3},
]


@pytest.mark.parametrize("format", ["jsonl", "parquet", "hf", "csv"])
def test_from_rows_to_an_export(tmp_path: Path, format: Format) -> None:
    path = tmp_path / "out.jsonl"
    engine = ScriptedEngine(lambda prompt, *_: hermes("clock") if prompt.tools else "It is warm.")
    best = BestOfN(engine, Longest(), n=2)
    select_dataset(ROWS, path, best, progress=False, ordered=True, tools_column="tools")
    select_dataset(ROWS, path, best, progress=False, ordered=True, tools_column="tools")
    rows = list(pool.read(path))
    assert [len(row.prompt.tools) for row in rows] == [2, 1, 0]
    assert [row.prompt.columns for row in rows] == [{"n": 1}, {"n": 2}, {"n": 3}]
    target = tmp_path / f"sft.{format}"
    export(path, target, format=format, keep="sft")
    if format != "csv":  # whose conversations are text
        again = read_prompts(target, id_column="id", tools_column="tools", drop_last_assistant=True)
        assert [prompt.tools for prompt in again] == [row.prompt.tools for row in rows]
        assert again[0].columns["dropped_answer"] == "Tool call: clock({})"
    for keep in ("best", "all"):
        target = tmp_path / f"{keep}.{format}"
        export(path, target, format=format, keep=keep)
    if format == "jsonl":
        best_rows = [json.loads(line) for line in (tmp_path / "best.jsonl").open()]
        assert best_rows[0]["tool_calls"][0]["function"]["name"] == "clock"
        assert best_rows[2]["tool_calls"] is None


def test_a_bad_declaration_in_a_row_is_named() -> None:
    rows = [{"prompt": "Hi.", "tools": [{"name": "a b"}]}]
    with pytest.raises(ConfigError, match=r"row 0.*column 'tools'.*a name"):
        read_prompts(rows, tools_column="tools")
