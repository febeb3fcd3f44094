"""What a tree is: its family by os-release and marker files, its init, the style of its network configuration."""

from __future__ import annotations

from dataclasses import dataclass

from images.distro import alpine, arch, debian, gentoo, inits, redhat, suse, void
from images.distro.family import Family, Release, release_of
from images.tree import Tree

FAMILIES = (debian.FAMILY, redhat.FAMILY, suse.FAMILY, alpine.FAMILY, arch.FAMILY, void.FAMILY, gentoo.FAMILY)


@dataclass(frozen=True)
class System:
    """`family` is None for a system nobody here knows; `init` and `network` are "" where they could not be told."""

    family: Family | None
    release: Release
    init: str
    network: str


def family_of(root: str) -> Family | None:
    """The family of the tree at `root`: its ID, then each word of ID_LIKE, then marker files. Raises TreeInvalid."""
    tree = Tree(root)
    release = release_of(tree)
    for word in (release.id, *release.like):
        for family in FAMILIES:
            if word in family.ids:
                return family
    return next((family for family in FAMILIES if any(tree.lexists(path) for path in family.markers)), None)


def system_of(root: str) -> System:
    """Everything the edits want to know of a tree. Raises TreeInvalid."""
    tree, family = Tree(root), family_of(root)
    release, init = release_of(tree), inits.init_of(tree)
    return System(family, release, init, family.network(tree, init, release) if family else _any(tree))


def refusal(root: str) -> str:
    """Why the tree at `root` cannot become the system of a machine, "" if nothing speaks against it. Raises TreeInvalid
    for links and files that no system has."""
    tree = Tree(root)
    if tree.is_dir("ostree/repo"):
        return "it is an ostree repository, whose system lies in a deployment that only ostree itself may change"
    release_of(tree)
    if not inits.init_of(tree):
        last = tree.resolve("sbin/init") if tree.lexists("sbin/init") else ""
        return f"nothing in it starts a machine ({f'/sbin/init is {last}' if last else 'there is no /sbin/init'})"
    return ""


def _any(tree: Tree) -> str:
    """An unknown system with systemd still has one of the two managers that are the same everywhere."""
    if inits.enabled(tree, "NetworkManager.service"):
        return "keyfile"
    return "networkd" if inits.unit_path(tree, "systemd-networkd.service") else ""
