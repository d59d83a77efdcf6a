"""Recorded responses as pools: gold, columns and tokens, and what is said of rows without."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from bestofn.engines.model_files import load_tokenizer, locate
from bestofn.store import pool
from bestofn.types import Pool

SCRIPT = Path(__file__).parents[2] / "recipes" / "recorded_pools.py"
JUDGED = {
    "id": 7,
    "prompt": "Name a fruit.",
    "kind": "list",
    "candidates": [
        {"model": "a", "text": "apple", "preference": 0.75},
        {"model": "b", "text": "none", "gold": False},
    ],
}
PAIR = {"prompt": "Name a fruit.", "chosen": ["plum"], "rejected": ["car", "bus"], "subset": "s"}


def pools_of(
    folder: Path, rows: list[Any], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> list[Pool]:
    source, output = folder / "rows.jsonl", folder / "pool.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr("sys.argv", [str(SCRIPT), str(source), "-o", str(output), *arguments])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    return list(pool.read(output))


def test_both_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged, pair = pools_of(tmp_path, [JUDGED, PAIR], monkeypatch)
    assert (judged.prompt.id, judged.prompt.messages[-1].content) == ("7", "Name a fruit.")
    assert judged.prompt.columns == {"kind": "list", "models": ["a", "b"]}
    assert [(c.text, c.scores["gold"].value) for c in judged.candidates] == [
        ("apple", 0.75),
        ("none", 0.0),
    ]
    assert pair.prompt.columns == {"subset": "s"}
    assert [(c.text, c.scores["gold"].value) for c in pair.candidates] == [
        ("plum", 1.0),
        ("car", 0.0),
        ("bus", 0.0),
    ]
    assert pair.candidates[0].token_ids is None


def test_a_prompt_can_be_a_chat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "A fruit?"}]
    (pair,) = pools_of(tmp_path, [PAIR | {"prompt": chat}], monkeypatch)
    assert [message.content for message in pair.prompt.messages] == ["Be brief.", "A fruit?"]


def test_tokens_are_those_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = load_tokenizer(locate("tiny"))
    spelled = PAIR | {"rejected": ["car", f"a {tokenizer.eos_token} in the middle"]}
    (pair,) = pools_of(tmp_path, [spelled], monkeypatch, "--tokenizer", locate("tiny"))
    for candidate in pair.candidates:
        assert candidate.token_ids
        assert tokenizer.decode(candidate.token_ids) == candidate.text
        assert candidate.token_count == len(candidate.token_ids)
        assert tokenizer.eos_token_id not in candidate.token_ids


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "x"}, "line 2: neither candidates nor chosen and rejected responses"),
        (PAIR | {"chosen": "plum"}, "line 2: the field 'chosen'"),
        (JUDGED | {"candidates": [{"text": "a"}]}, "line 2: the field 'candidates.0.gold'"),
        (JUDGED | {"candidates": [{"text": "a", "gold": "NaN"}]}, "a finite number"),
        (PAIR, "line 2: the prompt or id of"),
        ({"chosen": ["a"]}, "line 2: the field 'prompt' is missing"),
    ],
)
def test_a_wrong_row_is_named(
    row: Any,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        pools_of(tmp_path, [PAIR, row], monkeypatch)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
