"""Which partition of a disk is mounted where, by the fstab of the system on it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from images.sources.disklayout import Volume
from images.superblock import Superblock

MAX_LINES = 1000  # of an fstab
ESP_MOUNTS = ("/boot/efi", "/efi", "/boot/EFI")
# Names the kernel gives to disks, and the number of a partition behind it.
_DEVICE = re.compile(r"/dev/((?:sd|vd|xvd|hd)[a-z]{1,3}|(?:nvme\d+n|mmcblk)\d+p)(\d{1,4})")
_BY = {"by-uuid": "UUID", "by-partuuid": "PARTUUID", "by-label": "LABEL", "by-partlabel": "PARTLABEL"}
_OCTAL = re.compile(r"\\([0-7]{3})")
# As the layout of a node takes a mount point.
_MOUNT = re.compile(r"(/[A-Za-z0-9_][A-Za-z0-9._-]*){1,8}")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of fstab: what is mounted, where ("swap" for swap), as what."""

    source: str
    mount: str
    fs: str


def lines(text: str) -> list[Line]:
    """The lines of an fstab, comments and nonsense left out (fstab(5): fields may hold \\040 for a space)."""
    found = []
    for row in text.splitlines()[:MAX_LINES]:
        words = [_OCTAL.sub(lambda match: chr(int(match[1], 8)), word) for word in row.split()]
        if len(words) >= 3 and not words[0].startswith("#"):
            mount = "swap" if words[2] == "swap" else words[1].rstrip("/") or "/"
            found.append(Line(words[0], mount, words[2]))
    return found


def places(table: Sequence[Line], volumes: Sequence[Volume], root: Volume) -> dict[int, Line]:
    """Partition number -> its line. `root` stands at "/", whatever its own line names. A filesystem that is mounted at
    several places (subvolumes) counts with the first; a name for a disk by the kernel (/dev/sda2) counts only if it can
    be no other disk than this one."""
    disks = {match[1] for line in table if (match := _DEVICE.fullmatch(line.source))}
    ours = {match[1] for line in table if line.mount == "/" and (match := _DEVICE.fullmatch(line.source))}
    ours = ours or (disks if len(disks) == 1 else set())
    found: dict[int, Line] = {}
    for line in table:
        if line.mount != "/":
            volume = _named(line.source, volumes, ours)
            if volume is not None and volume is not root:
                found.setdefault(volume.entry.number, line)
    return found


def usable(mount: str) -> bool:
    """Whether a partition of a node can be mounted there."""
    return bool(_MOUNT.fullmatch(mount)) and len(mount) <= 60


def role(mount: str, taken: Iterable[str]) -> str:
    """The name of a partition mounted there: "/boot" -> boot, "/var/lib/mysql" -> var-lib-mysql."""
    used = {*taken, "whole", "root"}
    name = re.sub(r"[^a-z0-9._-]", "-", mount.lower().strip("/")).lstrip("._-")[:50] or "data"
    names = (name, *(f"{name}-{number}" for number in range(2, len(used) + 3)))
    return next(free for free in names if free not in used)


def _named(source: str, volumes: Sequence[Volume], disks: set[str]) -> Volume | None:
    device = _DEVICE.fullmatch(source)
    if device:
        number = int(device[2]) if device[1] in disks else -1
        return next((volume for volume in volumes if volume.entry.number == number), None)
    key, _, value = source.partition("=")
    if source.startswith("/dev/disk/"):
        folder, _, value = source.removeprefix("/dev/disk/").partition("/")
        key, value = _BY.get(folder, ""), re.sub(r"\\x([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), value)
    value = value.strip("\"'")
    return next((volume for volume in volumes if value and _is(volume, key, value)), None)


def _is(volume: Volume, key: str, value: str) -> bool:
    found, entry = volume.found or Superblock(""), volume.entry
    if key == "UUID":
        return found.uuid.lower() == value.lower()
    if key == "PARTUUID":
        return entry.uuid == value.lower()
    return (key == "LABEL" and found.label == value) or (key == "PARTLABEL" and entry.name == value)
