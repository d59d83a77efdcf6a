"""Advice is found on half of the prompts, told with what the other half says of it."""

import json
from math import nan
from pathlib import Path

import numpy as np
import pytest
from commands import done, refused
from making import made, written

from bestofn.analysis.advice import advise
from bestofn.config import AdviseConfig
from bestofn.errors import ConfigError
from bestofn.types import Pool


def pools_of(prompts: int, *, blind: bool = False, gold: bool = True) -> list[Pool]:
    """Beginnings of 16 tokens have the final score, those of 4 and all `blind` ones none of it."""
    rng, pools = np.random.default_rng(0), []
    for i in range(prompts):
        value, noise = rng.random(8), rng.random((3, 8))
        rows = {
            "r": value,
            "r@4": noise[0],
            "r@16": noise[1] if blind else value,
        } | ({"gold": (value > 0.8).astype(float)} if gold else {})
        pools.append(
            made(f"p{i}", {n: v.tolist() for n, v in rows.items()}, tokens=[64] * 8, cost=80)
        )
    return pools


def test_what_sees_the_end_early_is_recommended(tmp_path: Path) -> None:
    path = written(tmp_path / "pool.jsonl", pools_of(60))
    advice, result = advise(path, AdviseConfig())
    assert advice.best is not None
    assert advice.promised
    assert advice.checked
    assert (advice.best.at, advice.best.keep) == ((16,), 0.25)
    assert (advice.reward, advice.value, advice.candidates) == ("r", "gold", (8, 8))
    assert advice.prompts == (30, 30)
    assert float(advice.promised.loss.mean) == float(advice.checked.loss.mean) == 0
    # Two of eight go on: 6 x 48 of 8 x 64 tokens are not drawn, and 8 x 80 are scored.
    assert float(advice.checked.saving.mean) == pytest.approx(288 / (512 + 640))
    assert float(advice.agreement[16].mean) == 1
    assert float(advice.agreement[4].mean) < 0.5
    assert "--reject 16 --reject-keep 0.25" in " ".join(result["summary"])


def test_where_beginnings_say_nothing_none_is_rejected(tmp_path: Path) -> None:
    path = written(tmp_path / "pool.jsonl", pools_of(60, blind=True, gold=False))
    advice, result = advise(path, AdviseConfig(margin=0.01))
    assert (advice.value, advice.best, advice.checked) == ("r", None, None)
    assert "reject none" in " ".join(result["summary"])


def test_wrong_pools(tmp_path: Path) -> None:
    path = written(tmp_path / "pool.jsonl", pools_of(1))
    with pytest.raises(ConfigError, match="too few to halve"):
        advise(path, AdviseConfig())
    path = written(tmp_path / "pool.jsonl", pools_of(4))
    with pytest.raises(ConfigError, match="beginnings in the pool: r;"):
        advise(path, AdviseConfig(reward="flip"))


def test_what_is_left_out_is_named_and_a_missing_gold_refused(tmp_path: Path) -> None:
    pools = pools_of(40)
    pools[3].candidates[2].scores["gold"].value = nan
    path = written(tmp_path / "pool.jsonl", pools)
    advice, result = advise(path, AdviseConfig())
    assert [name for name, _ in advice.left_out] == ["p3"]
    assert "1 others are left out" in " ".join(result["summary"])
    with pytest.raises(ConfigError, match="no score 'accuracy'"):
        advise(path, AdviseConfig(gold="accuracy"))
    for pool in pools:
        pool.candidates[0].scores["r"].value = nan
        del pool.candidates[0].scores["gold"], pool.candidates[1].scores["gold"]
    with pytest.raises(ConfigError, match="too few to halve"):
        advise(written(tmp_path / "pool.jsonl", pools), AdviseConfig())


def test_a_failed_score_leaves_a_prompt_in(tmp_path: Path) -> None:
    pools = pools_of(40, gold=False)
    for pool in pools:
        pool.candidates[0].scores["r"].value = nan
    advice, _ = advise(written(tmp_path / "pool.jsonl", pools), AdviseConfig())
    assert (advice.prompts, advice.left_out) == ((20, 20), [])


def test_prompts_may_have_more_or_fewer_candidates(tmp_path: Path) -> None:
    pools = pools_of(60)
    for pool in pools[::3]:
        pool.candidates.pop()
    advice, _ = advise(written(tmp_path / "pool.jsonl", pools), AdviseConfig())
    assert advice.candidates == (7, 8)
    assert advice.best is not None
    assert advice.best.at == (16,)


def test_the_command(tmp_path: Path) -> None:
    path = written(tmp_path / "pool.jsonl", pools_of(40))
    told = done("advise", path).stdout
    assert "agreement" in told
    assert "--reject 16" in told
    found = json.loads(done("advise", path, "--json").stdout)
    assert found["best"] == {"at": [16], "keep": 0.25}
    assert "keeps" in refused("advise", path, "--keep", 1.5)
