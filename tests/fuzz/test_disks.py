"""Hostile disks: a partition table lies on its disk and does not overlap, what stands there is told in plain words."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images.partitions import TableInvalid, read_table
from images.superblock import recognise
from tests.fuzz.sparse import Stretch, disk, load

HERE = Path(__file__).parent / "corpus"
TABLES = sorted((HERE / "partitions").iterdir())
SUPERBLOCKS = sorted((HERE / "superblock").iterdir())


def check_table(size: int, stretches: Sequence[Stretch], sectors: Sequence[int] = (512, 4096)) -> str:
    """The invariant; gives the label of the table."""
    try:
        table = read_table(disk(size, stretches), size, sectors)
    except TableInvalid as error:
        assert "\n" not in error.message
        return "invalid"
    if table is None:
        return "none"
    end = 0
    for entry in sorted(table.entries, key=lambda entry: entry.start):
        assert end <= entry.start and entry.start > 0 and entry.size > 0
        assert entry.name.isprintable() and len(entry.name) <= 36
        end = entry.start + entry.size
    assert end <= size and len({entry.number for entry in table.entries}) == len(table.entries) <= 1024
    return table.label


def check_superblock(size: int, stretches: Sequence[Stretch]) -> str:
    """The invariant; gives the kind."""
    found = recognise(disk(size, stretches), size)
    if found is None:
        return "none"
    assert found.kind.isalnum() and found.uuid.isprintable() and found.label.isprintable()
    assert len(found.uuid) <= 64 and len(found.label) <= 64 and found.size >= 0
    return found.kind


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.name)
def test_the_corpus_of_tables(path: Path) -> None:
    assert check_table(*load(path)) == path.name.split("-")[0].removesuffix(".bin")


@pytest.mark.parametrize("path", SUPERBLOCKS, ids=lambda path: path.name)
def test_the_corpus_of_superblocks(path: Path) -> None:
    assert check_superblock(*load(path)) == path.name.split("-")[0].removesuffix(".bin")


@st.composite
def changed(draw: st.DrawFn, corpus: Sequence[Path]) -> tuple[int, list[Stretch]]:
    """A disk of the corpus with some bytes changed, and its checksums right again or not."""
    size, stretches = load(draw(st.sampled_from(corpus)))
    for _ in range(draw(st.integers(1, 4))):
        index = draw(st.integers(0, len(stretches) - 1))
        offset, data = stretches[index]
        at = draw(st.one_of(st.integers(0, len(data) - 1), st.integers(0, min(len(data) - 1, 130))))
        change = draw(
            st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from([b"\xff" * 8, bytes(4), b"\x05", b"\xee"]))
        )
        stretches[index] = (offset, data[:at] + change + data[at + len(change) :])
    if draw(st.booleans()):
        size = draw(st.sampled_from([0, 1, 511, 512, 513, 4096, size // 2, size - 1, size + 512, 1 << 62]))
    return size, [(offset, _mended(data)) for offset, data in stretches] if draw(st.booleans()) else stretches


def _mended(data: bytes) -> bytes:
    """A GPT header with the sum of its bytes: behind the checksum begins what is worth to be fuzzed."""
    if data[:8] != b"EFI PART" or len(data) < 92:
        return data
    out = bytearray(data)
    length = struct.unpack_from("<I", out, 12)[0]
    out[16:20] = bytes(4)
    if 92 <= length <= len(out):
        out[16:20] = struct.pack("<I", zlib.crc32(out[:length]))
    return bytes(out)


@given(changed(TABLES))
@settings(max_examples=400, deadline=None)
def test_changed_tables(case: tuple[int, list[Stretch]]) -> None:
    check_table(*case)
    check_table(*case, sectors=(4096,))


@given(changed(SUPERBLOCKS))
@settings(max_examples=400, deadline=None)
def test_changed_superblocks(case: tuple[int, list[Stretch]]) -> None:
    check_superblock(*case)


ENTRY = st.tuples(
    st.sampled_from([b"\0" * 16, b"\x01" * 16, b"\xff" * 16]),
    st.integers(0, 70) | st.integers(0, (1 << 64) - 1),
    st.integers(0, 70) | st.integers(0, (1 << 64) - 1),
    st.binary(max_size=72),
)


@given(st.lists(ENTRY, max_size=8), st.integers(0, 200))
@settings(max_examples=300, deadline=None)
def test_any_entries_of_a_gpt(entries: list[tuple[bytes, int, int, bytes]], count: int) -> None:
    """Tables that are right in every checksum."""
    rows = b"".join(
        struct.pack("<16s16sQQQ72s", kind, b"", first, last, 0, name) for kind, first, last, name in entries
    ).ljust(count * 128, b"\0")[: count * 128]
    head = struct.pack(
        "<8sIIIIQQQQ16sQIII", b"EFI PART", 65536, 92, 0, 0, 1, 99, 34, 66, b"", 2, count, 128, zlib.crc32(rows)
    )
    head = head[:16] + struct.pack("<I", zlib.crc32(head)) + head[20:]
    check_table(100 * 512, [(512, head), (1024, rows)])


ROW = st.tuples(
    st.sampled_from([0, 0x80, 0x41]),
    st.sampled_from([0, 5, 0x0F, 0x83, 0xEE]),
    st.integers(0, 120),
    st.integers(0, 120),
)


@given(st.dictionaries(st.integers(0, 99), st.lists(ROW, min_size=1, max_size=4), max_size=12))
@settings(max_examples=500, deadline=None)
def test_any_chain_of_an_mbr(sectors: dict[int, list[tuple[int, int, int, int]]]) -> None:
    """Boot sectors that name each other in all ways."""
    stretches = []
    for number, rows in sectors.items():
        raw = b"".join(struct.pack("<B3xB3xII", *row) for row in rows).ljust(64, b"\0")
        stretches.append((number * 512 + 446, raw + b"\x55\xaa"))
    check_table(100 * 512, stretches)
