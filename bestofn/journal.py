"""A file of lines that survives whatever ends the run that writes it.

Lines are appended and handed to the operating system one by one, so that a killed process loses
none that was written; every few seconds they are forced to disk, so that a power cut loses only
what came after. Beside the file stand its manifest, the settings that it was begun with, and a
lock that keeps a second writer away.
"""

import errno
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bestofn.errors import BestOfNError, ConfigError

SYNC_EVERY = 5.0  # seconds


class Journal:
    """Lines on their way to disk; made by `open_journal`.

    Attributes:
        path: The file.
        lines: Those that were there when it was opened.
    """

    def __init__(self, path: Path, file: FileIO, lines: int) -> None:
        self.path = path
        self.lines = lines
        self._file = file
        self._end = file.tell()
        self._synced = time.monotonic()

    def append(self, line: str) -> None:
        """Writes a line.

        Raises:
            BestOfNError: the disk takes no more; what was written before is whole.
        """
        data = line.encode("utf-8") + b"\n"
        try:
            if self._file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            with suppress(OSError):  # the next run removes what is left of the line
                self._file.truncate(self._end)
            raise self._refused(error) from error
        self._end += len(data)
        if time.monotonic() - self._synced > SYNC_EVERY:
            self.sync()

    def sync(self) -> None:
        """Forces to disk what was written.

        Raises:
            BestOfNError: the disk refuses.
        """
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._refused(error) from error
        self._synced = time.monotonic()

    def _refused(self, error: OSError) -> BestOfNError:
        return BestOfNError(f"{cannot_write(self.path, error)}; what was written before is whole")


@contextmanager
def open_journal(
    path: Path,
    settings: Mapping[str, Any],
    otherwise: str = "write to another file",
    keep: Callable[[bytes], bool] | None = None,
) -> Iterator[Journal]:
    """The file at `path`, to be continued or begun.

    A last line that was cut off is removed.

    Args:
        path: Where; its folder is made.
        settings: What the lines depend on, as JSON. They must be those the file was begun with.
        otherwise: What to do about a file that was begun with others.
        keep: Which of the lines that are there stay; by default all.

    Raises:
        ConfigError: another run writes the file, or it was begun with other settings.
        BestOfNError: it cannot be written.
    """
    with locked(path):
        _check_settings(path, settings, otherwise)
        lines = _repaired(path)
        if keep is not None and lines:
            lines = _filtered(path, keep)
        with _opened(path) as file:
            journal = Journal(path, file, lines)
            try:
                yield journal
            except KeyboardInterrupt as interrupt:
                interrupt.add_note(f"{path} keeps what is in it, and the same command goes on")
                raise
            finally:
                journal.sync()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keeps other runs from writing a file, whose folder is made.

    Raises:
        ConfigError: another run writes it, or it is no file.
        BestOfNError: its folder cannot be written.
    """
    try:
        _check_kind(path)
        lock = FileLock(_lock_of(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        _lock_of(path).touch()  # tells of a folder that takes no files
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(f"another run is writing {path}; wait for it or stop it") from None
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield
    finally:
        lock.release()


def is_locked(path: Path) -> bool:
    """Whether a run writes the file now.

    Raises:
        BestOfNError: that cannot be told.
    """
    lock = _lock_of(path)
    try:
        if lock.exists():
            with FileLock(lock, timeout=0):
                return False
    except Timeout:
        return True
    except OSError as error:
        raise cannot_write(lock, error) from error
    return False


def _check_kind(path: Path) -> None:
    if path.is_dir():
        raise ConfigError(f"cannot write {path}: it is a folder; name a file")
    if path.exists() and not path.is_file():
        raise ConfigError(f"cannot write {path}: it is no regular file; name one")


def _lock_of(path: Path) -> Path:
    # The lock's own file stays behind: removing it would be a race.
    return path.with_name(f".{path.name}.lock")


def manifest(path: Path) -> Path:
    """Where the settings stand that a file was begun with."""
    return _beside(path, ".manifest.json")


def begun_with(path: Path) -> dict[str, Any]:
    """The settings that a file was begun with.

    Raises:
        OSError, ValueError, TypeError: there is no manifest, or it holds something else.
    """
    return {**json.loads(manifest(path).read_text("utf-8"))}


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _opened(path: Path) -> FileIO:
    try:
        file = FileIO(path, "ab")
        file.seek(0, os.SEEK_END)
    except OSError as error:
        raise cannot_write(path, error) from error
    return file


def _check_settings(path: Path, settings: Mapping[str, Any], otherwise: str) -> None:
    wanted = json.loads(json.dumps(settings))
    if not path.exists() or not path.stat().st_size:
        write_atomically(manifest(path), json.dumps(wanted, indent=1, ensure_ascii=False) + "\n")
        return
    try:
        begun = begun_with(path)
    except (OSError, ValueError, TypeError):
        raise ConfigError(
            f"{path} exists, but {manifest(path).name} does not say how it was made; write to "
            "another file"
        ) from None
    changed = [name for name in {**begun, **wanted} if begun.get(name) != wanted.get(name)]
    if changed:
        changes = ", ".join(
            f"{name} was {json.dumps(begun.get(name))} and is {json.dumps(wanted.get(name))}"
            for name in changed
        )
        raise ConfigError(
            f"{path} was begun with other settings ({changes}); give them as they were to go on, "
            f"or {otherwise}"
        )


def _repaired(path: Path) -> int:
    """How many whole lines the file holds; what stands behind the last of them is cut off."""
    if not path.exists():
        return 0
    lines = end = 0
    try:
        with path.open("r+b") as file:
            for line in file:
                if line.endswith(b"\n"):
                    lines += 1
                    end += len(line)
            file.truncate(end)
    except OSError as error:
        raise cannot_write(path, error) from error
    return lines


def _filtered(path: Path, keep: Callable[[bytes], bool]) -> int:
    """Takes lines out of a file, which is there as it was or as it should be; how many stay."""
    partial, lines = _beside(path, ".partial"), 0
    try:
        with path.open("rb") as source, partial.open("wb") as target:
            for line in filter(keep, source):
                target.write(line)
                lines += 1
            target.flush()
            os.fsync(target.fileno())
        partial.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    return lines


def write_atomically(path: Path, text: str) -> None:
    """Writes a file that is there whole or not at all.

    Raises:
        BestOfNError: it cannot be written.
    """
    partial = _beside(path, ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8", errors="replace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> BestOfNError:
    """What a user is told of a file that cannot be written."""
    return BestOfNError(f"cannot write {path}: {error.strerror or error}")
