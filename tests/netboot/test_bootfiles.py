from __future__ import annotations

import os
from pathlib import Path

import pytest

from netboot import bootfiles
from netboot.bootfiles import BootFiles, Piece


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    boot = tmp_path / "boot"
    (boot / "tools").mkdir(parents=True)
    (boot / "memtest").write_bytes(b"M" * 1000)
    (boot / "tools" / "dos.img").write_bytes(b"D" * 10)
    (tmp_path / "secret").write_bytes(b"S")
    return boot


def read(piece: Piece | None) -> bytes:
    assert piece is not None
    try:
        return piece.read(0, piece.size)
    finally:
        piece.close()


def test_serves_the_sites_files_by_name_and_with_a_leading_slash(folder: Path) -> None:
    files = BootFiles({}, str(folder))
    assert files.names() == ["memtest", "tools/dos.img"]
    assert read(files.find("/tools/dos.img")) == b"D" * 10
    assert files.is_folder("tools") and not files.is_folder("memtest")


def test_a_payload_member_is_read_at_its_offset_and_stays_open(tmp_path: Path) -> None:
    whole = tmp_path / "archive"
    whole.write_bytes(b"head" + b"kernel" + b"tail")
    fd = os.open(whole, os.O_RDONLY)
    files = BootFiles({"vmlinuz": (fd, 4, 6)}, str(tmp_path / "none"))
    for _ in range(2):
        assert read(files.find("vmlinuz")) == b"kernel"
    piece = files.find("vmlinuz")
    assert piece is not None and piece.read(4, 100) == b"el" and piece.read(9, 5) == b""
    os.close(fd)


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "tools/../../secret", "tools", "", "/", ".", "memtest/", "link", "away/passwd"]
)
def test_what_is_not_in_the_table_is_not_there(folder: Path, name: str) -> None:
    (folder / "link").symlink_to(folder.parent / "secret")
    (folder / "away").symlink_to("/etc")
    assert BootFiles({}, str(folder)).find(name) is None


def test_a_folder_turned_into_a_link_after_the_scan_leads_nowhere(folder: Path) -> None:
    files = BootFiles({}, str(folder))
    files.names()
    outside = folder.parent / "outside"
    (folder / "tools").rename(outside)
    (folder / "tools").symlink_to(outside)
    assert files.find("tools/dos.img") is None


def test_new_files_are_seen_without_a_restart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("netboot.bootfiles.time.monotonic", lambda: clock[0])
    files = BootFiles({}, str(folder))
    assert files.find("late") is None
    (folder / "late").write_bytes(b"L")
    clock[0] += bootfiles.RESCAN
    assert read(files.find("late")) == b"L"
    (folder / "late").unlink()
    assert files.find("late") is None


def test_the_table_is_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootfiles, "MAX_FILES", 1)
    files = BootFiles({}, str(folder))
    assert len(files.names()) == 1 and files.left_out == 1
