"""What a rerun may change, what it may not, and what files of version 0.1 know of it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import TINY, bestofn, done, lines, refused, rows_of
from faulty_server import FaultyServer
from reward_models import random_model

from bestofn.dataset import select_dataset
from bestofn.engines.base import SamplingParams, load_engine
from bestofn.engines.model_files import locate
from bestofn.errors import ConfigError
from bestofn.rewards.baselines import Longest
from bestofn.rewards.flip import FLIPReward
from bestofn.sampler import BestOfN
from bestofn.store.journal import locked, manifest
from bestofn.store.pool import ScoreFile

OLD = Path(__file__).parents[1] / "begun_by_0_1"
SMALL = ["--max-tokens", 8, "--seed", 1]
SELECT = ["select", "p.jsonl", "--reward", "flip", "-n", 2, *SMALL, "-o", "o.jsonl"]
SAMPLE = ["sample", "p.jsonl", "-m", 2, *SMALL, "-o", "o.jsonl"]
LONGEST = [*SELECT, *TINY, "--reward", "longest"]
OPTION = "--reward-option"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a file of one prompt."""
    monkeypatch.chdir(tmp_path)
    lines("p.jsonl", [{"prompt": "Name three colors."}])
    return tmp_path


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer() as started:
        yield started


@pytest.fixture
def old(folder: Path) -> Path:
    for file in OLD.iterdir():
        shutil.copy(file, folder)
    return folder


def stored(path: str) -> dict[str, Any]:
    return json.loads(manifest(Path(path)).read_text())


def another_prompt() -> None:
    with Path("p.jsonl").open("a") as prompts:
        prompts.write('{"prompt": "And two more?"}\n')


# --- what counts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "same", "other", "sentences"),
    [
        (
            [*SELECT, *TINY],
            [OPTION, "samples=1", OPTION, "seed=3"],
            [OPTION, "samples=4", OPTION, "temperature=0.5"],
            ["reward.samples was 1 and is 4", "reward.temperature was 0.0 and is 0.5"],
        ),
        ([*SELECT, *TINY], [], ["--reward", "longest"], ['"FLIPReward" and is "Longest"']),
        ([*SAMPLE, *TINY], ["--limit", 3], ["--seed", 2], ["seed was 1 and is 2"]),
        (
            [*SELECT, *TINY, "--adaptive", 0.1, "--stop", "X"],
            ["--window", 3, "--ordered"],
            ["--stop", "Y"],
            ['stop was ["X"] and is ["X", "Y"]'],
        ),
    ],
)
def test_other_settings_are_refused_by_what_differs(
    line: list[object], same: list[object], other: list[object], sentences: list[str]
) -> None:
    done(*line)
    done(*line, *same)
    said = refused(*line, *other)
    assert all(sentence in said for sentence in sentences)


@pytest.mark.parametrize("line", [SELECT, SAMPLE])
@pytest.mark.parametrize("file", ["tokenizer_config.json", "model.safetensors"])
def test_a_changed_model_of_the_same_name_is_refused(line: list[object], file: str) -> None:
    shutil.copytree(locate("tiny"), "model")
    line = [*line, "--engine", "hf:./model"]
    done(*line)
    done(*line)
    with Path("model", file).open("ab") as changed:
        changed.write(b" ")
    assert "(weights has other content)" in refused(*line)


def test_a_changed_model_that_scores_is_refused() -> None:
    shutil.copytree(locate("tiny"), "model")
    config = Path("model/generation_config.json")
    line = [*SELECT, *TINY, "--reward-engine", "hf:model"]
    done(*line)
    config.write_text("{}")
    assert "(reward_weights has other content)" in refused(*line)
    done(*SAMPLE[:-1], "pool.jsonl", *TINY)
    score = ["score", "pool.jsonl", "--reward", "flip", "--reward-engine", "hf:model"]
    done(*score)
    config.write_text("{} ")
    assert "'flip' in pool.jsonl were made otherwise (weights has other content)" in refused(*score)


def test_a_changed_reward_model_is_refused(folder: Path) -> None:
    scorer = random_model(folder / "rm", num_labels=1)
    line = [*SELECT, *TINY, "--reward", "scalar:./rm"]
    done(*line)
    done(*line, OPTION, "batch_size=3", OPTION, f"model={scorer}")
    assert "reward.max_length was null and is 99" in refused(*line, OPTION, "max_length=99")
    (scorer / "generation_config.json").write_text("{}")
    assert "(reward.engine.weights has other content)" in refused(*line)


