"""What the records of an export say."""

import json
from math import nan
from pathlib import Path

import pytest
from exporting import ODD, chosen, exported, failed, one_of_each
from making import made, written

from bestofn.dataset.export import Exported, export
from bestofn.dataset.exported import Keep
from bestofn.errors import ConfigError
from bestofn.prompts import as_prompt
from bestofn.sampler import choose
from bestofn.types import Candidate, Message, Pool, Prompt, Usage


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return written(tmp_path / "rows.jsonl", one_of_each())


# --- the records ----------------------------------------------------------------------------------


def test_best_is_a_record_for_each_row(source: Path) -> None:
    records = {record["id"]: record for record in exported(source)}
    assert list(records) == [row.prompt.id for row in one_of_each()]
    assert records["clear"] == {
        "id": "clear",
        "prompt": "What is clear?",
        "response": "response 1 to clear",
        "score": 0.75,
        "reward": "flip",
        "index": 1,
        "candidates": 3,
        "tie": False,
        "fallback": False,
        "error": None,
        "prompt_tokens": 7,
        "cached_tokens": 2,
        "generated_tokens": 5,
        "scored_tokens": 3,
        "repeated_tokens": 1,
        "level": 1,
        "tags": None,
    }
    assert records["tie"]["tie"] is True
    assert records["tie"]["tags"] == ["x", None]
    assert records["odd"]["response"] == ODD
    assert records["part"]["response"] == "response 1 to part"
    seen = {
        name: tuple(records[name][field] for field in ("response", "score", "index", "candidates"))
        for name in ("unanswered", "broken", "fallback")
    }
    assert seen == {
        "unanswered": (None, None, None, 0),
        "broken": (None, None, 0, 2),
        "fallback": ("response 0 to fallback", None, 0, 2),
    }
    assert records["unanswered"]["error"] == "it does not fit"
    assert records["broken"]["error"] == "all 2 candidates failed: it broke"
    assert records["fallback"]["fallback"] is True


def test_a_failed_candidate_that_stands_in_is_an_error(tmp_path: Path) -> None:
    row = chosen("x", {"flip": [nan, nan]})
    row.candidates[0] = failed("", 1).candidates[0]
    source = written(tmp_path / "rows.jsonl", [row])
    (best,) = exported(source)
    assert (best["response"], best["error"], best["fallback"]) == (None, "it broke", True)
    assert [record["selected"] for record in exported(source, keep="all")] == [False, False]
    assert export(source, tmp_path / "sft.jsonl", keep="sft") == Exported(0, {"error": 1})


def test_all_is_a_record_for_each_candidate(source: Path) -> None:
    records = exported(source, keep="all")
    assert len(records) == sum(len(row.candidates) for row in one_of_each())
    assert records[1] == {
        "id": "clear",
        "prompt": "What is clear?",
        "index": 1,
        "response": "response 1 to clear",
        "error": None,
        "selected": True,
        "token_count": None,
        "finish_reason": "length",
        "mean_logprob": -0.5,
        "score_flip": 0.75,
        "reason_flip": None,
        "score_gold": 0.0,
        "level": 1,
        "tags": None,
    }
    assert records[0]["token_count"] == 12
    assert records[2]["score_flip"] is None
    assert records[3]["score_gold"] is None
    kept = {record["id"]: record["index"] for record in records if record["selected"]}
    assert kept == {"clear": 1, "tie": 0, "fallback": 0, "odd": 1, "same": 1, "part": 1}
    broken = [record for record in records if record["id"] == "broken"]
    assert {(record["response"], record["error"]) for record in broken} == {(None, "it broke")}


def test_all_keeps_what_scores_say_besides_their_value(tmp_path: Path) -> None:
    row = chosen("x", {"flip": [0.5, nan], "judge": [3, 4]})
    first, second = row.candidates
    first.scores["flip"].inferred = ["Name fruits.", "List."]
    second.scores["flip"].flags = ["quotes_instruction"]
    first.scores["judge"].counts = {"calls": 2}
    source = written(tmp_path / "rows.jsonl", [row])
    records = exported(source, keep="all")
    told = ["reason_flip", "inferred_flip", "flags_flip", "counts_judge"]
    assert {n for n in records[0] if n.startswith(("rea", "inf", "flags", "counts"))} == {*told}
    assert [records[0][name] for name in told] == [
        None, ["Name fruits.", "List."], None, {"calls": 2},
    ]  # fmt: skip
    assert [records[1][name] for name in told] == ["it failed", None, ["quotes_instruction"], None]
    table = exported(source, "parquet", keep="all")
    assert json.loads(table[0]["inferred_flip"]) == ["Name fruits.", "List."]


def test_preference_is_the_best_against_the_worst(source: Path) -> None:
    records = {record["id"]: record for record in exported(source, keep="preference")}
    assert list(records) == ["clear", "odd"]
    left_out = {"margin": 1, "too_few_scores": 2, "equal_text": 1, "error": 2}
    assert export(source, source.parent / "x.jsonl", keep="preference").left_out == left_out
    assert records["clear"] == {
        "id": "clear",
        "prompt": [{"role": "user", "content": "What is clear?"}],
        "chosen": [{"role": "assistant", "content": "response 1 to clear"}],
        "rejected": [{"role": "assistant", "content": "response 0 to clear"}],
        "score_chosen": 0.75,
        "score_rejected": 0.25,
    }


