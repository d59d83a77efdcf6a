"""A working directory for commands, and one loaded model for all of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import lines

from bestofn.engines.base import load_engine
from bestofn.engines.hf import TransformersEngine


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a file of two prompts."""
    monkeypatch.chdir(tmp_path)
    rows = [f"Name {n} fruits." for n in (2, 3)]
    lines("p.jsonl", ({"prompt": text, "q": text, "answer": "fig"} for text in rows))
    return tmp_path


@pytest.fixture(scope="module")
def one_model(tiny: TransformersEngine) -> Iterator[None]:
    """Commands share a loaded model, so that they differ in nothing but time."""

    def load(spec: str, **options: Any) -> Any:
        return tiny if spec == "tiny" and not options else load_engine(spec, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bestofn.models.load_engine", load)
        patch.setattr(tiny, "close", lambda: None)
        yield


@pytest.fixture
def unloadable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that loads a model fails its test."""
    monkeypatch.setattr("bestofn.models.load_engine", lambda *_, **__: pytest.fail("loaded"))
