"""A package manager at work: a shell script speaks for it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from images.errors import CommandFailed, NoSpace, RecipeInvalid
from images.namespace import in_private_namespace
from images.run import run
from images.sources.installing import Speech, install

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
SPEECH = Speech(re.compile(r"no (\S+)"), re.compile("^did "), re.compile(r"^(\d+) to do"), steps=2)


def do(tmp_path: Path, script: str) -> list[tuple[str, int, int]]:
    told: list[tuple[str, int, int]] = []
    install(["sh", "-c", script], tmp_path, SPEECH, act="building x", env={"A": "a"}, tell=lambda *at: told.append(at))
    return told


def test_its_output_becomes_progress(tmp_path: Path) -> None:
    told = do(tmp_path, "echo 1 to do; echo did a; echo other; echo did b; echo did $A")
    assert told == [("build", 0, 1), ("build", 1, 2), ("build", 2, 2), ("build", 2, 2)]


@pytest.mark.parametrize(
    ("script", "wanted", "message"),
    [
        ("echo no this; echo no that; echo no this; exit 1", RecipeInvalid, "the archive has no package this, that"),
        ("echo x: No space left on device; echo no this; exit 1", NoSpace, "building x: the disk is full"),
        ("echo broken; exit 4", CommandFailed, r"failed \(4\): broken"),
    ],
)
def test_its_complaints_become_errors(tmp_path: Path, script: str, wanted: type[Exception], message: str) -> None:
    with pytest.raises(wanted, match=message):
        do(tmp_path, script)


def test_what_it_mounts_is_never_seen_outside(tmp_path: Path) -> None:
    (tmp_path / "at").mkdir()
    (tmp_path / "at/mine").touch()
    with pytest.raises(CommandFailed):
        do(tmp_path, f"mount -t tmpfs none {tmp_path}/at; test ! -e {tmp_path}/at/mine || exit 0; echo sorry; exit 1")
    assert (tmp_path / "at/mine").exists() and not os.path.ismount(tmp_path / "at")


def test_a_disk_that_is_full_is_known_without_a_word(tmp_path: Path) -> None:
    def work() -> None:
        run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", os.fspath(tmp_path)])
        do(tmp_path, f"head -c 3000000 /dev/zero > {tmp_path}/file 2> /dev/null; exit 1")

    with pytest.raises(NoSpace):
        in_private_namespace(work)


def test_an_interrupt_ends_it(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        do(tmp_path, f"echo one; kill -INT {os.getpid()}; sleep 600")  # and not another word
