"""Pool files: what a run was interrupted in goes on, and nothing is drawn or scored twice."""

import gzip
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import ScriptedEngine

from bestofn.config import EngineConfig, SampleConfig, ScoreConfig
from bestofn.dataset.export import export
from bestofn.dataset.sample import sample_file
from bestofn.dataset.score import score_file
from bestofn.dataset.summary import Summary
from bestofn.engines.base import SamplingParams
from bestofn.errors import BestOfNError, ConfigError, EngineError
from bestofn.models import Engines
from bestofn.store import pool
from bestofn.store.journal import locked, manifest
from bestofn.store.row import as_line
from bestofn.store.scores import ScoreFile
from bestofn.types import Pool, Prompt, Score

WORDS = "one two three four five six".split()


class BrokenError(Exception):
    """What no engine raises on purpose."""


class Models:
    """Stands for `load_engine`: scripted engines by spec, and what was loaded and closed."""

    def __init__(self) -> None:
        self.engines: dict[str, ScriptedEngine] = {}
        self.log: list[str] = []

    def load(self, spec: str, **options: Any) -> ScriptedEngine:
        if spec == "broken":
            raise BestOfNError("the model cannot be loaded")
        self.log.append(f"load {spec}")
        engine = self.engines.setdefault(spec, ScriptedEngine(_answer))
        engine.close = lambda: self.log.append(f"close {spec}")  # type: ignore[method-assign]
        return engine

    def asked(self, spec: str) -> list[str]:
        return [prompt.messages[-1].content for prompt in self.engines[spec].generated]

    def break_at(self, spec: str, word: str, error: BaseException) -> None:
        """Prompts that hold the word fail from now on."""

        def answer(prompt: Prompt, params: SamplingParams, seed: int | None) -> str:
            if word in prompt.messages[-1].content:
                raise error
            return _answer(prompt, params, seed)

        self.engines[spec] = ScriptedEngine(answer)

    def mend(self, spec: str) -> None:
        self.engines[spec].answer = _answer
        self.engines[spec].generated.clear()


def _answer(prompt: Prompt, params: SamplingParams, seed: int | None) -> str:
    return f"answer {seed} to {prompt.messages[-1].content}"


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Models:
    models = Models()
    monkeypatch.setattr("bestofn.models.load_engine", models.load)
    return models


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pool.jsonl"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return asking(tmp_path / "prompts.jsonl", WORDS)


def asking(path: Path, words: list[str]) -> Path:
    path.write_text("".join(json.dumps({"prompt": f"Say {w}.", "answer": w}) + "\n" for w in words))
    return path


def sample(source: Path, path: Path, **options: Any) -> Summary:
    config = {"engine": "a", "prompts": str(source), "m": 2, "seed": 0, "window": 1} | options
    with Engines() as engines:
        return sample_file(SampleConfig(**config), path, engines)


def score(source: Path, path: Path | None = None, drawn_by: str = "a", **options: Any) -> None:
    config = {"rewards": ["flip"], "verifier": "exact:answer"} | options
    with Engines() as engines:
        score_file(
            source, ScoreConfig(**config), EngineConfig(engine=drawn_by), path or source, engines
        )


def rows(path: Path) -> list[Pool]:
    return list(pool.read(path))


def said(path: Path) -> list[str]:
    """The words that were asked for, in the order of the rows."""
    return [row.prompt.messages[-1].content.split()[1].rstrip(".") for row in rows(path)]


# --- drawing --------------------------------------------------------------------------------------


def test_a_row_for_each_prompt(models: Models, source: Path, path: Path) -> None:
    summary = sample(source, path)
    assert (summary.rows, summary.candidates, summary.failed) == (6, 12, 0)
    assert said(path) == WORDS
    assert all(len(row.candidates) == 2 for row in rows(path))
    assert rows(path)[0].prompt.columns == {"answer": "one"}
    assert models.log == ["load a", "close a"]


