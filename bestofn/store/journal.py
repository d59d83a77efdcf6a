"""A file of lines that survives whatever ends the run that writes it.

Lines are appended and handed to the operating system one by one, so that a killed process loses
none that was written; every few seconds they are forced to disk, so that a power cut loses only
what came after. Beside FILE is a folder FILE.run with its manifest (the settings that it was begun
with), a lock that keeps a second writer away, and what else belongs to it.
"""

import errno
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bestofn.errors import BestOfNError, ConfigError
from bestofn.identity import Compare, as_json, by_identity, completed
from bestofn.redaction import without_secrets

SYNC_EVERY = 5.0  # seconds
OTHERWISE = "write to another file"


Confirm = Callable[[Mapping[str, Any]], None]


class Journal:
    """Lines on their way to disk; made by `open_journal`.

    Attributes:
        path: The file.
        lines: Those that were there when it was opened.
        confirm: Checks the settings again, once more is known of them than at the beginning, such
            as what a server serves; raises as `open_journal` does.
    """

    def __init__(self, path: Path, file: FileIO, lines: int, confirm: Confirm) -> None:
        self.path = path
        self.lines = lines
        self.confirm = confirm
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
    otherwise: str = OTHERWISE,
    keep: Callable[[bytes], bool] | None = None,
    compare: Compare = by_identity,
) -> Iterator[Journal]:
    """The file at `path`, to be continued or begun.

    A last line that was cut off is removed.

    Args:
        path: Where; its folder is made.
        settings: What the lines depend on, as JSON, secrets aside. They must be those the file was
            begun with. Under "identity" they may have what version 0.1 did not record.
        otherwise: What to do about a file that was begun with others.
        keep: Which of the lines that are there stay; by default all.
        compare: Says what differs between the settings that the file was begun with and these.

    Raises:
        ConfigError: another run writes the file, or it was begun with other settings.
        BestOfNError: it cannot be written.
    """
    with locked(path):
        path = _real(path)
        confirm = partial(_check_settings, path, otherwise, compare)
        confirm(settings)
        with open_lines(path, keep, confirm) as journal:
            yield journal


@contextmanager
def open_lines(
    path: Path,
    keep: Callable[[bytes], bool] | None = None,
    confirm: Confirm | None = None,
) -> Iterator[Journal]:
    """The file at `path` to append to, without a manifest and a lock of its own.

    Raises:
        BestOfNError: it cannot be written.
    """
    lines = _repaired(path)
    if keep is not None and lines:
        lines = _filtered(path, keep)
    with _opened(path) as file:
        journal = Journal(path, file, lines, confirm or _unchecked)
        try:
            yield journal
        except KeyboardInterrupt as interrupt:
            interrupt.add_note(f"{path} keeps what is in it; rerun the command to resume")
            raise
        finally:
            journal.sync()


