"""Files as bytes, unpacked while they are read, by what their first bytes say."""

import bz2
import codecs
import gzip
import io
import lzma
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any, BinaryIO

from bestofn.errors import ConfigError

PACKED = (".gz", ".zst", ".bz2", ".xz")
READ_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""What opening and reading a file raises."""
Content = io.BufferedReader | gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile
HEAD = 64  # bytes that say what a file is
CHUNK = 1 << 14  # of packed bytes; a chunk unpacks to many times its size
LONGEST_WINDOW = 31  # log2 of what `zstd --long` refers back to at most

PARQUET = "a Parquet file"
SIGNS = {
    ".gz": rb"\x1f\x8b",
    ".zst": rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18",
    ".bz2": rb"BZh[1-9](1AY&SY|\x17rE8P\x90)",
    ".xz": rb"\xfd7zXZ\x00",
    PARQUET: rb"PAR[1E](?![ -~])",
    "an Arrow file; give the folder that save_to_disk wrote": rb"ARROW1|\xff\xff\xff\xff",
    "a ZIP archive; unpack it": rb"PK\x03\x04",
    "a Git LFS pointer; run `git lfs pull`": rb"version https://git-lfs",
    "UTF-16 text; save it as UTF-8": rb"\xff\xfe|\xfe\xff",
}
"""How files of a kind begin: packed ones by suffix, others by what to say of them."""


def kind_by_bytes(head: bytes) -> str | None:
    """What a file is that begins so: one of `SIGNS`, None if nothing tells."""
    return next((kind for kind, sign in SIGNS.items() if re.match(sign, head, re.DOTALL)), None)


def first_bytes(path: Path) -> bytes:
    """The beginning of a file; of a pipe nothing, as it can be read only once.

    Raises:
        OSError: it cannot be read.
    """
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(HEAD)


def content_suffix(path: PurePath) -> str:
    """The suffix that says how the content is written, once it is unpacked."""
    name = path.stem if path.suffix.lower() in PACKED else path.name
    return PurePath(name).suffix.lower()


@contextmanager
def open_unpacked(path: Path) -> Iterator[Content]:
    """The content of a file, unpacked if its first bytes say that it is packed.

    Raises:
        ConfigError: the package that unpacks it is missing.
        OSError, EOFError, zlib.error, lzma.LZMAError: here or while reading, the file is broken, or
            of a kind without rows of text.
    """
    with path.open("rb") as file, unpacked(file, path.suffix.lower()) as content:
        yield content


def unpacked(file: io.BufferedReader, suffix: str = "") -> Content:
    """The content of an open file, whose name ends in `suffix`; see `open_unpacked`."""
    head = file.peek(HEAD)[:HEAD]
    kind = kind_by_bytes(head)
    if kind not in PACKED:
        _check_text(head, kind, suffix)
        return file
    content = _unpacked(file, kind)
    inner = kind_by_bytes(content.peek(HEAD)[:HEAD])
    if inner is not None:
        raise OSError(f"it is {as_said(kind)} that holds {as_said(inner)}")
    return content


def _unpacked(file: io.BufferedReader, kind: str) -> Content:
    if kind == ".zst":
        return io.BufferedReader(_ZstdFile(file, _zstd_decoder()))
    if kind == ".gz":
        return gzip.GzipFile(fileobj=file)
    return bz2.BZ2File(file) if kind == ".bz2" else lzma.LZMAFile(file)


def _check_text(head: bytes, kind: str | None, suffix: str) -> None:
    """Refuses what is no text; text whose name ends like that of a packed file is read."""
    if kind is not None:
        raise OSError(f"by its first bytes it is {as_said(kind)}")
    if suffix in PACKED and not head:
        raise EOFError("the file is empty")
    if suffix in PACKED and not _is_text(head):
        raise OSError(f"its name ends in {suffix}, but by its first bytes it is no such file")


def as_said(kind: str | None) -> str:
    """What a message calls a kind of file."""
    if kind is None:
        return "something else"
    return f"a {kind} file" if kind in PACKED else kind


def _is_text(head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return not re.search(rb"[\x00-\x08\x0e-\x1f]", head)


class _ZstdFile(io.RawIOBase):
    """The content of all frames of a zstd file; one that is cut off is an error."""

    def __init__(self, file: BinaryIO, new_decoder: Callable[[], Any]) -> None:
        self._file = file
        self._new_decoder = new_decoder
        self._decoder = new_decoder()
        self._unpacked = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._unpacked:
            packed = self._decoder.unused_data or self._file.read(CHUNK)
            if not packed:
                if not self._decoder.eof:
                    raise EOFError("the file ends before its content does")
                return 0
            if self._decoder.eof:
                self._decoder = self._new_decoder()
            self._unpacked = memoryview(self._decode(packed))
        size = min(len(buffer), len(self._unpacked))
        buffer[:size] = self._unpacked[:size]
        self._unpacked = self._unpacked[size:]
        return size

    def _decode(self, packed: bytes) -> bytes:
        try:
            content: bytes = self._decoder.decompress(packed)
        except Exception as error:  # each package has an error class of its own
            raise OSError(f"not zstd: {error}") from None
        return content

    def close(self) -> None:
        self._file.close()
        super().close()


def _zstd_decoder() -> Callable[[], Any]:
    """Makes decoders of one frame each, with Python's own package where there is one."""
    if sys.version_info >= (3, 14):
        from compression import zstd

        options = {zstd.DecompressionParameter.window_log_max: LONGEST_WINDOW}
        return lambda: zstd.ZstdDecompressor(options=options)
    try:
        import zstandard
    except ImportError:
        raise ConfigError("zstd files need: pip install 'bestofn[datasets]'") from None
    return lambda: zstandard.ZstdDecompressor(max_window_size=1 << LONGEST_WINDOW).decompressobj()
