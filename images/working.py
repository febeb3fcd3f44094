"""A lineage's working image: from a tree to the next version, keeping the layout of the last one."""

from __future__ import annotations

import os
import re
import shutil
import struct
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from images import ext4, grubcfg, kernels, strip
from images.chunk import chunk_length
from images.disk import disk_errors
from images.errors import ImageError, SourceInvalid
from images.manifest import Kind, Manifest
from images.namespace import in_private_namespace, mounted
from images.publish import LEVEL, Facts, publish
from images.run import run
from images.store import Progress, Store
from images.treesync import sync_tree

IMAGE = "root.img"
NEXT = "root.next.img"
OS_RELEASE = re.compile(r"(?m)^(ID|ID_LIKE|VERSION_ID|VERSION_CODENAME|PRETTY_NAME)=[\"']?([^\"'\n]{0,200})[\"']?$")
FIELDS = {
    "ID": "id",
    "ID_LIKE": "like",
    "VERSION_ID": "version",
    "VERSION_CODENAME": "codename",
    "PRETTY_NAME": "pretty",
}
MACHINES = {62: "amd64", 183: "arm64"}  # e_machine of ELF: EM_X86_64, EM_AARCH64
AHEAD = 8


def publish_tree(
    store: Store,
    name: str,
    tree: Path,
    *,
    message: str = "",
    source: dict[str, Any] | None = None,
    cmdline: str = grubcfg.CMDLINE,
    level: int = LEVEL,
    tag: bool = False,
    latest: float | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Publish a tree as the next version of a lineage. The tree is stripped and completed in place: give a copy.

    The first version is a new filesystem, each later one the last working image with the tree synced into it. Times
    of files after `latest` (seconds since 1970; default: the start of this call, so of what is written here) become
    EPOCH, so that publishing the same again gives the same inodes. The caller holds the lineage's lock and is root.
    Raises SourceInvalid if the tree is no system, NoSpace, CommandFailed; on any error the last working image and the
    store are as they were."""
    tell = progress or (lambda phase, done, total: None)
    start = time.time()
    with disk_errors(f"preparing the tree of {name}"):
        facts = prepare(tree, name, message=message, source=source or {}, cmdline=cmdline)
        clamp_times(tree, start if latest is None else latest)
        work = store.work(name)
        work.mkdir(exist_ok=True)
        size = ext4.tree_size(tree)
        wanted = ext4.filesystem_size(size)
        candidate = work / NEXT
        candidate.unlink(missing_ok=True)
    try:
        with disk_errors(f"making the working image of {name}"):
            if not _last_image(store, name, work):
                ext4.make(tree, candidate, name=name, size=wanted, inodes=size.inodes)
            else:
                copy_sparse(work / IMAGE, candidate)
                ext4.grow(candidate, wanted)
                tell("sync", 0, size.inodes)
                in_private_namespace(lambda: _sync(tree, candidate, work, size.inodes, tell))
        manifest = publish(store, name, candidate, facts=facts, level=level, tag=tag, progress=progress)
        with disk_errors(f"keeping the working image of {name}"):
            os.replace(candidate, work / IMAGE)
        return manifest
    finally:
        candidate.unlink(missing_ok=True)


def prepare(tree: Path, name: str, *, message: str, source: dict[str, Any], cmdline: str) -> Facts:
    """Strip a tree, make its initramfs generic, give it a boot menu and a root line in fstab where it has none, and
    say what was found. Raises SourceInvalid if it is no system, CommandFailed."""
    if not (tree / "etc").is_dir() or (tree / "etc").is_symlink() or not (tree / "usr").is_dir():
        raise SourceInvalid(f"{tree} has no etc and usr: it is not the root of a system")
    uuid = ext4.filesystem_uuid(name)
    checks = strip.strip_tree(tree)
    checks += kernels.make_generic(tree)
    found = kernels.kernels(tree)
    checks += kernels.check_kernels(found)
    checks.append(grubcfg.write_grub_cfg(tree, found, uuid=uuid, cmdline=cmdline))
    checks.append(grubcfg.write_fstab(tree, uuid=uuid))
    return Facts(
        arch=_arch(tree),
        cmdline=cmdline,
        system={**_os_release(tree), "kernels": [kernel.as_dict() for kernel in found]},
        checks=tuple(check.as_dict() for check in checks),
        source=source,
        message=message,
    )


def clamp_times(tree: Path, latest: float) -> None:
    """Set every time of a tree later than `latest` (seconds since 1970) to EPOCH. Raises OSError."""
    for directory, names, files in os.walk(tree, topdown=False):
        for path in (*(os.path.join(directory, name) for name in (*files, *names)), directory):
            if os.lstat(path).st_mtime > latest:
                os.utime(path, (ext4.EPOCH, ext4.EPOCH), follow_symlinks=False)


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
                    assert run_.kind is Kind.DATA
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


def _last_image(store: Store, name: str, work: Path) -> bool:
    """Make sure the last working image is there, from packs if it was lost; False if the lineage has none yet or its
    last version is not ext4."""
    versions = store.versions(name)
    if not versions:
        return False
    image = work / IMAGE
    if not image.is_file():
        manifest, _ = store.load(f"{name}:{versions[-1]}")
        if [p.fs for p in manifest.partitions] != ["ext4"]:
            return False
        rebuilt = work / NEXT
        try:
            restore(store, manifest, 0, rebuilt)
            os.replace(rebuilt, image)
        finally:
            rebuilt.unlink(missing_ok=True)
    return True


def _sync(tree: Path, image: Path, work: Path, entries: int, tell: Progress) -> None:
    at = work / "mount"
    at.mkdir(exist_ok=True)
    try:
        with mounted(image, at):
            sync_tree(tree, at, lambda done: tell("sync", min(done, entries), entries))
    finally:
        at.rmdir()


def _os_release(tree: Path) -> dict[str, str]:
    for name in ("etc/os-release", "usr/lib/os-release"):
        path = strip.inside(tree, name)
        if path is not None and path.is_file() and not path.is_symlink():
            found = OS_RELEASE.findall(path.read_text(errors="replace")[:65536])
            return {FIELDS[key]: value for key, value in found}
    return {}


def _arch(tree: Path) -> str:
    """Architecture of the tree's own programs, in Debian's words. Raises SourceInvalid if none can be read."""
    for name in ("usr/bin/env", "bin/busybox", "usr/bin/ls", "bin/ls", "usr/bin/bash", "bin/sh", "usr/bin/true"):
        path = strip.inside(tree, name)
        if path is None or path.is_symlink() or not path.is_file():
            continue
        with path.open("rb") as file:
            head = file.read(20)
        if head[:4] == b"\x7fELF" and len(head) == 20:
            machine = struct.unpack_from("<H", head, 18)[0]
            if machine not in MACHINES:
                raise SourceInvalid(f"{name} in the tree is for another kind of machine (ELF {machine})")
            return MACHINES[machine]
    raise SourceInvalid(f"{tree} has no program that tells its architecture", "give the root directory of a system")


def clear(path: Path) -> None:
    """Remove a staging directory and all in it, if it is there. Raises ImageError."""
    with disk_errors(f"removing {path}"):
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.exists():
            if os.path.ismount(path):
                raise ImageError(f"{path} is a mount point", "umount it")
            shutil.rmtree(path)
