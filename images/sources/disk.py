"""A disk becomes a version: each partition of the system on it one by one, or all of it bit for bit.

Of a partition only the used blocks are copied, and everything that repairs, mounts or replays a journal works on that
copy: the disk itself is only read.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from images import ext4, working
from images.errors import CommandFailed, NoSpace, SourceInvalid
from images.manifest import WHOLE, Manifest
from images.namespace import in_private_namespace, mounted
from images.options import Options
from images.partitions import TableInvalid, read_table
from images.publish import Part
from images.run import run
from images.sources.diskfile import Disk, free_space, opened, plain
from images.sources.disklayout import AS_IT_IS, SECTOR, Layout, Volume, look, number_of, volumes_of
from images.sources.disktree import ESP_MOUNTS, lines, places, role, usable
from images.store import Store
from images.tree import Tree
from images.usedmap import data_extents, overlap, used_map

PIECE = 1 << 20
TREES = ("ext4", "xfs", "btrfs", "ext3", "ext2", "f2fs")  # filesystems that can hold the root of a system
MADE_BY_NODE = {"esp": "EFI system partition", "bios": "boot loader's partition", "prep": "boot loader's partition"}
SUBVOLUMES = ("root", "@", "@rootfs", "@/.snapshots/1/snapshot")  # Fedora; Ubuntu; Debian; openSUSE


def import_disk(store: Store, name: str, path: Path, options: Options, *, whole: bool = False) -> Manifest:
    """Publish the disk in the file or block device `path` (raw, qcow2, vmdk, vdi, vhdx) as the next version of `name`.

    The partition with etc/ and usr/ is the root, its fstab says where the others belong; boot partitions of the
    firmware, swap and what fstab does not name are left out, and the version's source says so. With `whole` every
    sector is kept and nothing looked into. Needs root.
    Raises SourceInvalid, naming what was found, where there is no system or none that can be read; NoSpace, Busy,
    CommandFailed, ToolMissing. Nothing is kept then."""
    if os.geteuid() != 0:
        raise SourceInvalid("importing a disk must mount what is on it", "run this as root")

    def fill(directory: Path) -> tuple[list[Part], dict[str, Any]]:
        with opened(path, directory, options) as disk:
            shown = plain(path)
            source = {"kind": "disk", "file": shown, "format": disk.format, "size": disk.size}
            if whole:
                return _whole(disk, directory, options), {**source, **_told(disk)}
            layout = look(disk, shown)
            parts = _System(disk, directory, options, layout, shown).parts()
            return parts, {**source, **layout.as_dict()}

    return working.from_parts(store, name, fill, options)


# --- partition by partition


class _System:
    """The system on a disk: its root found, its partitions copied."""

    def __init__(self, disk: Disk, directory: Path, options: Options, layout: Layout, name: str) -> None:
        self._disk, self._directory, self._options, self._layout, self._name = disk, directory, options, layout, name
        self._data = data_extents(disk.fd, disk.size)
        self._copies: dict[int, Path] = {}
        self._mended: set[int] = set()
        self._why: list[str] = []

    def parts(self) -> list[Part]:
        """The partitions of the system, its root first. Raises SourceInvalid if there is none."""
        layout = self._layout
        root, fstab = self._root()
        layout.roles[root.entry.number] = ("root", "/")
        where = places(lines(fstab), layout.volumes, root)
        for volume in layout.volumes:
            if volume is root:
                continue
            number, line = volume.entry.number, where.get(volume.entry.number)
            mount = line.mount if line else ""
            reason = self._left_out(volume, mount)
            if reason:
                layout.left[number] = reason
                if number in self._copies:
                    self._copies.pop(number).unlink()
            else:
                layout.roles[number] = (role(mount, (name for name, _ in layout.roles.values())), mount)
        found = []
        for volume in sorted(layout.volumes, key=lambda volume: layout.roles.get(volume.entry.number, ("", ""))[1]):
            if volume.entry.number in layout.roles:
                found.append(self._part(volume, *layout.roles[volume.entry.number]))
        return found

    def _part(self, volume: Volume, name: str, mount: str) -> Part:
        file = self._copy(volume)
        fs = volume.fs
        if fs in ext4.KINDS:
            self._mend(volume, file)
        final = self._directory / f"{name}.img"
        os.rename(file, final)
        found = volume.found
        return Part(name, final, fs, mount, found.uuid if found else "", found.label if found else "")

    def _left_out(self, volume: Volume, mount: str) -> str:
        """Why a partition is not part of the version, empty if it is."""
        found, kind = volume.found, volume.entry.kind
        if found is None:
            return MADE_BY_NODE.get(kind, "no filesystem in it")
        if found.kind == "swap":
            return "swap, which a node makes itself"
        if found.kind == "vfat" and (kind == "esp" or mount in ESP_MOUNTS):
            if mount == "/boot":
                raise SourceInvalid(
                    f"{self._name} keeps its kernels on the EFI system partition ({number_of(volume)}, on /boot)",
                    AS_IT_IS,
                )
            return "EFI system partition, which a node makes itself"
        if kind in MADE_BY_NODE:
            return f"{MADE_BY_NODE[kind]}, which a node makes itself"
        if not mount:
            return "not in etc/fstab"
        return "" if usable(mount) else f"mounted on {mount[:60]}, where no partition of a node can be"

    def _root(self) -> tuple[Volume, str]:
        """The partition that holds the system, and its fstab."""
        likely = [volume for volume in self._layout.volumes if volume.fs in TREES]
        for volume in sorted(likely, key=lambda volume: (volume.entry.kind != "root", volume.entry.number)):
            file = self._copy(volume)
            kind = volume.fs
            if kind in ext4.KINDS:
                self._mend(volume, file)
            fstab = in_private_namespace(lambda file=file, kind=kind: self._fstab(file, kind))  # type: ignore[misc]
            if fstab is not None:
                return volume, fstab
        kinds = [f"{number_of(v)} is {v.fs}" for v in self._layout.volumes if v.found]
        told = "; ".join([*self._why, ", ".join(kinds) or "no filesystem is known on it"])
        raise SourceInvalid(f"{self._name} has no Linux system with etc and usr on it: {told}", AS_IT_IS)

    def _fstab(self, file: Path, fs: str) -> str | None:
        """The fstab of the system on our copy of a partition, None if it holds no system."""
        at = self._directory / "look"
        at.mkdir(exist_ok=True)
        options = "nouuid" if fs == "xfs" else ""
        try:
            for _ in range(2):
                with mounted(file, at, trim=False, options=options):
                    if _is_root(at):
                        return Tree(os.fspath(at)).text("etc/fstab")
                    chosen = fs == "btrfs" and _choose_subvolume(at)
                if not chosen:
                    return None
                self._layout.notes.append("the subvolume of the system was made the one that is mounted by default")
        except CommandFailed as error:
            self._why.append(error.message)
        finally:
            at.rmdir()
        return None

    def _mend(self, volume: Volume, file: Path) -> None:
        """Journal replayed and safe repairs made, on the copy."""
        if volume.entry.number in self._mended:
            return
        self._mended.add(volume.entry.number)
        try:
            ext4.check(file)
        except CommandFailed as error:
            what = error.message.partition(": ")[2]
            raise SourceInvalid(
                f"{self._name}: {number_of(volume)}: {what}", f"let the machine check its disk, or {AS_IT_IS}"
            ) from None

    def _copy(self, volume: Volume) -> Path:
        """Our own sparse copy of the used blocks of a partition."""
        entry, fs = volume.entry, volume.fs
        if entry.number not in self._copies:
            used = used_map(self._disk.fd, entry.size, fs, entry.start)
            wanted = [
                piece for start, length in used.extents for piece in overlap(self._data, entry.start + start, length)
            ]
            target = self._directory / f"partition-{entry.number}"
            copy(self._disk, wanted, entry.start, entry.size, target, self._options)
            self._copies[entry.number] = target
        return self._copies[entry.number]


def _is_root(at: Path) -> bool:
    return all((at / name).is_dir() and not (at / name).is_symlink() for name in ("etc", "usr"))


def _choose_subvolume(at: Path) -> bool:
    """Make the subvolume with the system the one that is mounted where none is named, on our copy of a btrfs: nothing
    that reads the version later has to know of it, and the system's own menu still names it itself."""
    tree = Tree(os.fspath(at))
    for name in SUBVOLUMES:
        place = at / name
        if tree.resolve(name) == name and tree.is_dir(name) and _is_root(place):
            run(["btrfs", "subvolume", "set-default", os.fspath(place)], act=f"choosing the subvolume {name}")
            return True
    return False


