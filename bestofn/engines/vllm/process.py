"""vLLM's engine process: its start, its requests, its last words, and that it ends."""

import asyncio
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from typing import Any

from vllm import AsyncEngineArgs
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from bestofn import concurrency
from bestofn.engines.model_files import first_sentence
from bestofn.engines.vllm.environment import QUIET
from bestofn.engines.vllm.versions import REFUSALS
from bestofn.errors import ConfigError, EngineError

STARTING = threading.Lock()
GRACE = 6.0  # seconds that the engine process gets to end by itself
LAST_LINES = 200
# "ValueError: ...", wherever it stands in a line of a log.
CAUSE = re.compile(r"\b((?:[\w.]+\.)?[A-Z]\w*(?:Error|Exception|Interrupt)): (.+)")
MEMORY = re.compile(r"out of memory|no available memory|KV cache|free memory|cannot allocate", re.I)
# What vLLM says when it only passes a failure on.
ECHOES = ("Engine core initialization failed", "WorkerProc initialization failed", "EngineCore")


class EngineProcess:
    """One AsyncLLM and the processes behind it.

    Attributes:
        llm: None once it is closed.
    """

    def __init__(self, args: AsyncEngineArgs) -> None:
        self._errors = _StandardError()
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._pid = os.getpid()
        self.llm: AsyncLLM | None = None
        try:
            # Standard error and the main module are the whole process's.
            with STARTING:
                self.llm = _in_quiet_thread(lambda: self._start(args))
            self._watchdog = _watch(self.llm)
        except Exception as error:
            self._errors.wait_for_last_words()
            raise EngineError(self._diagnosis(args.model, error)) from error

    def _start(self, args: AsyncEngineArgs) -> AsyncLLM:
        context = UsageContext.LLM_CLASS  # takes the large batches of offline use
        config = args.create_engine_config(context)
        with self._errors.tapped(), _main_not_imported_again():
            llm = AsyncLLM.from_vllm_config(
                config,
                usage_context=context,
                enable_log_requests=False,
                disable_log_stats=args.disable_log_stats,
            )
        # The statistics of single requests are what is needed; to sum them up for Prometheus at
        # each step takes time from the engine.
        llm.logger_manager = None
        return llm

    def cause_of_death(self) -> str:
        """The last error that the engine process wrote, empty if there is none."""
        for line in reversed(self._errors.lines):
            found = CAUSE.search(line)
            if found and not found[2].startswith(ECHOES):
                return f"{found[1]}: {found[2].strip()}".rstrip(".")
        return ""

    async def last_output(
        self, request_id: str, start: Callable[[AsyncLLM], AsyncGenerator[Any, None]]
    ) -> Any:
        """The last output of the request that `start` makes.

        Raises:
            ConfigError: vLLM does not take the request.
            EngineError: it failed, or the engine did.
        """
        llm = self.opened()
        try:
            outputs = [output async for output in start(llm)]
        except asyncio.CancelledError:
            # vLLM does so itself, except for a request that it has not taken in quite yet.
            await llm.abort(request_id)
            raise
        except (EngineDeadError, EngineGenerateError) as error:
            if llm.errored or isinstance(error, EngineDeadError):
                raise EngineError(self.death_message()) from error
            cause = first_sentence(error.__cause__ or error)
            raise EngineError(f"vLLM failed on a request: {cause}") from error
        except REFUSALS as error:
            raise ConfigError(f"vLLM refuses a request: {first_sentence(error)}") from error
        if not outputs:
            raise EngineError(self.death_message())
        return outputs[-1]

    def opened(self) -> AsyncLLM:
        """The engine.

        Raises:
            EngineError: it is closed, or of another process.
        """
        concurrency.require_process(self._pid, "a loaded model")
        if self.llm is None:
            raise EngineError("the vLLM engine is closed; load it again")
        return self.llm

    def death_message(self) -> str:
        """What to say of requests that the engine will not answer any more."""
        if self.llm is None:
            return "the vLLM engine was closed while requests ran"
        cause = self.cause_of_death()
        return (
            f"the vLLM engine has died{': ' if cause else ''}{cause}; load it again, with less "
            "memory at stake (max_num_seqs, max_model_len, gpu_memory_utilization) if it ran out"
        )

    def _diagnosis(self, model: str, error: Exception) -> str:
        # pydantic puts the reason on a line of its own.
        reasons = re.findall(r"Value error, (.+?)(?: \[type=|$)", str(error), re.MULTILINE)
        own = reasons[0] if reasons else first_sentence(error)
        own = own.partition(". ")[0].rstrip(".")
        cause = self.cause_of_death() if own.startswith(ECHOES) else own
        if MEMORY.search(cause):
            advice = (
                "give it more memory (gpu_memory_utilization, kv_cache_memory_bytes), lower "
                "max_model_len or max_num_seqs, or load a smaller or a quantized model"
            )
        elif "rchitecture" in str(error):
            advice = "take a model that vLLM serves, or try 'hf:' with this one"
        else:
            advice = "give a model folder or the name of a repository, and arguments that suit it"
        return f"vLLM cannot start with model {model!r}: {cause or own}; {advice}"

    def close(self) -> None:
        """Ends the engine's processes; a second call does nothing, nor one in a forked process."""
        if self._pid != os.getpid():
            return
        llm, self.llm = self.llm, None
        if llm is None:
            return
        concurrency.background_loop().call_soon_threadsafe(_fail_requests, llm)
        # The last view may have been dropped in the loop that all engines share.
        concurrency.off_background_loop(lambda: llm.shutdown(timeout=GRACE))
        if self._watchdog is not None:
            self._watchdog.kill()
            self._watchdog.wait()


