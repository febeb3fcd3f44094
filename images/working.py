"""A lineage's working image: from a tree, or from partitions, to the next version, keeping the layout of the last one.

    work/<name>/tree      a tree on its way in
    work/<name>/next      the candidate: what is being changed or made, <role>.img per partition
    work/<name>/current   the working image, <role>.img per partition, and `digest`, the version it holds

`current` is a cache: it is rebuilt from packs when it is lost or holds another version than the one wanted.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from images import ext4
from images.checks.check import Check
from images.chunk import chunk_length
from images.disk import disk_errors
from images.errors import CommandFailed, ImageError, SourceInvalid
from images.manifest import Manifest, digest
from images.namespace import in_private_namespace, mounted
from images.options import Options
from images.packs import write_file
from images.prepare import clamp_times, prepare, root_uuid
from images.publish import Facts, Part, publish
from images.run import run
from images.store import Store
from images.treesync import sync_tree

AHEAD = 8
TICK = 0.02  # seconds; the kernel dates files by a clock that may be a tick behind (at most 10 ms, at 100 Hz)
Source = dict[str, Any]


# --- the ways in


def from_tree(
    store: Store, name: str, fill: Callable[[Path], Source], options: Options, *, latest: float | None = None
) -> Manifest:
    """Publish the tree that `fill` puts into an empty directory as the next version of a lineage; `fill` gives what
    the manifest is to say of its source. `latest` as in `publish_tree`. Needs root.
    Raises what `fill` and `publish_tree` raise, and Busy; whatever is raised, all space is given back."""
    with store.lineage_lock(name), staging(store.work(name) / "tree") as tree:
        with disk_errors(f"making {name}"):
            source = fill(tree)
        return publish_tree(store, name, tree, options, source=source, latest=latest)


def from_parts(
    store: Store, name: str, fill: Callable[[Path], tuple[list[Part], Source]], options: Options
) -> Manifest:
    """Publish the partitions that `fill` writes as files into an empty directory, as the next version of a lineage.
    Needs root. Raises what `fill` and `publish_candidate` raise, and Busy; all space is then given back."""
    with store.lineage_lock(name), staging(store.work(name) / "next") as directory:
        with disk_errors(f"making {name}"):
            parts, source = fill(directory)
        return publish_candidate(store, name, parts, options, source=source)


def publish_tree(
    store: Store,
    name: str,
    tree: Path,
    options: Options | None = None,
    *,
    source: Source | None = None,
    latest: float | None = None,
) -> Manifest:
    """Publish a tree as the next version of a lineage. The tree is stripped and completed in place: give a copy.

    The first version is a new filesystem, each later one the last working image with the tree synced into it. Times
    of files after `latest` (seconds since 1970; None: none are) become EPOCH, and so do those of what is written
    here, so that publishing the same again gives the same inodes. The caller holds the lineage's lock and is root.
    Raises SourceInvalid if the tree is no system, NoSpace, CommandFailed; on any error the last working image and the
    store are as they were."""
    options = options or Options()
    last = _last(store, name)
    with disk_errors(f"preparing the tree of {name}"):
        uuid = root_uuid(tree) or (last.partitions[0].uuid if last else ext4.filesystem_uuid(name))
        start = time.time() - TICK
        facts = _prepared(tree, {"root": "/"}, "ext4", uuid, options, source)
        clamp_times(tree, start if latest is None else latest)
        size = ext4.tree_size(tree)
        wanted = ext4.filesystem_size(size)
    with staging(store.work(name) / "next") as directory, disk_errors(f"making the working image of {name}"):
        image = directory / "root.img"
        if last is None:
            ext4.make(tree, image, name=name, identity=uuid, size=wanted, inodes=size.inodes)
        else:
            candidate(store, name, last.version)
            ext4.grow(image, wanted)
            if last.partitions[0].uuid != uuid:
                ext4.rename(image, uuid)
            options.tell("sync", 0, size.inodes)
            in_private_namespace(lambda: _sync(tree, image, options, size.inodes))
        return _publish(store, name, [Part("root", image)], facts, options)


def publish_candidate(
    store: Store,
    name: str,
    parts: Sequence[Part],
    options: Options,
    *,
    source: Source | None = None,
    parent: int = 0,
) -> Manifest:
    """Publish partitions that lie in the lineage's `next` directory, and keep them as its working image. The tree on
    them is mounted, stripped and completed first; what this kernel cannot mount is published as it is, and the
    version says so. The caller holds the lineage's lock and is root. Raises ImageError, CommandFailed, NoSpace."""
    with disk_errors(f"preparing {name}"):
        sound = [replace(p, uuid=ext4.check(p.file).uuid) if p.fs in ext4.KINDS and not p.uuid else p for p in parts]
        facts = in_private_namespace(lambda: _prepare_parts(sound, options, source))
    return _publish(store, name, sound, replace(facts, parent=parent), options)


