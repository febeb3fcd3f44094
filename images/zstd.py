"""The only door to a zstd library: compression.zstd (Python 3.14), the zstandard package, or libzstd itself.

The agent has neither of the first two: it calls libzstd.so.1 by ctypes, which lets other threads run meanwhile. The
other two do so as well. Contexts are not safe to share between threads, so every thread has its own.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any, Protocol

from images.errors import ChunkInvalid, ToolMissing

STEP = 1 << 20  # bytes asked of a stream at once
# zstd.h, ZSTD_CONTENTSIZE_UNKNOWN and ZSTD_CONTENTSIZE_ERROR
_UNKNOWN, _ERROR = 2**64 - 1, 2**64 - 2


class _Backend(Protocol):
    def compress(self, data: bytes | memoryview, level: int) -> bytes: ...

    def decompress(self, frame: bytes | memoryview, max_size: int) -> bytes | memoryview: ...

    def stream(self, data: bytes, max_size: int) -> bytes: ...


def compress(data: bytes | memoryview, level: int = 3) -> bytes:
    """One frame that says how long its content is. No checksum: the chunk's sha256 does more."""
    return _backend().compress(data, level)


def decompress(frame: bytes | memoryview, max_size: int) -> bytes | memoryview:
    """The content of one frame. Raises ChunkInvalid if it is not a frame and nothing else, or would be longer than
    `max_size` bytes."""
    return _backend().decompress(frame, max_size)


def decompress_into(frame: bytes | memoryview, into: memoryview) -> int:
    """Put the content of one frame at the beginning of `into` (writable) and return its length: `decompress` without
    new memory for every chunk. Raises ChunkInvalid if it is not a frame and nothing else, or does not fit."""
    backend = _backend()
    if isinstance(backend, _Library):
        return backend.decompress_into(frame, into)
    content = backend.decompress(frame, len(into))
    into[: len(content)] = content
    return len(content)


def decompress_stream(data: bytes, max_size: int) -> bytes:
    """The content of a frame of unknown length; what follows it is ignored. Raises ChunkInvalid if it is not zstd, is
    cut off, or is longer than `max_size` bytes. At worst some 45 MB are held beyond those, and the frame's window."""
    return _backend().stream(data, max_size)


class _Module:
    """compression.zstd of Python 3.14."""

    def __init__(self) -> None:
        from importlib import import_module

        self._zstd: Any = import_module("compression.zstd")

    def compress(self, data: bytes | memoryview, level: int) -> bytes:
        made: bytes = self._zstd.compress(data, level)
        return made

    def decompress(self, frame: bytes | memoryview, max_size: int) -> bytes:
        reader = self._zstd.ZstdDecompressor()
        try:
            content: bytes = reader.decompress(frame, max_size + 1)
        except self._zstd.ZstdError as error:
            raise ChunkInvalid(f"not a zstd frame: {error}") from None
        if not reader.eof or len(content) > max_size:
            raise ChunkInvalid(f"zstd frame is cut off or longer than {max_size} bytes")
        if reader.unused_data:
            raise ChunkInvalid("zstd frame is followed by something else")
        return content

    def stream(self, data: bytes, max_size: int) -> bytes:
        reader = self._zstd.ZstdDecompressor()
        rest = [data]  # all of it goes in at the first step; later ones only take out

        def more(left: int) -> bytes:
            try:
                content: bytes = reader.decompress(rest.pop() if rest else b"", left)
            except self._zstd.ZstdError as error:
                raise ChunkInvalid(f"not zstd: {error}") from None
            return content

        return _read_all(more, max_size, lambda: bool(reader.eof))


