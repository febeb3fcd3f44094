"""A zstd stream of any length taken apart piece by piece, in bounded memory whatever it says of itself."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol

from images.errors import ChunkInvalid

# What libzstd itself accepts unless told otherwise (ZSTD_WINDOWLOG_LIMIT_DEFAULT in zstd.h): 128 MiB, `zstd --long`.
WINDOW_LOG = 27
# A repeated byte takes 4 bytes for 128 KiB (RFC 8878 section 3.1.1.2), and one stops only between two bites: 32 MiB.
BITE = 1024


class Decompressor(Protocol):
    """One frame on its way, in the manner of bz2.BZ2Decompressor. Raises ChunkInvalid for what is not zstd."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def decompressor() -> Decompressor:
    """A decompressor for one frame, whose window may be 128 MiB. At worst it holds the window and some 40 MB."""
    try:
        return _Module()
    except ImportError:
        return _Package()


class _Module:
    """compression.zstd of Python 3.14."""

    def __init__(self) -> None:
        self._zstd: Any = import_module("compression.zstd")
        limit = {self._zstd.DecompressionParameter.window_log_max: WINDOW_LOG}
        self._reader: Any = self._zstd.ZstdDecompressor(options=limit)

    @property
    def eof(self) -> bool:
        return bool(self._reader.eof)

    @property
    def needs_input(self) -> bool:
        return bool(self._reader.needs_input)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._reader.unused_data)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        try:
            made: bytes = self._reader.decompress(data, max_length)
        except self._zstd.ZstdError as error:
            raise ChunkInvalid(f"not zstd: {error}") from None
        return made


class _Package:
    """The zstandard package, whose decompressor knows no limit of its own."""

    def __init__(self) -> None:
        self._zstd: Any = import_module("zstandard")
        self._reader: Any = self._zstd.ZstdDecompressor(max_window_size=1 << WINDOW_LOG).decompressobj()
        self._given, self._at = b"", 0
        self._made = memoryview(b"")

    @property
    def eof(self) -> bool:
        return bool(self._reader.eof) and not self._made

    @property
    def needs_input(self) -> bool:
        return not self._made and self._at >= len(self._given) and not self._reader.eof

    @property
    def unused_data(self) -> bytes:
        return bytes(self._reader.unused_data) + self._given[self._at :]

    def decompress(self, data: bytes, max_length: int) -> bytes:
        self._given, self._at = self._given[self._at :] + data, 0
        while not self._made and self._at < len(self._given) and not self._reader.eof:
            bite = self._given[self._at : self._at + BITE]
            self._at += len(bite)
            try:
                self._made = memoryview(self._reader.decompress(bite))
            except self._zstd.ZstdError as error:
                raise ChunkInvalid(f"not zstd: {error}") from None
        out, self._made = self._made[:max_length], self._made[max_length:]
        return bytes(out)
