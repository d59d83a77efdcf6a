"""IFEval's instructions: each kind followed and violated, strict and loose, and what cannot be."""

import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import nltk
import pytest
from if_verifiable.ifeval import instructions_util
from if_verifiable.ifeval.instructions_registry import INSTRUCTION_DICT

from bestofn.errors import ConfigError
from bestofn.prompts import as_prompt
from bestofn.types import Prompt
from bestofn.verifiers import load_verifier
from bestofn.verifiers.checker import CheckError
from bestofn.verifiers.ifeval import follows

LEAST, LESS = "at least", "less than"
GERMAN = "Der alte Mann sitzt am Fenster und schaut auf die stille Straße hinaus."
ENGLISH = "the old man sits at the window and looks out at the quiet street."

# Kind, arguments, a response that follows, one that does not.
KINDS: list[tuple[str, dict[str, Any], str, str]] = [
    ("keywords:existence", {"keywords": ["soil", "rain"]}, "Rain wets soil.", "Rain falls."),
    ("keywords:frequency", {"keyword": "a", "frequency": 2, "relation": LEAST}, "A, a.", "A."),
    ("keywords:forbidden_words", {"forbidden_words": ["soil"]}, "Toil.", "Wet soil."),
    (
        "keywords:letter_frequency",
        {"letter": "z", "let_frequency": 2, "let_relation": LESS},
        "A zoo.",
        "A pizza.",
    ),
    ("language:response_language", {"language": "de"}, GERMAN, ENGLISH),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": LEAST},
        "One is here. Two is there.",
        "One is here",
    ),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "One\n***\nTwo", "One\n\nTwo"),
    (
        "length_constraints:number_words",
        {"num_words": 3, "relation": LESS},
        "Two words",
        "Here, three words",
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"},
        "First it rained.\n\nThen it stopped.",
        "Then it rained.\n\nFirst it stopped.",
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name], [date]", "[name]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\nP.S. Call.", "Bye."),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n- b", "* a\nb"),
    ("detectable_format:constrained_response", {}, "My answer is no.", "No."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "A *b* c", "A ** c"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        "Section 1\na\nSection 2\nb",
        "Section 1\na",
    ),
    ("detectable_format:json_format", {}, '```json\n{"a": [1]}\n```', '{"a": }'),
    ("detectable_format:title", {}, "<<rain>>\nIt falls.", "<rain>\nIt falls."),
    ("combination:two_responses", {}, "Yes\n******\nNo", "Yes\n******\nYes"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say hi."}, "Say hi. Hi!", "Hi! Say hi."),
    ("startend:end_checker", {"end_phrase": "That is all."}, "Hi. That is all.", "That is. Hi."),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": LEAST},
        "VERY NICE",
        "VERY nice",
    ),
    ("change_case:english_capital", {}, ENGLISH.upper(), ENGLISH),
    ("change_case:english_lowercase", {}, ENGLISH, ENGLISH.capitalize()),
    ("punctuation:no_comma", {}, "One and two", "One, two"),
    ("startend:quotation", {}, '"All of it"', '"Some" of it'),
]


def prompt(*instructions: tuple[str, dict[str, Any]]) -> Prompt:
    """A row with the columns of google/IFEval, where an argument not taken is None."""
    names = sorted({name for _, arguments, *_ in KINDS for name in arguments})
    columns = {
        "key": 7,
        "prompt": "Write something.",
        "instruction_id_list": [kind for kind, _ in instructions],
        "kwargs": [dict.fromkeys(names) | arguments for _, arguments in instructions],
    }
    return as_prompt("Write something.", id="i7", columns=columns)


# Starting the other process takes seconds, so tests share it.
verifier_of = cache(load_verifier)


def forget_sentences() -> None:
    instructions_util._get_sentence_tokenizer.cache_clear()
    nltk.tokenize._get_punkt_tokenizer.cache_clear()