# --- bit for bit


def _whole(disk: Disk, directory: Path, options: Options) -> list[Part]:
    """All sectors, sparse where they are zero."""
    target = directory / f"{WHOLE}.img"
    size = -(-disk.size // SECTOR) * SECTOR
    if disk.own:
        os.rename(disk.file, target)
        os.truncate(target, size)
    else:
        copy(disk, data_extents(disk.fd, disk.size), 0, size, target, options)
    return [Part(WHOLE, target, fs=WHOLE, mount="")]


def _told(disk: Disk) -> dict[str, Any]:
    """How a disk that nobody looks into is cut, as far as that can be told."""
    try:
        table = read_table(disk.read, disk.size)
    except TableInvalid as error:
        return {"label": "unknown", "notes": [error.message]}
    if table is None:
        return {"label": "none"}
    return Layout(table.label, table.sector, volumes_of(disk, table), list(table.notes)).as_dict()


def copy(
    disk: Disk, stretches: Sequence[tuple[int, int]], start: int, size: int, target: Path, options: Options
) -> None:
    """Copy stretches of a disk (offset, length in bytes) to a sparse file of `size` bytes that begins where `start`
    stands on the disk. Zeros become holes. A converted disk gives its blocks back on the way, so that no more room is
    taken than for one copy. Raises NoSpace before the first byte, SourceInvalid if the disk ends too soon."""
    total = sum(length for _, length in stretches)
    if not disk.own and total > free_space(target.parent):
        raise NoSpace(
            f"{target.name} takes {total >> 20} MiB, {max(0, free_space(target.parent)) >> 20} are free",
            "free some space, or gild image gc",
        )
    done = told = 0
    zero = bytes(PIECE)
    options.tell("copy", 0, total)
    with target.open("wb") as file:
        file.truncate(size)
        for begin, length in stretches:
            for at in range(begin, begin + length, PIECE):
                count = min(PIECE, begin + length - at)
                piece = os.pread(disk.fd, count, at)
                if len(piece) != count:
                    raise SourceInvalid(f"the disk ended at byte {at + len(piece)} while it was read")
                if piece != (zero if count == PIECE else zero[:count]):
                    os.pwrite(file.fileno(), piece, at - start)
                if disk.own:
                    ext4.punch(disk.fd, [(at, count)])
                done += count
                if done - told >= 16 * PIECE:
                    told = done
                    options.tell("copy", done, total)
    options.tell("copy", total, total)
