"""The boot menu and the root line of fstab for a tree that brings none; what it brings is never rewritten."""

from __future__ import annotations

import os
import re
from pathlib import Path

from images.kernels import Kernel
from images.options import CMDLINE
from images.strip import Check, inside
from images.tree import Tree

EXISTING = ("boot/grub/grub.cfg", "boot/grub2/grub.cfg", "boot/loader/entries/*.conf", "boot/extlinux/extlinux.conf")
TITLE = re.compile(r'^PRETTY_NAME="?([^"\n]*)"?$', re.M)
UNSAFE = re.compile(r"[^\x20-\x7e]|['\"\\$`;{}]")


def write_grub_cfg(root: Path, kernels: list[Kernel], *, uuid: str, cmdline: str = CMDLINE) -> Check:
    """Write boot/grub/grub.cfg if the tree has no boot configuration of its own. `uuid` is the root filesystem's.

    It starts /vmlinuz and /initrd.img where the distribution keeps those links, so that a kernel update needs no new
    configuration, and otherwise the newest kernel by its path. Raises OSError."""
    for pattern in EXISTING:
        if any(root.glob(pattern)):
            return Check("boot configuration")
    newest = next((kernel for kernel in kernels if kernel.vmlinuz), None)
    if newest is None:
        return Check("boot configuration")
    links = all((root / name).is_symlink() and _leads_inside(root, name) for name in ("vmlinuz", "initrd.img"))
    kernel = "/vmlinuz" if links else f"/{newest.vmlinuz}"
    initrd = "/initrd.img" if links else f"/{newest.initrd}" if newest.initrd else ""
    lines = [
        "set default=0",
        "set timeout=1",
        f"search --no-floppy --fs-uuid --set=root {uuid}",
        f"menuentry '{_title(root)}' {{",
        f"    linux {kernel} root=UUID={uuid} ro {cmdline}".rstrip(),
        *([f"    initrd {initrd}"] if initrd else []),
        "}",
    ]
    # Through Tree: the way there may be a link, also a dangling one, that leads out of a hostile tree.
    Tree(str(root)).write("boot/grub/grub.cfg", "\n".join(lines) + "\n", 0o644)
    return Check("boot configuration", (f"none; kernel {newest.version}",), "wrote boot/grub/grub.cfg")


def write_fstab(root: Path, *, uuid: str, fs: str = "ext4") -> Check:
    """Add a line for / to etc/fstab if there is none: without it systemd leaves the root filesystem read-only."""
    path = inside(root, "etc/fstab")
    if path is None or path.is_symlink():
        return Check("fstab")
    text = path.read_text(errors="replace") if path.is_file() else ""
    if any(line.split()[1:2] == ["/"] for line in text.splitlines() if not line.lstrip().startswith("#")):
        return Check("fstab")
    text = text if not text or text.endswith("\n") else text + "\n"
    path.write_text(f"{text}UUID={uuid} / {fs} defaults,errors=remount-ro 0 1\n")
    os.chmod(path, 0o644)
    return Check("fstab", ("no line for /",), "added one")


def _leads_inside(root: Path, link: str) -> bool:
    target = os.readlink(root / link).lstrip("/")
    path = inside(root, target)
    return path is not None and path.is_file()


def _title(root: Path) -> str:
    for name in ("etc/os-release", "usr/lib/os-release"):
        path = inside(root, name)
        if path is not None and path.is_file() and not path.is_symlink():
            match = TITLE.search(path.read_text(errors="replace"))
            if match:
                return UNSAFE.sub("", match[1])[:60] or "Linux"
    return "Linux"
