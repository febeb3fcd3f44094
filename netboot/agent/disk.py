"""The disk of the node: wiped, partitioned, made known to the kernel, formatted, grown."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from images.errors import CommandFailed, TargetFailed
from images.run import run
from netboot.agent import probe, wipe
from netboot.layout import Placed, script
from netboot.report import Disk

BLKRRPART = 0x125F  # linux/fs.h
BLKPG = 0x1269  # linux/blkpg.h
BLKPG_ADD, BLKPG_DEL = 1, 2
SETTLE = 15.0  # seconds the kernel may take to see a new table; it is at once on an idle disk
PAUSE = 0.1
MBR_CODE = 440  # bytes of boot code in the first sector; the disk's id and the table stand behind it


def part_path(disk: str, number: int) -> str:
    """The device of a partition: /dev/sda1, /dev/nvme0n1p1 (block/partitions/core.c: a "p" after a digit)."""
    return f"{disk}{'p' if disk[-1].isdigit() else ''}{number}"


def read_table(disk: str, *, sound: bool = False) -> list[dict[str, object]]:
    """The partitions of the GPT on `disk` (device or file) as sfdisk tells them, [] if there is none. With `sound`
    also [] if only one of its two copies is good: sfdisk reads that, firmware may not."""
    done = run(["sfdisk", "--json", disk], check=False, timeout=60, act=f"reading the partition table of {disk}")
    if done.returncode or (sound and b"corrupt" in done.stderr):
        return []
    try:
        table = json.loads(done.stdout)["partitiontable"]
        return list(table["partitions"]) if table["label"] == "gpt" else []
    except (ValueError, KeyError, TypeError):
        return []


def matches(disk: str, placed: Sequence[Placed]) -> bool:
    """The table on `disk` is the wanted one, to the sector: number, place, type and name of every partition."""
    found = {
        (row.get("node"), row.get("start"), row.get("size"), str(row.get("type")).upper(), row.get("name"))
        for row in read_table(disk, sound=True)
    }
    return found == {(part_path(disk, p.number), p.start, p.size, p.type, p.part.name) for p in placed}


def partition(disk: Disk, placed: Sequence[Placed], log: Callable[[str], None], *, sys: str = "/sys") -> None:
    """Wipe `disk` and give it the partitions `placed`; returns when the kernel shows them. Raises TargetFailed."""
    old = [(_int(row, "start") * disk.sector, _int(row, "size") * disk.sector) for row in read_table(disk.path)]
    name = os.path.basename(disk.path)
    for part in wipe.partitions(name, sys):
        old.append((_attribute(name, part, "start", sys) * 512, _attribute(name, part, "size", sys) * 512))
    _forget_partitions(disk.path, name, sys)
    fd = os.open(disk.path, os.O_RDWR | os.O_CLOEXEC)
    try:
        log(f"wiping {len(set(old))} old partitions and the table")
        wipe.forget(fd, disk.size, [*dict.fromkeys(old), *((p.offset, p.bytes) for p in placed)])
    finally:
        os.close(fd)
    command = ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", "--wipe", "never", disk.path]
    try:
        run(command, input=script(placed).encode(), timeout=120, act=f"partitioning {disk.path}")
    except CommandFailed as error:
        raise TargetFailed(error.message) from None
    if not matches(disk.path, placed):
        raise TargetFailed(f"{disk.path} does not show the partition table that was just written", "replace the disk")
    tell_kernel(disk.path, placed, sys=sys)


def tell_kernel(disk: str, placed: Sequence[Placed], *, sys: str = "/sys", dev_timeout: float = SETTLE) -> None:
    """Make the kernel see the partitions. Raises TargetFailed if it does not within `dev_timeout` seconds.

    Reading the table anew fails with EBUSY while anything has a partition open, and finds nothing with a kernel that
    was built without GPT; then each partition is added by itself (BLKPG, as partx(8) does).
    """
    name, deadline = os.path.basename(disk), time.monotonic() + dev_timeout
    reason = ""
    while True:
        fd = os.open(disk, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if not _seen(name, placed, sys):
                with suppress(OSError):
                    fcntl.ioctl(fd, BLKRRPART)
            if not _seen(name, placed, sys):
                reason = _add(fd, name, placed, sys)
        finally:
            os.close(fd)
        if _seen(name, placed, sys) and all(os.path.exists(part_path(disk, p.number)) for p in placed):
            return
        if time.monotonic() >= deadline:
            raise TargetFailed(
                f"the kernel does not see the partitions of {disk} after {dev_timeout:.0f} s: {reason or 'no device'}",
                "something on the disk is still in use; power the machine off and on",
            )
        time.sleep(PAUSE)


def unboot(disk: str, placed: Sequence[Placed]) -> None:
    """Take the first sectors of boot code and boot partitions away, so that nothing half written can be started."""
    fd = os.open(disk, os.O_RDWR | os.O_CLOEXEC)
    try:
        _put(fd, 0, bytes(MBR_CODE))
        for p in placed:
            if p.part.kind in ("bios", "esp"):
                _put(fd, p.offset, bytes(4096))
        os.fsync(fd)
    except OSError as error:
        raise TargetFailed(f"{disk} cannot be written: {error.strerror}", "replace the disk") from None
    finally:
        os.close(fd)


def mark(disk: str, what: probe.Mark) -> None:
    """Leave word on the disk of what is on it. Raises TargetFailed."""
    fd = os.open(disk, os.O_RDWR | os.O_CLOEXEC)
    try:
        _put(fd, probe.MARK_OFFSET, probe.encode_mark(what))
        os.fsync(fd)
    except OSError as error:
        raise TargetFailed(f"{disk} cannot be written: {error.strerror}", "replace the disk") from None
    finally:
        os.close(fd)


def make(device: str, placed: Placed) -> None:
    """Make the filesystem or swap that the layout wants on a partition no image fills. Raises CommandFailed."""
    label = placed.part.label
    commands = {
        # FAT32 needs 65525 clusters, which an ESP of 128 MiB has with sectors of 512 bytes only.
        "vfat": ["mkfs.vfat", *(["-F", "32"] if placed.sector == 512 else []), *(["-n", label] if label else [])],
        "swap": ["mkswap", *(["-L", label] if label else [])],
        "ext4": ["mke2fs", "-q", "-F", "-t", "ext4", *(["-L", label] if label else [])],
        "xfs": ["mkfs.xfs", "-q", "-f", *(["-L", label] if label else [])],
        "btrfs": ["mkfs.btrfs", "-q", "-f", *(["-L", label] if label else [])],
    }
    if placed.part.fs:
        run([*commands[placed.part.fs], device], timeout=1800, act=f"making {placed.part.fs} on {placed.part.name}")


def grow(device: str, fs: str, log: Callable[[str], None], mounted: Callable[[str, str], str] | None = None) -> bool:
    """Make a restored filesystem fill its partition. False if `fs` is of a kind that cannot grow (it stays as it is).

    `mounted(device, fs)` mounts it and returns where: XFS and btrfs grow only while mounted. Raises CommandFailed.
    """
    if fs in ("ext2", "ext3", "ext4"):
        # resize2fs insists on a check since the last mount; 0 and 1 (found something, repaired it) are fine, e2fsck(8).
        done = run(["e2fsck", "-f", "-p", device], check=False, timeout=None, act="checking the filesystem")
        if done.returncode not in (0, 1):
            raise CommandFailed(
                f"the filesystem on {device} is damaged after writing (e2fsck {done.returncode})", "install again"
            )
        run(["resize2fs", device], timeout=None, act="growing the filesystem")
    elif fs == "xfs" and mounted is not None:
        run(["xfs_growfs", mounted(device, fs)], timeout=None, act="growing the filesystem")
    elif fs == "btrfs" and mounted is not None:
        run(["btrfs", "filesystem", "resize", "max", mounted(device, fs)], timeout=None, act="growing the filesystem")
    else:
        log(f"{fs or 'this kind of content'} cannot be grown and keeps the size it has in the image")
        return False
    return True


def _forget_partitions(disk: str, name: str, sys: str) -> None:
    """Take the old partitions from the kernel, so that none of its caches writes to their places again."""
    fd = os.open(disk, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for part in wipe.partitions(name, sys):
            _blkpg(fd, BLKPG_DEL, _attribute(name, part, "partition", sys), 0, 0)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise TargetFailed(f"a partition of {disk} is in use", "power the machine off and on") from None
        raise TargetFailed(f"the partitions of {disk} cannot be dropped: {error.strerror}") from None
    finally:
        os.close(fd)


def _seen(name: str, placed: Sequence[Placed], sys: str) -> bool:
    """The kernel's partitions are exactly `placed`. Sysfs counts in units of 512 bytes whatever the sector."""
    found = {
        tuple(_attribute(name, part, what, sys) for what in ("partition", "start", "size"))
        for part in wipe.partitions(name, sys)
    }
    return found == {(p.number, p.offset // 512, p.bytes // 512) for p in placed}


def _add(fd: int, name: str, placed: Sequence[Placed], sys: str) -> str:
    """Replace the kernel's partitions by `placed`. Returns what went wrong, or ""."""
    try:
        for part in wipe.partitions(name, sys):
            _blkpg(fd, BLKPG_DEL, _attribute(name, part, "partition", sys), 0, 0)
        for p in placed:
            _blkpg(fd, BLKPG_ADD, p.number, p.offset, p.bytes)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _blkpg(fd: int, op: int, number: int, start: int, length: int) -> None:
    # struct blkpg_partition, then struct blkpg_ioctl_arg around its address (linux/blkpg.h).
    inner = ctypes.create_string_buffer(struct.pack("<qqi64s64s", start, length, number, b"", b""), 152)
    fcntl.ioctl(fd, BLKPG, struct.pack("<iiixxxxQ", op, 0, 152, ctypes.addressof(inner)))


def _put(fd: int, at: int, data: bytes) -> None:
    while data:
        done = os.pwrite(fd, data, at)
        at, data = at + done, data[done:]


def _attribute(name: str, part: str, what: str, sys: str) -> int:
    try:
        with open(f"{sys}/block/{name}/{part}/{what}", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0


def _int(row: dict[str, object], key: str) -> int:
    value = row.get(key)
    return value if isinstance(value, int) else 0
