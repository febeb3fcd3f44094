"""What starts the system in a tree, and how a thing is enabled in it from outside."""

from __future__ import annotations

import re

from images.tree import Tree, TreeInvalid

UNIT_DIRS = ("etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system")


def init_of(tree: Tree) -> str:
    """ "systemd", "openrc", "runit" or "sysvinit"; "" for a tree that nothing starts (a container) or that is unknown.

    What /sbin/init is counts, not what is installed: a Debian with sysvinit keeps all of systemd's files, and its
    openssh-server brings etc/runit (measured on Debian 12).
    """
    if tree.lexists("sbin/init"):
        name = tree.resolve("sbin/init").rpartition("/")[2]
        known = {"systemd": "systemd", "runit-init": "runit", "openrc-init": "openrc"}
        if name in known:
            return known[name]
        if name in ("init", "busybox") or "sysv" in name:
            inittab = tree.text("etc/inittab")
            if re.search(r"(?m)^[^#\n]*\bopenrc\b", inittab):
                return "openrc"
            if tree.is_file("sbin/openrc") and tree.names("etc/runlevels/sysinit"):
                return "openrc"
            return "sysvinit" if inittab else ""
        return ""
    return "systemd" if any(tree.is_file(f"{lib}/systemd/systemd") for lib in ("usr/lib", "lib")) else ""


def unit_path(tree: Tree, unit: str) -> str:
    """Where the tree has the unit file, as a path in the running system ("/lib/systemd/system/x.service"), or ""."""
    for directory in UNIT_DIRS[1:]:
        if tree.is_file(f"{directory}/{unit}"):
            return f"/{directory}/{unit}"
    return f"/{UNIT_DIRS[0]}/{unit}" if tree.is_file(f"{UNIT_DIRS[0]}/{unit}") else ""


def enabled(tree: Tree, unit: str) -> bool:
    """Whether systemd starts the unit: linked below a .wants or .requires, or target of an alias, and not masked."""
    etc = UNIT_DIRS[0]
    own = f"{etc}/{unit}"
    if tree.link(own) == "/dev/null" or (tree.is_file(own) and not tree.link(own) and not tree.read(own)):
        return False
    for directory in UNIT_DIRS:
        for folder in (*tree.names(directory, "*.wants"), *tree.names(directory, "*.requires")):
            if tree.lexists(f"{directory}/{folder}/{unit}"):
                return True
    return any(tree.link(f"{etc}/{name}").rpartition("/")[2] == unit for name in tree.names(etc) if name != unit)


def enable(tree: Tree, unit: str, wanted_by: str, alias: str = "") -> bool:
    """Link the unit below the target `wanted_by`; a mask goes. Gives whether anything changed. Raises TreeInvalid if
    the tree has no such unit."""
    path = unit_path(tree, unit)
    if not path:
        raise TreeInvalid(f"the image has no unit {unit}")
    changed = tree.link(f"{UNIT_DIRS[0]}/{unit}") == "/dev/null" and tree.remove(f"{UNIT_DIRS[0]}/{unit}")
    changed |= tree.make_link(f"{UNIT_DIRS[0]}/{wanted_by}.wants/{unit}", path)
    if alias:
        changed |= tree.make_link(f"{UNIT_DIRS[0]}/{alias}", path)
    return changed


def disable(tree: Tree, unit: str) -> bool:
    """Take the links that enable the unit from etc/systemd/system. Gives whether there were any."""
    etc, changed = UNIT_DIRS[0], False
    for folder in (*tree.names(etc, "*.wants"), *tree.names(etc, "*.requires")):
        changed |= tree.remove(f"{etc}/{folder}/{unit}")
    return changed


def in_runlevel(tree: Tree, script: str) -> bool:
    """OpenRC: the script is in one of the runlevels."""
    return any(tree.lexists(f"etc/runlevels/{level}/{script}") for level in tree.names("etc/runlevels"))


def add_to_runlevel(tree: Tree, script: str, level: str) -> bool:
    """OpenRC: what `rc-update add` does. Gives whether anything changed."""
    if in_runlevel(tree, script):
        return False
    return tree.make_link(f"etc/runlevels/{level}/{script}", f"/etc/init.d/{script}")
