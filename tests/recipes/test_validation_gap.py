"""The recipe of the gap: items of a model's own candidates, and one table of both sides."""

import json
from pathlib import Path

import pytest

from bestofn.errors import ConfigError
from bestofn.prompts import as_prompt
from bestofn.store import pool
from bestofn.types import Candidate, Pool, Score
from recipes import validation_gap


def drawn(name: str, right: int, wrong: int, repeat: int = 1) -> Pool:
    """Right candidates say "right", of growing length; wrong ones "wrong"."""
    texts = [("right" + "!" * (9 + k), 1.0) for k in range(right)]
    texts += [(f"wrong {k}", 0.0) for k in range(wrong)] * repeat
    candidates = [
        Candidate(index, text, scores={"gold": Score(verdict)})
        for index, (text, verdict) in enumerate(texts)
    ]
    return Pool(as_prompt(f"Say {name}.", name, {"subset": "words"}), candidates)


def test_an_item_has_one_right_and_three_different_wrong_answers() -> None:
    task = validation_gap.as_task(drawn("a", 2, 4, repeat=2), seed=0)
    assert task is not None
    assert len(task.item["chosen"]) == 1
    assert task.item["chosen"][0].startswith("right")
    assert len({*task.item["rejected"]}) == 3
    assert task.item["subset"] == "words"
    assert task.pass_at_1 == 2 / 10


@pytest.mark.parametrize(("right", "wrong"), [(0, 5), (3, 2), (3, 0)])
def test_a_prompt_with_too_few_is_left_out(right: int, wrong: int) -> None:
    assert validation_gap.as_task(drawn("a", right, wrong), seed=0) is None


def test_candidates_without_gold_are_refused() -> None:
    row = drawn("a", 1, 3)
    row.candidates[2].scores.clear()
    with pytest.raises(ConfigError, match="'a' has candidates without gold"):
        validation_gap.as_task(row, seed=0)


def test_the_table_has_both_sides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [drawn(f"p{k}", 1 + k % 3, 3 + k % 2) for k in range(12)] + [drawn("none", 0, 4)]
    path = tmp_path / "pool.jsonl"
    path.write_text("".join(pool.dumps(row) + "\n" for row in rows))
    validation_gap.run(path, tmp_path / "out", "tiny", ["longest", "shortest", "first"], 0)
    table = {row["name"]: row for row in json.loads((tmp_path / "out" / "gap.json").read_text())}
    shares = [(1 + k % 3) / (4 + k % 3 + k % 2) for k in range(12)]
    assert table["generator, pass@1"]["accuracy"]["mean"] == pytest.approx(sum(shares) / 12)
    assert table["longest"]["accuracy"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert table["shortest"]["accuracy"]["mean"] == 0
    assert (tmp_path / "out" / "gap.png").stat().st_size > 1000
    assert capsys.readouterr().out.startswith("12 prompts with a right and 3 wrong answers, 1 left")