def test_sft_is_a_conversation(source: Path) -> None:
    records = exported(source, keep="sft")
    assert [record["id"] for record in records] == ["clear", "tie", "odd", "same", "part"]
    result = export(source, source.parent / "x.jsonl", keep="sft")
    assert result == Exported(5, {"fallback": 1, "error": 2})
    assert records[0] == {
        "id": "clear",
        "messages": [
            {"role": "user", "content": "What is clear?"},
            {"role": "assistant", "content": "response 1 to clear"},
        ],
    }


@pytest.mark.parametrize(
    ("margin", "kept"), [(0.0, ["a", "b", "c"]), (0.25, ["b", "c"]), (0.5, ["c"]), (0.6, [])]
)
def test_pairs_differ_by_the_margin(tmp_path: Path, margin: float, kept: list[str]) -> None:
    scores = {"a": [0.5, 0.625], "b": [0.5, 0.75], "c": [0.0, 0.5], "d": [0.5, 0.5]}
    pools = [chosen(name, {"flip": values}) for name, values in scores.items()]
    source = written(tmp_path / "rows.jsonl", pools)
    records = exported(source, keep="preference", min_margin=margin)
    assert [record["id"] for record in records] == kept


def test_of_equal_scores_the_lowest_index_makes_the_pair(tmp_path: Path) -> None:
    row = chosen("x", {"flip": [0.5, 0.0, 1.0, 1.0, 0.0]})
    (pair,) = exported(written(tmp_path / "rows.jsonl", [row]), keep="preference")
    texts = [pair[side][0]["content"] for side in ("chosen", "rejected")]
    assert texts == ["response 2 to x", "response 1 to x"]


def test_prompts_are_chat_messages_if_one_has_several_turns(tmp_path: Path) -> None:
    turns = (Message("system", "Be brief."), Message("user", "Hello."))
    row = chosen("one", {"flip": [0.0, 1.0]})
    chat = choose(Prompt(turns, "chat"), row.candidates, "flip")
    source = written(tmp_path / "rows.jsonl", [row, chat])
    for kind in ("jsonl", "hf"):
        first, second = exported(source, kind)
        assert first["prompt"] == [{"role": "user", "content": "What is one?"}]
        assert [turn["role"] for turn in second["prompt"]] == ["system", "user"]
    (_, sft) = exported(source, keep="sft")
    assert [turn["role"] for turn in sft["messages"]] == ["system", "user", "assistant"]


# --- which reward chooses -------------------------------------------------------------------------


def test_another_reward_chooses(tmp_path: Path) -> None:
    row = chosen("x", {"flip": [0.0, 1.0], "gold": [1.0, 0.5]})
    source = written(tmp_path / "rows.jsonl", [row, failed("unanswered")])
    best, error = exported(source, reward="gold")
    wanted = {"response": "response 0 to x", "score": 1.0, "reward": "gold", "prompt_tokens": 7}
    assert {name: best[name] for name in wanted} == wanted
    assert error["error"] == "it does not fit"
    (pair,) = exported(source, keep="preference", reward="gold")
    assert (pair["score_chosen"], pair["score_rejected"]) == (1.0, 0.5)
    assert [r["selected"] for r in exported(source, keep="all", reward="gold")] == [True, False]


def test_a_pool_without_a_choice_is_chosen_from_by_its_only_reward(tmp_path: Path) -> None:
    row = made("x", {"flip": [0.0, 1.0]}, cost=3)
    row.candidates[0].usage = Usage(prompt_tokens=4)
    source = written(tmp_path / "rows.jsonl", [row])
    (best,) = exported(source)
    assert (best["index"], best["reward"], best["prompt_tokens"]) == (1, "flip", 10)
    (pair,) = exported(source, keep="preference")
    assert pair["chosen"][0]["content"] == "response 1 to x"


def test_a_reward_must_be_named_where_there_are_several(tmp_path: Path) -> None:
    row = made("x", {"flip": [0.0, 1.0], "gold": [1.0, 0.0]})
    source = written(tmp_path / "rows.jsonl", [row])
    for keep in ("best", "sft", "preference"):
        with pytest.raises(ConfigError, match=r"name a reward that chooses \('flip', 'gold'\)"):
            exported(source, keep=keep)
    assert [record["selected"] for record in exported(source, keep="all")] == [None, None]
    assert exported(source, reward="gold")[0]["index"] == 0


@pytest.mark.parametrize("keep", ["best", "all", "sft", "preference"])
def test_a_reward_that_is_not_there(source: Path, tmp_path: Path, keep: Keep) -> None:
    match = r"the row 'tie' have no score named 'gold'; name a reward that chooses \('flip'\)"
    with pytest.raises(ConfigError, match=match):
        exported(source, keep=keep, reward="gold")
    pool = Pool(as_prompt("x", "x"), [Candidate(0, "a")])
    unscored = written(tmp_path / "unscored.jsonl", [pool])
    if keep != "all":
        with pytest.raises(ConfigError, match="add scores with `bestofn score`"):
            exported(unscored, keep=keep)
    else:
        assert exported(unscored, keep=keep)[0]["selected"] is None


# --- the rows' own columns ------------------------------------------------------------------------


def test_columns_whose_name_is_taken_get_a_prefix(tmp_path: Path) -> None:
    columns = {"id": 1, "response": "r", "score_flip": 2, "column_id": 3, "own": 4}
    source = written(tmp_path / "rows.jsonl", [chosen("x", {"flip": [0.0, 1.0]}, columns)])
    (best,) = exported(source)
    names = ("id", "column_column_id", "column_id", "column_response", "score_flip", "own")
    assert [best[name] for name in names] == ["x", 1, 3, "r", 2, 4]
    candidate = exported(source, keep="all")[0]
    assert (candidate["score_flip"], candidate["column_score_flip"]) == (0.0, 2)
