"""Run one of a tree's own programs in the tree, as its system would, and keep what it says for the error message.

What `chroot` gives a person's shell, this gives a program that only the head wants to run: processes, mounts and
devices of its own, nothing of the head's in reach, nothing left behind.
"""

from __future__ import annotations

import json
import os
import pkgutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from images.errors import CommandFailed
from images.run import run

# FAKECHROOT: ischroot(1) believes it. Inside it looks like a system of its own, and initramfs-tools would write the
# head's swap partition, which /proc/swaps shows, into the initramfs as the one to resume from (hooks/resume).
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "FAKECHROOT": "true",
}
PLAN, TROUBLE = 8, 9  # the plan, which came as stdin, and a second name for stderr that the program does not inherit
LOADER = f"import os, sys; os.dup2(0, {PLAN}); os.dup2(os.open('/dev/null', 0), 0); os.dup2(2, {TROUBLE}); "
LOADER += "exec(sys.argv.pop())"


def within(root: Path, argv: Sequence[str], *, act: str, env: Mapping[str, str] | None = None, timeout: float) -> bytes:
    """Run `argv` in the tree at `root`, with /dev, /proc, /sys and /run as in a running system, and give what it
    printed. `env` is added to a clean environment; `timeout` is in seconds, after which it and all it started is
    ended. The tree must have the directories to mount on (`images.strip` makes them). Needs root. Raises
    CommandFailed."""
    source = pkgutil.get_data("images.editing", "chrootinit.py")
    assert source is not None, "it lies beside this file"
    plan = {
        "root": os.fspath(root),
        "argv": list(argv),
        "env": {**ENVIRONMENT, **(env or {})},
        "cwd": "/",
        "hostname": "localhost",
        "disks": [],
        "files": {},
        "terminal": False,
        "trouble": TROUBLE,
        "parent": os.getpid(),
    }
    program = [sys.executable, "-I", "-S", "-c", LOADER, str(PLAN), source.decode()]
    try:
        return run(program, input=json.dumps(plan).encode(), timeout=timeout, act=act).stdout
    except CommandFailed as error:
        raise CommandFailed(error.message.replace(sys.executable, argv[0])) from None
