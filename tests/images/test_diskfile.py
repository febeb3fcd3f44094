"""Disk files from strangers: which format, and that none of them opens a file of the head's."""

from __future__ import annotations

import json
import os
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from images.errors import CommandFailed, SourceInvalid
from images.options import Options
from images.sources import diskfile
from images.sources.diskfile import opened, recognise
from tests.images.filled import missing

pytestmark = pytest.mark.skipif(missing("qemu-img"), reason="qemu-img is not installed")
DESCRIPTOR = '# Disk DescriptorFile\nversion=1\nCID=1\nparentCID={parent}\ncreateType="{kind}"\n{extents}\n'


def made(path: Path, form: str, *options: str, size: str = "8M") -> Path:
    argv = ["qemu-img", "create", "-q", "-f", form, *options, str(path), *([size] if size else [])]
    subprocess.run(argv, check=True, capture_output=True)
    return path


def look(path: Path, tmp_path: Path) -> tuple[str, int]:
    (tmp_path / "staging").mkdir(exist_ok=True)
    try:
        with opened(path, tmp_path / "staging", Options()) as disk:
            assert disk.read(0, 512) == bytes(512)
            return disk.format, disk.size
    finally:
        assert list((tmp_path / "staging").iterdir()) == []


@pytest.mark.parametrize(
    ("form", "options"),
    [("raw", []), ("qcow2", []), ("qcow2", ["-o", "compat=0.10"]), ("vdi", []), ("vhdx", []), ("vmdk", []),
     ("vmdk", ["-o", "subformat=monolithicFlat"]), ("vmdk", ["-o", "subformat=twoGbMaxExtentSparse"]),
     ("vmdk", ["-o", "subformat=streamOptimized"]), ("vmdk", ["-o", "subformat=twoGbMaxExtentFlat"])],
)  # fmt: skip
def test_every_format_is_recognised_and_read(tmp_path: Path, form: str, options: list[str]) -> None:
    if "subformat=streamOptimized" in options:
        made(tmp_path / "raw", "raw")
        argv = ["qemu-img", "convert", "-f", "raw", "-O", "vmdk", *options, str(tmp_path / "raw"), str(tmp_path / "d")]
        subprocess.run(argv, check=True)
    else:
        made(tmp_path / "d", form, *options)
    assert recognise(tmp_path / "d") == form
    assert look(tmp_path / "d", tmp_path) == (form, 8 << 20)


def refused(path: Path, tmp_path: Path, match: str) -> None:
    with pytest.raises(SourceInvalid, match=match):
        look(path, tmp_path)


def test_a_backing_file_is_not_opened(tmp_path: Path) -> None:
    made(tmp_path / "base", "raw")
    path = made(tmp_path / "d", "qcow2", "-b", str(tmp_path / "base"), "-F", "raw", size="")
    refused(path, tmp_path, "difference to another disk")
    data = bytearray(made(tmp_path / "e", "qcow2").read_bytes())
    name = b"/etc/shadow"
    data[65000 : 65000 + len(name)] = name
    struct.pack_into(">QI", data, 8, 65000, len(name))
    (tmp_path / "e").write_bytes(data)
    refused(tmp_path / "e", tmp_path, "difference to another disk")


def test_a_data_file_is_not_opened(tmp_path: Path) -> None:
    path = made(tmp_path / "d", "qcow2", "-o", f"data_file={tmp_path / 'data'},data_file_raw=on")
    refused(path, tmp_path, "its data in another file")


def test_an_encrypted_disk_is_named(tmp_path: Path) -> None:
    data = bytearray(made(tmp_path / "d", "qcow2").read_bytes())
    data[35] = 2
    (tmp_path / "d").write_bytes(data)
    refused(tmp_path / "d", tmp_path, "encrypted")


