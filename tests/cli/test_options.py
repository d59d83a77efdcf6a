"""Options are the configuration's fields, with its defaults and its texts, as shells give them."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import typer
from commands import SMALL, TINY, done, rows_of

from bestofn.cli import app
from bestofn.cli.app import NEWLINES, named, options, unescaped
from bestofn.config import (
    AskConfig,
    AuditConfig,
    ClusterConfig,
    CurveConfig,
    EngineConfig,
    ReportConfig,
    RewardBenchConfig,
    SampleConfig,
    ScoreConfig,
    Section,
    SelectConfig,
)
from bestofn.errors import ConfigError
from bestofn.store import pool
from bestofn.store.pool import read_origins

RECIPE = [SampleConfig, ScoreConfig, CurveConfig, ReportConfig, RewardBenchConfig]


def parameters(command: str) -> dict[str, Any]:
    group: Any = typer.main.get_command(app)
    return {p.name: p for p in group.commands[command].params}


def fields(*kinds: type[Section], without: Iterable[str] = ()) -> set[str]:
    return {name for kind in kinds for name in kind.model_fields} - {*without}


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        ("ask", fields(AskConfig) | {"prompt"}),
        ("select", fields(SelectConfig, ClusterConfig) | {"fresh", "status", "format", "keep"}),
        ("sample", fields(SampleConfig)),
        ("score", fields(EngineConfig, ScoreConfig)),
        ("curve", fields(CurveConfig, EngineConfig, ScoreConfig, without=["again"]) | {"title"}),
        ("report", fields(ReportConfig)),
        ("run", fields(*RECIPE, without=["models"])),
        ("rewardbench", fields(RewardBenchConfig, without=["models"])),
        ("audit", fields(AuditConfig)),
    ],
)
def test_each_field_is_an_option_and_nothing_else_is(command: str, wanted: set[str]) -> None:
    own = {"output", "pool", "pools", "folder", "recipe", "as_json", "debug"}
    assert parameters(command).keys() - own == wanted


@pytest.mark.parametrize("kind", RECIPE)
def test_help_is_the_text_of_the_field_and_its_default(kind: type[Section]) -> None:
    shown = parameters("run")
    for name, field in kind.model_fields.items():
        if name == "models":  # mappings, for recipes alone
            continue
        empty = field.is_required() or field.default in (None, "", [], {})
        default = "" if empty else f" Default: {field.default}."
        newlines = f" {NEWLINES}" if name in ("system", "stop", "template") else ""
        assert shown[name].help == " ".join(str(field.description).split()) + newlines + default


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "line", "given"),
    [
        (SampleConfig, "", {}),
        (SampleConfig, "-m 4 --temperature 0.5", {"m": 4, "temperature": 0.5}),
        (SampleConfig, "--keep-tokens", {"keep_tokens": True}),
        (SampleConfig, "--no-keep-tokens", {"keep_tokens": False}),
        (SampleConfig, r"--stop a,b --stop \n", {"stop": ["a,b", "\n"]}),
        (
            SampleConfig,
            "--engine-arg rows=4 --engine-arg name=x --engine-arg on=true",
            {"engine_args": {"rows": 4, "name": "x", "on": True}},
        ),
        (SampleConfig, "--engine-option lora=a=b", {"engine_options": {"lora": "a=b"}}),
        (SampleConfig, "--seed 0 --limit 0", {"seed": 0, "limit": 0}),
        (ScoreConfig, "--reward flip,gold", {"rewards": ["flip", "gold"]}),
        (ScoreConfig, "--reward flip --reward gold", {"rewards": ["flip", "gold"]}),
        (ScoreConfig, "--limits 8,4 --limits 16", {"limits": ["8", "4", "16"]}),
        (ScoreConfig, "--again", {"again": True}),
        (ScoreConfig, "--reward-option f.x=off", {"reward_options": {"f.x": "off"}}),
        (CurveConfig, "-n 1,2 --no-iid", {"ns": ["1", "2"], "iid": False}),
        (CurveConfig, "--proxy a,b", {"proxies": ["a", "b"]}),
    ],
)
def test_only_what_was_given_comes(kind: type[Section], line: str, given: dict[str, Any]) -> None:
    seen: list[dict[str, Any]] = []
    probe = typer.Typer()

    @probe.command()
    @options(kind, without=["prompts"])
    def command(path: str, n: int = 3, **given: Any) -> None:
        seen.append(given)

    typer.main.get_command(probe)(["x", *line.split()], standalone_mode=False)
    assert seen == [given]


@pytest.mark.parametrize(
    ("argument", "pair"),
    [
        ("a=1", ("a", 1)),
        ("a=1.5", ("a", 1.5)),
        ("a=true", ("a", True)),
        ("a=text", ("a", "text")),
        ("a=No", ("a", "No")),
        ("a=", ("a", None)),
        ("a={b: [x, 2]}", ("a", {"b": ["x", 2]})),
        ("a={b", ("a", "{b")),
    ],
)
def test_named_values(argument: str, pair: tuple[str, Any]) -> None:
    assert named(argument) == pair


@pytest.mark.parametrize("argument", ["a", "=1", "a b=1", "", "sk-first-1", "api-key=sk-first-1"])
def test_what_is_no_named_value_is_not_repeated(argument: str) -> None:
    with pytest.raises(ConfigError, match="NAME=VALUE") as caught:
        named(argument)
    assert "first" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (r"\n\nQ:", "\n\nQ:"),
        (r"a\\nb", r"a\nb"),
        (r"in \boxed{} and \times", r"in \boxed{} and \times"),
        (r"a \\ b\t", r"a \\ b\t"),
        ("a\nb", "a\nb"),
        ("", ""),
    ],
)
def test_a_newline_is_written_as_shells_leave_it(given: str, text: str) -> None:
    assert unescaped(given) == text


# --- where they go --------------------------------------------------------------------------------


@pytest.mark.usefixtures("here", "one_model")
@pytest.mark.parametrize("command", [["sample", "-m"], ["select", "-n"]])
def test_texts_of_a_command(command: list[object]) -> None:
    texts = ["--template", r"Q: {q}\nA:", "--system", r"One.\nTwo.", "--stop", r"\n"]
    done(command[0], "p.jsonl", "-o", "out.jsonl", command[1], 1, *SMALL, *texts, "--stop", "x,")
    (row,) = (r for r in rows_of("out.jsonl") if "2 fruits" in r["prompt"][-1]["content"])
    assert [turn["content"] for turn in row["prompt"]] == ["One.\nTwo.", "Q: Name 2 fruits.\nA:"]
    settings = json.loads(Path("out.jsonl.run/manifest.json").read_text())
    assert settings["stop"] == ["\n", "x,"]


def drawn(path: str = "pool.jsonl") -> str:
    done("sample", "p.jsonl", "-m", 2, "-o", path, "--seed", 0, *SMALL, "--keep-tokens")
    return path


def options_of(path: str) -> dict[str, dict[str, Any]]:
    """How the scores in a pool file were made."""
    return {name: how["options"] for name, how in read_origins(Path(path)).items()}


@pytest.mark.usefixtures("here", "one_model")
def test_options_of_the_reward_of_a_selection() -> None:
    options = ["--reward", "flip", "--reward-option", "flip.samples=2"]
    options += ["--reward-option", "temperature=1"]
    told = done("ask", "Name 4 fruits.", "-n", 2, "--seed", 0, *options, "--json").stdout
    done("select", "p.jsonl", "-n", 1, "-o", "out.jsonl", "--seed", 0, *SMALL, *options)
    for row in [pool.loads(told), *pool.read(Path("out.jsonl"))]:
        for score in (candidate.scores["flip"] for candidate in row.candidates):
            assert len(score.inferred) + ("some_inferences_failed" in score.flags) == 2


@pytest.mark.usefixtures("here", "one_model")
def test_options_go_to_each_reward_that_takes_them_or_to_one() -> None:
    path, guard = drawn(), ["--reward-option", "copy_guard=strip"]
    off = ["--reward-option", "flip.copy_guard=off", "--reward-option", "random.seed=3"]
    done("score", path, "--reward", "flip,flip-likelihood,random", *guard, *off)
    assert options_of(path) == {
        "flip": {"copy_guard": "off"},
        "flip-likelihood": {"copy_guard": "strip"},
        "random": {"seed": 3},
    }
    bench = ["rewardbench", "--data", "tiny:1", *TINY, "--resamples", 100, "--reward", "flip"]
    done(*bench, "-o", "bench", *guard)
    assert options_of("bench/items-0.jsonl") == {"flip": {"copy_guard": "strip", "seed": 0}}
    audit = ["audit", "--prompts", "tiny:1", *TINY, "--attack", "quote", "--json", *guard]
    assert {e["copy_guard"] for e in json.loads(done(*audit).stdout)["attacks"]} == {"strip"}
    cuts = ["--limits", 2, "--reward", "flip,first", "--gold", "first", "--resamples", 100]
    done("curve", drawn("cut.jsonl"), "-o", "out", *cuts, "--reward-option", "similarity=rouge_l")
    assert options_of("cut.jsonl")["flip"] == {"similarity": "rouge_l"}


@pytest.mark.usefixtures("here", "one_model")
def test_options_win_over_those_of_a_recipe() -> None:
    Path("recipe.yaml").write_text(
        "output: out\n"
        "sample: {engine: tiny, prompts: p.jsonl, m: 2, max_tokens: 8}\n"
        "score:\n"
        "  reward_options: {flip.copy_guard: strip}\n"
        "  rewards:\n"
        "    - {reward: flip, options: {copy_guard: 'off', similarity: rouge_l}}\n"
        "    - {reward: flip-likelihood, options: {copy_guard: 'off'}}\n"
        "    - {reward: first, name: gold}\n"
    )
    done("run", "recipe.yaml")
    assert options_of("out/pool.jsonl")["flip"] == {"copy_guard": "strip", "similarity": "rouge_l"}
    assert options_of("out/pool.jsonl")["flip-likelihood"] == {"copy_guard": "off"}
    done("run", "out/recipe.yaml")  # the recipe as it was run is the same one
    done("run", "recipe.yaml", "-o", "more", "--reward-option", "copy_guard=flag")
    assert options_of("more/pool.jsonl")["flip"]["copy_guard"] == "flag"
    assert options_of("more/pool.jsonl")["flip-likelihood"]["copy_guard"] == "flag"
