"""What differs between two trees, entry by entry; and versions mounted for reading, so that they can be compared."""

from __future__ import annotations

import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from images.disk import disk_errors, hold
from images.editing.interrupts import noted
from images.errors import Busy, SourceInvalid
from images.manifest import Manifest
from images.namespace import in_private_namespace
from images.store import Store
from images.working import clear, mountable, mounted_parts, parts_of, restore

T = TypeVar("T")
BLOCK = 1 << 20
TOLD = 256  # entries between two words to `on_entry`
SCRATCH = ".view-"
SETTLED = 60  # seconds after which a scratch directory without a lock has lost its process
KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


@dataclass(frozen=True, slots=True)
class Change:
    """One name that differs: `how` is "added", "removed" or "changed", `what` says in which ways. `path` begins with
    "/"; bytes that are no UTF-8 stand in it as surrogates."""

    path: str
    how: str
    what: tuple[str, ...] = ()


def changes(
    before: Path, after: Path, *, copies: bool = False, on_entry: Callable[[int], None] | None = None
) -> Iterator[Change]:
    """Every name that differs between two trees, by type, mode, owner, size, content, target, device number or extended
    attributes; not by times. Directory by directory, each sorted; one directory's names are held at a time.

    With `copies` one tree was a copy of the other, block by block, before it was changed: a file that has its inode
    number and its time of change still (nothing but a clock set back can forge that) is not read. `on_entry` hears the
    number of entries looked at. Raises ImageError."""
    with disk_errors("comparing two trees"):
        yield from _changes(os.fspath(before), os.fspath(after), copies, on_entry)


def _changes(before: str, after: str, copies: bool, on_entry: Callable[[int], None] | None) -> Iterator[Change]:
    seen = 0
    stack: list[tuple[str, bool, bool]] = [("", True, True)]  # directory, is it in `before`, in `after`
    while stack:
        directory, was, now = stack.pop()
        old = _entries(f"{before}{directory}") if was else {}
        new = _entries(f"{after}{directory}") if now else {}
        below = []
        for name in sorted(old.keys() | new.keys()):
            path, one, two = f"{directory}/{name}", old.get(name), new.get(name)
            seen += 1
            if on_entry and seen % TOLD == 0:
                on_entry(seen)
            if one is None or two is None:
                yield Change(path, "removed" if two is None else "added")
            elif what := tuple(_what(f"{before}{path}", one, f"{after}{path}", two, copies)):
                yield Change(path, "changed", what)
            inside = one is not None and stat.S_ISDIR(one.st_mode), two is not None and stat.S_ISDIR(two.st_mode)
            if any(inside):
                below.append((path, *inside))
        stack.extend(reversed(below))


def two_versions(
    store: Store, before: Manifest, after: Manifest, work: Callable[[Path, Path, Callable[[int], None]], T]
) -> T:
    """Mount two versions for reading and call `work` with their trees, and with what it is to tell the entries it has
    looked at, which is where Ctrl-C ends it. Needs root. Raises SourceInvalid, ChunkMissing, ChunkInvalid,
    CommandFailed, NoSpace, and what `work` raises."""
    with scratch(store) as directory, noted() as interrupts:

        def inside() -> T:
            with (
                viewed(store, before, directory / "before") as one,
                viewed(store, after, directory / "after") as two,
            ):
                return work(one, two, interrupts.check)

        return in_private_namespace(inside)


@contextmanager
def scratch(store: Store) -> Iterator[Path]:
    """An empty directory on the store's disk that is gone afterwards; those of processes that were killed go first.
    Raises ImageError, NoSpace."""
    work = store.root / "work"
    for old in work.glob(f"{SCRATCH}*"):
        try:
            with disk_errors(f"removing {old}"):
                if time.time() - old.stat().st_mtime < SETTLED:
                    continue
            with hold(old / ".lock", exclusive=True, what=str(old)):
                clear(old)
        except Busy:
            continue
    with disk_errors(f"making a directory in {work}"):
        own = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=work))
    try:
        with hold(own / ".lock", exclusive=True, what=str(own)):
            yield own
    finally:
        clear(own)


