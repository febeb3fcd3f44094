"""What is mounted where: the lines about partitions of the node's layout, and no others."""

from __future__ import annotations

import re
from typing import Any

from images.edits import option
from images.tree import Tree, TreeInvalid

OPTIONS = {"mounts": 'list of objects: mount ("/", "/boot/efi", "swap" ...), fs, uuid'}
MAX_MOUNTS = 128
# umask: the ESP holds nothing for other users (systemd's random seed lies there); nofail: a damaged FAT must not keep a
# node from starting, since nothing needs the ESP once the kernel runs.
ESP = "umask=0077,nofail"
# A line that a layout without such a partition makes impossible: systemd would wait 90 s for it and give up booting.
ONE_MACHINE = re.compile(r"(?:UUID|PARTUUID|LABEL|PARTLABEL)=|/dev/")
_MOUNT = re.compile(r"swap|/[A-Za-z0-9._/-]*")
_FS = re.compile(r"[a-z0-9]{2,16}")
_UUID = re.compile(r"[0-9A-Fa-f-]{4,40}")
_FIELDS = re.compile(r"^(\s*)(\S+)(\s+)(\S+)(\s+)(\S+)(\s+)(\S+)(.*)$")


def apply(root: str, options: dict[str, Any]) -> list[str]:
    """Name the partitions in `mounts` by UUID in etc/fstab. Of a line that is there, only source, type and (for the
    ESP) options change; a missing one is added. Swap partitions and ESPs of another machine are commented out; every
    other line is kept byte for byte. Without `mounts` nothing is done. Raises OptionInvalid, TreeInvalid."""
    wanted = _wanted(options.get("mounts", []))
    if not wanted:
        return []
    tree = Tree(root)
    lines, told, seen = [], [], set[str]()
    for line in tree.text("etc/fstab").split("\n"):
        match = None if line.lstrip().startswith("#") else _FIELDS.match(line)
        if match is None:
            lines.append(line)
            continue
        source, fs = match[2], match[6]
        mount = "swap" if fs == "swap" else match[4].rstrip("/") or "/"
        if mount in wanted and mount not in seen and not (fs == "swap" and not ONE_MACHINE.match(source)):
            seen.add(mount)
            kind, uuid = wanted[mount]
            given = _esp_options(match[8]) if kind == "vfat" else match[8]
            new = f"{match[1]}UUID={uuid}{match[3]}{match[4]}{match[5]}{kind}{match[7]}{given}{match[9]}"
            lines.append(line if source == f"UUID={uuid}" and fs == kind and given == match[8] else new)
        elif ONE_MACHINE.match(source) and (fs == "swap" or (fs == "vfat" and _is_esp(mount))):
            lines.append(f"# not on this machine: {line}")
            told.append(f"fstab: {source[:60]} ({mount}) is not on this machine")
        else:
            if ONE_MACHINE.match(source) and "nofail" not in match[8] and "noauto" not in match[8]:
                told.append(
                    f"fstab: {source[:60]} for {mount[:60]} is kept; if this machine has none, it will not start"
                )
            lines.append(line)
    while lines and not lines[-1]:
        lines.pop()
    for mount, (kind, uuid) in wanted.items():
        if mount not in seen:
            lines.append(_line(mount, kind, uuid))
    if tree.write("etc/fstab", "\n".join(lines) + "\n", None if tree.is_file("etc/fstab") else 0o644):
        told.insert(0, f"fstab: {', '.join(wanted)} by UUID")
    _mount_points(tree, wanted)
    return told


def _wanted(mounts: Any) -> dict[str, tuple[str, str]]:
    """Mount point -> (fs, uuid), the root first."""
    if not isinstance(mounts, list | tuple) or len(mounts) > MAX_MOUNTS:
        raise option.OptionInvalid("edit fstab: mounts is not a list")
    found = {}
    for entry in mounts:
        if not isinstance(entry, dict):
            raise option.OptionInvalid("edit fstab: a mount is not an object")
        mount, fs, uuid = (option.text(entry, key, "fstab") for key in ("mount", "fs", "uuid"))
        for value, pattern in ((mount, _MOUNT), (fs, _FS), (uuid, _UUID)):
            if not pattern.fullmatch(value):
                raise option.OptionInvalid(f"edit fstab: {value[:60]!r} is not usable in fstab")
        found[mount] = (fs, uuid)
    return dict(sorted(found.items(), key=lambda item: (item[0] == "swap", item[0].count("/"), item[0])))


def _line(mount: str, fs: str, uuid: str) -> str:
    if fs == "swap":
        return f"UUID={uuid} none swap sw,nofail 0 0"
    if fs == "vfat":
        return f"UUID={uuid} {mount} vfat {ESP} 0 2"
    # XFS and btrfs check themselves when they are mounted (fsck.xfs(8), fsck.btrfs(8)).
    check = 0 if fs in ("xfs", "btrfs") else 1 if mount == "/" else 2
    return f"UUID={uuid} {mount} {fs} {'defaults,errors=remount-ro' if fs == 'ext4' else 'defaults'} 0 {check}"


def _esp_options(given: str) -> str:
    """Options of the ESP with what it must have; what else the image says stays."""
    kept = [word for word in given.split(",") if word not in ("defaults", "nofail") and not word.startswith("umask=")]
    return ",".join([*kept, ESP])


def _is_esp(mount: str) -> bool:
    return mount in ("/boot/efi", "/efi", "/boot")


def _mount_points(tree: Tree, wanted: dict[str, tuple[str, str]]) -> None:
    for mount in wanted:
        if mount.startswith("/") and not tree.is_dir(mount):
            if tree.lexists(mount):
                raise TreeInvalid(f"{mount} in the image is no directory and cannot be mounted on")
            tree.make_dir(mount)