def test_an_edited_template_is_refused() -> None:
    template = 'system: ""\nuser: "{response} what was asked?"\noutput: text\n'
    Path("t.yaml").write_text(template)
    line = [*SELECT, *TINY, OPTION, "template=t.yaml"]
    done(*line)
    Path("t.yaml").write_text(template + "# only a comment\n")
    done(*line)
    Path("t.yaml").write_text(template.replace("what", "WHAT"))
    assert "(reward.template has other content)" in refused(*line)


def test_another_model_of_a_server_with_one_is_refused(server: FaultyServer) -> None:
    line = [*SELECT, "--reward", "longest", "--engine", f"openai:{server.url}"]
    done(*line)
    server.models = ("other",)
    done(*line)  # nothing is left to do, so no model is asked for
    another_prompt()
    assert 'model was "model" and is "other"' in refused(*line)
    assert len(rows_of("o.jsonl")) == 1


def test_another_prior_is_refused() -> None:
    done("sample", "p.jsonl", "-m", 3, *SMALL, *TINY, "-o", "prior.jsonl")
    done("score", "prior.jsonl", "--reward", "longest,flip")
    line = [*SELECT, *TINY, "--adaptive", 0.1, "--adaptive-prior", "prior.jsonl"]
    done(*line)
    scores = ScoreFile(Path("prior.jsonl"), "flip").path
    scores.write_text(scores.read_text().replace('{"value": 0.0', '{"value": 0.5'))
    assert "stop_rule.prior has other content" in refused(*line)


# --- what does not --------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [[*SELECT, "--reward", "longest"], SAMPLE])
def test_what_changes_no_result_may_change(folder: Path, line: list[Any]) -> None:
    with FaultyServer() as server:
        done(*line, "--engine", server.spec)
        other = server.spec.replace("127.0.0.1", "LOCALHOST").replace("#", "/#")
        arguments = ["timeout=5", "max_concurrency=3", "max_retries=1", "api_key=sk-1"]
        options = [part for argument in arguments for part in ("--engine-arg", argument)]
        for prompts in ("./p.jsonl", folder / "p.jsonl", "../" + folder.name + "/p.jsonl"):
            done(line[0], prompts, *line[2:], "--engine", other, *options, "--window", 3)
    done(*line, "--engine", server.spec)  # a finished file needs no model


def test_a_file_that_was_moved_is_the_same_and_another_of_its_name_is_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("a").mkdir()
    shutil.move("p.jsonl", "a/p.jsonl")
    monkeypatch.chdir("a")
    done(*LONGEST)
    Path("sub").mkdir()
    shutil.copy("p.jsonl", "sub/p.jsonl")
    assert "prompts was" in refused("select", "sub/p.jsonl", *LONGEST[2:])
    monkeypatch.chdir(folder)
    shutil.move("a", "b")
    monkeypatch.chdir("b")
    done(*LONGEST)


@pytest.mark.parametrize("line", [SELECT, SAMPLE])
def test_a_setting_that_the_file_does_not_know_was_at_its_default(line: list[object]) -> None:
    done(*line, *TINY)
    settings = stored("o.jsonl")
    for name in ("min_p", "repetition_penalty", "id_column"):
        del settings[name]
    manifest(Path("o.jsonl")).write_text(json.dumps(settings))
    assert "(min_p was 0.0 and is 0.1)" in refused(*line, *TINY, "--min-p", 0.1)
    done(*line, *TINY)
    assert stored("o.jsonl")["min_p"] == 0.0


# --- files of version 0.1 -------------------------------------------------------------------------


@pytest.mark.parametrize("line", [SELECT, SAMPLE])
def test_a_file_of_0_1_resumes_and_learns_the_rest(old: Path, line: list[Any]) -> None:
    path = f"{line[0]}.jsonl"
    before = Path(path).read_bytes()
    line = [*line[:-1], path, *TINY]
    assert "(seed was 1 and is 2)" in refused(*line, "--seed", 2)
    assert "identity" not in stored(path)
    done(*line)
    assert Path(path).read_bytes() == before
    assert stored(path)["identity"]["weights"].startswith("content:")
    another_prompt()
    done(*line)
    assert Path(path).read_bytes().startswith(before)
    assert len(rows_of(path)) == 2


