"""What counts as a prompt, its id and its candidates' seeds."""

import pytest

from bestofn.errors import ConfigError
from bestofn.prompts import (
    as_prompt,
    candidate_seed,
    random_for,
    system_message,
    user_message,
)
from bestofn.types import Message, Prompt

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "Hi."},
    {"role": "user", "content": "Count to 3.\nuser: in words\n"},
]


def test_a_string_is_one_user_message() -> None:
    assert as_prompt("Hello.").messages == (Message("user", "Hello."),)


def test_messages_are_kept_whole() -> None:
    prompt = as_prompt(CHAT)
    assert user_message(prompt) == "Count to 3.\nuser: in words\n"
    assert system_message(prompt) == "Be brief."
    assert system_message(as_prompt("Hello.")) is None


def test_ids_follow_the_content() -> None:
    assert as_prompt("Hello.").id == as_prompt([{"role": "user", "content": "Hello."}]).id
    assert as_prompt("Hello.").id != as_prompt("Hello!").id
    assert as_prompt(CHAT).id != as_prompt(CHAT[1:]).id
    assert as_prompt("Hello.", "row-7").id == "row-7"
    assert as_prompt(Prompt((Message("user", "x"),), "mine")).id == "mine"


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ([], "last message"),
        (CHAT[:3], "last message"),
        ([{"role": "user", "content": None}], "content"),
        ([{"role": "robot", "content": "x"}], "role"),
        (["Hello."], "role"),
        (7, "not int"),
        (None, "not NoneType"),
    ],
)
def test_bad_prompts(value: object, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        as_prompt(value)  # type: ignore[arg-type]


def test_seeds_are_distinct_and_fixed() -> None:
    prompts = [as_prompt(text) for text in ("a", "b")]
    seeds = {candidate_seed(r, p, i) for r in (0, 1) for p in prompts for i in range(100)}
    assert len(seeds) == 400
    assert candidate_seed(0, prompts[0], 0) == candidate_seed(0, as_prompt("a"), 0)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_random_numbers_for_one_purpose_are_unrelated_to_those_for_another() -> None:
    prompt = as_prompt("x")
    orders = {
        tuple(random_for(purpose, 0, prompt).sample(range(20), 20)) for purpose in ("a", "b", "a")
    }
    assert len(orders) == 2
    assert random_for("a", 1, prompt).random() != random_for("a", 0, prompt).random()
