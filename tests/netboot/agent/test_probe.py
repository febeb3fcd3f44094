"""What stands on disks that real tools made, and on disks of noise."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.agent import probe
from netboot.agent.probe import MARK_SIZE, Mark, content, decode_mark, encode_mark, sign

MIB = 1 << 20


def look(data: bytes, sector: int = 512) -> str:
    return content(lambda offset, length: data[offset : offset + length], len(data), sector)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["mke2fs", "-q", "-F", "-t", "ext4", "-L", "root"], "ext4 'root'"),
        (["mke2fs", "-q", "-F", "-t", "ext4"], "ext4"),
        (["mke2fs", "-q", "-F", "-t", "ext3", "-L", "old"], "ext3 'old'"),
        (["mke2fs", "-q", "-F", "-t", "ext2"], "ext2"),
        (["mkfs.vfat", "-F", "32", "-n", "ESP"], "vfat 'ESP'"),
        (["mkfs.vfat", "-F", "16", "-n", "BOOT"], "vfat 'BOOT'"),
        (["mkfs.vfat"], "vfat"),
        (["mkswap", "-L", "swap"], "swap 'swap'"),
        (["mkfs.xfs", "-q", "-L", "data"], "xfs 'data'"),
        (["mkfs.btrfs", "-q", "-L", "pool"], "btrfs 'pool'"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_filesystems(tmp_path: Path, command: list[str], told: str) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate((512 if "xfs" in command[0] else 128) * MIB)
    subprocess.run([*command, str(path)], check=True, capture_output=True)
    assert probe.read_content(str(path), path.stat().st_size) == told


def test_partition_tables(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(256 * MIB)
    subprocess.run(["sfdisk", "-q", str(path)], input=b"label: gpt\nsize=64MiB\nsize=64MiB\n", check=True)
    assert probe.read_content(str(path), 256 * MIB) == "GPT: unknown, unknown"
    with path.open("r+b") as file:
        file.seek(65 * MIB)
        file.write(b"XFSB" + bytes(104) + b"home".ljust(12, b"\0"))
    assert probe.read_content(str(path), 256 * MIB) == "GPT: unknown, xfs 'home'"
    with path.open("r+b") as file:
        file.write(bytes(MIB))
    assert probe.read_content(str(path), 256 * MIB) == "damaged GPT"
    with path.open("wb") as file:
        file.truncate(64 * MIB)
    subprocess.run(["sfdisk", "-q", str(path)], input=b"label: dos\nsize=32MiB\n", check=True)
    with path.open("r+b") as file:
        file.seek(MIB + 3)
        file.write(b"NTFS    ")
    assert probe.read_content(str(path), 64 * MIB) == "MBR: NTFS"


def test_marks_without_tools() -> None:
    zfs = bytearray(MIB)
    struct.pack_into("<Q", zfs, 132 * 1024, 0x00BAB10C)
    assert look(bytes(zfs)) == "ZFS"
    for offset, mark, name in (
        (0, b"LUKS\xba\xbe", "LUKS"),
        (512, b"LABELONE", "LVM"),
        (4096, b"\xfc\x4e\x2b\xa9", "md RAID"),
        (0x8001, b"CD001", "ISO 9660"),
        (MIB - 65536, b"\xfc\x4e\x2b\xa9", "md RAID"),
    ):
        data = bytearray(MIB)
        data[offset : offset + len(mark)] = mark
        assert look(bytes(data)) == name
    assert look(bytes(MIB)) == "empty"
    assert look(b"\0" * 5000 + b"letters" + b"\0" * MIB) == "data of an unknown kind"
    assert look(b"") == "empty"


def test_a_disk_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    assert probe.read_content(str(tmp_path / "gone"), MIB) == "unreadable: No such file or directory"

    def broken(offset: int, length: int) -> bytes:
        raise OSError(5, "Input/output error")

    assert content(broken, MIB) == "unreadable: Input/output error"


def test_our_mark() -> None:
    mark = Mark("compute:3", "n17", "ab" * 32, True)
    block = encode_mark(mark)
    assert len(block) == MARK_SIZE and decode_mark(block) == mark
    disk = bytearray(2 * MIB)
    disk[probe.MARK_OFFSET : probe.MARK_OFFSET + MARK_SIZE] = encode_mark(Mark("compute:3", "n17", "ab" * 32, False))
    assert look(bytes(disk)) == "gild compute:3 (n17, unfinished)"


@given(st.binary(max_size=200))
def test_a_mark_of_anything_is_a_mark_or_none(data: bytes) -> None:
    found = decode_mark(b"gild-mark 1\n" + data)
    assert found is None or found.image.isprintable()


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 446, 510, 512, 584, 1024, 1080, 4086, 32769, 65600, 131072]), st.binary(max_size=64)
        ),
        max_size=6,
    ),
    st.sampled_from([512, 4096]),
    st.booleans(),
)
def test_noise_is_told_in_a_short_printable_phrase(pieces: list[tuple[int, bytes]], sector: int, gpt: bool) -> None:
    disk = bytearray(300 * 1024)
    for offset, data in pieces:
        disk[offset : offset + len(data)] = data
    if gpt:
        disk[sector : sector + 8] = b"EFI PART"
    told = look(bytes(disk), sector)
    assert told and told.isprintable() and len(told) < 2000
    sign(bytes(disk[:64]))
