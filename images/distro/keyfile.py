"""NetworkManager's keyfiles: EL 9 and later, Fedora, SLE 16, desktops. Never booted; read by NetworkManager 1.42."""

from __future__ import annotations

import re

from images.distro.family import Card
from images.tree import Tree

DIRECTORY = "etc/NetworkManager/system-connections"
_OLD = re.compile(r"(?m)^type\s*=\s*(?:ethernet|802-3-ethernet)\s*$")
_PORT = re.compile(r"(?m)^(?:master|controller)\s*=")


def write(tree: Tree, card: Card) -> list[str]:
    """A connection that matches by MAC. Other Ethernet connections of the image are set aside by the "~" behind their
    name that NetworkManager passes over, except ports of bonds and bridges. Raises TreeInvalid."""
    told = []
    for name in tree.names(DIRECTORY):
        if name.endswith("~") or name.startswith(".") or name == f"{card.name}.nmconnection":
            continue
        text = tree.text(f"{DIRECTORY}/{name}") if tree.is_file(f"{DIRECTORY}/{name}") else ""
        if _OLD.search(text) and not _PORT.search(text):
            tree.rename(f"{DIRECTORY}/{name}", f"{name}~")
            told.append(f"network: the image's connection {name} is set aside")
    lines = ["[connection]", f"id={card.name}", "type=ethernet", "autoconnect-priority=100", ""]
    lines += ["[ethernet]", f"mac-address={card.mac.upper()}", *([f"mtu={card.mtu}"] if card.mtu else []), ""]
    lines += ["[ipv4]", "method=manual"]
    lines += [f"address1={card.address}/{card.prefix}{f',{card.gateway}' if card.gateway else ''}"]
    lines += [f"route{n}={network},{router}" for n, (network, router) in enumerate(card.routes, 1)]
    lines += [f"dns={''.join(f'{server};' for server in card.dns)}"] if card.dns else []
    lines += [f"dns-search={card.domain};"] if card.domain else []
    # "disabled" is not known before 1.20; "ignore" leaves IPv6 to the kernel, in all versions (nm-settings-keyfile(5)).
    lines += ["", "[ipv6]", "method=ignore"]
    tree.make_dir(DIRECTORY, 0o755)
    # Any other mode is refused: "permissions (100644) are insecure" (measured, 1.42).
    if tree.write(f"{DIRECTORY}/{card.name}.nmconnection", "\n".join(lines) + "\n", 0o600, group=0):
        told.append(f"network: {DIRECTORY}/{card.name}.nmconnection")
    return told
