from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.cluster import block
from appliance.cluster.apply import Here, apply
from appliance.cluster.change import Change, Command, File, blocked
from appliance.errors import Environment, Wrong
from images.errors import CommandFailed, ToolMissing

LIVE = Here()


def change(path: Path, body: str, *commands: Command, undo: tuple[Command, ...] = ()) -> Change:
    return Change("x", (blocked(LIVE.read, str(path), "x", body),), commands, undo)


def sh(script: str, **how: object) -> Command:
    return replace(Command(("sh", "-c", script)), **how)  # type: ignore[arg-type]


def test_mode_owner_and_links_stay(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("own\n")
    real.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(real, 12, 34)
    link.symlink_to(real)
    before = real.stat()
    apply(change(link, "a\n"), LIVE)
    after = real.stat()
    assert link.is_symlink() and "own\n" in real.read_text() and "\na\n" in real.read_text()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino  # by rename: whoever reads it reads all of the old or all of the new
    assert sorted(os.listdir(tmp_path)) == ["link", "real"]


def test_a_new_file_below_a_root(tmp_path: Path) -> None:
    here = Here(tmp_path)
    apply(Change("x", (File("/etc/a/b", None, "text\n", mode=0o600),), (sh("exit 1"),)), here)
    assert (tmp_path / "etc/a/b").read_text() == "text\n"  # and no command is run for a system that is not running
    assert stat.S_IMODE((tmp_path / "etc/a/b").stat().st_mode) == 0o600
    assert here.read("/etc/a/b") == "text\n"


def test_what_somebody_edited_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "f"
    apply(change(path, "a\nb\n"), LIVE)
    path.write_text(path.read_text().replace("b\n", "B\n"))
    with pytest.raises(Wrong, match="somebody has changed gild's lines by hand") as caught:
        apply(change(path, "a\nc\n"), LIVE)
    assert "--take" in caught.value.hint and "B\n" in path.read_text()
    apply(change(path, "a\nc\n"), LIVE, take=True)
    assert block.split(path.read_text(), "x").body == "a\nc\n"


def test_a_file_that_changed_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "f"
    made = change(path, "a\n")
    path.write_text("own\n")
    with pytest.raises(Wrong, match="changed in this moment by somebody else"):
        apply(made, LIVE)
    assert path.read_text() == "own\n"


def test_a_service_that_refuses_gets_the_old_files_back(tmp_path: Path) -> None:
    path, fresh, log = tmp_path / "f", tmp_path / "fresh", tmp_path / "log"
    path.write_text("own\n")
    made = change(path, "bad\n", sh("echo 'line 3: no such word' >&2; exit 7"), undo=(sh(f"cat {path} > {log}"),))
    made = replace(made, files=(*made.files, File(str(fresh), None, "new\n")))
    with pytest.raises(CommandFailed, match=r"x: .*failed \(7\): line 3: no such word; the old files are back$"):
        apply(made, LIVE)
    assert path.read_text() == "own\n" and not fresh.exists() and log.read_text() == "own\n"
    with pytest.raises(CommandFailed, match=r"the old file is back, and x: .*failed \(1\): worse"):
        apply(change(path, "bad\n", sh("exit 1"), undo=(sh("echo worse; exit 1"),)), LIVE)
    with pytest.raises(ToolMissing, match="no-such-program is not installed; the old file is back"):
        apply(change(path, "bad\n", Command(("no-such-program",))), LIVE)
    assert path.read_text() == "own\n"


def test_waiting_for_a_word(tmp_path: Path) -> None:
    count = tmp_path / "count"
    ask = sh(f"echo x >> {count}; test $(wc -l < {count}) -ge 3 && echo is UP", until="UP", seconds=20.0)
    apply(Change("x", commands=(ask, Command(("grep", "text", "FILE"), input="text"))), LIVE)
    assert count.read_text() == "x\nx\nx\n"
    with pytest.raises(CommandFailed, match="does not say UP: is DOWN"):
        apply(Change("x", commands=(sh("echo is DOWN; exit 1", until="UP"),)), LIVE)
    apply(Change("x", commands=(sh("exit 1", optional=True),)), LIVE)


def test_files_that_cannot_be_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"ok\n\xff\n")
    with pytest.raises(Wrong, match="not UTF-8 at byte 3"):
        LIVE.read(str(path))
    with pytest.raises(Environment, match="Is a directory"):
        LIVE.read(str(tmp_path))
    monkeypatch.setattr("appliance.cluster.apply.MAX_FILE", 2)
    with pytest.raises(Wrong, match="not a file of this kind"):
        LIVE.read(str(path))
    assert LIVE.read(str(tmp_path / "none")) is None


def test_a_broken_block_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("# gild x: begin\n")
    with pytest.raises(block.BlockBroken, match=f"^{path}: "):
        change(path, "a\n")
