"""Rows in JSON: one a line, the items of an array, or objects over several lines."""

import codecs
import io
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, count
from pathlib import Path
from typing import Any

from bestofn.dataset.sources.base import Entry, Row, fault, unreadable
from bestofn.dataset.sources.packed import READ_ERRORS, Content, open_unpacked, unpacked
from bestofn.errors import ConfigError

CHUNK = 1 << 16  # bytes of an array that are read at once
NEAR_THE_END = 16  # characters before its end at which a text that is cut off may break


def file_entries(path: Path) -> Iterator[Entry]:
    """The rows of a file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        with open_unpacked(path) as file:
            yield from _entries(str(path), file)
    except READ_ERRORS as error:
        raise unreadable(path, error) from None


def stdin_entries(file: io.BufferedReader) -> Iterator[Entry]:
    """The rows on standard input; raises what `file_entries` does."""
    try:
        yield from _entries("standard input", unpacked(file))
    except READ_ERRORS as error:
        raise unreadable("-", error) from None


def _entries(name: str, file: Content) -> Iterator[Entry]:
    begin = file.peek(1).removeprefix(codecs.BOM_UTF8).lstrip()
    if begin.startswith(b"["):
        return _array(name, _Values(name, iter(lambda: file.read(CHUNK), b"")))
    return _lines_or_objects(name, file)


# --- lines ----------------------------------------------------------------------------------------


def _lines_or_objects(name: str, lines: Iterable[bytes]) -> Iterator[Entry]:
    """The rows in lines of JSON, or objects over several lines if the first one is such."""
    rest = iter(lines)
    read: list[bytes] = []  # until the first object is whole
    for line in rest:
        read.append(line)
        if line.strip():
            break
    if read and _goes_on(read[-1].removeprefix(codecs.BOM_UTF8).strip()):
        values = _Values(name, chain(list(read), _remembered(rest, read)))
        try:
            first = values.take()
        except ConfigError:
            pass  # lines after all
        else:
            read.clear()
            yield from _numbered(name, chain([first], values))
            return
    yield from _lines(name, chain(read, rest))


def _goes_on(line: bytes) -> bool:
    """Whether an object begins in the line that may end in a later one."""
    try:
        json.loads(line)
    except json.JSONDecodeError as error:
        cut_off = error.pos >= len(error.doc) and "Unterminated" not in error.msg
        return line.startswith(b"{") and cut_off
    except (ValueError, RecursionError):
        pass
    return False


def _remembered(lines: Iterator[bytes], read: list[bytes]) -> Iterator[bytes]:
    """The lines, noted until what was read is forgotten."""
    for line in lines:
        if read:
            read.append(line)
        yield line


def _lines(name: str, lines: Iterable[bytes]) -> Iterator[Entry]:
    """The rows in lines of JSON; blank lines are none."""
    for number, line in enumerate(lines, 1):
        text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        if text.strip():
            where = f"{name}, line {number}"
            try:
                yield _row(where, _value(text))
            except ConfigError as error:
                yield fault(where, str(error))


def _value(line: bytes) -> Any:
    try:
        return json.loads(line.rstrip().decode())
    except (ValueError, RecursionError) as error:
        sentence = f"not JSON: {_reason(error)}"
        # A full disk or a killed run leaves the last line without its end.
        whole = line.endswith(b"\n") or isinstance(error, RecursionError)
        raise ConfigError(sentence if whole else f"the last line is cut off, {sentence}") from None


def _row(where: str, value: Any) -> Entry:
    if isinstance(value, dict):
        return Row(where, value)
    return fault(where, f"a row is a JSON object, not {type(value).__name__}")


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start + 1} of the line is not UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} (character {error.pos + 1})"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


# --- values that follow each other ----------------------------------------------------------------


def _array(name: str, values: "_Values") -> Iterator[Entry]:
    """The items of an array, named by their place, from 0."""
    values.skip("[")
    if values.sign() == "]":
        values.skip("]")
    else:
        yield from _numbered(name, _items(values))
    if values.sign():
        raise unreadable(name, "there is more text behind the array")


def _items(values: "_Values") -> Iterator[Any]:
    while True:
        yield values.take()
        if values.sign() == "]":
            values.skip("]")
            return
        values.skip(",")


def _numbered(name: str, values: Iterable[Any]) -> Iterator[Entry]:
    for number, value in enumerate(values):
        yield _row(f"{name}, item {number}", value)


class _Values:
    """JSON values in a stream of bytes, one after the other; no more of it is held than needed."""

    def __init__(self, name: str, pieces: Iterator[bytes]) -> None:
        self._name = name
        self._pieces = codecs.iterdecode(pieces, "utf-8-sig")
        self._decode: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().raw_decode
        self._text = ""
        self._at = 0
        self._taken = count()

    def __iter__(self) -> Iterator[Any]:
        while self.sign():
            yield self.take()

    def sign(self) -> str:
        """The next character that is not blank, which is not taken; none at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at].isspace():
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read_on(1):
                return ""

    def skip(self, sign: str) -> None:
        """Takes the next character, which is `sign`."""
        found = self.sign()
        if found != sign:
            raise self._broken(f"Expecting {sign!r}" + (f", not {found!r}" if found else ""))
        self._at += 1

    def take(self) -> Any:
        """The next value.

        Raises:
            ConfigError: there is none, or it is no JSON; nothing can be read after it.
        """
        self.sign()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if not self._may_go_on(error) or not self._read_on(len(self._text) - self._at):
                    raise self._broken(error.msg) from None
            except (ValueError, RecursionError) as error:
                raise self._broken(_reason(error)) from None
            else:
                # A number at the end of what was read may have further digits.
                if end < len(self._text) or not self._read_on(1):
                    self._at = end
                    next(self._taken)
                    return value

    def _may_go_on(self, error: json.JSONDecodeError) -> bool:
        near = error.pos >= len(self._text) - NEAR_THE_END
        return near or error.msg.startswith("Unterminated")

    def _read_on(self, characters: int) -> bool:
        """Reads at least so many, fewer only at the end; whether there were any."""
        pieces, size = [self._text[self._at :]], 0
        try:
            while size < max(1, characters) and (piece := next(self._pieces, "")):
                pieces.append(piece)
                size += len(piece)
        except UnicodeDecodeError:
            raise self._broken("it is not UTF-8") from None
        if size:
            self._text, self._at = "".join(pieces), 0
        return size > 0

    def _broken(self, reason: str) -> ConfigError:
        item = f"item {next(self._taken)} or what follows it"
        return unreadable(self._name, f"{item} is not JSON: {reason}")
