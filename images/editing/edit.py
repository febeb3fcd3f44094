"""Open a version as a tree, change it, publish what came out as the next version; or throw it away.

What is changed is a private copy of the version, mounted where nobody else sees it. A crash at any moment leaves every
version as it was: mounts and loop devices go with the last process of the namespace, the lock with the process that
held it, and the copy is cleared by whoever works on the lineage next.

Whether anything was changed is found by comparing the tree with the one it came from, not chunks: mounting alone writes
a superblock and a journal, so two versions with equal trees never have equal chunks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from images.disk import disk_errors
from images.editing import chroot, held
from images.editing.copyin import copy_in
from images.editing.diff import Change, changes, viewed
from images.editing.interrupts import Interrupts, noted
from images.errors import CommandFailed, NotFound, SourceInvalid
from images.manifest import Manifest, digest, encode_manifest
from images.namespace import in_private_namespace, loop_of
from images.options import Options
from images.publish import Part
from images.store import Store
from images.strip import strip_tree
from images.working import Source, candidate, clear, mountable, mounted_parts, publish_candidate

SHOWN = 40  # changes that a look keeps beside their number


@dataclass(frozen=True)
class Look:
    """What was changed: how many names of each kind, and the first of them. Not `known`: the version the tree came from
    cannot be opened beside it."""

    added: int = 0
    removed: int = 0
    changed: int = 0
    first: tuple[Change, ...] = ()
    known: bool = True

    @property
    def nothing(self) -> bool:
        """Whether the tree is as it was."""
        return self.known and not self.added + self.removed + self.changed


@dataclass
class Session:
    """A version open for changes: its tree at `root`, seen by this thread and the programs it starts alone. `left` are
    the partitions that this kernel cannot mount; they stay as they are."""

    store: Store
    manifest: Manifest
    root: Path
    parts: Sequence[Part]
    left: Sequence[Part] = ()
    interrupts: Interrupts = field(default_factory=Interrupts)
    last: Look | None = None

    def shell(self, argv: Sequence[str] = ()) -> int:
        """Run a command, or a shell, inside; gives its exit code. Raises as `images.editing.chroot.enter` does."""
        disks = []
        for part in self.parts:
            if name := loop_of(part.file):
                number = os.stat(f"/dev/{name}").st_rdev
                disks.append(chroot.Disk(f"gild-{part.role}", number, part.fs, part.mount, part.uuid))
        self.last = None
        try:
            return chroot.enter(self.root, argv, title=self.manifest.ref, disks=disks)
        finally:
            self.interrupts.forget()  # it was typed for the shell

    def copy(self, source: Path, target: str, *, preserve: bool = False) -> int:
        """Copy a file or directory of the head into the tree. Raises as `images.editing.copyin.copy_in` does."""
        self.last = None
        return copy_in(self.root, source, target, preserve=preserve, on_entry=self.interrupts.check)

    def look(self) -> Look:
        """Take out of the tree what no image keeps, and say what differs from the version it came from.
        Raises OSError, ImageError."""
        with disk_errors(f"comparing with {self.manifest.ref}"):
            strip_tree(self.root)
            self.last = self._compare()
        return self.last

    def _compare(self) -> Look:
        counts = {"added": 0, "removed": 0, "changed": 0}
        first: list[Change] = []
        try:
            with viewed(self.store, self.manifest, self.parts[0].file.parent / "before") as before:
                for change in changes(before, self.root, copies=True, on_entry=self.interrupts.check):
                    counts[change.how] += 1
                    if len(first) < SHOWN:
                        first.append(change)
        except (CommandFailed, NotFound):  # a btrfs copy cannot be mounted before Linux 6.7; or it was removed
            return Look(known=False)
        return Look(counts["added"], counts["removed"], counts["changed"], tuple(first))


Work = Callable[[Session], Options | None]


def edit(
    store: Store, ref: str, work: Callable[[Path], object], options: Options, *, source: Source | None = None
) -> Manifest | None:
    """Mount a copy of a version, call `work` with the directory of its tree, and publish the result as the lineage's
    next version; None if nothing was changed. `ref` as in `newest`; `source` is for the manifest. Needs root.
    Whatever is raised, by `work` too, leaves store and working image as they were. Raises NotFound, Busy (naming who
    edits), SourceInvalid, CommandFailed, NoSpace."""

    def once(session: Session) -> Options:
        work(session.root)
        return options

    return edit_session(store, ref, once, source or {"kind": "edit"})


def edit_session(store: Store, ref: str, work: Work, source: Source) -> Manifest | None:
    """The same for work that looks and asks: it gets a Session, and gives what to publish with, or None to throw all
    away. `source` may be completed while it works. Raises as `edit` does."""
    name, number = newest(store, ref)
    with store.lineage_lock(name):
        held.refuse(store, name)
        manifest, _ = store.load(f"{name}:{number}")
        if manifest.whole:
            raise SourceInvalid(f"{manifest.ref} is a disk kept bit for bit: nobody looks into it", "import it anew")
        directory = store.work(name) / "next"
        try:
            parts = candidate(store, name, number)
            options = opened(store, manifest, parts, work)
            if options is None:
                return None
            return _published(store, manifest, parts, options, source)
        finally:
            clear(directory)


def publish_held(
    store: Store, name: str, options: Options, source: Source | None = None
) -> tuple[Manifest | None, Look]:
    """Unmount what is held open of a lineage (`held`) and publish it; None if nothing was changed. On any error
    the copy is kept, to be published later. Needs root. Raises NotFound, Busy if something works in it, CommandFailed,
    NoSpace."""
    looks: list[Look] = []

    def look(session: Session) -> Options:
        looks.append(session.look())
        return options

    with store.lineage_lock(name):
        found = held.wanted(store, name)
        held.close(found)
        manifest = None
        if opened(store, found.manifest, found.parts, look) is not None:
            manifest = _published(store, found.manifest, found.parts, options, source or {"kind": "edit"})
        held.forget(store, name)
    return manifest, looks[0]


def newest(store: Store, ref: str) -> tuple[str, int]:
    """(name, number) of the version that an edit of `ref` starts from: `name` alone stands for the newest version, so
    that one edit follows the other; not for the tagged one. Raises NotFound."""
    return store.resolve(ref if ":" in ref else f"{ref}:latest")


def opened(store: Store, manifest: Manifest, parts: Sequence[Part], work: Work) -> Options | None:
    """Mount a copy of a version that lies in `parts`, do the work, unmount; None if there is nothing to publish.
    Ctrl-C ends it between two files, never inside a mount or in place of the shell. Raises what `work` raises."""
    directory = parts[0].file.parent

    def inside() -> Options | None:
        at = directory / "tree"
        clear(directory / "before")
        at.mkdir(exist_ok=True)
        try:
            left: list[Part] = []
            usable = mountable(parts, at, left)
            with mounted_parts(usable, at) as root:
                session = Session(store, manifest, root, usable, left, interrupts)
                options = work(session)
                if options is not None and (session.last or session.look()).nothing:
                    options = None
            return options
        finally:
            at.rmdir()

    with noted() as interrupts:
        return in_private_namespace(inside)


def _published(store: Store, parent: Manifest, parts: Sequence[Part], options: Options, source: Source) -> Manifest:
    known = {**source, "parent": digest(encode_manifest(parent))}
    return publish_candidate(store, parent.name, parts, options, source=known, parent=parent.version)
