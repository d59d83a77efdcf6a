"""Selection over a dataset: each prompt answered once, whatever happens on the way."""

import json
from collections.abc import Iterator
from math import nan
from pathlib import Path
from typing import Any

import pytest
from fakes import ScriptedEngine
from faulty_rows import COLUMNS, JSON_FAULTS, ROWS, write_faulty

from bestofn.dataset import ErrorPolicy, Summary, select_dataset
from bestofn.dataset.run import skipped_of
from bestofn.dataset.select import summary_of
from bestofn.dataset.summary import REASONS, bar_of
from bestofn.engines.base import SamplingParams
from bestofn.errors import BestOfNError, ConfigError, EngineError
from bestofn.prompts import as_prompt
from bestofn.rewards.flip import FLIPLikelihood
from bestofn.sampler import BestOfN
from bestofn.store import pool
from bestofn.types import Candidate, Pool, Prompt, Score, Selection, Usage


def answer(prompt: Prompt, params: SamplingParams, seed: int | None) -> str | Exception:
    text = prompt.messages[-1].content
    return EngineError("the engine is gone") if "fail" in text else f"{text} {seed}"


def sampler(engine: ScriptedEngine | None = None, n: int = 3, seed: int = 0) -> BestOfN:
    engine = engine or ScriptedEngine(answer)
    return BestOfN(engine, FLIPLikelihood(engine), n=n, seed=seed, window=4)


def select(source: Any, output: Path, best: BestOfN | None = None, **options: Any) -> Summary:
    return select_dataset(source, output, best or sampler(), progress=False, **options)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "out.jsonl"


PROMPTS = [{"prompt": f"prompt {n}", "key": f"k{n}", "answer": n} for n in range(10)]


# --- rows -----------------------------------------------------------------------------------------


def test_each_prompt_gets_a_row(output: Path) -> None:
    summary = select(PROMPTS, output, id_column="key")
    rows = {row["id"]: row for row in rows_of(output)}
    assert sorted(rows) == [f"k{n}" for n in range(10)]
    row = rows["k3"]
    assert row["prompt"] == "prompt 3"
    assert row["columns"] == {"answer": 3}
    assert row["response"] == row["candidates"][row["index"]]["text"]
    assert len(row["candidates"]) == 3
    assert row["error"] is None
    assert row["usage"]["generated_tokens"] == 12
    assert (summary.rows, summary.candidates, summary.failures) == (10, 30, 0)
    assert summary == summary_of(output)
    read = list(pool.read(output))
    assert all(isinstance(row, Selection) and row.seconds["select"] >= 0 for row in read)


def slow_first(prompt: Prompt) -> float:
    return 0.2 if prompt.messages[-1].content == "prompt 0" else 0.0


def test_rows_come_as_they_finish_or_in_the_order_of_the_source(tmp_path: Path) -> None:
    orders = {}
    for ordered in (True, False):
        engine = ScriptedEngine(answer, delay=slow_first)
        select(PROMPTS, tmp_path / f"{ordered}.jsonl", sampler(engine), ordered=ordered)
        orders[ordered] = [row["prompt"] for row in rows_of(tmp_path / f"{ordered}.jsonl")]
    in_order = [row["prompt"] for row in PROMPTS]
    assert orders[True] == in_order
    assert orders[False] == [*in_order[1:], in_order[0]]


def test_the_source_is_read_as_it_is_needed(output: Path) -> None:
    def source() -> Iterator[dict[str, Any]]:
        yield from PROMPTS[:9]
        assert rows_of(output), "a row is written before the source is at its end"
        yield PROMPTS[9]

    assert select(source(), output).rows == 10


# --- resuming -------------------------------------------------------------------------------------


def test_a_rerun_draws_nothing_again(output: Path) -> None:
    select(PROMPTS[:6], output)
    before = output.read_bytes()
    output.write_bytes(before + b'{"id": "torn')
    for rows, drawn in ((PROMPTS, PROMPTS[6:]), (PROMPTS, [])):
        engine = ScriptedEngine(answer)
        summary = select(rows, output, sampler(engine))
        asked = {p.messages[-1].content for p in engine.generated}
        assert asked == {row["prompt"] for row in drawn}
        assert output.read_bytes().startswith(before)
        assert (summary.rows, summary.earlier, summary.candidates) == (10, 10 - len(drawn), 30)
    assert len({row["id"] for row in rows_of(output)}) == 10


def test_what_was_begun_before_there_was_a_setting_is_resumed(output: Path) -> None:
    select(PROMPTS[:6], output)
    manifest = output.with_name(f"{output.name}.run") / "manifest.json"
    begun = json.loads(manifest.read_text())
    for name in ("tool_choice", "parallel_tool_calls", "tools_column"):
        del begun[name]
    manifest.write_text(json.dumps(begun))
    assert select(PROMPTS, output).earlier == 6


