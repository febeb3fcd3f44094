"""Whether what the tree brings to boot with would start it on another machine's disk.

A node starts the image's own boot menu by a GRUB of the head's, or of the image where that has a signed one. UUIDs of
filesystems are the image's on every node; names of disks, of logical volumes and UUIDs of partitions are not.
"""

from __future__ import annotations

import re

from images.checks import advice
from images.checks.check import Check, finding
from images.checks.menus import Entry, entries, place
from images.checks.subject import Subject
from images.distro import debian
from images.ext4 import LABEL
from images.tree import Tree

# The initramfs waits for each of these, and gives up without it (dracut.cmdline(7)).
WAITED = ("rd.lvm.lv=", "rd.luks.uuid=", "rd.luks.name=", "rd.md.uuid=", "rd.dm.uuid=", "cryptdevice=", "cryptroot=")
RESUME = re.compile(r"resume=(?:UUID=|PARTUUID=|LABEL=|/dev/)")
# What makes the next boot menu, and may hold the same words.
SOURCES = ("etc/default/grub", "etc/kernel/cmdline", "etc/update-extlinux.conf")
SERIAL = re.compile(r"console=(?:tty(?:S|AMA|USB)|hvc)\d")


def menu(tree: Tree, subject: Subject) -> list[Check]:
    """Every entry of the boot menus: its root filesystem is the image's, its kernel and initramfs are there."""
    found = entries(tree)
    if not found:
        return []
    disks = [(entry, word) for entry in found for word in entry.words if _wrong(word, subject)]
    files = list(dict.fromkeys([entry.file for entry, _ in disks]))
    files += [path for path in SOURCES if disks and any(word in tree.text(path) for _, word in disks)]
    waits = [f"{entry.file}: {word}" for entry in found for word in entry.words if RESUME.match(word)]
    return [
        finding(
            "boot menu: disks of another machine",
            dict.fromkeys(f"{entry.file}: {word}" for entry, word in disks),
            f"no node starts with them: {advice.edit(_mend(subject, files))}",
            "error",
        ),
        finding(
            "boot menu: swap of another machine",
            dict.fromkeys(waits),
            "the start waits for it in vain: remove resume= from the boot menu",
            "warning",
        ),
        *_files(tree, found),
    ]


def loaders(tree: Tree, subject: Subject) -> list[Check]:
    """What the image brings to start by UEFI; the rest comes from the head."""
    family = subject.system.family or debian.FAMILY
    vendor = family.vendor(subject.system.release)
    missing = [what for what, paths in (("shim", family.shim), ("GRUB", family.grub)) if not _any(tree, paths, vendor)]
    unified = [
        f"{directory}/{name}"
        for directory in ("boot/EFI/Linux", "boot/efi/EFI/Linux", "efi/EFI/Linux")
        for name in tree.names(directory, "*.efi")
    ]
    how = "the head's own are used"
    if family is not debian.FAMILY:
        how += "; they are Debian's, so with Secure Boot on a node does not start this kernel"
    return [
        finding("signed loaders for UEFI", [f"no {what}" for what in missing], how),
        finding("unified kernel images", unified, "a node does not start these, but the kernel and initramfs in boot/"),
    ]


def console(tree: Tree, subject: Subject) -> list[Check]:
    """A serial console, which is how a node in a rack is looked at when nothing else works."""
    found = entries(tree)
    silent = [entry.file for entry in found if not any(SERIAL.match(word) for word in entry.words)]
    if not found and not SERIAL.search(subject.cmdline):
        silent = ["kernel arguments"]
    fix = "a node says nothing on its serial line: add console=tty0 console=ttyS0,115200 to the profile's arguments"
    return [finding("serial console", dict.fromkeys(f"none in {file}" for file in silent), fix)]


def _wrong(word: str, subject: Subject) -> bool:
    """Whether an argument of the kernel names a disk that a node does not have."""
    key, _, value = word.partition("=")
    if key == "root":
        kind, _, name = value.partition("=")
        if value.startswith("$"):
            return False
        if kind == "UUID":
            return name.strip('"').lower() != subject.uuid.lower()
        if kind == "LABEL":  # a filesystem that is published as it is keeps its own
            return not subject.room and name.strip('"') != LABEL
        return bool(value)
    if key == "rootfstype":
        return subject.fs not in value.split(",")
    if key == "rootflags":
        return "subvol" in value and subject.fs != "btrfs"
    return word.startswith(WAITED)


def _mend(subject: Subject, files: list[str]) -> str:
    """A command that gives every entry the image's own root filesystem."""
    gone = "|".join(word.rstrip("=").replace(".", r"\.") for word in ("rootflags", "rootfstype", *WAITED))
    # "set root=" is GRUB's own word for the partition it reads from.
    script = f'/set root=/!{{s#root=[^ "]+#root=UUID={subject.uuid}#g; s# ({gone})=[^ "]+##g}}'
    return f"sed -i -E '{script}' {' '.join(f'/{file}' for file in files)}"


def _files(tree: Tree, found: list[Entry]) -> list[Check]:
    lost, first_lost = [], False
    for number, entry in enumerate(found):
        for path in (entry.kernel, *entry.initrds):
            if place(tree, path) == "":
                lost.append(f"{entry.file}: {path}")
                first_lost = first_lost or number == 0
    usable = any(all(place(tree, path) for path in (entry.kernel, *entry.initrds)) for entry in found)
    fix = "make the menu anew in the image (update-grub, grub2-mkconfig) or remove these entries"
    severity = "error" if first_lost or not usable else "warning"
    return [finding("boot menu: files that are not there", dict.fromkeys(lost), fix, severity)]


def _any(tree: Tree, paths: tuple[str, ...], vendor: str) -> bool:
    for pattern in paths:
        before, star, after = pattern.format(vendor=vendor).partition("/*/")
        candidates = [f"{before}/{name}/{after}" for name in tree.names(before)] if star else [before]
        if any(tree.is_file(path) for path in candidates):
            return True
    return False
