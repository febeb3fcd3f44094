"""Importing archives: from a file and from a pipe, whole or not at all, and never more than the disk has."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from images.errors import NoSpace, SourceInvalid
from images.ext4 import EPOCH
from images.namespace import in_private_namespace, mounted
from images.options import Options
from images.sources.tar import import_tar, unpack
from images.store import Store
from images.working import restore
from tests.images.handmade import DIR, archive
from tests.images.richtree import GNU_TAR, rich_tree
from tests.images.sametree import differences
from tests.images.sound import damaged
from tests.images.tinytree import tiny_tree

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

WHOLE = [*GNU_TAR, "-c", "."]
# What publishing changes or makes in any tree (images.strip, images.grubcfg).
STRIPPED = ("lost+found", "boot", "dev", "proc", "run", "sys", "tmp", "etc/fstab", "etc/hostname", "etc/machine-id",
            "etc/resolv.conf", "etc/ssh", "var/lib/dbus/machine-id", "var/lib/systemd/random-seed")  # fmt: skip


def test_a_golden_client_s_archive_comes_out_on_a_blank_disk(tmp_path: Path) -> None:
    """Everything a file can have: packed by tar, piped in, published, restored to an empty file, mounted, compared."""
    tree = rich_tree(tiny_tree(tmp_path / "tree"))
    (tree / "var/hole").unlink()  # it is in test_unpack: reading 3 GB of nothing takes a while here
    store = Store(tmp_path / "store")
    with subprocess.Popen(WHOLE, cwd=tree, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        manifest = import_tar(store, "x", program.stdout, Options())
        assert program.wait(10) == 0
        assert not program.stdout.closed
    assert manifest.source == {"kind": "tar", "file": "stream"} and damaged(store, "x") == []
    restore(store, manifest, 0, tmp_path / "blank.img")
    (tmp_path / "mount").mkdir()

    def compare() -> list[str]:
        with mounted(tmp_path / "blank.img", tmp_path / "mount", read_only=True):
            return differences(tree, tmp_path / "mount", ignore=STRIPPED)

    found = in_private_namespace(compare)
    # Directories in which publishing removes or makes something; and mke2fs knows no hard links between symbolic links.
    known = (f"against {EPOCH}", "'etc': time", "'': time", "'var/hardsym': one file", "'var/sym': one file")
    assert [line for line in found if not any(words in line for words in known)] == []


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.compress])
def test_an_archive_becomes_a_version(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    tree = tiny_tree(tmp_path / "tree")
    data = subprocess.run(WHOLE, cwd=tree, capture_output=True, check=True).stdout
    (tmp_path / "t.tar.x").write_bytes(pack(data))
    store = Store(tmp_path / "store")
    told: list[tuple[str, int, int]] = []
    manifest = import_tar(store, "x", tmp_path / "t.tar.x", Options(progress=lambda *state: told.append(state)))
    assert manifest.source == {"kind": "tar", "file": "t.tar.x"} and damaged(store, "x") == []
    size = (tmp_path / "t.tar.x").stat().st_size
    assert [state for state in told if state[0] == "unpack"][-1] == ("unpack", size, size)
    with (tmp_path / "t.tar.x").open("rb") as stream:
        assert import_tar(store, "x", stream, Options()).version == 2


@pytest.mark.parametrize("damage", ["junk", "cut", "cut at a member", "cut gzip", "bad gzip", "no system", "nothing"])
def test_broken_archives_say_so_and_leave_nothing(tmp_path: Path, damage: str) -> None:
    whole = archive(("usr", DIR), ("etc", DIR), ("etc/file", {}), ("usr/file", {}), data=os.urandom(50_000))
    packed = bytearray(gzip.compress(whole))
    packed[-6] ^= 1  # the checksum, behind the last byte of the archive
    data, reason = {
        "junk": (b"junk" * 5000, "not a whole archive: there is no header"),
        "cut": (whole[:30_000], "not a whole archive: it ends inside 'etc/file'"),
        "cut at a member": (whole[: 3 * 512 + 50_176], "not a whole archive: it ends after 'etc/file'"),
        "cut gzip": (gzip.compress(whole)[:20_000], "is cut off"),
        "bad gzip": (bytes(packed), "is damaged: not gzip"),
        "no system": (archive(("home/file", {})), "no etc and usr"),
        "nothing": (b"", "is empty"),
    }[damage]
    (tmp_path / "t.tar").write_bytes(data)
    store = Store(tmp_path / "store")
    for source in (tmp_path / "t.tar", io.BytesIO(data)):
        with pytest.raises(SourceInvalid, match=reason):
            import_tar(store, "x", source, Options())
    assert store.images() == [] and not (store.work("x") / "tree").exists()


def claimed(size: int) -> bytes:
    entry = tarfile.TarInfo("usr/lib/big")
    entry.size = size
    return archive(("etc", DIR))[:512] + entry.tobuf(tarfile.GNU_FORMAT)


# Ends with the most memory it had, in KiB.
WORKER = """
import re, sys
from pathlib import Path
from images.errors import ImageError
from images.options import Options
from images.sources.tar import import_tar
from images.store import Store
try:
    import_tar(Store(Path(sys.argv[1])), "x", sys.stdin.buffer, Options())
