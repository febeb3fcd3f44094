"""Cutting: chunks tile a partition, and only the last one may be short."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.chunk import CHUNK_SIZE, HASH_SIZE, MAX_CHUNK_SIZE, MIN_CHUNK_SIZE, chunk_count, chunk_hash, chunk_length


@pytest.mark.parametrize("size", [1, 4095, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 10 * CHUNK_SIZE, 1 << 50])
def test_the_ends(size: int) -> None:
    last = chunk_count(size) - 1
    assert last * CHUNK_SIZE + chunk_length(last, size) == size
    assert 0 < chunk_length(last, size) <= CHUNK_SIZE
    assert chunk_length(last + 1, size) == 0


def test_nothing_has_no_chunks() -> None:
    assert chunk_count(0) == chunk_length(0, 0) == 0


@given(st.integers(1, 4_000_000), st.integers(MIN_CHUNK_SIZE, MAX_CHUNK_SIZE))
def test_chunks_tile_a_partition(size: int, chunk_size: int) -> None:
    lengths = [chunk_length(n, size, chunk_size) for n in range(chunk_count(size, chunk_size))]
    assert sum(lengths) == size
    assert all(length == chunk_size for length in lengths[:-1])


def test_a_name_is_the_sha256_of_the_raw_bytes() -> None:
    for data in (b"", b"abc", bytearray(b"abc"), memoryview(b"xabc")[1:]):
        assert chunk_hash(data) == hashlib.sha256(bytes(data)).digest()
        assert len(chunk_hash(data)) == HASH_SIZE


def test_blocks_of_a_disk_fit_in_chunks() -> None:
    assert CHUNK_SIZE % MIN_CHUNK_SIZE == MAX_CHUNK_SIZE % CHUNK_SIZE == 0
