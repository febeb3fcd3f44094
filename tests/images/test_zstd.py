"""The zstd door: every library behind it keeps the same bounds, and what one writes the others read."""

from __future__ import annotations

import ctypes
import importlib
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images import zstd
from images.errors import ChunkInvalid, ToolMissing

ROOT = Path(__file__).parents[2]
BACKENDS: dict[str, Callable[[], zstd._Backend]] = {
    "python": zstd._Module,
    "package": zstd._Package,
    "library": zstd._Library,
}
TEXT = b"a golden image, chunk by chunk. " * 9000
NOISE = random.Random(1).randbytes(300_000)


def had() -> list[str]:
    names = []
    for name, make in BACKENDS.items():
        try:
            make()
        except (ImportError, OSError):
            continue
        names.append(name)
    return names


HAD = had()


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> zstd._Backend:
    """Each library in turn, chosen as if it were the only one."""
    if request.param not in HAD:
        pytest.skip(f"no {request.param} here")
    made = BACKENDS[request.param]()
    monkeypatch.setattr(zstd, "_chosen", [made])
    return made


def unsized(data: bytes) -> bytes:
    """A frame that does not say how long it is, as pipes make them."""
    return subprocess.run(["zstd", "-q", "-c", "-"], input=data, capture_output=True, check=True).stdout


def raw_frame(size: int, blocks: bytes) -> bytes:
    """A frame that says it holds `size` bytes (RFC 8878 section 3.1.1.1: single segment, size of 8 bytes)."""
    return bytes.fromhex("28b52ffde0") + size.to_bytes(8, "little") + blocks


def repeated(count: int, last: bool = True) -> bytes:
    """A block of `count` zeros (RFC 8878 section 3.1.1.2: RLE block)."""
    return (count << 3 | 1 << 1 | last).to_bytes(3, "little") + b"\0"


def test_the_libraries_wanted_are_here() -> None:
    assert {"package", "library"} <= set(HAD)
    assert ("python" in HAD) == (sys.version_info >= (3, 14))


@pytest.mark.parametrize(
    "data", [b"", b"x", bytes(262144), TEXT, NOISE], ids=["empty", "byte", "zeros", "text", "noise"]
)
@pytest.mark.parametrize("level", [1, 3, 19])
def test_what_one_writes_all_read(data: bytes, level: int) -> None:
    for writer in HAD:
        frame = BACKENDS[writer]().compress(memoryview(data), level)
        for reader in HAD:
            other = BACKENDS[reader]()
            assert bytes(other.decompress(frame, len(data))) == data
            assert bytes(other.decompress(memoryview(bytearray(frame)), len(data) + 9)) == data
            assert bytes(other.decompress(memoryview(frame), len(data))) == data
            assert other.stream(frame, len(data)) == data


@pytest.mark.parametrize("name", HAD)
def test_a_frame_says_its_length_and_has_no_checksum(name: str) -> None:
    frame = BACKENDS[name]().compress(TEXT, 3)
    descriptor = frame[4]
    assert descriptor >> 6 or descriptor >> 5 & 1, "the content's size is there"
    assert not descriptor >> 2 & 1, "the checksum is not"


def test_a_size_beyond_the_bound_is_refused(backend: zstd._Backend) -> None:
    frame = zstd.compress(TEXT)
    assert bytes(zstd.decompress(frame, len(TEXT))) == TEXT
    with pytest.raises(ChunkInvalid, match="longer than"):
        zstd.decompress(frame, len(TEXT) - 1)
    for size in (1 << 40, 2**63, 2**64 - 3):
        with pytest.raises(ChunkInvalid):
            zstd.decompress(raw_frame(size, repeated(1000)), 1 << 20)


def test_a_frame_without_its_size_is_read_up_to_the_bound(backend: zstd._Backend) -> None:
    for data in (TEXT, b"", b"z"):
        assert bytes(zstd.decompress(unsized(data), len(data))) == data
    with pytest.raises(ChunkInvalid):
        zstd.decompress(unsized(TEXT), len(TEXT) - 1)


def test_a_size_that_is_a_lie_is_noticed(backend: zstd._Backend) -> None:
    for size in (999, 1001, 5000):
        with pytest.raises(ChunkInvalid):
            zstd.decompress(raw_frame(size, repeated(1000)), 1 << 20)
    assert bytes(zstd.decompress(raw_frame(1000, repeated(1000)), 1 << 20)) == bytes(1000)


