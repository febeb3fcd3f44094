"""A tiny system with a shell and a few programs that run: those of this machine, with their libraries."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from tests.images.tinytree import tiny_tree

PROGRAMS = (
    "sh",
    "cat",
    "sleep",
    "touch",
    "mkdir",
    "ls",
    "hostname",
    "rm",
    "ln",
    "chmod",
    "mount",
    "readlink",
    "setsid",
)


def shell_tree(root: Path) -> Path:
    """Make the tree at `root` and give it back: laid out like Debian, with bin and lib as links."""
    tiny_tree(root)
    for name in ("usr/sbin", "usr/lib64", "var/lib/dpkg", "proc", "sys", "run"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    for name in PROGRAMS:
        program = shutil.which(name)
        assert program, name
        shutil.copy(Path(program).resolve(), root / "usr/bin" / name)
        for library in re.findall(
            r"(/\S+) \(0x", subprocess.run(["ldd", program], capture_output=True, text=True).stdout
        ):
            place = root / library.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.exists():
                shutil.copy(library, place)
    return root
