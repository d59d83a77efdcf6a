"""Checks in a process of their own, which the operating system ends if one takes too long."""

import json
import os
import resource
import signal
import subprocess
import sys
from contextlib import suppress
from functools import partial
from importlib import import_module
from threading import Lock
from types import ModuleType
from typing import Any, TextIO
from weakref import finalize

from bestofn import concurrency
from bestofn.errors import BestOfNError, ConfigError

# The child gets the parent's import path, so that both mean the same modules.
MAIN = "import sys; sys.path[:] = sys.argv[3:]; import bestofn.verifiers.checker as c; c.main()"
MEMORY = 4 << 30  # bytes of address space that the child may have


class CheckError(BestOfNError, RuntimeError):
    """A response could not be checked, so that it is neither right nor wrong."""


class Checker:
    """Functions of a module, called in another process, one call at a time and from any thread.

    A response can make a checker compute for ever, in code that neither a thread nor a Python
    signal handler interrupts. A call that exceeds its limit ends the process; the next call
    starts another.

    Args:
        module: Has the functions; their arguments and results are what JSON can hold.
        seconds: Processor time that one call may take, so that a busy machine changes no verdict.
    """

    def __init__(self, module: str, seconds: float) -> None:
        self._child = concurrency.PerProcess(partial(_Child, module, seconds))

    def __call__(self, function: str, *arguments: Any) -> Any:
        """What the function returns.

        Raises:
            ConfigError: the function raised one.
            CheckError: it raised anything else, took too long, or its process died.
        """
        kind, value = self._child().ask(json.dumps([function, *arguments]))
        if kind != "result":
            raise {"config": ConfigError, "error": CheckError}[kind](value)
        return value


class _Child:
    """The process that answers this one, started when it is first asked and after it died."""

    def __init__(self, module: str, seconds: float) -> None:
        self._module, self._seconds = module, seconds
        self._lock = Lock()
        self._process: subprocess.Popen[str] | None = None

    def ask(self, request: str) -> tuple[str, Any]:
        with self._lock:
            try:
                self._process = self._process or self._start()
                return self._answer(self._process, request)
            except BaseException:
                # An answer that is still to come would be taken for that of the next call.
                self._stop()
                raise

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", MAIN, self._module, str(self._seconds), *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        finalize(self, _end, process, os.getpid())
        return process

    def _answer(self, process: subprocess.Popen[str], request: str) -> tuple[str, Any]:
        assert process.stdout is not None
        with suppress(BrokenPipeError):
            print(request, file=process.stdin, flush=True)
        line = process.stdout.readline()
        if line:
            kind, value = json.loads(line)
            return kind, value
        self._stop()
        if process.returncode == -signal.SIGPROF:
            raise CheckError(f"no verdict within {self._seconds:g} s of processor time")
        raise CheckError(f"the checker's process ended with code {process.returncode}")

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            _end(process, os.getpid())


def _end(process: subprocess.Popen[str], started_by: int) -> None:
    if started_by != os.getpid():
        return  # it still answers the process that this one was forked from
    try:
        process.communicate(timeout=0.2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def main() -> None:
    """The child: answers the lines on its standard input until that is closed."""
    # Ctrl-C is the parent's to handle.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    # The channel is this module's alone; what a checker prints goes nowhere.
    replies, sys.stdout = sys.stdout, sys.stderr
    serve(sys.argv[1], float(sys.argv[2]), sys.stdin, replies)


def serve(module: str, seconds: float, requests: TextIO, replies: TextIO) -> None:
    """Answers each line of `requests` with one line, each within the time limit."""
    checks = import_module(module)
    for line in requests:
        # Python does not handle this signal, so the system ends the process wherever it is.
        signal.setitimer(signal.ITIMER_PROF, seconds)
        reply = _reply(checks, *json.loads(line))
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(reply), file=replies, flush=True)


def _reply(checks: ModuleType, function: str, *arguments: Any) -> tuple[str, Any]:
    try:
        return "result", getattr(checks, function)(*arguments)
    except ConfigError as error:
        return "config", str(error)
    except CheckError as error:
        return "error", str(error)
    except Exception as error:
        return "error", f"{type(error).__name__}: {error}"
