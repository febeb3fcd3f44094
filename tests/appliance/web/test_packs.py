"""Packs, manifests and runs by their hashes: over loopback, and by the real process."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import ClientSession, web

from appliance.web import app, packs
from appliance.web.packs import Packs
from images import working
from images.manifest import Kind, Manifest, Partition, Run, decode_runs, digest, encode_manifest, encode_runs
from images.options import Options
from images.store import Store
from tests.appliance.process import Served, rack_of_one
from tests.images.tinytree import tiny_tree

CHUNK = 512 << 10
FOREVER = "public, max-age=31536000, immutable"
Answers = list[tuple[int, dict[str, str], bytes]]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def put(store: Store, name: str, number: int, sizes: tuple[int, ...]) -> tuple[Manifest, list[bytes]]:
    """A version with a partition of free chunks for each size (in chunks); the runs of each partition."""
    runs = [encode_runs([Run(Kind.FREE, 0, size)], size * CHUNK, CHUNK) for size in sizes]
    parts = tuple(
        Partition(f"p{at}", "ext4", f"u{at}", size * CHUNK, 0, hashlib.sha256(data).hexdigest(), len(data))
        for at, (size, data) in enumerate(zip(sizes, runs, strict=True))
    )
    manifest = Manifest(name, number, 1_700_000_000, "amd64", CHUNK, (), parts)
    with store.lineage_lock(name):
        store.add_version(encode_manifest(manifest), name, number, b"".join(runs))
    return manifest, runs


def get(handlers: Packs, *paths: str, **headers: str) -> Answers:
    """Status, headers and body of each path."""

    async def main() -> Answers:
        runner = app.runner(app.application(handlers.routes()))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        found = []
        try:
            async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as session:
                for path in paths:
                    async with session.get(path, headers=headers) as answer:
                        fields = {key.lower(): value for key, value in answer.headers.items()}
                        found.append((answer.status, fields, await answer.read()))
        finally:
            await runner.cleanup()
        return found

    return asyncio.run(main())


def test_runs_of_every_partition_by_their_hash(store: Store) -> None:
    manifest, runs = put(store, "compute", 1, (3, 5, 8))
    other, more = put(store, "login", 1, (13,))
    parts = [*manifest.partitions, *other.partitions]
    found = get(Packs(store), *(f"/runs/{part.runs_sha256}" for part in parts))
    assert [body for _, _, body in found] == [*runs, *more]
    for (status, fields, body), part in zip(found, parts, strict=True):
        assert (status, fields["cache-control"]) == (200, FOREVER)
        assert decode_runs(body, size=part.size, chunk_size=CHUNK, packs=0)


def test_a_manifest_is_what_its_digest_says(store: Store) -> None:
    put(store, "compute", 1, (3,))
    put(store, "compute", 2, (4,))
    for number in (1, 2):
        _, wanted = store.load(f"compute:{number}")
        ((status, _, body),) = get(Packs(store), f"/manifests/{wanted}")
        assert status == 200 and digest(body) == wanted


def test_a_damaged_version_does_not_keep_the_others_back(store: Store) -> None:
    put(store, "aaa", 1, (3,))
    manifest, runs = put(store, "compute", 1, (5,))
    store.manifest_path("aaa", 1).write_bytes(b"{}")
    (answer,) = get(Packs(store), f"/runs/{manifest.partitions[0].runs_sha256}")
    assert answer[0] == 200 and answer[2] == runs[0]


@pytest.mark.parametrize(
    "path",
    [
        "/packs/" + "0" * 64 + ".pack",
        "/packs/" + "0" * 64,
        "/packs/" + "A" * 64 + ".pack",
        "/packs/" + "0" * 63 + ".pack",
        "/packs/.pack",
        "/packs/" + "0" * 64 + ".idx",
        "/packs/" + "٠" * 64 + ".pack",
        "/manifests/" + "0" * 64,
        "/manifests/1.json",
        "/runs/" + "0" * 64,
        "/runs/1.runs",
    ],
)
def test_what_is_not_there_is_404(store: Store, path: str) -> None:
    put(store, "compute", 1, (3,))
    ((status, _, body),) = get(Packs(store), path)
    assert status == 404 and json.loads(body)["error"] == "NotFound"


def test_descriptors_of_packs_are_bounded_and_the_recent_ones_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "OPEN_PACKS", 3)
    names = []
    for number in range(6):
        body = random.Random(number).randbytes(100 + number)
        names.append(hashlib.sha256(body).hexdigest())
        store.pack_path(names[-1]).write_bytes(body)
    before = len(os.listdir("/proc/self/fd"))
    handlers = Packs(store)
    for asked in ([0, 1, 2], [0, 3], [0, 4, 5, 1], [2, 0]):
        found = get(handlers, *(f"/packs/{names[number]}.pack" for number in asked), Range="bytes=5-")
        for number, (status, _, body) in zip(asked, found, strict=True):
            assert (status, body) == (206, random.Random(number).randbytes(100 + number)[5:])
        assert names[asked[-1]] in handlers._open and len(handlers._open) <= 3
    assert list(handlers._open) == [names[1], names[2], names[0]]
    assert len(os.listdir("/proc/self/fd")) == before + 3
    handlers.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_pack_that_is_repaired_is_served_anew_and_a_removed_one_no_more(store: Store, tmp_path: Path) -> None:
    path, handlers = store.pack_path("ab" * 32), Packs(store)
    path.write_bytes(b"old bytes")
    assert get(handlers, f"/packs/{path.name}")[0][2] == b"old bytes"
    (tmp_path / "new").write_bytes(b"new bytes of it")
    (tmp_path / "new").rename(path)
    assert get(handlers, f"/packs/{path.name}")[0][2] == b"new bytes of it"
    path.unlink()
    before = len(os.listdir("/proc/self/fd"))
    assert get(handlers, f"/packs/{path.name}")[0][0] == 404
    assert len(os.listdir("/proc/self/fd")) == before - 1
    handlers.close()


# --- the real process


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with rack_of_one() as served:
        store = Store(served.paths.images)
        tree = tiny_tree(tmp_path_factory.mktemp("packs") / "tree")
        with store.lineage_lock("compute"):
            working.publish_tree(store, "compute", tree, Options(tag=True))
        served.start()
        yield served


@pytest.mark.root
def test_an_image_can_be_fetched_from_its_digest_on(head: Served) -> None:
    store = Store(head.paths.images)
    manifest, wanted = store.load("compute")
    assert digest(head.http("GET", f"/manifests/{wanted}").body) == wanted
    for part in manifest.partitions:
        body = head.http("GET", f"/runs/{part.runs_sha256}").body
        assert hashlib.sha256(body).hexdigest() == part.runs_sha256
    for pack in manifest.packs:
        whole = head.http("GET", f"/packs/{pack}.pack")
        assert hashlib.sha256(whole.body).hexdigest() == pack and whole.headers["cache-control"] == FOREVER
        part_of = head.http("GET", f"/packs/{pack}.pack", headers={"Range": "bytes=100-199"})
        assert part_of.status == 206 and part_of.body == whole.body[100:200]
        behind = head.http("GET", f"/packs/{pack}.pack", headers={"Range": f"bytes={len(whole.body)}-"})
        assert behind.status == 416
        told = head.http("HEAD", f"/packs/{pack}.pack")
        assert told.headers["content-length"] == str(len(whole.body)) and not told.body


@pytest.mark.root
def test_a_version_made_while_serving_is_served_at_once(head: Served, tmp_path: Path) -> None:
    store = Store(head.paths.images)
    with store.lineage_lock("later"):
        working.publish_tree(store, "later", tiny_tree(tmp_path / "tree", seed=2))
    _, wanted = store.load("later")
    assert head.http("GET", f"/manifests/{wanted}").status == 200
