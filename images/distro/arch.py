"""Arch Linux: whatever is enabled, and networkd, which is always installed, where nothing is. Never booted."""

from __future__ import annotations

from images.distro import inits, networkd
from images.distro.family import Family, Release
from images.tree import Tree


def network(tree: Tree, init: str, release: Release) -> str:
    """networkd unless NetworkManager is enabled."""
    if inits.enabled(tree, "NetworkManager.service"):
        return "keyfile"
    return "networkd" if networkd.installed(tree) else ""


FAMILY = Family(name="arch", ids=("arch",), markers=("etc/arch-release",), network=network)
