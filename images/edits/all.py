"""The edits by name, as plans and profiles name them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from images.edits import call_home, files, fstab, host_keys, hostname, hosts, machine_id, network, origin, resolv
from images.errors import GildError

Apply = Callable[[str, dict[str, Any]], list[str]]

EDITS: dict[str, tuple[dict[str, str], Apply]] = {
    "hostname": (hostname.OPTIONS, hostname.apply),
    "hosts": (hosts.OPTIONS, hosts.apply),
    "network": (network.OPTIONS, network.apply),
    "resolv": (resolv.OPTIONS, resolv.apply),
    "machine_id": (machine_id.OPTIONS, machine_id.apply),
    "host_keys": (host_keys.OPTIONS, host_keys.apply),
    "origin": (origin.OPTIONS, origin.apply),
    "fstab": (fstab.OPTIONS, fstab.apply),
    "files": (files.OPTIONS, files.apply),
    "call_home": (call_home.OPTIONS, call_home.apply),
}


def apply(name: str, root: str, options: dict[str, Any]) -> list[str]:
    """Apply the edit `name` to the tree at `root`; gives log lines. Raises GildError for an unknown edit or option,
    and whatever the edit raises, always naming the edit or the file."""
    if name not in EDITS:
        raise GildError(f"there is no edit {name[:40]!r}", f"edits are {', '.join(EDITS)}")
    known, edit = EDITS[name]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise GildError(f"edit {name} has no option {unknown[0][:40]!r}", f"its options are {', '.join(known)}")
    return edit(root, options)
