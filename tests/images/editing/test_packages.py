"""Package lists, from the books of four package managers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from images.editing.packages import packages
from images.errors import ImageError
from tests.images.systems import link, put

DPKG = """\
Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9

Package: libc6
Status: install ok installed
Architecture: i386
Version: 2.36-8

Package: gone
Status: deinstall ok config-files
Version: 1

Package: bash
Status: install ok installed
Description: a shell
 Version: 9
Version: 5.2
"""


def test_dpkg(tmp_path: Path) -> None:
    put(tmp_path, "var/lib/dpkg/status", DPKG)
    assert packages(str(tmp_path)) == {"bash": "5.2", "libc6": "2.36-8, 2.36-9"}


def test_apk(tmp_path: Path) -> None:
    put(tmp_path, "lib/apk/db/installed", "C:Q1x=\nP:musl\nV:1.2.4-r2\nA:x86_64\n\nP:busybox\nV:1.36\nF:bin\n\n")
    assert packages(str(tmp_path)) == {"busybox": "1.36", "musl": "1.2.4-r2"}


def test_pacman(tmp_path: Path) -> None:
    for name in ("linux-6.9.arch1-1", "gcc-libs-14.1.1+r58-1", "ALPM_DB_VERSION"):
        put(tmp_path, f"var/lib/pacman/local/{name}/desc")
    assert packages(str(tmp_path)) == {"gcc-libs": "14.1.1+r58-1", "linux": "6.9.arch1-1"}


@pytest.mark.parametrize("place", ["usr/lib/sysimage/rpm/rpmdb.sqlite", "var/lib/rpm/Packages"])
def test_rpm_is_asked_with_the_place_of_its_books(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    root = tmp_path / "root"
    put(root, place)
    monkeypatch.setenv("PATH", os.fspath(tmp_path / "none"))
    assert packages(str(root)) is None
    put(
        tmp_path,
        "bin/rpm",
        '#!/bin/sh\nprintf "kernel 5.14-2\\nkernel 5.14-1\\ngpg-pubkey 1-2\\nargs %s\\n" "$2$4"\n',
        0o755,
    )
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    found = packages(str(root))
    assert found == {"args": f"{root}/{os.path.dirname(place)}", "kernel": "5.14-1, 5.14-2"}
    put(tmp_path, "bin/rpm", "#!/bin/sh\nexit 1\n", 0o755)
    assert packages(str(root)) is None


def test_a_tree_without_any(tmp_path: Path) -> None:
    assert packages(str(tmp_path)) is None


def test_a_book_outside_is_not_read(tmp_path: Path) -> None:
    put(tmp_path, "outside/status", DPKG)
    root = tmp_path / "root"
    put(root, "etc/x")
    link(root, "var/lib/dpkg/status", str(tmp_path / "outside/status"))
    assert packages(str(root)) is None
    (root / "var/lib/dpkg/status").unlink()
    put(root, "var/lib/dpkg/status")
    os.truncate(root / "var/lib/dpkg/status", 1 << 40)
    with pytest.raises(ImageError, match="larger than"):
        packages(str(root))
