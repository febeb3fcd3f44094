"""Room on the filesystems of an image, as they are published. The node grows the root filesystem to its disk."""

from __future__ import annotations

import os

from images.checks.check import Check, finding
from images.checks.subject import Subject
from images.tree import Tree

MIN_SHARE = 0.15
MIN_BYTES = 256 << 20
ENOUGH = 0.25  # a small filesystem with this share left is not full, whatever MIN_BYTES says
MIN_INODES = 0.05
MIB = 1 << 20


def room(tree: Tree, subject: Subject) -> list[Check]:
    """Less than MIN_SHARE left on /, or less than MIN_BYTES and ENOUGH; no place in /boot for one more kernel; or
    hardly an inode left."""
    found = []
    for mount, left in sorted(subject.room.items()):
        if mount == "/" and left.free < max(left.size * MIN_SHARE, min(MIN_BYTES, left.size * ENOUGH)):
            found.append(f"{mount}: {left.free // MIB} MiB of {left.size // MIB} MiB left")
        elif mount == "/boot" and left.free < (needed := _kernel(tree, subject)):
            found.append(f"{mount}: {left.free // MIB} MiB left, one more kernel takes {needed // MIB} MiB")
        elif left.inodes < MIN_INODES:
            found.append(f"{mount}: {left.inodes:.0%} of the inodes left")
    fix = "a node grows / to its disk; what is published is full: remove something, or give /boot a larger partition"
    return [finding("free space", found, fix, "warning")]


def _kernel(tree: Tree, subject: Subject) -> int:
    """Bytes that the newest kernel and its initramfs take."""
    newest = next((kernel for kernel in subject.kernels if kernel.vmlinuz), None)
    if newest is None:
        return 0
    return sum(os.lstat(tree.place(path)).st_size for path in (newest.vmlinuz, newest.initrd) if path)
