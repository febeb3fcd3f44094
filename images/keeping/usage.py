"""What of each pack the versions use."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from images.chunk import chunk_length
from images.errors import ImageError
from images.manifest import Kind, Manifest, Run

if TYPE_CHECKING:
    from images.store import Store

# offset and length of a frame in its pack, length and hash of the chunk
Frame = tuple[int, int, int, bytes]


@dataclass(frozen=True, slots=True)
class Use:
    """A chunk of a version: in partition `role` number `chunk`, its frame at `offset` of its pack, up to `end`."""

    ref: str
    role: str
    chunk: int
    offset: int
    end: int


def readable(store: Store) -> Iterator[Manifest]:
    """Every version whose manifest can be read."""
    for name in store.images():
        for number in store.versions(name):
            try:
                yield store.load(f"{name}:{number}")[0]
            except ImageError:
                continue


def frames_of(manifest: Manifest, index: int, runs: list[Run]) -> Iterator[tuple[str, int, Frame]]:
    """(pack, chunk number, frame) of each data chunk of partition `index` of a version."""
    size = manifest.partitions[index].size
    for run in runs:
        if run.kind is Kind.DATA:
            pack, offset = manifest.packs[run.pack], run.offset
            for chunk, (name, length) in enumerate(run.chunks, run.start):
                yield pack, chunk, (offset, length, chunk_length(chunk, size, manifest.chunk_size), name)
                offset += length


def used_frames(store: Store, packs: Collection[str]) -> dict[str, set[Frame]]:
    """The frames that the readable versions use of each of `packs`, each once."""
    found: dict[str, set[Frame]] = {pack: set() for pack in packs}
    for manifest in readable(store):
        for index in range(len(manifest.partitions)):
            if found.keys().isdisjoint(manifest.packs):
                break
            try:
                runs = store.runs(manifest, index)
            except ImageError:
                continue
            for pack, _, frame in frames_of(manifest, index, runs):
                if pack in found:
                    found[pack].add(frame)
    return found


def users(store: Store, pack: str, offsets: Collection[int] | None = None) -> list[Use]:
    """The places of readable versions where frames of a pack are used: those at `offsets`, or all."""
    found: list[Use] = []
    for manifest in readable(store):
        for index, partition in enumerate(manifest.partitions):
            if pack not in manifest.packs:
                break
            try:
                runs = store.runs(manifest, index)
            except ImageError:
                continue
            for where, chunk, (offset, length, _, _) in frames_of(manifest, index, runs):
                if where == pack and (offsets is None or offset in offsets):
                    found.append(Use(manifest.ref, partition.role, chunk, offset, offset + length))
    return found
