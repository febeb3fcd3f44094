"""Whether the kernels of a tree can start machines nobody has seen yet: drivers of disks and cards, and firmware."""

from __future__ import annotations

import lzma
import re
import zlib
from pathlib import Path

from images import zstd
from images.checks import advice
from images.checks.check import Check, finding
from images.checks.subject import Subject
from images.errors import ChunkInvalid
from images.kernels import NETWORK, STORAGE, Kernel, kernel_names, version_key
from images.rebuild import by_hand, tool_of
from images.tree import Tree

PACKAGES = {
    "debian": "linux-image-amd64",
    "redhat": "kernel",
    "suse": "kernel-default",
    "alpine": "linux-lts",
    "arch": "linux",
    "void": "linux",
    "gentoo": "sys-kernel/gentoo-kernel-bin",
}
CLOUD = "linux-image-cloud-amd64 cannot boot most real machines"
# Cards that do nothing, or not all, without a file of firmware, and the package that has it on Debian 12 and 13.
FIRMWARE = {
    "bnx2": "firmware-bnx2",
    "bnx2x": "firmware-bnx2x",
    "tg3": "firmware-misc-nonfree",
    "r8169": "firmware-realtek",
    "ice": "firmware-misc-nonfree",
    "qed": "firmware-qlogic",
    "cxgb4": "firmware-misc-nonfree",
}
PLACES = ("usr/lib/firmware", "lib/firmware")
SUFFIXES = ("", ".xz", ".zst")
MAX_DEP = 16 << 20  # bytes of modules.dep; Debian has half a megabyte
MAX_MODULE = 64 << 20  # bytes of a module, unpacked; the largest has 10 MiB
_BLOB = re.compile(rb"(?:\A|\0)firmware=([ -~]{1,200})(?=\0)")
_MODULE = re.compile(r"(.+)\.ko(?:\.(?:xz|zst|gz))?")


def kernels(tree: Tree, subject: Subject) -> list[Check]:
    """A kernel, with its modules, and in them the drivers of common disks and network cards."""
    packages = {**PACKAGES, "debian": f"linux-image-{subject.arch}", "suse": PACKAGES["suse"]}
    if not any(kernel.vmlinuz for kernel in subject.kernels):
        lost = _without_modules(tree, subject)
        found = ("no kernel with modules", *lost) if lost else ("no kernel: the tree of a container, not of a machine",)
        how = f"{advice.install(subject.family, packages)} (the boot loader comes from the head)"
        return [Check("kernel", found, how, "error")]
    checks = []
    newest = next(kernel for kernel in subject.kernels if kernel.vmlinuz)
    for kernel in subject.kernels:
        if not kernel.vmlinuz:
            continue
        missing = [name for name in (*STORAGE, subject.fs) if name not in kernel.available]
        cards = [name for name in NETWORK if name not in kernel.available]
        name = f"kernel {kernel.version}"
        if "ahci" in missing or subject.fs in missing:
            why = CLOUD if "cloud" in kernel.version else "use the distribution's generic kernel"
            fix = f"{why}: {advice.install(subject.family, packages)}"
            checks.append(finding(name, missing + cards, fix, "error" if kernel is newest else "warning"))
        else:
            fix = "nodes with these need another kernel"
            checks.append(finding(name, missing + cards, fix, "warning"))
    lost = _without_modules(tree, subject)
    newer = [name for name in lost if version_key(name.partition("vmlinuz-")[2]) > version_key(newest.version)]
    fix = "it has no modules, and is what starts first: install its package again" if newer else "remove it"
    checks.append(finding("kernels without modules", lost, fix, "error" if newer else "warning"))
    alone = [f"usr/lib/modules/{kernel.version}" for kernel in subject.kernels if not kernel.vmlinuz]
    checks.append(finding("modules without a kernel", alone, "they only take room: remove the package they are of"))
    return checks