@pytest.mark.parametrize(
    "extent",
    ['RW 16384 FLAT "/etc/shadow" 0', 'RW 16384 FLAT "../secret" 0', 'RW 16384 FLAT "link" 0', 'RW 16384 FLAT "fifo" 0',
     'RW 16384 SPARSE "nbd:127.0.0.1:9"', 'RW 16384 FLAT "json:{}" 0', 'RW 16384 FLAT', 'RW 16384 FLAT "" 0',
     'RW 16384 ZERO\nRW 16384 FLAT "/etc/shadow" 0', 'RDONLY 16384 FLAT "/dev/sda" 0', '\t RW 1 FLAT\t"/etc/shadow" 0'],
)  # fmt: skip
def test_a_vmdk_opens_nothing_but_files_beside_it(tmp_path: Path, extent: str) -> None:
    (tmp_path / "secret").write_bytes(bytes(8 << 20))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/link").symlink_to("../secret")
    os.mkfifo(tmp_path / "folder/fifo")
    path = tmp_path / "folder/d.vmdk"
    path.write_text(DESCRIPTOR.format(parent="ffffffff", kind="monolithicFlat", extents=extent))
    refused(path, tmp_path, "no file beside it")


def test_a_vmdk_snapshot_is_named(tmp_path: Path) -> None:
    path = tmp_path / "d.vmdk"
    path.write_text(DESCRIPTOR.format(parent="00000002", kind="monolithicFlat", extents=""))
    refused(path, tmp_path, "snapshot")
    made(tmp_path / "base.vmdk", "vmdk")
    refused(made(tmp_path / "e.vmdk", "vmdk", "-b", "base.vmdk", "-F", "vmdk", size=""), tmp_path, "snapshot")


def test_a_sparse_vmdk_without_a_size_is_no_way_around(tmp_path: Path) -> None:
    """qemu takes the text inside it for that of a disk in parts, with any file as a part."""
    data = bytearray(made(tmp_path / "d", "vmdk").read_bytes())
    struct.pack_into("<Q", data, 12, 0)
    (tmp_path / "d").write_bytes(data)
    refused(tmp_path / "d", tmp_path, "size of nothing")


@pytest.mark.parametrize("size", [0, 1 << 62])
def test_a_size_nobody_has_is_refused(tmp_path: Path, size: int) -> None:
    data = bytearray(made(tmp_path / "d", "qcow2").read_bytes())
    struct.pack_into(">Q", data, 24, size)
    (tmp_path / "d").write_bytes(data)
    with pytest.raises((SourceInvalid, CommandFailed)):
        look(tmp_path / "d", tmp_path)


def test_a_disk_of_17_tebibytes_is_refused_before_it_is_written(tmp_path: Path) -> None:
    refused(made(tmp_path / "d", "qcow2", size="17T"), tmp_path, "which nobody has")


def test_what_qemu_img_says_is_checked_as_well(tmp_path: Path) -> None:
    """Were a way found around the reading of headers, the answer of qemu-img would still have to be clean."""
    path = tmp_path / "d"
    good: dict[str, Any] = {"virtual-size": 8 << 20, "actual-size": 1, "format-specific": {"data": {}}}
    diskfile._check_info(good, path, tmp_path / "t")
    for bad in (
        {"backing-filename": "/etc/shadow"},
        {"encrypted": True},
        {"format-specific": {"data": {"data-file": "x"}}},
        {"format-specific": {"data": {"extents": [{"filename": "/etc/shadow"}]}}},
        {"format-specific": {"data": {"extents": [{"filename": "../x"}]}}},
    ):
        with pytest.raises(SourceInvalid):
            diskfile._check_info(json.loads(json.dumps(good | bad)), path, tmp_path / "t")


def test_a_broken_disk_is_one_line(tmp_path: Path) -> None:
    data = bytearray(made(tmp_path / "d", "qcow2").read_bytes())
    data[40:48] = b"\xff" * 8  # its first table lies nowhere
    (tmp_path / "d").write_bytes(data)
    with pytest.raises(CommandFailed, match="reading d: ") as caught:
        look(tmp_path / "d", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_raw_disk_is_read_where_it_lies(tmp_path: Path) -> None:
    path = made(tmp_path / "d", "raw")
    path.chmod(0o400)
    (tmp_path / "staging").mkdir()
    with opened(path, tmp_path / "staging", Options()) as disk:
        assert disk.file == path and not disk.own
        with pytest.raises(OSError, match="Bad file"):
            os.pwrite(disk.fd, b"x", 0)
    assert path.exists()
