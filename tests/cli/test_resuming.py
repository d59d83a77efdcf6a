"""What a rerun may change, what it may not, and what files of version 0.1 know of it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faulty_server
import pytest
from faulty_server import FaultyServer
from reward_models import random_model
from typer.testing import CliRunner, Result

from bestofn.cli import app
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
COMMANDS = {
    "select": ["select", "p.jsonl", "-n", 2],
    "sample": ["sample", "p.jsonl", "-m", 2],
}


def bestofn(*arguments: object) -> Result:
    """A command; one that draws does so with the embedded model if it names no other."""
    draws = arguments[0] in ("select", "sample", "audit", "rewardbench")
    if draws and not {"--engine", "--status"} & {*arguments}:
        arguments = (*arguments, "--engine", "tiny")
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def done(*arguments: object) -> Result:
    result = bestofn(*arguments)
    assert result.exit_code == 0, result.output
    return result


def refused(*arguments: object, code: int = 2) -> str:
    """The one sentence of an error."""
    result = bestofn(*arguments)
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a file of one prompt."""
    monkeypatch.chdir(tmp_path)
    Path("p.jsonl").write_text('{"prompt": "Name three colors."}\n')
    return tmp_path


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer() as started:
        yield started


def stored(path: str) -> dict[str, Any]:
    return json.loads(manifest(Path(path)).read_text())


def edit(path: str, **changes: Any) -> None:
    manifest(Path(path)).write_text(json.dumps(stored(path) | changes))


# --- what counts ----------------------------------------------------------------------------------


@pytest.fixture
def model(folder: Path) -> Path:
    return shutil.copytree(locate("tiny"), folder / "model")


@pytest.mark.parametrize("command", ["select", "sample"])
@pytest.mark.parametrize("file", ["tokenizer_config.json", "model.safetensors"])
def test_a_changed_model_of_the_same_name_is_refused(model: Path, command: str, file: str) -> None:
    line = [*COMMANDS[command], *SMALL, "--engine", "hf:./model", "-o", "o.jsonl"]
    done(*line)
    done(*line)
    with (model / file).open("ab") as changed:
        changed.write(b" ")
    assert "(weights has other content)" in refused(*line)


def test_a_changed_model_that_scores_is_refused(model: Path) -> None:
    line = [*COMMANDS["select"], *SMALL, "--reward-engine", "hf:model", "-o", "o.jsonl"]
    done(*line)
    (model / "generation_config.json").write_text("{}")
    assert "(reward_weights has other content)" in refused(*line)
    done("sample", "p.jsonl", "-m", 2, *SMALL, "-o", "pool.jsonl")
    score = ["score", "pool.jsonl", "--reward", "flip", "--reward-engine", "hf:model"]
    done(*score)
    (model / "generation_config.json").write_text("{} ")
    assert "'flip' in pool.jsonl were made otherwise (weights has other content)" in refused(*score)


def test_another_reward_option_is_refused_and_a_default_is_not(folder: Path) -> None:
    line = [*COMMANDS["select"], *SMALL, "-o", "o.jsonl"]
    done(*line)
    done(*line, "--reward-option", "samples=1", "--reward-option", "seed=3")
    said = refused(*line, "--reward-option", "samples=4", "--reward-option", "temperature=0.5")
    assert "reward.samples was 1 and is 4" in said
    assert "reward.temperature was 0.0 and is 0.5" in said
    assert 'reward was "FLIPReward" and is "Longest"' in refused(*line, "--reward", "longest")


def test_a_changed_reward_model_is_refused(folder: Path) -> None:
    scorer = random_model(folder / "rm", num_labels=1)
    line = [*COMMANDS["select"], *SMALL, "--reward", "scalar:./rm", "-o", "o.jsonl"]
    done(*line)
    done(*line, "--reward-option", "batch_size=3", "--reward-option", f"model={scorer}")
    assert "reward.max_length was null and is 99" in refused(
        *line, "--reward-option", "max_length=99"
    )
    (scorer / "generation_config.json").write_text("{}")
    assert "(reward.engine.weights has other content)" in refused(*line)


TEMPLATE = 'system: ""\nuser: "{response} what was asked?"\noutput: text\n'


