"""The parser against what models really write."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bestofn.rewards.parsing import REPAIR_LIMIT, Parsed, parse_field, parse_plain

FIELD = "INFERRED INSTRUCTION"
GOOD = "Write a poem about rain."
KEYED = f'"{FIELD}": "{GOOD}"'
OBJECT = f"{{{KEYED}}}"

FOUND = {
    # --- well-formed, in some dress ---
    "as asked": (f'{{"REASONING": "It rhymes.", {KEYED}}}', GOOD),
    "the field first": (f'{{{KEYED}, "REASONING": "It rhymes."}}', GOOD),
    "pretty-printed": (f'{{\n  "REASONING": "It rhymes.",\n  {KEYED}\n}}\n', GOOD),
    "fenced": (f"```json\n{OBJECT}\n```", GOOD),
    "fence never closed": (f"```json\n{OBJECT}", GOOD),
    "fence inside the value": (f'{{"{FIELD}": "Run ```ls``` twice."}}', "Run ```ls``` twice."),
    "text before": (f"Here you go: {OBJECT}", GOOD),
    "text behind": (f"{OBJECT} I hope this helps!", GOOD),
    "braces in the text before": (f"From {{a, b}} and \\frac{{1}}{{2}} I infer {OBJECT}", GOOD),
    "braces in the text behind": (f"{OBJECT} (as {{you}} see)", GOOD),
    "braces in the value": (f'{{"{FIELD}": "Explain {{x}} and }}."}}', "Explain {x} and }."),
    "byte-order mark": (f"\ufeff{OBJECT}", GOOD),
    "escaped quotes": (f'{{"{FIELD}": "Say \\"hi\\" twice."}}', 'Say "hi" twice.'),
    "escaped letters": (f'{{"{FIELD}": "caf\\u00e9 \\ud83d\\ude00"}}', "café 😀"),
    "half a surrogate pair": (f'{{"{FIELD}": "a \\ud83d"}}', "a \ufffd"),
    # --- several objects, lists, nesting ---
    "two objects, the last counts": (f'{{"{FIELD}": "Draft."}} Better: {OBJECT}', GOOD),
    "the last is malformed": (f'{{"{FIELD}": "Draft."}} or {{\'{FIELD}\': "{GOOD}",}}', GOOD),
    "the first is malformed": (f"{{'{FIELD}': 'Draft.'}} or {OBJECT}", GOOD),
    "another object behind": (f'{OBJECT} {{"note": 1}}', GOOD),
    "the same key twice": (f'{{"{FIELD}": "Draft.", {KEYED}}}', GOOD),
    "nested one level": (f'{{"answer": {OBJECT}}}', GOOD),
    "doubled braces": (f"{{{OBJECT}}}", GOOD),
    "list of one string": (f'{{"{FIELD}": ["{GOOD}"]}}', GOOD),
    # --- keys ---
    "lower-case key": (f'{{"inferred instruction": "{GOOD}"}}', GOOD),
    "underscore": (f'{{"inferred_instruction": "{GOOD}"}}', GOOD),
    "bold key": (f'{{"**{FIELD}**": "{GOOD}"}}', GOOD),
    # --- malformed, mended by json_repair ---
    "single quotes": (f"{{'REASONING': 'r', '{FIELD}': '{GOOD}'}}", GOOD),
    "trailing comma": (f"{{{KEYED},}}", GOOD),
    "missing comma": (f'{{"REASONING": "r" {KEYED}}}', GOOD),
    "unquoted key": (f'{{INFERRED_INSTRUCTION: "{GOOD}"}}', GOOD),
    "unquoted value": (f'{{"{FIELD}": {GOOD}}}', GOOD),
    "raw line break, trailing comma": (f'{{"{FIELD}": "Write a\npoem.",}}', "Write a\npoem."),
    "bare quotes and a comma": (f'{{"{FIELD}": "Say "hi", then go."}}', 'Say "hi", then go.'),
    "bare quotes in the reasoning": (f'{{"REASONING": "The "rain" part", {KEYED}}}', GOOD),
    "closing quote forgotten": (f'{{"{FIELD}": "{GOOD}}}', GOOD),
    "all quotes escaped": (f'{{\\"{FIELD}\\": \\"{GOOD}\\"}}', GOOD),
    "malformed in a fence": (f"Use {{x}}:\n```json\n{{'{FIELD}': '{GOOD}'}}\n```", GOOD),
    # --- cut, but behind the value ---
    "brace missing": (f'{{"REASONING": "r", {KEYED}', GOOD),
    "brace missing in a fence": (f"```json\n{{{KEYED}\n```", GOOD),
    "cut in a later value": (f'{{{KEYED}, "CONFIDENCE": "very hi', GOOD),
    # --- thinking ---
    "thinking before": (f'<think>Perhaps {{"{FIELD}": "no"}}</think>{OBJECT}', GOOD),
    "only a closing tag": (f'Perhaps {{"{FIELD}": "no"}}</think>\n{OBJECT}', GOOD),
    "a tag behind it": (f"{OBJECT} <thinking>or", GOOD),
    "a tag in a malformed value": (f"{{'{FIELD}': 'Explain <think>.',}}", "Explain <think>."),
    "a tag in the value": (f'{{"{FIELD}": "Explain <think>."}}', "Explain <think>."),
}
FAILED = {
    "nothing": ("", "empty"),
    "thinking alone": ("<think>It rhymes.</think>\n", "empty"),
    "empty value": (f'{{"{FIELD}": ""}}', "empty"),
    "the last of two is empty": (f'{OBJECT} {{"{FIELD}": ""}}', "empty"),
    "unclosed thinking": (f"<think>It could be {OBJECT}", "unclosed_thinking"),
    "plain text": (GOOD, "no_json"),
    "labelled text": (f"{FIELD}: {GOOD}", "no_json"),
    "a list of text": (f'["{GOOD}"]', "no_json"),
    "braces in prose": ("Solve \\frac{a}{b} for {x}.", "no_json"),
    "field missing": ('{"REASONING": "It rhymes."}', "missing_field"),
    "another key": (f'{{"INSTRUCTION": "{GOOD}"}}', "missing_field"),
    "quoted in the reasoning": (json.dumps({"REASONING": f"as {OBJECT}"}), "missing_field"),
    "what breaks the library": ("{'```json\n1```json\n", "missing_field"),
    "and with the field": (f"{{'```json\n1```json\n {KEYED}", "missing_field"),
    "null": (f'{{"{FIELD}": null}}', "wrong_type"),
    "number": (f'{{"{FIELD}": 7}}', "wrong_type"),
    "empty list": (f'{{"{FIELD}": []}}', "wrong_type"),
    "list of two": (f'{{"{FIELD}": ["a", "b"]}}', "wrong_type"),
    "cut in the value": (f'{{"REASONING": "r", "{FIELD}": "Write a po', "truncated"),
    "cut in a single-quoted value": (f"{{'{FIELD}': 'Write a po", "truncated"),
    "cut behind an apostrophe": (f"{{'{FIELD}': 'It's a po", "truncated"),
    "cut behind an inner quote": (f'{{"{FIELD}": "Say \\"hi\\"', "truncated"),
    "cut in an escape": (f'{{"{FIELD}": "caf\\u00', "truncated"),
    "cut before the value": (f'{{"{FIELD}":', "truncated"),
    "cut where the reasoning says the same": (
        f'{{"REASONING": "Write a poem.", "{FIELD}": "Write a po',
        "truncated",
    ),
    "the last of two is cut": (f'{OBJECT} Better: {{"{FIELD}": "Write a so', "truncated"),
    "a flood of braces": ("{" * 100_000, "no_json"),
    "a flood of keys": ('{"a":' * 20_000, "missing_field"),
    "a flood of tags": ("<think>" * 20_000, "unclosed_thinking"),
    "deep nesting": ('{"a":' * 2_000 + "1" + "}" * 2_000, "missing_field"),
    "hostile brackets behind the field": (f'{{"{FIELD}": ' + "{[}]" * 25_000, "too_long"),
    "too long to mend": (f"{{{KEYED}, " + "x" * REPAIR_LIMIT, "too_long"),
}
AT_THE_LIMIT = {
    "well-formed": (OBJECT, Parsed(GOOD)),
    "closed string": (f"{{{KEYED}", Parsed(GOOD)),
    "text behind": (f"{OBJECT} I hope that", Parsed(GOOD)),
    "in the value": (f'{{"{FIELD}": "Write a po', Parsed(reason="truncated")),
    "in the value, behind a brace": (f'{{"{FIELD}": "Use {{x}}', Parsed(reason="truncated")),
    "in the reasoning": ('{"REASONING": "It rhy', Parsed(reason="truncated")),
    "before any JSON": ("Let me see. The text", Parsed(reason="truncated")),
    "in the thinking": ("<think>Let me", Parsed(reason="unclosed_thinking")),
    "at once": ("", Parsed(reason="empty")),
    "well-formed without the field": ('{"REASONING": "r"}', Parsed(reason="truncated")),
}


@pytest.mark.parametrize(("output", "expected"), FOUND.values(), ids=FOUND)
def test_field_is_found(output: str, expected: str) -> None:
    assert parse_field(output, FIELD) == Parsed(expected)


@pytest.mark.parametrize(("output", "reason"), FAILED.values(), ids=FAILED)
def test_failure_has_its_reason(output: str, reason: str) -> None:
    assert parse_field(output, FIELD) == Parsed(reason=reason)


@pytest.mark.parametrize(("output", "expected"), AT_THE_LIMIT.values(), ids=AT_THE_LIMIT)
def test_output_cut_at_the_token_limit(output: str, expected: Parsed) -> None:
    assert parse_field(output, FIELD, truncated=True) == expected


@pytest.mark.parametrize("quote", ['"', "'"])
def test_no_cut_of_a_string_is_a_score(quote: str) -> None:
    """Wherever the value is cut, what is left of it does not count."""
    output = f"{{{quote}REASONING{quote}: {quote}r{quote}, {quote}{FIELD}{quote}: {quote}{GOOD}"
    for length in range(len(output) + 1):
        assert parse_field(output[:length], FIELD).text is None
        assert parse_field(output[:length], FIELD, truncated=True).text is None
    assert parse_field(output + quote, FIELD, truncated=True) == Parsed(GOOD)


ANY_TEXT = st.text(st.characters(exclude_categories=()))
PIECES = [
    *"{}[]\"':,\\ \n",
    f'"{FIELD}"',
    f'{{"{FIELD}": "',
    "word",
    "```json\n",
    "<think>",
    "</think>",
]
JSON_LIKE = st.lists(st.sampled_from([*PIECES, "null", "“", "\ud800", "\\u00"])).map("".join)


@given(ANY_TEXT | JSON_LIKE, st.booleans())
def test_any_output_gives_a_text_or_a_reason(output: str, truncated: bool) -> None:
    for parsed in (
        parse_field(output, FIELD, truncated=truncated),
        parse_plain(output, truncated=truncated),
    ):
        assert parsed.text is None or parsed.text == parsed.text.strip() != ""
        assert (parsed.text or "x").encode()


@given(st.text().filter(str.strip), st.booleans(), st.sampled_from([None, 2]))
def test_well_formed_json_round_trips(text: str, ascii_only: bool, indent: int | None) -> None:
    output = json.dumps({"REASONING": "r", FIELD: text}, ensure_ascii=ascii_only, indent=indent)
    for dressed in (output, f"```json\n{output}\n```"):
        assert parse_field(dressed, FIELD, truncated=True) == Parsed(text.strip())


PLAIN = {
    "as asked": ("Write a poem.", "Write a poem."),
    "white space": ("\n Write a poem. \n", "Write a poem."),
    "straight quotes": ('"Write a poem."', "Write a poem."),
    "single quotes": ("'Write a poem.'", "Write a poem."),
    "curly quotes": ("“Write a poem.”", "Write a poem."),
    "corner brackets": ("「写一首诗。」", "写一首诗。"),
    "quotes inside": ('Say "hi".', 'Say "hi".'),
    "quotes that are no pair": ('"Yes" or "no"', '"Yes" or "no"'),
    "apostrophe in quotes": ("'What's new?'", "What's new?"),
    "label": ("Instruction: Write a poem.", "Write a poem."),
    "bold label": ("**Instruction:** Write a poem.", "Write a poem."),
    "label as a sentence": ('The most likely instruction is: "Write a poem."', "Write a poem."),
    "label in quotes": ('"Instruction: Write a poem."', "Write a poem."),
    "label with a wide colon": ("指令：写一首诗。", "写一首诗。"),
    "thinking": ("<think>hm</think>\n\nWrite a poem.", "Write a poem."),
    "about thinking": ("Explain <think> and </think>.", "Explain <think> and </think>."),
}


@pytest.mark.parametrize(("output", "expected"), PLAIN.values(), ids=PLAIN)
def test_plain_answer(output: str, expected: str) -> None:
    assert parse_plain(output) == Parsed(expected)


@pytest.mark.parametrize(
    ("output", "truncated", "reason"),
    [
        ("", False, "empty"),
        (" \n", True, "empty"),
        ('""', False, "empty"),
        ("Instruction:", False, "empty"),
        ("<think>hm</think>", False, "empty"),
        ("<think>hm", True, "unclosed_thinking"),
    ],
)
def test_plain_failure(output: str, truncated: bool, reason: str) -> None:
    assert parse_plain(output, truncated=truncated) == Parsed(reason=reason)


def test_a_plain_text_that_was_cut_is_the_beginning_of_one() -> None:
    assert parse_plain('Instruction: "Write a po', truncated=True) == Parsed(
        '"Write a po', cut=True
    )


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ('{"score": 7}', "7"),
        ('{"score": 7.5}', "7.5"),
        ('{"score": [7]}', "7"),
        ("{'score': 7,}", "7"),
        ('{"score": "seven"}', "seven"),
    ],
)
def test_a_number_may_stand_for_its_text(output: str, text: str) -> None:
    assert parse_field(output, "score", numbers=True) == Parsed(text)


@pytest.mark.parametrize("value", ["true", "null", "{}", "[1, 2]"])
def test_other_values_are_no_text(value: str) -> None:
    found = parse_field(f'{{"score": {value}}}', "score", numbers=True)
    assert found == Parsed(reason="wrong_type")


def test_a_number_that_was_cut_is_none() -> None:
    found = parse_field('{"score": 1', "score", numbers=True, truncated=True)
    assert found.text is None
