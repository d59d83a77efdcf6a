"""The container, as far as it can be checked where nothing builds one."""

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version
from typer.testing import CliRunner

from bestofn.cli import app
from bestofn.config.serving import ServeConfig

ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
    "optional-dependencies"
]
COMPOSE: Any = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))

Stage = list[tuple[str, str]]


def stages() -> dict[str, Stage]:
    """The instructions of each stage, after those of the stage that it is built on."""
    text = re.sub(r"^#.*\n|\\\n", "", (ROOT / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE)
    found: dict[str, Stage] = {}
    for line in filter(None, text.splitlines()):
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            parent, _, name = rest.partition(" AS ")
            found[name] = [*found.get(parent, ())]
        else:
            found[name].append((instruction, rest))
    return found


STAGES = stages()
LAST = {target: dict(STAGES[target]) for target in ("cpu", "cuda")}
"""The last instruction of each kind, which is the one that counts."""


def values(instruction: str, stage: str) -> list[str]:
    return [rest for kind, rest in STAGES[stage] if kind == instruction]


def git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)


def test_what_is_copied_is_tracked_and_all_that_a_build_may_read() -> None:
    copied = {
        source
        for stage in STAGES
        for rest in values("COPY", stage)
        if not rest.startswith("--from=")
        for source in rest.split()[:-1]
    }
    assert {"bestofn", "constraints.txt"} <= copied
    for source in copied:
        assert git("ls-files", source).stdout, source
    ignored, *readable = [
        line
        for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    assert ignored == "*"
    assert {line[1:] for line in readable if line.startswith("!")} == copied


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_a_target_has_packages_and_serves_as_a_user_without_rights(target: str) -> None:
    (packages,) = [rest for rest in values("COPY", target) if rest.startswith("--from=")]
    assert packages.split()[0] == f"--from={target}-packages"
    assert f"{target}-packages" in STAGES
    last = LAST[target]
    assert last["USER"] == "bestofn"
    assert json.loads(last["ENTRYPOINT"]) == ["bestofn", "serve"]
    assert last["STOPSIGNAL"] == "SIGTERM"
    port = ServeConfig.model_fields["port"].default
    assert last["EXPOSE"] == str(port)
    program, option, code = json.loads(last["HEALTHCHECK"].partition(" CMD ")[2])
    assert (program, option) == ("python", "-c")
    compile(code, "HEALTHCHECK", "exec")
    assert f"127.0.0.1:{port}/ready" in code


@pytest.mark.parametrize(("target", "more"), [("cpu", []), ("cuda", ["vllm"])])
def test_extras_are_those_of_the_package(target: str, more: list[str]) -> None:
    arguments = dict(rest.split("=") for rest in values("ARG", f"{target}-packages"))
    extras = arguments["EXTRAS"].split(",")
    assert extras == ["serve", "openai", *more]
    assert set(extras) <= EXTRAS.keys()


def test_releases_of_vllm_are_ones_that_the_package_takes() -> None:
    (requirement,) = map(Requirement, EXTRAS["vllm"])
    image, _, tag = COMPOSE["services"]["vllm"]["image"].partition(":v")
    assert image == "vllm/vllm-openai"
    assert Version(tag) in requirement.specifier
    assert f"VLLM={tag}" in values("ARG", "cuda-packages")


def test_the_server_takes_the_options_of_compose(tmp_path: Path) -> None:
    command = COMPOSE["services"]["bestofn"]["command"]
    assert command[command.index("--host") + 1] == "0.0.0.0"
    # Past the options it reads the keys, which are not here.
    missing = str(tmp_path / "api_keys")
    given = [part.replace("/run/secrets/api_keys", missing) for part in command]
    assert missing in given
    result = CliRunner().invoke(app, ["serve", *given])
    assert (result.exit_code, "No such file" in result.output) == (2, True), result.output


def test_compose_waits_for_the_model_and_for_answers_under_way() -> None:
    server = COMPOSE["services"]["bestofn"]
    assert server["build"]["target"] in STAGES
    assert server["depends_on"] == {"vllm": {"condition": "service_healthy"}}
    assert "healthcheck" in COMPOSE["services"]["vllm"]
    drain = ServeConfig.model_fields["drain_seconds"].default
    assert int(server["stop_grace_period"].removesuffix("s")) > drain


def test_keys_are_a_secret_that_git_ignores() -> None:
    (name,) = COMPOSE["services"]["bestofn"]["secrets"]
    file = COMPOSE["secrets"][name]["file"]
    assert git("check-ignore", file).returncode == 0
