"""A restore that is killed, interrupted, starved of memory or fed by real servers in trouble."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from images import fetch, target
from images.chunk import CHUNK_SIZE, chunk_hash
from images.device import Device
from images.errors import ChunkInvalid, ChunkMissing, TargetFailed
from images.fetch import FileSource, HttpSource
from images.manifest import Kind, Run, encode_runs
from images.reassemble import Work, plan_restore
from images.target import Cancelled, restore
from images.zstd import compress
from tests.images.pack_server import PackServer, reset
from tests.images.packed import CHUNK, Packed, Spoiled, dirty, pack
from tests.images.test_device import loop

ROOT = Path(__file__).parents[2]
KINDS = "DDDZFDDZZDFFD" + "D" * 20 + "ZD"

# The child restores as the agent does, with libzstd by ctypes. Its source says so and stays silent after some ranges.
CHILD = """
import json, resource, sys, threading
from images import target, zstd
from images.fetch import FileSource
from images.manifest import decode_runs
from images.target import restore

disk, runs, folder, packs, size, chunk, after, max_raw = json.load(sys.stdin)
zstd._chosen.append(zstd._Library())
if max_raw:
    planned = target.plan_restore
    target.plan_restore = lambda *args, **kwargs: planned(*args, **kwargs, max_raw=max_raw)
lock, asked = threading.Lock(), []

class Stops(FileSource):
    def open(self, stopped=lambda: False):
        inner = super().open()
        real = inner.fetch
        def fetch(pack, offset, length):
            with lock:
                asked.append(offset)
                number = len(asked)
            if after and number > after:
                if number == after + 1:
                    print("stuck", flush=True)
                threading.Event().wait()
            return real(pack, offset, length)
        inner.fetch = fetch
        return inner

with open(runs, "rb") as file:
    listed = decode_runs(file.read(), size=size, chunk_size=chunk, packs=len(packs))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
restore(disk, "root", listed, size, chunk, packs, Stops(folder), workers=1 if after else 0)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.fixture
def packed(tmp_path: Path) -> Packed:
    return pack(tmp_path / "packs", KINDS)


@pytest.fixture
def disk(packed: Packed, tmp_path: Path) -> Path:
    return dirty(tmp_path / "disk", packed.size)


