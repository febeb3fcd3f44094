"""A version mounted for other tools: a private copy on a directory everybody sees, until it is published or discarded.

    work/<name>/held        the copy, <role>.img per partition
    work/<name>/held.json   which version, where, since when, by whom

No process keeps it: what is true is what is mounted. After a crash or a reboot the copy is still there with what was
written, and can be mounted again, published or discarded. Others may build or import new versions meanwhile; nobody
else may edit.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from images.disk import disk_errors
from images.errors import Busy, CommandFailed, GildError, ImageError, NotFound, SourceInvalid
from images.manifest import Manifest, decode_manifest
from images.namespace import in_private_namespace, loop_of, wait_unused
from images.packs import write_file
from images.publish import Part
from images.run import run
from images.store import Store
from images.working import candidate, clear, mountable, parts_of

# Programs of the image are not this machine's: nobody may gain rights by them, or by its device files.
FLAGS = "loop,noatime,nosuid,nodev"
ESCAPED = re.compile(r"\\([0-7]{3})")  # proc(5), mountinfo: space, tab, newline and backslash


@dataclass(frozen=True)
class Held:
    """A version held open: its manifest, the directory it was mounted on, since when (seconds since 1970), by whom; the
    partitions of the copy, and where they are mounted now, outermost first (empty: nowhere)."""

    manifest: Manifest
    at: Path
    since: int
    by: str
    parts: tuple[Part, ...]
    points: tuple[str, ...]

    @property
    def told(self) -> str:
        """One line for whoever finds it."""
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        place = f"is mounted on {self.points[0]}" if self.points else f"was mounted on {self.at}, and is no more"
        return f"{self.manifest.ref} is open for editing since {since} by {self.by}: it {place}"


def held(store: Store, name: str) -> Held | None:
    """What is held open of a lineage. Raises NotFound, ManifestInvalid."""
    directory, note = store.work(name) / "held", store.work(name) / "held.json"
    if not directory.is_dir():
        return None
    try:
        with disk_errors(f"reading {note}"):
            told = json.loads(note.read_bytes())
        manifest = decode_manifest(told["manifest"].encode())
        at, since, by = Path(told["at"]), int(told["since"]), str(told["by"])
    except (ValueError, KeyError, TypeError, AttributeError, ImageError):
        raise ImageError(f"{note} cannot be read", f"move {directory} away, after a look into it") from None
    parts = tuple(parts_of(manifest, directory))
    return Held(manifest, at, since, by, parts, tuple(_points(parts)))


def refuse(store: Store, name: str) -> None:
    """Raise Busy if a version of the lineage is held open, with what can be done about it."""
    found = held(store, name)
    if found is not None:
        raise Busy(found.told, f"gild image edit {name} --publish, or --discard")


def hold_open(store: Store, name: str, number: int, at: Path) -> tuple[Held, list[Part]]:
    """Mount a copy of a version on the empty directory `at`, for everybody; or one that is held open and not mounted
    any more, where `number` is 0 or its version. Gives it and the partitions this kernel cannot mount. Needs root.
    Raises NotFound, Busy, SourceInvalid, CommandFailed, NoSpace; then nothing is mounted."""
    at = at.resolve()
    if not at.is_dir() or os.path.ismount(at) or any(at.iterdir()):
        raise SourceInvalid(f"{at} is no empty directory to mount on", f"mkdir -p {at}, or give another one")
    if at.is_relative_to(store.root.resolve()):
        raise SourceInvalid(f"{at} lies in the store itself", "give a directory elsewhere")
    with store.lineage_lock(name), disk_errors(f"opening {name} on {at}"):
        found = held(store, name)
        fresh = found is None
        if found is not None and (found.points or number not in (0, found.manifest.version)):
            refuse(store, name)
        manifest = found.manifest if found else store.load(f"{name}:{number or 'latest'}")[0]
        if manifest.whole:
            raise SourceInvalid(f"{manifest.ref} is a disk kept bit for bit: nobody looks into it")
        work = store.work(name)
        if fresh:
            candidate(store, name, manifest.version)
        by = os.environ.get("SUDO_USER") or os.environ.get("USER") or f"user {os.getuid()}"
        text = store.manifest_path(name, manifest.version).read_text() if fresh else _manifest_text(work)
        note = {"manifest": text, "at": os.fspath(at), "since": int(time.time()), "by": by[:64]}
        write_file(work / "held.json", json.dumps(note).encode())
        if fresh:
            os.replace(work / "next", work / "held")
        parts = parts_of(manifest, work / "held")
        left: list[Part] = []
        try:
            _mount(in_private_namespace(lambda: mountable(parts, at, left)), at)
        except GildError:
            if fresh:
                clear(work / "held")
            raise
        result = held(store, name)
        assert result is not None, "it was just made"
        return result, left


def close(found: Held) -> None:
    """Write everything back and unmount it. Raises Busy if something still works in it, and then it stays mounted."""
    for point in reversed(found.points):
        try:
            run(["umount", point], timeout=600)
        except CommandFailed as error:
            raise Busy(error.message, f"end what works in it: fuser -vm {point}") from None
    for part in found.parts:
        wait_unused(part.file)


def discard(store: Store, name: str) -> Held:
    """Unmount and throw away what is held open of a lineage. Raises NotFound, Busy."""
    with store.lineage_lock(name):
        found = wanted(store, name)
        close(found)
        forget(store, name)
    return found


def wanted(store: Store, name: str) -> Held:
    """What is held open of a lineage. Raises NotFound if nothing is."""
    found = held(store, name)
    if found is None:
        raise NotFound(f"no version of {name} is mounted for editing", f"gild image edit {name} --mount DIR")
    return found


def forget(store: Store, name: str) -> None:
    """Clear the copy, or what publishing has left of it. The caller holds the lineage's lock."""
    clear(store.work(name) / "held")
    (store.work(name) / "held.json").unlink(missing_ok=True)


def _manifest_text(work: Path) -> str:
    return str(json.loads((work / "held.json").read_bytes())["manifest"])


def _mount(parts: Sequence[Part], at: Path) -> None:
    """Mount the partitions, the root first; all or none."""
    done: list[str] = []
    try:
        for part in sorted(parts, key=lambda part: (part.mount != "/", part.mount.count("/"))):
            point = at / part.mount.lstrip("/")
            if point.is_symlink() or not point.resolve().is_relative_to(at) or not point.is_dir():
                raise SourceInvalid(f"{part.mount} is no directory in the image: {part.role} cannot be mounted there")
            options = f"{FLAGS},nouuid" if part.fs == "xfs" else FLAGS
            argv = ["mount", "-o", options, os.fspath(part.file), os.fspath(point)]
            run(argv, timeout=60, act=f"mounting {part.role} on {point}")
            done.append(os.fspath(point))
    except GildError:
        for mounted in reversed(done):
            with contextlib.suppress(CommandFailed):
                run(["umount", mounted], timeout=300)
        raise


def _points(parts: Sequence[Part]) -> list[str]:
    """Where the partitions are mounted, in the order in which that was done."""
    devices = set()
    for part in parts:
        if name := loop_of(part.file):
            number = os.stat(f"/dev/{name}").st_rdev
            devices.add(f"{os.major(number)}:{os.minor(number)}")
    rows = [line.split(" ") for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()]
    found = [row[4] for row in rows if len(row) > 4 and row[2] in devices]
    return [ESCAPED.sub(lambda match: chr(int(match[1], 8)), point) for point in found]