def test_a_file_of_0_1_made_by_the_library_resumes(old: Path) -> None:
    engine = load_engine("tiny")
    before = Path("dataset.jsonl").read_bytes()

    def select(**changes: Any) -> None:
        sampling = SamplingParams(max_tokens=8)
        best = BestOfN(engine, FLIPReward(engine, **changes), n=2, sampling=sampling, seed=1)
        select_dataset("p.jsonl", "dataset.jsonl", best, progress=False)

    select()
    assert Path("dataset.jsonl").read_bytes() == before
    with pytest.raises(ConfigError, match=r"reward\.samples was 1 and is 4"):
        select(samples=4, temperature=0.5)


def test_scores_of_0_1_are_kept(old: Path) -> None:
    before = Path("sample.jsonl").read_bytes()
    result = done("score", "sample.jsonl", "--reward", "flip")
    assert "all these scores are there already" in result.output
    assert Path("sample.jsonl").read_bytes() == before
    said = refused("score", "sample.jsonl", "--reward", "flip", OPTION, "template=reasoned")
    assert "'flip' in sample.jsonl were made otherwise" in said


def test_an_audit_and_a_rewardbench_of_0_1_resume(old: Path) -> None:
    for name, start in (("audit", "audit.jsonl*"), ("rb", "items-0.jsonl*")):
        Path(name).mkdir()
        for file in old.glob(start):
            shutil.move(file, name)
    done("audit", "--prompts", "tiny:1", *TINY, "--attack", "quote", "--reward", "longest")
    assert "identity" in stored("audit/audit.jsonl")
    scores = Path("rb/items-0.jsonl").read_bytes()
    done("rewardbench", "--data", "tiny:1", *TINY, "--reward", "flip", "-o", "rb")
    assert Path("rb/items-0.jsonl").read_bytes() == scores


# --- secrets --------------------------------------------------------------------------------------

SECRETS = ("sk-first-1", "sk-second-2")
KEYS = ("api_key=sk-first-1", "headers={X-Key: sk-second-2}")


def nowhere(folder: Path) -> None:
    """Asserts that no file holds a secret."""
    for file in folder.rglob("*"):
        if file.is_file() and file.name != "mine.yaml":
            text = file.read_text("utf-8", "replace")
            assert not [secret for secret in SECRETS if secret in text], file


def test_no_secret_is_stored(folder: Path, server: FaultyServer) -> None:
    engine, judge = (
        [f"--{who}", server.spec, *(part for key in KEYS for part in (f"--{who}-arg", key))]
        for who in ("engine", "reward-engine")
    )
    done(*SAMPLE, *engine)
    bestofn("score", "o.jsonl", "--reward", "pointwise", *engine)
    bestofn(*SELECT[:-1], "pointwise.jsonl", "--reward", "pointwise", *engine)
    bestofn(*SELECT[:-1], "judged.jsonl", "--reward", "pointwise", *judge, *TINY)
    bestofn("rewardbench", "--data", "tiny:1", "--reward", "pointwise", *engine, "-o", "rb")
    audit = ["audit", "--prompts", "tiny:1", "--attack", "quote", "--reward", "pointwise"]
    bestofn(*audit, *judge, *TINY)
    scorer = {
        "engine": server.spec,
        "engine_args": {"api_key": SECRETS[0], "headers": {"X-Key": SECRETS[1]}},
    }
    recipe = {
        "output": "run",
        "sample": {"prompts": "p.jsonl", "m": 2, **scorer},
        "score": {"rewards": [{"reward": "pointwise", **scorer}, "longest"]},
        "curve": {"gold": "longest", "proxies": ["pointwise"], "resamples": 100},
    }
    Path("mine.yaml").write_text(json.dumps(recipe))
    done("run", "mine.yaml")
    for written in ("o.jsonl", "pointwise.jsonl", "judged.jsonl", "rb", "audit", "run/recipe.yaml"):
        assert Path(written).exists()
    nowhere(folder)


def test_a_secret_that_0_1_stored_is_taken_out(old: Path) -> None:
    kept = Path("select.jsonl.manifest.json")
    settings = json.loads(kept.read_text()) | {"engine_args": {"api_key": SECRETS[0]}}
    kept.write_text(json.dumps(settings))
    done(*SELECT[:-1], "select.jsonl", *TINY)
    assert not kept.exists()
    nowhere(old)


