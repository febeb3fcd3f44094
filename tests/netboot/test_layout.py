"""Layouts: exact sums, the smallest disk that still works, and clear words when it does not fit."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.manifest import Manifest, Partition
from netboot import layout
from netboot.layout import MIB, LayoutFailed, check, parse_size, place
from netboot.plan import DEFAULT_LAYOUT, LayoutPart

GIB = 1 << 30
BIOS, ESP, SWAP, ROOT = DEFAULT_LAYOUT


def test_default_layout_on_a_20_gib_disk() -> None:
    placed = place(DEFAULT_LAYOUT, 20 * GIB, 2 * GIB, {"root": 3 * GIB})
    assert [(p.number, p.start, p.size) for p in placed] == [
        (1, 2048, 2048),
        (2, 4096, 128 * 2048),
        (3, 4096 + 128 * 2048, 2 * GIB // 512),
        (4, 4096 + 128 * 2048 + 2 * GIB // 512, (20 * GIB - MIB) // 512 - (4096 + 128 * 2048 + 2 * GIB // 512)),
    ]
    assert placed[0].type == "21686148-6449-6E6F-744E-656564454649"


def test_ram_is_bounded_and_gives_way_on_a_small_disk() -> None:
    assert place(DEFAULT_LAYOUT, 500 * GIB, 64 * GIB)[2].bytes == 8 * GIB
    assert place(DEFAULT_LAYOUT, 500 * GIB, 100 * MIB)[2].bytes == 256 * MIB
    small = place(DEFAULT_LAYOUT, 5 * GIB, 64 * GIB, {"root": 3 * GIB})
    spare = 5 * GIB - 2 * MIB - (1 + 128 + 256) * MIB - 3 * GIB
    assert small[3].bytes - 3 * GIB >= spare // 2
    assert 256 * MIB < small[2].bytes < 2 * GIB


def test_it_fits_to_the_last_mib_and_fails_one_below() -> None:
    need = MIB + (1 + 128 + 256) * MIB + 3 * GIB + MIB  # first MiB, partitions, backup GPT
    assert place(DEFAULT_LAYOUT, need, 16 * GIB, {"root": 3 * GIB})[3].bytes == 3 * GIB
    with pytest.raises(LayoutFailed, match=r"needs 3\.4 GiB \(bios 1 MiB, esp 128 MiB, swap 256 MiB, root 3\.0 GiB\)"):
        place(DEFAULT_LAYOUT, need - MIB, 16 * GIB, {"root": 3 * GIB})


def test_a_fixed_partition_smaller_than_its_image_is_refused() -> None:
    parts = (BIOS, ESP, replace(ROOT, size="2GiB"))
    with pytest.raises(LayoutFailed, match=r"'root' is 2\.0 GiB and the image needs 2\.5 GiB"):
        place(parts, 20 * GIB, GIB, {"root": 2 * GIB + GIB // 2})
    parts = (BIOS, ESP, replace(ROOT, high=2 * GIB))
    with pytest.raises(LayoutFailed, match="upper bound"):
        place(parts, 20 * GIB, GIB, {"root": 3 * GIB})


def test_rest_in_the_middle_leaves_room_behind_and_high_bounds_it() -> None:
    data = LayoutPart("data", "data", "4GiB", fs="xfs", mount="/data")
    placed = place((BIOS, ESP, ROOT, data), 20 * GIB, GIB)
    assert placed[3].bytes == 4 * GIB
    assert placed[3].offset + placed[3].bytes == 20 * GIB - MIB
    bounded = place((BIOS, ESP, replace(ROOT, high=6 * GIB), data), 20 * GIB, GIB)
    assert bounded[2].bytes == 6 * GIB


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ((ESP, BIOS, ROOT), "partition 1"),
        ((BIOS, ROOT), "partition 2"),
        ((BIOS, ESP, ROOT, replace(SWAP, size="rest")), "more than one"),
        ((BIOS, ESP, SWAP), "mounted at"),
        ((BIOS, ESP, ROOT, replace(ESP, name="esp2", mount="/x", label="")), "second one"),
        ((BIOS, ESP, replace(ROOT, name='x", type="0')), "has the name"),
        ((BIOS, ESP, replace(ROOT, mount="/../etc"), ROOT), "cannot be mounted"),
        ((BIOS, ESP, ROOT, replace(SWAP, name="root")), "two partitions"),
        ((BIOS, ESP, replace(ROOT, size="lots")), "not a size"),
        ((BIOS, ESP, replace(ROOT, size="0MiB")), "no size"),
        ((BIOS, ESP, replace(ROOT, kind="boot")), "unknown kind"),
        ((BIOS, ESP, replace(ROOT, role="", fs="zfs")), "filesystem 'zfs'"),
        ((BIOS, replace(ESP, label="MUCHTOOLONGLABEL"), ROOT), "label too long"),
        ((BIOS, ESP, replace(ROOT, low=2, high=1)), "bounds"),
        ((BIOS, ESP, ROOT, *(replace(SWAP, name=f"s{n}", label="") for n in range(130))), "more than a GPT"),
    ],
)
def test_what_check_refuses(parts: tuple[LayoutPart, ...], words: str) -> None:
    with pytest.raises(LayoutFailed, match=words):
        check(parts)


def test_sizes() -> None:
    assert parse_size("512MiB") == 512 * MIB
    assert parse_size("2 GB") == 2_000_000_000
    for wrong in ("", "-1MiB", "1.5GiB", "5 apples", "99999999999999999999"):
        with pytest.raises(LayoutFailed):
            parse_size(wrong)


sizes = st.sampled_from(["ram", "1MiB", "100MB", "3GiB"])
extra = st.builds(
    LayoutPart,
    name=st.uuids().map(lambda u: "p" + u.hex[:8]),
    kind=st.sampled_from(["swap", "data", "home"]),
    size=sizes,
    low=st.integers(0, 4 * GIB),
    high=st.just(0),
)


@given(
    st.lists(extra, max_size=5, unique_by=lambda part: part.name),
    st.integers(0, 100 * GIB),
    st.integers(1, 64 * GIB),
    st.integers(1, 20 * GIB),
    st.sampled_from([512, 4096]),
)
def test_whatever_is_placed_is_aligned_in_order_and_inside(
    extras: list[LayoutPart], disk: int, memory: int, image: int, sector: int
) -> None:
    try:
        placed = place((BIOS, ESP, *extras, ROOT), disk, memory, {"root": image}, sector=sector)
    except LayoutFailed:
        return
    at = MIB
    for p in placed:
        assert p.offset == at
        assert p.bytes > 0 and p.bytes % MIB == 0
        at += p.bytes
    assert at <= disk - layout.GPT_ENTRIES - sector
    assert placed[-1].bytes >= image
    assert all(p.bytes >= p.part.low for p in placed)


def test_sfdisk_takes_the_script_and_keeps_every_number(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(2 * GIB + 12345 * 4096)
    placed = place(DEFAULT_LAYOUT, disk.stat().st_size, GIB, {"root": GIB})
    subprocess.run(
        ["sfdisk", "--quiet", str(disk)], input=layout.script(placed).encode(), check=True, capture_output=True
    )
    told = subprocess.run(["sfdisk", "--json", str(disk)], check=True, capture_output=True).stdout
    found = json.loads(told)["partitiontable"]["partitions"]
    assert [(row["node"], row["start"], row["size"], row["type"], row["name"]) for row in found] == [
        (f"{disk}{p.number}", p.start, p.size, p.type, p.part.name) for p in placed
    ]


def image(**mounts: str) -> Manifest:
    """A version with a partition per role, each of 100.5 MiB."""
    parts = tuple(Partition(role, "xfs", "u", 201 * MIB // 2, 1, "0" * 64, 24) for role in mounts)
    system = {"mounts": {role: mount for role, mount in mounts.items() if mount}}
    return Manifest("x", 1, 0, "amd64", 524288, (), parts, system=system)


def test_every_partition_of_an_image_finds_a_place() -> None:
    assert layout.fitted(DEFAULT_LAYOUT, image(root="/")) == DEFAULT_LAYOUT
    parts = layout.fitted(DEFAULT_LAYOUT, image(root="/", boot="/boot", home="/home"))
    assert [(p.name, p.size, p.mount, p.role, p.kind) for p in parts[3:]] == [
        ("boot", "101MiB", "/boot", "boot", "linux"),
        ("home", "101MiB", "/home", "home", "home"),
        ("root", "rest", "/", "root", "linux"),
    ]
    check(parts)


def test_an_image_fills_what_the_layout_mounts_at_its_place() -> None:
    mine = (*DEFAULT_LAYOUT, LayoutPart("homes", "home", "2GiB", fs="ext4", mount="/home"))
    parts = layout.fitted(mine, image(root="/", home="/home"))
    assert len(parts) == len(mine) and (parts[-1].role, parts[-1].fs, parts[-1].size) == ("home", "xfs", "2GiB")


def test_a_role_the_image_has_not_is_named() -> None:
    with pytest.raises(LayoutFailed, match="x:1 has no partition root"):
        layout.fitted(DEFAULT_LAYOUT, image(boot="/boot"))


@pytest.mark.parametrize(("size", "sector", "words"), [(100 * MIB, 512, "has 100 MiB"), (GIB, 4096, "4096")])
def test_a_whole_disk_wants_one_like_it(size: int, sector: int, words: str) -> None:
    manifest = image(whole="")
    assert manifest.whole and manifest.mount("whole") == ""
    layout.check_whole(manifest, 101 * MIB, 512)
    with pytest.raises(LayoutFailed, match=words):
        layout.check_whole(manifest, size, sector)


def test_the_recipes_layout_stands_in_for_the_default_one_alone() -> None:
    rows = [
        {"name": "swap", "size": "1GiB", "mount": "swap"},
        {"name": "scratch", "size": "10GiB", "fs": "xfs", "mount": "/scratch"},
        {"name": "root", "size": "rest", "mount": "/"},
    ]
    manifest = replace(image(root="/"), source={"kind": "recipe", "layout": rows})
    parts = layout.fitted(DEFAULT_LAYOUT, manifest)
    assert [(p.name, p.kind, p.fs, p.role) for p in parts] == [
        ("bios", "bios", "", ""), ("esp", "esp", "vfat", ""), ("swap", "swap", "swap", ""),
        ("scratch", "linux", "xfs", ""), ("root", "linux", "", "root"),
    ]  # fmt: skip
    check(parts)
    mine = (BIOS, ESP, ROOT)
    assert layout.fitted(mine, manifest) == mine
    with pytest.raises(LayoutFailed, match="cannot be read"):
        layout.fitted(DEFAULT_LAYOUT, replace(manifest, source={"layout": [{"name": 7}]}))
