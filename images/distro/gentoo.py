"""Gentoo: netifrc under OpenRC, or systemd with networkd. Never booted."""

from __future__ import annotations

import re

from images.distro import inits, networkd
from images.distro.family import Card, Family, Release
from images.tree import Tree

CONF = "etc/conf.d/net"


def network(tree: Tree, init: str, release: Release) -> str:
    """By init: netifrc under OpenRC, networkd or NetworkManager under systemd."""
    if init == "systemd":
        if inits.enabled(tree, "NetworkManager.service"):
            return "keyfile"
        return "networkd" if networkd.installed(tree) else ""
    if inits.in_runlevel(tree, "NetworkManager"):
        return "keyfile"
    return "netifrc" if tree.lexists("etc/init.d/net.lo") else ""


def netifrc(tree: Tree, card: Card) -> list[str]:
    """config_NAME in etc/conf.d/net (net.example of netifrc) and net.NAME in runlevel default in place of the image's
    own net.ethN and net.enN. Raises TreeInvalid."""
    told = []
    for level in tree.names("etc/runlevels"):
        for name in tree.names(f"etc/runlevels/{level}", "net.e*"):
            tree.remove(f"etc/runlevels/{level}/{name}")
            told.append(f"network: {name} is taken out of runlevel {level}")
    values = {f"config_{card.name}": f"{card.address}/{card.prefix}"}
    routes = [*([("default", card.gateway)] if card.gateway else []), *card.routes]
    lines = "\n".join(f"{network} via {router}" for network, router in routes)
    values |= {f"routes_{card.name}": lines} if lines else {}
    values |= {f"mtu_{card.name}": str(card.mtu)} if card.mtu else {}
    values |= {f"dns_servers_{card.name}": " ".join(card.dns)} if card.dns else {}
    values |= {f"dns_domain_{card.name}": card.domain} if card.domain else {}
    own = rf"(?m)^(?:config|routes|mtu|dns_servers|dns_domain)_{card.name}=(?:\"[^\"]*\"|.*)\n?"
    kept = re.sub(own, "", tree.text(CONF)).rstrip("\n").splitlines()
    changed = tree.write(CONF, "\n".join([*kept, *(f'{key}="{value}"' for key, value in values.items())]) + "\n")
    changed |= tree.make_link(f"etc/init.d/net.{card.name}", "net.lo")
    changed |= inits.add_to_runlevel(tree, f"net.{card.name}", "default")
    return [*told, f"network: {CONF}"] if changed else told


FAMILY = Family(
    name="gentoo",
    ids=("gentoo",),
    markers=("etc/gentoo-release", "etc/portage/make.profile"),
    network=network,
)
