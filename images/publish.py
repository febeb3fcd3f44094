"""The one way image files become a version: check, map, chunk, hash, compress what is new, rename."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from images import ext4
from images.chunk import CHUNK_SIZE, chunk_count
from images.chunking import Runs, Work
from images.disk import disk_errors
from images.errors import ChunkInvalid, ChunkMissing, ImageError
from images.manifest import Manifest, Partition, Run, digest, encode_manifest, encode_runs, used_bytes
from images.options import LEVEL, Progress
from images.packs import PackIndex, PackWriter, read_index
from images.store import NAME, Store


@dataclass(frozen=True)
class Part:
    """One partition's working image: a raw, sparse file with a filesystem that is not mounted. `mount` is its place in
    the tree, empty if it has none. ext filesystems tell `uuid` and `label` themselves."""

    role: str
    file: Path
    fs: str = "ext4"
    mount: str = "/"
    uuid: str = ""
    label: str = ""


@dataclass(frozen=True)
class Facts:
    """What is known about the tree inside the image files, for the manifest. `parent` 0 stands for the newest."""

    arch: str = "amd64"
    cmdline: str = ""
    system: dict[str, Any] = field(default_factory=dict)
    checks: tuple[dict[str, Any], ...] = ()
    source: dict[str, Any] = field(default_factory=dict)
    message: str = ""
    parent: int = 0


def publish(
    store: Store,
    name: str,
    parts: Sequence[Part],
    *,
    facts: Facts | None = None,
    level: int = LEVEL,
    chunk_size: int = CHUNK_SIZE,
    tag: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Publish `parts`, unmounted filesystems of one system, as the next version of the lineage `name`.

    The files are checked (e2fsck -fp for ext) and their free blocks are punched out, so they are changed, but not in
    meaning. Free blocks inside a chunk that holds data are published as zeros: deleted files never leave the head. The
    tag is set to the new version if `tag` is wished or the lineage has none. `progress` hears ("check" | "map" |
    "store", done, total). The caller holds the lineage's lock (`Store.lineage_lock`).
    Raises ImageError for a filesystem that is not sound, NoSpace with nothing half-written."""
    facts = facts or Facts()
    tell = progress or (lambda phase, done, total: None)
    roles = [part.role for part in parts]
    if not parts or len(set(roles)) != len(roles) or not all(NAME.fullmatch(role) for role in roles):
        raise ImageError(f"publishing {name}: {', '.join(roles) or 'nothing'} cannot be the partitions of an image")
    sound = [_sound(part, tell) for part in parts]
    number = store.next_version(name)
    known = known_packs(store, name)
    tell("map", 0, 1)
    with disk_errors(f"publishing {name}:{number}"), ExitStack() as files, PackWriter(store.packs) as writer:
        works = []
        for part in sound:
            file = files.enter_context(part.file.open("r+b"))
            works.append(Work(file.fileno(), part.fs, chunk_size, known, writer, level))
        tell("map", 1, 1)
        total, before = sum(work.used.used for work in works), 0
        packs: list[str] = []
        built: list[list[Run]] = []
        for work in works:
            builder = Runs(writer, packs)
            for index, chunk in work.chunks(tell, before, total):
                builder.add(index, chunk)
            built.append(builder.result(chunk_count(work.size, chunk_size)))
            before += work.used.used
        tell("store", total, total)
        pack = writer.finish() if writer.size else ""
    encoded = [encode_runs(runs, work.size, chunk_size) for runs, work in zip(built, works, strict=True)]
    have = store.versions(name)
    manifest = Manifest(
        name=name,
        version=number,
        parent=facts.parent or (have[-1] if have else 0),
        created=int(time.time()),
        arch=facts.arch,
        chunk_size=chunk_size,
        packs=tuple(known_pack or pack for known_pack in packs),
        partitions=tuple(
            Partition(
                role=part.role,
                fs=part.fs,
                uuid=part.uuid,
                label=part.label,
                size=work.size,
                used=used_bytes(runs, work.size, chunk_size),
                runs_sha256=digest(data),
                runs_bytes=len(data),
            )
            for part, work, runs, data in zip(sound, works, built, encoded, strict=True)
        ),
        message=facts.message,
        cmdline=facts.cmdline,
        system=facts.system,
        checks=facts.checks,
        source=facts.source,
    )
    store.add_version(encode_manifest(manifest), name, number, b"".join(encoded))
    if tag or not store.tag(name):
        store.set_tag(name, number)
    return manifest


def _sound(part: Part, tell: Progress) -> Part:
    """The part with its filesystem checked, where it is ext, and its own name for itself."""
    if part.fs not in ext4.KINDS:
        return part
    tell("check", 0, 1)
    identity = ext4.check(part.file)
    tell("check", 1, 1)
    return replace(part, uuid=identity.uuid, label=identity.label)


def known_packs(store: Store, name: str) -> list[PackIndex]:
    """Indexes of the packs the lineage's versions use, newest first. A lost or damaged one is left out: its chunks are
    then stored anew, which heals the next version."""
    wanted: dict[str, None] = {}
    for number in reversed(store.versions(name)):
        for pack in store.load(f"{name}:{number}")[0].packs:
            wanted[pack] = None
    found = []
    for pack in wanted:
        try:
            if store.pack_path(pack).exists():
                found.append(read_index(store.packs, pack))
        except (ChunkMissing, ChunkInvalid):
            continue
    return found
