"""Packs: what is found again, and what a crash leaves."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images.errors import ChunkInvalid, ChunkMissing
from images.packs import ENTRY, HEAD, MAGIC, PackIndex, PackWriter, hash_file, read_index, write_file


def test_a_finished_pack_is_named_by_its_bytes_and_finds_its_chunks(tmp_path: Path) -> None:
    frames = {bytes([n]) * 32: bytes([n]) * (100 + n) for n in (9, 3, 200)}
    with PackWriter(tmp_path) as writer:
        for name, frame in frames.items():
            writer.add(name, frame, 4096)
        assert writer.find(b"\x03" * 32) == (109, 103)
        sha = writer.finish()
    data = (tmp_path / f"{sha}.pack").read_bytes()
    assert hashlib.sha256(data).hexdigest() == sha == hash_file(tmp_path / f"{sha}.pack")
    index = read_index(tmp_path, sha)
    assert len(index) == 3
    for name, frame in frames.items():
        found = index.find(name)
        assert found is not None
        offset, length, raw = found
        assert data[offset : offset + length] == frame and raw == 4096
    assert index.find(b"\x04" * 32) is None


def test_an_unfinished_pack_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), PackWriter(tmp_path) as writer:
        writer.add(b"a" * 32, b"frame", 10)
        raise RuntimeError("crash")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    write_file(tmp_path / "tag", b"1\n")
    with pytest.raises(TypeError):
        write_file(tmp_path / "tag", None)  # type: ignore[arg-type]
    assert (tmp_path / "tag").read_bytes() == b"1\n" and len(list(tmp_path.iterdir())) == 1


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_a_hostile_index_is_refused_or_finds_only_possible_lengths(data: bytes) -> None:
    for body in (data, HEAD.pack(MAGIC, len(data) // ENTRY.size) + data[: len(data) // ENTRY.size * ENTRY.size]):
        try:
            index = PackIndex("0" * 64, body)
        except ChunkInvalid:
            continue
        for name in (data[:32], bytes(32)):
            found = index.find(name)
            assert found is None or (found[1] > 0 and found[2] > 0)


def test_a_missing_index_is_named(tmp_path: Path) -> None:
    with pytest.raises(ChunkMissing, match="index of pack abababababab"):
        read_index(tmp_path, "ab" * 32)
