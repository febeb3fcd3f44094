"""One card, one static address, one stable name, in whatever configures the network of this system."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from images.distro import alpine, debian, find, gentoo, keyfile, networkd, redhat, suse, void
from images.distro.family import Card
from images.edits import option
from images.errors import GildError
from images.tree import Tree

OPTIONS = {
    "mac": "MAC address of the card",
    "address": "IPv4 address",
    "prefix": "length of the network's prefix",
    "gateway": "IPv4 address, or empty",
    "dns": "IPv4 addresses of name servers",
    "domain": "search domain, or empty",
    "name": "the card's name in the system (lan0)",
    "mtu": "largest packet in bytes, or 0",
    "routes": 'list of "NETWORK via ROUTER" beside the gateway\'s',
}
STYLES: dict[str, Callable[[Tree, Card], list[str]]] = {
    "networkd": networkd.write,
    "ifupdown": debian.ifupdown,
    "netplan": debian.netplan,
    "keyfile": keyfile.write,
    "ifcfg": redhat.ifcfg,
    "wicked": suse.wicked,
    "busybox": alpine.interfaces,
    "rclocal": void.rc_local,
    "netifrc": gentoo.netifrc,
}
# Rules that pin names to the image's own cards; the second is cloud-init's on SUSE.
PINS = ("etc/udev/rules.d/70-persistent-net.rules", "etc/udev/rules.d/85-persistent-net-cloud-init.rules")


def apply(root: str, options: dict[str, Any]) -> list[str]:
    """Give the card its name and address. Raises OptionInvalid, TreeInvalid, and GildError for a system whose network
    configuration is not known."""
    card = Card(
        mac=option.mac(options, "mac", "network"),
        address=option.address(options, "address", "network"),
        prefix=option.number(options, "prefix", "network", 1, 32),
        gateway=option.address(options, "gateway", "network", optional=True),
        dns=tuple(option.addresses(options, "dns", "network")),
        domain=option.domain(options, "domain", "network"),
        name=option.nic_name(options, "name", "network"),
        mtu=option.number({"mtu": 0, **options}, "mtu", "network", 0, 65535),
        routes=option.routes(options, "routes", "network"),
    )
    tree, system = Tree(root), find.system_of(root)
    if system.network not in STYLES:
        raise GildError(
            f"nothing in this image is known to configure the network (init {system.init or 'unknown'})",
            "install systemd-networkd, NetworkManager or ifupdown in the image",
        )
    lines = _name(tree, card)
    # An image's cloud-init would write its own configuration at every new instance (cloud-init, network configuration).
    if tree.is_dir("etc/cloud/cloud.cfg.d"):
        tree.write("etc/cloud/cloud.cfg.d/99-gild-network.cfg", "network: {config: disabled}\n", 0o644)
    if system.network == "keyfile" and system.family is debian.FAMILY:
        lines += debian.quiet(tree)  # NetworkManager passes over cards that etc/network/interfaces names
    return lines + STYLES[system.network](tree, card)


def _name(tree: Tree, card: Card) -> list[str]:
    """The name by MAC, twice, as netplan does it: systemd before 240 applies no .link file to a card that the initramfs
    has renamed (systemd PR 9088), and eudev reads no .link files at all."""
    told = [f"network: {path} is removed" for path in PINS if tree.remove(path)]
    # MACAddress= is read by every version of systemd, PermanentMACAddress= from 245 on (systemd.link(5)). A VLAN has
    # the MAC of its card; it is of type vlan, and no driver stands behind it, which keeps it from taking the name.
    link = f"[Match]\nMACAddress={card.mac}\nType=ether\n\n[Link]\nName={card.name}\n"
    rule = (
        f'SUBSYSTEM=="net", ACTION=="add", DRIVERS=="?*", ATTR{{type}}=="1", ATTR{{address}}=="{card.mac}", '
        f'NAME="{card.name}"\n'
    )
    changed = tree.write(f"etc/systemd/network/10-gild-{card.name}.link", link, 0o644)
    changed |= tree.write("etc/udev/rules.d/75-gild-net.rules", rule, 0o644)
    return [*told, f"network: {card.mac} is named {card.name}"] if changed else told
