from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.layout import LayoutFailed, place
from netboot.layoutfile import read_edits, read_layout
from netboot.plan import DEFAULT_LAYOUT, LayoutPart

STORE = """
[[layout]]
name = "root"
size = "40GiB"
mount = "/"
[[layout]]
name = "swap"
size = "ram"
mount = "swap"
high = "4GiB"
[[layout]]
name = "data"
size = "rest"
fs = "xfs"
mount = "/srv"
label = "store"
"""


def test_what_every_disk_begins_with_need_not_be_named() -> None:
    rows = read_layout(STORE, "store.toml")
    parts = [LayoutPart(**row) for row in rows]
    assert tuple(parts[:2]) == DEFAULT_LAYOUT[:2]
    root, swap, data = parts[2:]
    assert (root.role, root.fs, root.kind) == ("root", "", "linux")
    assert (swap.kind, swap.fs, swap.high) == ("swap", "swap", 4 << 30)
    assert (data.fs, data.mount, data.label) == ("xfs", "/srv", "store")
    placed = place(parts, 500 * 10**9, 16 << 30)
    assert placed[3].bytes == 4 << 30 and placed[4].bytes > 400 * 10**9


def test_edits_are_tables_too() -> None:
    text = '[[edit]]\nedit = "resolv"\ndns = ["10.0.0.1"]\n[[edit]]\nedit = "hosts"\nentries = {"10.0.0.2" = "nas"}\n'
    assert read_edits(text, "e.toml") == [
        {"edit": "resolv", "options": {"dns": ["10.0.0.1"]}},
        {"edit": "hosts", "options": {"entries": {"10.0.0.2": "nas"}}},
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x", "s.toml: Expected"), ("", "does not consist of [[layout]]"), ("layout = []", "has 0 [[layout]] tables"),
        ("layout = [5]", "does not consist"), ('[[layout]]\nname="root"\nsize="1GiB"\nmount="/"\n[other]', "consist"),
        ('[[layout]]\nname = "root"\ncolour = "red"', "partition 1 has no 'colour'"),
        ('[[layout]]\nname = 5', "name is not a text"), ('[[layout]]\nname = "a"\nlow = true', "low is no size"),
        ('[[layout]]\nname = "a"\nlow = "much"', "'much' is not a size"),
        ('[[layout]]\nname = "a"\nsize = "1GiB"\nmount = "/x"', 's.toml: one partition of the layout, and only one'),
        ("[[layout]]\n" * 200, "has 200"), ("[" * 5000, "s.toml"),
    ],
)  # fmt: skip
def test_what_is_no_layout_is_named(text: str, words: str) -> None:
    with pytest.raises(LayoutFailed) as caught:
        read_layout(text, "s.toml")
    assert words in str(caught.value) and "\n" not in caught.value.message


def test_an_edit_without_a_name() -> None:
    with pytest.raises(LayoutFailed, match="edit 1 does not say which one it is"):
        read_edits("[[edit]]\ndns = []\n", "e.toml")


@given(st.text(alphabet='[]layout="\n rest/mounsizename', max_size=80))
def test_a_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(LayoutFailed):
        read_layout(text, "x")
