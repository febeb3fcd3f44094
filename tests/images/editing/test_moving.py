"""What a version costs, against counting chunk by chunk."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from images.editing.moving import cost, grown, same_place, stored_chunks
from images.manifest import Kind, Run
from images.publish import Part, publish
from images.store import Store

CHUNK = 65536


def runs(kinds: str) -> list[Run]:
    """A letter a chunk: `.` free, `0` zero, others data of that name; neighbours of one kind make a run."""
    found: list[Run] = []
    for index, letter in enumerate(kinds):
        kind = {".": Kind.FREE, "0": Kind.ZERO}.get(letter, Kind.DATA)
        chunks = ((letter.encode() * 32, 10),) if kind is Kind.DATA else ()
        if found and found[-1].kind is kind:
            last = found.pop()
            found.append(Run(kind, last.start, last.count + 1, 0, last.offset, last.chunks + chunks))
        else:
            found.append(Run(kind, index, 1, 0, 0, chunks))
    return found


@given(st.text("ab.0", min_size=1, max_size=30), st.text("ab.0", min_size=1, max_size=30))
def test_the_same_place_is_the_same_letter(before: str, after: str) -> None:
    wanted = {n for n, (one, two) in enumerate(zip(before, after, strict=False)) if one == two and one != "."}
    assert same_place(runs(before), runs(after)) == wanted


def disk(path: Path, content: bytes) -> Part:
    path.write_bytes(content)
    return Part("root", path, "whole", "")


def test_the_cost_is_what_differs(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    blocks = [os.urandom(CHUNK) for _ in range(6)]

    def put(*parts: bytes) -> None:
        with store.lineage_lock("x"):
            publish(store, "x", [disk(tmp_path / "disk", b"".join(parts))], chunk_size=CHUNK)

    put(blocks[0], blocks[1], bytes(CHUNK), blocks[2])
    put(blocks[0], blocks[3], bytes(CHUNK), blocks[1], blocks[4])
    put(blocks[0], bytes(CHUNK), blocks[5], blocks[2])
    one, two, three = (store.load(f"x:{n}")[0] for n in (1, 2, 3))
    frames = stored_chunks(store, two)
    assert len(frames) == 4
    price = cost(store, one, two)
    assert (price.write, price.zero, price.kept) == (3 * CHUNK, 0, 2 * CHUNK)
    assert price.fetch == sum(frames.values()) - next(iter(frames.values()))
    assert cost(store, one, three).zero == CHUNK
    assert cost(store, two, two).fetch == cost(store, two, two).write == 0

    new = {manifest.version: count for manifest, count in grown(store, "x")}
    assert new[1] == sum(stored_chunks(store, one).values())
    fresh = [length for name, length in frames.items() if name not in stored_chunks(store, one)]
    assert len(fresh) == 2 and new[2] == sum(fresh)
    store.set_tag("x", 3)
    store.remove("x:2")
    assert {m.version: n for m, n in grown(store, "x")} == {1: new[1], 3: sum(stored_chunks(store, three).values())}


def test_partitions_are_compared_by_role_and_chunk_size(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    data = os.urandom(2 * CHUNK)
    for name, role, size in (("a", "root", CHUNK), ("b", "boot", CHUNK), ("c", "root", 2 * CHUNK)):
        (tmp_path / "disk").write_bytes(data)
        with store.lineage_lock(name):
            publish(store, name, [Part(role, tmp_path / "disk", "whole", "")], chunk_size=size)
    first = store.load("a")[0]
    for other in ("b", "c"):
        price = cost(store, first, store.load(other)[0])
        assert (price.write, price.kept) == (2 * CHUNK, 0)
