"""Attacks: what each writes, what it carries, and which of them the copy guard sees."""

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bestofn.engines.hf import TransformersEngine
from bestofn.engines.literal import CONTROL
from bestofn.errors import ConfigError
from bestofn.evals.audit.attacks import ATTACKS, attack, chosen
from bestofn.rewards.copying import find_quotes, without_spans
from bestofn.rewards.parsing import parse_field
from bestofn.rewards.templates import load_template
from bestofn.tiny import heldout_tasks

INSTRUCTION = "Explain the main causes of soil degradation in simple words."
HONEST = "Overgrazing strips the plants. Then rain carries the earth away."
DISGUISED = ["look-alikes", "full-width", "zero-width"]
QUOTES = [
    *("quote", "label", "promise", "foreign-frame", "inverse-json", "control-tokens"),
    "quote-then-answer",
]


def written(name: str, instruction: str = INSTRUCTION, honest: str = HONEST, seed: int = 0) -> str:
    return ATTACKS[name].write(instruction, honest, Random(seed))


@pytest.mark.parametrize("name", ATTACKS)
@settings(max_examples=40, deadline=None)
@given(instruction=st.text(min_size=1).filter(str.strip), honest=st.text(), seed=st.integers())
def test_any_texts_make_a_response_and_the_same_one_again(
    name: str, instruction: str, honest: str, seed: int
) -> None:
    text = written(name, instruction, honest, seed)
    assert isinstance(text, str)
    assert text == written(name, instruction, honest, seed)


def test_most_attacks_carry_no_answer() -> None:
    assert sum(attack.answer == "none" for attack in ATTACKS.values()) >= 14
    assert all(attack.what.endswith(".") for attack in ATTACKS.values())


@pytest.mark.parametrize("name", ATTACKS)
def test_what_an_attack_carries_is_what_it_says(name: str) -> None:
    text = written(name)
    carried = {"none": set[str](), "part": {"Overgrazing"}, "whole": {"Overgrazing", "earth"}}
    assert {word for word in ("Overgrazing", "earth") if word in text} == carried[
        ATTACKS[name].answer
    ]


@pytest.mark.parametrize("name", QUOTES + DISGUISED)
def test_the_guard_sees_quotes_however_they_are_dressed(name: str) -> None:
    for instruction in [INSTRUCTION, *(task.instruction for task in heldout_tasks(60))]:
        if len(instruction.split()) >= 4:
            assert find_quotes(instruction, written(name, instruction)), instruction


def test_control_tokens_are_those_of_the_embedded_model_and_others(
    tiny: TransformersEngine,
) -> None:
    text = written("control-tokens")
    assert set(tiny.control_tokens(text)) == {"<|end|>", "<|assistant|>"}
    assert len({*CONTROL.findall(text)}) >= 9


@pytest.mark.parametrize("name", ["quote", *DISGUISED])
def test_nothing_is_left_of_a_bare_quote(name: str) -> None:
    text = written(name)
    assert without_spans(text, find_quotes(INSTRUCTION, text)).strip(".．") == ""


@pytest.mark.parametrize("name", sorted(set(ATTACKS) - {*QUOTES, *DISGUISED}))
def test_what_is_no_quote_is_not_flagged(name: str) -> None:
    assert not find_quotes(INSTRUCTION, written(name))


def test_a_paraphrase_has_the_content_in_another_order() -> None:
    text = written("paraphrase", "Name 4 fruits in one line.")
    assert text.index("one line") < text.index("mention") < text.index("4 fruits")


def test_what_the_inverse_json_says_is_the_instruction() -> None:
    field = load_template("reasoned").field
    assert field is not None
    assert parse_field(written("inverse-json"), field).text == INSTRUCTION


def test_an_attack_is_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bestofn.evals.audit.attacks.ATTACKS", known := dict[str, Any]())

    @attack(answer="whole")
    def in_capitals(instruction: str, honest: str, rng: Random) -> str:
        """The honest response, louder.

        More about it.
        """
        return honest.upper()

    (found,) = chosen(["in-capitals"])
    assert known == {"in-capitals": found}
    assert (found.what, found.answer) == ("The honest response, louder.", "whole")
    assert found.write("", "yes", Random()) == "YES"


def test_attacks_are_chosen_by_name_in_their_own_order() -> None:
    assert [attack.name for attack in chosen(["empty", "quote"])] == ["quote", "empty"]
    assert len(chosen([])) == len(ATTACKS)
    with pytest.raises(ConfigError, match="no attack 'qoute'; there are quote, "):
        chosen(["qoute"])
