"""The machine's name, everywhere a system looks for it."""

from __future__ import annotations

import re
from typing import Any

from images.edits import option
from images.tree import Tree

OPTIONS = {"name": "host name without domain", "domain": "domain, or empty"}


def apply(root: str, options: dict[str, Any]) -> list[str]:
    """Write etc/hostname (hostname(5): the short name) and what older systems read instead: Gentoo's conf.d/hostname,
    etc/HOSTNAME of old SUSE, HOSTNAME= in etc/sysconfig/network. Raises OptionInvalid, TreeInvalid."""
    name = option.host_name(options, "name", "hostname")
    option.domain(options, "domain", "hostname")
    tree = Tree(root)
    changed = [path for path in ("etc/hostname",) if tree.write(path, name + "\n", 0o644)]
    if tree.is_file("etc/HOSTNAME") and not tree.link("etc/HOSTNAME"):
        changed += ["etc/HOSTNAME"] if tree.write("etc/HOSTNAME", name + "\n") else []
    for path, key, line in (
        ("etc/conf.d/hostname", "hostname", f'hostname="{name}"'),
        ("etc/sysconfig/network", "HOSTNAME", f"HOSTNAME={name}"),
    ):
        if tree.is_file(path):
            text = tree.text(path)
            new = re.sub(rf"(?m)^\s*{key}=.*$", line, text)
            # EL6 and Gentoo read the key only from there; where it is not used, it is not added.
            if new != text and tree.write(path, new):
                changed.append(path)
    return [f"hostname {name} ({', '.join(changed)})"] if changed else []
