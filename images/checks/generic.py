"""An initramfs for every machine: where the tree has one for the golden client alone, its own tool makes it anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from images.checks.check import Check, finding
from images.editing.within import within
from images.errors import CommandFailed, ToolMissing
from images.ext4 import EPOCH
from images.initramfs import MAX_FILE
from images.kernels import STORAGE, Kernel, kernels
from images.rebuild import command, tool_of, widen
from images.tree import Tree

NAME = "initramfs for all machines"
PATIENCE = 900.0  # seconds for one kernel; measured 17 to 47 on two shared processors
# What the family's own tools call the initramfs of a kernel that has none yet.
NEW = {"debian": "boot/initrd.img-{}", "suse": "boot/initrd-{}"}


def make_generic(tree: Tree, found: Sequence[Kernel], fs: str, family: str) -> tuple[list[Kernel], list[Check]]:
    """Make the initramfs of each kernel anew that lacks a driver of STORAGE or of the filesystem `fs`, is damaged or
    missing, or holds a pin to one machine. Gives the kernels as they are then, and what was done; a tool that fails is
    an error with its own words, and the initramfs stays as it was. Needs root. Raises TreeInvalid, OSError."""
    tool = tool_of(tree, any(kernel.dracut for kernel in found))
    narrow = [kernel for kernel in found if kernel.vmlinuz and needs_rebuild(kernel, fs)]
    if not tool:
        return list(found), []
    changed = widen(tree, tool, fs)
    if not narrow:
        return list(found), [finding(NAME, changed, "changed, so that the next one is made for all machines")]
    root, done, failed = Path(tree.root), [], []
    for kernel in narrow:
        path = kernel.initrd or NEW.get(family, "boot/initramfs-{}.img").format(kernel.version)
        before = tree.read(path, MAX_FILE)
        try:
            within(
                root,
                command(tool, kernel.version, path, exists=bool(kernel.initrd)),
                act=f"making the initramfs of {kernel.version}",
                env={"SOURCE_DATE_EPOCH": str(EPOCH)},
                timeout=PATIENCE,
            )
            done.append(kernel.version)
        except (CommandFailed, ToolMissing) as error:
            failed.append(error.message)
            if before:  # mkinitfs removes the old one first
                tree.write(path, before)
            else:
                tree.remove(path)
    checks = [finding(NAME, done, f"made anew by {tool} with the drivers of all machines")] if done else []
    if failed:
        checks.append(finding(NAME, failed, "mend that in the image and publish it again", "error"))
    return kernels(root), checks


def needs_rebuild(kernel: Kernel, fs: str) -> bool:
    """Whether the initramfs of a kernel is missing, damaged, or made for one machine."""
    return (
        not kernel.initrd or kernel.damaged or (not kernel.unread and bool(kernel.lacks(*STORAGE, fs) or kernel.pins))
    )
