"""Checks in another process: results, errors, and what happens to one that never ends."""

import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bestofn.errors import ConfigError
from bestofn.verifiers.checker import Checker, CheckError

SOURCE = """
import os, sys
from bestofn.errors import ConfigError
from bestofn.verifiers.checker import CheckError

def double(x): return x * 2
def pid(): return os.getpid()
def noisy(): print("noise"); print("noise", file=sys.stderr); return 1
def misused(): raise ConfigError("a column is wrong")
def unknown(): raise CheckError("nobody knows")
def failing(): return 1 / 0
def endless(): return 9 ** 9 ** 9
def dying(): os._exit(3)
def greedy(): return len(bytearray(1 << 40))
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "some_checks.py").write_text(SOURCE)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "some_checks", raising=False)
    return "some_checks"


def test_calls(module: str) -> None:
    check = Checker(module, 5)
    assert check("double", "é\ud800\n") == "é\ud800\n" * 2
    assert check("noisy") == 1
    with pytest.raises(ConfigError, match=r"^a column is wrong$"):
        check("misused")
    with pytest.raises(CheckError, match=r"^nobody knows$"):
        check("unknown")
    with pytest.raises(CheckError, match=r"^ZeroDivisionError: division by zero$"):
        check("failing")
    with pytest.raises(CheckError, match=r"^MemoryError"):
        check("greedy")
    assert check("double", 4) == 8


def test_one_that_never_ends_is_ended(module: str) -> None:
    check = Checker(module, 0.3)
    first = check("pid")
    with pytest.raises(CheckError, match=r"no verdict within 0\.3 s of processor time"):
        check("endless")
    assert check("pid") != first
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


def test_one_that_dies_is_started_again(module: str) -> None:
    check = Checker(module, 5)
    with pytest.raises(CheckError, match="ended with code 3"):
        check("dying")
    first = check("pid")
    os.kill(first, signal.SIGKILL)
    with pytest.raises(CheckError, match="ended with code -9"):
        check("pid")
    assert check("pid") not in (first, os.getpid())


def test_threads_take_turns(module: str) -> None:
    check = Checker(module, 5)
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda x: check("double", x), range(50))) == [*range(0, 100, 2)]


def test_the_process_ends_with_its_owner(module: str) -> None:
    check = Checker(module, 5)
    process = check("pid")
    del check
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_a_call_that_cannot_be_sent_leaves_nothing_behind(module: str) -> None:
    check = Checker(module, 5)
    with pytest.raises(TypeError):
        check("double", object())
    assert check("double", 1) == 2
