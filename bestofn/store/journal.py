"""A file of lines that survives whatever ends the run that writes it.

Lines are handed to the operating system one by one, so a killed process loses none that was
written, and are forced to disk every few seconds. Beside FILE is a folder FILE.run with its
manifest (the settings that it was begun with), a lock that keeps a second writer away, and what
else belongs to it.
"""

import errno
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bestofn.errors import BestOfNError, ConfigError
from bestofn.identity import Compare, as_json, by_identity, completed
from bestofn.redaction import without_secrets

SYNC_EVERY = 5.0  # seconds
MANIFEST, SCORES, LOCK = "manifest.json", "scores.json", "lock"

Confirm = Callable[[Mapping[str, Any]], None]
Keep = Callable[[bytes], bool]


@contextmanager
def writing(path: Path, more: str = "") -> Iterator[None]:
    """Raises BestOfNError, which names the file, where the system refuses to write it."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise BestOfNError(f"cannot write {path}: {reason}{more}") from error


class Journal:
    """Lines on their way to disk; made by `open_journal`.

    Attributes:
        lines: How many were there when it was opened.
        confirm: Checks the settings again, once more is known of them than at the beginning, such
            as what a server serves.
    """

    def __init__(self, path: Path, file: FileIO, lines: int, confirm: Confirm) -> None:
        self.path = path
        self.lines = lines
        self.confirm = confirm
        self._file = file
        self._end = file.seek(0, os.SEEK_END)
        self._synced = time.monotonic()

    def append(self, line: str) -> None:
        """Writes a line, or raises BestOfNError; the lines before it are whole."""
        data = line.encode("utf-8") + b"\n"
        with self._writing():
            try:
                if self._file.write(data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                with suppress(OSError):  # the next run removes what is left of the line
                    self._file.truncate(self._end)
                raise
        self._end += len(data)
        if time.monotonic() - self._synced > SYNC_EVERY:
            self.sync()

    def sync(self) -> None:
        """Forces to disk what was written, or raises BestOfNError."""
        with self._writing():
            os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def _writing(self) -> AbstractContextManager[None]:
        return writing(self.path, "; what was written before is whole")


@contextmanager
def open_journal(
    path: Path,
    settings: Mapping[str, Any],
    otherwise: str = "write to another file",
    keep: Keep | None = None,
    compare: Compare = by_identity,
) -> Iterator[Journal]:
    """The file at `path`, to be resumed or begun; a last line that was cut off is removed.

    Args:
        path: Where; its folder is made.
        settings: What the lines depend on. Under "identity" they may have what version 0.1 did not
            record.
        otherwise: What to do about a file that was begun with others.
        keep: Which of the lines that are there stay; by default all.
        compare: Says what differs between two settings.

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
    path: Path, keep: Keep | None = None, confirm: Confirm = lambda _: None
) -> Iterator[Journal]:
    """`open_journal` without a manifest and a lock."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = _repaired(path, keep)
        file = FileIO(path, "ab")
    with file:
        journal = Journal(path, file, lines, confirm)
        try:
            yield journal
        except KeyboardInterrupt as interrupt:
            interrupt.add_note(f"{path} keeps what is in it; rerun the command to resume")
            raise
        finally:
            journal.sync()


def _repaired(path: Path, keep: Keep | None) -> int:
    """How many lines the file holds, without those that are not to be kept or were cut off."""
    if not path.exists():
        return 0
    if keep is not None:
        with path.open("rb") as file:
            kept = (line for line in file if line.endswith(b"\n") and keep(line))
            _write_whole(path, kept, beside(path, "partial"))
    lines = end = 0
    with path.open("r+b") as file:
        for line in file:
            if line.endswith(b"\n"):
                lines += 1
                end += len(line)
        file.truncate(end)
    return lines


def _check_settings(
    path: Path, otherwise: str, compare: Compare, settings: Mapping[str, Any]
) -> None:
    wanted = as_json(without_secrets(settings))
    if not path.exists() or not path.stat().st_size:
        write_beside(path, MANIFEST, wanted)
        return
    if (stored := begun_with(path)) is None:
        raise ConfigError(f"{MANIFEST} does not say how {path} was made; write to another file")
    begun = without_secrets(stored)
    if changes := compare(begun, wanted):
        raise ConfigError(
            f"{path} was begun with other settings ({', '.join(changes)}); resume it with the "
            f"same settings, or {otherwise}"
        )
    if (known := completed(begun, wanted)) != stored:
        write_beside(path, MANIFEST, known)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keeps other runs from writing a file, or raises ConfigError if one does; makes its folder."""
    place = beside(path, LOCK)
    with writing(path):
        check_output(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()  # tells of a folder that takes no files
        try:
            lock = FileLock(place).acquire(timeout=0)
        except Timeout:
            raise ConfigError(f"another run is writing {path}; wait for it or stop it") from None
    with lock:  # its file is kept: removing it would be a race
        with writing(path):
            _adopt(path)
        yield


def is_locked(path: Path) -> bool:
    """Whether a run writes the file now."""
    if not beside(path, LOCK).exists():
        return False
    try:
        with locked(path):
            return False
    except ConfigError:
        return True


# --- the folder beside a file ---------------------------------------------------------------------


def _real(path: Path) -> Path:
    """The file that a link points to, next to which its manifest and lock are kept."""
    return path.resolve() if path.is_symlink() else path


def beside(path: Path, name: str) -> Path:
    """A file of that name in the folder beside `path`."""
    return Path(f"{_real(path)}.run", name)


def _of_0_1(path: Path, name: str) -> Path:
    """Where version 0.1 kept what is now in the folder beside a file."""
    return Path(f"{_real(path)}.{name}")


def _adopt(path: Path) -> None:
    """Moves what version 0.1 left beside a file to where it is now."""
    for name in (MANIFEST, SCORES):
        if _of_0_1(path, name).is_file() and not beside(path, name).exists():
            _of_0_1(path, name).replace(beside(path, name))
    _real(path).with_name(f".{_real(path).name}.lock").unlink(missing_ok=True)


def manifest(path: Path) -> Path:
    """The file with the settings that a file was begun with."""
    return beside(path, MANIFEST)


def begun_with(path: Path) -> dict[str, Any] | None:
    """The settings that a file was begun with, None where that is not known."""
    return read_beside(path, MANIFEST)


def read_beside(path: Path, name: str) -> dict[str, Any] | None:
    """The JSON object of that name beside a file, None where there is none."""
    for place in (beside(path, name), _of_0_1(path, name)):
        with suppress(OSError, ValueError):
            value = json.loads(place.read_text("utf-8"))
            return value if isinstance(value, dict) else None
    return None


def write_beside(path: Path, name: str, value: Mapping[str, Any]) -> None:
    """Keeps a JSON object of that name beside a file, without its secrets."""
    text = json.dumps(without_secrets(value), indent=1, ensure_ascii=False)
    write_atomically(beside(path, name), text + "\n")


# --- outputs --------------------------------------------------------------------------------------


def check_output(path: Path, *, folder: bool = False) -> None:
    """Raises ConfigError for what is no place for a file, or a folder, that is to be kept."""
    what = "a folder" if folder else "a file"
    refuse_stream(path, what)
    if path.exists() and not (path.is_dir() if folder else path.is_file()):
        raise ConfigError(f"cannot write to {path}: it is not {what}; name one")


def refuse_stream(path: Path, what: str = "a file") -> None:
    """Raises ConfigError for standard output and devices."""
    top = path.absolute().parts[1:3]
    if str(path) == "-" or (top[:1] in (("dev",), ("proc",)) and top != ("dev", "shm")):
        raise ConfigError(
            f"cannot write to {path}: the output is {what} that is kept, so that a rerun can "
            f"resume or replace it; name {what}"
        )


def write_atomically(path: Path, text: str) -> None:
    """Writes a file that is there whole or not at all; raises BestOfNError where it cannot be."""
    check_output(path)
    place = _real(path)
    with writing(path):
        place.parent.mkdir(parents=True, exist_ok=True)
        # By a name of its own, as another run may write the same file.
        made = place.with_name(f".{place.name}.{os.getpid()}.partial")
        _write_whole(place, [text.encode("utf-8", "replace")], made)


def _write_whole(path: Path, parts: Iterable[bytes], made: Path) -> None:
    with made.open("wb") as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())
    made.replace(path)
