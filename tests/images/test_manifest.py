"""Manifests and runs: what goes in comes out, and every lie is told from the truth by name."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images.chunk import MAX_CHUNK_SIZE, MIN_CHUNK_SIZE, chunk_count, chunk_length
from images.errors import ManifestInvalid
from images.manifest import (
    CHUNK,
    HEADER,
    MAX_MANIFEST,
    MAX_PACK,
    MAX_SIZE,
    MAX_TEXT,
    PLACE,
    RUN,
    Kind,
    Manifest,
    Partition,
    Run,
    decode_manifest,
    decode_runs,
    digest,
    encode_manifest,
    encode_runs,
    used_bytes,
)

SHA = "0123456789abcdef" * 4
MANIFEST = Manifest(
    name="compute",
    version=3,
    created=1_700_000_000,
    arch="x86_64",
    chunk_size=262144,
    packs=(SHA,),
    partitions=(Partition("root", "ext4", "u-u-i-d", 1 << 30, 1 << 28, SHA, 4096, "gild-root"),),
    parent=2,
    message="Grüße, 世界 \U0001f600",
    cmdline="quiet",
    system={"family": "debian", "kernels": [{"version": "6.1"}]},
    checks=({"name": "fstab", "found": "sda1", "fix": "by UUID"},),
    source={"kind": "directory"},
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
words = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=30)
shas = st.binary(min_size=32, max_size=32).map(bytes.hex)
objects = st.dictionaries(texts, st.recursive(texts | st.integers() | st.booleans() | st.none(), st.lists), max_size=3)


@st.composite
def partitions(draw: st.DrawFn) -> Partition:
    size = draw(st.integers(1, MAX_SIZE))
    return Partition(
        draw(words),
        draw(words),
        draw(texts),
        size,
        draw(st.integers(0, size)),
        draw(shas),
        draw(st.integers(24, 1 << 40)),
    )


manifests = st.builds(
    Manifest,
    name=words,
    version=st.integers(1, 1 << 31),
    parent=st.integers(0, 1 << 31),
    created=st.integers(0, 1 << 40),
    arch=words,
    chunk_size=st.integers(MIN_CHUNK_SIZE, MAX_CHUNK_SIZE),
    packs=st.lists(shas, max_size=4).map(tuple),
    partitions=st.lists(partitions(), min_size=1, max_size=4, unique_by=lambda p: p.role).map(tuple),
    message=texts,
    cmdline=texts,
    system=objects,
    checks=st.lists(objects, max_size=2).map(tuple),
    source=objects,
)


@given(manifests)
@settings(deadline=None)
def test_a_manifest_comes_back(manifest: Manifest) -> None:
    data = encode_manifest(manifest)
    assert decode_manifest(data) == manifest
    assert encode_manifest(decode_manifest(data)) == data, "same manifest, same bytes, same digest"


def test_the_bytes_of_a_manifest_do_not_change_between_versions() -> None:
    """Orders name a version by these bytes."""
    assert digest(encode_manifest(MANIFEST)) == "89342e48a9aa6692ee962ef603673b46b16757c6b42e683a57705c007cd2c4b8"
    assert digest(b"") == hashlib.sha256(b"").hexdigest()
    assert MANIFEST.ref == "compute:3"


def test_a_later_writer_may_say_more() -> None:
    body = json.loads(encode_manifest(MANIFEST))
    body["mood"] = "golden"
    body["partitions"][0]["smell"] = 1
    assert decode_manifest(json.dumps(body).encode()) == MANIFEST


def changed(change: Callable[[dict[str, Any]], Any]) -> bytes:
    body = json.loads(encode_manifest(MANIFEST))
    change(body)
    return json.dumps(body).encode()


def put(key: str, value: Any, part: bool = False) -> Callable[[dict[str, Any]], Any]:
    return lambda body: (body["partitions"][0] if part else body).__setitem__(key, value)


LIES: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
    ("has format 2, this version reads 1", put("format", 2)),
    ("has format '1'", put("format", "1")),
    ("has format list", put("format", [[]])),
    ("has format None", lambda body: body.pop("format")),
    ("wants 'md5' and 'zstd'", put("hash", "md5")),
    ("wants 'sha256' and 'gzip'", put("codec", "gzip")),
    ("name is ''", put("name", "")),
    ("name is not a text", put("name", 7)),
    ("name is 'a\\\\nb', not one to 255 printable", put("name", "a\nb")),
    ("name is 'nnn", put("name", "n" * 256)),
    ("message is not a text", put("message", "m" * (MAX_TEXT + 1))),
    ("version is not a number from 1", put("version", 0)),
    ("version is not a number", put("version", True)),
    ("version is not a number", put("version", 1.0)),
    ("parent is not a number", put("parent", -1)),
    ("created is not a number", put("created", 1 << 63)),
    ("chunk_size is not a number from 4096 to 16777216", put("chunk_size", 0)),
    ("chunk_size is not a number", put("chunk_size", 1 << 40)),
    ("packs is not a list", put("packs", {})),
    ("'../../etc' is not a sha256", put("packs", ["../../etc"])),
    ("NoneType|None is not a sha256", put("packs", [None])),
    (f"'{SHA.upper()}' is not a sha256", put("packs", [SHA.upper()])),
    (f"'{SHA[:-2]}Z0' is not a sha256", put("packs", [SHA[:-2] + "Z0"])),
    ("system is not an object", put("system", [])),
    ("source is not an object", put("source", "x")),
    ("checks is not a list", put("checks", {})),
    ("checks holds something that is not an object", put("checks", ["x"])),
    ("partitions holds something that is not an object", put("partitions", [3])),
    ("compute:3 has no partition", put("partitions", [])),
    ("has two partitions of one role", lambda body: body["partitions"].append(body["partitions"][0])),
    ("role is ''", put("role", "", part=True)),
    ("size is not a number", put("size", 0, part=True)),
    ("size is not a number", put("size", MAX_SIZE + 1, part=True)),
    ("used is not a number", put("used", -1, part=True)),
    ("1073741825 of 1073741824 bytes of a partition are used", put("used", (1 << 30) + 1, part=True)),
    ("runs is not an object", put("runs", None, part=True)),
    ("lacks 'sha256'", put("runs", {"bytes": 100}, part=True)),
    ("bytes is not a number", put("runs", {"sha256": SHA, "bytes": 23}, part=True)),
]


@pytest.mark.parametrize(("said", "change"), LIES, ids=[f"{n}-{said[:30]}" for n, (said, _) in enumerate(LIES)])
def test_a_lie_in_a_manifest_is_named(said: str, change: Callable[[dict[str, Any]], Any]) -> None:
    with pytest.raises(ManifestInvalid, match=said) as caught:
        decode_manifest(changed(change))
    assert len(caught.value.message) < 400 and caught.value.message.isprintable()


@pytest.mark.parametrize(
    "key", [key for key in json.loads(encode_manifest(MANIFEST)) if key not in ("format", "hash", "codec")]
)
def test_every_field_is_needed(key: str) -> None:
    with pytest.raises(ManifestInvalid, match=f"lacks '{key}'"):
        decode_manifest(changed(lambda body: body.pop(key)))


@pytest.mark.parametrize("key", ["role", "fs", "uuid", "label", "size", "used", "runs"])
def test_every_field_of_a_partition_is_needed(key: str) -> None:
    with pytest.raises(ManifestInvalid, match=f"lacks '{key}'"):
        decode_manifest(changed(lambda body: body["partitions"][0].pop(key)))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff\xfe{}", "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b"[" * 200_000, "is not JSON"),
        (b'{"format": 1' + b"0" * 5000 + b"}", "is not JSON"),
        (b'{"format": ' + b"[" * 900 + b"]" * 900 + b"}", "has format list|is not JSON"),
        (changed(put("created", float("nan"))), "NaN is not a number"),
        (changed(put("message", "\ud800")), "is not JSON: .*surrogates"),
        (changed(put("system", {"a": ["\udfff"]})), "is not JSON: .*surrogates"),
        (b" " * (MAX_MANIFEST + 1), f"is larger than {MAX_MANIFEST}"),
    ],
    ids=lambda value: value[:16] if isinstance(value, bytes) else "",
)
def test_what_is_no_manifest(data: bytes, said: str) -> None:
    with pytest.raises(ManifestInvalid, match=said):
        decode_manifest(data)


@st.composite
def run_lists(draw: st.DrawFn) -> tuple[list[Run], int, int]:
    chunk_size = draw(st.integers(MIN_CHUNK_SIZE, MAX_CHUNK_SIZE))
    runs: list[Run] = []
    at = 0
    for kind in draw(st.lists(st.sampled_from(Kind), min_size=1, max_size=8)):
        count = draw(st.integers(1, 6))
        chunk = st.tuples(st.binary(min_size=32, max_size=32), st.integers(1, chunk_size))
        if kind is Kind.DATA:
            chunks = tuple(draw(st.lists(chunk, min_size=count, max_size=count)))
            runs.append(Run(kind, at, count, draw(st.integers(0, 4)), draw(st.integers(0, 1 << 45)), chunks))
        else:
            runs.append(Run(kind, at, count))
        at += count
    return runs, (at - 1) * chunk_size + draw(st.integers(1, chunk_size)), chunk_size


@given(run_lists())
@settings(deadline=None)
def test_runs_come_back(case: tuple[list[Run], int, int]) -> None:
    runs, size, chunk_size = case
    data = encode_runs(runs, size, chunk_size)
    assert decode_runs(data, size=size, chunk_size=chunk_size, packs=5) == runs
    lengths = [
        chunk_length(n, size, chunk_size)
        for run in runs
        if run.kind is not Kind.FREE
        for n in range(run.start, run.start + run.count)
    ]
    assert used_bytes(runs, size, chunk_size) == sum(lengths)


@given(run_lists(), st.data())
@settings(deadline=None)
def test_runs_cut_or_continued_are_noticed(case: tuple[list[Run], int, int], draws: st.DataObject) -> None:
    runs, size, chunk_size = case
    data = encode_runs(runs, size, chunk_size)
    end = draws.draw(st.integers(0, len(data) - 1))
    for wrong in (data[:end], data + b"\0"):
        with pytest.raises(ManifestInvalid):
            decode_runs(wrong, size=size, chunk_size=chunk_size, packs=5)


SIZE, STEP = 10 * 4096 - 100, 4096  # ten chunks
NAME = bytes(range(32))


def runs_file(*parts: bytes, count: int | None = None, magic: bytes = b"gildrun1") -> bytes:
    return HEADER.pack(magic, STEP, SIZE, len(parts) if count is None else count) + b"".join(parts)


def data_run(start: int, frames: list[int], *, pack: int = 0, offset: int = 0, count: int | None = None) -> bytes:
    head = RUN.pack(1, start, len(frames) if count is None else count) + PLACE.pack(pack, offset)
    return head + b"".join(CHUNK.pack(NAME, length) for length in frames)


def plain_run(kind: int, start: int, count: int) -> bytes:
    return RUN.pack(kind, start, count)


GOOD = runs_file(data_run(0, [100, 200, 4096]), plain_run(2, 3, 1), plain_run(3, 4, 6))


def test_the_format_on_disk() -> None:
    """Byte for byte as the module's docstring says."""
    data = b"gildrun1" + struct.pack("<IQI", STEP, SIZE, 3)
    data += struct.pack("<BQIIQ", 1, 0, 3, 0, 0) + b"".join(NAME + struct.pack("<I", n) for n in (100, 200, 4096))
    data += struct.pack("<BQI", 2, 3, 1) + struct.pack("<BQI", 3, 4, 6)
    assert data == GOOD
    assert decode_runs(GOOD, size=SIZE, chunk_size=STEP, packs=1) == [
        Run(Kind.DATA, 0, 3, 0, 0, ((NAME, 100), (NAME, 200), (NAME, 4096))),
        Run(Kind.ZERO, 3, 1),
        Run(Kind.FREE, 4, 6),
    ]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (GOOD[:23], "ends after 23 bytes"),
        (runs_file(plain_run(3, 0, 10), magic=b"gildrun2"), "does not start with its magic"),
        (runs_file(plain_run(4, 0, 10)), "run at chunk 0 has unknown kind 4"),
        (runs_file(plain_run(0, 0, 10)), "unknown kind 0"),
        (runs_file(plain_run(3, 1, 9)), "run at chunk 0 says it covers 1\\+9 of 10"),
        (runs_file(plain_run(3, 0, 5), plain_run(2, 4, 6)), "run at chunk 5 says it covers 4\\+6"),
        (runs_file(plain_run(3, 0, 5), plain_run(2, 6, 4)), "run at chunk 5 says it covers 6\\+4"),
        (runs_file(plain_run(3, 0, 0)), "says it covers 0\\+0"),
        (runs_file(plain_run(3, 0, 11)), "says it covers 0\\+11"),
        (runs_file(plain_run(3, 0, 2**32 - 1)), "says it covers"),
        (runs_file(plain_run(3, 2**64 - 1, 1)), "says it covers"),
        (runs_file(plain_run(3, 0, 9)), "runs cover 9 of 10 chunks"),
        (runs_file(), "runs cover 0 of 10 chunks"),
        (runs_file(plain_run(3, 0, 10), plain_run(3, 10, 1)), "run at chunk 10 says it covers 10\\+1"),
        (runs_file(plain_run(3, 0, 10), count=2**32 - 1), "ends inside the run at chunk 10"),
        (GOOD + b"x", "and 183 of 184 bytes"),
        (runs_file(data_run(0, [1] * 10, pack=1)), "names pack 1 of 1"),
        (runs_file(data_run(0, [1] * 10, pack=2**32 - 1)), "names pack 4294967295 of 1"),
        (runs_file(data_run(0, [1] * 9, count=10)), "ends inside the data run at chunk 0"),
        (runs_file(data_run(0, [1] * 9 + [0])), "frame of an impossible length"),
        (runs_file(data_run(0, [2**32 - 1] * 10)), "frame of an impossible length"),
        (runs_file(data_run(0, [1] * 9 + [4096 + 16 + 65])), "frame of an impossible length"),
        (runs_file(data_run(0, [1] * 10, offset=MAX_PACK - 9)), "beyond"),
        (runs_file(data_run(0, [1] * 10, offset=2**64 - 1)), "lies at byte 18446744073709551615 of its pack"),
    ],
)
def test_a_lie_in_runs_is_named(data: bytes, said: str) -> None:
    with pytest.raises(ManifestInvalid, match=said):
        decode_runs(data, size=SIZE, chunk_size=STEP, packs=1)


