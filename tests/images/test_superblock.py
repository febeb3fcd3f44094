"""Filesystems and containers, recognised as libblkid recognises them."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from images.superblock import Superblock, recognise

SIZE = 64 << 20
MAKERS = {
    "ext2": ["mke2fs", "-q", "-F", "-t", "ext2", "-L", "label"],
    "ext3": ["mke2fs", "-q", "-F", "-t", "ext3", "-L", "label"],
    "ext4": ["mke2fs", "-q", "-F", "-t", "ext4", "-L", "sixteen letters!"],
    "ext4 1k": ["mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024"],
    "xfs": ["mkfs.xfs", "-q", "-f", "-L", "label"],
    "xfs v4": ["mkfs.xfs", "-q", "-f", "-m", "crc=0"],
    "btrfs": ["mkfs.btrfs", "-q", "-f", "-L", "a longer label"],
    "fat12": ["mkfs.vfat", "-F", "12", "-s", "64", "-n", "LABEL"],
    "fat16": ["mkfs.vfat", "-F", "16", "-n", "LABEL"],
    "fat32": ["mkfs.vfat", "-F", "32", "-s", "1"],
    "ntfs": ["mkntfs", "-F", "-q", "-f"],
    "f2fs": ["mkfs.f2fs", "-q", "-l", "label"],
    "exfat": ["mkfs.exfat"],
    "swap": ["mkswap", "-q", "-L", "label"],
    "swap 64k": ["mkswap", "-q", "-p", "65536"],
    "luks": ["cryptsetup", "-q", "luksFormat", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"],
    "squashfs": ["mksquashfs", os.path.dirname(__file__)],
    "iso9660": ["genisoimage", "-quiet", "-V", "LABEL", "-o"],
}
NAMES = {"LVM2_member": "lvm", "crypto_LUKS": "luks", "linux_raid_member": "md", "zfs_member": "zfs"}


def look(path: Path) -> Superblock | None:
    with path.open("rb") as file:
        return recognise(lambda at, n: os.pread(file.fileno(), n, at), path.stat().st_size)


def by_blkid(path: Path) -> tuple[str, str, str]:
    said = subprocess.run(["blkid", "-p", "-o", "export", path], check=True, capture_output=True, text=True).stdout
    told = dict(row.replace("\\ ", " ").split("=", 1) for row in said.splitlines() if "=" in row)
    return NAMES.get(told["TYPE"], told["TYPE"]), told.get("UUID", ""), told.get("LABEL", "")


@pytest.mark.parametrize("name", MAKERS)
def test_what_a_tool_made_is_what_blkid_says(tmp_path: Path, name: str) -> None:
    path, argv = tmp_path / "fs", MAKERS[name]
    if shutil.which(argv[0], path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
        pytest.skip(f"{argv[0]} is not installed")
    size = 512 << 20 if "xfs" in name or name == "btrfs" else SIZE
    if name not in ("squashfs", "iso9660"):
        with path.open("wb") as file:
            file.truncate(size)
    argv = [*argv, str(path)] if name != "iso9660" else [*argv, str(path), os.path.dirname(__file__)]
    subprocess.run(argv, check=True, capture_output=True, input=b"secret" if name == "luks" else b"")
    found = look(path)
    assert found is not None and (found.kind, found.uuid, found.label) == by_blkid(path)
    if name not in ("luks", "squashfs", "iso9660"):
        assert size - 65536 < found.size <= size
    if name == "luks":
        assert "encrypted" in found.container
    else:
        assert not found.container


def lvm() -> bytearray:
    """A label as lvm2 writes it (lib/format_text/layout.h)."""
    data = bytearray(1 << 20)
    data[512:1024] = struct.pack("<8sQII8s", b"LABELONE", 1, 0, 32, b"LVM2 001").ljust(512, b"\0")
    data[544:576] = b"AbCdEf0123456789abcdefghijklmnop"
    return data


def md(at: int, size: int = 1 << 20) -> bytearray:
    """A superblock of version 1 (linux/raid/md_p.h)."""
    data = bytearray(size)
    data[at : at + 64] = struct.pack("<III4x16s32s", 0xA92B4EFC, 1, 0, bytes(range(16)), b"host:0")
    struct.pack_into("<Q", data, at + 144, at // 512)
    return data


def md_old(order: str) -> bytearray:
    """A superblock of version 0.90."""
    data = bytearray((1 << 20) + 5000)
    struct.pack_into(f"{order}II", data, (1 << 20) - 65536, 0xA92B4EFC, 0)
    return data


def zfs() -> bytearray:
    data = bytearray(4 << 20)
    for n in range(4):
        struct.pack_into("<Q", data, (128 << 10) + n * 1024, 0x00BAB10C)
    return data


@pytest.mark.parametrize(
    ("data", "kind"),
    [(lvm(), "lvm"), (md(0), "md"), (md(4096), "md"), (md((1 << 20) - 8192), "md"), (md_old("<"), "md"),
     (md_old(">"), "md"), (zfs(), "zfs")],
)  # fmt: skip
def test_containers(tmp_path: Path, data: bytearray, kind: str) -> None:
    if kind == "md":  # libblkid wants the sum right as well
        for at in (0, 4096, (1 << 20) - 8192):
            if data[at : at + 4] == struct.pack("<I", 0xA92B4EFC) and at + 144 < len(data):
                _sum(data, at)
    (tmp_path / "d").write_bytes(data)
    found = look(tmp_path / "d")
    assert found is not None and found.kind == kind and found.container
    if kind == "lvm":
        assert found.uuid == "AbCdEf-0123-4567-89ab-cdef-ghij-klmnop"


def _sum(data: bytearray, at: int) -> None:
    words = struct.unpack_from("<64I", data, at)
    total = sum(words) - words[54]
    struct.pack_into("<I", data, at + 216, ((total & 0xFFFFFFFF) + (total >> 32)) & 0xFFFFFFFF)


def test_a_filesystem_in_a_mirror_is_a_member_of_it(tmp_path: Path) -> None:
    path = tmp_path / "d"
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", path, "8M"], check=True, capture_output=True)
    data = bytearray(path.read_bytes())
    data += md((16 << 10) - 8192, 16 << 10)
    struct.pack_into("<Q", data, len(data) - 8192 + 144, (len(data) - 8192) // 512)
    path.write_bytes(data)
    found = look(path)
    assert found is not None and found.kind == "md"


def test_the_mark_of_an_old_array_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "d"
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", path, "8M"], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + bytes(md(8192, 16 << 10)))  # names a place it does not stand at
    found = look(path)
    assert found is not None and found.kind == "ext4"


def test_nothing_is_nothing() -> None:
    for size in (0, 1, 4096, 1 << 20):
        assert recognise(lambda at, n, size=size: bytes(max(0, min(n, size - at))), size) is None  # type: ignore[misc]
