"""Whatever an archive was compressed with, its bytes come out of one `read`, in bounded memory."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Protocol

from images.errors import ChunkInvalid, SourceInvalid
from images.zstdstream import Decompressor, decompressor

PIECE = 1 << 20
# xz -9 asks for 65 MiB; 256 MiB is a dictionary of four times that (xz(1), --lzma2=dict).
MEMORY = 256 << 20


class Readable(Protocol):
    """What bytes are read from: a file, a pipe, a decompressor. b"" is the end."""

    def read(self, size: int, /) -> bytes: ...


class _Gzip:
    """zlib in the manner of bz2 and lzma."""

    def __init__(self) -> None:
        self._reader = zlib.decompressobj(wbits=31)
        self._left = b""

    @property
    def eof(self) -> bool:
        return self._reader.eof

    @property
    def needs_input(self) -> bool:
        return not self._left and not self._reader.eof

    @property
    def unused_data(self) -> bytes:
        return self._reader.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        made = self._reader.decompress(self._left + data, max_length)
        # Output can be waiting inside zlib with no input left; a piece as long as was asked for says so.
        self._left = self._reader.unconsumed_tail
        return made


def _xz() -> Decompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_AUTO, memlimit=MEMORY)


# Magic numbers: RFC 1952, bzip2's BZh, the .xz and .lzma file formats, RFC 8878; and RFC 8878's skippable frame.
KINDS: tuple[tuple[bytes, str, Callable[[], Decompressor]], ...] = (
    (b"\x1f\x8b", "gzip", _Gzip),
    (b"BZh", "bzip2", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\0", "xz", _xz),
    # .lzma has none: LZMA's usual properties, and dictionaries from 8 MiB (xz -6) to 64 MiB (xz -9) in size.
    *((b"\x5d\0\0" + size, "lzma", _xz) for size in (b"\x80\0", b"\0\1", b"\0\2", b"\0\4")),
    (b"\x28\xb5\x2f\xfd", "zstd", decompressor),
    *((bytes([0x50 + n]) + b"\x2a\x4d\x18", "zstd", decompressor) for n in range(16)),
)
HEAD = 6  # bytes that tell


class Compressed:
    """The content of a stream that may be compressed with gzip, bzip2, xz, lzma or zstd; several compressed streams in
    a row are one, and what follows the last of them is left out. At most MEMORY bytes and a few are held.

    `kind` is "" for bytes that are as they are. `read` gives up to `size` bytes, fewer only before the end, and raises
    SourceInvalid for a stream that is damaged, cut off or needs more memory. `taken` counts the bytes taken in."""

    def __init__(self, file: Readable, shown: str) -> None:
        self._file, self._shown = file, shown
        self.taken = 0
        self._pending = self._more(HEAD)
        found = [(name, make) for magic, name, make in KINDS if self._pending.startswith(magic)]
        self.kind = found[0][0] if found else ""
        self._make = found[0][1] if found else None
        self._engine = self._make() if self._make else None

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes, b"" at the end. Raises SourceInvalid, OSError."""
        if self._make is None:
            return self._plain(size)
        parts, left = [], size
        while left and (part := self._part(left)):
            parts.append(part)
            left -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _plain(self, size: int) -> bytes:
        if not self._pending:
            data = self._file.read(size)
            self.taken += len(data)
            if len(data) in (0, size):
                return data
            self._pending = data
        data, self._pending = self._pending[:size], self._pending[size:]
        return data + self._more(size - len(data)) if len(data) < size else data

    def _part(self, size: int) -> bytes:
        while self._engine is not None:
            if self._engine.eof:
                self._next()
                continue
            data = b""
            if self._engine.needs_input:
                data, self._pending = self._pending or self._some(), b""
            try:
                made = self._engine.decompress(data, min(size, PIECE))
            except (zlib.error, lzma.LZMAError, OSError, ValueError, ChunkInvalid) as error:
                if "emory" in str(error):
                    raise SourceInvalid(
                        f"{self._shown} needs too much memory to decompress",
                        "compress it with a dictionary or window of 128 MiB at most (zstd --long=27)",
                    ) from None
                raise SourceInvalid(f"{self._shown} is damaged: not {self.kind}: {error}") from None
            if made:
                return made
            if not data and self._engine.needs_input and not self._engine.eof and not self._pending:
                more = self._some()
                if not more:
                    raise SourceInvalid(f"{self._shown} is cut off: the {self.kind} stream has no end")
                self._pending = more
        return b""

    def _next(self) -> None:
        """After the end of a compressed stream there is another one, or padding and nothing."""
        assert self._engine is not None and self._make is not None
        rest = (self._engine.unused_data or self._pending).lstrip(b"\0")
        self._engine = None
        while len(rest) < HEAD and (more := self._some()):
            rest = (rest + more).lstrip(b"\0")
        if any(rest.startswith(magic) for magic, name, _ in KINDS if name == self.kind):
            self._engine, self._pending = self._make(), rest

    def _some(self) -> bytes:
        data = self._file.read(1 << 16)
        self.taken += len(data)
        return data

    def _more(self, size: int) -> bytes:
        """Exactly `size` bytes unless the end comes first: a pipe gives what it has."""
        parts = []
        while size and (part := self._file.read(size)):
            parts.append(part)
            self.taken += len(part)
            size -= len(part)
        return b"".join(parts)
