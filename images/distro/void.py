"""Void: runit. Its handbook sets a static address with ip(8) in etc/rc.local. Never booted."""

from __future__ import annotations

from images.distro import rclocal
from images.distro.family import Card, Family, Release
from images.tree import Tree

SERVICES = "etc/runit/runsvdir/default"


def network(tree: Tree, init: str, release: Release) -> str:
    """NetworkManager if its service is linked, else rc.local."""
    return "keyfile" if tree.lexists(f"{SERVICES}/NetworkManager") else "rclocal"


def rc_local(tree: Tree, card: Card) -> list[str]:
    """ip commands in etc/rc.local that find the card by its MAC; the dhcpcd service is taken out, which would ask for
    another address on the same card. Raises TreeInvalid."""
    told = []
    if tree.remove(f"{SERVICES}/dhcpcd"):
        told.append("network: the dhcpcd service is taken out")
    lines = [
        "for card in /sys/class/net/*; do",
        f'    if [ "$(cat "$card/address")" = "{card.mac}" ] && [ -e "$card/device" ]; then',
        f"        old=${{card##*/}} new={card.name}",
        '        [ "$old" = "$new" ] || ip link set dev "$old" name "$new" || new=$old',
        '        ip link set dev "$new" up',
        f'        ip addr add {card.address}/{card.prefix} brd + dev "$new"',
        *([f'        ip link set dev "$new" mtu {card.mtu}'] if card.mtu else []),
        *(f"        ip route add {network} via {router}" for network, router in card.routes),
        *([f"        ip route add default via {card.gateway}"] if card.gateway else []),
        "    fi",
        "done",
    ]
    if rclocal.set_block(tree, "network", lines):
        told.append("network: etc/rc.local")
    return told


FAMILY = Family(name="void", ids=("void",), markers=("etc/xbps.d", "usr/share/xbps.d"), network=network)