@pytest.mark.parametrize(("size", "chunk_size"), [(SIZE - 1, STEP), (SIZE, STEP * 2), (SIZE + 4096, STEP)])
def test_runs_of_another_partition_are_refused(size: int, chunk_size: int) -> None:
    with pytest.raises(ManifestInvalid, match=f"the manifest says {size} and {chunk_size}"):
        decode_runs(GOOD, size=size, chunk_size=chunk_size, packs=1)


@pytest.mark.parametrize("size", [0, -1, MAX_SIZE + 1])
def test_a_partition_that_cannot_be(size: int) -> None:
    with pytest.raises(ManifestInvalid, match="is not possible"):
        decode_runs(GOOD, size=size, chunk_size=STEP, packs=1)


def test_the_worst_frame_zstd_makes_is_possible() -> None:
    from images.zstd import compress

    noise = b"".join(hashlib.sha256(bytes([n])).digest() for n in range(128))
    assert len(compress(noise, 1)) > len(noise) == STEP
    run = Run(Kind.DATA, 0, 10, 0, 0, ((NAME, len(compress(noise, 1))),) * 10)
    assert decode_runs(encode_runs([run], SIZE, STEP), size=SIZE, chunk_size=STEP, packs=1) == [run]


def test_a_manifest_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        MANIFEST.version = 4  # type: ignore[misc]
    assert chunk_count(SIZE, STEP) == 10
