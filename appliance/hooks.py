"""Hooks: programs of the site that are told what happens to nodes.

An executable STATE/hooks.d/NAME is run at every event, STATE/hooks.d/EVENT/NAME at that one. It gets the event as its
first argument and one JSON object on its standard input.
"""

from __future__ import annotations

import os
import re
import stat
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.timeline import clean
from images.errors import GildError
from images.run import beside
from netboot.node import Event, Node, State

# Event -> when.
EVENTS = {
    "seen": "a machine asked for the first time",
    "waiting": "it stands in the waiting room and has shown its hardware",
    "approved": "it has a name, an address and a profile",
    "ordered": "an order to erase its disk was given",
    "cancelled": "the order was taken back",
    "expired": "nobody took the order up in its time",
    "installing": "it has taken its plan: its disk is being written",
    "installed": "written; its own system starts",
    "up": "its system has called home",
    "failed": "the installation failed",
    "lost": "it has said nothing for too long",
    "capturing": "its disk is being read for an image",
    "renamed": "its name or address has changed",
    "changed": "its profile or groups have changed",
    "removed": "it was forgotten",
}
# Whom a hook is told of that is tried out without a node; RFC 5737 has the address.
EXAMPLE = Node(0, State.UP, name="example", macs=("02:00:00:00:00:01",), address="192.0.2.1")
SECONDS = 60.0  # a hook may take
MOST_LINES = 20  # of a hook's output that are kept
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LOOK = 0.1  # seconds between two looks whether it is to be stopped
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")  # no file that an editor or dpkg has left: .x.swp, x~
_LEFT = (".bak", ".orig", ".rej", ".swp", ".dpkg-old", ".dpkg-dist", ".dpkg-new", ".rpmsave", ".rpmnew")


@dataclass(frozen=True)
class Hook:
    """One program. `event` is "" where it is run at all of them; `problem` says why it is not run at all."""

    path: Path
    event: str = ""
    problem: str = ""

    @property
    def name(self) -> str:
        """As people call it: up/10-dns."""
        return f"{self.event}/{self.path.name}" if self.event else self.path.name


@dataclass(frozen=True)
class Outcome:
    """How one run of a hook ended: `why` is empty if it did what it should. `seconds` it took."""

    why: str
    lines: tuple[str, ...]
    seconds: float


def found(folder: Path) -> list[Hook]:
    """All hooks in the order in which they are run: by name, whatever folder they are in."""
    hooks = []
    for event in ("", *EVENTS):
        try:
            entries = list(os.scandir(folder / event))
        except OSError:
            continue
        hooks += [
            Hook(Path(entry.path), event, problem(Path(entry.path))) for entry in entries if _is_one(entry, event)
        ]
    return sorted(hooks, key=lambda hook: (hook.path.name, hook.event))


def times(folder: Path, event: str) -> tuple[int, ...]:
    """When files last came to or went from the folders of an event, ns; empty where there is none."""
    found = []
    for each in (folder, folder / event):
        try:
            found.append(each.stat().st_mtime_ns)
        except OSError:
            continue
    return tuple(found)


def _is_one(entry: os.DirEntry[str], event: str) -> bool:
    if not event and entry.name in EVENTS and os.path.isdir(entry.path):  # DirEntry.is_dir() raises for looped links
        return False
    return bool(_NAME.fullmatch(entry.name)) and not entry.name.endswith(_LEFT)


def problem(path: Path) -> str:
    """Why the hook of that path is not run, "" if it is. Whoever may change it, or put another in its place, would be
    root by it: it, the two folders it lies in and, of a link, the folder that leads to are root's alone."""
    try:
        real = path.resolve(strict=True)
        status = real.stat()
        folders = {folder: folder.stat() for folder in (path.parent, path.parent.parent, real.parent)}
    except OSError as error:
        return error.strerror or "cannot be looked at"
    except RuntimeError:  # until Python 3.13, for links that lead in a circle
        return "leads in a circle"
    if stat.S_ISDIR(status.st_mode):
        return "is a folder, and no event is called that"
    if not stat.S_ISREG(status.st_mode) or not status.st_mode & 0o111:
        return "is not executable: chmod +x"
    if _is_open(status):
        return "can be changed by others than root: chown root, chmod go-w"
    for folder, its in folders.items():
        if _is_open(its):
            return f"can be replaced by others than root: chown root, chmod go-w {clean(str(folder))}"
    return ""


def _is_open(status: os.stat_result) -> bool:
    return bool(status.st_mode & 0o022) or status.st_uid not in (0, os.geteuid())


def run_hook(
    hook: Hook, event: str, told: bytes, stop: threading.Event, seconds: float = SECONDS, state: str = ""
) -> Outcome:
    """Run a hook to its end, at most `seconds`; then it is ended with all that it has started, as it is when `stop` is
    set. `told` is its input, `state` the state directory it finds in GILD_STATE; nothing else of the head's own
    environment is its affair. Never raises."""
    lines: list[str] = []
    why = problem(hook.path)  # it may have changed while it waited for its turn
    if why:
        return Outcome(why, (), 0.0)

    def keep(line: str) -> None:
        if len(lines) <= MOST_LINES:
            lines.append(clean(line) if len(lines) < MOST_LINES else "(more is left out)")

    begun = time.monotonic()
    try:
        env = {"PATH": PATH, "HOME": "/root", "GILD_STATE": state}
        with beside([str(hook.path), event], keep, input=told, env=env, bare=True, act=hook.name) as wait:
            code = None
            while code is None and time.monotonic() < begun + seconds and not stop.is_set():
                code = wait(LOOK)
    except (GildError, OSError, RuntimeError) as error:  # too many files, no more threads
        return Outcome(clean(str(getattr(error, "message", error))), tuple(lines), time.monotonic() - begun)
    if code is None:
        why = "was ended, as the head stops" if stop.is_set() else f"did not end within {seconds:.0f} s and was ended"
    else:
        why = "" if code == 0 else f"failed ({code})"
    return Outcome(why, tuple(lines), time.monotonic() - begun)


def happened(before: Node | None, after: Node | None, event: Event | None) -> str:
    """The event of EVENTS that a change of a node is, or "" for what nobody is told."""
    if before is None or after is None:
        return "seen" if after is not None else "removed"
    if event is None:
        if (before.name, before.address) != (after.name, after.address) and before.name and after.name:
            return "renamed"
        return "changed" if (before.profile, before.groups) != (after.profile, after.groups) else ""
    if event is Event.HELLO:
        return "waiting" if after.state is State.WAITING else ""
    if event in (Event.ORDERED, Event.CANCELLED, Event.EXPIRED):
        return event.value
    if before.state is after.state:
        return ""
    if event is Event.APPROVED:
        return "approved"
    return after.state.value if after.state.value in EVENTS else ""


def described(node: Node) -> dict[str, Any]:
    """A node as hooks are told of it."""
    return {
        "id": node.id, "name": node.name, "state": node.state.value, "address": node.address, "mac": node.mac,
        "macs": list(node.macs), "uuid": node.uuid, "serial": node.serial, "profile": node.profile,
        "groups": list(node.groups), "image": node.image, "reason": node.reason,
    }  # fmt: skip
