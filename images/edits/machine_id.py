"""One identity per machine, for systemd, D-Bus, DHCP client ids and journals."""

from __future__ import annotations

import re
from typing import Any

from images.edits import option
from images.tree import Tree

OPTIONS = {"id": "32 hexadecimal digits"}
# machine-id(5): not all zeros, and of the form of a UUID without dashes.
_ID = re.compile(r"(?!0{32})[0-9a-f]{32}")
_OLD = re.compile(r"[0-9a-f]{32}")


def apply(root: str, options: dict[str, Any]) -> list[str]:
    """Write etc/machine-id and make D-Bus's own a link to it. The id is a real one: systemd applies presets to all
    units, and starts a second network manager, if it finds none or "uninitialized" (machine-id(5)).

    Kernel entries that are named after the image's id keep their names: etc/kernel/entry-token then says so to the next
    kernel-install(8). Raises OptionInvalid, TreeInvalid."""
    value = option.text(options, "id", "machine_id").lower()
    if not _ID.fullmatch(value):
        raise option.OptionInvalid(f"edit machine_id: {value[:40]!r} is not a machine id", "32 hexadecimal digits")
    tree = Tree(root)
    lines = []
    tokens = {name.partition("-")[0] for name in tree.names("boot/loader/entries", "*.conf")}
    named = sorted(token for token in tokens if _OLD.fullmatch(token) and token != value)
    if named and not tree.read("etc/kernel/entry-token").strip():
        tree.write("etc/kernel/entry-token", named[0] + "\n", 0o644)
        lines.append(f"kernel entries keep the name {named[0]}")
    if tree.write("etc/machine-id", value + "\n", 0o444):
        lines.append("machine-id written")
    # A regular file there would be taken over by systemd if etc/machine-id were ever emptied.
    if tree.is_dir("var/lib/dbus") and tree.make_link("var/lib/dbus/machine-id", "/etc/machine-id"):
        lines.append("D-Bus uses the same machine-id")
    return lines
