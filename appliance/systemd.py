"""gild.service in its place: put there, looked at, taken away."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import stat
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from appliance import bundled
from appliance.errors import Environment, Wrong
from appliance.paths import Paths
from appliance.unit import NAME, TARGET, Unit, read, render
from images.disk import disk_errors
from images.run import run, tail

RUNS = "/run/systemd/system"  # there while systemd is init: sd_booted(3)
FOLDER = "etc/systemd/system"
GONE = ("/tmp/", "/var/tmp/", "/run/", "/dev/")  # what a service with PrivateTmp cannot see, or a reboot empties


@dataclass(frozen=True)
class Place:
    """The system that `root` is the root directory of: this one ("/"), or one that is being made."""

    root: Path

    @property
    def unit(self) -> Path:
        """The unit file."""
        return self.root / FOLDER / NAME

    @property
    def wanted(self) -> Path:
        """The link that starts it at boot."""
        return self.root / FOLDER / f"{TARGET}.wants" / NAME

    @property
    def runs(self) -> bool:
        """Whether it is this system and systemd runs here."""
        return self.root == Path("/") and Path(RUNS).is_dir()

    def text(self) -> str:
        """The unit file as it is, or "". Raises ImageError if it cannot be read."""
        with disk_errors(f"reading {self.unit}"):
            try:
                return self.unit.read_text(encoding="utf-8", errors="replace")
            except FileNotFoundError:
                return ""


def this(paths: Paths, flags: tuple[str, ...], captures: bool = False) -> Unit:
    """The unit for the file that runs now. Raises Environment for a checkout and for files that will not be there."""
    if not bundled.is_archive():
        raise Environment("this is a checkout, and a service runs the one file", "python3 build.py app")
    file, state = os.path.realpath(bundled.ROOT), os.path.realpath(paths.state)
    for path in (file, state, sys.executable):
        if f"{path}/".startswith(GONE):
            raise Environment(
                f"{path}: a service cannot use what lies there",
                "install -m 755 gild.pyz /usr/local/sbin/, and run that",
            )
    store = os.path.realpath(paths.images)
    writes = () if store.startswith(f"{state}/") else (store,)
    return Unit(sys.executable, file, state, flags, writes, captures)


def doubts(unit: Unit) -> list[str]:
    """What a careful person would change: files that root runs and others may write to. A line each."""
    found = []
    for path in (unit.file, unit.python):
        for each in (Path(path), *Path(path).parents):
            with contextlib.suppress(OSError):
                status = each.stat()
                owner = _owner(status.st_uid)
                if status.st_uid:
                    found.append(f"{each} belongs to {owner}, who can thereby become root: chown root {each}")
                elif status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
                    found.append(f"{each} can be changed by others than root: chmod go-w {each}")
    return list(dict.fromkeys(found))


def check(unit: Unit) -> None:
    """Let systemd read the unit, where its tools are installed. Raises Environment with what it says."""
    if shutil.which("systemd-analyze") is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / NAME
        path.write_text(render(unit))
        done = run(["systemd-analyze", "verify", "--man=no", str(path)], check=False, act="checking the unit")
    said = b"\n".join(line for line in done.stderr.splitlines() if NAME.encode() in line)
    if done.returncode or said:
        raise Environment(f"systemd does not take this unit: {tail(said or done.stderr)}", "is this systemd very old?")


def install(place: Place, unit: Unit) -> bool:
    """Write the unit and, where systemd runs, enable and start it; gives whether it was started. The state directory is
    made, for systemd mounts it. Raises Wrong for somebody else's gild.service, CommandFailed, NoSpace."""
    before = place.text()
    if before and read(before) is None:
        raise Wrong(f"{place.unit} was not written by gild", "move it away first")
    with disk_errors(f"writing {place.unit}"):
        for path in (unit.state, *unit.writes):
            (place.root / path.lstrip("/")).mkdir(mode=0o755, parents=True, exist_ok=True)
        place.unit.parent.mkdir(parents=True, exist_ok=True)
        fresh = place.unit.with_name(f".{NAME}.{os.getpid()}")
        try:
            with fresh.open("x") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(render(unit))
                file.flush()
                os.fsync(file.fileno())
            fresh.rename(place.unit)
        finally:
            fresh.unlink(missing_ok=True)
    if not place.runs:
        return False
    run(["systemctl", "daemon-reload"], act="starting the service")
    run(["systemctl", "enable", NAME], act="starting the service")
    run(["systemctl", "restart", NAME], act="starting the service", timeout=120)  # also one that runs already
    return True


def remove(place: Place) -> Unit:
    """Stop and disable it, and remove the unit; gives what it was. The state stays, unless it is an empty directory.
    Raises Wrong if there is none, or it is somebody else's."""
    text = place.text()
    if not text:
        raise Wrong(f"there is no {place.unit}", "is it another --root?")
    unit = read(text)
    if unit is None:
        raise Wrong(f"{place.unit} was not written by gild", "remove it by hand, if it is yours")
    if place.runs:
        run(["systemctl", "disable", "--now", NAME], act="stopping the service", timeout=120)
    with disk_errors(f"removing {place.unit}"):
        if place.wanted.is_symlink():
            place.wanted.unlink()
        place.unit.unlink()
    with contextlib.suppress(OSError):
        (place.root / unit.state.lstrip("/")).rmdir()
    if place.runs:
        run(["systemctl", "daemon-reload"], act="stopping the service")
    return unit


def active(place: Place) -> str:
    """What systemd says of it: active, failed, inactive, ...; "" where systemd does not run."""
    if not place.runs:
        return ""
    return tail(run(["systemctl", "is-active", NAME], check=False, act="asking systemd").stdout)


def _owner(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
