"""The boot menu and the root line of fstab for a tree that brings none; a menu that it brings is never rewritten."""

from __future__ import annotations

import contextlib
import re

from images.checks.check import Check
from images.checks.subject import Subject
from images.tree import Tree, TreeInvalid

OWN = "boot/grub/grub.cfg"
MARK = "# Made when the image was published, and made anew with every version; without this line it stays as it is.\n"
EXISTING = (OWN, "boot/grub2/grub.cfg", "boot/extlinux/extlinux.conf", "boot/extlinux.conf")
ENTRIES = "boot/loader/entries"
MAX_CFG = 4 << 20  # bytes; a grub.cfg with dozens of kernels has 50 KiB
TITLE = re.compile(r'^PRETTY_NAME="?([^"\n]*)"?$', re.M)
UNSAFE = re.compile(r"[^\x20-\x7e]|['\"\\$`;{}]")
# Alpine's initramfs loads what it is told to and no more (mkinitfs, initramfs-init.in: modules=, rootfstype=).
ALPINE = " modules=sd-mod,usb-storage,nvme,{fs} rootfstype={fs}"
OPTIONS = {"ext4": "defaults,errors=remount-ro"}


def write_grub_cfg(tree: Tree, subject: Subject) -> list[Check]:
    """Write boot/grub/grub.cfg if the tree has no boot configuration of its own, or one that was written here.

    It starts /vmlinuz and /initrd.img where the distribution keeps those links, so that a kernel update needs no new
    configuration, and otherwise the newest kernel by its path. Raises TreeInvalid."""
    own = tree.is_file(OWN) and tree.text(OWN, MAX_CFG).startswith(MARK)
    if not own and (any(tree.lexists(path) for path in EXISTING) or tree.names(ENTRIES, "*.conf")):
        return [Check("boot configuration")]
    newest = next((kernel for kernel in subject.kernels if kernel.vmlinuz), None)
    if newest is None:
        return [Check("boot configuration")]
    kernel, initrd = f"/{newest.vmlinuz}", f"/{newest.initrd}" if newest.initrd else ""
    search = f"--fs-uuid --set=root {subject.uuid}"
    if "/boot" in subject.mounts.values():
        # The UUID of that partition may change with the layout; the kernel's own name finds it as well.
        kernel, initrd = kernel.removeprefix("/boot"), initrd.removeprefix("/boot")
        search = f"--file --set=root {kernel}"
    elif all(tree.link(name) and tree.is_file(name) for name in ("vmlinuz", "initrd.img")):
        kernel, initrd = "/vmlinuz", "/initrd.img"
    words = f"root=UUID={subject.uuid} ro {subject.cmdline}".rstrip()
    words += ALPINE.format(fs=subject.fs) if subject.family == "alpine" else ""
    lines = [
        "set default=0",
        "set timeout=1",
        f"search --no-floppy {search}",
        f"menuentry '{_title(tree)}' {{",
        f"    linux {kernel} {words}",
        *([f"    initrd {initrd}"] if initrd else []),
        "}",
    ]
    if not tree.write(OWN, MARK + "\n".join(lines) + "\n", 0o644):
        return [Check("boot configuration")]
    found = f"{'another kernel or disk' if own else 'none'}; kernel {newest.version}"
    return [Check("boot configuration", (found,), f"wrote {OWN}")]


def write_fstab(tree: Tree, subject: Subject) -> list[Check]:
    """Add a line for / to etc/fstab if there is none: without it systemd leaves the root filesystem read-only."""
    text = tree.text("etc/fstab")
    if any(line.split()[1:2] == ["/"] for line in text.splitlines() if not line.lstrip().startswith("#")):
        return [Check("fstab")]
    text = text if not text or text.endswith("\n") else text + "\n"
    options = OPTIONS.get(subject.fs, "defaults")
    # XFS and btrfs check themselves when they are mounted (fsck.xfs(8), fsck.btrfs(8)).
    turn = 0 if subject.fs in ("xfs", "btrfs") else 1
    tree.write("etc/fstab", f"{text}UUID={subject.uuid} / {subject.fs} {options} 0 {turn}\n", None if text else 0o644)
    return [Check("fstab", ("no line for /",), "added one")]


def _title(tree: Tree) -> str:
    for name in ("etc/os-release", "usr/lib/os-release"):
        with contextlib.suppress(TreeInvalid):
            match = TITLE.search(tree.text(name, 65536))
            if match:
                return UNSAFE.sub("", match[1])[:60] or "Linux"
    return "Linux"
