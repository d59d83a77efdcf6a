"""The parser against what models really write."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bestofn.rewards.parsing import MAX_CHARACTERS, Parsed, parse_field, parse_plain

GOOD = "Write a poem about rain."

FIELD_CASES = {
    # --- the value is there ---
    "as asked": ('{"reasoning": "It rhymes.", "instruction": "Write a poem about rain."}', GOOD),
    "only the field": ('{"instruction": "Write a poem about rain."}', GOOD),
    "pretty-printed": (
        '{\n  "reasoning": "It rhymes.",\n  "instruction": "Write a poem about rain."\n}',
        GOOD,
    ),
    "fenced": ('```json\n{"instruction": "Write a poem about rain."}\n```', GOOD),
    "fenced without a language": ('```\n{"instruction": "Write a poem about rain."}\n```', GOOD),
    "fence never closed": ('```json\n{"instruction": "Write a poem about rain."}', GOOD),
    "fenced and pretty": (
        'Sure:\n```JSON\n{\n "reasoning": "r",\n "instruction": "Write a poem about rain."\n}\n```',
        GOOD,
    ),
    "text before": ('Here you go: {"instruction": "Write a poem about rain."}', GOOD),
    "text behind": ('{"instruction": "Write a poem about rain."} I hope this helps!', GOOD),
    "braces in the text before": (
        'The set {1, 2} is not it. {"instruction": "Write a poem about rain."}',
        GOOD,
    ),
    "two objects, the last counts": (
        '{"instruction": "Draft."} No, better: {"instruction": "Write a poem about rain."}',
        GOOD,
    ),
    "another object behind": ('{"instruction": "Write a poem about rain."} {"note": 1}', GOOD),
    "a list of one object": ('[{"instruction": "Write a poem about rain."}]', GOOD),
    "a list of a reasoning and an answer": (
        '[{"reasoning": "r"}, {"instruction": "Write a poem about rain."}]',
        GOOD,
    ),
    "nested one level": ('{"answer": {"instruction": "Write a poem about rain."}}', GOOD),
    "upper-case key": ('{"INSTRUCTION": "Write a poem about rain."}', GOOD),
    "title-case key": ('{"Instruction": "Write a poem about rain."}', GOOD),
    "padded key": ('{" instruction ": "Write a poem about rain."}', GOOD),
    "single quotes": ("{'reasoning': 'r', 'instruction': 'Write a poem about rain.'}", GOOD),
    "trailing comma": ('{"instruction": "Write a poem about rain.",}', GOOD),
    "missing comma": ('{"reasoning": "r" "instruction": "Write a poem about rain."}', GOOD),
    "unquoted key": ('{instruction: "Write a poem about rain."}', GOOD),
    "comment": ('{"instruction": "Write a poem about rain." // done\n}', GOOD),
    "cut behind the value": ('{"reasoning": "r", "instruction": "Write a poem about rain."', GOOD),
    "cut in a later field": (
        '{"instruction": "Write a poem about rain.", "confidence": "very hi',
        GOOD,
    ),
    "line break inside the value": ('{"instruction": "Write a\npoem."}', "Write a\npoem."),
    "escaped line break": ('{"instruction": "Write a\\npoem."}', "Write a\npoem."),
    "escaped quotes": ('{"instruction": "Say \\"hi\\" twice."}', 'Say "hi" twice.'),
    "bare quotes inside": ('{"instruction": "Say "hi" twice."}', 'Say "hi" twice.'),
    "apostrophe": ('{"instruction": "What\'s new?"}', "What's new?"),
    "unicode": ('{"instruction": "写一首关于雨的诗。"}', "写一首关于雨的诗。"),
    "unicode escapes": ('{"instruction": "caf\\u00e9"}', "café"),
    "white space around": ('\n\n  {"instruction": "  Write a poem about rain.  "}  \n', GOOD),
    "list of one string as value": ('{"instruction": ["Write a poem about rain."]}', GOOD),
    "thinking before": ('<think>Hm {"a"</think>{"instruction": "Write a poem about rain."}', GOOD),
    "only a closing tag": ('it rhymes</think>\n{"instruction": "Write a poem about rain."}', GOOD),
    "braces in the value": ('{"instruction": "Explain {x} and }."}', "Explain {x} and }."),
}
FAILURES = {
    "empty": ("", "empty"),
    "white space": (" \n\t ", "empty"),
    "plain text": ("Write a poem about rain.", "no JSON"),
    "a number": ("42", "no JSON"),
    "field missing": ('{"reasoning": "It rhymes."}', "missing field"),
    "empty object": ("{}", "missing field"),
    "empty value": ('{"instruction": ""}', "empty"),
    "blank value": ('{"instruction": "  "}', "empty"),
    "null": ('{"instruction": null}', "wrong type"),
    "number": ('{"instruction": 7}', "wrong type"),
    "object": ('{"instruction": {"text": "x"}}', "wrong type"),
    "list of two": ('{"instruction": ["a", "b"]}', "wrong type"),
    "cut inside the value": ('{"reasoning": "r", "instruction": "Write a poem ab', "truncated"),
    "unclosed thinking": ('<think>It could be {"instruction": "x"}', "unclosed thinking"),
    "thinking alone": ("<think>It rhymes.</think>", "empty"),
    "a flood of braces": ("{" * 9_000, "no JSON"),
    "a flood of brackets": ("[" * 9_000 + '{"instruction": "x"}', "no JSON"),
    "a runaway": ("x" * (MAX_CHARACTERS + 1), "too long"),
}


@pytest.mark.parametrize(("output", "expected"), FIELD_CASES.values(), ids=FIELD_CASES)
def test_field_is_found(output: str, expected: str) -> None:
    assert parse_field(output, "instruction") == Parsed(text=expected)


@pytest.mark.parametrize(("output", "reason"), FAILURES.values(), ids=FAILURES)
def test_failure_has_its_reason(output: str, reason: str) -> None:
    assert parse_field(output, "instruction") == Parsed(reason=reason)


def test_cut_before_the_field_is_a_truncation_if_the_limit_was_reached() -> None:
    assert parse_field('{"reasoning": "It rhy', "instruction", truncated=True).reason == "truncated"


@pytest.mark.parametrize(
    "key", ["INFERRED INSTRUCTION", "inferred_instruction", "Inferred-Instruction"]
)
def test_key_spelling_does_not_count(key: str) -> None:
    assert parse_field(json.dumps({key: GOOD}), "INFERRED INSTRUCTION").text == GOOD


@given(st.text())
def test_any_output_gives_text_or_a_reason(output: str) -> None:
    for parsed in (parse_field(output, "instruction"), parse_plain(output)):
        assert (parsed.text is None) != (parsed.reason is None)
        assert parsed.text is None or parsed.text.strip()


@given(st.text(min_size=1).filter(lambda text: text.strip() and "<" not in text))
def test_well_formed_json_round_trips(text: str) -> None:
    output = json.dumps({"reasoning": "r", "instruction": text}, ensure_ascii=False)
    assert parse_field(output, "instruction").text == text.strip()


PLAIN_CASES = {
    "as asked": ("Write a poem.", "Write a poem."),
    "quoted": ('"Write a poem."', "Write a poem."),
    "curly quotes": ("“Write a poem.”", "Write a poem."),
    "quotes inside only": ('"Yes" or "no"?', '"Yes" or "no"?'),
    "label": ("Instruction: Write a poem.", "Write a poem."),
    "bold label": ("**Instruction:** Write a poem.", "Write a poem."),
    "label and quotes": ('The instruction is: "Write a poem."', "Write a poem."),
    "several lines": ("Write a poem.\nMake it rhyme.", "Write a poem.\nMake it rhyme."),
    "thinking": ("<think>hm</think>\n\nWrite a poem.", "Write a poem."),
}


@pytest.mark.parametrize(("output", "expected"), PLAIN_CASES.values(), ids=PLAIN_CASES)
def test_plain_answer(output: str, expected: str) -> None:
    assert parse_plain(output) == Parsed(text=expected)


@pytest.mark.parametrize(
    ("output", "truncated", "reason"),
    [
        ("", False, "empty"),
        ('""', False, "empty"),
        ("Instruction:", False, "empty"),
        ("<think>hm", False, "unclosed thinking"),
        ("Write a po", True, "truncated"),
    ],
)
def test_plain_failure(output: str, truncated: bool, reason: str) -> None:
    assert parse_plain(output, truncated=truncated) == Parsed(reason=reason)
