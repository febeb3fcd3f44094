"""Network configuration that holds one machine's cards or addresses.

A node gets its own, in the style of its system (`images.edits.network`), which sets aside what that style would read
beside it. What another style would read, or what comes first, nobody sets aside: that is named here.
"""

from __future__ import annotations

import re

from images.checks.check import Check, finding
from images.checks.subject import Subject
from images.distro import inits
from images.tree import Tree

MAC = r"(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}"
OWN = "10-gild-"  # what the node's own networkd file is called
IFCFG = "etc/sysconfig/network-scripts"
_STATIC = re.compile(r"(?m)^[ \t]*iface[ \t]+(?!lo\s)\S+[ \t]+inet6?[ \t]+static")


def network(tree: Tree, subject: Subject) -> list[Check]:
    """Addresses and cards of one machine in whatever the tree has to configure a network with."""
    style = subject.system.network
    aside: list[str] = []
    pinned: list[str] = []
    for path, mine in _fixed(tree).items():
        (aside if style in mine else pinned).append(path)
    pinned += _other_readers(tree, style)
    return [
        finding("network of one machine", aside, "set aside on every node, which gets its own"),
        finding(
            "network that stays on every node",
            pinned,
            "it names one machine's card or address, and nodes keep it: remove it in the image",
            "warning",
        ),
    ]


def _fixed(tree: Tree) -> dict[str, tuple[str, ...]]:
    """Files with an address or a MAC address -> the styles whose writer sets them aside on the node."""
    found: dict[str, tuple[str, ...]] = {}

    def look(directory: str, pattern: str, text: str, styles: tuple[str, ...]) -> None:
        for name in tree.names(directory, pattern):
            path = f"{directory}/{name}"
            if tree.is_file(path) and re.search(text, tree.text(path), re.M | re.I):
                found[path] = styles

    look("etc/netplan", "*.yaml", rf"^[ \t]*(?:addresses|macaddress)[ \t]*:|{MAC}", ("netplan",))
    connection = r"^(?:mac-address|address\d?|interface-name)[ \t]*="
    look("etc/NetworkManager/system-connections", "*[!~]", connection, ("keyfile",))
    look("etc/sysconfig/network", "ifcfg-[!l]*", r"^[ \t]*(?:IPADDR|LLADDR)", ("wicked",))
    for directory, name in (("etc/network", "interfaces"), ("etc/network/interfaces.d", "*")):
        look(directory, name, _STATIC.pattern, ("ifupdown", "busybox", *_quieted(tree)))
    look("etc/conf.d", "net", r"^[ \t]*config_(?!lo)\w+=[ \t(\"']*\d", ("netifrc",))
    return found


def _quieted(tree: Tree) -> tuple[str, ...]:
    """Styles beside which nothing reads etc/network/interfaces, or whose writer comments it out."""
    return ("keyfile",) if inits.enabled(tree, "networking.service") else ("keyfile", "networkd", "netplan")


def _other_readers(tree: Tree, style: str) -> list[str]:
    """Files that some program reads whatever the style is."""
    found = []
    for name in tree.names(IFCFG, "ifcfg-*"):
        path = f"{IFCFG}/{name}"
        # NetworkManager of EL 8 and 9 reads these beside its keyfiles; the node's writer sets them aside in "ifcfg".
        if style != "ifcfg" and name != "ifcfg-lo" and _has(tree, path, r"^[ \t]*(?:IPADDR|HWADDR|MACADDR)\d*="):
            found.append(path)
    for name in tree.names("etc/systemd/network", "*.network"):
        path = f"etc/systemd/network/{name}"
        first = style == "networkd" and name < OWN  # the first file that matches a card counts (systemd.network(5))
        if name.startswith(OWN):
            continue
        if _has(tree, path, rf"^[ \t]*(?:Permanent)?MACAddress[ \t]*=.*{MAC}") or (
            first and _has(tree, path, r"^[ \t]*Name[ \t]*=")
        ):
            found.append(path)
    for name in tree.names("etc/udev/rules.d", "*.rules"):
        path = f"etc/udev/rules.d/{name}"
        if _has(tree, path, rf'ATTR\{{address\}}=="{MAC}".*NAME='):
            found.append(path)
    return found


def _has(tree: Tree, path: str, pattern: str) -> bool:
    return tree.is_file(path) and re.search(pattern, tree.text(path), re.M) is not None
