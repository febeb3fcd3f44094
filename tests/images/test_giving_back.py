"""A full disk and a killed process, at any moment: no half version, all space given back, the next one works."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from images.keeping.garbage import collect
from images.namespace import in_private_namespace
from images.options import Options
from images.sources.directory import import_directory
from images.store import Store
from tests.images.sound import damaged
from tests.images.tinytree import tiny_tree

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

# The process that is killed, or runs out of space: imports a directory and says how it ended.
WORKER = """
import sys
from pathlib import Path
from images.errors import NoSpace
from images.options import Options
from images.sources.directory import import_directory
from images.store import Store
try:
    print(import_directory(Store(Path(sys.argv[1])), "x", Path(sys.argv[2]), Options()).ref)
except NoSpace as error:
    print("no space:", error)
"""


def worker(store: Path, tree: Path) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", WORKER, os.fspath(store), os.fspath(tree)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def files(root: Path) -> dict[str, int]:
    """Every file of a store that takes room: name -> bytes on the disk."""
    found = {os.fspath(p.relative_to(root)): p.lstat().st_blocks * 512 for p in root.rglob("*") if p.is_file()}
    return {name: size for name, size in found.items() if not name.endswith((".lock", "/last", "/tags")) and size}


def loops() -> str:
    return subprocess.run(
        ["losetup", "--list", "--noheadings", "-O", "BACK-FILE"], capture_output=True, text=True
    ).stdout


def large_tree(path: Path, seed: int) -> Path:
    tree = tiny_tree(path, seed=seed)
    (tree / "usr/lib/large").write_bytes(os.urandom(24 << 20))
    return tree


def test_killed_at_any_moment_nothing_is_lost_and_nothing_stays(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    first = import_directory(store, "x", large_tree(tmp_path / "one", 1), Options())
    changed = large_tree(tmp_path / "two", 2)
    begun = time.monotonic()
    import_directory(Store(tmp_path / "other"), "x", changed, Options())
    whole = time.monotonic() - begun + 0.3  # the start of Python
    ended = 0
    for part in range(1, 11):
        process = worker(store.root, changed)
        time.sleep(whole * part / 10)
        process.kill()
        out, err = process.communicate(timeout=30)
        ended += process.returncode == 0
        assert process.returncode in (0, -signal.SIGKILL), err
        assert (f"x:{store.versions('x')[-1]}" == out.strip()) or process.returncode < 0
        for number in store.versions("x"):
            assert damaged(store, f"x:{number}") == []
    assert ended < 10, "it was always done before it was killed"
    assert str(tmp_path) not in loops()

    for number in store.versions("x")[1:]:
        store.set_tag("x", 1)
        store.remove(f"x:{number}")
    collect(store, grace=0)
    again = import_directory(store, "x", changed, Options())
    assert again.parent == first.version and damaged(store, again.ref) == []
    assert sorted(files(store.root)) == sorted(
        ["work/x/current/digest", "work/x/current/root.img", "tags/x"]
        + [f"packs/{pack}.{kind}" for pack in {*first.packs, *again.packs} for kind in ("idx", "pack")]
        + [f"images/x/{number}.{kind}" for number in (1, again.version) for kind in ("json", "runs", "sha256")]
    )


@pytest.mark.parametrize("megabytes", [6, 24, 40, 60, 80])
def test_on_a_full_disk_all_space_is_given_back(tmp_path: Path, megabytes: int) -> None:
    """So much of it fills the disk during the copy, the file system, the packs, or while the version is kept."""
    tree = large_tree(tmp_path / "tree", 3)
    disk = tmp_path / "disk"
    disk.mkdir()

    def body() -> tuple[str, dict[str, int], dict[str, int]]:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "gild-test", disk], check=True)
        store = Store(disk / "store")
        before = files(store.root)
        process = worker(store.root, tree)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert (store.versions("x") == []) == out.startswith("no space")
        return out, before, files(store.root)

    out, before, after = in_private_namespace(body)
    if megabytes < 80:
        assert out.startswith("no space") and "the disk" in out
        assert after == before
    assert str(disk) not in loops()
