"""The command line as its user meets it: output, JSON, errors, interrupts."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from bestofn import doctor
from bestofn.cli import app
from bestofn.doctor import Finding
from bestofn.store import pool

RUNNER = CliRunner()


def bestofn(*arguments: str) -> Result:
    return RUNNER.invoke(app, arguments)


def test_ask_prints_candidates_and_the_best() -> None:
    result = bestofn("ask", "Name 4 fruits.", "-n", "3", "--seed", "1")
    assert result.exit_code == 0, result.output
    assert "3 candidates by flip" in result.stdout
    assert "inferred instruction" in result.stdout
    assert "best: " in result.stdout


@pytest.mark.parametrize("reward", ["flip", "flip-likelihood"])
def test_ask_json_is_one_selection_and_nothing_else(reward: str) -> None:
    arguments = ["ask", "Name 4 fruits.", "-n", "3", "--seed", "1", "--reward", reward, "--json"]
    result = bestofn(*arguments)
    data = json.loads(result.stdout)
    assert data["text"] == data["candidates"][data["index"]]["text"]
    assert len(data["candidates"]) == 3
    assert all(isinstance(c["scores"][reward]["value"], float) for c in data["candidates"])
    assert pool.loads(result.stdout).reward == reward
    again = json.loads(bestofn(*arguments).stdout)
    assert [c["text"] for c in again["candidates"]] == [c["text"] for c in data["candidates"]]


def test_ask_with_a_system_prompt_and_options() -> None:
    result = bestofn(
        "ask", "Name 4 fruits.", "-n", "1", "--system", "Be brief.", "--temperature", "0",
        "--top-p", "0.9", "--max-tokens", "2", "--json",
    )  # fmt: skip
    data = json.loads(result.stdout)
    assert data["prompt"][0] == {"role": "system", "content": "Be brief."}
    assert data["candidates"][0]["finish_reason"] == "length"


def test_ask_with_engine_arguments_and_another_engine_to_score() -> None:
    arguments = ("--engine-arg", "max_rows=4", "--reward-engine", "tiny", "-n", "2", "--json")
    result = bestofn("ask", "Name 4 fruits.", *arguments)
    assert result.exit_code == 0
    assert len(pool.loads(result.stdout).candidates) == 2


def test_demo() -> None:
    names = ("random", "flip", "flip-likelihood", "mean-logprob", "majority", "oracle")
    result = bestofn("demo", "--prompts", "4", "-n", "2")
    assert result.exit_code == 0, result.output
    assert all(name in result.stdout for name in names)
    assert "right" in result.stdout or "wrong" in result.stdout
    result = bestofn("demo", "--prompts", "3", "-n", "2", "--json")
    accuracy = json.loads(result.stdout)["accuracy"]
    assert {*names} <= {*accuracy}
    assert all(0 <= value <= accuracy["oracle"] for value in accuracy.values())


def test_doctor_finds_a_working_installation() -> None:
    result = bestofn("doctor", "--json")
    findings = {f["what"]: f for f in json.loads(result.stdout)["findings"]}
    assert result.exit_code == 0, result.stdout
    assert findings["torch"]["status"] == "ok"
    assert findings["device cpu"]["status"] == "ok"
    assert "gave" in findings["engine tiny"]["detail"]


def test_doctor_names_a_mismatched_torchvision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    info = tmp_path / "torchvision-0.99.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.99\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("torchvision", None)
    finding = doctor.package("torchvision", doctor.COMPANIONS["torchvision"])
    assert finding.status == "broken"
    assert "nms does not exist" in finding.detail
    assert "pip uninstall torchvision" in finding.remedy


def test_doctor_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = doctor.package("nonesuch_package", "pip install it")
    assert finding == Finding("nonesuch_package", "missing", "not installed", "pip install it")
    monkeypatch.setitem(doctor.DISTRIBUTIONS, "numpy", ("other-name", "numpy"))
    assert doctor.package("numpy", "") == Finding("numpy", "ok", version("numpy"))
    broken = [Finding("engine tiny", "broken", "it broke", "mend it")]
    monkeypatch.setattr(doctor, "examine", lambda: broken)
    result = bestofn("doctor")
    assert result.exit_code == 1
    assert "mend it" in result.stdout


def test_version() -> None:
    assert bestofn("--version").stdout == "bestofn 0.1.0\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["ask", ""], "the prompt is empty"),
        (["ask", "x", "-n", "0"], "the key 'n' is wrong"),
        (["ask", "x", "--temperature", "-1"], "temperature must be at least 0"),
        (["ask", "x", "--top-p", "2"], "top_p must be above 0"),
        (["ask", "x", "--max-tokens", "0"], "max_tokens must be at least 1"),
        (["ask", "x", "--engine", "nonesuch"], "no engine 'nonesuch'"),
        (["ask", "x", "--reward", "best"], "no reward 'best'"),
        (["ask", "x", "--reward", "gold"], "the reward 'gold' needs a verifier"),
        (["ask", "x", "--engine", "hf:./nowhere"], "no such folder"),
        (["ask", "x", "--engine-arg", "rows"], "this option takes NAME=VALUE"),
        (["ask", "x", "--engine", "openai:localhost"], "http"),
        (["ask", "x", "--engine", "openai:http://x/v1#m", "--engine-arg", "a=1"], "arguments"),
        (["ask", "x", "--engine", "openai:http://127.0.0.1:9/v1#m"], "no server answers"),
        (["demo", "-n", "0"], "n must be at least 1"),
        (["demo", "--prompts", "0"], "prompts must be at least 1"),
    ],
)
def test_errors_are_one_sentence_and_exit_code_2(arguments: list[str], sentence: str) -> None:
    result = bestofn(*arguments)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


@pytest.mark.parametrize("arguments", [["ask"], ["ask", "x", "-n", "few"], ["nonesuch"]])
def test_usage_errors(arguments: list[str]) -> None:
    result = bestofn(*arguments)
    assert (result.exit_code, "Traceback" in result.output) == (2, False)


def test_debug_shows_the_traceback() -> None:
    result = bestofn("ask", "x", "-n", "0", "--debug")
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert "the key 'n' is wrong" in result.stderr


@pytest.mark.usefixtures("sigint")
def test_ctrl_c_ends_soon_and_quietly() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "bestofn", "demo", "--prompts", "400", "-n", "64"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(8)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert out == ""


def test_importing_loads_nothing_heavy() -> None:
    heavy = "torch transformers vllm ray matplotlib pydantic numpy"
    code = f"import sys, bestofn; print([m for m in '{heavy}'.split() if m in sys.modules])"
    output: Any = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "[]"
