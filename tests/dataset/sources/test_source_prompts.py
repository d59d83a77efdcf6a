"""Prompts from files, data sets and the tiny world; what is wrong is named by its place."""

import datetime
import json
import sys
from math import nan
from pathlib import Path
from typing import Any

import pytest

from bestofn.dataset.sources import read_prompts
from bestofn.errors import ConfigError
from bestofn.store import pool
from bestofn.tiny import heldout_tasks
from bestofn.types import Candidate, Pool

ROWS = [{"prompt": f"What is {n} and {n}?", "key": n, "answer": 2 * n} for n in range(8)]


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def source(tmp_path: Path) -> str:
    return written(tmp_path / "prompts.jsonl", ROWS)


def asked(source: str, **options: Any) -> list[str]:
    return [prompt.messages[-1].content for prompt in read_prompts(source, **options)]


# --- files ----------------------------------------------------------------------------------------


def test_prompts_of_a_file_with_their_other_columns(source: str) -> None:
    prompts = read_prompts(source)
    assert [p.messages[-1].content for p in prompts] == [row["prompt"] for row in ROWS]
    assert prompts[3].columns == {"key": 3, "answer": 6}
    assert len({p.id for p in prompts}) == 8


def test_ids_from_a_column(source: str) -> None:
    prompts = read_prompts(source, id_column="key")
    assert [p.id for p in prompts] == list("01234567")
    assert prompts[3].columns == {"answer": 6}


def test_ids_without_a_column_depend_on_the_content_alone(source: str, tmp_path: Path) -> None:
    reversed_rows = written(tmp_path / "other.jsonl", [{"prompt": r["prompt"]} for r in ROWS[::-1]])
    assert {p.id for p in read_prompts(source)} == {p.id for p in read_prompts(reversed_rows)}


def test_chat_messages(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Count."},
    ]
    source = written(tmp_path / "chats.jsonl", [{"chat": turns}])
    (prompt,) = read_prompts(source, prompt_column="chat")
    assert [(m.role, m.content) for m in prompt.messages] == [
        (turn["role"], turn["content"]) for turn in turns
    ]


def test_a_system_prompt_for_those_that_have_none(tmp_path: Path) -> None:
    own = [{"role": "system", "content": "Own."}, {"role": "user", "content": "Count."}]
    source = written(tmp_path / "p.jsonl", [{"prompt": own}, {"prompt": "Count."}])
    first, second = read_prompts(source, system="Be brief.")
    assert [first.messages[0].content, second.messages[0].content] == ["Own.", "Be brief."]
    (_, plain) = read_prompts(source)
    assert second.id != plain.id


def test_blank_lines_are_none(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('\n{"prompt": "a"}\n  \n{"prompt": "b"}')
    assert asked(str(tmp_path / "p.jsonl"), limit=2) == ["a", "b"]


def test_limit_takes_the_first(source: str) -> None:
    assert asked(source, limit=3) == [row["prompt"] for row in ROWS[:3]]
    assert asked(source, limit=99) == [row["prompt"] for row in ROWS]


def test_limit_does_not_read_on(source: str) -> None:
    with Path(source).open("a") as file:
        file.write("{\n")
    assert len(asked(source, limit=8)) == 8


def test_shuffling_comes_before_the_limit(source: str) -> None:
    shuffled = asked(source, shuffle=1)
    assert shuffled == asked(source, shuffle=1)
    assert shuffled != asked(source)
    assert sorted(shuffled) == sorted(asked(source))
    assert asked(source, shuffle=1, limit=3) == shuffled[:3]
    assert asked(source, shuffle=2) != shuffled


# --- what is wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "a row is a JSON object, not list"),
        ('{"question": "x", "answer": 1}', "no column 'prompt'; the row has 'question', 'answer'"),
        ('{"prompt": " "}', "column 'prompt': the prompt is empty"),
        ('{"prompt": null}', "column 'prompt': a prompt is a string"),
        ('{"prompt": 3}', "column 'prompt': a prompt is a string"),
        ('{"prompt": []}', "column 'prompt': the last message"),
        ('{"prompt": [{"role": "user"}]}', "column 'prompt': a chat message needs"),
    ],
)
def test_a_bad_row_is_named_by_its_line(source: str, line: str, sentence: str) -> None:
    lines = Path(source).read_text().splitlines()
    lines[6] = line
    Path(source).write_text("\n".join(lines))
    with pytest.raises(ConfigError) as caught:
        read_prompts(source)
    assert str(caught.value).startswith(f"{source}, line 7: ")
    assert sentence in str(caught.value)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_bytes(b'{"prompt": "a"}\n{"prompt": "\xe9"}\n')
    with pytest.raises(ConfigError, match="line 2: not JSON"):
        read_prompts(str(tmp_path / "p.jsonl"))


