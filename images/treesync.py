"""Make one tree like another, touching only what differs, so that unchanged files keep their blocks and chunks.

A new version is synced into a copy of the last working image and never made from scratch: measured, 58 % against 99.7 %
new chunks where 53 % is the floor. Files are compared by content, because two builds of one recipe differ in dates.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from images.errors import SourceInvalid

BLOCK = 1 << 20
MAX_DEPTH = 512  # of nested directories; PATH_MAX allows 2048 and no system has 50
KEEP = ("lost+found",)  # belongs to the filesystem, not to the tree


@dataclass
class Changes:
    """What a sync did: entries made or rewritten, entries removed, entries in the source."""

    written: int = 0
    removed: int = 0
    entries: int = 0


def sync_tree(source: Path, target: Path, on_entry: Callable[[int], None] | None = None) -> Changes:
    """Make the directory `target` hold exactly what `source` holds: contents, owners, modes, times, extended
    attributes (ACLs, capabilities and SELinux labels among them), hard links, devices; sockets are left out. Only
    one filesystem of `source` is read: a mount point comes out as an empty directory. `target` must not be changed
    by anybody else meanwhile. `on_entry` hears the number of entries done. Needs root.
    Raises OSError, SourceInvalid."""
    changes = Changes()
    device = os.lstat(source).st_dev
    # Everything superfluous goes before anything new comes: otherwise the image would need room for both.
    _prune(os.fspath(source), os.fspath(target), device, changes)
    links: dict[tuple[int, int], str] = {}  # hard-linked inode of the source -> its first name in the target
    claimed: dict[int, tuple[int, int]] = {}  # inode of the target -> inode of the source it stands for
    stack = [(os.fspath(source), os.fspath(target), 0)]
    directories: list[tuple[str, str]] = []
    while stack:
        here, there, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise SourceInvalid(f"{here} is nested more than {MAX_DEPTH} directories deep")
        directories.append((here, there))
        for name, status in _entries(here, device):
            path, copy = f"{here}/{name}", f"{there}/{name}"
            changes.entries += 1
            if on_entry and changes.entries % 256 == 0:
                on_entry(changes.entries)
            if stat.S_ISDIR(status.st_mode):
                if not os.path.lexists(copy):
                    os.mkdir(copy, 0o700)
                    changes.written += 1
                stack.append((path, copy, depth + 1))
            elif not stat.S_ISSOCK(status.st_mode):
                changes.written += _copy(path, status, copy, links, claimed)
    # Deepest first: writing into a directory changes its time.
    for here, there in reversed(directories):
        _attributes(here, os.lstat(here), there)
    return changes


def _entries(directory: str, device: int) -> Iterator[tuple[str, os.stat_result]]:
    """Names and status of a directory's entries, sorted; nothing inside a mount point."""
    if os.lstat(directory).st_dev != device:
        return
    for name in sorted(os.listdir(directory)):
        if name not in KEEP:
            yield name, os.lstat(f"{directory}/{name}")


def _prune(source: str, target: str, device: int, changes: Changes) -> None:
    stack = [(source, target)]
    while stack:
        here, there = stack.pop()
        wanted = dict(_entries(here, device))
        for name in os.listdir(there):
            if there == target and name in KEEP:
                continue
            path = f"{there}/{name}"
            have = os.lstat(path)
            want = wanted.get(name)
            if want is not None and stat.S_IFMT(want.st_mode) == stat.S_IFMT(have.st_mode):
                if stat.S_ISDIR(have.st_mode):
                    stack.append((f"{here}/{name}", path))
                continue
            if stat.S_ISDIR(have.st_mode):
                shutil.rmtree(path)
            else:
                os.unlink(path)
            changes.removed += 1


def _copy(
    path: str,
    status: os.stat_result,
    copy: str,
    links: dict[tuple[int, int], str],
    claimed: dict[int, tuple[int, int]],
) -> int:
    """Bring one entry that is not a directory; gives 1 if it had to be written."""
    key = (status.st_dev, status.st_ino)
    first = links.get(key) if status.st_nlink > 1 else None
    if first is not None:
        if os.path.lexists(copy):
            if os.lstat(copy).st_ino == os.lstat(first).st_ino:
                return 0
            os.unlink(copy)
        os.link(first, copy, follow_symlinks=False)
        return 1
    have = os.lstat(copy) if os.path.lexists(copy) else None
    # An inode of the target that several names share stays only if the source shares it between the same ones.
    if have is not None and have.st_nlink > 1 and (status.st_nlink == 1 or claimed.get(have.st_ino, key) != key):
        os.unlink(copy)
        have = None
    written = _content(path, status, copy, have)
    _attributes(path, status, copy)
    if status.st_nlink > 1:
        links[key] = copy
        claimed[os.lstat(copy).st_ino] = key
    return written


def _content(path: str, status: os.stat_result, copy: str, have: os.stat_result | None) -> int:
    if stat.S_ISREG(status.st_mode):
        return _file(path, copy, have)
    if stat.S_ISLNK(status.st_mode):
        wanted = os.readlink(path)
        if have is not None:
            if os.readlink(copy) == wanted:
                return 0
            os.unlink(copy)
        os.symlink(wanted, copy)
        return 1
    if have is not None:
        if have.st_rdev == status.st_rdev:
            return 0
        os.unlink(copy)
    os.mknod(copy, stat.S_IFMT(status.st_mode) | 0o600, status.st_rdev)
    return 1


def _file(path: str, copy: str, have: os.stat_result | None) -> int:
    """Bring a regular file's content in place, writing only the blocks that differ; holes stay holes."""
    written = 0 if have is not None else 1
    with open(path, "rb", buffering=0) as source, open(copy, "r+b" if have else "x+b", buffering=0) as target:
        at = 0
        while piece := source.read(BLOCK):
            old = os.pread(target.fileno(), len(piece), at)
            if old != piece and (piece.count(0) != len(piece) or old.count(0) != len(old)):
                target.seek(at)
                view = memoryview(piece)
                while view:
                    view = view[target.write(view) or 0 :]
                written = 1
            at += len(piece)
        if os.fstat(target.fileno()).st_size != at:
            os.ftruncate(target.fileno(), at)
            written = 1
    return written


def _attributes(path: str, status: os.stat_result, copy: str) -> None:
    """Owner, mode, extended attributes, times: in this order, since chown drops setuid bits and capabilities."""
    have = os.lstat(copy)
    link = stat.S_ISLNK(status.st_mode)
    wanted = {
        name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)
    }
    if (have.st_uid, have.st_gid) != (status.st_uid, status.st_gid):
        os.chown(copy, status.st_uid, status.st_gid, follow_symlinks=False)
        have = os.lstat(copy)
    if not link and stat.S_IMODE(have.st_mode) != stat.S_IMODE(status.st_mode):
        os.chmod(copy, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(copy, follow_symlinks=False):
        if name not in wanted:
            os.removexattr(copy, name, follow_symlinks=False)
    for name, value in wanted.items():
        try:
            same = os.getxattr(copy, name, follow_symlinks=False) == value
        except OSError:
            same = False
        if not same:
            os.setxattr(copy, name, value, follow_symlinks=False)
    # Whole seconds: mke2fs -d cuts the rest, and a version synced later should not differ by it.
    if int(have.st_mtime) != int(status.st_mtime) or os.lstat(copy).st_mtime_ns % 10**9:
        os.utime(copy, (int(status.st_mtime), int(status.st_mtime)), follow_symlinks=False)
