"""Partition tables as fdisk writes them, whole and damaged, and such as nobody should believe."""

from __future__ import annotations

import re
import struct
import subprocess
from pathlib import Path

import pytest

from images.partitions import Table, TableInvalid, read_table

GPT = """label: gpt
label-id: 11111111-2222-3333-4444-555555555555
size=1MiB, type=21686148-6449-6E6F-744E-656564454649, name="bios"
size=8MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name="ESP ü"
size=4MiB, type=0657FD6D-A4AB-43C4-84E5-0933C84B4F4F
size=20MiB, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, uuid=99999999-8888-7777-6666-555555555555
"""
DOS = """label: dos
label-id: 0x1badcafe
size=8MiB, type=83, bootable
size=4MiB, type=82
size=30MiB, type=5
5 : size=4MiB, type=83
6 : size=5MiB, type=83
7 : size=6MiB, type=8e
"""


def fdisk(path: Path, sector: int, *commands: str) -> None:
    """fdisk reads and writes the scripts of sfdisk, for sectors of any size."""
    argv = ["fdisk", "-b", str(sector), "-w", "never", str(path)]
    subprocess.run(argv, input="\n".join([*commands, ""]).encode(), check=True, capture_output=True)


def disk(path: Path, script: str, *, size: int = 64 << 20, sector: int = 512) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    (path.parent / "script").write_text(script)
    fdisk(path, sector, "I", str(path.parent / "script"), "w")
    return path


def table(path: Path, *sectors: int) -> Table | None:
    data = path.read_bytes()
    return read_table(lambda at, n: data[at : at + n], len(data), sectors or (512, 4096))


def change(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def by_fdisk(path: Path, sector: int) -> list[tuple[int, int, str]]:
    """start and size in bytes, type, as fdisk reads them; extended partitions left out."""
    fdisk(path, sector, "O", str(path.parent / "said"), "q")
    rows = re.findall(r"start= *(\d+), size= *(\d+), type=([^,\s]+)", (path.parent / "said").read_text())
    return [(int(start) * sector, int(count) * sector, kind.upper()) for start, count, kind in rows if kind != "5"]


@pytest.mark.parametrize("sector", [512, 4096])
def test_a_gpt_is_what_fdisk_says(tmp_path: Path, sector: int) -> None:
    path = disk(tmp_path / "d", GPT, sector=sector)
    found = table(path)
    assert found is not None and (found.label, found.sector, found.notes) == ("gpt", sector, ())
    assert found.uuid == "11111111-2222-3333-4444-555555555555"
    assert [(e.start, e.size, e.type) for e in found.entries] == by_fdisk(path, sector)
    assert [e.kind for e in found.entries] == ["bios", "esp", "swap", "linux"]
    assert [e.name for e in found.entries] == ["bios", "ESP ü", "", ""]
    assert found.entries[3].uuid == "99999999-8888-7777-6666-555555555555"


@pytest.mark.parametrize("sector", [512, 4096])
def test_an_mbr_with_logical_partitions_is_what_fdisk_says(tmp_path: Path, sector: int) -> None:
    path = disk(tmp_path / "d", DOS, sector=sector)
    found = table(path, sector)
    assert found is not None and (found.label, found.uuid, found.sector) == ("dos", "1badcafe", sector)
    shown = [(e.start, e.size, e.type.removeprefix("0x").lstrip("0").upper()) for e in found.entries]
    assert shown == by_fdisk(path, sector)
    assert [e.number for e in found.entries] == [1, 2, 5, 6, 7]
    assert [e.uuid for e in found.entries] == [f"1badcafe-0{n}" for n in (1, 2, 5, 6, 7)]
    assert [e.kind for e in found.entries] == ["linux", "swap", "linux", "linux", "lvm"]


@pytest.mark.parametrize("sector", [512, 4096])
@pytest.mark.parametrize("where", ["header", "entries", "both"])
def test_a_damaged_gpt_is_read_from_its_copy(tmp_path: Path, sector: int, where: str) -> None:
    path = disk(tmp_path / "d", GPT, sector=sector)
    whole = table(path)
    change(path, sector if where != "entries" else 2 * sector + 40, b"\xff" * (5000 if where == "both" else 20))
    found = table(path)
    assert whole is not None and found is not None
    assert found.entries == whole.entries and found.sector == sector and "damaged" in found.notes[0]


def test_a_gpt_damaged_twice_is_refused(tmp_path: Path) -> None:
    path = disk(tmp_path / "d", GPT)
    change(path, 1024, b"\xff")
    change(path, (64 << 20) - 33 * 512, b"\xff")
    with pytest.raises(TableInvalid, match="and so is its copy"):
        table(path)
    change(path, 512, bytes(512))
    change(path, (64 << 20) - 512, bytes(512))
    with pytest.raises(TableInvalid, match="and so is its copy"):  # the protective MBR says there was one
        table(path)


def test_a_gpt_whose_mbr_was_cleared_is_read(tmp_path: Path) -> None:
    path = disk(tmp_path / "d", GPT)
    change(path, 0, bytes(512))
    found = table(path)
    assert found is not None and len(found.entries) == 4


def test_an_mbr_over_an_old_gpt_is_believed(tmp_path: Path) -> None:
    path = disk(tmp_path / "d", GPT)
    change(path, 446, struct.pack("<B3xB3xII", 0, 0x83, 2048, 4096) + bytes(48))
    found = table(path)
    assert found is not None and found.label == "dos" and len(found.entries) == 1


@pytest.mark.parametrize(
    "maker", [["mkfs.vfat"], ["mkfs.vfat", "-F", "32"], ["mkntfs", "-F", "-q", "-f"], ["mke2fs", "-q"]]
)
def test_a_bare_filesystem_has_no_table(tmp_path: Path, maker: list[str]) -> None:
    path = tmp_path / "fs"
    with path.open("wb") as file:
        file.truncate(40 << 20)
    try:
        subprocess.run([*maker, str(path)], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip(f"{maker[0]} is not installed")
    assert table(path) is None


def test_an_empty_disk_has_no_table() -> None:
    for size in (0, 1, 511, 512, 1024, 4096, 1 << 20):
        assert read_table(lambda at, n, size=size: bytes(max(0, min(n, size - at))), size) is None  # type: ignore[misc]


def test_partitions_outside_the_disk_and_overlapping_ones_are_refused(tmp_path: Path) -> None:
    path = disk(tmp_path / "d", DOS)
    change(path, 446 + 12, struct.pack("<I", 1 << 30))
    with pytest.raises(TableInvalid, match=r"partition 1 .* does not lie on the disk"):
        table(path)
    change(path, 446 + 12, struct.pack("<I", 30 << 11))
    with pytest.raises(TableInvalid, match="partitions 1 and 2 overlap"):
        table(path)


def test_a_chain_of_logical_partitions_that_goes_round_ends(tmp_path: Path) -> None:
    path = disk(tmp_path / "d", DOS)
    found = table(path)
    assert found is not None
    extended = struct.unpack_from("<I", path.read_bytes()[:512], 446 + 2 * 16 + 8)[0]
    # The first link's second row: the next link is the first one again.
    change(path, extended * 512 + 446 + 16 + 8, struct.pack("<I", 0))
    short = table(path)
    assert short is not None and [e.number for e in short.entries] == [1, 2, 5]
    second = found.entries[3].start // 512 - 2048 - extended
    change(path, extended * 512 + 446 + 16 + 8, struct.pack("<I", second))
    change(path, (extended + second) * 512 + 446 + 16 + 8, struct.pack("<I", second))
    with pytest.raises(TableInvalid, match="goes round"):
        table(path)
