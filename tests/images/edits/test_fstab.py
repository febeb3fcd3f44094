"""images.edits.fstab."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.edits import fstab
from images.tree import TreeInvalid
from tests.images import systems

ROOT, ESP, SWAP = "95fd9a78-4a9f-561d-aead-869354627bb8", "ABCD-1234", "11111111-4a9f-561d-aead-869354627bb8"
MOUNTS = [
    {"mount": "/", "fs": "ext4", "uuid": ROOT},
    {"mount": "/boot/efi", "fs": "vfat", "uuid": ESP},
    {"mount": "swap", "fs": "swap", "uuid": SWAP},
]


def fitted(root: Path, before: str, mounts: list[dict[str, str]] = MOUNTS) -> tuple[list[str], list[str]]:
    systems.put(root, "etc/fstab", before)
    told = fstab.apply(str(root), {"mounts": mounts})
    return (root / "etc/fstab").read_text().splitlines(), told


def test_lines_of_the_node_take_its_uuids_and_all_others_stay_to_the_byte(tmp_path: Path) -> None:
    kept = ["# a comment ", "", "tmpfs\t/tmp  tmpfs size=1g 0 0", "head:/home /home nfs4 _netdev 0 0",
            "/swapfile none swap sw 0 0", "PARTLABEL=scratch /scratch xfs noauto 0 0"]  # fmt: skip
    lines, told = fitted(tmp_path, "\n".join([
        *kept, "LABEL=cloudimg-rootfs /\text4 noatime,discard 0 1", "/dev/sda1 /boot/efi vfat defaults,quiet 0 1",
        "UUID=dead-beef none swap sw,pri=5 0 0",
    ]) + "\n")  # fmt: skip
    assert lines[: len(kept)] == kept
    assert lines[len(kept) :] == [
        f"UUID={ROOT} /\text4 noatime,discard 0 1",
        f"UUID={ESP} /boot/efi vfat quiet,umask=0077,nofail 0 1",
        f"UUID={SWAP} none swap sw,pri=5 0 0",
    ]
    assert told == ["fstab: /, /boot/efi, swap by UUID"]


def test_missing_lines_are_added_and_mount_points_made(tmp_path: Path) -> None:
    lines, _ = fitted(tmp_path, "# UNCONFIGURED FSTAB FOR BASE SYSTEM\n")
    assert lines == [
        "# UNCONFIGURED FSTAB FOR BASE SYSTEM",
        f"UUID={ROOT} / ext4 defaults,errors=remount-ro 0 1",
        f"UUID={ESP} /boot/efi vfat umask=0077,nofail 0 2",
        f"UUID={SWAP} none swap sw,nofail 0 0",
    ]
    assert (tmp_path / "boot/efi").is_dir()
    before = systems.picture(tmp_path)
    assert fstab.apply(str(tmp_path), {"mounts": MOUNTS}) == [] and systems.picture(tmp_path) == before


def test_partitions_that_only_the_golden_machine_has_do_not_stop_the_boot(tmp_path: Path) -> None:
    lines, told = fitted(
        tmp_path,
        f"UUID={ROOT} / xfs defaults 0 0\nUUID=AAAA-0001 /efi vfat umask=0077 0 2\n/dev/sdb1 none swap sw 0 0\n"
        "UUID=0-1 none swap sw 0 0\n/dev/sdc1 /data ext4 defaults 0 2\n",
        [{"mount": "/", "fs": "xfs", "uuid": ROOT}],
    )
    assert lines == [
        f"UUID={ROOT} / xfs defaults 0 0",
        "# not on this machine: UUID=AAAA-0001 /efi vfat umask=0077 0 2",
        "# not on this machine: /dev/sdb1 none swap sw 0 0",
        "# not on this machine: UUID=0-1 none swap sw 0 0",
        "/dev/sdc1 /data ext4 defaults 0 2",
    ]
    assert len(told) == 5 and "/dev/sdc1 for /data is kept" in told[-1]


def test_a_file_in_place_of_a_mount_point_is_named(tmp_path: Path) -> None:
    systems.put(tmp_path, "boot/efi", "")
    with pytest.raises(TreeInvalid, match="/boot/efi"):
        fitted(tmp_path, "")
