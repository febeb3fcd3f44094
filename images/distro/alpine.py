"""Alpine: OpenRC, busybox's ifupdown, mdev. Never booted."""

from __future__ import annotations

import ipaddress

from images.distro import inits
from images.distro.family import Card, Family, Release
from images.tree import Tree


def network(tree: Tree, init: str, release: Release) -> str:
    """busybox's dialect of etc/network/interfaces."""
    if init == "openrc" and inits.in_runlevel(tree, "NetworkManager"):
        return "keyfile"
    return "busybox"


def interfaces(tree: Tree, card: Card) -> list[str]:
    """The whole etc/network/interfaces. mdev renames no cards, so ifup has busybox's nameif do it by MAC first; and
    the netmask stands on a line of its own, which every version reads. Raises TreeInvalid."""
    mask = ipaddress.IPv4Network(f"0.0.0.0/{card.prefix}").netmask
    rename = f"test -e /sys/class/net/{card.name} || nameif {card.name} {card.mac}"
    lines = ["auto lo", "iface lo inet loopback", "", f"auto {card.name}", f"iface {card.name} inet static"]
    lines += [f"    pre-up {rename}", f"    address {card.address}", f"    netmask {mask}"]
    lines += [f"    gateway {card.gateway}"] if card.gateway else []
    lines += [f"    mtu {card.mtu}"] if card.mtu else []
    lines += [f"    up ip route add {network} via {router} dev {card.name}" for network, router in card.routes]
    told = []
    if tree.write("etc/network/interfaces", "\n".join(lines) + "\n", 0o644):
        told.append("network: etc/network/interfaces")
    if tree.is_file("etc/init.d/networking") and inits.add_to_runlevel(tree, "networking", "boot"):
        told.append("networking was in no runlevel and is in boot now")
    return told


FAMILY = Family(
    name="alpine",
    ids=("alpine",),
    markers=("etc/alpine-release",),
    network=network,
    grub=("boot/efi/EFI/alpine/grubx64.efi",),
)
