"""What makes two trees different: the oracle for everything that moves a system from one place to another."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

PIECE = 1 << 20
KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


def differences(a: Path, b: Path, *, ignore: Collection[str] = (), times: bool = True) -> list[str]:
    """One line per difference between two trees, sorted by path; empty if they are the same.

    Compared are, of the two roots and all below them: names (as bytes), types, modes, owners, sizes, content, targets
    of links, device numbers, extended attributes (with ACLs, capabilities and labels: run it as root to see all),
    which names are hard links of each other, and whole seconds of the times of modification. Sizes of directories
    and how often something is linked are the filesystem's own affair. `ignore` has paths ("lost+found", "etc/mtab")
    to leave out, with all below them; without `times`, times are not compared.
    """
    left, right = dict(_entries(a, frozenset(ignore))), dict(_entries(b, frozenset(ignore)))
    found = []
    for name in sorted(left.keys() | right.keys()):
        if name not in right:
            found.append(f"{name!r}: a {KINDS[stat.S_IFMT(left[name].st_mode)]} only in {a}")
        elif name not in left:
            found.append(f"{name!r}: a {KINDS[stat.S_IFMT(right[name].st_mode)]} only in {b}")
        else:
            found += [f"{name!r}: {line}" for line in _compare(a, b, name, left[name], right[name], times)]
    groups = [_groups(entries) for entries in (left, right)]
    for name in sorted(left.keys() & right.keys()):
        one, other = (group.get(name, frozenset((name,))) for group in groups)
        if one != other:
            found.append(f"{name!r}: one file with {sorted(one - {name})} against {sorted(other - {name})}")
    return found


def _entries(root: Path, ignore: frozenset[str]) -> Iterator[tuple[str, os.stat_result]]:
    yield "", os.lstat(root)
    waiting = [""]
    while waiting:
        above = waiting.pop()
        with os.scandir(root / above) as entries:
            for entry in entries:
                name = f"{above}/{entry.name}" if above else entry.name
                if name in ignore:
                    continue
                yield name, entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(name)


def _compare(a: Path, b: Path, name: str, one: os.stat_result, other: os.stat_result, times: bool) -> Iterator[str]:
    kinds = stat.S_IFMT(one.st_mode), stat.S_IFMT(other.st_mode)
    if kinds[0] != kinds[1]:
        yield f"a {KINDS[kinds[0]]} against a {KINDS[kinds[1]]}"
        return
    if one.st_mode != other.st_mode:
        yield f"mode {stat.S_IMODE(one.st_mode):04o} against {stat.S_IMODE(other.st_mode):04o}"
    if (one.st_uid, one.st_gid) != (other.st_uid, other.st_gid):
        yield f"owner {one.st_uid}:{one.st_gid} against {other.st_uid}:{other.st_gid}"
    seconds = one.st_mtime_ns // 10**9, other.st_mtime_ns // 10**9
    if times and seconds[0] != seconds[1]:
        yield f"time {seconds[0]} against {seconds[1]}"
    places = a / name, b / name
    kind = kinds[0]
    if kind in (stat.S_IFCHR, stat.S_IFBLK) and one.st_rdev != other.st_rdev:
        numbers = [f"{os.major(s.st_rdev)}:{os.minor(s.st_rdev)}" for s in (one, other)]
        yield f"device {numbers[0]} against {numbers[1]}"
    if kind == stat.S_IFLNK:
        targets = [os.readlink(place) for place in places]
        if targets[0] != targets[1]:
            yield f"link to {targets[0]!r} against {targets[1]!r}"
    if kind == stat.S_IFREG:
        if one.st_size != other.st_size:
            yield f"size {one.st_size} against {other.st_size}"
        elif (at := _first_difference(*places)) is not None:
            yield f"content differs at byte {at}"
    attributes = [_attributes(place) for place in places]
    for key in sorted(attributes[0].keys() | attributes[1].keys()):
        values = [found.get(key) for found in attributes]
        if values[0] != values[1]:
            told = ["none" if value is None else value.hex() for value in values]
            yield f"attribute {key} {told[0]} against {told[1]}"


def _first_difference(one: Path, other: Path) -> int | None:
    """Where two files of the same size differ, None if nowhere."""
    at = 0
    with one.open("rb") as first, other.open("rb") as second:
        while True:
            pieces = first.read(PIECE), second.read(PIECE)
            if pieces[0] != pieces[1]:
                same = zip(*pieces, strict=False)
                return at + next((i for i, (x, y) in enumerate(same) if x != y), min(map(len, pieces)))
            if not pieces[0]:
                return None
            at += len(pieces[0])


def _attributes(place: Path) -> dict[str, bytes]:
    names = os.listxattr(place, follow_symlinks=False)
    return {name: os.getxattr(place, name, follow_symlinks=False) for name in names}


def _groups(entries: dict[str, os.stat_result]) -> dict[str, frozenset[str]]:
    """Per name that is one of several of a file: all of them."""
    inodes: dict[tuple[int, int], list[str]] = {}
    for name, status in entries.items():
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            inodes.setdefault((status.st_dev, status.st_ino), []).append(name)
    return {name: frozenset(names) for names in inodes.values() for name in names}
