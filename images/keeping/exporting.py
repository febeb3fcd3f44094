"""Versions out of a store into a bundle, as a stream."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import IO

from images.disk import disk_errors, hold
from images.errors import ChunkInvalid, ChunkMissing, ImageError
from images.keeping.bundle import END, MAGIC, MAX_VERSIONS, START, Header, Pack, Version, encode_header, message
from images.keeping.usage import used_frames
from images.keeping.verify import refuse_damaged
from images.options import Progress
from images.packs import BLOCK, encode_index
from images.store import Store


@dataclass(frozen=True)
class Signing:
    """Who signs: the name of the head, its Ed25519 public key (32 bytes), and what makes a signature (64 bytes)."""

    head: str
    key: bytes
    sign: Callable[[bytes], bytes]


def export(
    store: Store,
    refs: Sequence[str],
    out: IO[bytes],
    signing: Signing,
    *,
    without: Collection[str] = (),
    progress: Progress | None = None,
) -> Header:
    """Write the versions `refs` to `out` as a bundle, leaving out the packs in `without` (sha256, hex), which the
    reader has. Nothing is removed from the store meanwhile. `progress` hears ("write", bytes done, bytes in all).
    Raises NotFound, ChunkInvalid for a damaged version, ChunkMissing, NoSpace, Busy, BrokenPipeError; what was written
    until then is refused by whoever reads it."""
    with hold(store.root / ".lock", exclusive=False, what="the store"), disk_errors("exporting"):
        plan = _Plan(store, refs, without)
        header = Header(signing.head, int(time.time()), tuple(plan.versions), tuple(plan.packs))
        encoded = encode_header(header)
        total, done = header.body, 0

        def write(data: bytes) -> None:
            nonlocal done
            out.write(data)
            done += len(data)
            if progress:
                progress("write", done, total)

        out.write(START.pack(MAGIC, len(encoded)) + encoded + signing.key + signing.sign(message(encoded)))
        for version in header.versions:
            write(store.manifest_path(version.name, version.number).read_bytes())
            write(store.runs_bytes(version.name, version.number))
        for pack in header.packs:
            if pack.included:
                write(plan.index(pack.sha256))
                running = hashlib.sha256()
                with store.pack_path(pack.sha256).open("rb") as file:
                    while data := file.read(BLOCK):
                        running.update(data)
                        write(data)
                if running.hexdigest() != pack.sha256:
                    raise ChunkInvalid(f"pack {pack.sha256[:12]} is damaged", "gild image verify, gild image repair")
        out.write(END)
        out.flush()
    return header


class _Plan:
    """What goes into a bundle."""

    def __init__(self, store: Store, refs: Sequence[str], without: Collection[str]) -> None:
        self._store = store
        self.versions: list[Version] = []
        wanted: dict[str, None] = {}
        for name, number in dict.fromkeys(map(store.resolve, refs)):
            refuse_damaged(store, f"{name}:{number}")
            manifest, sha = store.load(f"{name}:{number}")
            size = store.manifest_path(name, number).stat().st_size
            runs = sum(partition.runs_bytes for partition in manifest.partitions)
            self.versions.append(Version(name, number, sha, size, runs))
            wanted.update(dict.fromkeys(manifest.packs))
        if not 0 < len(self.versions) <= MAX_VERSIONS:
            raise ImageError(f"{len(self.versions)} versions cannot go into one bundle", f"1 to {MAX_VERSIONS} can")
        self.packs = []
        for sha in wanted:
            index = self.index(sha)
            size = store.pack_path(sha).stat().st_size
            self.packs.append(Pack(sha, size, hashlib.sha256(index).hexdigest(), len(index), sha not in without))

    def index(self, pack: str) -> bytes:
        """The pack's index; made from the runs where it is lost."""
        try:
            return (self._store.packs / f"{pack}.idx").read_bytes()
        except FileNotFoundError:
            return made_index(self._store, pack)


def made_index(store: Store, pack: str) -> bytes:
    """An index of what the versions here use of a pack. Raises ChunkMissing if that is nothing."""
    frames = used_frames(store, [pack])[pack]
    if not frames:
        raise ChunkMissing(f"index of pack {pack[:12]} is not in the store")
    places = {name: (name, offset, length, raw) for offset, length, raw, name in sorted(frames, reverse=True)}
    return encode_index(places.values())
