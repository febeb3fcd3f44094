"""The archive format: what we write, GNU cpio reads; what GNU cpio writes, we read; lies are refused."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot import cpio

part = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda text: text not in (".", "..")
)
needs_cpio = pytest.mark.skipif(shutil.which("cpio") is None, reason="GNU cpio is not installed")


@given(st.dictionaries(part, st.tuples(st.binary(max_size=40), st.sampled_from([0o644, 0o755, 0o600])), max_size=12))
def test_what_is_written_is_read(files: dict[str, tuple[bytes, int]]) -> None:
    data = cpio.write(cpio.file(f"d/{name}", body, mode) for name, (body, mode) in files.items())
    entries, end = cpio.read(data)
    assert end == len(data) and len(data) % 4 == 0
    found = {e.name: (e.data, stat.S_IMODE(e.mode)) for e in entries if stat.S_ISREG(e.mode)}
    assert found == {f"d/{name}": value for name, value in files.items()}
    assert [e.name for e in entries] == sorted(e.name for e in entries)


def test_same_entries_in_any_order_are_the_same_bytes() -> None:
    entries = [cpio.file("b/c", b"1"), cpio.link("a", "b/c"), cpio.folder("z"), cpio.character_device("n", 1, 3)]
    assert cpio.write(entries) == cpio.write(reversed(entries))


def test_parents_come_before_what_they_hold() -> None:
    entries, _ = cpio.read(cpio.write([cpio.file("usr/lib/x/y", b"")]))
    assert [e.name for e in entries] == ["usr", "usr/lib", "usr/lib/x", "usr/lib/x/y"]
    assert all(e.mode == stat.S_IFDIR | 0o755 for e in entries[:3])


@needs_cpio
def test_gnu_cpio_reads_ours(tmp_path: Path) -> None:
    entries = [cpio.file("etc/a b", b"hello", 0o640), cpio.link("l", "etc/a b"), cpio.folder("e", 0o1777)]
    data = cpio.write(entries)
    listing = subprocess.run(["cpio", "-it", "--quiet"], input=data, capture_output=True, check=True)
    assert listing.stdout.decode().splitlines() == ["e", "etc", "etc/a b", "l"] and not listing.stderr
    subprocess.run(["cpio", "-id", "--quiet"], input=data, cwd=tmp_path, check=True)
    assert (tmp_path / "etc/a b").read_bytes() == b"hello"
    assert os.readlink(tmp_path / "l") == "etc/a b"
    assert stat.S_IMODE((tmp_path / "etc/a b").stat().st_mode) == 0o640


@needs_cpio
def test_ours_reads_gnu_cpio(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x/file").write_bytes(b"12345")
    (tmp_path / "x/link").symlink_to("file")
    data = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet"],
        input=b"x\nx/file\nx/link\n",
        cwd=tmp_path,
        capture_output=True,
        check=True,
    ).stdout
    entries, end = cpio.read(data)
    assert {e.name: e.data for e in entries} == {"x": b"", "x/file": b"12345", "x/link": b"file"}
    assert end <= len(data) and not data[end:].strip(b"\0")


def test_archives_in_a_row_are_read_up_to_a_compressed_one() -> None:
    first, second = cpio.write([cpio.file("a", b"1")]), cpio.write([cpio.file("b", b"2")])
    head = first + bytes(512 - len(first) % 512) + second
    entries, end = cpio.read(head + b"\x28\xb5\x2f\xfd rest")
    assert [e.name for e in entries] == ["a", "b"] and end == len(head)


@pytest.mark.parametrize("name", ["", "/etc", "a/../b", "..", "a//b", "./a", "a\0b", "TRAILER!!!", "x" * 4097])
def test_impossible_names_are_refused(name: str) -> None:
    with pytest.raises(cpio.CpioInvalid):
        cpio.write([cpio.file(name, b"")])


def test_one_name_twice_and_a_file_below_a_file_are_refused() -> None:
    with pytest.raises(cpio.CpioInvalid, match="twice"):
        cpio.write([cpio.file("a", b"1"), cpio.file("a", b"2")])
    with pytest.raises(cpio.CpioInvalid, match="no folder"):
        cpio.write([cpio.file("a", b"1"), cpio.file("a/b", b"2")])


def test_every_cut_is_noticed() -> None:
    data = cpio.write([cpio.file("name", b"some data")])
    for end in range(6, len(data) - 3):
        with pytest.raises(cpio.CpioInvalid):
            cpio.read(data[:end])


@pytest.mark.parametrize("field", [b"-0000001", b"0x000001", b" 0000001", b"0000_001", b"FFFFFFFF", b"GGGGGGGG"])
def test_lies_in_the_size_fields_are_refused(field: bytes) -> None:
    data = bytearray(cpio.write([cpio.file("name", b"some data")]))
    for offset in (6 + 8 * 6, 6 + 8 * 11):  # data size, name size
        damaged = bytearray(data)
        damaged[offset : offset + 8] = field
        with pytest.raises(cpio.CpioInvalid):
            cpio.read(bytes(damaged))
