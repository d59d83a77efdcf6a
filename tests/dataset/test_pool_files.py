"""Pool files: an interrupted run resumes, and nothing is drawn or scored twice."""

import json
from collections import Counter
from math import isnan
from pathlib import Path
from typing import Any

import pytest
from fakes import ScriptedEngine

from bestofn.config import EngineConfig, SampleConfig, ScoreConfig
from bestofn.dataset.export import export
from bestofn.dataset.pools import sample_file
from bestofn.dataset.score import score_file
from bestofn.dataset.summary import Summary
from bestofn.engines.base import SamplingParams
from bestofn.errors import BestOfNError, ConfigError, EngineError
from bestofn.models import Engines
from bestofn.store import pool
from bestofn.store.journal import locked, manifest
from bestofn.store.pool import ScoreFile, as_line
from bestofn.types import Pool, Prompt, Score

WORDS = "one two three four five six".split()
APART = ["load a", "close a", "load b", "close b"]
FLIP_B = {"reward": "flip", "name": "flip-b", "engine": "b"}


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
        self.log.clear()


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


def score(source: Path, path: Path | None = None, drawn_by: str = "a", **options: Any) -> bool:
    config = {"rewards": ["flip"], "verifier": "exact:answer"} | options
    drew = EngineConfig(engine=drawn_by)
    with Engines() as engines:
        return score_file(source, ScoreConfig(**config), drew, path or source, engines)


def rows(path: Path) -> list[Pool]:
    return list(pool.read(path))


def said(path: Path) -> list[str]:
    """The words that were asked for, in the order of the rows."""
    return [row.prompt.messages[-1].content.split()[1].rstrip(".") for row in rows(path)]


# --- drawing --------------------------------------------------------------------------------------


def test_a_row_for_each_prompt_and_no_model_for_a_complete_file(
    models: Models, source: Path, path: Path
) -> None:
    summary = sample(source, path)
    assert (summary.rows, summary.candidates, summary.failed) == (6, 12, 0)
    assert said(path) == WORDS
    assert all(len(row.candidates) == 2 for row in rows(path))
    assert rows(path)[0].prompt.columns == {"answer": "one"}
    before = path.read_bytes()
    sample(source, path)
    sample(source, path, limit=2)
    assert models.log == ["load a", "close a"]
    assert path.read_bytes() == before


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

    with monkeypatch.context() as patch:
        patch.setattr("bestofn.dataset.run.as_line", interrupted)
        with pytest.raises(type(error)):
            sample(source, path)
    before = path.read_bytes()
    assert said(path) == WORDS[:3]
    path.write_bytes(before + b'{"id": "torn')

    models.mend("a")
    sample(source, path)
    assert path.read_bytes().startswith(before)
    assert said(path) == WORDS
    assert Counter(models.asked("a")) == {f"Say {word}.": 2 for word in WORDS[3:]}
    texts = [[c.text for c in row.candidates] for row in rows(path)]
    assert texts == [[c.text for c in row.candidates] for row in whole]


def test_other_columns_of_a_drawn_prompt_are_refused(
    models: Models, source: Path, path: Path
) -> None:
    source.write_text('{"prompt": "Say one.", "answer": "1"}\n')
    sample(source, path)
    source.write_text('{"prompt": "Say one.", "answer": "one"}\n')
    with pytest.raises(ConfigError, match=r"the columns of the prompt .* are not those"):
        sample(source, path)


def test_a_larger_limit_resumes(models: Models, source: Path, path: Path) -> None:
    sample(source, path, limit=2)
    before = path.read_bytes()
    sample(source, path, limit=4, window=3)
    assert path.read_bytes().startswith(before)
    assert said(path) == WORDS[:4]


