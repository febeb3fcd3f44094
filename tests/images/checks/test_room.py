"""Room on the filesystems of an image."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.checks import room
from images.checks.subject import Room
from tests.images.checks.looked import look
from tests.images.tinytree import tiny_tree

GIB = 1 << 30


@pytest.mark.parametrize(
    ("rooms", "words"),
    [
        ({}, ""),
        ({"/": Room(10 * GIB, 2 * GIB)}, ""),
        ({"/": Room(10 * GIB, GIB)}, "/: 1024 MiB of 10240 MiB left"),
        ({"/": Room(GIB, 200 << 20)}, "/: 200 MiB of 1024 MiB left"),
        ({"/": Room(690 << 20, 200 << 20)}, ""),
        ({"/": Room(10 * GIB, 9 * GIB, 0.01)}, "/: 1% of the inodes left"),
        ({"/boot": Room(GIB, 100 << 10)}, "/boot: 0 MiB left, one more kernel takes 0 MiB"),
        ({"/boot": Room(GIB, 2 << 20), "/home": Room(GIB, 0)}, ""),
    ],
)
def test_little_room_is_told(tmp_path: Path, rooms: dict[str, Room], words: str) -> None:
    found = look(room.room, tiny_tree(tmp_path / "tree"), room=rooms)
    assert [text for check in found.values() for text in check.found] == ([words] if words else [])
    assert all(check.severity == "warning" for check in found.values())
