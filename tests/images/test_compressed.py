"""Compressed streams: whole, in pieces, several in a row, cut off, damaged, and made to burst."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
import zstandard

from images.errors import ChunkInvalid, SourceInvalid
from images.sources.compressed import Compressed
from images.zstdstream import decompressor

DATA = random.Random(1).randbytes(300_000) + b"golden " * 100_000


def lzma_alone(data: bytes) -> bytes:
    return lzma.compress(data, lzma.FORMAT_ALONE)


def zstd_stream(data: bytes) -> bytes:
    """As `zstd` does with a pipe: the frame does not say how long its content is."""
    out = io.BytesIO()
    with zstandard.ZstdCompressor(write_checksum=True).stream_writer(out, closefd=False) as writer:
        writer.write(data)
    return out.getvalue()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lzma_alone,
    "zstd": zstd_stream,
}


class Pipe:
    """Gives at most `most` bytes at once."""

    def __init__(self, data: bytes, most: int) -> None:
        self._file, self._most = io.BytesIO(data), most

    def read(self, size: int, /) -> bytes:
        return self._file.read(min(size, self._most))


def content(data: bytes, most: int = 1 << 20, piece: int = 1 << 16) -> bytes:
    stream = Compressed(Pipe(data, most), "it")
    parts = []
    while part := stream.read(piece):
        assert len(part) <= piece
        parts.append(part)
    assert stream.read(10) == b""
    assert all(len(part) == piece for part in parts[:-1])
    return b"".join(parts)


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize(("most", "piece"), [(1 << 20, 1 << 16), (5000, 512), (1 << 20, 1 << 22)])
def test_the_content_comes_out(kind: str, most: int, piece: int) -> None:
    packed = PACKERS[kind](DATA)
    assert Compressed(io.BytesIO(packed), "it").kind == kind
    assert content(packed, most, piece) == DATA


@pytest.mark.parametrize("most", [1, 1000])
def test_what_is_not_compressed_stays_as_it_is(most: int) -> None:
    for data in (b"", b"abc", b"no magic at all" * 500):
        assert content(data, most, 100) == data


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "zstd"])
def test_several_in_a_row_and_padding(kind: str) -> None:
    pack = PACKERS[kind]
    assert content(pack(b"one") + pack(b"") + pack(b"two")) == b"onetwo"
    assert content(pack(b"one") + pack(b"two"), most=1) == b"onetwo"
    assert content(pack(b"one") + bytes(512)) == b"one"
    assert content(pack(b"one") + b"something else") == b"one"


def test_a_skippable_frame_begins_a_zstd_stream() -> None:
    assert content(b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + zstd_stream(b"one")) == b"one"


@pytest.mark.parametrize("kind", PACKERS)
def test_cut_off_or_damaged(kind: str) -> None:
    packed = PACKERS[kind](DATA)
    for cut in (len(packed) // 2, len(packed) - 1):
        with pytest.raises(SourceInvalid, match=r"it is (cut off|damaged)"):
            content(packed[:cut])
    if kind != "lzma":  # which has no checksum
        broken = bytearray(packed)
        broken[len(packed) // 2] ^= 0x55
        with pytest.raises(SourceInvalid, match="it is damaged"):
            content(bytes(broken))


@pytest.mark.parametrize("kind", PACKERS)
def test_a_bomb_costs_no_memory(kind: str) -> None:
    """A few kilobytes that are a gigabyte: as much is made as was asked for."""
    bombs: dict[str, Callable[[], bytes]] = {
        "gzip": lambda: gzip.compress(bytes(1 << 28)),
        "bzip2": lambda: bz2.compress(bytes(45 << 20)) * 5,
        "xz": lambda: lzma.compress(bytes(1 << 26), preset=0) * 4,
        "lzma": lambda: lzma.compress(bytes(1 << 26), lzma.FORMAT_ALONE, preset=6),
        # A repeated byte: 4 bytes for 128 KiB, behind a window of 128 MiB.
        "zstd": lambda: b"\x28\xb5\x2f\xfd\x00\x88" + b"\x02\0\x10\0" * 20_000,
    }
    bomb = bombs[kind]()
    tracemalloc.start()
    try:
        stream = Compressed(io.BytesIO(bomb), "it")
        for _ in range(40):
            assert len(stream.read(1 << 20)) == 1 << 20
        assert tracemalloc.get_traced_memory()[1] < 150 << 20
    finally:
        tracemalloc.stop()


def test_a_dictionary_or_window_that_is_too_large_is_refused() -> None:
    header = lzma.compress(b"x", filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 12}])
    # The block header says the size of the dictionary in one byte (xz file format, 5.3.1); 38 is 2 GiB.
    at = header.index(b"\x21\x01") + 2
    block = bytearray(header[12 : 12 + 4 * (header[12] + 1)])
    block[at - 12] = 38
    block[-4:] = zlib.crc32(block[:-4]).to_bytes(4, "little")
    large = header[:12] + bytes(block) + header[12 + len(block) :]
    with pytest.raises(SourceInvalid, match="needs too much memory"):
        content(large)
    # A window of 2^31 bytes (RFC 8878 section 3.1.1.1.2): exponent 21.
    with pytest.raises(SourceInvalid, match="needs too much memory"):
        content(b"\x28\xb5\x2f\xfd\x00\xa8" + b"\x01\0\0")


def test_one_frame() -> None:
    frame = zstd_stream(DATA)
    reader = decompressor()
    made = reader.decompress(frame + b"rest", 100)
    while not reader.eof:
        assert not reader.needs_input
        made += reader.decompress(b"", 1 << 20)
    assert made == DATA and reader.unused_data == b"rest"
    with pytest.raises(ChunkInvalid, match="not zstd"):
        decompressor().decompress(b"junk" + os.urandom(50), 100)
