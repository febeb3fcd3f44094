"""What the agent says of a golden client's disk, and how it packs what is lacking."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from images import ext4
from images.chunk import CHUNK_SIZE
from images.reading import Piece
from netboot.agent.capture import CaptureRefused, _bodies, _open, survey
from netboot.capture import MAX_BODY, decode_frames
from netboot.report import Disk
from tests.images.tinytree import tiny_tree

MIB = 1 << 20


def seen(path: Path) -> Disk:
    return Disk(str(path), path.stat().st_size)


def test_a_survey_names_every_partition_and_what_is_in_use(tmp_path: Path) -> None:
    disk, image = tmp_path / "disk", tmp_path / "fs"
    ext4.make(tiny_tree(tmp_path / "tree"), image, name="x", size=200 * MIB, inodes=2000)
    with disk.open("wb") as file:
        file.truncate(300 * MIB)
    table = "label: gpt\n1 : start=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649\n"
    table += "2 : start=4096, size=409600\n"
    subprocess.run(["sfdisk", "-q", disk], input=table.encode(), check=True, capture_output=True)
    with disk.open("r+b") as file:
        file.seek(2 * MIB)
        file.write(image.read_bytes())
    fd = _open(str(disk))
    try:
        label, found = survey(fd, seen(disk))
    finally:
        os.close(fd)
    (bios, bios_at), (root, root_at) = found
    assert label == "gpt" and (bios.kind, bios.used, bios_at) == ("bios", 0, MIB)
    assert (root.number, root.kind, root.fs, root.size, root_at) == (2, "linux", "ext4", 200 * MIB, 2 * MIB)
    assert root.uuid == ext4.filesystem_uuid("x") and root.partuuid and 0 < root.used < root.size and not root.note


def test_a_disk_without_a_table_is_one_partition(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    ext4.make(tiny_tree(tmp_path / "tree"), disk, name="x", size=200 * MIB, inodes=2000)
    fd = _open(str(disk))
    try:
        label, ((part, at),) = survey(fd, seen(disk))
    finally:
        os.close(fd)
    assert (label, part.number, part.fs, at) == ("", 0, "ext4", 0)


def test_a_disk_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(CaptureRefused, match="nothing cannot be read"):
        _open(str(tmp_path / "nothing"))


def test_bodies_are_as_full_as_the_head_takes_them() -> None:
    pieces = [Piece(n, b"h" * 32, os.urandom(CHUNK_SIZE)) for n in range(20)]
    bodies = list(_bodies(7, pieces))
    assert all(len(body) <= MAX_BODY for body, _ in bodies) and len(bodies) == 3
    frames = [index for body, _ in bodies for index, _ in decode_frames(body)[1]]
    assert frames == list(range(20)) and decode_frames(bodies[0][0])[0] == 7
    assert list(_bodies(7, [])) == []
