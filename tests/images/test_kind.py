"""What something is, told by its first bytes: real files of the tools that make them, and what only resembles them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from images.errors import SourceInvalid
from images.sources.kind import HEAD, looks_like, looks_like_stream
from tests.images.handmade import DIR, Layout, archive, docker_save

LAYER = archive(("etc/a", {"data": b"1"}))


def layout() -> Layout:
    made = Layout()
    return made.add(made.image([LAYER]))


def both(path: Path, data: bytes) -> tuple[str, str]:
    """As a file and as a stream, which then still has every byte."""
    path.write_bytes(data)
    kind, stream = looks_like_stream(io.BytesIO(data))
    assert stream.read() == data
    return looks_like(path), kind


def disk(*places: tuple[int, bytes]) -> bytes:
    data = bytearray(70_000)
    for at, magic in places:
        data[at : at + len(magic)] = magic
    return bytes(data)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("tar", LAYER),
        ("tar", archive(("./", DIR), ("./etc", DIR), ("./boot/x", {"data": b"x"}))),
        ("tar", archive(("index.json.bak", {}), ("x", {}))),
        ("tar", archive(("blobs", DIR), ("blobs/x", {}))),
        ("oci", layout().tar()),
        ("docker", docker_save((["x:latest"], [LAYER]))),
        ("bundle", b"gildbdl1" + bytes(100)),
        ("disk:qcow2", b"QFI\xfb" + struct.pack(">I", 3)),
        ("disk:vmdk", b"KDMV\1\0\0\0"),
        ("disk:vmdk", b"# Disk DescriptorFile\nversion=1\n"),
        ("disk:vdi", disk((0, b"<<< Oracle VM VirtualBox Disk Image >>>"), (64, b"\x7f\x10\xda\xbe"))),
        ("disk:vhdx", b"vhdxfile" + bytes(100)),
        ("disk:raw", disk((510, b"\x55\xaa"))),
        ("disk:raw", disk((512, b"EFI PART"))),
        ("disk:raw", disk((4096, b"EFI PART"))),
        ("disk:raw", disk((1080, b"\x53\xef"))),
        ("disk:raw", disk((0, b"XFSB"))),
        ("disk:raw", disk((65600, b"_BHRfS_M"))),
        ("unknown", b""),
        ("unknown", bytes(100_000)),
        ("unknown", b"\x7fELF" + os.urandom(100)),
        ("unknown", b"hello\n" * 100),
        ("unknown", LAYER[:100]),
        ("unknown", gzip.compress(b"no archive")),
        ("unknown", b"\x1f\x8b" + os.urandom(5000)),
    ],
)
def test_first_bytes(tmp_path: Path, kind: str, data: bytes) -> None:
    assert both(tmp_path / "file", data) == (kind, kind)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstandard.compress])
def test_compressed(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    large = archive(("etc/a", {"data": os.urandom(2 * HEAD)}))
    for kind, data in (
        ("tar", LAYER),
        ("tar", large),
        ("oci", layout().tar()),
        ("docker", docker_save((None, [LAYER]))),
    ):
        assert both(tmp_path / "file", pack(data)) == (kind, kind)


def test_docker_save_with_its_list_behind_a_large_layer(tmp_path: Path) -> None:
    large = archive(("etc/a", {"data": os.urandom(2 * HEAD)}))
    assert both(tmp_path / "file", docker_save((["x:1"], [large]))) == ("docker", "docker")


def test_directories(tmp_path: Path) -> None:
    layout().write(tmp_path / "layout")
    assert looks_like(tmp_path / "layout") == "oci"
    (tmp_path / "layout/oci-layout").unlink()
    assert looks_like(tmp_path / "layout") == "oci"
    assert looks_like(tmp_path) == "directory"


def test_what_cannot_be_looked_at(tmp_path: Path) -> None:
    with pytest.raises(SourceInvalid, match="cannot be read: No such file"):
        looks_like(tmp_path / "none")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SourceInvalid, match="neither a file nor a directory"):
        looks_like(tmp_path / "fifo")


def test_a_pipe_that_drips() -> None:
    read, write = os.pipe()
    with os.fdopen(write, "wb", buffering=0) as into, os.fdopen(read, "rb", buffering=0) as out:
        for at in range(0, len(LAYER), 1000):
            into.write(LAYER[at : at + 1000])
        into.close()
        kind, stream = looks_like_stream(out)
        assert kind == "tar" and stream.read() == LAYER


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")
@pytest.mark.parametrize("form", ["qcow2", "vmdk", "vdi", "vhdx"])
def test_disks_as_qemu_makes_them(tmp_path: Path, form: str) -> None:
    subprocess.run(["qemu-img", "create", "-q", "-f", form, tmp_path / "disk", "64M"], check=True)
    assert looks_like(tmp_path / "disk") == f"disk:{form}"


@pytest.mark.parametrize(
    "argv", [["mke2fs", "-q", "-t", "ext4"], ["mkfs.vfat"], ["mkfs.xfs", "-q"], ["mkfs.btrfs", "-q"]]
)
def test_bare_filesystems(tmp_path: Path, argv: list[str]) -> None:
    program = shutil.which(argv[0], path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if program is None:
        pytest.skip(f"needs {argv[0]}")
    with (tmp_path / "disk").open("wb") as file:
        file.truncate(512 << 20)
    subprocess.run([program, *argv[1:], tmp_path / "disk"], check=True, capture_output=True)
    assert looks_like(tmp_path / "disk") == "disk:raw"
