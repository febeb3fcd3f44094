"""The site's own scripts: before the disk is touched, in the installer; and in the written tree, as its own root.

What they say stands on the timeline as it comes. One that fails or takes too long ends the installation.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import images
from images.editing import chrootinit
from images.errors import CommandFailed, GildError, ToolMissing
from images.run import stream
from images.tree import Tree
from netboot.plan import InstallPlan, Script

MAX_LINES = 500  # of one script; more would push everything else off the timeline
MAX_LINE = 300  # characters
MAX_SCRIPTS = 128
MAX_SECONDS = 86400
SIGN_OF_LIFE = 60.0  # seconds between two lines about a script that says nothing
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What the tree must have to be mounted on, and usually has.
MOUNT_POINTS = ("dev", "proc", "sys", "run", "tmp")
# Starts the program that makes the chroot, its plan being a file; a second name for its output, which the script does
# not inherit, is where it says why it could not.
START = (
    "import os, runpy, sys; os.dup2(os.open(sys.argv[1], 0), 8); os.dup2(1, 9); os.unlink(sys.argv[1]); "
    f"sys.argv[1:] = ['8']; runpy.run_module('{chrootinit.__name__}', run_name='__main__')"
)
TROUBLE = 9
_NAME = re.compile(r"(pre|post)\.d/[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PYTHON = re.compile(r"python3?(\.[0-9]+)?")


class ScriptFailed(GildError):
    """A script of the profile ended with an error; the message has its name and its last words."""


def before(plan: InstallPlan, disk: str, folder: str, log: Callable[[str], None]) -> None:
    """Run the scripts that come before anything is erased, here. `disk` is the device that will be written, `folder`
    where files can lie meanwhile. Raises ScriptFailed."""
    for script in _checked(plan.pre):
        path = _put(script, folder)
        argv = [*interpreter(script.content, sys.executable), path]
        _run(script, argv, {**environment(plan, disk), "GILD_STAGE": "pre"}, log)
        os.unlink(path)


def after(plan: InstallPlan, disk: str, root: str, folder: str, log: Callable[[str], None]) -> None:
    """Run the scripts that belong into the tree mounted at `root`, in it: with its programs, /dev without disks, and a
    /proc, /sys and /run of its own. Whatever a script leaves running ends with it. Raises ScriptFailed."""
    scripts = _checked(plan.post)
    for name in MOUNT_POINTS if scripts else ():
        Tree(root).make_dir(name)
    for script in scripts:
        inside = f"/run/{os.path.basename(script.name)}"
        told = {
            "root": root,
            "argv": [*interpreter(script.content), inside],
            "env": {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "SYSTEMD_OFFLINE": "1",
                    "DEBIAN_FRONTEND": "noninteractive", "FAKECHROOT": "true", **environment(plan, disk),
                    "GILD_STAGE": "post"},
            "cwd": "/",
            "hostname": plan.node,
            "disks": [],
            "files": {inside: script.content},
            "terminal": False,
            "trouble": TROUBLE,
            "parent": os.getpid(),
        }  # fmt: skip
        file = _write(folder, "script.json", json.dumps(told))
        argv = [sys.executable, "-P", "-S", "-s", "-c", START, file]
        where = os.path.dirname(os.path.dirname(os.path.abspath(images.__file__)))
        _run(script, argv, {"PYTHONPATH": where, "PYTHONDONTWRITEBYTECODE": "1"}, log)


def environment(plan: InstallPlan, disk: str) -> dict[str, str]:
    """What a script can know of what is going on."""
    return {
        "GILD_NODE": plan.node,
        "GILD_IMAGE": plan.image,
        "GILD_PROFILE": plan.profile,
        "GILD_ADDRESS": plan.network.address,
        "GILD_MAC": plan.network.mac,
        "GILD_DOMAIN": plan.network.domain,
        "GILD_DISK": disk,
        "GILD_ORDER": plan.order,
    }


def interpreter(content: str, python: str = "") -> list[str]:
    """The words of a script's first line (execve(2): the interpreter and at most one argument). In the installer a
    Python of any name is `python`, the only one there. Raises ScriptFailed."""
    first = content.split("\n", 1)[0].strip()
    words = first[2:].strip().split(None, 1) if first.startswith("#!") else []
    if not words or not words[0].startswith("/"):
        raise ScriptFailed("a script does not begin with the name of its interpreter", "such as #!/bin/sh")
    last = words[-1] if words[0].endswith("/env") else words[0]
    if python and _PYTHON.fullmatch(os.path.basename(last)):
        return [python]
    return words


def _checked(scripts: Sequence[Script]) -> Sequence[Script]:
    if len(scripts) > MAX_SCRIPTS:
        raise ScriptFailed(f"the plan has {len(scripts)} scripts, at most {MAX_SCRIPTS} make sense")
    for script in scripts:
        if not _NAME.fullmatch(script.name) or not 0 < script.seconds <= MAX_SECONDS:
            raise ScriptFailed(f"the plan has a script {script.name[:80]!r} of {script.seconds} s, which cannot be")
    return scripts


def _put(script: Script, folder: str) -> str:
    return _write(folder, os.path.basename(script.name), script.content, 0o700)


def _write(folder: str, name: str, text: str, mode: int = 0o600) -> str:
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, name)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def _run(script: Script, argv: list[str], env: Mapping[str, str], log: Callable[[str], None]) -> None:
    said, last = 0, ""

    def line(text: str) -> None:
        nonlocal said, last
        text = "".join(c if c.isprintable() else " " for c in text)[:MAX_LINE].strip()
        if not text:
            return
        last, said = text, said + 1
        if said <= MAX_LINES:
            log(f"{script.name}: {text}")
        elif said == MAX_LINES + 1:
            log(f"{script.name} says more than {MAX_LINES} lines; the rest is left out")

    log(f"{script.name} of profile {script.profile} runs")
    over, begun = threading.Event(), time.monotonic()

    def assure() -> None:
        # The head takes an installer that says nothing for five minutes for lost (netboot.node.TIMEOUTS).
        while not over.wait(SIGN_OF_LIFE):
            with contextlib.suppress(GildError):
                log(f"{script.name} has been running for {time.monotonic() - begun:.0f} s")

    threading.Thread(target=assure, name="script", daemon=True).start()
    try:
        stream(argv, line, env=env, timeout=script.seconds, act=script.name)
    except (CommandFailed, ToolMissing) as error:
        why = re.search(r"failed \((-?\d+)\)", error.message)
        if "did not end within" in error.message:
            reason = f"did not end within {script.seconds} s"
        elif why:
            reason = f"failed ({why[1]})"
        else:
            reason = f"cannot be started: {error.message}"
        raise ScriptFailed(
            f"script {script.name} of profile {script.profile} {reason}{f': {last}' if last else ''}",
            f"it lies on the head in profiles/{script.profile}/{script.name}",
        ) from None
    finally:
        over.set()
