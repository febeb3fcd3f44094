"""Making a disk forget: whatever holds it is stopped, and the marks of old formats go, from the inside out."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable

from images.errors import CommandFailed, TargetFailed, ToolMissing
from images.run import run

MIB = 1 << 20
# Where formats keep what makes a kernel or udev believe in them (libblkid's superblock probes): LUKS2's second header
# reaches 4 MiB; btrfs has copies at 64 MiB and 256 GiB; md 0.90/1.0, ZFS and the backup GPT stand in the last MiB.
HEAD = 4 * MIB
TAIL = MIB
COPIES = ((64 * MIB, 64 * 1024), (256 << 30, 64 * 1024))
MAX_DEPTH = 8  # LVM on LUKS on RAID is three; more than this is a loop


def release(path: str, log: Callable[[str], None], sys: str = "/sys", proc: str = "/proc") -> None:
    """Unmount and stop everything that stands on the disk `path` (/dev/sda): mounts, swap, LVM, LUKS, md.
    Raises TargetFailed if something does not let go."""
    name = os.path.basename(path)
    _release(f"{sys}/block/{name}", path, log, sys, proc, 0)
    for part in partitions(name, sys):
        _release(f"{sys}/block/{name}/{part}", os.path.join(os.path.dirname(path), part), log, sys, proc, 0)


def partitions(name: str, sys: str = "/sys") -> list[str]:
    """The kernel names of a disk's partitions, the last one first."""
    base = f"{sys}/block/{name}"
    try:
        found = [entry for entry in os.listdir(base) if os.path.exists(f"{base}/{entry}/partition")]
    except OSError:
        return []
    return sorted(found, key=lambda entry: (len(entry), entry), reverse=True)


def forget(fd: int, size: int, spans: Iterable[tuple[int, int]]) -> None:
    """Zero the marks in each of `spans` (start, length in bytes: old partitions and new ones), then on the disk of
    `size` bytes itself, backup GPT first and the first sector last. Raises TargetFailed."""
    try:
        for start, length in spans:
            _forget(fd, start, min(length, size - start))
        os.fsync(fd)
        _forget(fd, 0, size)
        os.fsync(fd)
    except OSError as error:
        raise TargetFailed(f"the disk did not take the wiping: {error.strerror}", "replace the disk") from None


def _forget(fd: int, start: int, length: int) -> None:
    if length <= 0:
        return
    for at, count in COPIES:
        if at < length:
            _zero(fd, start + at, min(count, length - at))
    tail = min(TAIL, length)
    _zero(fd, start + length - tail, tail)
    _zero(fd, start, min(HEAD, length))


def _zero(fd: int, at: int, count: int) -> None:
    blank = bytes(min(count, MIB))
    end = at + count
    while at < end:
        at += os.pwrite(fd, blank[: end - at], at)


def _release(base: str, device: str, log: Callable[[str], None], sys: str, proc: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise TargetFailed(f"{device} is held by a chain of more than {MAX_DEPTH} devices")
    try:
        holders = sorted(os.listdir(f"{base}/holders"))
    except OSError:
        holders = []
    for holder in holders:
        _release(f"{sys}/block/{holder}", f"/dev/{holder}", log, sys, proc, depth + 1)
        _stop(holder, sys, log)
    _unmount(device, proc, log)


def _stop(holder: str, sys: str, log: Callable[[str], None]) -> None:
    if holder.startswith("dm-"):
        with open(f"{sys}/block/{holder}/dm/name", encoding="utf-8") as file:
            name = file.read().strip()
        command = ["dmsetup", "remove", "--retry", name]
    elif holder.startswith("md"):
        command = ["mdadm", "--stop", f"/dev/{holder}"]
    else:
        raise TargetFailed(f"the disk is held by {holder}, and nobody here knows how to stop that")
    log(f"stopping {holder}, which was found running on the disk")
    try:
        run(command, timeout=60, act=f"stopping {holder}")
    except (CommandFailed, ToolMissing) as error:
        raise TargetFailed(f"the disk is in use by {holder}: {error.message}") from None


def _unmount(device: str, proc: str, log: Callable[[str], None]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for target in reversed(_mounts(f"{proc}/mounts", device)):
        log(f"unmounting {target}, left over from an earlier attempt")
        if libc.umount2(os.fsencode(target), 0):
            raise TargetFailed(f"{device} is mounted at {target} and in use: {os.strerror(ctypes.get_errno())}")
    if _mounts(f"{proc}/swaps", device, field=0) and libc.swapoff(os.fsencode(device)):
        raise TargetFailed(f"{device} is in use as swap: {os.strerror(ctypes.get_errno())}")


def _mounts(path: str, device: str, field: int = 1) -> list[str]:
    """The mount points of `device` in /proc/mounts, whose blanks are written as \\040 (proc_pid_mounts(5))."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            rows = [line.split() for line in file]
    except OSError:
        return []
    found = [row[field] for row in rows if len(row) > field and row[0] == device]
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        found = [name.replace(code, char) for name in found]
    return found
