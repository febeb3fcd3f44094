"""Repair: from a store, a bundle, a head; only what is damaged is fetched, and nothing wrong gets in."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from images import packs
from images.chunk import chunk_hash
from images.errors import BundleDamaged, ChunkMissing, NoSpace, NotFound, SourceInvalid
from images.keeping.exporting import Signing, export
from images.keeping.repair import repair
from images.keeping.spares import BundleSpare, HeadSpare, Spare, StoreSpare, spare_at
from images.keeping.verify import quick, verify
from images.manifest import digest
from images.packs import read_index
from images.store import Store
from tests.images.smallstore import CHUNK, add, contents, flip, piece

NOBODY = Signing("test", bytes(32), lambda data: bytes(64))


def filled(root: Path) -> Store:
    store = Store(root)
    one = add(store, "x", {"boot": [1, 2], "root": [3, 4, 5, 6]})
    add(store, "x", {"boot": [1, 7], "root": [3, 4, 5, 8]}, share=one.packs)
    add(store, "y", {"root": [20, 21]})
    return store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return filled(tmp_path / "store")


class Counting:
    """A spare that notes what it was asked for, and may lie."""

    def __init__(self, inner: Spare, lie: bool = False) -> None:
        self.inner, self.lie = inner, lie
        self.asked: list[tuple[int, int]] = []

    def manifest(self, digest: str) -> bytes | None:
        data = self.inner.manifest(digest)
        return b"{}" if self.lie else data

    def runs(self, sha256: str) -> bytes | None:
        data = self.inner.runs(sha256)
        return data[::-1] if self.lie and data else data

    def size(self, pack: str) -> int:
        return self.inner.size(pack)

    def open(self) -> Counting:
        self.fetcher = self.inner.open()
        return self

    def fetch(self, pack: str, offset: int, length: int) -> memoryview:
        self.asked.append((offset, length))
        data = self.fetcher.fetch(pack, offset, length)
        return memoryview(bytes(data)[::-1]) if self.lie else data

    def distrust(self) -> None:
        raise AssertionError("nobody calls this")

    def close(self) -> None:
        self.fetcher.close()


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def lose(store: Store, *files: str) -> None:
    for file in files:
        (store.root / file).unlink()


def first(store: Store) -> str:
    return store.load("x:1")[0].packs[0]


DAMAGES: dict[str, Callable[[Store], object]] = {
    "one bit": lambda s: flip(s.pack_path(first(s)), 100),
    "a pack cut short": lambda s: cut(s.pack_path(first(s))),
    "a pack too long": lambda s: s.pack_path(first(s)).write_bytes(s.pack_path(first(s)).read_bytes() + b"more"),
    "a pack lost": lambda s: s.pack_path(first(s)).unlink(),
    "a pack and its index lost": lambda s: lose(s, *(f"packs/{first(s)}.{kind}" for kind in ("idx", "pack"))),
    "an index lost": lambda s: lose(s, f"packs/{first(s)}.idx"),
    "a manifest cut short": lambda s: cut(s.manifest_path("x", 1)),
    "a manifest lost": lambda s: s.manifest_path("x", 1).unlink(),
    "runs lost": lambda s: s.runs_path("x", 1).unlink(),
    "runs changed": lambda s: flip(s.runs_path("x", 1), 50),
    "manifest and runs lost": lambda s: lose(s, "images/x/1.json", "images/x/1.runs"),
    "a digest damaged": lambda s: s.digest_path("x", 1).write_text("what?"),
    "the only manifest of an image lost": lambda s: s.manifest_path("y", 1).unlink(),
}


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("place", ["store", "bundle", "head"])
def test_everything_is_healed_and_is_as_it_was(store: Store, tmp_path: Path, kind: str, place: str) -> None:
    good, before = filled(tmp_path / "good"), contents(store.root)
    assert contents(good.root) == before
    DAMAGES[kind](store)
    assert contents(store.root) != before
    with spare_from(good, tmp_path, place) as spare:
        done = repair(store, (), spare)
    assert done.healed and done.left.damage == ()
    assert contents(store.root) == before
    assert verify(store).damage == () and all(not quick(store, ref) for ref in ("x:1", "x:2", "y:1"))


@contextmanager
def spare_from(good: Store, tmp_path: Path, place: str) -> Iterator[Spare]:
    if place == "store":
        yield spare_at(os.fspath(good.root))
    elif place == "bundle":
        with (tmp_path / "b.gild").open("xb") as out:
            export(good, ["x:1", "x:2", "y:1"], out, NOBODY)
        yield spare_at(os.fspath(tmp_path / "b.gild"))
    else:
        with serving(good) as base:
            yield spare_at(base + "/")


@contextmanager
def serving(store: Store) -> Iterator[str]:
    """What a head serves to everybody."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, body: bool) -> None:
            spare, (kind, name) = StoreSpare(store.root), self.path.strip("/").split("/")
            data: bytes | None = None
            if kind == "packs" and (path := store.pack_path(name.removesuffix(".pack"))).exists():
                data = path.read_bytes()
            elif kind != "packs":
                data = spare.manifest(name) if kind == "manifests" else spare.runs(name)
            if data is None:
                self.send_error(404)
                return
            if "Range" in self.headers:
                start, end = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{end}/{len(data)}")
                data = data[start : end + 1]
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data)

        def do_GET(self) -> None:
            self.answer(True)

        def do_HEAD(self) -> None:
            self.answer(False)

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_only_what_is_damaged_is_fetched(store: Store, tmp_path: Path) -> None:
    good, pack = filled(tmp_path / "good"), first(store)
    offset, length, _ = read_index(store.packs, pack).find(chunk_hash(piece(4))) or (0, 0, 0)
    flip(store.pack_path(pack), offset + 50)
    spare = Counting(StoreSpare(good.root))
    done = repair(store, ["x:2"], spare)
    assert spare.asked == [(offset, length)] and done.fetched == length and done.healed == (f"packs/{pack}.pack",)
    os.truncate(store.pack_path(pack), store.pack_path(pack).stat().st_size - 10)
    spare.asked.clear()
    assert repair(store, (), spare).left.damage == ()
    assert len(spare.asked) == 1, "the last frame"


