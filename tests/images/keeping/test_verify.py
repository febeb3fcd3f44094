"""Verify: each kind of damage is found, named, and traced to the versions it touches."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from images import packs
from images.errors import ChunkInvalid, NotFound
from images.keeping.damage import Damage
from images.keeping.verify import quick, refuse_damaged, verify
from images.manifest import encode_manifest
from images.packs import read_index, read_mark
from images.store import Store
from tests.images.smallstore import CHUNK, add, contents, flip, piece


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three versions: x:2 shares half of x:1's pack, y:1 has one of its own."""
    made = Store(tmp_path / "store")
    one = add(made, "x", {"boot": [1, 2], "root": [3, 4, 5, 6]})
    add(made, "x", {"boot": [1, 7], "root": [3, 4, 5, 8]}, share=one.packs)
    add(made, "y", {"root": [20, 21]})
    return made


def only(found: tuple[Damage, ...]) -> Damage:
    assert len(found) == 1, found
    return found[0]


def test_a_sound_store_has_no_damage_and_each_byte_is_read_once(store: Store) -> None:
    heard: list[tuple[str, int, int]] = []
    report = verify(store, progress=lambda *at: heard.append(at))
    total = sum(path.stat().st_size for path in store.packs.glob("*.pack"))
    assert (report.damage, report.strays, report.more) == ((), (), 0)
    assert report.checked == ("x:1", "x:2", "y:1") and report.size == total
    assert heard[-1] == ("verify", total, total) and max(done for _, done, _ in heard) == total
    assert all(quick(store, ref) == [] for ref in report.checked)


