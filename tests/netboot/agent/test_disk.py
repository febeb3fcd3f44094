"""The disk of the node, on a loop device: partitions that the kernel sees, old marks gone, filesystems grown."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from images.errors import CommandFailed, TargetFailed
from netboot.agent import disk, facts, probe, wipe
from netboot.layout import Placed, place
from netboot.plan import DEFAULT_LAYOUT, LayoutPart
from netboot.report import Disk
from tests.netboot.agent.loopdisk import loop_disk, needs_root

pytestmark = needs_root
MIB = 1 << 20
SIZE = 400 * MIB
# A small root first and the data behind it, so that a later layout moves both.
SMALL = (*DEFAULT_LAYOUT[:2], LayoutPart("root", "linux", "64MiB", fs="ext4", mount="/", role="root"))
OTHER = (*SMALL, LayoutPart("data", "data", "rest", fs="ext4", mount="/data", label="data"))


def lay(found: Disk, parts: tuple[LayoutPart, ...] = SMALL) -> tuple[Placed, ...]:
    return place(parts, found.size, MIB, sector=found.sector)


def say(line: str) -> None:
    print(line)


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True).stdout.decode()


@pytest.mark.parametrize("sector", [512, 4096])
def test_partitions_are_there_and_found_again(tmp_path: Path, sector: int) -> None:
    with loop_disk(tmp_path, SIZE, sector) as found:
        assert (found.size, found.sector, found.content) == (SIZE, sector, "empty")
        placed = lay(found, OTHER)
        assert not disk.matches(found.path, placed)
        disk.partition(found, placed, say)
        assert disk.matches(found.path, placed)
        for p in placed:
            assert int(run("blockdev", "--getsize64", disk.part_path(found.path, p.number))) == p.bytes
        assert not disk.matches(found.path, lay(found, SMALL))
        disk.partition(found, lay(found, SMALL), say)  # a table over a table, one partition fewer
        assert disk.matches(found.path, lay(found, SMALL))
        assert not os.path.exists(disk.part_path(found.path, 4))


def test_filesystems_are_made_and_old_ones_do_not_shine_through(tmp_path: Path) -> None:
    with loop_disk(tmp_path, SIZE) as found:
        parts = (
            *SMALL,
            LayoutPart("swap", "swap", "64MiB", fs="swap", mount="swap", label="swap"),
            LayoutPart("data", "data", "rest", fs="ext4", mount="/data", label="data"),
        )
        placed = lay(found, parts)
        disk.partition(found, placed, say)
        for p in (p for p in placed if not p.part.role):
            disk.make(disk.part_path(found.path, p.number), p)
        wanted = {2: ("vfat", "ESP"), 4: ("swap", "swap"), 5: ("ext4", "data")}
        for number, (kind, label) in wanted.items():
            told = run("blkid", "-p", "-o", "export", disk.part_path(found.path, number))
            assert f"TYPE={kind}" in told and f"LABEL={label}" in told
        assert facts.read_disk(os.path.basename(found.path)).content == (
            "GPT: unknown, vfat 'ESP', unknown, swap 'swap', ext4 'data'"
        )
        disk.partition(found, placed, say)
        for p in placed:
            command = ["blkid", "-p", disk.part_path(found.path, p.number)]
            seen = subprocess.run(command, capture_output=True, check=False).stdout
            assert b" TYPE=" not in seen, seen


@pytest.mark.parametrize("end", [8192, 65536])
def test_raid_marks_at_the_end_and_the_backup_table_go(tmp_path: Path, end: int) -> None:
    with loop_disk(tmp_path, SIZE) as found:
        with open(found.path, "r+b", buffering=0) as raw:
            raw.seek(SIZE - end)
            raw.write(b"\xfc\x4e\x2b\xa9" + bytes(508))
        assert facts.read_disk(os.path.basename(found.path)).content == "md RAID"
        disk.partition(found, lay(found), say)
        assert "RAID" not in facts.read_disk(os.path.basename(found.path)).content
        with open(found.path, "r+b", buffering=0) as raw:
            raw.seek(512)
            raw.write(bytes(MIB - 512))
        # The backup at the end still tells of the table, which is no longer one to install on as it is ...
        assert len(disk.read_table(found.path)) == 3
        assert not disk.matches(found.path, lay(found))
        with open(found.path, "r+b", buffering=0) as raw:
            wipe.forget(raw.fileno(), SIZE, [])
        # ... and after forgetting nothing does.
        assert disk.read_table(found.path) == []
        assert facts.read_disk(os.path.basename(found.path)).content == "empty"


def test_a_disk_in_use_is_released_and_a_busy_one_is_refused(tmp_path: Path) -> None:
    with loop_disk(tmp_path, SIZE) as found:
        placed = lay(found, OTHER)
        disk.partition(found, placed, say)
        device, where = disk.part_path(found.path, 4), tmp_path / "with space"
        disk.make(device, placed[3])
        where.mkdir()
        run("mount", device, str(where))
        with (where / "held").open("w"), pytest.raises(TargetFailed, match="in use"):
            wipe.release(found.path, say)
        with pytest.raises(TargetFailed, match="in use"):
            disk.partition(found, lay(found), say)
        assert disk.matches(found.path, placed)  # refused before anything was written
        lines: list[str] = []
        wipe.release(found.path, lines.append)
        assert any("unmounting" in line for line in lines)
        disk.partition(found, lay(found), say)


def test_grow_fills_the_partition(tmp_path: Path) -> None:
    with loop_disk(tmp_path, SIZE) as found:
        disk.partition(found, lay(found), say)
        device = disk.part_path(found.path, 3)
        run("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", device, "32M")
        assert disk.grow(device, "ext4", say)
        assert "Block count:              16384" in run("dumpe2fs", "-h", device)
        assert not disk.grow(device, "ntfs", say)
        with open(device, "r+b", buffering=0) as raw:
            raw.write(bytes(MIB))
        with pytest.raises(CommandFailed, match="damaged after writing"):
            disk.grow(device, "ext4", say)


def test_unboot_and_mark(tmp_path: Path) -> None:
    with loop_disk(tmp_path, SIZE) as found:
        placed = lay(found)
        disk.partition(found, placed, say)
        with open(found.path, "r+b", buffering=0) as raw:
            raw.write(b"\xeb" * 440)
            raw.seek(placed[0].offset)
            raw.write(b"core" * 1024)
        disk.unboot(found.path, placed)
        assert disk.matches(found.path, placed)
        with open(found.path, "rb") as raw:
            assert raw.read(440) == bytes(440)
            raw.seek(placed[0].offset)
            assert raw.read(4096) == bytes(4096)
        for finished, words in ((False, "gild compute:3 (n17, unfinished)"), (True, "gild compute:3 (n17)")):
            disk.mark(found.path, probe.Mark("compute:3", "n17", "ab" * 32, finished))
            assert facts.read_disk(os.path.basename(found.path)).content == words
        assert disk.matches(found.path, placed)


def test_part_path() -> None:
    assert disk.part_path("/dev/sda", 2) == "/dev/sda2"
    assert disk.part_path("/dev/nvme0n1", 2) == "/dev/nvme0n1p2"
