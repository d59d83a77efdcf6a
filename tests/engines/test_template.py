"""Chat templates that want their turns in another form, do not know them, or go wrong."""

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
from reward_models import random_model
from small_tokenizers import byte_level

from bestofn import concurrency
from bestofn.engines.base import SamplingParams, load_engine
from bestofn.engines.chat import ChatFormat
from bestofn.engines.hf import TransformersEngine
from bestofn.engines.model_files import locate
from bestofn.errors import EngineError
from bestofn.rewards.flip import FLIPReward
from bestofn.rewards.scalar import ScalarReward
from bestofn.types import Candidate, Message, Prompt

END = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
PARTS = (
    "{% for m in messages %}<|{{ m['role'] }}|>{% for part in m['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}<|end|>{% endfor %}"
) + END
PARTS_WITHOUT_SYSTEM = PARTS.replace(
    "{% for m in messages %}", "{% for m in messages if m['role'] != 'system' %}"
)
USERS_IN_PARTS = (
    "{% for m in messages %}<|{{ m['role'] }}|>{% if m['role'] == 'user' %}"
    "{% for part in m['content'] %}{{ part['text'] }}{% endfor %}{% else %}{{ m['content'] }}"
    "{% endif %}<|end|>{% endfor %}"
) + END
LOST_BESIDE_SYSTEM = (
    "{% for m in messages %}{% if messages[0]['role'] != 'system' or m['role'] == 'system' %}"
    "<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endif %}{% endfor %}"
) + END
LOST = "{% for m in messages %}<|{{ m['role'] }}|><|end|>{% endfor %}" + END
ANY_ROLE = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}" + END
ALTERNATE = (
    "{% for m in messages %}{% if m['role'] != ['user', 'assistant'][loop.index0 % 2] %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
) + END
EACH_ARGUMENT = (
    "{% for key, value in c.function.arguments.items() %}"
    "{{ c.function.name }}:{{ key }}={{ value }}{% endfor %}"
)
TOOLS = (
    "{% for m in messages %}<|{{ m['role'] }}|>{% if m['tool_calls'] %}"
    f"{{% for c in m['tool_calls'] %}}{EACH_ARGUMENT}{{% endfor %}}"
    "{% else %}{{ m['content'] }}{% endif %}<|end|>{% endfor %}"
) + END
TOOLS_AS_TEXT = TOOLS.replace(EACH_ARGUMENT, "{{ c.function.name + ':' + c.function.arguments }}")
DEVELOPER = ANY_ROLE + "{# developer #}"

USER = Message("user", "Count from 3 to 9.")
CHAT = (Message("system", "Be brief."), USER, Message("assistant", "3"), Message("user", "More."))
CALL = {
    "id": "1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"in": "Bonn"}'},
}
CALLING = (
    Message("user", "Weather in Bonn?"),
    Message("assistant", "", {"tool_calls": [CALL]}),
    Message("tool", "20 C", {"tool_call_id": "1"}),
    Message("user", "In one sentence."),
)


def chat_with(template: str | None) -> ChatFormat:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(locate("tiny"))
    tokenizer.chat_template = template
    return ChatFormat(tokenizer)


def model_with(template: str, folder: Path, made: Path | None = None) -> Path:
    """The embedded model, or another one, with another chat template."""
    shutil.copytree(made or locate("tiny"), folder, dirs_exist_ok=True)
    (folder / "chat_template.jinja").write_text(template)
    return folder


def same_as_plain(chat: ChatFormat, turns: tuple[Message, ...]) -> bool:
    plain = chat_with(ANY_ROLE)
    return chat.encode(Prompt(turns)) == plain.encode(Prompt(turns))


# --- content parts --------------------------------------------------------------------------------


@pytest.mark.parametrize("template", [PARTS, USERS_IN_PARTS, ANY_ROLE])
def test_every_text_arrives_in_the_form_that_the_template_wants(template: str) -> None:
    chat = chat_with(template)
    assert same_as_plain(chat, CHAT)
    assert chat.closing_ids == chat_with(ANY_ROLE).closing_ids
    answered = chat.encode_answered(Prompt((USER,)), "3, 4, 5")
    assert answered == chat_with(ANY_ROLE).encode_answered(Prompt((USER,)), "3, 4, 5")


