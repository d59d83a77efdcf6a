"""vLLM's engine process: its start, its requests, what it died of, and that it ends."""

import asyncio
import itertools
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from multiprocessing import resource_tracker
from tempfile import TemporaryFile
from typing import Any

from vllm import AsyncEngineArgs
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from bestofn import concurrency
from bestofn.engines.model_files import first_sentence
from bestofn.errors import ConfigError, EngineError

STARTING = threading.Lock()
GRACE = 6.0  # seconds that the engine process gets to end by itself
LAST_BYTES = 1 << 16
# "ValueError: ...", wherever it is in a line of a log.
CAUSE = re.compile(r"\b((?:[\w.]+\.)?[A-Z]\w*(?:Error|Exception|Interrupt)): (.+)")
# What vLLM says when it only passes a failure on.
ECHOES = ("Engine core initialization failed", "WorkerProc initialization failed", "EngineCore")


class EngineProcess:
    """One AsyncLLM, None once it is closed, and the processes behind it.

    Raises:
        EngineError: vLLM cannot start with these arguments.
    """

    def __init__(self, args: AsyncEngineArgs) -> None:
        self._errors = TemporaryFile()  # noqa: SIM115 (it is there as long as the engine)
        self._pid = os.getpid()
        self._request_ids = itertools.count()
        self.llm: AsyncLLM | None = None
        try:
            # Standard error and the main module are the whole process's.
            with STARTING:
                self.llm = _in_quiet_thread(lambda: self._start(args))
        except Exception as error:
            raise EngineError(self._diagnosis(args.model, error)) from error
        self._watchdog = _watch(self.llm)
        self.config = self.llm.vllm_config
        self._ranks = self.config.scheduler_config.policy == "priority"

    def _start(self, args: AsyncEngineArgs) -> AsyncLLM:
        context = UsageContext.LLM_CLASS  # takes the large batches of offline use
        config = args.create_engine_config(context)
        with _stderr_in(self._errors.fileno()), _main_not_imported_again():
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

    async def last_output(
        self,
        start: Callable[..., AsyncGenerator[Any, None]],
        on_output: Callable[[Any], None] | None = None,
    ) -> Any:
        """The last output of the request that `start(llm, request_id=, priority=)` makes.

        `on_output` is given each one as it comes.

        Raises:
            ConfigError: vLLM does not take the request.
            EngineError: it failed, or the engine did.
        """
        llm = self.opened()
        request_id = str(next(self._request_ids))
        priority = concurrency.place_in_run() if self._ranks else 0
        try:
            requested = start(llm, request_id=request_id, priority=priority)
            last = None
            async for last in requested:
                if on_output is not None:
                    on_output(last)
        except asyncio.CancelledError:
            # vLLM does so itself, except for a request that it has not taken in quite yet.
            await llm.abort(request_id)
            raise
        except (EngineDeadError, EngineGenerateError) as error:
            if llm.errored or isinstance(error, EngineDeadError):
                raise EngineError(self._death_message()) from error
            cause = first_sentence(error.__cause__ or error)
            raise EngineError(f"vLLM failed on a request: {cause}") from error
        except Exception as error:  # of other types in each release
            raise ConfigError(f"vLLM refuses a request: {first_sentence(error)}") from error
        if last is None:
            raise EngineError(self._death_message())
        return last

    def require_alive(self) -> None:
        """Raises EngineError if the engine has died or is closed."""
        if self.opened().errored:
            raise EngineError(self._death_message())

    def opened(self) -> AsyncLLM:
        concurrency.require_process(self._pid, "a loaded model")
        if self.llm is None:
            raise EngineError("the vLLM engine is closed; load it again")
        return self.llm

    def _cause_of_death(self) -> str:
        """The last error that the engine process wrote, empty if there is none."""
        end = os.fstat(self._errors.fileno()).st_size
        last = os.pread(self._errors.fileno(), LAST_BYTES, max(0, end - LAST_BYTES))
        causes = CAUSE.findall(last.decode("utf-8", "replace"))
        own = [f"{kind}: {what.strip()}" for kind, what in causes if not what.startswith(ECHOES)]
        return own[-1].rstrip(".") if own else ""

    def _death_message(self) -> str:
        if self.llm is None:
            return "the vLLM engine was closed while requests ran"
        cause = self._cause_of_death()
        return (
            f"the vLLM engine has died{': ' if cause else ''}{cause}; load it again, with less "
            "memory at stake (max_num_seqs, max_model_len, gpu_memory_utilization) if it ran out"
        )

    def _diagnosis(self, model: str, error: Exception) -> str:
        # pydantic puts the reason on a line of its own.
        reasons = re.findall(r"Value error, (.+?)(?: \[type=|$)", str(error), re.MULTILINE)
        own = (reasons[0] if reasons else first_sentence(error)).partition(". ")[0].rstrip(".")
        cause = self._cause_of_death() if own.startswith(ECHOES) else own
        return (
            f"vLLM cannot start with model {model!r}: {cause or own}; give it a model that it "
            "serves and arguments that suit it, or more memory (gpu_memory_utilization, "
            "kv_cache_memory_bytes, a smaller max_model_len or max_num_seqs)"
        )

    def close(self) -> None:
        """Ends the engine's processes; a second call does nothing, nor one in a forked process."""
        llm = self.llm
        if self._pid != os.getpid() or llm is None:
            return
        self.llm = None
        concurrency.background_loop().call_soon_threadsafe(_fail_requests, llm)
        # The last view may have been dropped in the loop that all engines share.
        concurrency.off_background_loop(lambda: llm.shutdown(timeout=GRACE))
        if self._watchdog is not None:
            self._watchdog.kill()
            self._watchdog.wait()


def _watch(llm: AsyncLLM) -> "subprocess.Popen[bytes] | None":
    """A process that ends the engine's when the pipe to this one ends, even if it is killed."""
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


def _in_quiet_thread(start: Callable[[], AsyncLLM]) -> AsyncLLM:
    """Runs `start` in a thread that blocks SIGINT, a mask that its child processes inherit.

    Ctrl-C, which the terminal sends to them too, would end them, and every request that others
    wait for. The thread also has no event loop, which AsyncLLM would bind itself to.
    """
    result: Future[AsyncLLM] = Future()

    def work() -> None:
        # Started later, this helper of the standard library would clear the mask.
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


@contextmanager
def _stderr_in(file: int) -> Iterator[None]:
    """Processes started in here write their errors to a file, unless the user wants to see them."""
    original = os.dup(2)
    if os.environ.get("VLLM_LOGGING_LEVEL") == "ERROR":
        os.dup2(file, 2)
    try:
        yield
    finally:
        os.dup2(original, 2)
        os.close(original)