def test_an_edited_template_is_refused(folder: Path) -> None:
    Path("t.yaml").write_text(TEMPLATE)
    line = [*COMMANDS["select"], *SMALL, "-o", "o.jsonl", "--reward-option", "template=t.yaml"]
    done(*line)
    Path("t.yaml").write_text(TEMPLATE + "# only a comment\n")
    done(*line)
    Path("t.yaml").write_text(TEMPLATE.replace("what", "WHAT"))
    assert "(reward.template has other content)" in refused(*line)


def test_another_model_of_a_server_with_one_is_refused(folder: Path, server: FaultyServer) -> None:
    line = [*COMMANDS["select"], "--reward", "longest", "--engine", f"openai:{server.url}"]
    done(*line, "-o", "o.jsonl")
    server.models = ("other",)
    done(*line, "-o", "o.jsonl")  # nothing is left to do, so no model is asked for
    with Path("p.jsonl").open("a") as prompts:
        prompts.write('{"prompt": "And two more?"}\n')
    assert 'model was "model" and is "other"' in refused(*line, "-o", "o.jsonl")
    assert len(Path("o.jsonl").read_text().splitlines()) == 1


def test_a_finished_file_needs_no_model(folder: Path) -> None:
    with FaultyServer() as server:
        line = [*COMMANDS["select"], "--reward", "longest", "--engine", server.spec]
        done(*line, "-o", "o.jsonl")
    done(*line, "-o", "o.jsonl")


def test_another_prior_is_refused(folder: Path) -> None:
    done("sample", "p.jsonl", "-m", 3, *SMALL, "-o", "prior.jsonl")
    done("score", "prior.jsonl", "--reward", "longest,flip")
    line = [*COMMANDS["select"], *SMALL, "-o", "o.jsonl"]
    line += ["--adaptive", 0.1, "--adaptive-prior", "prior.jsonl"]
    done(*line)
    scores = ScoreFile(Path("prior.jsonl"), "flip").path
    changed = scores.read_text().replace('{"value": 0.0', '{"value": 0.5')
    assert changed != scores.read_text()
    scores.write_text(changed)
    assert "stop_rule.prior has other content" in refused(*line)


def test_other_stop_strings_are_refused_with_a_stop_rule_too(folder: Path) -> None:
    line = [*COMMANDS["select"], *SMALL, "-o", "o.jsonl", "--adaptive", 0.1]
    done(*line, "--stop", "X")
    assert 'stop was ["X"] and is ["Y"]' in refused(*line, "--stop", "Y")


def test_other_options_of_a_server_with_one_model_are_refused(
    folder: Path, server: FaultyServer
) -> None:
    done("sample", "p.jsonl", "-m", 2, *SMALL, "-o", "pool.jsonl")
    spec = server.spec.partition("#")[0]
    line = ["score", "pool.jsonl", "--reward", "flip", "--reward-engine", spec]
    bestofn(*line)
    options = ["--reward-engine-option", "chat_template_kwargs={enable_thinking: false}"]
    assert "'flip' in pool.jsonl were made otherwise" in refused(*line, *options)


# --- what does not --------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["select", "sample"])
def test_what_changes_no_result_may_change(
    folder: Path, server: FaultyServer, command: str
) -> None:
    verb, _, *sizes = COMMANDS[command]
    if verb == "select":
        sizes += ["--reward", "longest"]
    done(verb, "p.jsonl", *sizes, "--engine", server.spec, "-o", "o.jsonl")
    other = server.spec.replace("127.0.0.1", "LOCALHOST").replace("#", "/#")
    arguments = ["timeout=5", "max_concurrency=3", "max_retries=1", "api_key=sk-1"]
    options = [part for argument in arguments for part in ("--engine-arg", argument)]
    for prompts in ("./p.jsonl", folder / "p.jsonl", "../" + folder.name + "/p.jsonl"):
        done(verb, prompts, *sizes, "--engine", other, *options, "--window", 3, "-o", "o.jsonl")


