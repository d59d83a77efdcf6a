"""Options are the configuration's fields: all of them, with its defaults and its texts."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from bestofn.cli import app
from bestofn.cli.app import Debug
from bestofn.cli.options import NEWLINES, named, options
from bestofn.config import (
    AuditConfig,
    CurveConfig,
    EngineConfig,
    ReportConfig,
    RewardBenchConfig,
    SampleConfig,
    ScoreConfig,
    Section,
)
from bestofn.errors import ConfigError

RUNNER = CliRunner()
TINY = ["--engine", "tiny"]


def parameters(command: str) -> dict[str, Any]:
    group: Any = typer.main.get_command(app)
    return {p.name: p for p in group.commands[command].params}


def fields(*kinds: type[Section], without: Iterable[str] = ()) -> set[str]:
    return {name for kind in kinds for name in kind.model_fields} - {*without}


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        ("sample", fields(SampleConfig)),
        ("score", fields(EngineConfig, ScoreConfig)),
        ("curve", fields(CurveConfig, EngineConfig, ScoreConfig, without=["again"]) | {"title"}),
        ("report", fields(ReportConfig)),
        (
            "run",
            fields(SampleConfig, ScoreConfig, CurveConfig, ReportConfig)
            | fields(RewardBenchConfig, without=["models"]),
        ),
        ("rewardbench", fields(RewardBenchConfig, without=["models"])),
        ("audit", fields(AuditConfig)),
    ],
)
def test_each_field_is_an_option_and_nothing_else_is(command: str, wanted: set[str]) -> None:
    own = {"output", "pool", "pools", "folder", "recipe", "as_json", "debug"}
    assert parameters(command).keys() - own == wanted


@pytest.mark.parametrize(
    "kind", [SampleConfig, ScoreConfig, CurveConfig, ReportConfig, RewardBenchConfig]
)
def test_help_is_the_text_of_the_field_and_its_default(kind: type[Section]) -> None:
    shown = parameters("run")
    for name, field in kind.model_fields.items():
        if name == "models":  # mappings, for recipes alone
            continue
        empty = field.is_required() or field.default in (None, "", [], {})
        default = "" if empty else f" Default: {field.default}."
        newlines = f" {NEWLINES}" if name in ("system", "stop", "template") else ""
        assert shown[name].help == " ".join(str(field.description).split()) + newlines + default


@pytest.mark.parametrize(
    ("command", "name", "flags"),
    [
        ("sample", "m", ["-m"]),
        ("sample", "max_tokens", ["--max-tokens"]),
        ("sample", "engine_args", ["--engine-arg"]),
        ("score", "rewards", ["--reward"]),
        ("score", "again", ["--again"]),
        ("curve", "proxies", ["--proxy"]),
        ("curve", "ns", ["--ns", "-n"]),
        ("curve", "iid", ["--iid"]),
    ],
)
def test_how_options_are_called(command: str, name: str, flags: list[str]) -> None:
    assert parameters(command)[name].opts == flags


# --- values ---------------------------------------------------------------------------------------


def called(arguments: list[str], *kinds: type[Section]) -> dict[str, Any]:
    """What a command with the options of these sections is called with."""
    seen: dict[str, Any] = {}
    probe = typer.Typer()

    @probe.command()
    @options(*kinds)
    def command(**given: Any) -> None:
        seen.update(given)

    result = RUNNER.invoke(probe, arguments)
    assert result.exit_code == 0, result.output
    return seen


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ([], {}),
        (["-m", "4", "--temperature", "0.5"], {"m": 4, "temperature": 0.5}),
        (["--keep-tokens"], {"keep_tokens": True}),
        (["--no-keep-tokens"], {"keep_tokens": False}),
        (["--stop", "a,b", "--stop", "\n"], {"stop": ["a,b", "\n"]}),
        (
            ["--engine-arg", "rows=4", "--engine-arg", "name=x", "--engine-arg", "on=true"],
            {"engine_args": {"rows": 4, "name": "x", "on": True}},
        ),
        (["--engine-option", "lora=a=b"], {"engine_options": {"lora": "a=b"}}),
        (["--seed", "0", "--limit", "0"], {"seed": 0, "limit": 0}),
        (["--system", ""], {"system": ""}),
    ],
)
def test_only_what_was_given_comes(arguments: list[str], given: dict[str, Any]) -> None:
    assert called(["--prompts", "x", *arguments], SampleConfig) == {"prompts": "x"} | given


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        (["--reward", "flip,gold"], {"rewards": ["flip", "gold"]}),
        (["--reward", "flip", "--reward", "gold"], {"rewards": ["flip", "gold"]}),
        (["--limits", "8,4", "--limits", "16"], {"limits": ["8", "4", "16"]}),
        (["--again"], {"again": True}),
        (["--reward-engine-arg", "x=[1, 2]"], {"reward_engine_args": {"x": [1, 2]}}),
    ],
)
def test_lists_by_comma_or_repeated(arguments: list[str], given: dict[str, Any]) -> None:
    assert called(arguments, ScoreConfig) == given


@pytest.mark.parametrize(
    ("argument", "pair"),
    [
        ("a=1", ("a", 1)),
        ("a=1.5", ("a", 1.5)),
        ("a=true", ("a", True)),
        ("a=text", ("a", "text")),
        ("a=off", ("a", "off")),
        ("a=No", ("a", "No")),
        ("a=", ("a", None)),
        ("a=[x, 2]", ("a", ["x", 2])),
        ("a={b: c}", ("a", {"b": "c"})),
        ("a={b", ("a", "{b")),
        ("a=b=c", ("a", "b=c")),
    ],
)
def test_named_values(argument: str, pair: tuple[str, Any]) -> None:
    assert named(argument) == pair


@pytest.mark.parametrize("argument", ["a", "=1", "a b=1", ""])
def test_what_is_no_named_value(argument: str) -> None:
    with pytest.raises(ConfigError, match="NAME=VALUE"):
        named(argument)


def test_a_command_with_options_of_its_own_keeps_them() -> None:
    probe = typer.Typer()
    seen: list[Any] = []

    @probe.command()
    @options(ReportConfig)
    def command(path: Path, n: int = 3, debugging: Debug = False, **given: Any) -> None:
        seen.append((path, n, given))

    assert RUNNER.invoke(probe, ["x", "--embed", "7"]).exit_code == 0
    assert seen == [(Path("x"), 3, {"embed": 7})]


# --- wrong values ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["sample", "tiny:2", "-o", "x", *TINY, "--limit", "0"],
            "the key 'limit' is wrong",
        ),
        (
            ["sample", "tiny:2", "-o", "x", *TINY, "--window", "0"],
            "the key 'window' is wrong",
        ),
        (
            ["sample", "tiny:2", "-o", "x", *TINY, "--engine-arg", "x"],
            "takes NAME=VALUE, not 'x'",
        ),
        (["score", "x", "--limits", "0"], "each limit must be at least 1"),
        (["score", "x", "--limits", "4,x"], "the key 'limits.1' is wrong"),
        (["curve", "x", "-o", "y", "--ns", "0"], "each n must be at least 1"),
        (["curve", "x", "-o", "y", "--level", "2"], "the key 'level' is wrong"),
        (["curve", "x", "-o", "y", "--bad-rows", "z"], "the key 'bad_rows' is wrong"),
        (["report", "x", "-o", "y", "--embed", "0"], "the key 'embed' is wrong"),
    ],
)
def test_a_wrong_value_is_one_sentence(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = RUNNER.invoke(app, arguments)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["sample", "tiny:2", "-o", "x", *TINY, "-m", "many"],
        ["sample", "tiny:2", "--engine", "tiny"],
        ["score", "x", "--rewards", "flip"],
        ["curve", "x"],
    ],
)
def test_what_is_no_option_at_all(arguments: list[str]) -> None:
    result = RUNNER.invoke(app, arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
