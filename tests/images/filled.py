"""Filesystems that were lived in: files written, some removed, unmounted; and what is left of one in its used bytes."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from images.namespace import in_private_namespace, mounted
from images.usedmap import UsedMap, overlap

MAKERS = {
    "ext4": ["mke2fs", "-q", "-F", "-t", "ext4"],
    "ext2": ["mke2fs", "-q", "-F", "-t", "ext2", "-b", "1024"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    "xfs small blocks": ["mkfs.xfs", "-q", "-f", "-b", "size=1024", "-d", "agcount=4"],
    "xfs large sectors": ["mkfs.xfs", "-q", "-f", "-s", "size=4096", "-l", "su=65536"],
    "vfat 12": ["mkfs.vfat", "-F", "12", "-s", "128"],
    "vfat 16": ["mkfs.vfat", "-F", "16"],
    "vfat 32": ["mkfs.vfat", "-F", "32", "-s", "1"],
    "vfat 32 large": ["mkfs.vfat", "-F", "32", "-S", "4096", "-s", "1"],
    "ntfs": ["mkntfs", "-F", "-q", "-f"],
    "ntfs large": ["mkntfs", "-F", "-q", "-f", "-c", "65536"],
}


def missing(program: str) -> bool:
    """Whether a program is not installed."""
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None


def make(path: Path, name: str, size: int) -> Path:
    """A new filesystem of a kind of MAKERS in a sparse file."""
    with path.open("wb") as file:
        file.truncate(size)
    subprocess.run([*MAKERS[name], str(path)], check=True, capture_output=True)
    return path


def inside(path: Path, fs: str, work: Callable[[Path], None], *, read_only: bool = False) -> None:
    """Do `work` on the mounted filesystem, which is unmounted then; its free blocks keep what was written there."""
    at = path.parent / "at"
    at.mkdir(exist_ok=True)

    def loop() -> None:
        with mounted(path, at, read_only=read_only, trim=False, options="nouuid" if fs == "xfs" else ""):
            work(at)

    def fuse() -> None:
        # In the foreground, so that its end can be waited for: umount(8) does not wait for a daemon.
        daemon = subprocess.Popen(["ntfs-3g", "-o", "no_detach", str(path), str(at)], stderr=subprocess.DEVNULL)
        try:
            for _ in range(1000):
                if os.path.ismount(at):
                    break
                try:
                    daemon.wait(0.01)
                except subprocess.TimeoutExpired:
                    continue
                raise AssertionError("ntfs-3g could not mount it")
            work(at)
        finally:
            subprocess.run(["umount", str(at)], check=False)
            daemon.wait(20)

    in_private_namespace(fuse if fs == "ntfs" else loop)


def live(path: Path, fs: str) -> dict[str, bytes]:
    """Write files of many sizes, remove every third, write some more; what is there in the end, by name."""
    dice, kept = random.Random(7), dict[str, bytes]()
    first = {f"d{n % 5}/file-{n}": dice.randbytes(dice.choice((0, 17, 700, 5000, 60_000, 300_000))) for n in range(90)}
    gone = list(first)[::3]
    second = {f"d9/late-{n}": dice.randbytes(40_000) for n in range(10)} | {"zeros": bytes(200_000)}
    kept = {name: data for name, data in (first | second).items() if name not in gone}
    if fs == "vfat":
        _write(path.parent / "tree", first)
        run = ("mcopy", "-Q", "-s", "-i", path)
        subprocess.run([*run, *sorted((path.parent / "tree").iterdir()), "::"], check=True, capture_output=True)
        subprocess.run(["mdel", "-i", path, *(f"::{name}" for name in gone)], check=True, capture_output=True)
        shutil.rmtree(path.parent / "tree")
        _write(path.parent / "tree", second)
        subprocess.run([*run, *sorted((path.parent / "tree").iterdir()), "::"], check=True, capture_output=True)
        return kept

    def work(at: Path) -> None:
        _write(at, first)
        written(at)
        for name in gone:
            (at / name).unlink()
        _write(at, second)

    inside(path, fs, work)
    return kept


def contents(path: Path, fs: str) -> dict[str, bytes]:
    """Every file of the filesystem, by name."""
    found: dict[str, bytes] = {}

    def work(at: Path) -> None:
        found.update({str(f.relative_to(at)): f.read_bytes() for f in at.rglob("*") if f.is_file()})

    if fs == "vfat":
        out = path.parent / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        subprocess.run(["mcopy", "-Q", "-s", "-n", "-i", path, "::*", out], check=True, capture_output=True)
        work(out)
    else:
        inside(path, fs, work)
    return found


def sound(path: Path, fs: str) -> None:
    """Let the filesystem's own tool look for damage."""
    argv = {
        "ext4": ["e2fsck", "-fn"],
        "ext2": ["e2fsck", "-fn"],
        "xfs": ["xfs_repair", "-n"],
        "vfat": ["fsck.vfat", "-n"],
        "ntfs": ["ntfsfix", "-n"],
    }[fs]
    done = subprocess.run([*argv, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def only_used(source: Path, used: UsedMap, target: Path) -> None:
    """A disk full of other data, with nothing but the used bytes of `source` written over it."""
    size = source.stat().st_size
    with source.open("rb") as file, target.open("wb") as out:
        for at in range(0, size, 1 << 20):
            out.write(b"\xff" * min(1 << 20, size - at))
        for start, length in overlap(used.extents, 0, size):
            for at in range(start, start + length, 1 << 20):
                count = min(1 << 20, start + length - at)
                os.pwrite(out.fileno(), os.pread(file.fileno(), count, at), at)


def written(at: Path) -> None:
    """Everything of that filesystem is on its disk after this, and nothing is done to others."""
    subprocess.run(["sync", "-f", str(at)], check=True)


def _write(root: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
