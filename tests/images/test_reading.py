"""Reading a golden client: the same names as publishing the same filesystem gives, and deleted files stay there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from images import ext4
from images.chunk import CHUNK_SIZE, touched
from images.errors import ImageError
from images.manifest import Kind
from images.publish import Part, publish
from images.reading import Partition
from images.store import Store
from tests.images.tinytree import tiny_tree

SIZE, OFFSET = 200 << 20, 3 << 20


def test_the_names_are_those_of_the_published_version(tmp_path: Path) -> None:
    tree = tiny_tree(tmp_path / "tree")
    (tree / "usr/lib/random").write_bytes(os.urandom(2 << 20))
    image, disk = tmp_path / "fs", tmp_path / "disk"
    ext4.make(tree, image, name="x", size=SIZE, inodes=2000)
    # The partition stands somewhere on a disk that was used before: what is free there holds old files.
    with image.open("rb") as made, disk.open("wb") as file:
        file.write(b"\xee" * OFFSET)
        file.write(made.read())
    with disk.open("r+b") as file:
        partition = Partition(file.fileno(), SIZE, "ext4", OFFSET)
        assert partition.map.known
        free = next(
            at for at in range(SIZE - 4096, 0, -4096) if not any(s <= at < s + n for s, n in partition.map.extents)
        )
        os.pwrite(file.fileno(), b"deleted!" * 512, OFFSET + free)
        pieces = {index: partition.read(index) for index in touched(partition.map.extents)}
        assert not any(b"deleted!" in piece.raw for piece in pieces.values())
    store = Store(tmp_path / "store")
    with store.lineage_lock("x"):
        manifest = publish(store, "x", [Part("root", image)])
    published = {
        run.start + n: name
        for run in store.runs(manifest, 0)
        if run.kind is Kind.DATA
        for n, (name, _) in enumerate(run.chunks)
    }
    named = {index: piece.name for index, piece in pieces.items() if piece.name}
    # The check before publishing writes its date into the superblock, which lies in the first chunk.
    assert named.pop(0) and published.pop(0) and named == published


def test_a_disk_that_ends_early_is_an_error(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(CHUNK_SIZE + 100))
    with disk.open("rb") as file:
        partition = Partition(file.fileno(), 4 * CHUNK_SIZE, "")
        assert partition.read(0).name == b""
        with pytest.raises(ImageError, match="ends at byte"):
            partition.read(1)