@pytest.mark.parametrize(
    ("best", "options", "change"),
    [
        (sampler(n=4), {}, "n was 3 and is 4"),
        (sampler(seed=1), {}, "seed was 0 and is 1"),
        (sampler(), {"system": "Be brief."}, 'system was null and is "Be brief."'),
    ],
)
def test_other_settings_are_refused(
    output: Path, best: BestOfN, options: dict[str, Any], change: str
) -> None:
    select(PROMPTS, output)
    before = output.read_bytes()
    with pytest.raises(ConfigError, match="begun with other settings") as caught:
        select(PROMPTS, output, best, **options)
    assert change in str(caught.value)
    assert "--fresh" in str(caught.value)
    assert output.read_bytes() == before


@pytest.mark.parametrize(
    ("line", "sentence"), [('{"id": "x"}', "the row has no field"), ("{", "not JSON")]
)
def test_a_line_of_the_output_that_is_no_row_is_named(
    output: Path, line: str, sentence: str
) -> None:
    select(PROMPTS[:3], output)
    lines = output.read_text().splitlines()
    output.write_text("\n".join([lines[0], line, lines[2], ""]))
    with pytest.raises(ConfigError, match=rf"out\.jsonl, line 2: {sentence}"):
        select(PROMPTS, output)


# --- repeated prompts -----------------------------------------------------------------------------


def test_a_prompt_that_repeats_is_answered_once(output: Path) -> None:
    assert select(PROMPTS + PROMPTS[:4], output).repeated == 4
    assert len(rows_of(output)) == 10
    again = select(PROMPTS + PROMPTS[:4], output)
    assert (again.rows, again.repeated, again.earlier) == (10, 4, 10)


def test_two_prompts_of_one_id_are_a_fault(output: Path) -> None:
    rows = [*PROMPTS[:3], {"prompt": "another", "key": "k1", "answer": 1}]
    for _ in range(2):  # the rows before it are kept, and a rerun finds the fault again
        with pytest.raises(ConfigError, match="row 3: the id 'k1' is that of another prompt"):
            select(rows, output, id_column="key")
        assert len(rows_of(output)) == 3


# --- faults ---------------------------------------------------------------------------------------


def with_failures(*places: int) -> list[dict[str, Any]]:
    return [{**row, "prompt": f"fail {n}"} if n in places else row for n, row in enumerate(PROMPTS)]


def test_a_failure_is_a_row(output: Path) -> None:
    summary = select(with_failures(2, 5), output, id_column="key")
    rows = {row["id"]: row for row in rows_of(output)}
    assert rows["k2"]["error"] == "all 3 candidates failed: the engine is gone"
    assert rows["k3"]["error"] is None
    assert summary.errors == {"all N candidates failed: the engine is gone": 2}
    assert "  2 x all N candidates failed: the engine is gone" in [*summary.lines()]


def test_a_reward_that_raises_is_a_row(output: Path) -> None:
    class Broken(FLIPLikelihood):
        async def score(self, prompt: Prompt, candidates: Any) -> Any:
            raise ZeroDivisionError("oh")

    engine = ScriptedEngine(answer)
    best = BestOfN(engine, Broken(engine), n=2)
    summary = select(PROMPTS, output, best, policy=ErrorPolicy(max_error_rate=1))
    assert summary.errors == {"ZeroDivisionError('oh')": 10}
    assert all(row["candidates"] == [] and row["response"] == "" for row in rows_of(output))


def test_failures_stay_unless_they_are_to_be_tried_again(output: Path) -> None:
    select(with_failures(2, 5), output, id_column="key")
    before = rows_of(output)
    engine = ScriptedEngine("fine")
    for retry, failures, drawn in ((False, 2, 0), (True, 0, 6)):
        policy = ErrorPolicy(retry_errors=retry)
        again = select(with_failures(2, 5), output, sampler(engine), id_column="key", policy=policy)
        assert (again.failures, len(engine.generated)) == (failures, drawn)
    after = rows_of(output)
    assert after[:8] == [row for row in before if row["error"] is None]
    assert sorted(row["id"] for row in after[8:]) == ["k2", "k5"]


MANY = [{"prompt": f"{'fail' if n % 2 else 'prompt'} {n}"} for n in range(400)]


def test_too_many_failures_end_the_run(output: Path) -> None:
    with pytest.raises(BestOfNError, match=r"^\d+ of 2\d rows are without a response"):
        select(MANY, output, policy=ErrorPolicy(max_error_rate=0.4))
    assert 20 <= len(rows_of(output)) < 40
    assert select(MANY, output, policy=ErrorPolicy(max_error_rate=0.6)).rows == 400