@pytest.mark.parametrize("error", [BrokenError("it broke"), KeyboardInterrupt()])
def test_an_interrupted_run_resumes(
    models: Models,
    source: Path,
    path: Path,
    error: BaseException,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sample(source, path.with_name("whole.jsonl"))
    whole = rows(path.with_name("whole.jsonl"))

    def interrupted(row: dict[str, Any]) -> str:
        if "four" in row["prompt"]:
            raise error
        return as_line(row)

    monkeypatch.setattr("bestofn.dataset.run.as_line", interrupted)
    with pytest.raises(type(error)):
        sample(source, path)
    before = path.read_bytes()
    assert said(path) == WORDS[:3]

    monkeypatch.undo()
    monkeypatch.setattr("bestofn.models.load_engine", models.load)
    models.mend("a")
    sample(source, path)
    assert path.read_bytes().startswith(before)
    assert said(path) == WORDS
    assert Counter(models.asked("a")) == {f"Say {word}.": 2 for word in WORDS[3:]}
    texts = [[c.text for c in row.candidates] for row in rows(path)]
    assert texts == [[c.text for c in row.candidates] for row in whole]


def test_a_torn_row_is_drawn_again(models: Models, source: Path, path: Path) -> None:
    sample(source, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    models.mend("a")
    sample(source, path)
    assert said(path) == WORDS
    assert set(models.asked("a")) == {"Say six."}


def test_a_complete_file_loads_no_model(models: Models, source: Path, path: Path) -> None:
    sample(source, path)
    before = path.read_bytes()
    models.log.clear()
    sample(source, path)
    assert models.log == []
    assert path.read_bytes() == before


def test_a_larger_limit_goes_on(models: Models, source: Path, path: Path) -> None:
    sample(source, path, limit=2)
    before = path.read_bytes()
    sample(source, path, limit=4, window=3)
    assert path.read_bytes().startswith(before)
    assert said(path) == WORDS[:4]


def test_a_smaller_limit_removes_nothing(models: Models, source: Path, path: Path) -> None:
    sample(source, path)
    sample(source, path, limit=2)
    assert said(path) == WORDS


@pytest.mark.parametrize(
    ("options", "change"),
    [
        ({"m": 3}, "m was 2 and is 3"),
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"temperature": 0.5}, "temperature was 1.0 and is 0.5"),
        ({"engine": "b"}, 'engine was "a" and is "b"'),
        ({"system": "Be brief."}, 'system was null and is "Be brief."'),
        ({"keep_tokens": True}, "keep_tokens was false and is true"),
    ],
)
def test_changed_settings_are_refused(
    models: Models, source: Path, path: Path, options: dict[str, Any], change: str
) -> None:
    sample(source, path, limit=2)
    before = path.read_bytes()
    with pytest.raises(ConfigError) as caught:
        sample(source, path, **options)
    assert f"({change})" in str(caught.value)
    assert path.read_bytes() == before


def test_prompts_that_stand_twice_are_drawn_once(models: Models, tmp_path: Path) -> None:
    source = asking(tmp_path / "p.jsonl", ["one", "two", "one", "one"])
    assert sample(source, tmp_path / "pool.jsonl").repeated == 2
    assert said(tmp_path / "pool.jsonl") == ["one", "two"]


def test_different_prompts_with_one_id_are_refused(
    models: Models, source: Path, path: Path
) -> None:
    source.write_text('{"prompt": "a", "id": 1}\n{"prompt": "b", "id": 1}\n')
    with pytest.raises(ConfigError, match="the id '1' is that of another prompt"):
        sample(source, path, id_column="id")
    assert models.log == []


@pytest.mark.parametrize("options", [{"m": 0}, {"temperature": -1.0}, {"max_tokens": 0}])
def test_what_cannot_be_drawn_is_said_before_a_model_is_loaded(
    models: Models, source: Path, path: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError):
        sample(source, path, **options)
    assert models.log == []
    assert not path.exists()


