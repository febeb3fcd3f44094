"""How each distribution's own tool makes an initramfs that starts any machine, and not only the one it was made on.

Measured on Debian: update-initramfs takes 17 s; dracut 059 18 s with zstd; made host-only in a chroot on a RAM disk,
dracut's has 358 of 803 modules and none of nvme, ahci, sd_mod, virtio and ext4.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from images.tree import Tree

PLACES = ("usr/sbin", "usr/bin", "sbin", "bin")
TOOLS = ("update-initramfs", "dracut", "mkinitcpio", "mkinitfs")
CONF = "etc/initramfs-tools/initramfs.conf"
NAMED = "etc/initramfs-tools/modules"
POLICY = "etc/initramfs-tools/conf.d/driver-policy"  # the installer's answer, which counts over the file above
FEATURES = "etc/mkinitfs/mkinitfs.conf"
# mkinitfs names its features; setup-disk leaves nvme out of a system that was not installed on one.
ALL_FEATURES = "ata base nvme raid scsi usb virtio mmc"
FILESYSTEMS = ("ext4", "xfs", "btrfs")  # mkinitfs names a feature after each


def tool_of(tree: Tree, by_dracut: bool = False) -> str:
    """The tool that makes the tree's initramfs, one of TOOLS, or "". After Debian's dracut has replaced initramfs-tools
    all of the latter but update-initramfs stays behind (measured), so that is what tells. Where a distribution's dracut
    brings a program of that name, the initramfs itself does: `by_dracut` says that dracut made it."""
    found = [tool for tool in TOOLS if any(tree.is_file(f"{place}/{tool}") for place in PLACES)]
    if found[:2] == ["update-initramfs", "dracut"]:
        return found[by_dracut]
    return found[0] if found else ""


def widen(tree: Tree, tool: str, fs: str) -> list[str]:
    """Change the tool's configuration in the tree, where it has no argument for it, so that it puts in the drivers of
    every machine, now and after every update. Gives what changed. Raises TreeInvalid."""
    if tool == "update-initramfs" and tree.is_file(CONF):
        changed = []
        text = tree.text(CONF)
        if tree.write(CONF, re.sub(r"(?m)^MODULES=(?!most\b).*$", "MODULES=most", text)):
            changed.append("MODULES=dep")
        if "most" not in tree.text(POLICY) and tree.remove(POLICY):
            changed.append(POLICY)
        return changed
    if tool == "mkinitfs" and tree.is_file(FEATURES):
        more = f"{ALL_FEATURES} {fs}" if fs in FILESYSTEMS else ALL_FEATURES
        text = tree.text(FEATURES)
        wide = re.sub(r'(?m)^(features=")([^"\n]*)(")', lambda m: m[1] + _union(m[2], more) + m[3], text)
        return [FEATURES] if tree.write(FEATURES, wide) else []
    return []


def name(tree: Tree, tool: str, modules: Sequence[str]) -> None:
    """Have `modules` put in by name, where the tool's own search does not find them. Raises TreeInvalid."""
    if tool == "update-initramfs":
        named = tree.text(NAMED)
        new = [module for module in modules if module not in named.split()]
        if new:
            tree.write(NAMED, "\n".join([named.rstrip("\n"), *new, ""]).lstrip("\n"))


def command(tool: str, version: str, path: str, *, exists: bool, modules: Sequence[str] = ()) -> list[str]:
    """What makes the initramfs of the kernel `version` at `path` ("boot/initrd.img-6.1.0-9", or "" for where the tool
    puts it) with the drivers of every machine and `modules` by name; `exists` says that there is one to replace."""
    if tool == "update-initramfs":
        return [tool, "-u" if exists else "-c", "-k", version]
    if tool == "dracut":
        more = ["--add-drivers", " ".join(modules)] if modules else []
        to = [f"/{path}"] if path else []
        return [tool, "--force", "--no-hostonly", "--no-hostonly-cmdline", *more, "--kver", version, *to]
    if tool == "mkinitcpio":
        return [tool, "-k", version, "-g", f"/{path or f'boot/initramfs-{version}.img'}", "-S", "autodetect"]
    return [tool, *(["-o", f"/{path}"] if path else []), version]


def by_hand(tool: str) -> str:
    """The same for all kernels, as a person types it in the image."""
    return {
        "update-initramfs": "sh -c 'echo MODULES=most > /etc/initramfs-tools/conf.d/driver-policy; "
        "update-initramfs -u -k all'",
        "dracut": "dracut --no-hostonly --no-hostonly-cmdline --force --regenerate-all",
        # -P makes what the presets say, and hands on no -S to them.
        "mkinitcpio": "sh -c \"sed -i '/^HOOKS=/s/ autodetect//' /etc/mkinitcpio.conf && mkinitcpio -P\"",
        "mkinitfs": f"sh -c 'for k in /lib/modules/*; do mkinitfs -F \"{ALL_FEATURES} ext4\" ${{k##*/}}; done'",
    }.get(tool, "")


def _union(have: str, more: str) -> str:
    return " ".join(dict.fromkeys([*have.split(), *more.split()]))