class _Package:
    """The zstandard package."""

    def __init__(self) -> None:
        import zstandard

        self._zstd: Any = zstandard
        self._mine = threading.local()

    def compress(self, data: bytes | memoryview, level: int) -> bytes:
        made = self._mine.__dict__.setdefault("compressors", {})
        if level not in made:
            made[level] = self._zstd.ZstdCompressor(level=level, write_content_size=True, write_checksum=False)
        frame: bytes = made[level].compress(data)
        return frame

    def decompress(self, frame: bytes | memoryview, max_size: int) -> bytes:
        try:
            size = self._zstd.frame_content_size(frame)
            if size > max_size:
                raise ChunkInvalid(f"zstd frame of {size} bytes is longer than {max_size}")
            context = self._mine.__dict__.get("context")
            if context is None:
                context = self._mine.context = self._zstd.ZstdDecompressor()
            content: bytes = context.decompress(frame, max_output_size=max_size, allow_extra_data=False)
        except self._zstd.ZstdError as error:
            raise ChunkInvalid(f"not a zstd frame: {error}") from None
        return content

    def stream(self, data: bytes, max_size: int) -> bytes:
        reader = self._zstd.ZstdDecompressor().decompressobj()
        position = [0]

        def more(left: int) -> bytes:
            # Small bites: 1 KiB of a hostile stream can become 43 MB (a repeated byte takes 4 bytes for 128 KiB,
            # RFC 8878 section 3.1.1.2), and only between two bites can one stop.
            content = b""
            while not content and position[0] < len(data) and not reader.eof:
                bite = data[position[0] : position[0] + 1024]
                position[0] += len(bite)
                try:
                    content = reader.decompress(bite)
                except self._zstd.ZstdError as error:
                    raise ChunkInvalid(f"not zstd: {error}") from None
            return content

        return _read_all(more, max_size, lambda: bool(reader.eof))


class _Library:
    """libzstd by ctypes (zstd.h)."""

    def __init__(self) -> None:
        lib = ctypes.CDLL("libzstd.so.1")
        size, pointer = ctypes.c_size_t, ctypes.c_void_p
        signatures: dict[str, tuple[Any, list[Any]]] = {
            "ZSTD_compressBound": (size, [size]),
            "ZSTD_isError": (ctypes.c_uint, [size]),
            "ZSTD_getErrorName": (ctypes.c_char_p, [size]),
            "ZSTD_getFrameContentSize": (ctypes.c_ulonglong, [pointer, size]),
            "ZSTD_findFrameCompressedSize": (size, [pointer, size]),
            "ZSTD_createCCtx": (pointer, []),
            "ZSTD_freeCCtx": (size, [pointer]),
            "ZSTD_createDCtx": (pointer, []),
            "ZSTD_freeDCtx": (size, [pointer]),
            "ZSTD_compressCCtx": (size, [pointer, pointer, size, pointer, size, ctypes.c_int]),
            "ZSTD_decompressDCtx": (size, [pointer, pointer, size, pointer, size]),
            "ZSTD_decompressStream": (size, [pointer, pointer, pointer]),
        }
        for name, (result, arguments) in signatures.items():
            function = getattr(lib, name)
            function.restype, function.argtypes = result, arguments
        self._lib = lib
        self._mine = threading.local()

    def compress(self, data: bytes | memoryview, level: int) -> bytes:
        context = self._context("compressor", self._lib.ZSTD_createCCtx, self._lib.ZSTD_freeCCtx)
        out = ctypes.create_string_buffer(self._lib.ZSTD_compressBound(len(data)))
        source = bytes(data)
        made = self._lib.ZSTD_compressCCtx(context, out, len(out), source, len(source), level)
        if self._lib.ZSTD_isError(made):
            raise ChunkInvalid(f"zstd cannot compress: {self._name(made)}")
        return ctypes.string_at(out, made)

    def decompress(self, frame: bytes | memoryview, max_size: int) -> memoryview:
        size = self._lib.ZSTD_getFrameContentSize(_address(frame), len(frame))
        if size != _UNKNOWN and size != _ERROR and size > max_size:
            raise ChunkInvalid(f"zstd frame of {size} bytes is longer than {max_size}")
        out = memoryview(bytearray(size if size < max_size else max_size))
        return out[: self.decompress_into(frame, out)]

    def decompress_into(self, frame: bytes | memoryview, into: memoryview) -> int:
        source = _address(frame)
        if self._lib.ZSTD_findFrameCompressedSize(source, len(frame)) != len(frame):
            raise ChunkInvalid("not a zstd frame, or cut off, or followed by something else")
        context = self._context("decompressor", self._lib.ZSTD_createDCtx, self._lib.ZSTD_freeDCtx)
        made: int = self._lib.ZSTD_decompressDCtx(context, _address(into), len(into), source, len(frame))
        if self._lib.ZSTD_isError(made):
            raise ChunkInvalid(f"not a zstd frame of {len(into)} bytes at most: {self._name(made)}")
        return made

    def stream(self, data: bytes, max_size: int) -> bytes:
        context = self._lib.ZSTD_createDCtx()
        out = ctypes.create_string_buffer(STEP)
        source = _Buffer(ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p), len(data), 0)
        state = [1, -1]

        def more(left: int) -> bytes:
            target = _Buffer(ctypes.cast(out, ctypes.c_void_p), min(left, STEP), 0)
            state[0] = self._lib.ZSTD_decompressStream(context, ctypes.byref(target), ctypes.byref(source))
            if self._lib.ZSTD_isError(state[0]):
                raise ChunkInvalid(f"not zstd: {self._name(state[0])}")
            return ctypes.string_at(out, target.pos)

        try:
            return _read_all(more, max_size, lambda: state[0] == 0)
        finally:
            self._lib.ZSTD_freeDCtx(context)

    def _context(self, kind: str, make: Callable[[], Any], free: Callable[[Any], Any]) -> Any:
        """This thread's own; freed with it."""
        context = self._mine.__dict__.get(kind)
        if context is None:
            context = self._mine.__dict__[kind] = _Context(make(), free)
        return context.address

    def _name(self, code: int) -> str:
        name: bytes = self._lib.ZSTD_getErrorName(code)
        return name.decode("ascii", "replace")