def _unchecked(_: Mapping[str, Any]) -> None:
    pass


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keeps other runs from writing a file, whose folder is made.

    Raises:
        ConfigError: another run writes it, or it is no file.
        BestOfNError: its folder cannot be written.
    """
    try:
        check_output(path)
        lock = FileLock(_lock_of(path))
        _lock_of(path).parent.mkdir(parents=True, exist_ok=True)
        _lock_of(path).touch()  # tells of a folder that takes no files
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(f"another run is writing {path}; wait for it or stop it") from None
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        _adopt(path)
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


def check_output(path: Path, *, folder: bool = False) -> None:
    """Refuses what is no place for a file, or a folder, that is to be kept.

    Raises:
        ConfigError: it is standard output, a device, or of the other kind.
    """
    refuse_stream(path, "a folder" if folder else "a file")
    if folder:
        if path.exists() and not path.is_dir():
            raise ConfigError(f"cannot write to {path}: it is a file; name a folder")
    elif path.is_dir():
        raise ConfigError(f"cannot write {path}: it is a folder; name a file")
    elif path.exists() and not path.is_file():
        raise ConfigError(f"cannot write {path}: it is no regular file; name one")


def refuse_stream(path: Path, what: str = "a file") -> None:
    """Refuses standard output and devices as an output.

    Raises:
        ConfigError: it is one of them.
    """
    top = path.absolute().parts[1:3]
    if str(path) == "-" or (top[:1] in (("dev",), ("proc",)) and top != ("dev", "shm")):
        raise ConfigError(
            f"cannot write to {path}: the output is {what} that is kept, so that a rerun can "
            f"resume or replace it; name {what}"
        )


def _real(path: Path) -> Path:
    """The file that a link points to, next to which its manifest and lock are kept."""
    return path.resolve() if path.is_symlink() else path


def beside(path: Path, name: str) -> Path:
    """A file of that name in the folder beside `path`."""
    file = _real(path)
    return file.with_name(f"{file.name}.run") / name


def _lock_of(path: Path) -> Path:
    # The lock's own file is kept: removing it would be a race.
    return beside(path, "lock")


def manifest(path: Path) -> Path:
    """The file with the settings that a file was begun with."""
    return beside(path, "manifest.json")


def begun_with(path: Path) -> dict[str, Any]:
    """The settings that a file was begun with.

    Raises:
        OSError, ValueError, TypeError: there is no manifest, or it holds something else.
    """
    kept = manifest(path)
    place = kept if kept.exists() else _of_0_1(path, ".manifest.json")
    return {**json.loads(place.read_text("utf-8"))}


def _of_0_1(path: Path, suffix: str) -> Path:
    """Where version 0.1 kept what is now in the folder beside a file."""
    file = _real(path)
    return file.with_name(file.name + suffix)


def _adopt(path: Path) -> None:
    """Moves what version 0.1 left beside a file to where it is now."""
    moves = {".manifest.json": "manifest.json", ".scores.json": "scores.json"}
    try:
        for suffix, name in moves.items():
            old, new = _of_0_1(path, suffix), beside(path, name)
            if old.is_file() and not new.exists():
                old.replace(new)
        _real(path).with_name(f".{_real(path).name}.lock").unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def _opened(path: Path) -> FileIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = FileIO(path, "ab")
        file.seek(0, os.SEEK_END)
    except OSError as error:
        raise cannot_write(path, error) from error
    return file


def _check_settings(
    path: Path, otherwise: str, compare: Compare, settings: Mapping[str, Any]
) -> None:
    wanted = as_json(without_secrets(settings))
    if not path.exists() or not path.stat().st_size:
        write_settings(path, wanted)
        return
    try:
        stored = begun_with(path)
    except (OSError, ValueError, TypeError):
        raise ConfigError(
            f"{path} exists, but {manifest(path).name} does not say how it was made; write to "
            "another file"
        ) from None
    begun = without_secrets(stored)
    if changes := compare(begun, wanted):
        raise ConfigError(
            f"{path} was begun with other settings ({', '.join(changes)}); resume it with the "
            f"same settings, or {otherwise}"
        )
    if (known := completed(begun, wanted)) != stored:
        write_settings(path, known)


def write_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Keeps the settings that a file is begun with, without their secrets.

    Raises:
        BestOfNError: they cannot be written.
    """
    text = json.dumps(without_secrets(settings), indent=1, ensure_ascii=False)
    write_atomically(manifest(path), text + "\n")


def _repaired(path: Path) -> int:
    """How many whole lines the file holds; what follows the last of them is cut off."""
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
    made, lines = beside(path, "partial"), 0
    try:
        with path.open("rb") as source, made.open("wb") as target:
            for line in filter(keep, source):
                target.write(line)
                lines += 1
            target.flush()
            os.fsync(target.fileno())
        made.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    return lines


def write_atomically(path: Path, text: str) -> None:
    """Writes a file that is there whole or not at all.

    Raises:
        BestOfNError: it cannot be written.
    """
    check_output(path)
    # Of its own, as another run may write the same file.
    place = _real(path)
    made = place.with_name(f".{place.name}.{os.getpid()}.partial")
    try:
        made.parent.mkdir(parents=True, exist_ok=True)
        with made.open("w", encoding="utf-8", errors="replace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        made.replace(place)
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> BestOfNError:
    """What a user is told of a file that cannot be written."""
    return BestOfNError(f"cannot write {path}: {error.strerror or error}")
