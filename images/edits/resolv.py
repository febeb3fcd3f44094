"""Where names are asked for, on systems that keep that in a plain file."""

from __future__ import annotations

from typing import Any

from images.distro import inits
from images.edits import option
from images.tree import Tree

OPTIONS = {"dns": "IPv4 addresses of name servers", "domain": "search domain, or empty"}


def apply(root: str, options: dict[str, Any]) -> list[str]:
    """Write etc/resolv.conf. A link there belongs to systemd-resolved, NetworkManager or resolvconf, which take the
    servers from the network configuration: it is neither followed nor replaced, unless it leads to systemd-resolved
    and that is not started. Raises OptionInvalid, TreeInvalid."""
    dns = option.addresses(options, "dns", "resolv")
    domain = option.domain(options, "domain", "resolv")
    tree = Tree(root)
    target = tree.link("etc/resolv.conf")
    if target and not ("systemd/resolve" in target and not inits.enabled(tree, "systemd-resolved.service")):
        return [f"resolv.conf is a link to {target[:80]} and stays"]
    if not dns:
        return []
    lines = [*([f"search {domain}"] if domain else []), *(f"nameserver {server}" for server in dns)]
    return ["resolv.conf written"] if tree.write("etc/resolv.conf", "\n".join(lines) + "\n", 0o644) else []