def test_a_missing_id_column_is_named(source: str) -> None:
    with pytest.raises(ConfigError, match="line 1: no column 'id'; the row has 'prompt', 'key'"):
        read_prompts(source, id_column="id")


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("none.jsonl", "there is no file none.jsonl; prompts are a JSONL file"),
        ("tatsu-lab/alpaca_eval", "there is no file tatsu-lab/alpaca_eval; prompts are"),
        ("hf:", "there is no file hf:"),
        (".", "cannot be read"),
        ("tiny:x", "'tiny:COUNT', not 'tiny:x'"),
        ("tiny:", "'tiny:COUNT', not 'tiny:'"),
        ("tiny:0", "'tiny:COUNT', not 'tiny:0'"),
        ("tiny:-1", "'tiny:COUNT', not 'tiny:-1'"),
        ("tiny:²", "'tiny:COUNT', not 'tiny:²'"),
        ("tiny", "there is no file tiny"),
        ("hf:a:b:c:d", "'hf:NAME[:CONFIG][:SPLIT]', not 'hf:a:b:c:d'"),
        ("hf:./nowhere", "the dataset hf:./nowhere cannot be loaded"),
    ],
)
def test_a_source_that_is_none(
    source: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError) as caught:
        read_prompts(source)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_prompts_at_all(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text("\n")
    with pytest.raises(ConfigError, match=r"p\.jsonl holds no prompts"):
        read_prompts(str(tmp_path / "p.jsonl"))


def test_a_limit_below_one(source: str) -> None:
    with pytest.raises(ConfigError, match="limit must be at least 1"):
        read_prompts(source, limit=0)


# --- the tiny world -------------------------------------------------------------------------------


def test_instructions_of_the_tiny_world() -> None:
    prompts = read_prompts("tiny:5")
    assert [p.messages[-1].content for p in prompts] == [t.instruction for t in heldout_tasks(5)]
    assert [p.columns["family"] for p in prompts] == [t.family for t in heldout_tasks(5)]
    assert repr(read_prompts("tiny:5", limit=2)) == repr(prompts[:2])


# --- data sets ------------------------------------------------------------------------------------

MATH = [
    {
        "problem": f"What is ${n} + {n}$?",
        "solution": f"\\boxed{{{2 * n}}}",
        "answer": str(2 * n),
        "subject": "Algebra",
        "level": 1,
        "unique_id": f"test/algebra/{n}.json",
    }
    for n in range(4)
]
IFEVAL = [
    {
        "key": 1000,
        "prompt": "Write two bullet points without commas.",
        "instruction_id_list": ["punctuation:no_comma", "detectable_format:number_bullet_lists"],
        "kwargs": [{"num_bullets": None, "relation": None}, {"num_bullets": 2, "relation": None}],
    },
    {
        "key": 1001,
        "prompt": "Write at most 5 words.",
        "instruction_id_list": ["length_constraints:number_words"],
        "kwargs": [{"num_bullets": None, "relation": "less than"}],
    },
]


@pytest.fixture(scope="module")
def datasets_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The real package, with its cache in a temporary folder."""
    datasets = pytest.importorskip("datasets")
    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("cache")
    yield datasets
    datasets.config.HF_DATASETS_CACHE = before


@pytest.mark.usefixtures("datasets_cache")
def test_a_data_set_like_math_500(tmp_path: Path) -> None:
    written(tmp_path / "test.jsonl", MATH)
    options = {"prompt_column": "problem", "id_column": "unique_id"}
    prompts = read_prompts(f"hf:{tmp_path}:default:test", system="Use boxes.", **options)
    assert [p.messages[-1].content for p in prompts] == [row["problem"] for row in MATH]
    assert [p.id for p in prompts] == [row["unique_id"] for row in MATH]
    assert prompts[1].columns["answer"] == "2"
    assert {p.messages[0].content for p in prompts} == {"Use boxes."}
    assert repr(read_prompts(f"hf:{tmp_path}:test", limit=2, **options)) == repr(
        read_prompts(f"hf:{tmp_path}:test", **options)[:2]
    )


@pytest.mark.usefixtures("datasets_cache")
def test_a_data_set_like_ifeval(tmp_path: Path) -> None:
    written(tmp_path / "train.jsonl", IFEVAL)
    prompts = read_prompts(f"hf:{tmp_path}", id_column="key")
    assert [p.id for p in prompts] == ["1000", "1001"]
    assert prompts[0].columns == {
        name: IFEVAL[0][name] for name in ("instruction_id_list", "kwargs")
    }


@pytest.mark.usefixtures("datasets_cache")
@pytest.mark.parametrize(
    ("end", "sentence"),
    [
        (":nosplit", "cannot be loaded"),
        (":other:train", "cannot be loaded"),
        ("", "row 0: no column 'problem'; the row has 'key', 'prompt'"),
    ],
)
def test_a_data_set_that_does_not_fit(tmp_path: Path, end: str, sentence: str) -> None:
    written(tmp_path / "train.jsonl", IFEVAL)
    with pytest.raises(ConfigError) as caught:
        read_prompts(f"hf:{tmp_path}{end}", prompt_column="problem")
    assert str(caught.value).count(f"hf:{tmp_path}{end}") == 1
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("datasets_cache")
def test_columns_that_json_cannot_hold_come_as_text(tmp_path: Path, datasets_cache: Any) -> None:
    columns = {
        "prompt": ["a"],
        "when": [datetime.datetime(2024, 1, 2)],
        "raw": [b"x"],
        "rate": [nan],
        "tags": [{"rates": [1.0, nan]}],
    }
    datasets_cache.Dataset.from_dict(columns).to_parquet(tmp_path / "train.parquet")
    (prompt,) = read_prompts(f"hf:{tmp_path}")
    assert prompt.columns == {
        "when": "2024-01-02 00:00:00",
        "raw": "b'x'",
        "rate": None,
        "tags": {"rates": [1.0, None]},
    }
    row = Pool(prompt, [Candidate(0, "x")])
    assert pool.loads(pool.dumps(row)).prompt.columns == prompt.columns


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match="pip install"):
        read_prompts("hf:google/IFEval")
