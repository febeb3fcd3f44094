"""Make, check and grow the ext4 filesystem of a working image, the same bytes for the same tree.

Measured: the same tree through mke2fs with default options twice shares 70 % of its chunks, with the options here
all of them. The features are those every kernel since 4.18 and every e2fsprogs since 1.44 knows, so that an older
distribution inside the image can check its own root (orphan_file and metadata_csum_seed are younger).
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from images.errors import CommandFailed, ImageError, NoSpace
from images.run import run, tail

# 2026-01-01. One fixed moment for everything that is generated, so that building twice gives the same bytes.
EPOCH = 1767225600
LABEL = "gild-root"
BLOCK = 4096
INODE = 256
JOURNAL = 64  # MiB: what mke2fs gives a filesystem of 16 GB, since the node grows this one
HEADROOM = 192 << 20  # bytes beside 1.3 times the tree: journal, inode tables and room for the first boot
STEP = 64 << 20  # sizes are multiples of it, so that a small change of the tree keeps the size and thus the layout
FEATURES = (
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,"
    "dir_nlink,extra_isize,metadata_csum"
)
KINDS = ("ext2", "ext3", "ext4")  # what e2fsprogs takes care of
LINEAGES = uuid.UUID("6a1c0b0e-6f0c-5f0b-9d52-5b1f6d1f9e11")
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 0x1, 0x2  # linux/falloc.h


@dataclass(frozen=True, slots=True)
class Identity:
    """UUID and label of a filesystem; empty where it has none."""

    uuid: str
    label: str


@dataclass(frozen=True, slots=True)
class TreeSize:
    """What a tree will take on ext4: bytes in whole blocks, and inodes."""

    bytes: int
    inodes: int


def filesystem_uuid(name: str) -> str:
    """The UUID of the root filesystem of the lineage `name`: the same on every build and so on every node."""
    return str(uuid.uuid5(LINEAGES, name))


def tree_size(root: Path) -> TreeSize:
    """Measure a tree, each hard-linked file once, not leaving its device. Raises OSError."""
    total, inodes, seen = 0, 0, set()
    device = os.lstat(root).st_dev
    stack = [os.fspath(root)]
    while stack:
        with os.scandir(stack.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                    if (status.st_dev, status.st_ino) in seen:
                        continue
                    seen.add((status.st_dev, status.st_ino))
                inodes += 1
                if stat.S_ISDIR(status.st_mode):
                    total += max(BLOCK, status.st_size)
                    if status.st_dev == device:
                        stack.append(entry.path)
                elif stat.S_ISREG(status.st_mode):
                    total += -(-min(status.st_size, max(status.st_blocks * 512, BLOCK)) // BLOCK) * BLOCK
    return TreeSize(total, inodes)


def filesystem_size(tree: TreeSize) -> int:
    """Bytes of a filesystem that holds the tree with some room; the node grows it to its disk."""
    wanted = tree.bytes * 13 // 10 + tree.inodes * INODE + HEADROOM
    return -(-wanted // STEP) * STEP


def make(tree: Path, image: Path, *, name: str, size: int, inodes: int, identity: str = "") -> None:
    """Write a new filesystem of `size` bytes holding `tree` to `image`; owners, modes, links, devices and extended
    attributes are kept. `identity` is its UUID, that of the lineage `name` if empty. Needs root, because it must read
    every file. Raises CommandFailed, NoSpace, ToolMissing."""
    identity = identity or filesystem_uuid(name)
    with image.open("wb") as file:
        file.truncate(size)
    argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-b", str(BLOCK), "-I", str(INODE), "-m", "1", "-O", FEATURES]
    argv += ["-N", str(max(inodes * 2, size // 16384)), "-J", f"size={JOURNAL}", "-U", identity, "-L", LABEL]
    argv += ["-E", f"hash_seed={identity},lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0"]
    done = run(
        [*argv, "-d", os.fspath(tree), os.fspath(image)],
        env=fixed_time(),
        timeout=3600,
        check=False,
        act=f"making the filesystem of {name}",
    )
    if done.returncode:
        _raise(f"making the filesystem of {name}", "mke2fs", done.returncode, done.stderr or done.stdout)
    _fix_times(image)


def _fix_times(image: Path) -> None:
    """mke2fs copies the change and access times of the tree, which are those of the build (measured: 9 chunks of 1600
    differ by them alone); nothing in a system reads them, so all become EPOCH."""
    with image.open("rb") as file:
        sb = os.pread(file.fileno(), 1024, 1024)
    total, free, first = (struct.unpack_from("<I", sb, at)[0] for at in (0, 16, 84))
    # mke2fs hands out inodes one after another: those in use are the root and all from the first one up to the count.
    commands = "".join(
        f"set_inode_field <{inode}> ctime @{EPOCH}\nset_inode_field <{inode}> atime @{EPOCH}\n"
        for inode in (2, *range(first, total - free + 1))
    )
    run(["debugfs", "-w", "-f", "-", os.fspath(image)], input=commands.encode(), env=fixed_time(), act="fixing times")


def check(image: Path) -> Identity:
    """Bring an unmounted ext filesystem in order (e2fsck -fp: journal replayed, safe repairs made) and say who it is.
    Raises CommandFailed if it cannot be repaired without a decision, ImageError if it is not ext at all."""
    with image.open("rb") as file:
        superblock = os.pread(file.fileno(), 1024, 1024)
    if len(superblock) < 1024 or struct.unpack_from("<H", superblock, 56)[0] != 0xEF53:
        raise ImageError(f"{image} does not hold an ext4 filesystem")
    done = run(["e2fsck", "-fp", os.fspath(image)], env=fixed_time(), timeout=3600, check=False, act="checking")
    # e2fsck(8): 1 = errors corrected, 2 = corrected and reboot advised (mounted), 4 and up = left as they are.
    if done.returncode & ~1:
        raise CommandFailed(
            f"{image}: the filesystem is damaged: {tail(done.stdout or done.stderr)}",
            f"run e2fsck -f {image} and decide",
        )
    label = superblock[120:136].split(b"\0")[0].decode("utf-8", "replace")
    return Identity(str(uuid.UUID(bytes=superblock[104:120])), label)


def grow(image: Path, size: int) -> None:
    """Enlarge an unmounted filesystem and its file to `size` bytes; does nothing if it is that large already.
    Raises CommandFailed."""
    if size <= image.stat().st_size:
        return
    check(image)
    os.truncate(image, size)
    run(["resize2fs", os.fspath(image)], env=fixed_time(), timeout=3600, act=f"growing {image.name}")


def rename(image: Path, identity: str) -> None:
    """Give an unmounted filesystem another UUID. Its checksums are seeded with the UUID (FEATURES has no
    metadata_csum_seed), so all of its metadata is written anew. Raises CommandFailed."""
    check(image)
    argv = ["tune2fs", "-U", identity, os.fspath(image)]
    run(argv, input=b"y\n", env=fixed_time(), timeout=3600, act=f"naming the filesystem of {image.name}")


def punch(fd: int, free: Iterable[tuple[int, int]]) -> None:
    """Turn the stretches (start, length in bytes) of a file into holes. A filesystem that cannot is left as it is:
    the file only stays larger on the head."""
    libc = ctypes.CDLL(None, use_errno=True)
    for start, length in free:
        mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
        if libc.fallocate(fd, mode, ctypes.c_int64(start), ctypes.c_int64(length)):
            return


def fixed_time() -> dict[str, str]:
    """Environment that makes e2fsprogs write one fixed time instead of now (lib/ext2fs/initialize.c, e2fsck/unix.c)."""
    return {"E2FSPROGS_FAKE_TIME": str(EPOCH), "SOURCE_DATE_EPOCH": str(EPOCH), "E2FSCK_TIME": str(EPOCH)}


def _raise(act: str, tool: str, code: int, output: bytes) -> None:
    text = tail(output)
    if "No space left" in text or "no free" in text:
        raise NoSpace(f"{act}: {text}", "free some space on the disk that holds the store")
    raise CommandFailed(f"{act}: {tool} failed ({code}): {text}")
