"""What an fstab says of the partitions of its own disk."""

from __future__ import annotations

import pytest

from images.partitions import Entry
from images.sources.disklayout import Volume
from images.sources.disktree import Line, lines, places, role, usable
from images.superblock import Superblock

ROOT = Volume(Entry(2, 1 << 20, 1 << 20, "0x83", "1badcafe-02", "system"), Superblock("ext4", "aaaa-bbbb", "root"))
BOOT = Volume(Entry(1, 0, 1 << 20, "0x83", "1badcafe-01"), Superblock("ext4", "AAAA-CCCC", "my boot"))
DATA = Volume(Entry(3, 2 << 20, 1 << 20, "0x83", "1badcafe-03", "Daten"), Superblock("xfs", "dddd", "data"))
NONE = Volume(Entry(4, 3 << 20, 1 << 20, "0x83", "1badcafe-04"), None)
ALL = [BOOT, ROOT, DATA, NONE]


def test_lines_of_fstab() -> None:
    text = (
        "# no\n\n  UUID=1 /  ext4\tdefaults 0 1\nshort line\n/dev/x none swap sw\n//srv/a /mnt/with\\040space/ cifs x\n"
    )
    assert lines(text) == [
        Line("UUID=1", "/", "ext4"),
        Line("/dev/x", "swap", "swap"),
        Line("//srv/a", "/mnt/with space", "cifs"),
    ]
    assert len(lines("a /b c\n" * 5000)) == 1000


@pytest.mark.parametrize(
    ("source", "number"),
    [("UUID=aaaa-cccc", 1), ('UUID="AAAA-CCCC"', 1), ("LABEL=data", 3), ("PARTUUID=1BADCAFE-03", 3),
     ("PARTLABEL=Daten", 3), ("/dev/disk/by-uuid/dddd", 3), ("/dev/disk/by-label/my\\x20boot", 1),
     ("/dev/disk/by-partuuid/1badcafe-04", 4), ("/dev/sda3", 3), ("/dev/nvme0n1p3", 3), ("/dev/vda1", 1),
     ("LABEL=", 0), ("UUID=", 0), ("LABEL=nobody", 0), ("/dev/mapper/vg-data", 0), ("/dev/sda9", 0), ("server:/x", 0),
     ("UUID=aaaa-bbbb", 0), ("/dev/sda", 0), ("", 0)],
)  # fmt: skip
def test_names_of_partitions(source: str, number: int) -> None:
    found = places([Line("LABEL=root", "/", "ext4"), Line(source, "/somewhere", "auto")], ALL, ROOT)
    assert list(found) == ([number] if number else [])


def test_names_by_the_kernel_count_for_the_disk_of_the_root() -> None:
    table = [Line("/dev/sdb2", "/", "ext4"), Line("/dev/sda1", "/boot", "ext4"), Line("/dev/sdb3", "/d", "xfs")]
    assert {number: line.mount for number, line in places(table, ALL, ROOT).items()} == {3: "/d"}
    without = [Line("UUID=aaaa-bbbb", "/", "ext4"), *table[1:]]
    assert places(without, ALL, ROOT) == {}  # which of both disks is this one?


def test_the_first_place_counts() -> None:
    table = [Line("LABEL=data", "/srv", "xfs"), Line("UUID=dddd", "/opt", "xfs")]
    assert places(table, ALL, ROOT)[3].mount == "/srv"


def test_roles_and_mount_points() -> None:
    assert role("/boot", []) == "boot" and role("/var/lib/MySQL", []) == "var-lib-mysql"
    assert role("/root", []) == "root-2" and role("/whole", ["x"]) == "whole-2" and role("/a/b", ["a-b"]) == "a-b-2"
    assert role("/.hidden", []) == "hidden" and role("/ö", []) == "data" and len(role("/" + "x" * 300, [])) <= 63
    assert (
        usable("/var/log") and not usable("/") and not usable("none") and not usable("/a/../b") and not usable("/a b")
    )
