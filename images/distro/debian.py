"""Debian, Ubuntu and their kin: ifupdown, netplan, systemd-networkd or NetworkManager."""

from __future__ import annotations

import re

from images.distro import inits, networkd
from images.distro.family import Card, Family, Release
from images.tree import Tree

INTERFACES = "etc/network/interfaces"
_STANZA = re.compile(r"(auto|allow-\S+|iface|mapping|source|source-directory|no-\S+)\s+(.*)")
_CARD = re.compile(r"(?:en|eth|wl|lan)[a-z0-9]+")
GENERATORS = ("usr/sbin/netplan", "usr/libexec/netplan/generate", "usr/lib/netplan/generate")
MARK = "# gild: "


def network(tree: Tree, init: str, release: Release) -> str:
    """The style that counts in this tree. Debian enables nothing by itself in a minimal system: then networkd, which
    comes with systemd, is what there is."""
    netplan = any(tree.is_file(path) for path in GENERATORS)
    if netplan and (tree.names("etc/netplan", "*.yaml") or release.id == "ubuntu"):
        return "netplan"
    if init == "systemd":
        nm = inits.enabled(tree, "NetworkManager.service")
        ifupdown = inits.enabled(tree, "networking.service") and _is_ifupdown(tree)
        if nm and ifupdown:
            # NetworkManager passes over every card that etc/network/interfaces names (its ifupdown plugin).
            return "ifupdown" if _named(tree) else "keyfile"
        if nm:
            return "keyfile"
        if inits.enabled(tree, "systemd-networkd.service"):
            return "networkd"
        if ifupdown:
            return "ifupdown"
        if netplan:
            return "netplan"
        return "networkd" if networkd.installed(tree) else ""
    if init == "openrc" and inits.in_runlevel(tree, "NetworkManager"):
        return "keyfile"
    return "ifupdown" if _is_ifupdown(tree) else ""


def ifupdown(tree: Tree, card: Card) -> list[str]:
    """A stanza of its own in interfaces.d; stanzas about the image's other cards are commented out, since a card that
    this machine lacks makes networking.service fail. Raises TreeInvalid."""
    told = quiet(tree, card.name)
    own = f"{INTERFACES}.d/{card.name}"
    text = tree.text(INTERFACES)
    if not re.search(r"(?m)^\s*source(?:-directory)?\s+(?:/etc/network/)?interfaces\.d(?:/\*)?\s*$", text):
        lines = text.rstrip("\n").split("\n") if text.strip() else ["auto lo", "iface lo inet loopback", ""]
        tree.write(INTERFACES, "\n".join([*lines, "source /etc/network/interfaces.d/*", ""]))
    lines = [f"auto {card.name}", f"iface {card.name} inet static", f"    address {card.address}/{card.prefix}"]
    lines += [f"    gateway {card.gateway}"] if card.gateway else []
    lines += [f"    mtu {card.mtu}"] if card.mtu else []
    lines += [f"    up ip route replace {network} via {router} dev {card.name}" for network, router in card.routes]
    lines += [f"    dns-nameservers {' '.join(card.dns)}"] if card.dns else []  # read where resolvconf is installed
    lines += [f"    dns-search {card.domain}"] if card.domain else []
    return [*told, f"network: {own}"] if tree.write(own, "\n".join(lines) + "\n", 0o644) else told


def quiet(tree: Tree, keep: str = "") -> list[str]:
    """Comment out what interfaces files say of Ethernet cards other than `keep`. Gives log lines."""
    told = []
    for path in (INTERFACES, *(f"{INTERFACES}.d/{name}" for name in tree.names(f"{INTERFACES}.d"))):
        if not tree.is_file(path) or (keep and path == f"{INTERFACES}.d/{keep}"):
            continue
        text = tree.text(path)
        lines, gone = [], False
        for line in text.split("\n"):
            match = _STANZA.match(line.strip())
            if match:
                words = match[2].split()
                gone = (
                    bool(words)
                    and match[1] not in ("source", "source-directory")
                    and all(_CARD.fullmatch(word) for word in (words[:1] if match[1] == "iface" else words))
                )
            lines.append(MARK + line if gone and line.strip() and not line.lstrip().startswith("#") else line)
        if tree.write(path, "\n".join(lines)):
            told.append(f"network: the image's own cards in {path} are commented out")
    return told


def netplan(tree: Tree, card: Card) -> list[str]:
    """One YAML file. All others are set aside: netplan merges files and joins their lists, so that another address
    would be added to ours (netplan-generate(8)). Raises TreeInvalid."""
    told = []
    own = "60-gild.yaml"
    for name in tree.names("etc/netplan", "*.yaml"):
        if name != own:
            tree.rename(f"etc/netplan/{name}", f"{name}.image")
            told.append(f"network: etc/netplan/{name} is set aside")
    # In quotes, as JSON has them: a MAC of digits alone is a number of base 60 in YAML 1.1.
    lines = ["network:", "  version: 2", "  ethernets:", f"    {card.name}:"]
    lines += ["      match:", f'        macaddress: "{card.mac}"', f"      set-name: {card.name}"]
    lines += ["      dhcp4: false", "      dhcp6: false", "      accept-ra: false"]
    lines += [f'      addresses: ["{card.address}/{card.prefix}"]']
    lines += [f"      mtu: {card.mtu}"] if card.mtu else []
    routes = [*([("default", card.gateway)] if card.gateway else []), *card.routes]
    lines += ["      routes:"] if routes else []
    for network, router in routes:
        lines += [f'        - to: "{network}"', f'          via: "{router}"']
    if card.dns:
        lines += ["      nameservers:", f"        addresses: [{', '.join(card.dns)}]"]
        lines += [f'        search: ["{card.domain}"]'] if card.domain else []
    if tree.write(f"etc/netplan/{own}", "\n".join(lines) + "\n", 0o600, group=0):
        told.append(f"network: etc/netplan/{own}")
    if not inits.enabled(tree, "NetworkManager.service") and not inits.enabled(tree, "systemd-networkd.service"):
        for unit, (target, alias) in networkd.LINKS.items():
            if inits.unit_path(tree, unit):
                inits.enable(tree, unit, target, alias)
    return told


def _is_ifupdown(tree: Tree) -> bool:
    return tree.is_file("sbin/ifup") or tree.is_file("usr/sbin/ifup")


def _named(tree: Tree) -> bool:
    """An interfaces file names a card other than lo."""
    paths = (INTERFACES, *(f"{INTERFACES}.d/{name}" for name in tree.names(f"{INTERFACES}.d")))
    texts = (tree.text(path) for path in paths if tree.is_file(path))
    return any(re.search(r"(?m)^\s*iface\s+(?!lo\s)\S+", text) for text in texts)


FAMILY = Family(
    name="debian",
    ids=("debian", "ubuntu", "raspbian"),
    markers=("etc/debian_version",),
    network=network,
    vendors={"ubuntu": "ubuntu"},
    shim=("usr/lib/shim/shimx64.efi.signed", "usr/lib/shim/shimx64.efi.signed.latest"),
    grub=("usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",),
    mok=("usr/lib/shim/mmx64.efi.signed", "usr/lib/shim/mmx64.efi"),
)
