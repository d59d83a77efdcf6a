"""Real prompts through selection and export, and back with the libraries that read the files."""

from pathlib import Path
from typing import Any

import datasets
import pandas as pd

from bestofn import BestOfN, FLIPReward, SamplingParams
from bestofn.dataset import select_dataset
from bestofn.dataset.export import export
from bestofn.engines.hf import TransformersEngine


def test_answers_and_pairs_of_real_prompts(
    tiny: TransformersEngine, alpaca_rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    prompts = [{"prompt": row["prompt"], "id": row["id"]} for row in alpaca_rows[::12]]
    rows = tmp_path / "rows.jsonl"
    best = BestOfN(tiny, FLIPReward(tiny), n=8, seed=0, sampling=SamplingParams(max_tokens=24))
    summary = select_dataset(prompts, rows, best, id_column="id", progress=False)
    assert (summary.rows, summary.bad_rows, summary.repeated) == (25, 0, 0)

    export(rows, tmp_path / "best.parquet")
    frame = pd.read_parquet(tmp_path / "best.parquet").set_index("id")
    assert {*frame.index} == {row["id"] for row in prompts}
    for row in prompts:
        assert frame.loc[row["id"], "prompt"] == row["prompt"]
    answered = frame[frame["error"].isna()]
    assert len(answered) == summary.rows - summary.failures
    assert answered["response"].str.len().gt(0).all()

    pairs = export(rows, tmp_path / "pairs.parquet", keep="preference")
    loaded = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "pairs.parquet"), cache_dir=str(tmp_path / "cache")
    )["train"]
    assert len(loaded) == pairs.records
    assert pairs.records + sum(pairs.left_out.values()) == 25
    asked = {row["prompt"] for row in prompts}
    for pair in loaded:
        assert [turn["role"] for turn in pair["prompt"]] == ["user"]
        assert pair["prompt"][0]["content"] in asked
        assert pair["chosen"][0]["content"] != pair["rejected"][0]["content"]
