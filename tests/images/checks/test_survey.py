"""The one walk: what it notes, and that it never leaves the tree."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from images.checks.survey import MAX_NOTED, survey
from images.tree import Tree
from tests.images.systems import link, put

CORE = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 4, 62) + bytes(40)
PROGRAM = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, 62) + bytes(40)


def test_what_persons_leave_is_noted_by_name_and_place(tmp_path: Path) -> None:
    for path in ("root/.ssh/id_ed25519", "home/ada/.ssh/id_rsa", "home/ada/.aws/credentials", "root/.netrc"):
        put(tmp_path, path, "secret")
    for path in ("home/ada/.bash_history", "srv/x/.ssh/id_rsa.pub", "home/ada/credentials", "usr/share/doc/id_rsa"):
        put(tmp_path, path, "words")
    put(tmp_path, "root/.ssh/id_rsa", "")  # nothing is in it
    put(tmp_path, "var/crash/core.1234", CORE)
    put(tmp_path, "opt/core", PROGRAM)
    put(tmp_path, "srv/core", b"core")
    found = survey(Tree(os.fspath(tmp_path)), 4e9)
    assert found.keys == ["home/ada/.ssh/id_rsa", "root/.ssh/id_ed25519"]
    assert found.credentials == ["home/ada/.aws/credentials", "root/.netrc"]
    assert found.histories == ["home/ada/.bash_history"] and found.cores == ["var/crash/core.1234"]
    assert found.future == [] and found.entries == sum(len(d) + len(f) for _, d, f in os.walk(tmp_path))


def test_links_are_noted_and_not_followed(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    put(outside, ".ssh/id_rsa", "secret")
    put(outside, "core", CORE)
    root.mkdir()
    link(root, "home", "../outside")
    link(root, "core", "../outside/core")
    os.utime(root / "home", (4e9, 4e9), follow_symlinks=False)
    found = survey(Tree(os.fspath(root)), 3e9)
    assert (found.keys, found.cores, found.future, found.entries) == ([], [], ["home"], 2)


def test_no_list_grows_without_end(tmp_path: Path) -> None:
    for number in range(MAX_NOTED + 5):
        os.close(os.open(tmp_path / f"f{number}", os.O_CREAT | os.O_WRONLY))
    assert len(survey(Tree(os.fspath(tmp_path)), 0).future) == MAX_NOTED
