"""SELinux: a system that uses it needs a label on every file before it can start as it should."""

from __future__ import annotations

import os
import re

from images.checks import advice
from images.checks.check import Check, finding
from images.checks.subject import Subject
from images.tree import LABEL, Tree

PROBES = ("etc/passwd", "usr/bin/env", "usr/lib/os-release")
RELABEL = ".autorelabel"


def labels(tree: Tree, subject: Subject) -> list[Check]:
    """Files have labels, or the node is told to give them at its first start (`/.autorelabel`, fixfiles(8))."""
    config = tree.text("etc/selinux/config")
    mode = re.search(r"(?m)^SELINUX=(\w+)", config)
    kind = re.search(r"(?m)^SELINUXTYPE=([\w-]+)", config)
    if mode is None or mode[1] == "disabled" or kind is None:
        return []
    name = "SELinux labels"
    probes = [path for path in PROBES if tree.is_file(path)]
    if not probes or any(_labelled(tree, path) for path in probes):
        return [Check(name)]
    contexts = f"/etc/selinux/{kind[1]}/contexts/files/file_contexts"
    made = tree.write(RELABEL, "", 0o644)
    fix = (
        f"{'wrote' if made else 'the image has'} /{RELABEL}: each node labels its files at its first start and starts "
        f"again. To do it once for all: {advice.edit(f'setfiles -F {contexts} /')}, then remove that file"
    )
    return [finding(name, [f"none, and SELinux is {mode[1]}"], fix, "warning")]


def _labelled(tree: Tree, path: str) -> bool:
    try:
        return bool(os.getxattr(tree.place(path), LABEL, follow_symlinks=False))
    except OSError:
        return False
