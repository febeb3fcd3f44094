"""The store: names, versions, tags, locks, garbage, damage."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from images import packs, zstd
from images.chunk import chunk_hash
from images.errors import Busy, ManifestInvalid, NoSpace, NotFound
from images.keeping.garbage import collect
from images.manifest import Kind, Manifest, Partition, Run, decode_manifest, digest, encode_manifest, encode_runs
from images.store import Store
from tests.images.sound import damaged

CHUNK = 4096


def add(store: Store, name: str, pieces: list[bytes]) -> Manifest:
    """Publish `pieces`, one chunk each, as the next version."""
    with store.lineage_lock(name):
        number = store.next_version(name)
        chunks = []
        with packs.PackWriter(store.packs) as writer:
            for piece in pieces:
                frame = zstd.compress(piece, 3)
                writer.add(chunk_hash(piece), frame, len(piece))
                chunks.append((chunk_hash(piece), len(frame)))
            pack = writer.finish()
        size = CHUNK * len(pieces)
        runs = encode_runs([Run(Kind.DATA, 0, len(pieces), 0, 0, tuple(chunks))], size, CHUNK)
        part = Partition("root", "ext4", "u", size, size, digest(runs), len(runs))
        manifest = Manifest(name, number, 1, "amd64", CHUNK, (pack,), (part,))
        store.add_version(encode_manifest(manifest), name, number, runs)
        return manifest


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def page(letter: str) -> bytes:
    return letter.encode() * CHUNK


def test_refs_resolve_to_the_tag_then_the_newest(store: Store) -> None:
    add(store, "compute", [page("a")])
    add(store, "compute", [page("b")])
    assert store.images() == ["compute"] and store.versions("compute") == [1, 2]
    assert store.resolve("compute") == ("compute", 2)
    store.set_tag("compute", 1)
    assert store.resolve("compute") == ("compute", 1) and store.tag("compute") == 1
    assert store.resolve("compute:latest") == ("compute", 2)
    manifest, sha = store.load("compute:1")
    assert manifest.ref == "compute:1" and store.find_digest(sha) == store.manifest_path("compute", 1)
    assert decode_manifest(store.manifest_bytes(sha)) == manifest
    assert [run.count for run in store.runs(manifest, 0)] == [1]


@pytest.mark.parametrize("ref", ["nothing", "compute:9", "compute:x", "../etc", "compute:../1", "", "A", "a" * 64])
def test_unknown_refs_say_what_there_is(store: Store, ref: str) -> None:
    add(store, "compute", [page("a")])
    with pytest.raises(NotFound) as failure:
        store.load(ref)
    assert failure.value.hint


def test_a_pack_path_takes_nothing_but_a_hash(store: Store) -> None:
    assert store.pack_path("ab" * 32).parent == store.packs
    for bad in ("../../etc/passwd", "AB" * 32, "ab" * 31, "ab" * 32 + "\n"):
        with pytest.raises(NotFound):
            store.pack_path(bad)


def test_a_number_is_never_given_twice(store: Store) -> None:
    add(store, "compute", [page("a")])
    add(store, "compute", [page("b")])
    store.remove("compute:2")
    assert add(store, "compute", [page("c")]).version == 3


def test_the_tagged_version_is_not_removed_alone(store: Store) -> None:
    add(store, "compute", [page("a")])
    add(store, "compute", [page("b")])
    store.set_tag("compute", 1)
    with pytest.raises(Busy, match="compute:1 is what nodes get"):
        store.remove("compute:1")
    store.remove("compute")
    assert store.images() == [] and store.tag("compute") == 0


def test_garbage_is_what_no_version_names(store: Store) -> None:
    one, two = add(store, "compute", [page("a")]), add(store, "other", [page("b")])
    sha = store.load("compute:1")[1]
    store.remove("compute:1")
    (store.packs / ".tmp-crashed").write_bytes(b"x" * 10)
    assert collect(store).packs == (), "too young"
    with pytest.raises(Busy, match="still installs"):
        collect(store, live_versions=[sha], grace=0)
    dry = collect(store, dry_run=True, grace=0)
    assert dry.packs == one.packs and store.pack_path(one.packs[0]).exists() and dry.freed > 0
    collect(store, grace=0)
    assert sorted(p.name for p in store.packs.iterdir()) == [f"{two.packs[0]}.idx", f"{two.packs[0]}.pack"]
    assert damaged(store, "other") == []


def test_a_lineage_is_written_by_one_and_garbage_waits(store: Store) -> None:
    add(store, "compute", [page("a")])
    with store.lineage_lock("compute"):
        with (
            pytest.raises(Busy, match=f"image compute is in use by process {os.getpid()}"),
            store.lineage_lock("compute"),
        ):
            pass
        with pytest.raises(Busy, match="the store is in use"):
            collect(store)
        with store.lineage_lock("other"):
            pass
    with store.lineage_lock("compute"):
        pass


def test_verify_finds_a_flipped_bit_a_lost_pack_and_is_silent_otherwise(store: Store) -> None:
    manifest = add(store, "compute", [page("a"), os.urandom(CHUNK), page("c")])
    heard: list[tuple[str, int, int]] = []
    assert damaged(store, "compute", lambda *at: heard.append(at)) == []
    assert heard[-1][1] == heard[-1][2] > 0
    path = store.pack_path(manifest.packs[0])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    found = damaged(store, "compute")
    assert [(d.partition, d.chunk, d.pack, d.versions) for d in found] == [
        ("root", 1, manifest.packs[0], ("compute:1",)),
    ]
    path.unlink()
    assert [d.what for d in damaged(store, "compute")] == ["is missing"]


def test_damaged_files_of_a_version_are_named(store: Store) -> None:
    manifest = add(store, "compute", [page("a")])
    store.runs_path("compute", 1).write_bytes(b"nonsense")
    with pytest.raises(ManifestInvalid, match="compute:1"):
        store.runs(manifest, 0)
    store.manifest_path("compute", 1).write_bytes(b"{}")
    with pytest.raises(ManifestInvalid):
        store.load("compute")


def test_a_full_disk_keeps_the_version_out(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = add(store, "compute", [page("a")])

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NoSpace, match="storing compute:2"):
        store.add_version(encode_manifest(manifest), "compute", 2, b"runs")
    assert store.versions("compute") == [1]
    assert not [p for p in (store.root / "images/compute").iterdir() if p.name.startswith(".tmp")]