def test_every_cut_is_noticed(backend: zstd._Backend) -> None:
    for frame in (zstd.compress(TEXT), unsized(NOISE[:3000])):
        for end in sorted({*range(24), len(frame) // 2, len(frame) - 1}):
            with pytest.raises(ChunkInvalid):
                zstd.decompress(frame[:end], len(TEXT))
            with pytest.raises(ChunkInvalid):
                zstd.decompress_stream(frame[:end], len(TEXT))


@pytest.mark.parametrize("more", [b"\0", b"trailing", zstd.compress(b""), zstd.compress(b"second")])
def test_a_chunk_is_one_frame_and_nothing_else(backend: zstd._Backend, more: bytes) -> None:
    with pytest.raises(ChunkInvalid):
        zstd.decompress(zstd.compress(b"first") + more, 100)
    assert zstd.decompress_stream(zstd.compress(b"first") + more, 100) == b"first"


@pytest.mark.parametrize("data", [b"x", bytes(64), b"\x28\xb5\x2f\xfd", TEXT[:500], NOISE[:500], b"\x1f\x8b\x08\0" * 9])
def test_what_is_not_zstd_is_said_to_be_not(backend: zstd._Backend, data: bytes) -> None:
    with pytest.raises(ChunkInvalid, match="zstd"):
        zstd.decompress(data, 1 << 20)
    with pytest.raises(ChunkInvalid, match="zstd"):
        zstd.decompress_stream(data, 1 << 20)


@pytest.mark.parametrize("name", HAD)
@given(changes=st.lists(st.tuples(st.integers(0, 399), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_damage_is_an_error_or_bounded_content(name: str, changes: list[tuple[int, int]]) -> None:
    frame = bytearray(zstd.compress(TEXT[:2000] + NOISE[:300]))
    for at, value in changes:
        frame[at % len(frame)] = value
    library = BACKENDS[name]()
    for read in (library.decompress, library.stream):
        try:
            assert len(read(bytes(frame), 5000)) <= 5000
        except ChunkInvalid as error:
            assert "zstd" in error.message


def test_a_stream_ends_where_its_frame_ends(backend: zstd._Backend) -> None:
    data = NOISE * 5
    assert zstd.decompress_stream(unsized(data) + b"the rest of an initramfs", len(data)) == data
    with pytest.raises(ChunkInvalid, match="longer than"):
        zstd.decompress_stream(unsized(data), len(data) - 1)


@pytest.mark.parametrize("name", HAD)
def test_a_bomb_stays_small_in_memory(name: str) -> None:
    """4 bytes for 128 KiB: 12 KB that would become 400 MB, and are given up after 16 MiB of room."""
    script = f"""
import resource, sys
from images import zstd
from images.errors import ChunkInvalid
zstd._chosen.append(zstd.{BACKENDS[name].__name__}())  # type: ignore
zstd.decompress(zstd.compress(bytes(1000)), 1000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
block = (131072 << 3 | 2).to_bytes(3, "little") + b"\\0"
bomb = bytes.fromhex("28b52ffd0058") + 3200 * block  # no size, a window of 2 MiB
for read in (zstd.decompress, zstd.decompress_stream):
    try:
        read(bomb, 1 << 20)
        sys.exit("was read")
    except ChunkInvalid:
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < 100 << 20


def test_threads_do_not_disturb_each_other(backend: zstd._Backend) -> None:
    def turn(number: int) -> bool:
        data = random.Random(number).randbytes(2000) * (number + 1)
        frame = zstd.compress(data, 1 + number % 5)
        return bytes(zstd.decompress(frame, len(data))) == data and zstd.decompress_stream(frame, len(data)) == data

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(turn, [n % 40 for n in range(400)]))


def test_a_threads_contexts_go_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    library = zstd._Library()
    freed: list[str] = []

    def counted(name: str, free: Callable[[int], int]) -> Callable[[int], int]:
        def call(context: int) -> int:
            freed.append(name)
            return free(context)

        return call

    for name in ("ZSTD_freeCCtx", "ZSTD_freeDCtx"):
        monkeypatch.setattr(library._lib, name, counted(name, getattr(library._lib, name)))
    frame = library.compress(b"main", 3)
    thread = threading.Thread(target=lambda: library.decompress(library.compress(b"other", 3), 5))
    thread.start()
    thread.join()
    assert sorted(freed) == ["ZSTD_freeCCtx", "ZSTD_freeDCtx"]
    assert bytes(library.decompress(frame, 4)) == b"main"


def test_the_strongest_level_works_everywhere() -> None:
    for name in HAD:
        library = BACKENDS[name]()
        assert bytes(library.decompress(library.compress(TEXT, 22), len(TEXT))) == TEXT


def test_one_library_is_chosen_for_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zstd, "_chosen", [])
    with ThreadPoolExecutor(8) as pool:
        assert len({id(library) for library in pool.map(lambda _: zstd._backend(), range(64))}) == 1
    assert len(zstd._chosen) == 1


def test_without_any_library_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str, *more: object) -> object:
        raise ImportError(name)

    def no_file(name: str, *more: object) -> object:
        raise OSError(name)

    monkeypatch.setattr(zstd, "_chosen", [])
    monkeypatch.setattr(importlib, "import_module", absent)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert isinstance(zstd._backend(), zstd._Library), "the agent's way"
    monkeypatch.setattr(zstd, "_chosen", [])
    monkeypatch.setattr(ctypes, "CDLL", no_file)
    with pytest.raises(ToolMissing, match="no zstd library") as caught:
        zstd.compress(b"x")
    assert caught.value.hint == "apt install libzstd1"