@contextmanager
def viewed(store: Store, manifest: Manifest, directory: Path) -> Iterator[Path]:
    """A version mounted for reading on `directory`/tree (an empty directory on the store's disk); only inside
    `images.namespace.in_private_namespace`. The lineage's working image is taken if it holds that version, else it is
    rebuilt from packs. Partitions this kernel cannot mount are left out.
    Raises SourceInvalid, ChunkMissing, ChunkInvalid, CommandFailed, NoSpace."""
    if manifest.whole:
        raise SourceInvalid(f"{manifest.ref} is a disk kept bit for bit: nobody looks into it")
    at = directory / "tree"
    with disk_errors(f"opening {manifest.ref}"):
        at.mkdir(parents=True)
        parts = parts_of(manifest, directory)
        ready = _linked(store, manifest, directory)
        for index, part in enumerate(parts):
            if part.mount and not ready:
                restore(store, manifest, index, part.file)
    try:
        with mounted_parts(mountable(parts, at, []), at, read_only=True) as tree:
            yield tree
    finally:
        clear(directory)


def _linked(store: Store, manifest: Manifest, directory: Path) -> bool:
    """Whether the working image holds the version, and is now in `directory` as well. A second name for each file,
    because they may be replaced meanwhile, and because a loop device is known by the name of its file."""
    current = store.work(manifest.name) / "current"
    digest = store.load(manifest.ref)[1]
    names = [f"{partition.role}.img" for partition in manifest.partitions]
    try:
        if (current / "digest").read_text() == digest:
            for name in names:
                os.link(current / name, directory / name)
            if (current / "digest").read_text() == digest:
                return True
    except OSError:  # lost, or replaced while we looked
        pass
    for name in names:
        (directory / name).unlink(missing_ok=True)
    return False


def _entries(directory: str) -> dict[str, os.stat_result]:
    """Names and status of a directory's entries; without what belongs to the filesystem and not to the tree."""
    with os.scandir(directory) as found:
        entries = {entry.name: entry.stat(follow_symlinks=False) for entry in found}
    if "lost+found" in entries and os.stat(directory).st_ino == 2:  # EXT2_ROOT_INO: where a filesystem begins
        del entries["lost+found"]
    return entries


def _what(path: str, one: os.stat_result, copy: str, two: os.stat_result, copies: bool) -> Iterator[str]:
    kind, other = stat.S_IFMT(one.st_mode), stat.S_IFMT(two.st_mode)
    if kind != other:
        yield f"{KINDS.get(kind, 'something')} became {KINDS.get(other, 'something')}"
        return
    if copies and (one.st_ino, one.st_ctime_ns) == (two.st_ino, two.st_ctime_ns):
        return
    if one.st_mode != two.st_mode:
        yield f"mode {stat.S_IMODE(one.st_mode):04o} to {stat.S_IMODE(two.st_mode):04o}"
    if (one.st_uid, one.st_gid) != (two.st_uid, two.st_gid):
        yield f"owner {one.st_uid}:{one.st_gid} to {two.st_uid}:{two.st_gid}"
    if kind == stat.S_IFREG:
        if one.st_size != two.st_size:
            yield f"size {one.st_size} to {two.st_size}"
        elif not _same_bytes(path, copy):
            yield "content"
    elif kind == stat.S_IFLNK:
        was, now = os.readlink(path), os.readlink(copy)
        if was != now:
            yield f"target {was} to {now}"
    elif kind in (stat.S_IFCHR, stat.S_IFBLK) and one.st_rdev != two.st_rdev:
        was, now = (f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}" for status in (one, two))
        yield f"device {was} to {now}"
    old, new = _attributes(path), _attributes(copy)
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            yield f"attribute {name}"


def _same_bytes(path: str, copy: str) -> bool:
    with open(path, "rb", buffering=0) as one, open(copy, "rb", buffering=0) as two:
        while True:
            piece = one.read(BLOCK)
            if piece != two.read(BLOCK):
                return False
            if not piece:
                return True


def _attributes(path: str) -> dict[str, bytes]:
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)}