# --- the working image


def candidate(store: Store, name: str, number: int) -> list[Part]:
    """A private copy of the partitions of a version, in the lineage's `next` directory, rebuilt from packs if the
    working image holds another version. The caller holds the lineage's lock, and clears the directory.
    Raises NotFound, ChunkMissing, ChunkInvalid, NoSpace."""
    manifest, sha = store.load(f"{name}:{number}")
    current, directory = store.work(name) / "current", store.work(name) / "next"
    clear(directory)
    with disk_errors(f"copying {manifest.ref}"):
        directory.mkdir(parents=True)
        parts = parts_of(manifest, directory)
        held = current / "digest"
        ready = held.is_file() and held.read_text() == sha
        for index, part in enumerate(parts):
            file = current / part.file.name
            if ready and file.is_file():
                copy_sparse(file, part.file)
            else:
                restore(store, manifest, index, part.file)
    return parts


def parts_of(manifest: Manifest, directory: Path) -> list[Part]:
    """The partitions of a version as files of `directory`."""
    return [
        Part(p.role, directory / f"{p.role}.img", p.fs, manifest.mount(p.role), p.uuid, p.label)
        for p in manifest.partitions
    ]


@contextmanager
def mounted_parts(parts: Sequence[Part], at: Path, *, read_only: bool = False) -> Iterator[Path]:
    """Mount the partitions of a system on the directory `at`, the root first; only inside `in_private_namespace`. On
    leaving everything is written, trimmed and unmounted, and the loop devices are gone. Raises CommandFailed, Busy,
    SourceInvalid."""
    places = sorted((part for part in parts if part.mount), key=lambda part: (part.mount.count("/"), part.mount))
    if not places or places[0].mount != "/":
        raise SourceInvalid("no partition of the image is mounted on /", "say which one holds the system")
    with ExitStack() as stack:
        for part in sorted(places, key=lambda part: part.mount != "/"):
            target = at / part.mount.lstrip("/")
            # The tree is the image's: a link in it must not lead the mount out of it.
            if target.is_symlink() or not target.resolve().is_relative_to(at.resolve()) or not target.is_dir():
                raise SourceInvalid(f"{part.mount} is no directory in the image: {part.role} cannot be mounted there")
            options = "nouuid" if part.fs == "xfs" else ""  # the source disk may be mounted beside its copy
            stack.enter_context(mounted(part.file, target, read_only=read_only, options=options))
        yield at


def mountable(parts: Sequence[Part], at: Path, left: list[Part]) -> list[Part]:
    """The parts with a place in the tree whose filesystem this kernel can mount, tried on the directory `at`; those it
    cannot are added to `left`. Only inside `in_private_namespace`. Raises CommandFailed if the root's is among them."""
    usable = []
    for part in parts:
        try:
            if part.mount:
                with mounted(part.file, at, read_only=True, options="nouuid,norecovery" if part.fs == "xfs" else ""):
                    usable.append(part)
        except CommandFailed:
            if part.mount == "/":
                raise
            left.append(part)
    return usable


