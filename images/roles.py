"""Which partition of a disk is what: the root has etc and usr, and its fstab says where the others stand."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from images.errors import CommandFailed, SourceInvalid
from images.namespace import in_private_namespace, mounted
from images.publish import Part
from images.strip import inside

MAX_FSTAB = 1 << 16  # bytes
_LINE = re.compile(r"^\s*([^#\s]\S*)\s+(/\S*)\s")
_POINT = re.compile(r"(?:/[A-Za-z0-9_][A-Za-z0-9._-]*){1,8}")
_NAME = re.compile(r"(UUID|PARTUUID|LABEL|PARTLABEL)=[\"']?([^\"']+)[\"']?")


def with_roles(parts: Sequence[Part], partuuids: Mapping[str, str] | None = None) -> list[Part]:
    """The partitions that belong to the system among `parts`, files of a private copy, with their roles and mount
    points; the root first. `partuuids` are PARTUUIDs by the role they have now. Needs root.
    Raises SourceInvalid if none holds a system, or several do."""
    return in_private_namespace(lambda: _with_roles(parts, partuuids or {}))


def role_of(mount: str) -> str:
    """The role of a partition by its mount point: "/boot" is boot, "/var/log" var-log, "/" root."""
    return mount.strip("/").replace("/", "-").lower() or "root"


def _with_roles(parts: Sequence[Part], partuuids: Mapping[str, str]) -> list[Part]:
    roots: list[tuple[Part, str]] = []
    for part in parts:
        at = part.file.with_suffix(".look")
        at.mkdir()
        try:
            with mounted(part.file, at, read_only=True, options="nouuid" if part.fs == "xfs" else ""):
                if (at / "etc").is_dir() and (at / "usr").is_dir() and not (at / "etc").is_symlink():
                    roots.append((part, _fstab(at)))
        except CommandFailed:
            continue  # a filesystem this kernel does not know: it is not the root
        finally:
            at.rmdir()
    if len(roots) != 1:
        several = ", ".join(part.role for part, _ in roots)
        raise SourceInvalid(
            f"{several} hold a system each" if roots else "no partition that can be read here holds a system",
            "give the partition itself, or keep the disk bit for bit: --whole",
        )
    root, fstab = roots[0]
    found = [replace(root, role="root", mount="/")]
    for part in parts:
        mount = _mount(part, partuuids.get(part.role, ""), fstab)
        if part is not root and mount and mount not in [other.mount for other in found]:
            found.append(replace(part, role=role_of(mount), mount=mount))
    return found


def _mount(part: Part, partuuid: str, fstab: str) -> str:
    known = {"UUID": part.uuid, "LABEL": part.label, "PARTUUID": partuuid}
    for line in fstab.splitlines():
        match = _LINE.match(line)
        name = _NAME.fullmatch(match[1]) if match else None
        if match and name and known.get(name[1]) and known[name[1]].lower() == name[2].lower():
            point = match[2].rstrip("/")
            return point if _POINT.fullmatch(point) and ".." not in point else ""
    return ""


def _fstab(root: Path) -> str:
    path = inside(root, "etc/fstab")
    if path is None or path.is_symlink() or not path.is_file():
        return ""
    with path.open(errors="replace") as file:
        return file.read(MAX_FSTAB)