@pytest.mark.parametrize("template", [PARTS_WITHOUT_SYSTEM, LOST_BESIDE_SYSTEM])
def test_a_system_text_moves_where_it_or_the_user_would_be_lost(template: str) -> None:
    text = chat_with(template).render(CHAT[:2])
    assert text == "<|user|>Be brief.\n\nCount from 3 to 9.<|end|><|assistant|>"


def test_flip_scores_with_such_a_template(tiny: TransformersEngine, tmp_path: Path) -> None:
    engine = load_engine(f"hf:{model_with(PARTS, tmp_path)}")
    candidates = [Candidate(0, "3, 4, 5, 6, 7, 8, 9"), Candidate(1, "oak, elm")]
    mine, plain = (
        [
            s.value
            for s in concurrency.run(
                FLIPReward(e, template="direct").score(Prompt((USER,)), candidates)
            )
        ]
        for e in (engine, tiny)
    )
    engine.close()
    assert mine == plain
    assert mine[0] > 0


def test_text_that_arrives_in_no_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"drops the text of user .*chat_template\.jinja"):
        chat_with(LOST).encode(Prompt((USER,)))
    engine = load_engine(f"hf:{model_with(LOST, tmp_path)}")
    with pytest.raises(EngineError, match="drops the text"):
        concurrency.run(engine.generate(Prompt((USER,)), SamplingParams(max_tokens=4)))
    (score,) = concurrency.run(FLIPReward(engine).score(Prompt((USER,)), [Candidate(0, "3, 4")]))
    assert "drops the text" in str(score.reason)
    engine.close()


def test_a_reward_model_whose_template_drops_answers_scores_none(tmp_path: Path) -> None:
    template = (
        "{% for m in messages if m['role'] == 'user' %}<|user|>{{ m['content'] }}{% endfor %}"
    )
    folder = model_with(template, tmp_path / "lost", random_model(tmp_path / "made"))
    reward = ScalarReward(folder, device="cpu")
    (score,) = concurrency.run(reward.score(Prompt((USER,)), [Candidate(0, "3, 4")]))
    reward.close()
    assert "drops the text of assistant messages" in str(score.reason)


# --- templates that go wrong ----------------------------------------------------------------------

WRONG = {
    "TypeError": "{{ messages[0]['content'] + 1 }}",
    "UndefinedError": "{{ messages[0].nothing.at.all }}",
    "ZeroDivisionError": "{{ messages[0]['content'] }}{{ 1 // 0 }}",
    "KeyError": "{{ {}.pop('missing') }}",
    "a sentence": "{{ raise_exception('no prompts today') }}",
    "syntax": "{% for m in messages %}",
}


@pytest.mark.parametrize("template", WRONG.values(), ids=WRONG)
def test_a_template_that_goes_wrong_is_blamed_itself(template: str, tmp_path: Path) -> None:
    engine = load_engine(f"hf:{model_with(template, tmp_path)}")
    with pytest.raises(EngineError, match="the model's chat template") as raised:
        concurrency.run(engine.generate(Prompt((USER,)), SamplingParams(max_tokens=4)))
    assert "\n" not in str(raised.value)
    engine.close()


# --- roles ----------------------------------------------------------------------------------------


def test_a_developer_is_the_system_where_the_template_knows_none() -> None:
    turns = (Message("developer", "Be brief."), USER)
    assert chat_with(DEVELOPER).render(turns).startswith("<|developer|>Be brief.")
    assert chat_with(ANY_ROLE).render(turns).startswith("<|system|>Be brief.")
    assert chat_with(PARTS).render(turns).startswith("<|system|>Be brief.")
    assert chat_with(ALTERNATE).render(turns) == (
        "<|user|>Be brief.\n\nCount from 3 to 9.<|end|><|assistant|>"
    )
    assert chat_with(None).render(turns).startswith("System: Be brief.\n\nUser: Count")


