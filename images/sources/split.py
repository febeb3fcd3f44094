"""A tree with a /boot of its own becomes a version of two partitions.

The boot menu of such a system finds /boot by its UUID and names kernels by paths on it (GRUB manual, "search" and
"root"); put into the root filesystem, it would start nothing. Other filesystems have no such readers: they become part
of the root, and their lines in fstab go.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from images import ext4, working
from images.errors import SourceInvalid
from images.manifest import Manifest
from images.namespace import in_private_namespace, mounted
from images.options import Options
from images.prepare import root_uuid
from images.publish import Part
from images.run import run
from images.sources.leftout import ANOTHER, SWAP, Selection
from images.store import Store
from images.tree import Tree
from images.treesync import sync_tree

UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
FSTAB = "etc/fstab"
_LINE = re.compile(r"^\s*([^#\s]\S*)\s+(\S+)\s+(\S+)")
_DISK = re.compile(r"UUID=|PARTUUID=|/dev/")


def from_tree_and_boot(
    store: Store, name: str, boot_uuid: str, fill: Callable[[Path], dict[str, Any]], options: Options
) -> Manifest:
    """Like images.working.from_tree, but what `fill` puts below boot/ becomes a partition of its own, with that UUID if
    it is one. A last version of the same two partitions is synced, so that unchanged files keep their chunks."""

    def parts(directory: Path) -> tuple[list[Part], dict[str, Any]]:
        tree, boot = store.work(name) / "tree", store.work(name) / "boot"
        try:
            for path in (tree, boot):
                working.clear(path)
            tree.mkdir()
            source = fill(tree)
            if (tree / "boot").is_symlink() or not (tree / "boot").is_dir():
                raise SourceInvalid("boot/ of the client is no directory, though a filesystem is mounted on it")
            os.rename(tree / "boot", boot)
            (tree / "boot").mkdir()
            identity = boot_uuid.lower()
            if not UUID.fullmatch(identity):
                identity = _uuid_in_fstab(tree, "/boot") or str(uuid.uuid5(ext4.LINEAGES, f"{name} boot"))
            last = _last(store, name)
            if last:
                working.candidate(store, name, last)
            for role, at, wanted in (("root", tree, root_uuid(tree)), ("boot", boot, identity)):
                _filesystem(at, directory / f"{role}.img", wanted or ext4.filesystem_uuid(name), options, role)
        finally:
            for path in (tree, boot):
                working.clear(path)
        return [Part("root", directory / "root.img"), Part("boot", directory / "boot.img", mount="/boot")], source

    return working.from_parts(store, name, parts, options)


def settle_fstab(tree: Tree, selection: Selection, *, split: bool) -> list[str]:
    """Comment out what a node cannot mount: filesystems that are part of the root now, swap files and disks that were
    left out. Gives their mount points. A line that names a disk by its label stays: other machines may have one."""
    gone, rows = [], tree.text(FSTAB).split("\n")
    left = {rule.pattern.removesuffix("/*"): rule.reason for rule in selection.left}
    for number, row in enumerate(rows):
        match = _LINE.match(row)
        if match is None:
            continue
        source, point = match[1], match[2].rstrip("/") or "/"
        merged = point in selection.taken and point != "/" and not (split and point == "/boot")
        swap = match[3] == "swap" and left.get(source) == SWAP
        alone = left.get(point) in ANOTHER and _DISK.match(source) and "nofail" not in row
        if not (merged or swap or alone):
            continue
        rows[number] = f"# {'part of / in' if merged else 'left out of'} this image: {row}"
        gone.append(source if match[3] == "swap" else point)
    if gone:
        tree.write(FSTAB, "\n".join(rows))
    return gone


def _filesystem(tree: Path, image: Path, identity: str, options: Options, role: str) -> None:
    """`tree` as the filesystem `image`, which is that of the last version or is not there yet."""
    size = ext4.tree_size(tree)
    wanted = ext4.filesystem_size(size)
    if not image.exists():
        ext4.make(tree, image, name=role, identity=identity, size=wanted, inodes=size.inodes)
        run(["tune2fs", "-L", f"gild-{role}", str(image)], env=ext4.fixed_time(), act=f"naming {image.name}")
        return
    ext4.grow(image, wanted)
    if ext4.check(image).uuid != identity:
        ext4.rename(image, identity)

    def sync() -> None:
        at = image.with_suffix(".mount")
        at.mkdir()
        with mounted(image, at):
            sync_tree(tree, at, lambda done: options.tell("sync", min(done, size.inodes), size.inodes))
        at.rmdir()

    in_private_namespace(sync)


def _last(store: Store, name: str) -> int:
    """The newest version, if it has the same two partitions; 0 otherwise."""
    versions = store.versions(name)
    if not versions:
        return 0
    manifest, _ = store.load(f"{name}:{versions[-1]}")
    same = [(part.role, part.fs) for part in manifest.partitions] == [("root", "ext4"), ("boot", "ext4")]
    return manifest.version if same else 0


def _uuid_in_fstab(tree: Path, point: str) -> str:
    for row in Tree(os.fspath(tree)).text(FSTAB).split("\n"):
        match = _LINE.match(row)
        if match and match[2] == point and UUID.fullmatch(match[1].removeprefix("UUID=").strip("\"'").lower()):
            return match[1].removeprefix("UUID=").strip("\"'").lower()
    return ""
