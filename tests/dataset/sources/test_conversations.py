"""Conversations in the forms of chat APIs, ShareGPT, SFT data and WildChat, as prompts."""

import json
from pathlib import Path
from typing import Any

import pytest
from row_files import write_rows

from bestofn.dataset.sources import read_prompts
from bestofn.errors import ConfigError
from bestofn.prompts import as_prompt, system_message, user_message
from bestofn.types import Message, Prompt

ASKED = {"role": "user", "content": "Name 4 fruits."}
ANSWERED = {"role": "assistant", "content": "Apple, pear, plum, fig."}
CALL = {"id": "1", "type": "function", "function": {"name": "w", "arguments": '{"city": "Bonn"}'}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "1", "name": "w", "content": "20 C"}
PARTS = [{"type": "text", "text": "Name 4"}, {"type": "text", "text": "fruits."}]


def turns(prompt: Prompt) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in prompt.messages]


def only(rows: Any, **options: Any) -> Prompt:
    (prompt,) = read_prompts(rows, **options)
    return prompt


def sharegpt(*turns: tuple[str, str]) -> dict[str, Any]:
    return {"id": "a", "conversations": [{"from": who, "value": text} for who, text in turns]}


def test_content_as_text_parts_is_their_text(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": PARTS}]}
    for source in (write_rows(tmp_path / "p.jsonl", [row]), [row]):
        assert turns(only(source)) == [("user", "Name 4\nfruits.")]
    assert as_prompt([{"role": "user", "content": PARTS[:1]}]).id == as_prompt("Name 4").id


# --- ShareGPT -------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"prompt_column": "conversations"}])
def test_sharegpt_is_read(tmp_path: Path, options: dict[str, Any]) -> None:
    row = sharegpt(("human", "Hi."), ("gpt", "Hello."), ("human", "4?")) | {"system": "Be brief."}
    path = write_rows(tmp_path / "p.jsonl", [row])
    assert turns(only(path, id_column="id", **options)) == [
        ("system", "Be brief."),
        ("user", "Hi."),
        ("assistant", "Hello."),
        ("user", "4?"),
    ]


@pytest.mark.parametrize(
    ("who", "role"),
    [
        *((who, "user") for who in ("human", "user")),
        *((who, "assistant") for who in ("gpt", "assistant", "chatgpt", "bard", "function_call")),
        *((who, "tool") for who in ("tool", "observation")),
        ("system", "system"),
    ],
)
def test_who_speaks_in_sharegpt(who: str, role: str) -> None:
    prompt = only([sharegpt(("human", "x"), (who, "y"), ("human", "z"))])
    assert turns(prompt) == [("user", "x"), (role, "y"), ("user", "z")]


# --- conversations that are answered --------------------------------------------------------------


ANSWERED_ROWS = [
    {"messages": [ASKED, ANSWERED], "level": 1},
    {"level": 1, **sharegpt(("human", ASKED["content"]), ("gpt", ANSWERED["content"]))},
    {"conversation": [ASKED | {"toxic": False}, ANSWERED | {"toxic": None}], "level": 1},
]


@pytest.mark.parametrize("row", ANSWERED_ROWS, ids=["messages", "sharegpt", "wildchat"])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_the_last_answer_is_dropped_and_kept_as_a_column(
    tmp_path: Path, kind: str, row: dict[str, Any]
) -> None:
    path = write_rows(tmp_path / f"p.{kind}", [row])
    with pytest.raises(ConfigError, match="--drop-last-assistant"):
        read_prompts(path)
    prompt = only(path, drop_last_assistant=True)
    assert turns(prompt) == [("user", ASKED["content"])]
    assert prompt.id == as_prompt(ASKED["content"]).id
    assert prompt.columns["dropped_answer"] == ANSWERED["content"]
    assert prompt.columns["level"] == 1
    assert prompt.messages[0].extra == {}
    told = only(path, drop_last_assistant=True, system="Be brief.")
    assert turns(told) == [("system", "Be brief."), ("user", ASKED["content"])]


def test_nothing_but_a_last_answer_is_dropped() -> None:
    rows = [{"messages": [ASKED]}, {"messages": [ASKED, ANSWERED, ASKED]}, {"prompt": "x"}]
    for row in rows:
        dropped = only([row], drop_last_assistant=True)
        assert (dropped, dropped.columns) == (only([row]), {})
    row = {"messages": [ASKED, ANSWERED], "dropped_answer": "mine"}
    with pytest.raises(ConfigError, match=r"row 0: .* has a column 'dropped_answer'"):
        read_prompts([row], drop_last_assistant=True)


# --- tools and developers -------------------------------------------------------------------------


def test_turns_of_tools_are_context() -> None:
    prompt = as_prompt([ASKED, CALLING, RESULT, {"role": "user", "content": "In a sentence."}])
    assert [turn.role for turn in prompt.messages] == ["user", "assistant", "tool", "user"]
    assert [turn.content for turn in prompt.messages][1:3] == ["", "20 C"]
    assert prompt.messages[1].extra == {"tool_calls": [CALL]}
    assert prompt.messages[2].extra == {"tool_call_id": "1", "name": "w"}
    assert user_message(prompt) == "In a sentence."
    assert user_message(as_prompt([ASKED, CALLING, RESULT])) == ASKED["content"]
    with pytest.raises(ConfigError, match="needs a user message"):
        as_prompt([CALLING, RESULT])


def test_a_developer_is_the_system() -> None:
    developer = {"role": "developer", "content": "Be brief."}
    assert system_message(as_prompt([developer, ASKED])) == "Be brief."
    # A system prompt for those that have none.
    assert len(only([{"messages": [developer, ASKED]}], system="Be long.").messages) == 2


def test_calls_tell_prompts_apart_and_without_them_ids_are_as_ever() -> None:
    other = CALLING | {"tool_calls": [CALL | {"id": "2"}]}
    assert as_prompt([ASKED, CALLING, RESULT]).id != as_prompt([ASKED, other, RESULT]).id
    assert as_prompt("Name 4 fruits.").id == "344119e856e833d2"
    chat = [{"role": "system", "content": "Be brief."}, ASKED, ANSWERED, ASKED]
    assert as_prompt(chat).id == "7cb9e3f7ebf4f136"


def test_calls_in_tables_and_as_json_text_are_calls(tmp_path: Path) -> None:
    rows = [{"messages": [ASKED, CALLING, RESULT]}]
    from_json = only(write_rows(tmp_path / "p.jsonl", rows))
    from_table = only(write_rows(tmp_path / "p.parquet", rows))
    assert (from_table, from_table.id) == (from_json, from_json.id)
    as_text = CALLING | {"tool_calls": json.dumps([CALL])}
    assert as_prompt([ASKED, as_text, RESULT]) == from_json


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ({"role": "critic", "content": "x"}, "not 'critic'"),
        ({"role": ["user"], "content": "x"}, "not ['user']"),
        ({"role": "tool", "content": None}, "a text `content`"),
        ({"role": "user", "content": {"text": "x"}}, "a text `content`"),
        ({"role": "user", "content": [{"type": "text"}]}, "a part of type 'text' without a text"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "a part of type 'image_url'"),
        ({"from": "narrator", "value": "x"}, "not 'narrator'"),
        ({"from": ["human"], "value": "x"}, "not ['human']"),
        ({"from": "human", "value": None}, "a text `content`"),
        (Message("critic", "x"), "not 'critic'"),  # type: ignore[arg-type]
        (Message("user", None), "a text `content`"),  # type: ignore[arg-type]
    ],
)
def test_other_messages_are_faults_that_name_what_is_wrong(message: Any, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        as_prompt([message, ASKED])
    assert sentence in str(caught.value)
