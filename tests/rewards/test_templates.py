"""Templates: what is built in, what loads by path, what is refused."""

from pathlib import Path

import pytest

from bestofn.errors import ConfigError
from bestofn.rewards.templates import load_judge_template, load_template


@pytest.mark.parametrize("name", ["direct", "reasoned"])
def test_order_suits_the_prefix_cache(name: str) -> None:
    """System text and header first, then the response, then the cue; only the response varies."""
    template = load_template(name)
    first, second = template.fill("AAAA"), template.fill("BBBB")
    assert first.messages[0] == second.messages[0]
    before, after = first.messages[1].content.split("AAAA")
    assert second.messages[1].content == f"{before}BBBB{after}"
    assert before
    assert after


def test_context_stands_before_the_response() -> None:
    text = load_template("direct").fill("RESPONSE", "User: Hello.").messages[1].content
    assert text.index("User: Hello.") < text.index("RESPONSE")


def test_the_target_is_named() -> None:
    assert "system prompt" in load_template("direct").fill("x", "c", "system").messages[0].content


def test_braces_in_responses_are_data() -> None:
    response = '{"a": {response}} {context} {0}'
    assert response in load_template("reasoned").fill(response).messages[1].content


def test_the_papers_files_load_by_folder(tmp_path: Path) -> None:
    (tmp_path / "FLIP_SYSTEM.prompt").write_text('Answer as {{"INFERRED INSTRUCTION": "..."}}')
    (tmp_path / "FLIP_USER.prompt").write_text("Look:\n{response}\n")
    template = load_template(tmp_path)
    prompt = template.fill("RESPONSE")
    assert prompt.messages[0].content == 'Answer as {"INFERRED INSTRUCTION": "..."}'
    assert prompt.messages[1].content == "Look:\nRESPONSE\n"
    assert template.field == "INFERRED INSTRUCTION"
    (tmp_path / "llmjudge_listwise_ranking_SYSTEM.prompt").write_text("Pick.")
    (tmp_path / "llmjudge_listwise_ranking_USER.prompt").write_text("{prompt}: {response_list}")
    judge = load_judge_template(tmp_path, "listwise")
    assert judge.field == "BEST_RESPONSE_INDEX"
    assert judge.listed(["x", "y"]) == "[0]\nx\n\n[1]\ny"  # the paper counts from 0


def test_a_folder_does_not_hide_a_built_in_template(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "direct").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_template("direct").output == "text"


def test_a_yaml_file_loads_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("system: S\nuser: 'U {response}'\noutput: text\n")
    assert load_template(path).fill("x").messages[1].content == "U x"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("- a\n- b\n", "it must be a mapping, not list"),
        ("a: [", "while parsing a flow node"),
        ("system: [a]\nuser: '{response}'\noutput: text\n", "key 'system' is wrong: Input should"),
        ("system: S\nuser: no place\noutput: text\n", "response"),
        ("system: S\nuser: '{response}'\noutput: json\n", "field"),
        ("system: S\nuser: '{response}'\noutput: text\ncolour: red\n", "colour"),
        ("system: S\nuser: '{response} {instruction}'\noutput: text\n", "format string"),
        ("system: '{'\nuser: '{response}'\noutput: text\n", "format string"),
    ],
)
def test_malformed_templates_are_refused(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=match) as raised:
        load_template(path)
    assert "bad.yaml" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("user: '{prompt}'\nfield: score\n", "no {response}"),
        ("user: '{response}'\nfield: score\n", "no {prompt}"),
        ("user: '{prompt} {response} {answer}'\nfield: score\n", "format string"),
        ("user: '{prompt} {response}'\n", "field"),
    ],
)
def test_a_judges_template_needs_its_places(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"system: S\n{text}")
    with pytest.raises(ConfigError, match=match):
        load_judge_template(path, "pointwise")


def test_missing_templates_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="direct, opened, reasoned"):
        load_template("nonesuch")
    with pytest.raises(ConfigError, match=r"FLIP_SYSTEM\.prompt"):
        load_template(tmp_path)
