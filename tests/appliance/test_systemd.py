from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from appliance import bundled, systemd
from appliance.errors import Environment, Wrong
from appliance.paths import Paths
from appliance.systemd import Place, check, doubts, install, remove, this
from appliance.unit import MARK, Unit, read, render
from images.errors import NoSpace

UNIT = Unit("/bin/sh", "/bin/true", "/var/lib/gild", ("--interface", "eth1"))


def tree(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "etc/systemd/system/multi-user.target.wants").mkdir(parents=True)
    (tmp_path / "var/lib").mkdir(parents=True)
    return Place(tmp_path)


def test_remove_takes_back_what_install_did(place: Place) -> None:
    before = tree(place.root)
    assert not install(place, UNIT)
    assert read(place.text()) == UNIT and place.unit.stat().st_mode & 0o777 == 0o644
    assert (place.root / "var/lib/gild").is_dir()
    assert not install(place, UNIT)  # again, by a newer file
    place.wanted.symlink_to("/etc/systemd/system/gild.service")
    assert remove(place) == UNIT and tree(place.root) == before


def test_a_state_that_holds_something_stays(place: Place) -> None:
    install(place, UNIT)
    (place.root / "var/lib/gild/gild.db").write_text("x")
    remove(place)
    assert (place.root / "var/lib/gild/gild.db").exists() and not place.unit.exists()


def test_somebody_elses_unit_is_left_alone(place: Place) -> None:
    place.unit.write_text("[Service]\nExecStart=/bin/true\n")
    for act in (lambda: install(place, UNIT), lambda: remove(place)):
        with pytest.raises(Wrong, match="not written by gild"):
            act()
    assert place.unit.read_text() == "[Service]\nExecStart=/bin/true\n"
    place.unit.unlink()
    with pytest.raises(Wrong, match="there is no"):
        remove(place)


def test_a_full_disk_leaves_the_unit_that_was_there(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    install(place, UNIT)

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NoSpace):
        install(place, Unit("/bin/sh", "/bin/false", "/var/lib/gild"))
    assert read(place.text()) == UNIT and len(os.listdir(place.unit.parent)) == 2


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_is_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    check(UNIT)
    with pytest.raises(Environment, match=r"gild\.service.*not executable"):
        check(Unit("/none/python", "/bin/true", "/var/lib/gild"))
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    check(Unit("/none/python", "/bin/true", "/var/lib/gild"))  # it is not there to be asked


def test_only_the_one_file_is_a_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Environment, match="checkout"):
        this(Paths(tmp_path), ())
    monkeypatch.setattr(bundled, "is_archive", lambda: True)
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    monkeypatch.setattr(bundled, "ROOT", "/usr/local/sbin/gild.pyz")
    state = Path("/srv/gild-test-that-is-not-there")
    made = this(Paths(state), ("--interface", "eth1"))
    assert made == Unit("/usr/bin/python3", "/usr/local/sbin/gild.pyz", str(state), ("--interface", "eth1"))
    for gone in ("/tmp/gild.pyz", "/run/gild.pyz", "/dev/shm/gild.pyz"):
        monkeypatch.setattr(bundled, "ROOT", gone)
        with pytest.raises(Environment, match="cannot use what lies there"):
            this(Paths(state), ())


def test_an_image_store_on_another_disk_is_written_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "GONE", ())
    monkeypatch.setattr(bundled, "is_archive", lambda: True)
    (tmp_path / "state").mkdir()
    (tmp_path / "disk").mkdir()
    (tmp_path / "state" / "store").symlink_to(tmp_path / "disk")
    made = this(Paths(tmp_path / "state"), ())
    assert made.writes == (str(tmp_path / "disk"),)
    assert f"ReadWritePaths={tmp_path}/state {tmp_path}/disk\n" in render(made)


@pytest.mark.root
def test_files_that_others_may_change_are_named(tmp_path: Path) -> None:
    file = tmp_path / "gild.pyz"
    file.write_text("")
    file.chmod(0o755)
    unit = Unit("/bin/sh", str(file), "/var/lib/gild")
    assert not [line for line in doubts(unit) if str(file) in line]
    file.chmod(0o775)
    assert [line for line in doubts(unit) if f"chmod go-w {file}" in line]
    os.chown(file, 12345, 0)
    assert [line for line in doubts(unit) if "belongs to user 12345" in line]


def test_the_mark_is_where_read_looks_for_it() -> None:
    assert render(UNIT).startswith(MARK + "\n")