def restore(store: Store, manifest: Manifest, index: int, target: Path) -> None:
    """Write partition `index` of a version to a new sparse file. Zero and free runs stay holes, which read as zeros.
    Raises ChunkMissing, ChunkInvalid, NoSpace."""
    partition = manifest.partitions[index]
    cores = os.cpu_count() or 1
    with disk_errors(f"restoring {manifest.ref}"), target.open("wb") as file:
        file.truncate(partition.size)
        waiting: deque[Future[None]] = deque()

        def write(pack: str, at: int, frame: int, chunk: int, name: bytes) -> None:
            length = chunk_length(chunk, partition.size, manifest.chunk_size)
            os.pwrite(file.fileno(), store.read_chunk(pack, at, frame, length, name), chunk * manifest.chunk_size)

        with ThreadPoolExecutor(cores, thread_name_prefix="restore") as pool:
            for run_ in store.runs(manifest, index):
                at = run_.offset
                for chunk, (name, frame) in enumerate(run_.chunks, run_.start):
                    waiting.append(pool.submit(write, manifest.packs[run_.pack], at, frame, chunk, name))
                    at += frame
                    if len(waiting) > cores * AHEAD:
                        waiting.popleft().result()
            for future in waiting:
                future.result()


def copy_sparse(source: Path, target: Path) -> None:
    """Copy an image file, sharing its blocks where the disk can and keeping its holes. Raises CommandFailed."""
    argv = ["cp", "--reflink=auto", "--sparse=always", os.fspath(source), os.fspath(target)]
    run(argv, timeout=3600, act=f"copying {source.name}")


def clear(path: Path) -> None:
    """Remove a staging directory and all in it, if it is there. Raises ImageError."""
    with disk_errors(f"removing {path}"):
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.exists():
            if os.path.ismount(path):
                raise ImageError(f"{path} is a mount point", "umount it")
            shutil.rmtree(path)


# --- inside


@contextmanager
def staging(path: Path) -> Iterator[Path]:
    """An empty directory that is gone afterwards, unless it was made the working image."""
    clear(path)
    with disk_errors(f"making {path}"):
        path.mkdir(parents=True)
    try:
        yield path
    finally:
        clear(path)


def _last(store: Store, name: str) -> Manifest | None:
    """The newest version of a lineage, if a tree can be synced into it: one ext4 root."""
    versions = store.versions(name)
    if not versions:
        return None
    manifest, _ = store.load(f"{name}:{versions[-1]}")
    return manifest if [(p.role, p.fs) for p in manifest.partitions] == [("root", "ext4")] else None


def _publish(store: Store, name: str, parts: Sequence[Part], facts: Facts, options: Options) -> Manifest:
    manifest = publish(store, name, parts, facts=facts, level=options.level, tag=options.tag, progress=options.progress)
    current, directory = store.work(name) / "current", parts[0].file.parent
    with disk_errors(f"keeping the working image of {name}"):
        write_file(directory / "digest", digest(store.manifest_path(name, manifest.version).read_bytes()).encode())
        clear(current)
        os.replace(directory, current)
    return manifest


def _prepare_parts(parts: Sequence[Part], options: Options, source: Source | None) -> Facts:
    """Mount what can be mounted and prepare the tree; the rest is told by a check."""
    mounts = {part.role: part.mount for part in parts if part.mount}
    if "/" not in mounts.values():
        found = tuple(part.role for part in parts)
        alone = Check("system", found, "kept as it is: nothing in it is fitted to a node", "warning")
        return Facts(source=source or {}, message=options.message, checks=(alone.as_dict(),))
    root = next(part for part in parts if part.mount == "/")
    at = root.file.parent / "mount"
    at.mkdir(exist_ok=True)
    left: list[Part] = []
    try:
        usable = mountable(parts, at, left)
        with mounted_parts(usable, at):
            facts = _prepared(at, mounts, root.fs, root.uuid, options, source)
    finally:
        at.rmdir()
    if left:
        found = tuple(f"{part.role} ({part.fs})" for part in left)
        told = Check("unreadable partitions", found, "kept as they are: this machine cannot mount them", "warning")
        facts = replace(facts, checks=(*facts.checks, told.as_dict()))
    return facts


def _prepared(
    tree: Path, mounts: Mapping[str, str], fs: str, uuid: str, options: Options, source: Source | None
) -> Facts:
    return prepare(
        tree, uuid=uuid, fs=fs, mounts=mounts, message=options.message, source=source, cmdline=options.cmdline
    )


def _sync(tree: Path, image: Path, options: Options, entries: int) -> None:
    at = image.parent / "mount"
    at.mkdir(exist_ok=True)
    try:
        with mounted(image, at):
            sync_tree(tree, at, lambda done: options.tell("sync", min(done, entries), entries))
    finally:
        at.rmdir()
