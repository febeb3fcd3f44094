"""Giving space back: what no version needs, what a killed command left, and working images that can be made again."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from images import packs
from images.disk import disk_errors, hold
from images.errors import Busy, ImageError
from images.keeping.usage import used_frames
from images.keeping.verify import quick

if TYPE_CHECKING:
    from images.store import Store

GRACE = 24 * 3600  # seconds an unused pack is kept: longer than any install that may still read it
CUT_OFF = "left by a command that was cut off"


@dataclass(frozen=True, slots=True)
class Item:
    """A file or directory that goes: its path below the store, the bytes it takes on the disk, and why."""

    path: str
    size: int
    why: str


@dataclass(frozen=True, slots=True)
class Dead:
    """A pack that versions need, though not all of it: `dead` of its `size` bytes are used by none."""

    pack: str
    size: int
    dead: int


@dataclass(frozen=True, slots=True)
class Garbage:
    """What `collect` removed or, in a dry run, would remove; sizes in bytes."""

    packs: tuple[str, ...]
    freed: int
    leftovers: int  # temporary and orphaned files
    kept: tuple[str, ...] = field(default=())  # unused packs still in their time of grace
    items: tuple[Item, ...] = field(default=())


def collect(
    store: Store,
    *,
    dry_run: bool = False,
    live_versions: Collection[str] = (),
    grace: float = GRACE,
    work: bool = False,
) -> Garbage:
    """Remove packs no version names, once they are `grace` seconds old, leftovers of commands that were cut off, and
    with `work` the working images that can be made again from packs.

    `live_versions` are digests nodes are installing from: if one of them was removed meanwhile, nothing is collected.
    A pack with some live chunks is kept whole, because the manifests that name it are immutable; see `dead`.
    Raises Busy while something is being published, ManifestInvalid if any manifest cannot be read."""
    with hold(store.root / ".lock", exclusive=True, what="the store"), disk_errors("collecting garbage"):
        wanted: set[str] = set()
        digests: set[str] = set()
        for name in store.images():
            for number in store.versions(name):
                manifest, own = store.load(f"{name}:{number}")
                wanted.update(manifest.packs)
                digests.add(own)
        gone = sorted(set(live_versions) - digests)
        if gone:
            raise Busy(f"a node still installs a removed version ({gone[0][:12]})", "collect when it is done")
        now = time.time()
        unused = [path for path in sorted(store.packs.glob("*.pack")) if path.stem not in wanted]
        old = [path for path in unused if now - path.stat().st_mtime >= grace]
        items = [_item(store, path, "no version needs it") for path in old]
        leftovers = list(_leftovers(store, wanted))
        items += leftovers
        if work:
            items += [_item(store, path, "can be made again from packs") for path in _working(store)]
        if not dry_run:
            for item in items:
                _remove(store.root / item.path)
            for path in old:
                for suffix in (".idx", ".damaged"):
                    path.with_suffix(suffix).unlink(missing_ok=True)
            packs.sync_directory(store.packs)
        return Garbage(
            tuple(path.stem for path in old),
            sum(item.size for item in items),
            len(leftovers),
            tuple(path.stem for path in unused if path not in old),
            tuple(items),
        )


def sweep(store: Store) -> int:
    """Remove what commands that were cut off have left, and give the bytes; 0 while somebody works in the store, for
    then nobody can tell leftovers from work."""
    try:
        with hold(store.root / ".lock", exclusive=True, what="the store"), disk_errors("clearing up"):
            wanted = {path.stem for path in store.packs.glob("*.pack")}
            items = [item for item in _leftovers(store, wanted) if Path(item.path).name.startswith(".tmp-")]
            for item in items:
                _remove(store.root / item.path)
            return sum(item.size for item in items)
    except Busy:
        return 0


def dead(store: Store) -> list[Dead]:
    """Packs of which versions use a part only, the most wasteful first. Reads all runs."""
    sizes = {path.stem: path.stat().st_size for path in store.packs.glob("*.pack")}
    found = []
    for pack, frames in used_frames(store, sizes).items():
        live = sum(length for _, length in {frame[:2] for frame in frames})
        if frames and live < sizes[pack]:
            found.append(Dead(pack, sizes[pack], sizes[pack] - live))
    return sorted(found, key=lambda row: (-row.dead, row.pack))


def _leftovers(store: Store, wanted: Collection[str]) -> Iterator[Item]:
    """Nobody works in the store: what is unfinished now will never be finished."""
    for path in sorted(store.packs.iterdir()):
        if path.name.startswith(".tmp-"):
            yield _item(store, path, CUT_OFF)
        elif path.suffix in (".idx", ".damaged") and not path.with_suffix(".pack").exists() and path.stem not in wanted:
            yield _item(store, path, "its pack is not there")
    for path in sorted((store.root / "tags").glob(".tmp-*")):
        yield _item(store, path, CUT_OFF)
    for directory in sorted((store.root / "images").iterdir()):
        for path in sorted(directory.iterdir()) if directory.is_dir() else []:
            if path.name.startswith(".tmp-"):
                yield _item(store, path, CUT_OFF)
            elif path.suffix in (".runs", ".sha256") and not path.with_suffix(".json").exists():
                yield _item(store, path, "its manifest is not there")
    for directory in sorted((store.root / "work").iterdir()):
        for path in (directory / "tree", directory / "next"):
            if path.is_dir() and not _mounted(path):
                yield _item(store, path, CUT_OFF)


def _working(store: Store) -> Iterator[Path]:
    """Working images of versions that are there and sound, as far as can be seen without reading their packs."""
    for directory in sorted((store.root / "work").iterdir()):
        current, name = directory / "current", directory.name
        if not current.is_dir() or _mounted(current):
            continue
        try:
            held = (current / "digest").read_text("ascii", "replace").strip()
            number = next(n for n in store.versions(name) if store.load(f"{name}:{n}")[1] == held)
            if not quick(store, f"{name}:{number}"):
                yield current
        except (OSError, ImageError, StopIteration):
            continue


def _item(store: Store, path: Path, why: str) -> Item:
    found = [path, *path.rglob("*")] if path.is_dir() and not path.is_symlink() else [path]
    size = sum(entry.lstat().st_blocks * 512 for entry in found)
    return Item(os.fspath(path.relative_to(store.root)), size, why)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _mounted(path: Path) -> bool:
    """Whether something is mounted below `path`, or a file of it elsewhere."""
    try:
        text = Path("/proc/thread-self/mountinfo").read_text("utf-8", "replace")
    except OSError:
        return True
    start = os.fspath(path.resolve()).replace("\\", "\\134").replace(" ", "\\040")  # proc(5), mountinfo
    return any(line.split()[4].startswith(start) for line in text.splitlines())
