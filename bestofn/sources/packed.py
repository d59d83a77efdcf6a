"""Files as bytes, unpacked while they are read."""

import gzip
import io
import sys
import zlib
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any, BinaryIO

from bestofn.errors import ConfigError

PACKED = (".gz", ".zst")
READ_ERRORS = (OSError, EOFError, zlib.error)
"""What opening and reading a file raises."""
Content = io.BufferedReader | gzip.GzipFile
CHUNK = 1 << 14  # of packed bytes; a chunk unpacks to many times its size
LONGEST_WINDOW = 31  # log2 of what `zstd --long` refers back to at most


def content_suffix(path: PurePath) -> str:
    """The suffix that says how the content is written, once it is unpacked."""
    name = path.stem if path.suffix.lower() in PACKED else path.name
    return PurePath(name).suffix.lower()


def open_unpacked(path: Path) -> Content:
    """The content of a file, which its name says is packed or not.

    Raises:
        ConfigError: the package that unpacks it is missing.
        OSError, EOFError, zlib.error: here or while reading, the file is broken.
    """
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return gzip.open(path)
    if suffix == ".zst":
        new_decoder = _zstd_decoder()
        return io.BufferedReader(_ZstdFile(path.open("rb"), new_decoder))
    return path.open("rb")


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
