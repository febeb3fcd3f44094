"""The layers of a container image, one over the other, become one tree (OCI image specification, layer.md)."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from images.errors import SourceInvalid
from images.sources.archive import Archive, Member
from images.sources.names import clean
from images.sources.space import Space
from images.sources.unpack import MAX_MEMBERS, Unpacker, member_errors
from images.tree import Tree

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
PRIVATE = ".wh..wh."  # what AUFS kept for itself


class LayerUnpacker(Unpacker):
    """Unpacks layers into `target`, the lowest first: `begin` each, `add` its members, `finish` after the last.

    Unlike in an archive of a system, a member may replace one of another kind and all below it, may lie below a
    symbolic link, which is followed as the system itself would (never out of the tree), and may say that something of
    the layers below is gone."""

    def __init__(self, target: Path) -> None:
        super().__init__(target, Space(target))
        self._target = target
        self._tree = Tree(os.fspath(target))
        # Names of this layer, which its own whiteouts leave alone. Their hashes: a layer may have millions.
        self._made: set[int] = set()
        self._raw: str | None = None  # the directory last asked for, and where it lies
        self._resolved = ""

    def begin(self) -> None:
        """Go on with the next layer."""
        self._space = Space(self._target)
        self._made.clear()
        self._raw = None

    def add(self, archive: Archive, member: Member) -> None:
        """Unpack one member of the layer, or remove what it says is gone. Raises as in an archive."""
        above, _, base = clean(member.name).rpartition("/")
        private = f"/{above}/{base.removeprefix(OPAQUE)}".find(f"/{PRIVATE}") >= 0
        if not base.startswith(WHITEOUT) and not private:
            super().add(archive, member)
            return
        self.count += 1
        if self.count > MAX_MEMBERS:
            raise SourceInvalid(f"the layers have more than {MAX_MEMBERS} members")
        if private:
            return
        with member_errors(member):
            parent = self._tree.resolve(above)
            hidden = base[len(WHITEOUT) :]
            if base == OPAQUE:
                if stat.S_ISDIR(self._mode(parent)):
                    self._hide_below(parent)
            elif hidden in ("", ".", ".."):
                raise SourceInvalid(f"archive member {member.shown} takes away {hidden!r}, which is no name")
            else:
                self._hide(f"{parent}/{hidden}" if parent else hidden)

    def _place(self, name: str, member: Member) -> str:
        parent, _, base = name.rpartition("/")
        if parent != self._raw:
            resolved = clean(self._tree.resolve(parent))
            self._make_parents(resolved, member)
            self._mark(resolved)
            self._raw, self._resolved = parent, resolved
        place = f"{self._resolved}/{base}" if self._resolved else base
        self._made.add(hash(place))
        return place

    def _clear(self, name: str, member: Member) -> None:
        self._forget(name)
        self._remove(name)

    def _link_target(self, member: Member) -> str:
        return self._tree.resolve(clean(member.target), last=False)

    def _mark(self, name: str) -> None:
        """A directory into which this layer puts something stays, whatever it takes away."""
        while name and hash(name) not in self._made:
            self._made.add(hash(name))
            name = name.rpartition("/")[0]

    def _hide(self, name: str) -> None:
        """Take away what the layers below have of that name."""
        if hash(name) not in self._made:
            self._remove(name)
        elif stat.S_ISDIR(self._mode(name)):
            self._hide_below(name)

    def _hide_below(self, directory: str) -> None:
        for entry in os.listdir(self._path(directory)):
            self._hide(f"{directory}/{entry}" if directory else entry)

    def _remove(self, name: str) -> None:
        mode = self._mode(name)
        if not mode:
            return
        self._raw = None
        if stat.S_ISDIR(mode):
            shutil.rmtree(self._path(name))
        else:
            os.unlink(self._path(name))
