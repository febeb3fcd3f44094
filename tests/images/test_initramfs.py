"""Reading an initramfs: every segment, every compression, nothing hostile gets through."""

from __future__ import annotations

import bz2
import gzip
import lzma
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from images import initramfs, zstd
from images.errors import SourceInvalid, ToolMissing
from images.initramfs import initramfs_names, modules_in
from tests.images.tinytree import newc

FIRST = ["kernel/x86/microcode/GenuineIntel.bin"]
MAIN = ["init", "usr/lib/modules/6.1.0-9/kernel/drivers/ata/ahci.ko.xz", "usr/lib/modules/6.1.0-9/kernel/virtio-blk.ko"]
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "xz": lambda data: lzma.compress(data, check=lzma.CHECK_CRC32),
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    "bzip2": bz2.compress,
    "zstd": lambda data: zstd.compress(data, 3),
}


@pytest.mark.parametrize("packer", PACKERS)
def test_microcode_first_then_the_rest(packer: str) -> None:
    data = newc(FIRST) + bytes(512) + PACKERS[packer](newc(MAIN, b"body" * 999) + bytes(300))
    assert initramfs_names(data) == FIRST + MAIN


def test_two_archives_inside_one_compressed_segment_and_one_behind_it() -> None:
    data = gzip.compress(newc(["a"]) + bytes(8) + newc(["./b"])) + bytes(16) + gzip.compress(newc(["/c"]))
    assert initramfs_names(data) == ["a", "b", "c"]


def test_modules_are_told_by_kernel_and_spelled_one_way() -> None:
    assert modules_in(MAIN) == {"6.1.0-9": ["ahci", "virtio_blk"]}


@pytest.mark.parametrize(
    "data",
    [
        b"MZ not an initramfs",
        newc(MAIN)[:-30],
        gzip.compress(newc(MAIN))[:-20],
        lzma.compress(newc(MAIN))[:60],
        zstd.compress(newc(MAIN), 3)[:60],
        newc(MAIN).replace(b"070701", b"07070x", 1),
        b"070701" + b"G" * 104,
        b"070701" + b"F" * 104,
        gzip.compress(b"no archive"),
    ],
)
def test_what_is_no_initramfs_is_refused(data: bytes) -> None:
    with pytest.raises(SourceInvalid, match="initramfs"):
        initramfs_names(data)


def test_a_bomb_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initramfs, "MAX_UNPACKED", 4 << 20)
    with pytest.raises(SourceInvalid, match="unpacks to more than"):
        initramfs_names(gzip.compress(newc(["bomb"], bytes(9 << 20))))


@given(st.binary(max_size=400), st.integers(0, 900))
@example(b"", 0)
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_names_or_one_error(noise: bytes, at: int) -> None:
    whole = newc(FIRST) + gzip.compress(newc(MAIN))
    for data in (noise, whole[:at] + noise + whole[at + len(noise) :], noise[:6] + whole):
        try:
            assert all(isinstance(name, str) for name in initramfs_names(data))
        except (SourceInvalid, ToolMissing):
            continue


def test_the_running_systems_cpio_agrees(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/odd").write_bytes(b"12345")
    try:
        data = subprocess.run(
            ["cpio", "-o", "-H", "newc", "--quiet"], input=b"d\nd/odd\n", cwd=tmp_path, capture_output=True, check=True
        ).stdout
    except FileNotFoundError:
        pytest.skip("no cpio here")
    assert initramfs_names(data) == ["d", "d/odd"]