def test_a_key_that_is_given_again_adds_to_what_drew_the_pool() -> None:
    with FaultyServer(key="another-key") as server:
        key = ["--engine-arg", "api_key=another-key"]
        done(*SAMPLE, "--engine", server.spec, "--engine-arg", "max_retries=0", *key)
        assert "401" in bestofn("score", "o.jsonl", "--reward", "flip").output
        assert "401" not in bestofn("score", "o.jsonl", "--reward", "flip", *key).output
    assert stored("o.jsonl")["engine_args"] == {"max_retries": 0}


# --- one writer, of a file ------------------------------------------------------------------------


@pytest.mark.parametrize("line", [LONGEST, SAMPLE, ["score", "o.jsonl", "--reward", "longest"]])
def test_a_file_that_is_being_written_is_left_alone_however_it_is_spelled(
    folder: Path, line: list[object]
) -> None:
    done(*SAMPLE, *TINY)
    Path("link.jsonl").symlink_to("o.jsonl")
    Path("all").symlink_to(".")
    before = Path("o.jsonl").read_bytes()
    with locked(folder / "o.jsonl"):
        for spelled in ("o.jsonl", "./o.jsonl", "link.jsonl", "all/o.jsonl"):
            said = refused(*line, *(TINY if line[0] != "score" else []), "-o", spelled)
            assert "another run is writing" in said
            status = done("select", "-o", spelled, "--status", "--json").stdout
            assert json.loads(status)["running"]
    assert Path("o.jsonl").read_bytes() == before


def test_standard_output_is_no_output() -> None:
    shutil.copy(OLD / "sample.jsonl", "o.jsonl")
    export, bench = ["export", "o.jsonl", "--format", "jsonl"], ["rewardbench", "--reward", "first"]
    for line in (SELECT, SAMPLE, ["score", "o.jsonl", "--reward", "longest"], export, bench):
        engine = TINY if line[0] in ("select", "sample") else []
        said = refused(*line, *engine, "-o", "-")
        assert "cannot write to -: the output is a f" in said


# --- rows that lack something ---------------------------------------------------------------------


def test_a_row_without_scores_is_counted(old: Path) -> None:
    (row,) = rows_of("select.jsonl")
    for candidate in row["candidates"]:
        del candidate["scores"]
    lines("select.jsonl", [row])
    status = json.loads(done("select", "-o", "select.jsonl", "--status", "--json").stdout)
    assert (status["candidates"], status["failed"]) == (2, 2)
    done(*SELECT[:-1], "select.jsonl", *TINY)
    done("export", "select.jsonl", "-o", "x.csv")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"candidates": None}, "candidates"),
        ({"candidates": [3]}, "candidates.0"),
        ({"candidates": [{"index": 0, "text": "", "scores": 1}]}, "candidates.0.scores"),
        ({"id": 3}, "id"),
        ({"usage": None}, "usage"),
    ],
)
def test_a_field_that_holds_something_else_is_named(
    old: Path, changes: dict[str, Any], field: str
) -> None:
    lines("select.jsonl", [rows_of("select.jsonl")[0] | changes])
    said = refused("select", "-o", "select.jsonl", "--status")
    assert f"select.jsonl, line 1: the row's field '{field}' is wrong" in said


# --- the library ----------------------------------------------------------------------------------


def first(prompt: str, n: int) -> list[str]:
    return ["one"] * n


def second(prompt: str, n: int) -> list[str]:
    return ["two"] * n


def test_another_view_or_function_is_another_generator() -> None:
    engine = load_engine("tiny")

    def select(source: Any, output: str, **options: Any) -> None:
        best = BestOfN(source, Longest(), n=1, **options)
        select_dataset(["one"], output, best, progress=False)

    select(engine, "o.jsonl", seed=0)
    select(load_engine("tiny", max_rows=3), "o.jsonl", seed=0)
    with pytest.raises(ConfigError, match=r"engine\.chat_template_kwargs was null and is"):
        select(engine.with_options(chat_template_kwargs={"x": 1}), "o.jsonl", seed=0)
    with pytest.raises(ConfigError, match="keep_tokens was null and is true"):
        select(engine, "o.jsonl", seed=0, keep_tokens=True)
    for _ in range(2):
        select(first, "f.jsonl")
    with pytest.raises(ConfigError, match=r'engine was ".*\.first" and is ".*\.second"'):
        select(second, "f.jsonl")
