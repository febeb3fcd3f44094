"""The tree of a version, made ready for any machine: stripped, completed, and what was found said for the manifest."""

from __future__ import annotations

import os
import re
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from images import ext4, kernels, strip
from images.checks.all import run_checks
from images.checks.generic import make_generic
from images.checks.subject import UNKNOWN, Room, Subject
from images.checks.survey import survey
from images.distro.find import System, system_of
from images.errors import SourceInvalid
from images.options import CMDLINE
from images.publish import Facts
from images.tree import Tree, TreeInvalid

OS_RELEASE = re.compile(r"(?m)^(ID|ID_LIKE|VERSION_ID|VERSION_CODENAME|PRETTY_NAME)=[\"']?([^\"'\n]{0,200})[\"']?$")
FIELDS = {
    "ID": "id",
    "ID_LIKE": "like",
    "VERSION_ID": "version",
    "VERSION_CODENAME": "codename",
    "PRETTY_NAME": "pretty",
}
HOSTNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}")
MACHINES = {62: "amd64", 183: "arm64"}  # e_machine of ELF: EM_X86_64, EM_AARCH64
ROOT_UUID = re.compile(r"(?m)^\s*UUID=[\"']?([0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})[\"']?\s+/\s")


def prepare(
    tree: Path,
    *,
    uuid: str,
    fs: str = "ext4",
    mounts: Mapping[str, str] | None = None,
    message: str = "",
    source: dict[str, Any] | None = None,
    cmdline: str = CMDLINE,
    parent: int = 0,
) -> Facts:
    """Strip a tree, make its initramfs generic, give it a boot menu and a root line in fstab where it has none, and
    say what was found. `uuid` and `fs` are those of its root filesystem, `mounts` role -> mount point of its
    partitions. Raises SourceInvalid if it is no system, CommandFailed."""
    if not (tree / "etc").is_dir() or (tree / "etc").is_symlink() or not (tree / "usr").is_dir():
        raise SourceInvalid(f"{tree} has no etc and usr: it is not the root of a system")
    mounts = dict(mounts or {"root": "/"})
    inside, hostname = Tree(os.fspath(tree)), _hostname(tree)
    checks = strip.strip_tree(tree)
    system = _system(tree)
    found, made = make_generic(inside, kernels.kernels(tree), fs, system.family.name if system.family else "")
    checks += made
    subject = Subject(
        uuid=uuid,
        fs=fs,
        cmdline=cmdline,
        mounts=mounts,
        kernels=tuple(found),
        system=system,
        arch=_arch(tree),
        hostname=hostname,
        room=_room(tree, mounts),
        survey=survey(inside, time.time()),
    )
    checks += run_checks(inside, subject)
    return Facts(
        arch=subject.arch,
        cmdline=cmdline,
        system={**_os_release(tree), "kernels": [kernel.as_dict() for kernel in found], "mounts": mounts},
        checks=tuple(check.as_dict() for check in checks),
        source=source or {},
        message=message,
        parent=parent,
    )


def clamp_times(tree: Path, latest: float) -> None:
    """Set every time of a tree later than `latest` (seconds since 1970) to EPOCH. Raises OSError."""
    for directory, names, files in os.walk(tree, topdown=False):
        for path in (*(os.path.join(directory, name) for name in (*files, *names)), directory):
            if os.lstat(path).st_mtime > latest:
                os.utime(path, (ext4.EPOCH, ext4.EPOCH), follow_symlinks=False)


def root_uuid(tree: Path) -> str:
    """The UUID by which a tree's own fstab names its root filesystem, in lower case, or empty. Its boot menu names the
    same one, so that a filesystem made for the tree should have it."""
    path = strip.inside(tree, "etc/fstab")
    if path is None or path.is_symlink() or not path.is_file():
        return ""
    match = ROOT_UUID.search(path.read_text(errors="replace")[:65536])
    return match[1].lower() if match else ""


def _system(tree: Path) -> System:
    """The distribution, UNKNOWN for a tree whose files are not what they should be; a check names those."""
    try:
        return system_of(os.fspath(tree))
    except TreeInvalid:
        return UNKNOWN


def _hostname(tree: Path) -> str:
    """The first word of etc/hostname, if it is one of a machine."""
    try:
        words = Tree(os.fspath(tree)).text("etc/hostname", 4096).split()
    except TreeInvalid:
        return ""
    return words[0] if words and HOSTNAME.fullmatch(words[0]) and words[0] != "localhost" else ""


def _room(tree: Path, mounts: Mapping[str, str]) -> dict[str, Room]:
    """What is left on the filesystems of an image, by mount point. A tree that is not mounted gets a filesystem later,
    whose size is chosen to fit."""
    found = {}
    for mount in mounts.values():
        place = tree / mount.lstrip("/")
        if not place.is_symlink() and os.path.ismount(place):
            at = os.statvfs(place)
            inodes = at.f_favail / at.f_files if at.f_files else 1.0
            found[mount] = Room(at.f_blocks * at.f_frsize, at.f_bavail * at.f_frsize, inodes)
    return found


def _os_release(tree: Path) -> dict[str, str]:
    for name in ("etc/os-release", "usr/lib/os-release"):
        path = strip.inside(tree, name)
        if path is not None and path.is_file() and not path.is_symlink():
            found = OS_RELEASE.findall(path.read_text(errors="replace")[:65536])
            return {FIELDS[key]: value for key, value in found}
    return {}


def _arch(tree: Path) -> str:
    """Architecture of the tree's own programs, in Debian's words. Raises SourceInvalid if none can be read."""
    for name in ("usr/bin/env", "bin/busybox", "usr/bin/ls", "bin/ls", "usr/bin/bash", "bin/sh", "usr/bin/true"):
        path = strip.inside(tree, name)
        if path is None or path.is_symlink() or not path.is_file():
            continue
        with path.open("rb") as file:
            head = file.read(20)
        if head[:4] == b"\x7fELF" and len(head) == 20:
            machine = struct.unpack_from("<H", head, 18)[0]
            if machine not in MACHINES:
                raise SourceInvalid(f"{name} in the tree is for another kind of machine (ELF {machine})")
            return MACHINES[machine]
    raise SourceInvalid(f"{tree} has no program that tells its architecture", "give the root directory of a system")
