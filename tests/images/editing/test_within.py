"""A program of the tree, run in the tree: what it sees, what it says, and that nothing stays behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from images.editing.within import within
from images.errors import CommandFailed
from tests.images.shelltree import shell_tree

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shell_tree(tmp_path_factory.mktemp("within") / "tree")


def test_it_has_devices_and_processes_and_nothing_to_read(tree: Path) -> None:
    script = "echo gone > /dev/null; read x; echo $? $X; ls /proc/self/fd; ls /dev/disk/by-uuid; hostname"
    said = within(tree, ["sh", "-c", script], act="looking", env={"X": "given"}, timeout=20).decode().split()
    assert said[:2] == ["1", "given"] and said[-1] == "localhost"
    assert os.listdir(tree / "proc") == [] and not (tree / "dev/pts").exists()


def test_what_fails_says_so_in_its_own_words(tree: Path) -> None:
    with pytest.raises(CommandFailed, match=r"^making x: sh failed \(3\): no room$"):
        within(tree, ["sh", "-c", "echo no room >&2; exit 3"], act="making x", timeout=20)
    with pytest.raises(CommandFailed, match="nonesuch cannot be started in the image: No such file"):
        within(tree, ["nonesuch"], act="making x", timeout=20)


def test_nothing_outlives_it(tree: Path) -> None:
    with pytest.raises(CommandFailed, match="making x: sh did not end within 0 s"):
        within(tree, ["sh", "-c", "setsid sleep 4711 & sleep 4711"], act="making x", timeout=0.3)
    for _ in range(100):
        left = [pid for pid in os.listdir("/proc") if pid.isdigit() and _command(pid) == b"sleep\x004711\0"]
        if not left:
            break
    assert not left and "/tree/" not in Path("/proc/self/mounts").read_text()


def _command(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
