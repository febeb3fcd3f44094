"""The history of a tag: what nodes got before."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.tags import LIMIT, before, remember


def walk(lineage: Path, steps: str) -> None:
    """Each step is a version, or one in brackets that was gone back to."""
    for when, step in enumerate(steps.split()):
        remember(lineage, int(step.strip("()")), when, back=step.startswith("("))


@pytest.mark.parametrize(
    ("steps", "current", "earlier"),
    [
        ("", 1, []),
        ("1", 1, []),
        ("1 2 3", 3, [2, 1]),
        ("1 2 3 (2)", 2, [1]),
        ("1 2 3 (2) (1)", 1, []),
        ("1 2 3 (2) 4", 4, [2, 1]),
        ("1 2 1 2", 2, [1]),
        ("1 1 1", 1, []),
        ("1 2", 5, [2, 1]),  # the tag was set and the machine stopped before that was noted
        ("1 2 (9)", 9, [2, 1]),
    ],
)
def test_what_nodes_got_before(tmp_path: Path, steps: str, current: int, earlier: list[int]) -> None:
    walk(tmp_path, steps)
    assert before(tmp_path, current) == earlier


def test_a_damaged_line_is_left_out(tmp_path: Path) -> None:
    walk(tmp_path, "1 2")
    with (tmp_path / "tags").open("ab") as file:
        file.write(b"\xff\xff nonsense\n12 0 to\n3 7 t")
    assert before(tmp_path, 2) == [1]


def test_a_long_history_is_read_from_its_end(tmp_path: Path) -> None:
    (tmp_path / "tags").write_text("".join(f"{n} {n % 7 + 1} to\n" for n in range(LIMIT)))
    assert set(before(tmp_path, 1)) == {2, 3, 4, 5, 6, 7}
