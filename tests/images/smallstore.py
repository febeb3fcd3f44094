"""Small versions straight into a store, without a file system; and ways to damage them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from pathlib import Path

from images import packs, zstd
from images.chunk import chunk_hash
from images.manifest import Kind, Manifest, Partition, Run, digest, encode_manifest, encode_runs
from images.store import Store

CHUNK = 4096


def piece(seed: int) -> bytes:
    """A chunk that shrinks to about half."""
    return random.Random(seed).randbytes(CHUNK // 2) + bytes(CHUNK // 2)


def add(store: Store, name: str, parts: dict[str, Sequence[int]], share: Sequence[str] = ()) -> Manifest:
    """Publish partitions (role -> seeds of the chunks) as the next version of a lineage. Chunks that lie in the packs
    `share` are not stored again."""
    with store.lineage_lock(name), packs.PackWriter(store.packs) as writer:
        number = store.next_version(name)
        known = [packs.read_index(store.packs, pack) for pack in share]
        used: list[str] = []
        plans: list[list[tuple[str, int, bytes, int]]] = []
        for seeds in parts.values():
            plan = []
            for seed in seeds:
                raw = piece(seed)
                pack, place = "", None
                for index in known:
                    if found := index.find(chunk_hash(raw)):
                        pack, place = index.pack, found[:2]
                        break
                place = place or writer.find(chunk_hash(raw))
                if place is None:
                    frame = zstd.compress(raw, 3)
                    place = writer.add(chunk_hash(raw), frame, CHUNK), len(frame)
                plan.append((pack, place[0], chunk_hash(raw), place[1]))
            plans.append(plan)
        own = writer.finish() if writer.size else ""
        for plan in plans:
            used += [pack or own for pack, *_ in plan if (pack or own) not in used]
        used = list(dict.fromkeys(used))
        partitions, blobs = [], []
        for role, plan in zip(parts, plans, strict=True):
            runs = [
                Run(Kind.DATA, at, 1, used.index(pack or own), offset, ((sha, length),))
                for at, (pack, offset, sha, length) in enumerate(plan)
            ]
            blob = encode_runs(runs, CHUNK * len(plan), CHUNK)
            partitions.append(
                Partition(role, "ext4", "u", CHUNK * len(plan), CHUNK * len(plan), digest(blob), len(blob))
            )
            blobs.append(blob)
        manifest = Manifest(name, number, 1_700_000_000, "amd64", CHUNK, tuple(used), tuple(partitions))
        store.add_version(encode_manifest(manifest), name, number, b"".join(blobs))
        if not store.tag(name):
            store.set_tag(name, number)
        return manifest


def flip(path: Path, at: int) -> None:
    """Change one bit."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def contents(root: Path) -> dict[str, str]:
    """Every file of a store but locks and the times of tags: path -> sha256."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name not in (".lock", "tags")
    }
