"""Rendering: the tokenizer's template, and the rules for models that lack something."""

import copy

import pytest

from bestofn import concurrency
from bestofn.engines.chat import ChatFormat
from bestofn.engines.hf import TransformersEngine
from bestofn.errors import EngineError
from bestofn.types import Message, Prompt

SYSTEM, USER = Message("system", "Be brief."), Message("user", "Count from 3 to 9.")
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
DROPS_SYSTEM = (
    "{% for m in messages if m['role'] != 'system' %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
OPENS_THINKING = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% if think %}<think>\n{% endif %}{% endif %}"
)


def chat_with(tiny: TransformersEngine, template: str | None) -> ChatFormat:
    tokenizer = copy.deepcopy(tiny._chat.tokenizer)
    tokenizer.chat_template = template
    return ChatFormat(tokenizer)


def test_template_with_generation_prompt(tiny: TransformersEngine) -> None:
    text = tiny._chat.render((SYSTEM, USER))
    assert text == "<|system|>Be brief.<|end|><|user|>Count from 3 to 9.<|end|><|assistant|>"


@pytest.mark.parametrize("template", [NO_SYSTEM, DROPS_SYSTEM])
def test_system_text_moves_where_there_is_no_system_role(
    tiny: TransformersEngine, template: str
) -> None:
    chat = chat_with(tiny, template)
    assert chat.render((SYSTEM, USER)) == (
        "<|user|>Be brief.\n\nCount from 3 to 9.<|end|><|assistant|>"
    )


def test_plain_text_without_a_template(tiny: TransformersEngine) -> None:
    chat = chat_with(tiny, None)
    assert chat.render((SYSTEM, USER)) == (
        "System: Be brief.\n\nUser: Count from 3 to 9.\n\nAssistant:"
    )
    assert chat.closing_ids == (chat.tokenizer.eos_token_id,)


def test_a_template_that_refuses_the_prompt(tiny: TransformersEngine) -> None:
    refuses = "{% if messages|length > 1 %}{{ raise_exception('one turn only') }}{% endif %}x"
    with pytest.raises(EngineError, match="one turn only"):
        chat_with(tiny, refuses).render((USER, Message("assistant", "3"), USER))


def test_prefix_ids_do_not_depend_on_the_continuation(tiny: TransformersEngine) -> None:
    prompt = Prompt((USER,))
    before, _ = tiny._chat.encode(prompt)
    tiny._chat.encode_continuation("9, 8", close=True)
    assert tiny._chat.encode(prompt)[0] == before
    assert tiny._chat.encode_continuation("9", close=True)[-1] == tiny._chat.tokenizer.eos_token_id


def test_opened_thinking_is_noticed(tiny: TransformersEngine) -> None:
    chat = chat_with(tiny, OPENS_THINKING)
    assert chat.encode(Prompt((USER,)))[1] is False
    thinking = chat.with_kwargs({"think": True})
    assert thinking.encode(Prompt((USER,)))[1] is True


@pytest.mark.parametrize(
    "text",
    ["Count from 3 to 9.", "Zoë’s 日本語 café\n\ttab", "1, 2; 3 - 4", "<0x41>", "", " lead", "🦉"],
)
def test_tiny_tokenizer_is_lossless(tiny: TransformersEngine, text: str) -> None:
    ids = tiny._chat.encode_continuation(text, close=False)
    assert tiny._chat.decode(list(ids), False) == (None, text)


@pytest.mark.parametrize(
    "text", ["Write `<think>` before the plan.", "So it ends: </think>, done."]
)
def test_an_answer_about_the_tag_is_drawn_whole(tiny: TransformersEngine, text: str) -> None:
    ids = list(tiny._chat.encode_continuation(text, close=True))
    assert concurrency.run(tiny.decode(Prompt((USER,)), ids)) == (None, text)
    chat = chat_with(tiny, OPENS_THINKING).with_kwargs({"think": True})
    assert chat.decode([*chat.encode_continuation("hm</think>", close=False), *ids], True) == (
        "hm",
        text,
    )
