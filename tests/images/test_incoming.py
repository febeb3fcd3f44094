"""Chunks of a golden client on their way in: checked, bounded, and all given back when it comes to nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from images import ext4, incoming, zstd
from images.chunk import CHUNK_SIZE, chunk_hash, touched
from images.errors import Busy, NoSpace, SourceInvalid
from images.incoming import Incoming, Offered
from images.manifest import Manifest
from images.namespace import in_private_namespace
from images.options import Options
from images.publish import Part, publish
from images.reading import Partition
from images.store import Store
from tests.images.sound import damaged
from tests.images.tinytree import tiny_tree

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
SIZE = 200 << 20


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def root(parts: dict[int, Part]) -> list[Part]:
    (part,) = parts.values()
    return [Part("root", part.file, part.fs, "/", part.uuid, part.label)]


def filesystem(folder: Path) -> Path:
    tree = tiny_tree(folder / "tree")
    (tree / "usr/lib/random").write_bytes(os.urandom(3 << 20))
    ext4.make(tree, folder / "fs", name="client", size=SIZE, inodes=2000)
    return folder / "fs"


def send(capture: Incoming, image: Path) -> int:
    """What an agent does; gives the number of chunks that had to be sent."""
    with image.open("rb") as file:
        partition = Partition(file.fileno(), SIZE, "ext4")
        pieces = [partition.read(index) for index in touched(partition.map.extents)]
    lacking = set(capture.lacking(1, [(piece.index, piece.name) for piece in pieces]))
    for piece in pieces:
        if piece.index in lacking:
            capture.take(1, piece.index, zstd.compress(piece.raw, 3))
    return len(lacking)


@needs_root
def test_what_the_head_has_is_not_asked_for(tmp_path: Path, store: Store) -> None:
    image = filesystem(tmp_path)
    with store.lineage_lock("x"):
        publish(store, "x", [Part("root", image)])
    capture = Incoming(store, "x", [Offered(1, SIZE, "ext4", SIZE // 2)])
    assert send(capture, image) == 0 and capture.came == 0 and capture.known > 3 << 20
    manifest = capture.finish(root, Options(message="again"), {"kind": "capture"})
    assert (manifest.ref, manifest.message) == ("x:2", "again") and damaged(store, "x:2") == []
    assert sorted(p.name for p in store.work("x").iterdir()) == ["current"]


@needs_root
def test_a_first_capture_brings_everything(tmp_path: Path, store: Store) -> None:
    image = filesystem(tmp_path)
    capture = Incoming(store, "x", [Offered(1, SIZE, "ext4", SIZE // 2, label="L")])
    assert send(capture, image) > 6 and capture.known == 0 < capture.came
    manifest: Manifest = capture.finish(root, Options(), {"kind": "capture"})
    assert manifest.partitions[0].uuid == ext4.filesystem_uuid("client") and damaged(store, "x") == []


def test_a_second_capture_of_the_lineage_is_told(store: Store) -> None:
    first = Incoming(store, "x", [Offered(1, SIZE, "ext4", 1)])
    with pytest.raises(Busy, match="image x is in use"):
        Incoming(store, "x", [Offered(1, SIZE, "ext4", 1)])
    first.abort()
    first.abort()
    assert list(store.work("x").iterdir()) == []
    Incoming(store, "x", [Offered(1, SIZE, "ext4", 1)]).abort()


def test_chunks_that_are_not_what_they_say(store: Store) -> None:
    capture = Incoming(store, "x", [Offered(3, SIZE, "ext4", SIZE)])
    good, bad = os.urandom(CHUNK_SIZE), os.urandom(CHUNK_SIZE)
    assert capture.lacking(3, [(0, chunk_hash(good)), (1, b"")]) == [0]
    for frame, words in (
        (zstd.compress(bad, 1), "does not match its hash"),
        (zstd.compress(good + b"x", 1), "damaged|match"),
        (b"no frame at all", "damaged"),
    ):
        with pytest.raises(SourceInvalid, match=words):
            capture.take(3, 0, frame)
    with pytest.raises(SourceInvalid, match="1 chunks of the capture have not come"):
        capture.finish(root, Options(), {})
    assert store.images() == [] and list(store.work("x").iterdir()) == []


def test_a_chunk_that_comes_twice_or_unasked_does_no_harm(store: Store) -> None:
    capture = Incoming(store, "x", [Offered(3, SIZE, "ext4", SIZE)])
    raw = os.urandom(CHUNK_SIZE)
    frame = zstd.compress(raw, 1)
    capture.take(3, 5, frame)
    assert capture.lacking(3, [(0, chunk_hash(raw))]) == [0]
    capture.take(3, 0, frame)
    capture.take(3, 0, frame)
    assert capture.came == len(frame)
    capture.abort()


@pytest.mark.parametrize(
    "offered",
    [
        [],
        [Offered(1, 0, "ext4", 0)],
        [Offered(1, 1 << 60, "ext4", 0)],
        [Offered(1, 100, "ext4", 101)],
        [Offered(-1, 100, "ext4", 1)],
        [Offered(1, 100, "ext4", 1), Offered(1, 100, "ext4", 1)],
        [Offered(n + 1, 100, "ext4", 1) for n in range(200)],
    ],
)
def test_what_cannot_be_partitions(store: Store, offered: list[Offered]) -> None:
    with pytest.raises(SourceInvalid):
        Incoming(store, "x", offered)
    assert not store.work("x").exists()


def test_places_outside_are_refused_and_what_waits_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "MAX_ASKED", 3)
    capture = Incoming(store, "x", [Offered(1, CHUNK_SIZE * 8, "ext4", 1)])
    for number, index in ((2, 0), (1, 8), (1, -1), (1, 1 << 60)):
        with pytest.raises(SourceInvalid):
            capture.lacking(number, [(index, b"h" * 32)])
        with pytest.raises(SourceInvalid):
            capture.take(number, index, b"x")
    with pytest.raises(SourceInvalid, match="more than 3 chunks"):
        capture.lacking(1, [(n, bytes([n]) * 32) for n in range(5)])
    capture.abort()


@needs_root
def test_a_disk_that_is_too_full_is_told_before_anything_is_sent(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()

    def body() -> list[str]:
        os.system(f"mount -t tmpfs -o size=80m gild-test {disk}")
        store = Store(disk / "store")
        with pytest.raises(NoSpace, match="MiB are needed"):
            Incoming(store, "x", [Offered(1, 1 << 30, "ext4", 40 << 20)])
        return [p.name for p in store.work("x").iterdir()]

    assert in_private_namespace(body) == []