def test_what_lies_wins_nothing(store: Store, tmp_path: Path) -> None:
    spare = Counting(StoreSpare(filled(tmp_path / "good").root), lie=True)
    flip(store.pack_path(first(store)), 100)
    lose(store, "images/x/2.runs")
    store.manifest_path("y", 1).write_bytes(b"nonsense")
    before = contents(store.root)
    done = repair(store, (), spare)
    assert not done.healed
    assert {damage.file for damage in done.left.damage} == {
        f"packs/{first(store)}.pack", "images/x/2.runs", "images/y/1.json",
    }  # fmt: skip
    after = contents(store.root)
    assert {file: sha for file, sha in after.items() if not file.endswith(".damaged")} == before


def test_what_the_source_lacks_is_told(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    add(other, "y", {"root": [20, 21]})
    pack = store.load("y:1")[0].packs[0]
    flip(store.pack_path(first(store)), 100)
    flip(store.pack_path(pack), 100)
    done = repair(store, (), StoreSpare(other.root))
    assert done.healed == (f"packs/{pack}.pack",)
    assert [damage.pack for damage in done.left.damage] == [first(store)]
    with pytest.raises(NotFound):
        repair(store, ["z:1"], StoreSpare(other.root))


def test_the_same_chunk_in_another_pack_heals_without_a_source(store: Store) -> None:
    add(store, "copy", {"root": [30, 3, 31]})
    offset, _, _ = read_index(store.packs, first(store)).find(chunk_hash(piece(3))) or (0, 0, 0)
    flip(store.pack_path(first(store)), offset + 40)
    done = repair(store)
    assert done.healed == (f"packs/{first(store)}.pack",) and done.fetched == 0 and not done.left.damage
    assert verify(store).damage == ()


def test_the_working_image_heals_without_a_source(store: Store) -> None:
    work = store.work("x") / "current"
    work.mkdir(parents=True)
    (work / "root.img").write_bytes(b"".join(piece(seed) for seed in (3, 4, 5, 6)))
    flip(store.pack_path(first(store)), (read_index(store.packs, first(store)).find(chunk_hash(piece(6))) or (0,))[0])
    (work / "digest").write_text(store.load("x:2")[1])
    assert repair(store).left.damage, "it holds another version"
    (work / "digest").write_text(digest(store.manifest_path("x", 1).read_bytes()))
    assert repair(store).healed and verify(store).damage == ()


def test_a_full_disk_leaves_the_pack_and_gives_the_space_back(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spare = StoreSpare(filled(tmp_path / "good").root)
    flip(store.pack_path(first(store)), 100)
    verify(store)
    before = contents(store.root)

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NoSpace):
        repair(store, (), spare)
    assert contents(store.root) == before


def test_a_source_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"gildbdl1 and no more")
    (tmp_path / "text").write_bytes(b"hello")
    for place, kind in (
        (tmp_path / "nothing", SourceInvalid), (tmp_path, SourceInvalid), (tmp_path / "file", BundleDamaged),
        (tmp_path / "text", BundleDamaged), ("ftp://x", ChunkMissing), ("http://", ChunkMissing),
    ):  # fmt: skip
        with pytest.raises(kind):
            spare_at(os.fspath(place))
    with pytest.raises(ChunkMissing, match="refused"):
        HeadSpare("http://127.0.0.1:1").size("0" * 64)


def test_a_bundle_that_was_cut_is_no_source(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "b.gild"
    with path.open("xb") as out:
        export(store, ["x:1"], out, NOBODY)
    assert BundleSpare(path).size(first(store)) > 0
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(BundleDamaged, match="bytes, not"):
        BundleSpare(path)


def test_a_lost_index_is_made_of_what_versions_use(store: Store) -> None:
    pack = first(store)
    whole = sorted(read_index(store.packs, pack).entries())
    lose(store, f"packs/{pack}.idx")
    assert repair(store).healed == (f"packs/{pack}.idx",)
    assert sorted(read_index(store.packs, pack).entries()) == whole
    assert all(raw == CHUNK for *_, raw in whole)
    assert packs.read_mark(store.packs, pack) == frozenset()
