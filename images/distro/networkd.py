"""systemd-networkd: Debian's smallest systems, Arch, and whatever has it enabled."""

from __future__ import annotations

from images.distro import inits
from images.distro.family import Card
from images.tree import Tree

DIRECTORY = "etc/systemd/network"
# What `systemctl enable systemd-networkd` links on Debian 12 and 13 (measured): unit -> (wanted by, alias).
LINKS = {
    "systemd-networkd.service": ("multi-user.target", "dbus-org.freedesktop.network1.service"),
    "systemd-networkd.socket": ("sockets.target", ""),
    "systemd-network-generator.service": ("sysinit.target", ""),
    "systemd-networkd-wait-online.service": ("network-online.target", ""),
}


def write(tree: Tree, card: Card) -> list[str]:
    """A .network file that matches by MAC, and networkd enabled if it was not. Raises TreeInvalid."""
    name = f"10-gild-{card.name}.network"
    lines = ["[Match]", f"MACAddress={card.mac}", ""]
    lines += ["[Link]", f"MTUBytes={card.mtu}", ""] if card.mtu else []
    lines += ["[Network]", f"Address={card.address}/{card.prefix}"]
    lines += [f"Gateway={card.gateway}"] if card.gateway else []
    lines += [f"DNS={server}" for server in card.dns]
    lines += [f"Domains={card.domain}"] if card.domain else []
    lines += ["IPv6AcceptRA=no"]
    for network, router in card.routes:
        lines += ["", "[Route]", f"Destination={network}", f"Gateway={router}"]
    told = []
    if tree.write(f"{DIRECTORY}/{name}", "\n".join(lines) + "\n", 0o644):
        told.append(f"network: {DIRECTORY}/{name}")
    for other in tree.names(DIRECTORY, "*.network"):
        if other < name:  # the first file that matches wins, in the order of their names (systemd.network(5))
            told.append(f"beware: {DIRECTORY}/{other} comes before {name} and may match the same card")
    if not inits.enabled(tree, "systemd-networkd.service"):
        for unit, (target, alias) in LINKS.items():
            if inits.unit_path(tree, unit):
                inits.enable(tree, unit, target, alias)
        told.append("systemd-networkd was not enabled and is now")
    return told


def installed(tree: Tree) -> bool:
    """The tree has networkd."""
    return bool(inits.unit_path(tree, "systemd-networkd.service"))
