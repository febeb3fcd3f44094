"""From the partitions a profile wants to exact partitions on one disk: one sum, on the head (preview) and the node."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from images.errors import GildError
from images.manifest import Manifest
from netboot.plan import DEFAULT_LAYOUT, LayoutPart

MIB = 1 << 20
# Every partition starts and ends on a MiB: a multiple of every sector, stripe and erase block in use, and what
# sfdisk, parted and Windows align to. The first MiB holds the GPT and is left free.
ALIGN = MIB
# The backup GPT at the end of the disk: 128 entries of 128 bytes and one header sector (UEFI 2.10, section 5.3).
GPT_ENTRIES = 128 * 128
MAX_PARTS = 128

# UEFI 2.10 section 5.3.3 and the UAPI group's Discoverable Partitions Specification. "linux" and "data" take the plain
# Linux type on purpose: the discoverable root type would let systemd mount it by itself beside what fstab says.
TYPES = {
    "bios": "21686148-6449-6E6F-744E-656564454649",
    "esp": "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
    "linux": "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
    "data": "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
    "swap": "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F",
    "home": "933AC7E1-2EB4-4F13-B844-0E14E2AEF915",
}
# What the installer can make; an image's own partition may be anything, it arrives ready made.
MAKES = ("", "vfat", "swap", "ext4", "xfs", "btrfs")
UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": MIB, "GiB": 1 << 30, "TiB": 1 << 40}
UNITS |= {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}

_SIZE = re.compile(r"([0-9]{1,15})\s*([A-Za-z]{0,3})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,35}")  # 36 UTF-16 units is all a GPT entry has
_MOUNT = re.compile(r"|swap|/|(/[A-Za-z0-9_][A-Za-z0-9._-]*){1,8}")


class LayoutFailed(GildError):
    """A layout contradicts itself, or does not fit on the disk; the message names the sizes."""


@dataclass(frozen=True)
class Placed:
    """One partition as it will stand on the disk. `start` and `size` are in the disk's logical sectors."""

    number: int
    part: LayoutPart
    start: int
    size: int
    sector: int  # bytes of one logical sector

    @property
    def bytes(self) -> int:
        """Size in bytes."""
        return self.size * self.sector

    @property
    def offset(self) -> int:
        """First byte on the disk."""
        return self.start * self.sector

    @property
    def type(self) -> str:
        """GPT type GUID, upper case."""
        return TYPES[self.part.kind]


