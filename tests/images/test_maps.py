"""Used maps against the filesystems themselves: what a map leaves out, nobody misses."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest

from images.ext4 import punch
from images.maps.extents import MapUnreadable
from images.maps.fat import fat_used
from images.maps.ntfs import ntfs_used
from images.maps.xfs import xfs_used
from images.usedmap import UsedMap, gaps, used_map
from tests.images.filled import MAKERS, contents, inside, live, make, missing, only_used, sound, written

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


def size_of(name: str) -> int:
    return (320 if name.startswith("xfs") or name.endswith("32 large") else 96) << 20


def usable(name: str) -> str:
    """The filesystem of a kind of MAKERS, if it can be made and filled here."""
    fs = name.split()[0]
    tools = {"vfat": ["mcopy", "fsck.vfat"], "ntfs": ["ntfs-3g", "ntfsfix"], "xfs": ["xfs_repair"]}.get(fs, [])
    for tool in (MAKERS[name][0], *tools):
        if missing(tool):
            pytest.skip(f"{tool} is not installed")
    if fs == "ntfs" and not os.path.exists("/dev/fuse"):
        pytest.skip("ntfs-3g needs /dev/fuse")
    return fs


def look(path: Path, fs: str) -> UsedMap:
    fd = os.open(path, os.O_RDONLY)
    try:
        return used_map(fd, path.stat().st_size, fs)
    finally:
        os.close(fd)


@pytest.mark.parametrize("name", MAKERS)
def test_the_used_bytes_alone_are_the_whole_filesystem(tmp_path: Path, name: str) -> None:
    fs = usable(name)
    path = make(tmp_path / "fs", name, size_of(name))
    kept = live(path, fs)
    found = look(path, fs)
    assert found.known, found.why
    assert sum(map(len, kept.values())) <= found.used < size_of(name) * 0.6
    only_used(path, found, tmp_path / "copy")
    sound(tmp_path / "copy", fs)
    assert contents(tmp_path / "copy", fs) == kept


@pytest.mark.parametrize("name", ["ext4", "xfs", "xfs large sectors"])
def test_a_filesystem_that_is_mounted_is_not_believed(tmp_path: Path, name: str) -> None:
    fs = usable(name)
    path = make(tmp_path / "fs", name, size_of(name))
    live(path, fs)
    seen: list[UsedMap] = []

    def work(at: Path) -> None:
        (at / "new").write_bytes(os.urandom(3_000_000))
        written(at)
        seen.append(look(path, fs))

    inside(path, fs, work)
    assert (not seen[0].known and "recovery" in seen[0].why) or "features" in seen[0].why
    assert seen[0].extents == ((0, size_of(name)),)
    assert look(path, fs).known


def test_the_log_of_xfs_that_went_round_is_read(tmp_path: Path) -> None:
    """Enough small changes to fill the log several times; after each unmount it has to be found clean."""
    usable("xfs")
    path = make(tmp_path / "fs", "xfs", size_of("xfs"))

    def many(at: Path) -> None:
        for n in range(1500):
            (at / f"{n % 100}-{'n' * 120}").touch()
            os.utime(at / f"{n % 100}-{'n' * 120}", (n, n))
            if n % 100 == 99:
                written(at)
            if n % 300 == 299:
                for name in os.listdir(at):
                    os.unlink(at / name)

    for _ in range(4):
        inside(path, "xfs", many)
        assert look(path, "xfs").known


def test_xfs_with_a_log_elsewhere_is_not_read(tmp_path: Path) -> None:
    usable("xfs")
    for name, size in (("fs", 320 << 20), ("log", 80 << 20)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
    argv = ["mkfs.xfs", "-q", "-f", "-l", f"logdev={tmp_path / 'log'},size=64m", str(tmp_path / "fs")]
    subprocess.run(argv, check=True, capture_output=True)
    found = look(tmp_path / "fs", "xfs")
    assert not found.known and "another device" in found.why


def db(path: Path, *commands: str) -> str:
    words = [word for command in commands for word in ("-c", command)]
    return subprocess.run(["xfs_db", "-r", *words, path], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("version", [["-m", "crc=0", "-b", "size=512"], ["-m", "crc=0,finobt=0"], ["-m", "rmapbt=1"]])
def test_free_space_is_what_xfs_db_says(tmp_path: Path, version: list[str]) -> None:
    """Kernels of today do not mount version 4, so mkfs.xfs fills it."""
    usable("xfs")
    (tmp_path / "proto").write_text(f"/\n0 0\nd--755 0 0\nfile ---644 0 0 {__file__}\nsub d--755 0 0\n$\n$\n")
    path = tmp_path / "fs"
    with path.open("wb") as file:
        file.truncate(320 << 20)
    argv = ["mkfs.xfs", "-q", "-f", *version, "-d", "agcount=3", "-p", str(tmp_path / "proto"), str(path)]
    subprocess.run(argv, check=True, capture_output=True)
    found = look(path, "xfs")
    assert found.known, found.why
    rows = db(path, "freesp -d").partition("   from")[0].splitlines()[1:]
    numbers = [[int(word) for word in row.split()] for row in rows]
    block, group = (int(db(path, "sb 0", f"p {word}").split()[-1]) for word in ("blocksize", "agblocks"))
    free = {ag * group + at + n for ag, at, length in numbers for n in range(length)}
    ours = {b for at, n in gaps(found.extents, 0, 320 << 20) for b in range(at // block, (at + n) // block)}
    # It lists the few blocks kept for the trees themselves as well.
    kept = sum(int(db(path, f"agf {n}", "p flcount").split()[-1]) for n in range(3))
    assert ours < free and len(free - ours) == kept
    only_used(path, found, tmp_path / "copy")
    sound(tmp_path / "copy", "xfs")


def test_a_fragmented_xfs_has_a_tree_of_several_levels(tmp_path: Path) -> None:
    usable("xfs")
    path = tmp_path / "fs"
    with path.open("wb") as file:
        file.truncate(320 << 20)
    subprocess.run(["mkfs.xfs", "-q", "-f", "-b", "size=1024", "-d", "agcount=2", path], check=True)

    def holes(at: Path) -> None:
        (at / "sieve").write_bytes(b"x" * (40 << 20))
        written(at)
        fd = os.open(at / "sieve", os.O_RDWR)
        punch(fd, [(n, 4096) for n in range(0, 40 << 20, 8192)])
        os.close(fd)

    inside(path, "xfs", holes)
    agf = path.read_bytes()[512:640]
    assert struct.unpack_from(">I", agf, 28)[0] >= 2
    found = look(path, "xfs")
    assert found.known and len(found.extents) > 5000
    only_used(path, found, tmp_path / "copy")
    sound(tmp_path / "copy", "xfs")


@pytest.mark.parametrize("bits", ["vfat 16", "vfat 32"])
def test_a_fat_that_was_not_unmounted_or_has_two_truths_is_not_read(tmp_path: Path, bits: str) -> None:
    usable(bits)
    data = bytearray(make(tmp_path / "fs", bits, 96 << 20).read_bytes())
    width, state = (2, 37) if bits == "vfat 16" else (4, 65)
    table = struct.unpack_from("<H", data, 14)[0] * struct.unpack_from("<H", data, 11)[0]

    def refused(at: int, value: int, why: str) -> None:
        kept, data[at] = data[at], value
        with pytest.raises(MapUnreadable, match=why):
            fat_used(lambda offset, length: bytes(data[offset : offset + length]), len(data))
        data[at] = kept

    refused(state, 1, "not unmounted")
    refused(table + 9 * width, 7, "two tables differ")
    length = struct.unpack_from("<H", data, 22)[0] or struct.unpack_from("<I", data, 36)[0]
    second = table + length * struct.unpack_from("<H", data, 11)[0]
    top = 2 * width - 1
    data[table + top] = data[second + top] = data[table + top] & (0x7F if bits == "vfat 16" else 0xF7)
    refused(0, data[0], "not unmounted")


def test_an_ntfs_that_windows_left_mounted_is_not_read(tmp_path: Path) -> None:
    usable("ntfs")
    path = make(tmp_path / "fs", "ntfs", 32 << 20)
    data = bytearray(path.read_bytes())
    read = lambda at, n: bytes(data[at : at + n])  # noqa: E731
    assert ntfs_used(read, len(data))
    cluster, record = data[13] * 512, 1024
    table = struct.unpack_from("<Q", data, 48)[0] * cluster
    volume = data.index(struct.pack("<I", 0x70), table + 3 * record)
    inside_it = volume + struct.unpack_from("<H", data, volume + 20)[0]
    data[inside_it + 10] |= 1
    with pytest.raises(MapUnreadable, match="dirty"):
        ntfs_used(read, len(data))
    data[inside_it + 10] &= 0xFE
    log = _log_of(data, table + 2 * record) * cluster
    data[log : log + 4096] = _restart_page(client=0, flags=0)
    with pytest.raises(MapUnreadable, match="fast startup"):
        ntfs_used(read, len(data))
    data[log + 4096 : log + 8192] = _restart_page(client=0xFFFF, flags=0, number=9)  # the newer one counts
    assert ntfs_used(read, len(data))
    data[log + 4096 : log + 8192] = _restart_page(client=0, flags=2, number=9)
    assert ntfs_used(read, len(data))
    data[log : log + 4] = b"CHKD"
    with pytest.raises(MapUnreadable, match="its log"):
        ntfs_used(read, len(data))


def _log_of(data: bytearray, record: int) -> int:
    """Cluster at which the log begins."""
    at = record + struct.unpack_from("<H", data, record + 20)[0]
    while struct.unpack_from("<I", data, at)[0] != 0x80:
        at += struct.unpack_from("<I", data, at + 4)[0]
    pairs = at + struct.unpack_from("<H", data, at + 32)[0]
    lengths, distances = data[pairs] & 15, data[pairs] >> 4
    return int.from_bytes(data[pairs + 1 + lengths : pairs + 1 + lengths + distances], "little", signed=True)


def _restart_page(*, client: int, flags: int, number: int = 5) -> bytes:
    """A restart page as Windows writes it (ntfs-3g, logfile.h)."""
    page = bytearray(4096)
    struct.pack_into("<4sHHQIIHHH", page, 0, b"RSTR", 30, 9, 0, 4096, 4096, 48, 1, 1)
    struct.pack_into("<QHHHH", page, 48, number, 1, 0, client, flags)
    for n in range(1, 9):
        page[n * 512 - 2 : n * 512] = b"\x01\x00"
    page[30:32] = b"\x01\x00"
    return bytes(page)


def test_an_ntfs_record_that_was_written_in_part_is_not_read(tmp_path: Path) -> None:
    usable("ntfs")
    data = bytearray(make(tmp_path / "fs", "ntfs", 32 << 20).read_bytes())
    table = struct.unpack_from("<Q", data, 48)[0] * data[13] * 512
    data[table + 6 * 1024 + 510] ^= 0xFF
    with pytest.raises(MapUnreadable, match="written in part"):
        ntfs_used(lambda at, n: bytes(data[at : at + n]), len(data))


def test_a_free_space_tree_that_contradicts_its_group_is_not_believed(tmp_path: Path) -> None:
    usable("xfs")
    data = bytearray(make(tmp_path / "fs", "xfs", 320 << 20).read_bytes())
    root = struct.unpack_from(">I", data, 512 + 16)[0] * 4096
    at = root + 56 + 7  # last byte of the first record's length
    data[at] -= 1
    with pytest.raises(MapUnreadable, match="free blocks in its tree"):
        xfs_used(lambda offset, length: bytes(data[offset : offset + length]), len(data))


def test_btrfs_counts_as_used_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "fs").write_bytes(bytes(1 << 20))
    found = look(tmp_path / "fs", "btrfs")
    assert found.extents == ((0, 1 << 20),) and not found.known and "btrfs" in found.why


def test_a_filesystem_in_the_middle_of_a_disk_is_read(tmp_path: Path) -> None:
    usable("xfs")
    make(tmp_path / "fs", "xfs", 320 << 20)
    alone = look(tmp_path / "fs", "xfs")
    with (tmp_path / "disk").open("wb") as file:
        file.write(bytes(1 << 20))
        file.write((tmp_path / "fs").read_bytes())
    fd = os.open(tmp_path / "disk", os.O_RDONLY)
    try:
        assert used_map(fd, 320 << 20, "xfs", 1 << 20) == alone
    finally:
        os.close(fd)