@pytest.mark.parametrize(
    ("template", "call"),
    [(TOOLS, "weather:in=Bonn"), (TOOLS_AS_TEXT, 'weather:{"in": "Bonn"}')],
)
def test_tools_go_to_a_template_that_takes_them(template: str, call: str) -> None:
    text = chat_with(template).render(CALLING)
    assert f"<|assistant|>{call}<|end|><|tool|>20 C<|end|><|user|>In one sentence." in text


@pytest.mark.parametrize("template", [ANY_ROLE, ALTERNATE, PARTS])
def test_tools_become_text_elsewhere(template: str) -> None:
    assert chat_with(template).render(CALLING) == (
        "<|user|>Weather in Bonn?<|end|>"
        '<|assistant|>Tool call: weather({"in": "Bonn"})<|end|>'
        "<|user|>Tool result: 20 C\n\nIn one sentence.<|end|><|assistant|>"
    )


def test_tools_without_a_template() -> None:
    assert chat_with(None).render(CALLING) == (
        "User: Weather in Bonn?\n\n"
        'Assistant: Tool call: weather({"in": "Bonn"})\n\n'
        "Tool result: 20 C\n\nUser: In one sentence.\n\nAssistant:"
    )


@pytest.mark.parametrize("calls", ["weather", [None], [{"function": None}], [{"name": "w"}], None])
@pytest.mark.parametrize("template", [TOOLS, ANY_ROLE, None])
def test_odd_tool_calls_are_no_crash(template: str | None, calls: Any) -> None:
    turns = (USER, Message("assistant", "Hm.", {"tool_calls": calls}), USER)
    assert "Count from 3 to 9." in chat_with(template).render(turns)


def test_flip_knows_of_calls_and_results(tiny: TransformersEngine) -> None:
    reward = FLIPReward(tiny)
    context = reward.prefix(Prompt(CALLING), "20 C in Bonn.").messages[-1].content
    for known in ("Weather in Bonn?", 'Tool call: weather({"in": "Bonn"})', "Tool result: 20 C"):
        assert known in context
    assert "In one sentence." not in context


# --- decoding -------------------------------------------------------------------------------------


def test_spaces_before_punctuation_are_kept(tiny: TransformersEngine) -> None:
    tokenizer = copy.deepcopy(tiny._chat.tokenizer)
    tokenizer.clean_up_tokenization_spaces = True
    chat = ChatFormat(tokenizer)
    text = "if x != y : print ( 'no' ) , ok ?"
    assert chat.decode(list(chat.encode_continuation(text, close=False)), False) == (None, text)


def test_what_is_drawn_keeps_its_spaces(tiny: TransformersEngine, tmp_path: Path) -> None:
    folder = model_with(ANY_ROLE, tmp_path)
    config = (folder / "tokenizer_config.json").read_text()
    changed = config.replace(
        '"clean_up_tokenization_spaces": false', '"clean_up_tokenization_spaces": true'
    )
    assert changed != config
    (folder / "tokenizer_config.json").write_text(changed)
    engine = load_engine(f"hf:{folder}")
    ids = tiny._chat.encode_continuation("x != y , z", close=False)
    assert concurrency.run(engine.decode(Prompt((USER,)), ids)) == (None, "x != y , z")
    engine.close()


def test_a_template_that_drops_later_questions_is_refused() -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = (
        "{% for m in messages %}{% if loop.first or m['role'] == 'assistant' %}"
        "<|im_start|>{{ m['content'] }}<|im_end|>{% endif %}{% endfor %}"
    )
    chat = ChatFormat(tokenizer)
    assert chat.encode(Prompt((Message("user", "fox"),)))
    turns = Message("user", "fox"), Message("assistant", "cat"), Message("user", "dog")
    with pytest.raises(EngineError, match="drops the text of user messages"):
        chat.encode(Prompt(turns))
