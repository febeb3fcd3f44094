"""A small partition in packs, and sources that spoil what they hand out."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from images.chunk import chunk_hash
from images.fetch import Fetcher, FileSource
from images.manifest import Kind, Run
from images.zstd import compress

CHUNK = 64 << 10
KINDS = {"D": Kind.DATA, "Z": Kind.ZERO, "F": Kind.FREE}
DIRT = 0xFF  # what an old disk holds everywhere


@dataclass
class Packed:
    """A partition: `content` is what must be read after a restore, with None for free chunks."""

    runs: list[Run]
    size: int
    packs: list[str]
    folder: Path
    content: list[bytes | None]

    def wrong(self, target: Path) -> list[int]:
        """Chunks of `target` that are not as they must be; free ones must have kept their dirt."""
        data = target.read_bytes()[: self.size]
        return [
            n
            for n, chunk in enumerate(self.content)
            if (piece := data[n * CHUNK : (n + 1) * CHUNK]) != (bytes([DIRT]) * len(piece) if chunk is None else chunk)
        ]


def pack(folder: Path, kinds: str, short: int = 0, seed: int = 0) -> Packed:
    """A partition with a chunk of each of the `kinds` (D, Z, F), `short` bytes of the last chunk missing, data partly
    compressible. Every other data run lies in a second pack, with a gap before it."""
    chance = random.Random(seed)
    size = len(kinds) * CHUNK - short
    bodies = [bytearray(), bytearray(b"gap")]
    runs: list[Run] = []
    content: list[bytes | None] = []
    places: list[int] = []
    for kind, group in groupby(kinds):
        start, count = len(content), len(list(group))
        lengths = [min(CHUNK, size - n * CHUNK) for n in range(start, start + count)]
        if kind != "D":
            runs.append(Run(KINDS[kind], start, count))
            content += [bytes(length) if kind == "Z" else None for length in lengths]
            continue
        raws = [chance.randbytes(length // 2) + bytes(length - length // 2) for length in lengths]
        frames = [compress(raw) for raw in raws]
        where = len(places) % 2
        places.append(where)
        body = bodies[where]
        chunks = tuple((chunk_hash(raw), len(frame)) for raw, frame in zip(raws, frames, strict=True))
        runs.append(Run(Kind.DATA, start, count, where, len(body), chunks))
        body += b"".join(frames)
        content += raws
    folder.mkdir(exist_ok=True)
    packs = [hashlib.sha256(body).hexdigest() for body in bodies]
    for name, body in zip(packs, bodies, strict=True):
        (folder / f"{name}.pack").write_bytes(body)
    return Packed(runs, size, packs, folder, content)


def dirty(path: Path, size: int) -> Path:
    """A file of `size` bytes of an old system's leavings."""
    path.write_bytes(bytes([DIRT]) * size)
    return path


Spoil = Callable[[str, int, memoryview], memoryview]


class Spoiled:
    """Packs in a folder whose bytes go through `spoil` (pack, offset, bytes) on their way. Counts what it hands out
    and who was distrusted."""

    def __init__(self, folder: Path, spoil: Spoil = lambda pack, offset, data: data) -> None:
        self.folder, self.spoil = folder, spoil
        self.asked: list[tuple[str, int, int]] = []
        self.distrusted = 0
        self.opened = self.closed = 0
        self.lock = threading.Lock()

    def open(self, stopped: Callable[[], bool] = lambda: False) -> Fetcher:
        self.opened += 1
        return _Fetcher(self)


class _Fetcher:
    def __init__(self, source: Spoiled) -> None:
        self._source = source
        self._inner = FileSource(str(source.folder)).open()

    def fetch(self, pack: str, offset: int, length: int) -> memoryview:
        with self._source.lock:
            self._source.asked.append((pack, offset, length))
            return self._source.spoil(pack, offset, self._inner.fetch(pack, offset, length))

    def distrust(self) -> None:
        self._source.distrusted += 1

    def close(self) -> None:
        self._source.closed += 1
        self._inner.close()
