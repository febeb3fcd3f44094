"""openSUSE Leap and SLES: wicked up to 15, NetworkManager from 16 on. Never booted."""

from __future__ import annotations

from images.distro import inits, networkd
from images.distro.family import Card, Family, Release
from images.tree import Tree

NETWORK = "etc/sysconfig/network"


def network(tree: Tree, init: str, release: Release) -> str:
    """wicked if it is enabled, by its own name or as what network.service stands for."""
    if inits.enabled(tree, "wicked.service"):
        return "wicked"
    if inits.enabled(tree, "NetworkManager.service"):
        return "keyfile"
    if inits.enabled(tree, "systemd-networkd.service") and networkd.installed(tree):
        return "networkd"
    return "wicked" if tree.is_file("usr/sbin/wicked") else "keyfile" if tree.is_dir("etc/NetworkManager") else ""


def wicked(tree: Tree, card: Card) -> list[str]:
    """ifcfg-NAME and ifroute-NAME. wicked knows no match by MAC (LLADDR would set it), so it relies on the udev rule
    that gives the card its name; the image's ifcfg-eth* and ifcfg-en* go. Raises TreeInvalid."""
    told = []
    for name in (*tree.names(NETWORK, "ifcfg-eth*"), *tree.names(NETWORK, "ifcfg-en*")):
        tree.remove(f"{NETWORK}/{name}")
        tree.remove(f"{NETWORK}/ifroute-{name.removeprefix('ifcfg-')}")
        told.append(f"network: the image's {name} is removed")
    lines = ["STARTMODE='auto'", "BOOTPROTO='static'", f"IPADDR='{card.address}/{card.prefix}'"]
    lines += [f"MTU='{card.mtu}'"] if card.mtu else []
    changed = tree.write(f"{NETWORK}/ifcfg-{card.name}", "\n".join(lines) + "\n", 0o644)
    routes = [*([("default", card.gateway)] if card.gateway else []), *card.routes]
    own = f"{NETWORK}/ifroute-{card.name}"
    if routes:
        text = "".join(f"{network} {router} - {card.name}\n" for network, router in routes)
        changed |= tree.write(own, text, 0o644)
    else:
        changed |= tree.remove(own)
    config = tree.text(f"{NETWORK}/config")
    values = {"NETCONFIG_DNS_STATIC_SERVERS": " ".join(card.dns), "NETCONFIG_DNS_STATIC_SEARCHLIST": card.domain}
    rows = config.split("\n") if config else [""]
    for key, value in values.items():
        row, found = f'{key}="{value}"', [n for n, line in enumerate(rows) if line.startswith(f"{key}=")]
        if found:
            rows[found[-1]] = row
        else:
            rows.insert(len(rows) - 1, row)
    changed |= tree.write(f"{NETWORK}/config", "\n".join(rows), None if config else 0o644)
    return [*told, f"network: {NETWORK}/ifcfg-{card.name}"] if changed else told


FAMILY = Family(
    name="suse",
    ids=("suse", "opensuse", "opensuse-leap", "opensuse-tumbleweed", "sles"),
    markers=("etc/SUSE-brand", "etc/SuSE-release"),
    network=network,
    vendors={"sles": "sles", "opensuse-leap": "opensuse", "opensuse-tumbleweed": "opensuse"},
    shim=("usr/share/efi/x86_64/shim.efi", "boot/efi/EFI/{vendor}/shim.efi"),
    grub=("usr/share/efi/x86_64/grub.efi", "boot/efi/EFI/{vendor}/grub.efi"),
    mok=("usr/share/efi/x86_64/MokManager.efi", "boot/efi/EFI/{vendor}/MokManager.efi"),
    second="grub.efi",
    helper="MokManager.efi",
)
