"""Hostile FAT, XFS and NTFS: the used map is sorted, apart and inside the image, or one error says why not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images.maps.extents import Extent, MapUnreadable, Read
from images.maps.fat import fat_used
from images.maps.ntfs import ntfs_used
from images.maps.xfs import xfs_used
from tests.fuzz.sparse import Stretch, disk, load

HERE = Path(__file__).parent / "corpus"
READERS: dict[str, Callable[[Read, int], list[Extent]]] = {"fat": fat_used, "ntfs": ntfs_used, "xfs": xfs_used}
CORPUS = sorted(path for target in READERS for path in (HERE / target).iterdir())


def check(target: str, size: int, stretches: Sequence[Stretch]) -> bool:
    """The invariant; gives whether there was a map."""
    try:
        extents = READERS[target](disk(size, stretches), size)
    except MapUnreadable:
        return False
    end = -1
    for start, length in extents:
        assert end < start and length > 0
        end = start + length
    assert end <= size
    return True


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_corpus(path: Path) -> None:
    assert check(path.parent.name, *load(path)) == path.name.startswith("good-")


@pytest.mark.parametrize("target", READERS)
def test_each_corpus_holds_readable_filesystems_and_others(target: str) -> None:
    names = [path.name for path in (HERE / target).iterdir()]
    assert sum(name.startswith("good-") for name in names) >= 2 and any(name.startswith("bad-") for name in names)


@st.composite
def changed(draw: st.DrawFn) -> tuple[str, int, list[Stretch]]:
    """A filesystem of the corpus with some bytes changed, most of them where headers are."""
    path = draw(st.sampled_from(CORPUS))
    size, stretches = load(path)
    for _ in range(draw(st.integers(1, 4))):
        index = draw(st.integers(0, len(stretches) - 1))
        offset, data = stretches[index]
        at = draw(st.one_of(st.integers(0, min(len(data) - 1, 260)), st.integers(0, len(data) - 1)))
        change = draw(
            st.one_of(
                st.binary(min_size=1, max_size=8),
                st.sampled_from([b"\xff" * 4, b"\xff" * 8, bytes(4), b"\x80", b"\x7f\xff\xff\xff", b"\x01\0\0\0"]),
            )
        )
        stretches[index] = (offset, data[:at] + change + data[at + len(change) :])
    if draw(st.booleans()):
        size = draw(st.sampled_from([0, 511, 512, 4096, size // 2, size - 1, size + 1, size * 3, 1 << 60]))
    return path.parent.name, size, stretches


@given(changed())
@settings(max_examples=500, deadline=None)
def test_changed_filesystems(case: tuple[str, int, list[Stretch]]) -> None:
    check(*case)


@given(st.sampled_from(sorted(READERS)), st.binary(max_size=1024), st.integers(0, 1 << 62))
@settings(max_examples=200, deadline=None)
def test_noise(target: str, data: bytes, size: int) -> None:
    check(target, size, [(0, data)])