@pytest.fixture
def sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Data of nltk that know no abbreviations, in place of those that are to be downloaded."""
    folder = tmp_path / "tokenizers" / "punkt_tab" / "english"
    folder.mkdir(parents=True)
    for name in ("collocations.tab", "sent_starters.txt", "abbrev_types.txt", "ortho_context.tab"):
        (folder / name).touch()
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    forget_sentences()
    yield tmp_path
    forget_sentences()


def test_all_kinds_are_here() -> None:
    assert {kind for kind, *_ in KINDS} == {*INSTRUCTION_DICT}


@pytest.mark.parametrize(("kind", "arguments", "good", "bad"), KINDS)
def test_kinds(kind: str, arguments: dict[str, Any], good: str, bad: str, sentences: Path) -> None:
    for loose in (False, True):
        assert follows([(kind, arguments)], good, loose) is True
        assert follows([(kind, arguments)], bad, loose) is False
        assert follows([(kind, arguments)], " \n", loose) is False


@pytest.mark.parametrize(
    "kind", ["length_constraints:number_sentences", "change_case:capital_word_frequency"]
)
def test_kinds_that_need_data(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = next(arguments for name, arguments, *_ in KINDS if name == kind)
    monkeypatch.setattr(nltk.data, "path", [])
    forget_sentences()
    for loose in (False, True):
        with pytest.raises(CheckError, match=f"^{kind}: .*python -m nltk.downloader punkt_tab$"):
            follows([(kind, arguments)], "One. TWO.", loose)
        # A broken instruction decides, whatever the others would say.
        both = [(kind, arguments), ("punctuation:no_comma", {})]
        assert follows(both, "One, TWO.", loose) is False


def test_all_instructions_count() -> None:
    verifier = verifier_of("ifeval")
    asked = prompt(("punctuation:no_comma", {}), ("keywords:existence", {"keywords": ["rain"]}))
    assert verifier(asked, "No rain today") is True
    assert verifier(asked, "No, rain") is False
    assert verifier(asked, "No sun") is False
    assert verifier(asked, "") is False
    assert verifier.answer(" No rain\n") == "No rain"


@pytest.mark.parametrize(
    ("response", "loose"),
    [
        ('Sure:\n"All of it"', True),
        ('"All of it"\nAnything else?', True),
        ('Sure:\n"All of it"\nAnything else?', True),
        ('**"All of it"**', True),
        ('Sure:\n**"All of it"**\nAnything else?', True),
        ('So be it:\n\n"All of it"', True),
        ('Sure: "All of it"', False),
        ("", False),
        ("\n***\n", False),
    ],
)
def test_loose(response: str, loose: bool) -> None:
    asked = prompt(("startend:quotation", {}))
    assert verifier_of("ifeval")(asked, response) is False
    assert verifier_of("ifeval:loose")(asked, response) is loose


def test_a_sign_is_counted_as_itself() -> None:
    for seed in range(5):
        random.seed(seed)
        for relation, enough in ((LEAST, True), (LESS, False)):
            arguments = {"letter": "#", "let_frequency": 2, "let_relation": relation}
            rule = [("keywords:letter_frequency", arguments)]
            assert follows(rule, "#rain #sun", False) is enough
            assert follows(rule, "rain and sun and " * 30, False) is not enough


@pytest.mark.parametrize("loose", [False, True])
def test_no_language_is_no_verdict(loose: bool) -> None:
    german = [("language:response_language", {"language": "de"})]
    with pytest.raises(CheckError, match="language:response_language: no language was detected"):
        follows(german, "12345", loose)
    # A response in another language is wrong, though one of its lines alone could be in any.
    assert follows(german, ENGLISH + "\n12345", loose) is False
    with pytest.raises(CheckError, match="change_case:english_capital: no language"):
        follows([("change_case:english_capital", {})], "INFO@EXAMPLE.ORG", loose)


NO_COMMA = "punctuation:no_comma"
LETTERS = "keywords:letter_frequency"


@pytest.mark.parametrize(
    ("kinds", "kwargs", "message"),
    [
        (NO_COMMA, [{}], "column 'instruction_id_list' of prompt 'i7' must be a list"),
        ([NO_COMMA], {"a": 1}, "column 'kwargs' of prompt 'i7' must be a list of map"),
        ([NO_COMMA], [], "prompt 'i7' needs as many instruction ids as mappings"),
        ([], [], "prompt 'i7' needs as many"),
        ([5], [{}], "prompt 'i7' needs as many"),
        ([NO_COMMA], ["{}"], "prompt 'i7' needs as many"),
        (["zzz"], [{}], "prompt 'i7': IFEval has no instruction 'zzz'$"),
        ([NO_COMMA], [{"a": 1}], "prompt 'i7': instruction 'punctuation:no_comma' cannot have"),
        (["startend:end_checker"], [{"end_phrase": None}], "cannot have the arguments {}"),
        (
            ["length_constraints:number_words"],
            [{"num_words": 5, "relation": "exactly"}],
            "cannot have .*exactly",
        ),
        (["length_constraints:number_paragraphs"], [{"num_paragraphs": -1}], "cannot have .*-1"),
        (["keywords:forbidden_words"], [{"forbidden_words": []}], r"cannot have .*\[\]"),
        (["language:response_language"], [{"language": "xx"}], "cannot have .*'xx'"),
        ([LETTERS], [{"letter": "ab", "let_frequency": 1, "let_relation": LEAST}], "'ab'"),
    ],
)
def test_columns_that_are_not_usable(kinds: object, kwargs: object, message: str) -> None:
    columns = {"instruction_id_list": kinds, "kwargs": kwargs}
    asked = as_prompt("Write something.", id="i7", columns=columns)
    with pytest.raises(ConfigError, match=message):
        verifier_of("ifeval")(asked, "anything")