class _Context:
    def __init__(self, address: Any, free: Callable[[Any], Any]) -> None:
        if not address:
            raise MemoryError("no memory for a zstd context")
        self.address, self._free = address, free

    def __del__(self) -> None:
        if hasattr(self, "_free"):
            self._free(self.address)


class _Buffer(ctypes.Structure):
    """ZSTD_inBuffer and ZSTD_outBuffer."""

    _fields_ = (("data", ctypes.c_void_p), ("size", ctypes.c_size_t), ("pos", ctypes.c_size_t))


def _address(data: bytes | memoryview) -> Any:
    """What a C function takes as a pointer to `data`; holds `data` while it is there."""
    if isinstance(data, bytes) or data.readonly or not data:
        return bytes(data)
    # Of one byte and not of len(data): ctypes makes a new type for every length.
    return ctypes.byref(ctypes.c_char.from_buffer(data))


def _read_all(more: Callable[[int], bytes], max_size: int, ended: Callable[[], bool]) -> bytes:
    parts, total = [], 0
    while True:
        part = more(max_size + 1 - total)
        parts.append(part)
        total += len(part)
        if total > max_size:
            raise ChunkInvalid(f"zstd stream is longer than {max_size} bytes")
        if ended():
            return b"".join(parts)
        if not part:
            raise ChunkInvalid("zstd stream is cut off")


_chosen: list[_Backend] = []
_choosing = threading.Lock()


def _backend() -> _Backend:
    if not _chosen:
        with _choosing:
            if _chosen:
                return _chosen[0]
            for make in (_Module, _Package, _Library):
                try:
                    _chosen.append(make())
                    break
                except (ImportError, OSError):
                    continue
            else:
                raise ToolMissing(
                    "no zstd library: neither Python 3.14, zstandard nor libzstd.so.1", "apt install libzstd1"
                )
    return _chosen[0]
