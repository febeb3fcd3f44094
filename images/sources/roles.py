"""Which partition of a golden client is what: the root has etc and usr, and its fstab says where the others stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from images.errors import CommandFailed, SourceInvalid
from images.namespace import in_private_namespace, mounted
from images.partitions import Entry
from images.publish import Part
from images.sources import disktree
from images.sources.disklayout import Volume
from images.strip import inside
from images.superblock import Superblock

MAX_FSTAB = 1 << 16  # bytes


def with_roles(parts: Mapping[int, Part], partuuids: Mapping[int, str]) -> list[Part]:
    """The partitions that belong to the system among `parts` (by number on the disk), files of a private copy, with
    their roles and mount points; the root first. `partuuids` are their PARTUUIDs. Needs root.
    Raises SourceInvalid if none holds a system, or several do."""
    roots = in_private_namespace(
        lambda: {number: fstab for number, part in parts.items() if (fstab := _look(part)) is not None}
    )
    if len(roots) != 1:
        several = " and ".join(str(number) for number in roots)
        raise SourceInvalid(
            f"partitions {several} hold a system each"
            if roots
            else "no partition that can be read here holds a system",
            "give the disk by --disk, or capture the running machine",
        )
    ((number, fstab),) = roots.items()
    volumes = {
        key: Volume(Entry(key, 0, 0, "", partuuids.get(key, "")), Superblock(part.fs, part.uuid, part.label))
        for key, part in parts.items()
    }
    found = [replace(parts[number], role="root", mount="/")]
    places = disktree.places(disktree.lines(fstab), list(volumes.values()), volumes[number])
    for key, line in sorted(places.items()):
        if disktree.usable(line.mount):
            role = disktree.role(line.mount, [part.role for part in found])
            found.append(replace(parts[key], role=role, mount=line.mount))
    return found


def _look(part: Part) -> str | None:
    """The fstab of a system, None where there is none, or a filesystem this kernel does not know."""
    at = part.file.with_suffix(".look")
    at.mkdir()
    try:
        with mounted(part.file, at, read_only=True, options="nouuid" if part.fs == "xfs" else ""):
            if (at / "etc").is_symlink() or not (at / "etc").is_dir() or not (at / "usr").is_dir():
                return None
            return _fstab(at)
    except CommandFailed:
        return None
    finally:
        at.rmdir()


def _fstab(root: Path) -> str:
    path = inside(root, "etc/fstab")
    if path is None or path.is_symlink() or not path.is_file():
        return ""
    with path.open(errors="replace") as file:
        return file.read(MAX_FSTAB)
