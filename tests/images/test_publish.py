"""Publishing: what comes back is what went in, old chunks are not stored again, deleted bytes stay at home."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from images import ext4, packs
from images.errors import CommandFailed, ImageError, NoSpace
from images.manifest import Kind, Manifest
from images.publish import Facts, Part, publish
from images.store import Store
from images.working import restore
from tests.images.sound import damaged

SIZE = 24 << 20


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def filesystem(path: Path, files: dict[str, bytes]) -> Path:
    """An ext4 image holding `files`, made the deterministic way."""
    tree = path.with_suffix(".tree")
    tree.mkdir()
    for name, data in files.items():
        (tree / name).write_bytes(data)
        os.utime(tree / name, (1, 1))
    os.utime(tree, (1, 1))
    with path.open("wb") as file:
        file.truncate(SIZE)
    argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-U", ext4.filesystem_uuid("x"), "-L", "gild-root"]
    argv += ["-E", f"hash_seed={ext4.filesystem_uuid('x')},lazy_itable_init=1,nodiscard", "-d", os.fspath(tree)]
    subprocess.run([*argv, path], check=True, env={**os.environ, **ext4.fixed_time()})
    return path


def put(store: Store, image: Path, fs: str = "ext4", **options: object) -> Manifest:
    with store.lineage_lock("x"):
        return publish(store, "x", [Part("root", image, fs)], **options)  # type: ignore[arg-type]


def read(image: Path, name: str) -> bytes:
    return subprocess.run(["debugfs", "-R", f"cat /{name}", image], capture_output=True, check=True).stdout


def test_a_version_restores_to_the_same_filesystem(tmp_path: Path, store: Store) -> None:
    files = {"random": os.urandom(700_001), "zeros": bytes(900_000), "twice": b"ab" * 400_000, "same": b"ab" * 400_000}
    image = filesystem(tmp_path / "one.img", files)
    heard: list[tuple[str, int, int]] = []
    manifest = put(store, image, facts=Facts(message="hello", cmdline="quiet"), progress=lambda *at: heard.append(at))
    assert (manifest.ref, manifest.message, manifest.cmdline) == ("x:1", "hello", "quiet")
    part = manifest.partitions[0]
    assert (part.fs, part.uuid, part.label, part.size) == ("ext4", ext4.filesystem_uuid("x"), "gild-root", SIZE)
    assert {phase for phase, _, _ in heard} == {"check", "map", "store"} and heard[-1][1] == heard[-1][2]
    assert store.tag("x") == 1 and damaged(store, "x") == []
    kinds = {run.kind for run in store.runs(manifest, 0)}
    assert kinds == {Kind.DATA, Kind.ZERO, Kind.FREE}
    restore(store, manifest, 0, tmp_path / "back.img")
    assert subprocess.run(["e2fsck", "-fn", tmp_path / "back.img"], capture_output=True, check=False).returncode == 0
    for name, data in files.items():
        assert read(tmp_path / "back.img", name) == data


def test_zeros_in_use_are_told_from_free_blocks(tmp_path: Path, store: Store) -> None:
    """On a dirty disk only what is marked zero is zeroed: fill a target with 0xFF, obey the runs, read the file."""
    image = filesystem(tmp_path / "one.img", {"zeros": bytes(900_000)})
    manifest = put(store, image)
    target = bytearray(b"\xff" * SIZE)
    for run in store.runs(manifest, 0):
        start, end = run.start * manifest.chunk_size, min((run.start + run.count) * manifest.chunk_size, SIZE)
        if run.kind is Kind.ZERO:
            target[start:end] = bytes(end - start)
        offset = run.offset
        for n, (name, frame) in enumerate(run.chunks):
            at = start + n * manifest.chunk_size
            length = min(manifest.chunk_size, SIZE - at)
            target[at : at + length] = store.read_chunk(manifest.packs[run.pack], offset, frame, length, name)
            offset += frame
    (tmp_path / "dirty.img").write_bytes(target)
    assert read(tmp_path / "dirty.img", "zeros") == bytes(900_000)


def test_the_next_version_stores_only_what_changed(tmp_path: Path, store: Store) -> None:
    stays = os.urandom(3_000_000)
    image = filesystem(tmp_path / "one.img", {"a": stays, "b": b"old" * 1000})
    # Copied, not made again: mke2fs -d writes each file's change time, and nobody can set that.
    shutil.copy(image, tmp_path / "two.img")
    first = put(store, image)
    same = put(store, tmp_path / "two.img")
    assert same.packs == first.packs and same.version == 2 and same.parent == 1
    assert same.partitions[0].runs_sha256 == first.partitions[0].runs_sha256
    third = put(store, filesystem(tmp_path / "three.img", {"a": stays, "b": b"new" * 1000}))
    new = [pack for pack in third.packs if pack not in first.packs]
    assert len(new) == 1 and store.pack_path(new[0]).stat().st_size < 600_000
    assert damaged(store, "x:3") == [] and store.tag("x") == 1
    assert put(store, tmp_path / "one.img", tag=True).version == store.tag("x") == 4


def test_deleted_bytes_are_not_published(tmp_path: Path, store: Store) -> None:
    secret = b"secret!!" * 1024
    image = filesystem(tmp_path / "one.img", {"keep": b"k" * 9000, "secret": secret, "tail": b"t" * 9000})
    subprocess.run(["debugfs", "-w", "-R", "rm /secret", image], capture_output=True, check=True)
    assert secret[:64] in image.read_bytes()
    manifest = put(store, image)
    restore(store, manifest, 0, tmp_path / "back.img")
    assert b"secret!!secret!!" not in (tmp_path / "back.img").read_bytes()
    assert read(tmp_path / "back.img", "keep") == b"k" * 9000
    assert b"secret!!secret!!" not in image.read_bytes()


def test_a_filesystem_without_a_reader_is_published_whole(tmp_path: Path, store: Store) -> None:
    image = tmp_path / "raw"
    data = os.urandom(300_000) + bytes(700_000) + os.urandom(77)
    image.write_bytes(data)
    manifest = put(store, image, fs="xfs")
    assert {run.kind for run in store.runs(manifest, 0)} <= {Kind.DATA, Kind.ZERO}
    restore(store, manifest, 0, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data


def test_a_lost_pack_heals_with_the_next_version(tmp_path: Path, store: Store) -> None:
    image = filesystem(tmp_path / "one.img", {"a": os.urandom(500_000)})
    first = put(store, image)
    store.pack_path(first.packs[0]).unlink()
    put(store, image)
    assert damaged(store, "x:2") == []


def test_what_is_no_sound_filesystem_is_refused(tmp_path: Path, store: Store) -> None:
    (tmp_path / "junk").write_bytes(b"junk" * 10000)
    with pytest.raises(ImageError, match="does not hold an ext4"):
        put(store, tmp_path / "junk")
    image = filesystem(tmp_path / "one.img", {"a": b"a"})
    with image.open("r+b") as file:
        os.pwrite(file.fileno(), b"\xff" * 4096 * 40, 4096)  # descriptors, bitmaps and the first inode table
    with pytest.raises((CommandFailed, ImageError)):
        put(store, image)
    assert store.versions("x") == [] and list(store.packs.iterdir()) == []


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    image = filesystem(tmp_path / "one.img", {"a": os.urandom(3_000_000)})

    def full(self: packs.PackWriter, name: bytes, frame: bytes, length: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(packs.PackWriter, "add", full)
    with pytest.raises(NoSpace, match="publishing x:1"):
        put(store, image)
    assert store.versions("x") == [] and list(store.packs.iterdir()) == []
