"""Hostile filesystems: the used map is sorted, apart and inside the image, or one error says why not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images.maps.ext4 import ext4_used
from images.maps.extents import MapUnreadable

CORPUS = Path(__file__).parent / "corpus" / "usedmap"
SIZE = 8 << 20  # bytes of the image the corpus files are the beginning of; the rest reads as zeros


def check(data: bytes) -> None:
    """The invariant."""

    def read(at: int, length: int) -> bytes:
        assert at >= 0 and 0 <= length <= 64 << 20, "a hostile length is refused before it is read"
        return data[at : at + length].ljust(min(length, SIZE - at), b"\0")

    try:
        extents = ext4_used(read, SIZE)
    except MapUnreadable:
        return
    end = -1
    for start, length in extents:
        assert end < start and length > 0
        end = start + length
    assert end <= SIZE


def corpus() -> list[Path]:
    return sorted(CORPUS.iterdir())


@pytest.mark.parametrize("path", corpus(), ids=lambda p: p.name)
def test_the_corpus(path: Path) -> None:
    check(path.read_bytes())


def test_the_corpus_holds_readable_filesystems() -> None:
    good = [p for p in corpus() if p.name.startswith("good-")]
    assert len(good) >= 2
    for path in good:
        data = path.read_bytes()
        assert ext4_used(lambda at, n, data=data: data[at : at + n].ljust(n, b"\0"), SIZE)  # type: ignore[misc]


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_changed_superblocks_and_descriptors(data: st.DataObject) -> None:
    whole = bytearray(data.draw(st.sampled_from(corpus())).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.one_of(st.integers(1024, 1024 + 264), st.integers(2048, 2048 + 128), st.integers(4096, 4224)))
        change = data.draw(
            st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from([b"\xff" * 4, bytes(4), b"\x80"]))
        )
        whole[at : at + len(change)] = change
    check(bytes(whole))