def test_what_could_not_be_drawn_is_counted_and_drawn_again(
    models: Models, source: Path, path: Path
) -> None:
    models.break_at("a", "four", EngineError("the server is gone"))
    assert sample(source, path).failures == 1
    assert [c.error for c in rows(path)[3].candidates] == ["the server is gone"] * 2

    models.mend("a")
    assert sample(source, path).failures == 1
    assert models.asked("a") == []
    with pytest.raises(ConfigError, match="temperature was"):
        sample(source, path, retry_errors=True, temperature=0.5)
    assert sample(source, path, retry_errors=True).failures == 0
    assert models.asked("a") == ["Say four."] * 2
    assert sorted(said(path)) == sorted(WORDS)
    assert not any(c.error for row in rows(path) for c in row.candidates)


def test_a_file_without_any_candidate_is_an_error(models: Models, source: Path, path: Path) -> None:
    models.break_at("a", "Say", EngineError("the server is gone"))
    with pytest.raises(EngineError, match=r"the server is gone; .* --retry-errors"):
        sample(source, path)
    models.mend("a")
    assert sample(source, path, retry_errors=True).failures == 0
    assert said(path) == WORDS


def test_a_gzipped_pool_is_not_written(models: Models, source: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not written compressed"):
        sample(source, tmp_path / "pool.jsonl.gz")
    assert models.log == []


COMMAND = ["sample", "tiny:16", "--engine", "tiny", "-m", "4", "--seed", "3"]
COMMAND += ["--max-tokens", "40", "--window", "1"]


def test_a_killed_process_loses_nothing_that_was_drawn(path: Path) -> None:
    command = [sys.executable, "-m", "bestofn", *COMMAND, "-o", str(path)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while process.poll() is None and (not path.exists() or path.read_bytes().count(b"\n") < 3):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    whole = path.read_bytes()
    whole = whole[: whole.rfind(b"\n") + 1]
    assert 3 <= whole.count(b"\n") < 16

    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    assert path.read_bytes().startswith(whole)
    ids = [row.prompt.id for row in rows(path)]
    assert len(ids) == len(set(ids)) == 16


# --- scoring --------------------------------------------------------------------------------------


@pytest.fixture
def drawn(models: Models, source: Path, path: Path) -> Path:
    sample(source, path, keep_tokens=True)
    models.log.clear()
    models.engines["a"].generated.clear()
    return path


def scores(path: Path, name: str) -> list[float]:
    return [c.scores[name].value for row in rows(path) for c in row.candidates]


def test_scores_are_added_beside(models: Models, drawn: Path) -> None:
    before, content = rows(drawn), drawn.read_bytes()
    score(drawn, rewards=["flip", "gold", "longest"])
    after = rows(drawn)
    assert drawn.read_bytes() == content
    assert [{*c.scores} for row in after for c in row.candidates] == [
        {"flip", "gold", "longest"}
    ] * 12
    for old, new in zip(before, after, strict=True):
        assert [c.text for c in new.candidates] == [c.text for c in old.candidates]
        assert {*new.seconds} == {"sample", "flip", "gold", "longest"}
    names = {file.name for file in drawn.parent.iterdir()}
    assert names == {"pool.jsonl", "pool.jsonl.run", "prompts.jsonl"}
    assert {file.name for file in (drawn.parent / "pool.jsonl.run" / "scores").iterdir()} == {
        f"{name}.{kind}" for name in ("flip", "gold", "longest") for kind in ("json", "jsonl")
    }


def test_scores_go_to_another_file(models: Models, drawn: Path, tmp_path: Path) -> None:
    before = drawn.read_bytes()
    score(drawn, tmp_path / "new" / "scored.jsonl", rewards=["flip", "gold"])
    assert drawn.read_bytes() == before
    assert len(scores(tmp_path / "new" / "scored.jsonl", "gold")) == 12
    assert said(tmp_path / "new" / "scored.jsonl") == WORDS


def test_the_other_file_says_which_model_drew_it(models: Models, drawn: Path) -> None:
    """Else a later command would score, and cut, with the default model."""
    other = drawn.with_name("scored.jsonl")
    score(drawn, other)
    assert json.loads(manifest(other).read_text())["engine"] == "a"


def test_drawing_resumes_in_a_scored_file(models: Models, source: Path, path: Path) -> None:
    sample(source, path, limit=2)
    score(path)
    sample(source, path, limit=3)
    assert [len(row.candidates[0].scores) for row in rows(path)] == [1, 1, 0]
    models.mend("a")
    score(path)
    assert len(scores(path, "flip")) == 6
    assert len(models.asked("a")) == 2


def test_one_model_after_another(models: Models, drawn: Path) -> None:
    rewards = ["flip", {"reward": "flip", "name": "flip-b", "engine": "b"}, "longest"]
    score(drawn, rewards=rewards)
    assert models.log == ["load a", "close a", "load b", "close b"]
    assert [{*c.scores} for row in rows(drawn) for c in row.candidates] == [
        {"flip", "flip-b", "longest"}
    ] * 12


def test_rewards_of_one_model_share_it(models: Models, drawn: Path) -> None:
    rewards = ["flip", {"reward": "flip", "name": "flip-b", "engine": "b"}, "flip-likelihood"]
    score(drawn, rewards=rewards)
    assert models.log == ["load a", "close a", "load b", "close b"]


def test_another_model_scores_all(models: Models, drawn: Path) -> None:
    score(drawn, reward_engine="b", rewards=["flip", "flip-likelihood"])
    assert models.log == ["load b", "close b"]


def test_cuts_need_the_model_that_drew(models: Models, drawn: Path) -> None:
    score(drawn, reward_engine="b", limits=[2])
    assert sorted(models.log) == ["close a", "close b", "load a", "load b"]
    assert len(scores(drawn, "flip@2")) == 12


def test_without_a_model_none_is_loaded(models: Models, drawn: Path) -> None:
    score(drawn, rewards=["gold", "longest", "majority"])
    assert models.log == []


def test_what_is_scored_is_not_scored_again(models: Models, drawn: Path) -> None:
    options: dict[str, Any] = {"rewards": ["flip", "gold"], "limits": [2]}
    score(drawn, **options)
    models.log.clear()
    score(drawn, **options)
    assert models.log == []
    score(drawn, **options, again=True)
    assert models.log == ["load a", "close a"]


def test_again_replaces_scores(models: Models, drawn: Path) -> None:
    score(drawn)
    assert set(scores(drawn, "flip")) != {1.0}
    models.engines["a"].answer = "unlike"
    score(drawn, again=True)
    assert set(scores(drawn, "flip")) == {0.0}


def breaking(models: Models, spec: str, word: str, action: Callable[[], None]) -> None:
    """The action fails at a word; then the model is mended."""
    models.break_at(spec, word, BrokenError())
    with pytest.raises(BrokenError):
        action()
    models.mend(spec)


@pytest.mark.parametrize("other", [None, "scored.jsonl"])
def test_interrupted_scoring_resumes(models: Models, drawn: Path, other: str | None) -> None:
    before = drawn.read_bytes()
    target = drawn.with_name(other) if other else drawn

    def action() -> None:
        score(drawn, target)

    # The reward sees the response, which holds the prompt's word; many rows are in flight, so that
    # all before the broken one may or may not have been written.
    breaking(models, "a", "six", action)
    assert drawn.read_bytes() == before
    done = ScoreFile(target, "flip").path.read_bytes().count(b"\n")
    action()
    assert len(models.asked("a")) == 2 * (6 - done)
    assert len(scores(target, "flip")) == 12
    assert said(target) == WORDS


@pytest.mark.parametrize("other", [None, "scored.jsonl"])
def test_scoring_interrupted_in_its_second_model_resumes(
    models: Models, drawn: Path, other: str | None
) -> None:
    target = drawn.with_name(other) if other else drawn

    def action() -> None:
        rewards = ["flip", {"reward": "flip", "name": "flip-b", "engine": "b"}]
        score(drawn, target, rewards=rewards)

    breaking(models, "b", "six", action)
    models.engines["a"].generated.clear()
    action()
    assert models.asked("a") == []
    assert len(scores(target, "flip-b")) == len(scores(target, "flip")) == 12


def test_a_torn_row_of_scores_is_scored_again(models: Models, drawn: Path) -> None:
    score(drawn)
    place = ScoreFile(drawn, "flip").path
    place.write_bytes(place.read_bytes()[:-20])
    with pytest.raises(KeyError):
        scores(drawn, "flip")
    models.mend("a")
    score(drawn)
    assert len(models.asked("a")) == 2
    assert len(scores(drawn, "flip")) == 12


def test_candidates_that_are_drawn_again_lose_their_scores(
    models: Models, source: Path, path: Path
) -> None:
    models.break_at("a", "four", EngineError("the server is gone"))
    sample(source, path)
    score(path, rewards=["longest"])
    models.mend("a")
    sample(source, path, retry_errors=True)
    scored = {row.prompt.messages[-1].content: row.candidates[0].scores for row in rows(path)}
    assert [name for name, found in scored.items() if not found] == ["Say four."]
    score(path, rewards=["longest"])
    assert len(scores(path, "longest")) == 12


def test_scores_are_replaced_only_once_the_model_is_loaded(
    models: Models, drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score(drawn)
    before = scores(drawn, "flip")

    def fail(*_: Any, **__: Any) -> None:
        raise BestOfNError("the model cannot be loaded")

    monkeypatch.setattr("bestofn.models.load_engine", fail)
    with pytest.raises(BestOfNError, match="cannot be loaded"):
        score(drawn, again=True)
    assert scores(drawn, "flip") == before


@pytest.mark.parametrize("line", ["{", "[]", '{"id": "x", "candidates": [1]}'])
def test_a_line_that_is_no_row_is_a_sentence_with_retry_errors_too(
    models: Models, source: Path, path: Path, line: str
) -> None:
    sample(source, path)
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ConfigError, match="line of the output"):
        sample(source, path, retry_errors=True)


def test_a_model_that_cannot_be_loaded_loses_no_scores(models: Models, drawn: Path) -> None:
    rewards = ["flip", {"reward": "flip", "name": "flip-b", "engine": "broken"}]
    with pytest.raises(BestOfNError, match="cannot be loaded"):
        score(drawn, rewards=rewards)
    models.engines["a"].generated.clear()
    score(drawn, rewards=["flip"])
    assert models.asked("a") == []
    assert len(scores(drawn, "flip")) == 12


@pytest.mark.parametrize("again", [False, True])
def test_another_command_after_one_that_failed_does_all_its_own(
    models: Models, drawn: Path, again: bool
) -> None:
    with pytest.raises(ConfigError, match="needs a verifier"):
        score(drawn, rewards=["gold"], verifier=None)
    score(drawn, rewards=["flip", "gold"], again=again)
    assert len(scores(drawn, "flip")) == len(scores(drawn, "gold")) == 12


def test_scores_of_another_making_are_refused(models: Models, drawn: Path) -> None:
    score(drawn)
    before = drawn.read_bytes()
    other = {"reward": "flip", "options": {"template": "reasoned"}}
    for changes in (
        {"rewards": [other]},
        {"rewards": [{"reward": "flip", "engine": "b"}]},
        {"reward_engine": "b"},
    ):
        with pytest.raises(ConfigError, match=r"'flip' in .*pool.jsonl were made otherwise"):
            score(drawn, **changes)
    assert drawn.read_bytes() == before
    score(drawn, rewards=[{"reward": "flip", "name": "flip-b", "engine": "b"}])
    score(drawn, rewards=[other], again=True)
    with pytest.raises(ConfigError, match="made otherwise"):
        score(drawn)


def test_another_verifier_is_another_gold(models: Models, drawn: Path) -> None:
    score(drawn, rewards=["gold"])
    with pytest.raises(ConfigError, match='verifier was "exact:answer" and is "iexact:answer"'):
        score(drawn, rewards=["gold"], verifier="iexact:answer")


def test_a_copy_knows_how_its_scores_were_made(models: Models, drawn: Path) -> None:
    score(drawn)
    copy = drawn.with_name("copy.jsonl")
    score(drawn, copy, rewards=["gold"])
    with pytest.raises(ConfigError, match="made otherwise"):
        score(copy, rewards=[{"reward": "flip", "engine": "b"}])


def test_a_refused_copy_leaves_the_settings_of_the_running_one(models: Models, drawn: Path) -> None:
    target = drawn.with_name("scored.jsonl")
    other = drawn.with_name("other.jsonl")
    other.write_bytes(b"".join(drawn.read_bytes().splitlines(keepends=True)[:2]))
    with locked(target):
        with pytest.raises(ConfigError, match="another run is writing"):
            score(other, target)
        assert not manifest(target).exists()


def test_scores_in_the_rows_are_kept_or_replaced(models: Models, drawn: Path) -> None:
    """As version 0.1 kept them."""
    pools = rows(drawn)
    for row in pools[:4]:
        row.seconds["flip"] = 1000.0
        for candidate in row.candidates:
            candidate.scores["flip"] = Score(0.75)
    drawn.write_text("".join(pool.dumps(row) + "\n" for row in pools), "utf-8")
    score(drawn)
    assert scores(drawn, "flip")[:8] == [0.75] * 8
    assert len(models.asked("a")) == 4
    score(drawn, again=True)
    assert 0.75 not in scores(drawn, "flip")
    assert all(row.seconds["flip"] < 1000 for row in rows(drawn))
    ScoreFile(drawn, "flip").path.unlink()
    assert not any(c.scores for row in rows(drawn) for c in row.candidates)


def test_a_link_stays_one(models: Models, drawn: Path) -> None:
    link = drawn.with_name("link.jsonl")
    link.symlink_to(drawn)
    score(link)
    assert link.is_symlink()
    assert len(scores(drawn, "flip")) == 12


def test_a_prompt_that_changed_under_its_id_is_refused(
    models: Models, source: Path, path: Path
) -> None:
    source.write_text('{"prompt": "Say one.", "key": "k", "answer": "one"}\n')
    sample(source, path, id_column="key")
    before = path.read_bytes()
    for row in ('"Say two.", "key": "k", "answer": "one"', '"Say one.", "key": "k", "answer": "1"'):
        source.write_text(f'{{"prompt": {row}}}\n')
        with pytest.raises(ConfigError, match=r"'k' (is that of|are not those)"):
            sample(source, path, id_column="key")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rewards": []}, "name at least one reward"),
        ({"rewards": ["filp"]}, "did you mean 'flip'"),
        ({"rewards": ["gold"], "verifier": None}, "'gold' needs a verifier"),
        ({"rewards": ["gold"], "verifier": "exact:solution"}, "has no column 'solution'"),
        ({"rewards": [{"reward": "flip", "options": {"sample": 2}}]}, "does not take these"),
    ],
)
def test_what_cannot_be_scored_is_one_sentence(
    models: Models, drawn: Path, options: dict[str, Any], sentence: str
) -> None:
    before = drawn.read_bytes()
    with pytest.raises(ConfigError, match=sentence):
        score(drawn, **options)
    assert drawn.read_bytes() == before


def test_a_gzipped_pool_is_read_but_not_written(models: Models, drawn: Path) -> None:
    packed = drawn.with_name("packed.jsonl.gz")
    packed.write_bytes(gzip.compress(drawn.read_bytes()))
    with pytest.raises(ConfigError, match="not written to gzipped files"):
        score(packed)
    score(packed, drawn.with_name("scored.jsonl"))
    assert len(scores(drawn.with_name("scored.jsonl"), "flip")) == 12


def test_a_bad_row_ends_scoring_before_a_model_is_loaded(models: Models, drawn: Path) -> None:
    with drawn.open("a") as file:
        file.write("{}\n")
    with pytest.raises(ConfigError, match="line 7"):
        score(drawn)
    assert models.log == []


def test_an_export_is_one_file_with_all_scores(models: Models, drawn: Path) -> None:
    score(drawn, rewards=["flip", "gold"])
    whole = drawn.with_name("elsewhere") / "whole.jsonl"
    assert export(drawn, whole, keep="pool").records == 6
    assert rows(whole) == rows(drawn)
    with pytest.raises(ConfigError, match="are written as jsonl, not as csv"):
        export(drawn, whole.with_suffix(".csv"), keep="pool")