def _watch(llm: AsyncLLM) -> "subprocess.Popen[bytes] | None":
    """A process that ends the engine's if this one is killed and can do so no more.

    It waits on a pipe of which only this process holds the other end.
    """
    manager = llm.engine_core.resources.engine_manager
    pids = [str(process.pid) for process in getattr(manager, "processes", [])]
    if not pids or shutil.which("sh") is None:
        return None
    return subprocess.Popen(
        ["sh", "-c", 'read _; kill -9 "$@"', "sh", *pids],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _fail_requests(llm: AsyncLLM) -> None:
    """Ends those that wait, and the task that would complain about the end of the engine."""
    llm.output_processor.propagate_error(EngineDeadError())
    if llm.output_handler is not None:
        llm.output_handler.cancel()


def _in_quiet_thread(start: Any) -> AsyncLLM:
    """Runs `start` in a thread that blocks SIGINT, a mask that its child processes inherit.

    Otherwise Ctrl-C would end the engine process itself, of which the terminal tells it too, and
    with it every request that other callers wait for. The thread also has no event loop, which
    AsyncLLM would bind itself to.
    """
    result: Future[AsyncLLM] = Future()

    def work() -> None:
        # A helper process of the standard library. To be started later it would clear the mask,
        # and hold on to what it inherits.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            result.set_result(start())
        except BaseException as error:
            result.set_exception(error)

    before = set(multiprocessing.active_children())
    thread = threading.Thread(target=work, name="bestofn-vllm-start", daemon=True)
    thread.start()
    try:
        return result.result()
    except BaseException:
        for child in set(multiprocessing.active_children()) - before:
            child.kill()
        thread.join(GRACE)
        raise


@contextmanager
def _main_not_imported_again() -> Iterator[None]:
    """Keeps a spawned process from running the user's script a second time.

    The engine process needs nothing of it, and a script without `if __name__ == "__main__"` would
    start an engine in the engine.
    """
    main = vars(sys.modules["__main__"])
    known: dict[str, Any] = {name: main[name] for name in ("__file__", "__spec__") if name in main}
    main.update(dict.fromkeys(known))
    try:
        yield
    finally:
        main.update(known)


class _StandardError:
    """Keeps the last lines that child processes write to standard error."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=LAST_LINES)
        self._reader: threading.Thread | None = None

    @contextmanager
    def tapped(self) -> Iterator[None]:
        """Processes started in here write to the tap, for as long as they live."""
        read_end, write_end = os.pipe()
        original = os.dup(2)
        self._reader = threading.Thread(
            target=self._pass_on, args=(read_end, original), name="bestofn-vllm-stderr", daemon=True
        )
        self._reader.start()
        os.dup2(write_end, 2)
        try:
            yield
        finally:
            os.dup2(original, 2)
            os.close(write_end)

    def _pass_on(self, read_end: int, original: int) -> None:
        """Until the last process that holds the other end is gone."""
        with os.fdopen(read_end, "rb") as source:
            for line in source:
                self.lines.append(line.decode("utf-8", "replace").rstrip("\n"))
                if not QUIET:
                    with suppress(OSError):
                        os.write(original, line)
        os.close(original)

    def wait_for_last_words(self) -> None:
        if self._reader is not None:
            self._reader.join(0.5)
