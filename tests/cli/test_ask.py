"""A first look: ask, demo, doctor; and what the console script does for all commands."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from commands import bestofn, done

from bestofn.cli import doctor
from bestofn.cli.doctor import Finding
from bestofn.store import pool

ASK = ["ask", "Name 4 fruits.", "-n", 3, "--seed", 1]


def test_ask_prints_candidates_and_the_best() -> None:
    shown = done(*ASK, "--reward", "flip").stdout
    assert "3 candidates by flip" in shown
    assert "inferred instruction" in shown
    shown = done(*ASK).stdout
    assert "3 candidates by flip-likelihood" in shown
    assert "inferred instruction" not in shown
    assert "best: " in shown


@pytest.mark.parametrize("reward", ["flip", "flip-likelihood"])
def test_ask_json_is_one_selection_and_nothing_else(reward: str) -> None:
    shown = done(*ASK, "--reward", reward, "--json").stdout
    data = json.loads(shown)
    assert data["text"] == data["candidates"][data["index"]]["text"]
    assert all(isinstance(c["scores"][reward]["value"], float) for c in data["candidates"])
    assert len(pool.loads(shown).candidates) == 3
    again = json.loads(done(*ASK, "--reward", reward, "--json").stdout)
    assert [c["text"] for c in again["candidates"]] == [c["text"] for c in data["candidates"]]


def test_ask_with_options() -> None:
    options = ["--system", r"One.\nTwo.", "--temperature", 0, "--max-tokens", 2]
    engines = ["--engine-arg", "max_rows=4", "--reward-engine", "tiny"]
    data = json.loads(done("ask", r"Say \n.", "-n", 1, *options, *engines, "--json").stdout)
    assert [turn["content"] for turn in data["prompt"]] == ["One.\nTwo.", r"Say \n."]
    assert data["candidates"][0]["finish_reason"] == "length"


def test_demo() -> None:
    names = ("random", "flip", "flip-likelihood", "mean-logprob", "majority", "oracle")
    shown = done("demo", "--prompts", 4, "-n", 2).stdout
    assert all(name in shown for name in names)
    accuracy = json.loads(done("demo", "--prompts", 3, "-n", 2, "--json").stdout)["accuracy"]
    assert {*names} <= {*accuracy}
    assert all(0 <= value <= accuracy["oracle"] for value in accuracy.values())


def test_doctor_finds_a_working_installation() -> None:
    findings = {f["what"]: f for f in json.loads(done("doctor", "--json").stdout)["findings"]}
    assert findings["numpy"]["detail"] == version("numpy")
    assert findings["device cpu"]["status"] == "ok"
    assert "gave" in findings["engine tiny"]["detail"]


def test_doctor_names_what_is_missing_or_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("torchvision", None)
    finding = doctor.package("torchvision", doctor.COMPANIONS["torchvision"])
    assert finding.status == "broken"
    assert "nms does not exist" in finding.detail
    assert "pip uninstall torchvision" in finding.remedy
    missing = doctor.package("nonesuch_package", "pip install it")
    assert missing == Finding("nonesuch_package", "missing", "not installed", "pip install it")
    monkeypatch.setattr(doctor, "examine", lambda: [finding])
    result = bestofn("doctor")
    assert result.exit_code == 1
    assert "pip uninstall torchvision" in " ".join(result.stdout.split())


def test_version() -> None:
    assert bestofn("--version").stdout == "bestofn 0.1.0\n"


def test_debug_shows_the_traceback() -> None:
    result = bestofn("ask", "x", "-n", 0, "--debug")
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert "the key 'n' is wrong" in result.stderr