except ImageError as error:
    print(f"{type(error).__name__}: {error}")
print(re.search("VmHWM:[^0-9]*([0-9]+)", Path("/proc/self/status").read_text())[1])
"""


def many(member: bytes, times: int) -> bytes:
    return member * times


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        # A megabyte that claims and has a terabyte, or a gigabyte in files of which each alone would fit.
        (lambda: gzip.compress(claimed(1 << 40) + bytes(256 << 20)), "NoSpace: taking in 'usr/lib/big'"),
        (lambda: gzip.compress(many(claimed(16 << 20) + b"x" * (16 << 20), 20)), "NoSpace: taking in 'usr/lib/big'"),
        # A million empty files, on a disk with room for some thousands.
        (lambda: gzip.compress(b"".join(small(n) for n in range(40_000))), "NoSpace: taking in 'usr/"),
    ],
)
def test_a_bomb_on_a_small_disk(tmp_path: Path, data: Callable[[], bytes], reason: str) -> None:
    (tmp_path / "disk").mkdir()
    bomb = data()
    assert len(bomb) < 3 << 20

    def body() -> tuple[str, int]:
        size = "size=200m,nr_inodes=20k"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "gild-test", tmp_path / "disk"], check=True)
        done = subprocess.run(
            [sys.executable, "-c", WORKER, tmp_path / "disk/store"], input=bomb, capture_output=True, timeout=100
        )
        assert done.returncode == 0, done.stderr
        status = os.statvfs(tmp_path / "disk")
        return done.stdout.decode(), (status.f_blocks - status.f_bfree) * status.f_bsize

    said, used = in_private_namespace(body)
    line, memory = said.splitlines()
    assert line.startswith(reason), line
    assert int(memory) < 120 << 10 and used < 1 << 20


def small(number: int) -> bytes:
    return tarfile.TarInfo(f"usr/{number}").tobuf(tarfile.USTAR_FORMAT)


def test_what_is_no_file_to_read(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for path, reason in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(SourceInvalid, match=reason):
            import_tar(store, "x", path, Options())


def test_nothing_is_read_behind_the_end_but_what_was_asked_for(tmp_path: Path) -> None:
    """Whoever sends an archive may say something after it."""
    (tmp_path / "target").mkdir()
    stream = io.BytesIO(archive(("a", {})) + b"more")
    assert unpack(stream, tmp_path / "target") == 1
    assert stream.read().endswith(b"more")
    with pytest.raises(NoSpace):
        (tmp_path / "other").mkdir()
        unpack(io.BytesIO(claimed(1 << 50)), tmp_path / "other")