def test_another_file_of_that_name_is_another_input(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = [*COMMANDS["select"], *SMALL, "--reward", "longest", "-o", folder / "o.jsonl"]
    done(*line)
    Path("sub").mkdir()
    shutil.copy("p.jsonl", "sub/p.jsonl")
    monkeypatch.chdir("sub")
    assert "prompts was" in refused(*line)


def test_a_folder_that_was_moved_resumes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a").mkdir()
    shutil.move("p.jsonl", "a/p.jsonl")
    monkeypatch.chdir("a")
    line = [*COMMANDS["select"], *SMALL, "--reward", "longest", "-o", "o.jsonl"]
    done(*line)
    monkeypatch.chdir(folder)
    shutil.move("a", "b")
    monkeypatch.chdir("b")
    done(*line)


@pytest.mark.parametrize("command", ["select", "sample"])
def test_a_setting_that_the_file_does_not_know_was_at_its_default(
    folder: Path, command: str
) -> None:
    line = [*COMMANDS[command], *SMALL, "-o", "o.jsonl"]
    done(*line)
    settings = stored("o.jsonl")
    for name in ("min_p", "repetition_penalty", "id_column"):
        del settings[name]
    manifest(Path("o.jsonl")).write_text(json.dumps(settings))
    assert "(min_p was 0.0 and is 0.1)" in refused(*line, "--min-p", 0.1)
    done(*line)
    assert stored("o.jsonl")["min_p"] == 0.0


# --- files of version 0.1 -------------------------------------------------------------------------


@pytest.fixture
def old(folder: Path) -> Path:
    for file in OLD.iterdir():
        shutil.copy(file, folder)
    return folder


@pytest.mark.parametrize("command", ["select", "sample"])
def test_a_file_of_0_1_resumes_and_learns_the_rest(old: Path, command: str) -> None:
    path = f"{command}.jsonl"
    before = Path(path).read_bytes()
    line = [*COMMANDS[command], *SMALL, "-o", path]
    assert "(seed was 1 and is 2)" in refused(*line, "--seed", 2)
    assert "identity" not in stored(path)
    done(*line)
    assert Path(path).read_bytes() == before
    assert stored(path)["identity"]["weights"].startswith("content:")
    with Path("p.jsonl").open("a") as prompts:
        prompts.write('{"prompt": "Name two."}\n')
    done(*line)
    assert Path(path).read_bytes().startswith(before)
    assert len(Path(path).read_text().splitlines()) == 2


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
    said = refused(
        "score", "sample.jsonl", "--reward", "flip", "--reward-option", "template=reasoned"
    )
    assert "'flip' in sample.jsonl were made otherwise" in said


def test_an_audit_and_a_rewardbench_of_0_1_resume(old: Path) -> None:
    Path("audit").mkdir()
    Path("rb").mkdir()
    for file in old.glob("audit.jsonl*"):
        shutil.move(file, "audit")
    for file in old.glob("items-0.jsonl*"):
        shutil.move(file, "rb")
    done("audit", "--prompts", "tiny:1", "--attack", "quote", "--reward", "longest")
    assert "identity" in stored("audit/audit.jsonl")
    scores = Path("rb/items-0.jsonl").read_bytes()
    done("rewardbench", "--data", "tiny:1", "--reward", "flip", "-o", "rb")
    assert Path("rb/items-0.jsonl").read_bytes() == scores


# --- secrets --------------------------------------------------------------------------------------

SECRETS = ("sk-first-1", "sk-second-2", "sk-third-3")
KEYS = ("api_key=sk-first-1", "headers={X-Key: sk-second-2}", "hf_token=sk-third-3")


def nowhere(folder: Path) -> None:
    """Asserts that no file holds a secret."""
    for file in folder.rglob("*"):
        if file.is_file() and file.name != "mine.yaml":
            text = file.read_text("utf-8", "replace")
            assert not [secret for secret in SECRETS if secret in text], file


def test_no_secret_is_stored(folder: Path, server: FaultyServer) -> None:
    keys = [part for key in KEYS[:2] for part in ("--engine-arg", key)]
    engine = ["--engine", server.spec, *keys]
    done("sample", "p.jsonl", "-m", 2, *SMALL, *engine, "-o", "pool.jsonl")
    bestofn("score", "pool.jsonl", "--reward", "pointwise", *engine)
    for reward in ("longest", "pointwise"):
        bestofn(*COMMANDS["select"], "--reward", reward, *engine, "-o", f"{reward}.jsonl")
    judge = [
        part.replace("--engine", "--reward-engine") if isinstance(part, str) else part
        for part in engine
    ]
    bestofn(*COMMANDS["select"], "--reward", "pointwise", *judge, *SMALL, "-o", "judged.jsonl")
    bestofn("rewardbench", "--data", "tiny:1", "--reward", "pointwise", *engine, "-o", "rb")
    bestofn("audit", "--prompts", "tiny:1", "--attack", "quote", "--reward", "pointwise", *judge)
    for written in ("longest.jsonl", "pointwise.jsonl", "judged.jsonl", "rb", "audit"):
        assert Path(written).exists()
    nowhere(folder)


def test_no_secret_of_a_recipe_is_copied(folder: Path, server: FaultyServer) -> None:
    arguments = {"api_key": SECRETS[0], "headers": {"X-Key": SECRETS[1]}}
    scorer = {"engine": server.spec, "engine_args": arguments}
    recipe = {
        "output": "run",
        "sample": {"prompts": "p.jsonl", "m": 2, **scorer},
        "score": {
            "rewards": [{"reward": "pointwise", **scorer}, "longest"],
        },
        "curve": {"gold": "longest", "proxies": ["pointwise"], "resamples": 100},
    }
    Path("mine.yaml").write_text(json.dumps(recipe))
    done("run", "mine.yaml")
    assert Path("run/recipe.yaml").is_file()
    nowhere(folder)


def test_a_secret_that_0_1_stored_is_taken_out(old: Path) -> None:
    kept = Path("select.jsonl.manifest.json")
    settings = json.loads(kept.read_text()) | {"engine_args": {"api_key": SECRETS[0]}}
    kept.write_text(json.dumps(settings))
    done(*COMMANDS["select"], *SMALL, "-o", "select.jsonl")
    assert not kept.exists()
    nowhere(old)


@pytest.mark.parametrize(
    "argument", ["api-key=sk-first-1", "sk-first-1", "api_key:sk-first-1", "api_key"]
)
def test_a_malformed_option_is_not_repeated_whole(folder: Path, argument: str) -> None:
    said = refused(*COMMANDS["sample"], "-o", "o.jsonl", "--engine-arg", argument)
    assert "takes NAME=VALUE" in said
    assert "first" not in said


def test_a_server_that_repeats_the_key_is_quoted_without_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = faulty_server._error
    said = "no max_tokens for token of sk-second-2"
    monkeypatch.setattr(faulty_server, "_error", lambda status, _: error(status, said))
    with FaultyServer(key="another") as server:
        keys = ["--engine-arg", "api_key=token", "--engine-arg", "headers={X-Api-Key: sk-second-2}"]
        line = refused(*COMMANDS["sample"], "-o", "o.jsonl", "--engine", server.spec, *keys)
    assert "(401: no max_tokens for (key) of (key))" in line


def test_a_key_that_is_given_again_adds_to_what_drew_the_pool(folder: Path) -> None:
    with FaultyServer(key="another-key") as server:
        key = ["--engine-arg", "api_key=another-key"]
        engine = ["--engine", server.spec, "--engine-arg", "max_retries=0"]
        done("sample", "p.jsonl", "-m", 2, *SMALL, *engine, *key, "-o", "pool.jsonl")
        assert "401" in bestofn("score", "pool.jsonl", "--reward", "flip").output
        assert "401" not in bestofn("score", "pool.jsonl", "--reward", "flip", *key).output
    assert stored("pool.jsonl")["engine_args"] == {"max_retries": 0}


# --- one writer, of a file ------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["select", "sample", "score"])
@pytest.mark.parametrize(
    "spelt", ["o.jsonl", "./o.jsonl", "link.jsonl", "sub/../o.jsonl", "all/o.jsonl"]
)
def test_a_file_that_is_being_written_is_left_alone_however_it_is_spelt(
    folder: Path, command: str, spelt: str
) -> None:
    done("sample", "p.jsonl", "-m", 2, *SMALL, "-o", "o.jsonl")
    Path("sub").mkdir()
    Path("link.jsonl").symlink_to("o.jsonl")
    Path("all").symlink_to(".")
    lines = COMMANDS | {"score": ["score", "o.jsonl", "--reward", "longest"]}
    before = Path("o.jsonl").read_bytes()
    with locked(folder / "o.jsonl"):
        assert "another run is writing" in refused(*lines[command], "-o", spelt)
    assert Path("o.jsonl").read_bytes() == before


def test_status_knows_the_run_that_writes_through_a_link(folder: Path) -> None:
    done(*COMMANDS["select"], "--reward", "longest", *SMALL, "-o", "o.jsonl")
    Path("link.jsonl").symlink_to("o.jsonl")
    for written, asked in [("link.jsonl", "o.jsonl"), ("o.jsonl", "link.jsonl")]:
        with locked(folder / written):
            status = done("select", "-o", asked, "--status", "--json").stdout
        assert json.loads(status)["running"]


def test_a_link_is_written_through(folder: Path) -> None:
    Path("disk").mkdir()
    Path("o.jsonl").symlink_to("disk/real.jsonl")
    line = [*COMMANDS["select"], *SMALL, "--reward", "longest"]
    done(*line, "-o", "o.jsonl")
    done(*line, "-o", "disk/real.jsonl")
    done(*line, "-o", "o.jsonl", "--retry-errors")
    assert Path("o.jsonl").is_symlink()
    assert len(Path("disk/real.jsonl").read_text().splitlines()) == 1
    assert Path("disk/real.jsonl.run/manifest.json").is_file()


@pytest.mark.parametrize("output", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
@pytest.mark.parametrize(
    "line",
    [
        COMMANDS["select"],
        COMMANDS["sample"],
        ["score", "o.jsonl", "--reward", "longest"],
        ["export", "o.jsonl", "--format", "jsonl"],
        ["curve", "o.jsonl", "--gold", "longest", "--proxy", "random"],
        ["report", "curve"],
        ["audit", "--prompts", "tiny:1"],
        ["rewardbench", "--data", "tiny:1", "--reward", "flip"],
    ],
    ids=lambda line: line[0],
)
def test_standard_output_is_no_output(folder: Path, line: list[Any], output: str) -> None:
    shutil.copy(OLD / "sample.jsonl", "o.jsonl")
    before = sorted(folder.iterdir())
    said = refused(*line, "-o", output)
    assert f"cannot write to {output}: the output is a f" in said
    assert sorted(folder.iterdir()) == before


# --- rows that lack something ---------------------------------------------------------------------


def test_a_row_without_scores_is_counted(old: Path) -> None:
    row = json.loads(Path("select.jsonl").read_text())
    for candidate in row["candidates"]:
        del candidate["scores"]
    Path("select.jsonl").write_text(json.dumps(row) + "\n")
    status = json.loads(done("select", "-o", "select.jsonl", "--status", "--json").stdout)
    assert (status["candidates"], status["failed"]) == (2, 2)
    done(*COMMANDS["select"], *SMALL, "-o", "select.jsonl")
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
    row = json.loads(Path("select.jsonl").read_text()) | changes
    Path("select.jsonl").write_text(json.dumps(row) + "\n")
    said = refused("select", "-o", "select.jsonl", "--status")
    assert f"select.jsonl, line 1: the row's field '{field}' is wrong" in said


def test_reasons_keep_what_tells_of_the_cause(folder: Path, server: FaultyServer) -> None:
    server.fault = lambda key, attempt: "503"
    with Path("p.jsonl").open("a") as prompts:
        prompts.write('{"prompt": "Another one."}\n')
    arguments = ["--engine-arg", "max_retries=0", "--reward", "longest"]
    line = [*COMMANDS["select"], "--engine", server.spec, *arguments, "-o", "o.jsonl"]
    said = refused(*line, code=1)
    assert server.url in said
    assert "503" in said


# --- the library ----------------------------------------------------------------------------------


def test_a_view_on_the_engine_is_another_engine(folder: Path) -> None:
    engine = load_engine("tiny")

    def select(view: Any, keep_tokens: bool = False) -> None:
        best = BestOfN(view, Longest(), n=1, seed=0, keep_tokens=keep_tokens)
        select_dataset(["one"], "o.jsonl", best, progress=False)

    select(engine)
    select(load_engine("tiny", max_rows=3))
    with pytest.raises(ConfigError, match=r"engine\.chat_template_kwargs was null and is"):
        select(engine.with_options(chat_template_kwargs={"x": 1}))
    with pytest.raises(ConfigError, match="keep_tokens was null and is true"):
        select(engine, keep_tokens=True)


def first(prompt: str, n: int) -> list[str]:
    return ["one"] * n


def second(prompt: str, n: int) -> list[str]:
    return ["two"] * n


def test_another_function_is_another_generator(folder: Path) -> None:
    select_dataset(["a"], "o.jsonl", BestOfN(first, Longest(), n=1), progress=False)
    select_dataset(["a"], "o.jsonl", BestOfN(first, Longest(), n=1), progress=False)
    with pytest.raises(ConfigError, match=r'engine was ".*\.first" and is ".*\.second"'):
        select_dataset(["a"], "o.jsonl", BestOfN(second, Longest(), n=1), progress=False)
