"""RHEL, its rebuilds and Fedora: NetworkManager with keyfiles, or ifcfg files up to version 8. Never booted."""

from __future__ import annotations

import re

from images.distro import inits, networkd
from images.distro.family import Card, Family, Release
from images.tree import Tree

SCRIPTS = "etc/sysconfig/network-scripts"
_OWN_TYPE = re.compile(r"(?mi)^\s*(?:TYPE=(?![\"']?Ethernet)|MASTER=|BRIDGE=|SLAVE=|VLAN=)")


def network(tree: Tree, init: str, release: Release) -> str:
    """ifcfg where initscripts' udev rule renames cards by it (60-net.rules) and keyfiles are not yet the default."""
    old = release.version.partition(".")[0] in ("6", "7", "8") and release.id != "fedora"
    if init == "systemd":
        if inits.enabled(tree, "NetworkManager.service"):
            return "ifcfg" if old and tree.is_file("usr/lib/udev/rules.d/60-net.rules") else "keyfile"
        if tree.is_file("etc/rc.d/init.d/network") and tree.names("etc/rc.d/rc3.d", "S??network"):
            return "ifcfg"
        if inits.enabled(tree, "systemd-networkd.service") and networkd.installed(tree):
            return "networkd"
    return "ifcfg" if old and tree.is_dir(SCRIPTS) else "keyfile" if tree.is_dir("etc/NetworkManager") else ""


def ifcfg(tree: Tree, card: Card) -> list[str]:
    """ifcfg-NAME with HWADDR and DEVICE, which initscripts' udev rule also renames the card by; the image's own files
    for plain Ethernet cards are removed, lo, bonds, bridges and VLANs stay. Raises TreeInvalid."""
    told = []
    for name in tree.names(SCRIPTS, "ifcfg-*"):
        if name in ("ifcfg-lo", f"ifcfg-{card.name}") or not tree.is_file(f"{SCRIPTS}/{name}"):
            continue
        if not _OWN_TYPE.search(tree.text(f"{SCRIPTS}/{name}")):
            tree.remove(f"{SCRIPTS}/{name}")
            told.append(f"network: the image's {name} is removed")
    lines = ["TYPE=Ethernet", f"NAME={card.name}", f"DEVICE={card.name}", f"HWADDR={card.mac.upper()}", "ONBOOT=yes"]
    lines += ["BOOTPROTO=none", f"IPADDR={card.address}", f"PREFIX={card.prefix}"]
    lines += [f"GATEWAY={card.gateway}"] if card.gateway else []
    lines += [f"MTU={card.mtu}"] if card.mtu else []
    lines += [f"DNS{n}={server}" for n, server in enumerate(card.dns, 1)]
    lines += [f"DOMAIN={card.domain}"] if card.domain else []
    if tree.write(f"{SCRIPTS}/ifcfg-{card.name}", "\n".join(lines) + "\n", 0o644):
        told.append(f"network: {SCRIPTS}/ifcfg-{card.name}")
    routes, own = [f"{network} via {router}" for network, router in card.routes], f"{SCRIPTS}/route-{card.name}"
    if routes and tree.write(own, "\n".join(routes) + "\n", 0o644):
        told.append(f"network: {own}")
    elif not routes and tree.remove(own):
        told.append(f"network: {own} is removed")
    return told


# The vendor folders as Anaconda's efi.py and profile.d have them.
FAMILY = Family(
    name="redhat",
    ids=("rhel", "fedora", "centos", "rocky", "almalinux", "ol"),
    markers=("etc/redhat-release",),
    network=network,
    vendors={"rhel": "redhat", "ol": "redhat", "fedora": "fedora", "centos": "centos", "rocky": "rocky",
             "almalinux": "almalinux"},
    # The packages own the files on the ESP itself; boot/efi of an image that was one filesystem still has them.
    shim=("boot/efi/EFI/{vendor}/shimx64.efi", "usr/lib/efi/shim/*/EFI/BOOT/BOOTX64.EFI"),
    grub=("boot/efi/EFI/{vendor}/grubx64.efi", "usr/lib/efi/grub2/*/EFI/{vendor}/grubx64.efi"),
    mok=("boot/efi/EFI/{vendor}/mmx64.efi", "usr/lib/efi/shim/*/EFI/{vendor}/mmx64.efi"),
)  # fmt: skip