def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two chunks a fetch, so that a small partition is many fetches."""

    def plan(*args: object, **kwargs: object) -> Work:
        return plan_restore(*args, **kwargs, max_raw=2 * CHUNK)  # type: ignore[arg-type]

    monkeypatch.setattr(target, "plan_restore", plan)


def bring(packed: Packed, disk: Path | str, source: object = None, **options: object) -> Work:
    return restore(
        str(disk),
        "root",
        packed.runs,
        packed.size,
        CHUNK,
        packed.packs,
        source or FileSource(str(packed.folder)),  # type: ignore[arg-type]
        **{"workers": 3, "verify": "full", **options},  # type: ignore[arg-type]
    )


def child(packed: Packed, disk: Path | str, chunk: int, *, after: int, max_raw: int) -> subprocess.Popen[str]:
    runs = packed.folder / "runs"
    runs.write_bytes(encode_runs(packed.runs, packed.size, chunk))
    order = [str(disk), str(runs), str(packed.folder), packed.packs, packed.size, chunk, after, max_raw]
    started = subprocess.Popen(
        [sys.executable, "-c", CHILD], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert started.stdin is not None
    with started.stdin:
        json.dump(order, started.stdin)
    return started


@pytest.fixture(params=["file", pytest.param("disk", marks=pytest.mark.root)])
def place(request: pytest.FixtureRequest, disk: Path) -> Iterator[Path | str]:
    """The target as a file and as a block device."""
    if request.param == "file":
        yield disk
    else:
        with loop(disk) as device:
            yield device


@pytest.mark.parametrize("after", [1, 6, 14])
def test_kill_minus_nine_then_again_fetches_only_the_rest(
    packed: Packed, disk: Path, place: Path | str, after: int
) -> None:
    with child(packed, place, CHUNK, after=after, max_raw=2 * CHUNK) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "stuck\n"
        killed.kill()
    with open(place, "rb") as file:
        assert file.read(CHUNK) == bytes(CHUNK), "nothing that could be started"
    os.sync()
    missing = [n for n in packed.wrong(disk) if packed.content[n] is not None]
    assert 0 in missing and len(missing) < len(KINDS)
    source = Spoiled(packed.folder)
    work = bring(packed, place, source, held=True)
    os.sync()
    assert packed.wrong(disk) == []
    sizes = dict(enumerate(name for run in packed.runs for name in (run.chunks or [(b"", 0)] * run.count)))
    assert sum(length for _, _, length in source.asked) == work.to_fetch == sum(sizes[n][1] for n in missing)


@pytest.mark.parametrize("chunk", [5000, 12_800, 65_536 + 512])
@pytest.mark.parametrize("kind", ["file", pytest.param("disk", marks=pytest.mark.root)])
def test_chunks_that_are_no_multiple_of_a_page(tmp_path: Path, chunk: int, kind: str) -> None:
    chance = random.Random(chunk)
    raws = [chance.randbytes(chunk) for _ in range(9)] + [chance.randbytes(777)]
    frames = [compress(raw) for raw in raws]
    names = tuple((chunk_hash(raw), len(frame)) for raw, frame in zip(raws, frames, strict=True))
    (tmp_path / "aa.pack").write_bytes(b"".join(frames))
    size = 9 * chunk + 777 + 2 * chunk
    first = Run(Kind.DATA, 0, 4, 0, 0, names[:4])
    rest = Run(Kind.DATA, 6, 6, 0, sum(map(len, frames[:4])), names[4:])
    runs = [first, Run(Kind.ZERO, 4, 2), rest]
    disk = dirty(tmp_path / "disk", -(-size // 512) * 512)
    expected = b"".join(raws[:4]) + bytes(2 * chunk) + b"".join(raws[4:])
    with contextlib.nullcontext(str(disk)) if kind == "file" else loop(disk) as place:
        restore(place, "root", runs, size, chunk, ["aa"], FileSource(str(tmp_path)), verify="full")
    assert disk.read_bytes() == expected.ljust(disk.stat().st_size, b"\xff")


def test_memory_does_not_grow_with_the_image(tmp_path: Path) -> None:
    """300 MB of bytes that do not compress, in a child as the agent is."""
    chance = random.Random(3)
    raws = [chance.randbytes(CHUNK_SIZE) for _ in range(16)]
    frames = [compress(raw) for raw in raws]
    names = tuple((chunk_hash(raw), len(frame)) for raw, frame in zip(raws, frames, strict=True))
    (tmp_path / "bb.pack").write_bytes(b"".join(frames))
    runs = [Run(Kind.DATA, 16 * n, 16, 0, 0, names) for n in range(75)]
    size = 75 * 16 * CHUNK_SIZE
    disk = Path(f"/dev/shm/gild-crash-{os.getpid()}")
    try:
        with disk.open("wb") as file:
            file.truncate(size)
        with child(Packed(runs, size, ["bb"], tmp_path, []), disk, CHUNK_SIZE, after=0, max_raw=0) as done:
            assert done.stdout is not None
            grown = int(done.stdout.read()) * 1024
        assert grown < 120 << 20 < size
        with disk.open("rb") as file:
            assert file.read(CHUNK_SIZE) == raws[0]
    finally:
        disk.unlink()


@pytest.mark.parametrize("changed", [[], [20], [0, 7, 20], [len(KINDS) - 1]])
def test_progress_of_a_reimage_never_goes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: list[int]
) -> None:
    monkeypatch.setattr(target, "TELL", 0.0)
    packed = pack(tmp_path / "packs", KINDS, short=3000)
    disk = dirty(tmp_path / "disk", packed.size)
    bring(packed, disk)
    with disk.open("r+b") as file:
        for chunk in changed:
            file.seek(chunk * CHUNK)
            file.write(b"changed")
    told: list[tuple[int, int]] = []
    work = bring(packed, disk, held=True, progress=lambda done, came: told.append((done, came)))
    assert told == sorted(told)
    assert told[-1] == (sum(len(c) for c in packed.content if c is not None), work.to_fetch)
    assert told[-1][0] == work.kept + work.to_write + work.to_zero


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_flush_that_fails_leaves_nothing_to_start(
    packed: Packed, disk: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    calls: list[int] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        calls.append(fd)
        if len(calls) == failing:
            raise OSError(errno.EIO, "the cache was lost")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(TargetFailed, match=f"flushing {disk} failed: Input/output error"):
        bring(packed, disk)
    assert disk.read_bytes()[:CHUNK] == bytes(CHUNK)


def test_a_first_chunk_written_by_half_is_blanked(packed: Packed, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        if offset == 0 and len(data) == CHUNK:
            return real(fd, data[: CHUNK // 2], offset)
        if offset == CHUNK // 2:
            raise OSError(errno.EIO, "x")
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(TargetFailed, match=f"writing {disk} failed"):
        bring(packed, disk)
    assert disk.read_bytes()[:CHUNK] == bytes(CHUNK)


def test_an_interrupt_waits_for_the_writers_and_leaves_nothing_to_start(
    packed: Packed, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_ranges(monkeypatch)

    def spoil(pack: str, offset: int, data: memoryview) -> memoryview:
        if len(source.asked) == 4:
            signal.pthread_kill(main, signal.SIGINT)
        if len(source.asked) >= 4:
            time.sleep(0.05)  # so that the main thread hears of it before all is done
        return data

    source = Spoiled(packed.folder, spoil)
    main = threading.get_ident()
    writing: list[str] = []
    closed: list[Device] = []
    real = Device.close

    def close(self: Device) -> None:
        closed.append(self)
        writing.extend(thread.name for thread in threading.enumerate() if thread.name.startswith("writing "))
        real(self)

    monkeypatch.setattr(Device, "close", close)
    with pytest.raises(KeyboardInterrupt):
        bring(packed, disk, source)
    assert len(closed) == 1 and writing == [], "the device is closed when nobody writes any more"
    assert disk.read_bytes()[:CHUNK] == bytes(CHUNK)
    assert len(packed.wrong(disk)) > 1, "what was left was left"


def served(packed: Packed) -> dict[str, bytes]:
    return {name: (packed.folder / f"{name}.pack").read_bytes() for name in packed.packs}


def test_servers_in_trouble_are_outlived(packed: Packed, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_ranges(monkeypatch)
    with PackServer(served(packed)) as one, PackServer(served(packed)) as two:

        def broken(connection: object, pack: str, first: int, last: int) -> bool:
            connection.sendall(one.head(pack, first, last) + one.packs[pack][first : first + 50])  # type: ignore[attr-defined]
            return reset(connection)  # type: ignore[arg-type]

        def damaged(connection: object, pack: str, first: int, last: int) -> bool:
            body = bytearray(one.packs[pack][first : last + 1])
            body[len(body) // 2] ^= 1
            connection.sendall(one.head(pack, first, last) + body)  # type: ignore[attr-defined]
            return True

        one.script.extend([one.fine, broken, damaged, damaged])
        two.script.extend([two.fine, damaged])
        bring(packed, disk, HttpSource([one.base, two.base]))
        assert one.asked and two.asked
    assert packed.wrong(disk) == []


def test_a_pack_damaged_on_the_head_is_named(packed: Packed, disk: Path) -> None:
    packs = served(packed)
    run = packed.runs[-1]
    name = packed.packs[run.pack]
    body = bytearray(packs[name])
    body[run.offset + run.chunks[0][1] // 2] ^= 0x80
    with PackServer({**packs, name: bytes(body)}) as server:
        with pytest.raises(ChunkInvalid, match=rf"chunk {run.start} of root .*pack {name} at {run.offset}\)"):
            bring(packed, disk, HttpSource([server.base]))
        asked = [first for _, pack, first, _ in server.asked if (pack, first) == (name, run.offset)]
    assert len(asked) == target.HASH_TRIES
    assert disk.read_bytes()[:CHUNK] == bytes(CHUNK)


def test_a_dead_head_is_given_up_and_cancelling_does_not_wait_for_it(
    packed: Packed, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with PackServer({}) as gone:
        base = gone.base
    cancel = threading.Event()
    monkeypatch.setattr(fetch, "GLANCE", 0.01)
    timer = threading.Timer(0.1, cancel.set)
    timer.start()
    with pytest.raises(Cancelled):
        bring(packed, disk, HttpSource([base]), cancel=cancel)
    timer.join()
    monkeypatch.setattr(fetch, "PATIENCE", 0.05)
    with pytest.raises(ChunkMissing, match="Connection refused"):
        bring(packed, disk, HttpSource([base]))
    assert disk.read_bytes()[:CHUNK] == bytes(CHUNK)