def parse_size(text: str) -> int:
    """Bytes of "512MiB", "2 GiB", "100GB". Raises LayoutFailed."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or match[2] not in UNITS:
        raise LayoutFailed(f"{text[:40]!r} is not a size", 'write it as "512MiB", "20GiB", "ram" or "rest"')
    return int(match[1]) * UNITS[match[2]]


def check(parts: Sequence[LayoutPart]) -> None:
    """A layout that can be placed on some disk. Raises LayoutFailed naming the first thing wrong with it."""
    if len(parts) > MAX_PARTS:
        raise LayoutFailed(f"a layout of {len(parts)} partitions is more than a GPT holds ({MAX_PARTS})")
    if [part.kind for part in parts[:2]] != ["bios", "esp"]:
        raise LayoutFailed(
            "partition 1 of a layout must be of kind bios and partition 2 of kind esp",
            "the boot loader finds its configuration in partition 2, on BIOS and UEFI machines alike",
        )
    for number, part in enumerate(parts, 1):
        _check_part(number, part)
    for what in ("name", "mount", "role", "label"):
        seen = [value for part in parts if (value := getattr(part, what)) and value != "swap"]
        twice = sorted({value for value in seen if seen.count(value) > 1})
        if twice:
            raise LayoutFailed(f"two partitions of the layout have the {what} {twice[0]!r}")
    if sum(part.size == "rest" for part in parts) > 1:
        raise LayoutFailed('more than one partition wants "rest"', "give all but one a size")
    if sum(part.mount == "/" for part in parts) != 1:
        raise LayoutFailed('one partition of the layout, and only one, has to be mounted at "/"')


def place(
    parts: Sequence[LayoutPart],
    disk_size: int,
    memory: int,
    minimum: Mapping[str, int] | None = None,
    *,
    sector: int = 512,
) -> tuple[Placed, ...]:
    """Exact partitions for a disk of `disk_size` bytes in a machine with `memory` bytes of RAM.

    `minimum` says per role how many bytes the image's partition has: what fills it has to be at least that large.
    "ram" partitions give way down to their `low` when the disk is small, so that "rest" keeps at least half of what is
    to spare (else a root would be exactly as full as its image is); nothing else does. Raises LayoutFailed.
    """
    check(parts)
    if sector < 512 or sector & (sector - 1) or ALIGN % sector:
        raise LayoutFailed(f"a disk with sectors of {sector} bytes cannot be partitioned")
    need = dict(minimum or {})
    low = [_least(part, memory, need.get(part.role, 0) if part.role else 0) for part in parts]
    want = [max(floor, _wish(part, memory)) for part, floor in zip(parts, low, strict=True)]
    end = (disk_size - GPT_ENTRIES - sector) // ALIGN * ALIGN
    room = end - ALIGN
    if sum(low) > room:
        each = ", ".join(f"{part.name} {_text(size)}" for part, size in zip(parts, low, strict=True))
        raise LayoutFailed(
            f"the layout needs {_text(sum(low))} ({each}) and the disk has {_text(max(0, room))}",
            "use a larger disk, a smaller layout or an image with less in it",
        )
    sizes = _settle(parts, low, want, room)
    placed, at = [], ALIGN
    for number, (part, size) in enumerate(zip(parts, sizes, strict=True), 1):
        placed.append(Placed(number, part, at // sector, size // sector, sector))
        at += size
    return tuple(placed)


def check_whole(manifest: Manifest, disk_size: int, sector: int) -> None:
    """Whether an image of a whole disk can be written to a disk of so many bytes. Raises LayoutFailed."""
    size = manifest.partitions[0].size
    if size > disk_size:
        raise LayoutFailed(
            f"{manifest.ref} is a whole disk of {_text(size)} and the disk has {_text(disk_size)}",
            "use a disk at least as large: nothing in it can be made smaller",
        )
    if sector != 512:
        raise LayoutFailed(
            f"{manifest.ref} is a whole disk with sectors of 512 bytes and this one has {sector}",
            "import its partitions one by one, without --whole",
        )


def fitted(parts: Sequence[LayoutPart], manifest: Manifest) -> tuple[LayoutPart, ...]:
    """The layout with a place for every partition of an image. One the layout names no role for takes the place that
    is mounted where it belongs, or gets one of its own size: an image taken from a machine with a /boot of its own is
    installed without a word about it in the profile. A layout that the image's recipe suggests stands in for the
    default one, and for no other. Raises LayoutFailed."""
    wanted = list(_suggested(manifest) if tuple(parts) == DEFAULT_LAYOUT else parts)
    roles = {partition.role for partition in manifest.partitions}
    if missing := sorted(part.role for part in parts if part.role and part.role not in roles):
        raise LayoutFailed(f"{manifest.ref} has no partition {', '.join(missing)}, which the layout wants filled")
    for partition in manifest.partitions:
        role, mount = partition.role, manifest.mount(partition.role)
        if any(part.role == role for part in wanted):
            continue
        at = next((n for n, part in enumerate(wanted) if mount and part.mount == mount and not part.role), -1)
        if at >= 0:
            wanted[at] = replace(wanted[at], role=role, fs=partition.fs)
            continue
        rest = next((n for n, part in enumerate(wanted) if part.size == "rest"), len(wanted))
        size = f"{-(-partition.size // MIB)}MiB"
        kind = "home" if mount == "/home" else "linux"
        wanted.insert(rest, LayoutPart(role[:36], kind, size, fs=partition.fs, mount=mount, role=role))
    return tuple(wanted)


def _suggested(manifest: Manifest) -> tuple[LayoutPart, ...]:
    """The layout of the recipe an image was built from, completed by what every disk starts from; the default one if
    it has none. Raises LayoutFailed for one that cannot be."""
    rows = manifest.source.get("layout")
    if not isinstance(rows, list) or not rows:
        return DEFAULT_LAYOUT
    if not all(isinstance(row, dict) and all(isinstance(word, str) for word in row.values()) for row in rows):
        raise LayoutFailed(f"the layout in the recipe of {manifest.ref} cannot be read")
    return completed(rows)


def completed(rows: Sequence[Mapping[str, Any]]) -> tuple[LayoutPart, ...]:
    """A layout from tables of words such as a recipe's (name, size, mount; fs, kind, label, role, low, high as far as
    they are given): the two partitions every disk starts with go first, what follows from the mount point is filled
    in. Checks nothing."""
    begin = {part.kind: part for part in DEFAULT_LAYOUT[:2]}
    found = []
    for row in rows:
        mount = row.get("mount", "")
        usual = {"swap": "swap", "/home": "home", "/boot/efi": "esp"}.get(mount, "linux")
        part = LayoutPart(
            row.get("name", ""), row.get("kind") or usual, row.get("size", ""), row.get("fs", ""), mount,
            row.get("role") or ("root" if mount == "/" else ""), row.get("low", 0), row.get("high", 0),
            row.get("label", ""),
        )  # fmt: skip
        if part.kind in begin:
            begin[part.kind] = replace(part, fs=begin[part.kind].fs, mount=begin[part.kind].mount)
        elif part.kind == "swap":
            found.append(replace(part, fs="swap", mount="swap"))
        else:
            found.append(part if part.role else replace(part, fs=part.fs or "ext4"))
    return (*begin.values(), *found)


def script(placed: Sequence[Placed]) -> str:
    """The partitions as input of `sfdisk` (sfdisk(8), named-fields format), in logical sectors."""
    lines = ["label: gpt"]
    for p in placed:
        lines.append(f'{p.number} : start={p.start}, size={p.size}, type={p.type}, name="{p.part.name}"')
    return "\n".join(lines) + "\n"


def describe(placed: Sequence[Placed]) -> str:
    """One line for people: "bios 1 MiB, esp 128 MiB, swap 2.0 GiB, root 17.9 GiB"."""
    return ", ".join(f"{p.part.name} {_text(p.bytes)}" for p in placed)


def _check_part(number: int, part: LayoutPart) -> None:
    where = f"partition {number} of the layout"
    if not _NAME.fullmatch(part.name):
        raise LayoutFailed(f"{where} has the name {part.name[:40]!r}", "letters, digits, dot, dash; at most 36")
    where = f"partition {part.name!r} of the layout"
    if part.kind not in TYPES:
        raise LayoutFailed(f"{where} is of unknown kind {part.kind[:40]!r}", f"kinds are {', '.join(TYPES)}")
    if number > 2 and part.kind in ("bios", "esp"):
        raise LayoutFailed(f"{where} is a second one of kind {part.kind}")
    if part.fs not in MAKES and not part.role:
        raise LayoutFailed(
            f"{where} wants the filesystem {part.fs[:40]!r}", f"known are {', '.join(filter(None, MAKES))}"
        )
    if part.kind == "esp" and (part.fs != "vfat" or part.role):
        raise LayoutFailed(f"{where} has to be vfat, made on the node")
    if part.kind == "bios" and (part.fs or part.role or part.mount):
        raise LayoutFailed(f"{where} holds the boot loader and nothing else")
    if not _MOUNT.fullmatch(part.mount) or "/." in part.mount:
        raise LayoutFailed(f"{where} cannot be mounted at {part.mount[:40]!r}")
    if part.label and not _NAME.fullmatch(part.label):
        raise LayoutFailed(f"{where} has the label {part.label[:40]!r}", "letters, digits, dot, dash")
    if len(part.label) > (11 if part.fs == "vfat" else 12 if part.fs == "xfs" else 16):
        raise LayoutFailed(f"{where} has a label too long for {part.fs or 'it'}: {part.label!r}")
    if part.low < 0 or part.high < 0 or (part.high and part.high < part.low):
        raise LayoutFailed(f"{where} has the bounds {part.low} and {part.high}", "high may not be below low")
    if part.size not in ("ram", "rest") and parse_size(part.size) == 0:
        raise LayoutFailed(f"{where} has no size")


def _least(part: LayoutPart, memory: int, image: int) -> int:
    """The smallest size in bytes, aligned, with which the partition still does its work."""
    gives_way = part.size == "rest" or (part.size == "ram" and part.low)
    floor = part.low if gives_way else _wish(part, memory)
    if part.high and image > part.high:
        raise LayoutFailed(
            f"partition {part.name!r} may have {_text(part.high)} and the image needs {_text(image)} for it",
            "raise its upper bound",
        )
    if part.size not in ("ram", "rest") and image > floor:
        raise LayoutFailed(
            f"partition {part.name!r} is {_text(floor)} and the image needs {_text(image)} for it",
            'give it that size or "rest"',
        )
    return max(_up(max(floor, image)), ALIGN)


def _wish(part: LayoutPart, memory: int) -> int:
    """The size in bytes the partition would like, aligned; for "rest" nothing beyond its least."""
    if part.size == "rest":
        return 0
    size = memory if part.size == "ram" else parse_size(part.size)
    size = max(size, part.low)
    return _up(min(size, part.high) if part.high else size)


def _settle(parts: Sequence[LayoutPart], low: list[int], want: list[int], room: int) -> list[int]:
    """Sizes between `low` and `want` that fit into `room`; the partition with "rest" takes what remains."""
    sizes, spare = list(low), room - sum(low)
    elastic = spare // 2 // ALIGN * ALIGN if any(part.size == "rest" for part in parts) else spare
    for n in range(len(parts)):
        more = min(want[n] - low[n], elastic)
        sizes[n] += more
        spare -= more
        elastic -= more
    for n, part in enumerate(parts):
        if part.size == "rest":
            limit = part.high // ALIGN * ALIGN if part.high else sizes[n] + spare
            sizes[n] = max(sizes[n], min(sizes[n] + spare, limit))
    return sizes


def _up(size: int) -> int:
    return -(-size // ALIGN) * ALIGN


def _text(size: int) -> str:
    if size < 1 << 30:
        return f"{size / MIB:.0f} MiB"
    return f"{size / (1 << 30):.1f} GiB" if size < 1 << 40 else f"{size / (1 << 40):.2f} TiB"
