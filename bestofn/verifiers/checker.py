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
from typing import Any
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

    def ask(self, request: str) -> Any:
        with self._lock:
            process, self._process = self._process or self._start(), None
            try:
                assert process.stdout is not None
                with suppress(BrokenPipeError):
                    print(request, file=process.stdin, flush=True)
                if line := process.stdout.readline():
                    self._process = process
                    return json.loads(line)
            finally:
                # An answer that is still to come would be taken for that of the next call.
                if self._process is None:
                    _end(process, os.getpid())
        if process.returncode == -signal.SIGPROF:
            raise CheckError(f"no verdict within {self._seconds:g} s of processor time")
        raise CheckError(f"the checker's process ended with code {process.returncode}")

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


def _end(process: subprocess.Popen[str], started_by: int) -> None:
    if started_by != os.getpid():
        return  # it still answers the process that this one was forked from
    try:
        process.communicate(timeout=0.2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def main() -> None:
    """The child: answers each line on its standard input with one line, until that is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    # The channel is this module's alone; what a checker prints goes nowhere.
    replies, sys.stdout = sys.stdout, sys.stderr
    checks, seconds = import_module(sys.argv[1]), float(sys.argv[2])
    for line in sys.stdin:
        function, *arguments = json.loads(line)
        # Python does not handle this signal, so the system ends the process wherever it is.
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            reply = "result", getattr(checks, function)(*arguments)
        except (ConfigError, CheckError) as error:
            reply = "config" if isinstance(error, ConfigError) else "error", str(error)
        except Exception as error:
            reply = "error", f"{type(error).__name__}: {error}"
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(reply), file=replies, flush=True)