def test_a_few_rows_that_all_fail_are_an_error_in_the_end(output: Path) -> None:
    with pytest.raises(BestOfNError, match="2 of 2 rows are without a response"):
        select([{"prompt": "fail 1"}, {"prompt": "fail 2"}], output)
    assert len(rows_of(output)) == 2
    with pytest.raises(ConfigError, match="max_error_rate must be in"):
        ErrorPolicy(max_error_rate=1.5)


def failed(name: str, error: str) -> Selection:
    return Selection(as_prompt("x", name), [], 0, "flip", error=error)


def test_rows_that_fail_alike_have_one_reason_and_very_many_are_not_all_kept() -> None:
    summary = Summary()
    for name in ("a1", "b22"):
        summary.add(failed(name, f"prompt {name!r}: 3 of 4"))
    assert summary.errors == {"prompt 'ID': N of N": 2}
    for n in range(1, REASONS + 100):
        summary.add(failed("!", "x" * n))
    assert (len(summary.errors), summary.errors["other reasons"]) == (REASONS + 1, 100)
    assert summary.failures == REASONS + 101


def test_of_a_thousand_rows_the_sixty_bad_ones_are_named_and_the_others_answered(
    tmp_path: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in.jsonl"
    bad = write_faulty(source)
    assert len({sentence for _, sentence in JSON_FAULTS.values()}) >= 12
    first = min(bad)
    with pytest.raises(ConfigError, match=rf"in\.jsonl, line {first}: "):
        select(source, output, **COLUMNS)
    assert len(rows_of(output)) == first - 1
    policy = ErrorPolicy(on_bad_row="skip")
    summary = select(source, output, policy=policy, **COLUMNS)
    assert (summary.rows, summary.bad_rows, summary.failures) == (940, 60, 0)
    assert summary_of(output).bad_rows == 60
    assert {int(row["id"]) for row in rows_of(output)} == {*range(1, ROWS + 1)} - bad.keys()
    assert capsys.readouterr().err.count("skipped: ") == 20
    named = skipped_of(output).read_text().splitlines()
    for text, (line, sentence) in zip(named, bad.items(), strict=True):
        assert text.startswith(f"{source}, line {line}: ")
        assert sentence in text
    skipped_of(output).unlink()
    skipped_of(output).mkdir()
    with pytest.raises(BestOfNError, match=r"cannot write .*skipped\.txt: "):
        select(source, output, policy=policy, **COLUMNS)


def test_rows_are_not_written_where_prompts_are_read(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "fine"}\n')
    with pytest.raises(ConfigError, match="is in the folder that is read"):
        select(tmp_path, tmp_path / "out.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
    assert select(tmp_path, tmp_path / "runs" / "out.jsonl").rows == 1


# --- telling --------------------------------------------------------------------------------------


def test_what_is_told_of_a_selection() -> None:
    summary = Summary(n=4)
    candidates = [Candidate(i, "", scores={"r": Score(v)}) for i, v in enumerate((0.5, nan))]
    row = Selection(as_prompt("x"), candidates, 0, "r", tie=True, seconds={"select": 2.0})
    row.usage = Usage(prompt_tokens=10, cached_tokens=5, generated_tokens=7)
    summary.add(row)
    assert list(summary.lines()) == [
        "1 row finished",
        "2 candidates, 50.0% failed; 2 of 4 saved (50%)",
        "ties in 100% of the rows, no valid score in 0",
        "10 prompt tokens (50% cached), 7 generated, 0 scored",
        "2.0 s, 1.0 candidates/s",
    ]


def test_the_commonest_reason_of_failures_ends_drawing_and_scoring(
    capsys: pytest.CaptureFixture[str],
) -> None:
    errors = ["[gone]", "[gone]", "too long", None]
    drawn = [Candidate(i, "", error=error) for i, error in enumerate(errors)]
    for what, often in (("drawing", "[gone]"), ("scoring r", "no parse")):
        summary = Summary()
        with bar_of(summary, 1, what):
            if what == "drawing":
                summary.add(Pool(as_prompt("p"), drawn))
            else:
                for candidate in drawn:
                    reason = None if candidate.error == "too long" else "no parse"
                    candidate.scores = {"r": Score(nan if reason else 1.0, reason)}
                summary.add_scores(Pool(as_prompt("p"), drawn), ["r"])
        line = f"{what}: 4 candidates, 75.0% failed, most often: {often}\n"
        assert capsys.readouterr().err.endswith(line)