def test_a_chunk_is_named_by_pack_byte_partition_and_by_the_versions_it_touches(store: Store) -> None:
    shared, own = store.load("x:1")[0].packs[0], store.load("x:2")[0].packs[1]
    offset, length, _ = read_index(store.packs, shared).find(_name(3)) or (0, 0, 0)
    flip(store.pack_path(shared), offset + length // 2)
    damage = only(verify(store).damage)
    assert damage.pack == shared and damage.versions == ("x:1", "x:2")
    assert (damage.partition, damage.chunk, damage.offset, damage.length) == ("root", 0, offset, length)
    assert str(damage).startswith(f"pack {shared[:12]}, byte {offset}, chunk 0 of root: ")
    assert [bool(quick(store, ref)) for ref in ("x:1", "x:2", "y:1")] == [True, True, False]
    flip(store.pack_path(shared), offset + length // 2)

    place, _, _ = read_index(store.packs, shared).find(_name(6)) or (0, 0, 0)
    flip(store.pack_path(shared), place + 20)
    assert only(verify(store).damage).versions == ("x:1",)
    assert quick(store, "x:1") and not quick(store, "x:2"), "its chunks are all right"
    with pytest.raises(ChunkInvalid, match="x:1 is damaged: pack"):
        refuse_damaged(store, "x:1")
    refuse_damaged(store, "x:2")
    flip(store.pack_path(shared), place + 20)
    assert verify(store).damage == () and quick(store, "x:1") == [], "the note goes with the damage"
    assert own != shared


def _name(seed: int) -> bytes:
    from images.chunk import chunk_hash

    return chunk_hash(piece(seed))


def test_only_the_versions_asked_for_are_read_but_all_they_touch_are_named(store: Store) -> None:
    shared, other = store.load("x:1")[0].packs[0], store.load("y:1")[0].packs[0]
    flip(store.pack_path(shared), 10)
    flip(store.pack_path(other), 10)
    damage = only(verify(store, ["x:2"]).damage)
    assert damage.pack == shared and damage.versions == ("x:1", "x:2")
    with pytest.raises(NotFound):
        verify(store, ["x:2", "z"])


def test_a_pack_cut_short_and_a_lost_one(store: Store) -> None:
    shared = store.load("x:1")[0].packs[0]
    path = store.pack_path(shared)
    size = path.stat().st_size
    os.truncate(path, size - 1)
    damage = only(verify(store).damage)
    assert (damage.what, damage.versions, damage.offset) == (f"ends after {size - 1} bytes", ("x:1",), size - 1)
    assert quick(store, "x:1") and not quick(store, "x:2"), "the last chunk is x:1's alone"
    path.unlink()
    damage = only(verify(store).damage)
    assert (damage.file, damage.what, damage.versions) == (f"packs/{shared}.pack", "is missing", ("x:1", "x:2"))
    assert only(tuple(quick(store, "x:2"))).what == "is missing"
    with pytest.raises(ChunkInvalid, match="is missing"):
        refuse_damaged(store, "x:2")


def test_bytes_that_no_version_uses_touch_none(store: Store) -> None:
    with store.lineage_lock("x"), packs.PackWriter(store.packs) as writer:
        writer.add(b"gap", b"these bytes are no frame", 4096)
        pack = writer.finish()
    (store.packs / f"{pack}.idx").write_bytes(packs.encode_index([]))
    assert verify(store).damage == ()
    flip(store.pack_path(pack), 3)
    damage = only(verify(store).damage)
    assert (damage.versions, damage.offset) == ((), -1) and "do not match its name" in damage.what


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


DAMAGES: dict[str, tuple[Callable[[Store], object], str, str]] = {
    "manifest cut short": (lambda s: _cut(s.manifest_path("x", 1)), "images/x/1.json", "not JSON"),
    "manifest changed": (
        lambda s: s.manifest_path("x", 1).write_bytes(s.manifest_bytes(s.load("x:1")[1]).replace(b"amd64", b"arm64")),
        "images/x/1.json", "not the manifest that was published",
    ),
    "manifest of another": (
        lambda s: s.manifest_path("x", 1).write_bytes(s.manifest_path("y", 1).read_bytes()),
        "images/x/1.json", "holds the manifest of y:1",
    ),
    "runs lost": (lambda s: s.runs_path("x", 1).unlink(), "images/x/1.runs", "is missing"),
    "runs cut short": (lambda s: _cut(s.runs_path("x", 1)), "images/x/1.runs", "bytes, not"),
    "runs changed": (lambda s: flip(s.runs_path("x", 1), 40), "images/x/1.runs", "partition 0"),
    "digest changed": (lambda s: s.digest_path("x", 1).write_text("?"), "images/x/1.sha256", "not a sha256"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGES)
def test_the_files_of_a_version(store: Store, kind: str) -> None:
    act, file, what = DAMAGES[kind]
    act(store)
    damage = only(verify(store).damage)
    assert (damage.file, damage.versions) == (file, ("x:1",)) and what in damage.what
    assert verify(store, ["x:1"]).damage == (damage,) and verify(store, ["x:2", "y"]).damage == ()
    if kind != "digest changed":
        assert quick(store, "x:1") == [damage] and quick(store, "x:2") == []


def test_indexes_are_checked(store: Store) -> None:
    shared = store.load("x:1")[0].packs[0]
    index = store.packs / f"{shared}.idx"
    good = index.read_bytes()
    for data, what in (
        (None, "is missing"),
        (good[:-1], "bytes, not those of"),
        (good[:16] + good[16:][::-1], "not in order"),
        (packs.encode_index([(b"\0" * 32, 0, 100, CHUNK)]), "does not agree"),
    ):
        index.unlink() if data is None else index.write_bytes(data)
        damage = only(verify(store).damage)
        assert (damage.file, damage.versions) == (f"packs/{shared}.idx", ()) and what in damage.what
        assert quick(store, "x:1") == []


def test_strays_are_told_and_harm_nothing(store: Store) -> None:
    for name in ("packs/.tmp-abc", "packs/readme.txt", f"packs/{'0' * 64}.idx", "images/x/9.runs", "images/x/note"):
        (store.root / name).write_bytes(b"x")
    store.remove("y")
    report = verify(store)
    assert report.damage == ()
    assert {file: why for file, why in report.strays if not file.endswith(".pack")} == {
        "packs/.tmp-abc": "left by a command that was cut off",
        "packs/readme.txt": "is no file of gild's",
        f"packs/{'0' * 64}.idx": "its pack is not there",
        "images/x/9.runs": "its manifest is not there",
        "images/x/note": "is no file of gild's",
    }
    assert [why for file, why in report.strays if file.endswith(".pack")] == ["no version needs it"]


def test_damaged_chunks_are_not_shared_by_new_versions(store: Store) -> None:
    shared = store.load("x:1")[0].packs[0]
    offset, _, _ = read_index(store.packs, shared).find(_name(5)) or (0, 0, 0)
    flip(store.pack_path(shared), offset + 30)
    verify(store)
    assert read_mark(store.packs, shared) == frozenset({offset})
    index = read_index(store.packs, shared)
    assert index.find(_name(5)) is None and index.find(_name(4)) is not None
    packs.write_mark(store.packs, shared, None)
    with pytest.raises(ChunkInvalid):
        read_index(store.packs, shared)


def test_a_dead_disk_gives_a_bounded_answer(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    manifest = add(store, "x", {"root": range(1200)})
    path = store.pack_path(manifest.packs[0])
    path.write_bytes(bytes(path.stat().st_size))
    report = verify(store, workers=2)
    assert len(report.damage) == 1000 and report.more == 200
    assert read_mark(store.packs, manifest.packs[0]) is None and quick(store, "x:1")
    os.truncate(path, 1000)
    report = verify(store)
    assert len(report.damage) == 1 and report.more == 0 and report.damage[0].versions == ("x:1",)


def test_reading_changes_nothing(store: Store) -> None:
    before = contents(store.root)
    verify(store)
    quick(store, "x:1")
    assert contents(store.root) == before


def test_a_manifest_from_before_digests_were_kept_is_read(store: Store) -> None:
    store.digest_path("x", 1).unlink()
    assert verify(store).damage == ()
    manifest = store.load("x:1")[0]
    store.manifest_path("x", 1).write_bytes(encode_manifest(manifest))
    assert quick(store, "x:1") == []