def initramfs(tree: Tree, subject: Subject) -> list[Check]:
    """For every kernel an initramfs that drives every common controller, or none because none is needed."""
    tool = tool_of(tree, any(kernel.dracut for kernel in subject.kernels))
    command = by_hand(tool)
    how = advice.edit(command) if command else "the image has no tool that makes one: install initramfs-tools or dracut"
    checks = []
    bootable = [kernel for kernel in subject.kernels if kernel.vmlinuz]
    for kernel in bootable:
        name = f"initramfs of {kernel.version}"
        severity = "error" if kernel is bootable[0] else "warning"
        if not kernel.initrd:
            without = [word for word in (*STORAGE, subject.fs) if word not in kernel.modules]
            found = (f"none, and {', '.join(without)} not built in",) if without else ()
            checks.append(finding(name, found, how, severity))
        elif kernel.unread:
            checks.append(finding(name, [kernel.unread], how if kernel.damaged else "it was not checked", severity))
        else:
            lacks = kernel.lacks(*STORAGE, subject.fs)
            fix = f"it starts few machines; for all: {how}"
            checks.append(finding(name, lacks, fix, severity))
            if kernel.pins:
                pins = f"they name one machine; make it anew: {how}"
                checks.append(finding(f"pins in the {name}", kernel.pins, pins, "warning"))
    return checks


def firmware(tree: Tree, subject: Subject) -> list[Check]:
    """Network cards whose driver is there, and the firmware it loads is not. Of the newest kernel only; reads the few
    modules of FIRMWARE."""
    newest = next((kernel for kernel in subject.kernels if kernel.vmlinuz), None)
    if newest is None:
        return []
    have = PLACES[0] if tree.is_dir(PLACES[0]) else PLACES[1]
    lacking = [name for name, blobs in _blobs(tree, newest).items() if blobs and not _any(tree, have, blobs)]
    packages = " ".join(dict.fromkeys(FIRMWARE[name] for name in lacking))
    other = {"redhat": "linux-firmware", "suse": "kernel-firmware-all", "arch": "linux-firmware",
             "alpine": "linux-firmware", "void": "linux-firmware", "gentoo": "sys-kernel/linux-firmware"}  # fmt: skip
    how = f"nodes with such cards may have no network: {advice.install(subject.family, {**other, 'debian': packages})}"
    how += " (Debian has it in the component non-free-firmware)" if subject.family == "debian" else ""
    return [finding("firmware of network cards", lacking, how)]


def _without_modules(tree: Tree, subject: Subject) -> list[str]:
    """Kernels in boot/ that no directory of modules belongs to. A rescue image is a copy of another kernel."""
    root = Path(tree.root)
    known = {name for kernel in subject.kernels for name in kernel_names(root, kernel.version)}
    names = (f"boot/{name}" for name in tree.names("boot", "vmlinuz-*") if "rescue" not in name)
    return [name for name in names if name not in known and not tree.link(name)]


def _blobs(tree: Tree, kernel: Kernel) -> dict[str, list[str]]:
    """Driver of FIRMWARE -> names of the files it may ask for, as its module says (modinfo(8))."""
    wanted = {name for name in FIRMWARE if name in kernel.available}
    base = next((p for p in ("usr/lib/modules", "lib/modules") if tree.is_dir(f"{p}/{kernel.version}")), "")
    found: dict[str, list[str]] = {}
    listed = tree.text(f"{base}/{kernel.version}/modules.dep", MAX_DEP).split("\n") if base and wanted else []
    for entry in listed:
        path = entry.partition(":")[0]
        match = _MODULE.fullmatch(path.rpartition("/")[2])
        if match and match[1] in wanted:
            data = _unpacked(tree.read(f"{base}/{kernel.version}/{path}", MAX_MODULE))
            found[match[1]] = [blob.decode() for blob in _BLOB.findall(data)]
    return found


def _unpacked(data: bytes) -> bytes:
    try:
        if data[:6] == b"\xfd7zXZ\0":
            return lzma.LZMADecompressor(memlimit=256 << 20).decompress(data, MAX_MODULE)
        if data[:2] == b"\x1f\x8b":
            return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(data, MAX_MODULE)
        if data[:4] == b"\x28\xb5\x2f\xfd":
            return zstd.decompress_stream(data, MAX_MODULE)
    except (lzma.LZMAError, zlib.error, ChunkInvalid):
        return b""  # a driver that cannot be read is no reason to refuse an image
    return data


def _any(tree: Tree, base: str, blobs: list[str]) -> bool:
    return any(tree.is_file(f"{base}/{blob}{suffix}") for blob in blobs for suffix in SUFFIXES)