@pytest.mark.parametrize(
    ("options", "change"),
    [
        ({"m": 3}, "m was 2 and is 3"),
        ({"temperature": 0.5}, "temperature was 1.0 and is 0.5"),
        ({"engine": "b"}, 'engine was "a" and is "b"'),
        ({"system": "Be brief."}, 'system was null and is "Be brief."'),
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


def test_prompts_that_repeat_are_drawn_once(models: Models, tmp_path: Path) -> None:
    source = asking(tmp_path / "p.jsonl", ["one", "two", "one", "one"])
    assert sample(source, tmp_path / "pool.jsonl").repeated == 2
    assert said(tmp_path / "pool.jsonl") == ["one", "two"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"m": 0}, "m must be at least 1, not 0"),
        ({"temperature": -1.0}, "temperature"),
        ({"path": "pool.jsonl.gz"}, "not written compressed"),
    ],
)
def test_what_cannot_be_drawn_is_said_before_a_model_is_loaded(
    models: Models, source: Path, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        sample(source, source.with_name(options.pop("path", "pool.jsonl")), **options)
    assert models.log == []


def test_a_prompt_that_changed_under_its_id_is_refused(
    models: Models, source: Path, path: Path
) -> None:
    sample(source, path, id_column="answer")
    source.write_text('{"prompt": "Say two.", "answer": "one"}\n')
    with pytest.raises(ConfigError, match="'one' is that of another prompt"):
        sample(source, path, id_column="answer")


def test_what_could_not_be_drawn_is_counted_and_drawn_again(
    models: Models, source: Path, path: Path
) -> None:
    models.break_at("a", "four", EngineError("the server is gone"))
    assert sample(source, path).failures == 1
    assert [c.error for c in rows(path)[3].candidates] == ["the server is gone"] * 2
    score(path, rewards=["longest"])

    models.mend("a")
    assert sample(source, path).failures == 1
    assert models.asked("a") == []
    with pytest.raises(ConfigError, match="temperature was"):
        sample(source, path, retry_errors=True, temperature=0.5)
    assert sample(source, path, retry_errors=True).failures == 0
    assert models.asked("a") == ["Say four."] * 2
    assert said(path) == [*WORDS[:3], *WORDS[4:], "four"]
    # Scores are those of the candidates that were there before.
    assert [bool(row.candidates[0].scores) for row in rows(path)] == [True] * 5 + [False]
    score(path, rewards=["longest"])
    assert len(scores(path, "longest")) == 12


def test_a_file_without_any_candidate_is_an_error(models: Models, source: Path, path: Path) -> None:
    models.break_at("a", "Say", EngineError("the server is gone"))
    with pytest.raises(EngineError, match=r"the server is gone; .* --retry-errors"):
        sample(source, path)
    models.mend("a")
    assert sample(source, path, retry_errors=True).failures == 0
    assert said(path) == WORDS


@pytest.mark.parametrize("line", ["{", "[]", '{"id": "x", "candidates": [1]}'])
def test_a_line_that_is_no_row_is_a_sentence_with_retry_errors_too(
    models: Models, source: Path, path: Path, line: str
) -> None:
    sample(source, path)
    with path.open("a") as file:
        file.write(line + "\n")
    for retry, sentence in ((True, "line of the output"), (False, "line 7")):
        with pytest.raises(ConfigError, match=sentence):
            sample(source, path, retry_errors=retry)


# --- scoring --------------------------------------------------------------------------------------


@pytest.fixture
def drawn(models: Models, source: Path, path: Path) -> Path:
    sample(source, path, keep_tokens=True)
    models.mend("a")
    return path


def scores(path: Path, name: str) -> list[float]:
    return [c.scores[name].value for row in rows(path) for c in row.candidates]


def test_scores_are_added_beside(models: Models, drawn: Path) -> None:
    before, content = rows(drawn), drawn.read_bytes()
    names = {"flip", "gold", "longest"}
    score(drawn, rewards=[*names])
    after = rows(drawn)
    assert drawn.read_bytes() == content
    for old, new in zip(before, after, strict=True):
        assert [c.text for c in new.candidates] == [c.text for c in old.candidates]
        assert all({*c.scores} == names for c in new.candidates)
        assert {*new.seconds} == {"sample", *names}
    assert {file.name for file in (drawn.parent / "pool.jsonl.run" / "scores").iterdir()} == {
        f"{name}.{kind}" for name in names for kind in ("json", "jsonl")
    }


def test_scores_go_to_another_file_that_says_how_they_were_made(
    models: Models, drawn: Path, tmp_path: Path
) -> None:
    before, other = drawn.read_bytes(), tmp_path / "new" / "scored.jsonl"
    score(drawn)
    score(drawn, other, rewards=["gold"])
    assert drawn.read_bytes() == before
    assert said(other) == WORDS
    assert len(scores(other, "gold")) == len(scores(other, "flip")) == 12
    assert json.loads(manifest(other).read_text())["engine"] == "a"
    with pytest.raises(ConfigError, match="made otherwise"):
        score(other, rewards=[{"reward": "flip", "engine": "b"}])


def test_drawing_resumes_in_a_scored_file(models: Models, source: Path, path: Path) -> None:
    sample(source, path, limit=2)
    score(path)
    sample(source, path, limit=3)
    assert [len(row.candidates[0].scores) for row in rows(path)] == [1, 1, 0]
    models.mend("a")
    score(path)
    assert len(scores(path, "flip")) == 6
    assert len(models.asked("a")) == 2


@pytest.mark.parametrize(
    ("options", "log"),
    [
        ({"rewards": ["flip", FLIP_B, "longest"]}, APART),
        ({"rewards": ["flip", FLIP_B, "flip-likelihood"]}, APART),
        ({"rewards": ["flip", "flip-likelihood"], "reward_engine": "b"}, ["load b", "close b"]),
        ({"reward_engine": "b", "limits": [2]}, ["load b", "load a", "close b", "close a"]),
        ({"rewards": ["gold", "longest", "majority"]}, []),
    ],
)
def test_one_model_after_another_and_none_twice(
    models: Models, drawn: Path, options: dict[str, Any], log: list[str]
) -> None:
    assert score(drawn, **options)
    assert models.log == log
    named = [name if isinstance(name, str) else "flip-b" for name in options.get("rewards", [])]
    assert all({*named} <= {*c.scores} for row in rows(drawn) for c in row.candidates)
    models.log.clear()
    assert not score(drawn, **options)
    assert models.log == []


def test_again_replaces_scores_once_the_model_is_loaded(
    models: Models, drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score(drawn)
    before = scores(drawn, "flip")
    assert set(before) != {1.0}

    def fail(*_: Any, **__: Any) -> None:
        raise BestOfNError("the model cannot be loaded")

    with monkeypatch.context() as patch:
        patch.setattr("bestofn.models.load_engine", fail)
        with pytest.raises(BestOfNError, match="cannot be loaded"):
            score(drawn, again=True)
    assert scores(drawn, "flip") == before
    models.engines["a"].answer = "unlike"
    score(drawn, again=True)
    assert set(scores(drawn, "flip")) == {0.0}


@pytest.mark.parametrize("other", [None, "scored.jsonl"])
@pytest.mark.parametrize("broken", ["a", "b"])
def test_interrupted_scoring_resumes(
    models: Models, drawn: Path, other: str | None, broken: str
) -> None:
    target = drawn.with_name(other) if other else drawn
    before = drawn.read_bytes()
    name = {"a": "flip", "b": "flip-b"}[broken]
    # The reward sees the response, which holds the prompt's word; many rows are in flight, so that
    # all before the broken one may or may not have been written.
    models.break_at(broken, "six", BrokenError())
    with pytest.raises(BrokenError):
        score(drawn, target, rewards=["flip", FLIP_B])
    assert drawn.read_bytes() == before
    done = ScoreFile(target, name).path.read_bytes().count(b"\n")
    for spec in models.engines:
        models.mend(spec)
    score(drawn, target, rewards=["flip", FLIP_B])
    assert len(models.asked(broken)) == 2 * (6 - done)
    assert broken == "a" or models.asked("a") == []
    assert len(scores(target, "flip-b")) == len(scores(target, "flip")) == 12
    assert said(target) == WORDS


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
    place.write_text("[1]\n")
    with pytest.raises(ConfigError, match=r"flip.jsonl are wrong: .*; delete the file"):
        rows(drawn)


def test_a_model_that_cannot_be_loaded_loses_no_scores(models: Models, drawn: Path) -> None:
    with pytest.raises(BestOfNError, match="cannot be loaded"):
        score(drawn, rewards=["flip", FLIP_B | {"engine": "broken"}])
    models.mend("a")
    assert not score(drawn)
    assert len(scores(drawn, "flip")) == 12


def test_scores_of_another_making_are_refused(models: Models, drawn: Path) -> None:
    score(drawn, rewards=["flip", "gold"])
    before = drawn.read_bytes()
    other = {"reward": "flip", "options": {"template": "reasoned"}}
    for changes in (
        {"rewards": [other]},
        {"rewards": [{"reward": "flip", "engine": "b"}]},
        {"reward_engine": "b"},
    ):
        with pytest.raises(ConfigError, match=r"'flip' in .*pool.jsonl were made otherwise"):
            score(drawn, **changes)
    with pytest.raises(ConfigError, match='verifier was "exact:answer" and is "iexact:answer"'):
        score(drawn, rewards=["gold"], verifier="iexact:answer")
    assert drawn.read_bytes() == before
    score(drawn, rewards=[FLIP_B])
    score(drawn, rewards=[other], again=True)
    with pytest.raises(ConfigError, match="made otherwise"):
        score(drawn)


def test_a_refused_copy_leaves_the_settings_of_the_running_one(models: Models, drawn: Path) -> None:
    target, other = drawn.with_name("scored.jsonl"), drawn.with_name("other.jsonl")
    other.write_bytes(b"".join(drawn.read_bytes().splitlines(keepends=True)[:2]))
    with locked(target):
        with pytest.raises(ConfigError, match="another run is writing"):
            score(other, target)
        assert not manifest(target).exists()
    score(drawn, target)
    with pytest.raises(ConfigError, match="was not made from"):
        score(other, target)


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


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rewards": []}, "name at least one reward"),
        ({"rewards": ["filp"]}, "did you mean 'flip'"),
        ({"rewards": ["flip", "gold"], "verifier": None}, "'gold' needs a verifier"),
        ({"rewards": ["gold"], "verifier": "exact:solution"}, "has no column 'solution'"),
        ({"rewards": [{"reward": "flip", "options": {"sample": 2}}]}, "does not take these"),
    ],
)
@pytest.mark.parametrize("again", [False, True])
def test_what_cannot_be_scored_is_one_sentence_and_costs_nothing(
    models: Models, drawn: Path, options: dict[str, Any], sentence: str, again: bool
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        score(drawn, **options, again=again)
    assert models.log == []
    score(drawn, rewards=["flip", "longest"], again=again)
    assert len(scores(drawn, "flip")) == len(scores(drawn, "longest")) == 12


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
    assert not any(map(isnan, scores(whole, "flip")))
    with pytest.raises(ConfigError, match="are written as jsonl, not as csv"):
        export(drawn, whole.with_suffix(".csv"), keep="pool")
