"""The words in which a family of distributions is described, and a node's network card as every writer needs it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from images.tree import Tree


@dataclass(frozen=True)
class Card:
    """One card with one static IPv4 address. `mac` in lower case with colons; `routes` are (network, router) beside
    the gateway's; "", 0 and () where there is nothing."""

    mac: str
    address: str
    prefix: int
    gateway: str = ""
    dns: tuple[str, ...] = ()
    domain: str = ""
    name: str = "lan0"
    mtu: int = 0
    routes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Release:
    """What os-release says (os-release(5))."""

    id: str = ""
    like: tuple[str, ...] = ()
    version: str = ""


@dataclass(frozen=True)
class Family:
    """One family. Paths are relative to the tree, in the order in which they are tried."""

    name: str
    ids: tuple[str, ...]  # os-release: ID or a word of ID_LIKE
    markers: tuple[str, ...]  # files that only this family has, for a tree without os-release
    network: Callable[[Tree, str, Release], str]  # (tree, init, release) -> style of images.edits.network, "" unknown
    # EFI/<vendor>: the folder whose name is built into the family's signed GRUB, by os-release ID.
    vendors: dict[str, str] = field(default_factory=dict)
    shim: tuple[str, ...] = ()
    grub: tuple[str, ...] = ()
    mok: tuple[str, ...] = ()
    second: str = "grubx64.efi"  # what its shim loads from its own folder, and the helper it calls for keys
    helper: str = "mmx64.efi"

    def vendor(self, release: Release) -> str:
        """The folder below EFI/ that belongs to the distribution."""
        return self.vendors.get(release.id, self.name)


_LINE = re.compile(r"^([A-Z_]+)=(?:\"([^\"\n]*)\"|'([^'\n]*)'|([^\s\"']*))\s*$", re.M)


def release_of(tree: Tree) -> Release:
    """Read etc/os-release or usr/lib/os-release. Raises TreeInvalid for one that is no sane file."""
    text = tree.text("etc/os-release", 65536) or tree.text("usr/lib/os-release", 65536)
    found = {match[1]: match[2] or match[3] or match[4] or "" for match in _LINE.finditer(text)}
    return Release(
        found.get("ID", "").lower(), tuple(found.get("ID_LIKE", "").lower().split()), found.get("VERSION_ID", "")
    )
