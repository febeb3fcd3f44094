"""Time services by every init, the zone, and files from the future."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from images.checks import clock
from images.ext4 import EPOCH
from tests.images import systems
from tests.images.checks.looked import look
from tests.images.systems import link, put


def test_no_time_service(tmp_path: Path) -> None:
    check = look(clock.service, systems.debian(tmp_path))["time service"]
    assert check.severity == "warning" and "apt-get install -y systemd-timesyncd" in check.fix


@pytest.mark.parametrize(
    ("program", "unit"),
    [
        ("usr/lib/systemd/systemd-timesyncd", "systemd-timesyncd"),
        ("usr/sbin/chronyd", "chrony"),
        ("usr/sbin/ntpd", "ntp"),
    ],
)
def test_a_time_service_has_to_be_started(tmp_path: Path, program: str, unit: str) -> None:
    root = systems.debian(tmp_path)
    put(root, program)
    check = look(clock.service, root)["time service"]
    assert check.found == (f"/{program} is there and not started",) and f"systemctl enable {unit}" in check.fix
    link(root, f"etc/systemd/system/sysinit.target.wants/{unit}.service", f"/lib/systemd/system/{unit}.service")
    assert look(clock.service, root) == {}


def test_openrc_and_runit_start_it_elsewhere(tmp_path: Path) -> None:
    root = tmp_path / "alpine"
    put(root, "etc/os-release", "ID=alpine\n")
    put(root, "etc/inittab", "::sysinit:/sbin/openrc sysinit\n")
    put(root, "sbin/init")
    put(root, "etc/init.d/ntpd")
    assert "rc-update add ntpd default" in look(clock.service, root)["time service"].fix
    link(root, "etc/runlevels/default/ntpd", "/etc/init.d/ntpd")
    assert look(clock.service, root) == {}
    root = tmp_path / "void"
    link(root, "sbin/init", "runit-init")
    put(root, "usr/bin/chronyd")
    assert look(clock.service, root)
    link(root, "etc/runit/runsvdir/default/chronyd", "/etc/sv/chronyd")
    assert look(clock.service, root) == {}


def test_the_zone_is_installed(tmp_path: Path) -> None:
    assert look(clock.zone, tmp_path) == {}
    link(tmp_path, "etc/localtime", "/usr/share/zoneinfo/Europe/Berlin")
    assert look(clock.zone, tmp_path)["time zone"].found == ("etc/localtime -> /usr/share/zoneinfo/Europe/Berlin",)
    put(tmp_path, "usr/share/zoneinfo/Europe/Berlin")
    assert look(clock.zone, tmp_path) == {}


def test_files_from_the_future_get_a_time(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", put(tmp_path, "outside")
    path = put(root, "etc/new")
    link(root, "link", "../outside")
    for late in (path, root / "link", outside):
        os.utime(late, (4e9, 4e9), follow_symlinks=False)
    assert look(clock.future, root)["files from the future"].found == ("etc/new", "link")
    assert path.stat().st_mtime == EPOCH == (root / "link").lstat().st_mtime and outside.stat().st_mtime == 4e9
    assert look(clock.future, root) == {}
