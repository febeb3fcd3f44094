"""Which kernels a tree has, and what their initramfs can drive.

The list of modules goes into the manifest: the node compares it with the driver of its own root disk before it reboots.
"""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images.errors import SourceInvalid, ToolMissing
from images.initramfs import MAX_FILE, initramfs_names, modules_in
from images.strip import inside

# Controllers most machines of the last fifteen years boot from, and the cards they boot over. Of a kernel for clouds
# (linux-image-cloud-amd64) all but nvme and virtio_blk are "not set": it cannot boot bare metal.
STORAGE = ("ahci", "nvme", "sd_mod", "megaraid_sas", "mpt3sas", "virtio_blk")
NETWORK = ("e1000e", "igb", "ixgbe", "i40e", "tg3", "bnxt_en", "r8169", "virtio_net")
MAX_KERNELS = 32
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,127}")  # what uname -r gives; no word of a command line
MODULE_FILE = re.compile(r"(.+)\.ko(?:\.(?:xz|zst|gz))?$")
# What in an initramfs ties it to one machine, beside the .link files looked at in _pins. dracut puts a machine-id into
# one for all machines too, an empty one (measured, 059).
PINS = re.compile(
    r"etc/(?:iscsi/)?initiatorname\.iscsi|etc/machine-id|etc/cmdline\.d/.*root.*\.conf|conf/conf\.d/zz-resume-auto"
)
# What initramfs-tools copies from the tree: a file of that name that the tree has no more was stripped.
COPIED = {"conf/conf.d/resume": "etc/initramfs-tools/conf.d/resume"}
LINK_FILE = re.compile(r"(?:^|/)systemd/network/([^/]+\.link)$")
LINK_PLACES = ("etc/systemd/network", "usr/lib/systemd/network", "lib/systemd/network")


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel of a tree. Paths are relative to the tree, empty where there is none; `modules` are those inside its
    initramfs and built into it; `available` those of its module directory as well. '-' in names is '_'. `pins` are
    files of the initramfs that belong to one machine; `dracut` says that dracut made it; `unread` is why it could not
    be read, `damaged` that the fault is its own and not this machine's."""

    version: str
    vmlinuz: str
    initrd: str
    modules: tuple[str, ...]
    available: frozenset[str]
    pins: tuple[str, ...] = ()
    dracut: bool = False
    unread: str = ""
    damaged: bool = False

    @property
    def generic(self) -> bool:
        """Whether the initramfs drives every controller of STORAGE that this kernel has a driver for."""
        return bool(self.initrd) and not self.lacks(*STORAGE)

    def lacks(self, *names: str) -> tuple[str, ...]:
        """Those of `names` that this kernel has a driver for, and its initramfs has not."""
        return tuple(name for name in names if name in self.available and name not in self.modules)

    def as_dict(self) -> dict[str, Any]:
        """The form the manifest keeps in system.kernels."""
        return {
            "version": self.version,
            "vmlinuz": self.vmlinuz,
            "initrd": self.initrd,
            "modules": list(self.modules),
            "generic": self.generic,
        }


def kernels(root: Path) -> list[Kernel]:
    """The kernels of a tree, newest version first: every directory of modules, with the kernel and the initramfs that
    belong to it by their names. Reading one initramfs of Debian takes a quarter of a second. Raises OSError."""
    base = modules_directory(root)
    if base is None:
        return []
    found = (
        path for path in base.iterdir() if path.is_dir() and not path.is_symlink() and VERSION.fullmatch(path.name)
    )
    versions = sorted((path.name for path in found), key=version_key)
    return [_kernel(root, base, version) for version in reversed(versions[-MAX_KERNELS:])]


def modules_directory(root: Path) -> Path | None:
    """Where the tree has the modules of its kernels, a directory each."""
    place = inside(root, "usr/lib/modules/x") or inside(root, "lib/modules/x")
    return place.parent if place else None


def version_key(version: str) -> list[tuple[int, int | str]]:
    """Sort key that puts 6.1.0-9 before 6.1.0-10."""
    return [(1, int(part)) if part.isdigit() else (0, part) for part in re.findall(r"\d+|\D+", version)]


def _kernel(root: Path, base: Path, version: str) -> Kernel:
    directory = base / version
    builtin = _builtin(directory)
    available = set(builtin)
    for _, _, files in os.walk(directory):
        for file in files:
            match = MODULE_FILE.match(file)
            if match:
                available.add(match[1].replace("-", "_"))
    vmlinuz = _first(root, *kernel_names(root, version))
    initrd = _first(root, *initramfs_places(root, version))
    names, unread, damaged = _names(root / initrd) if initrd else ([], "", False)
    dracut = any(name.startswith(("usr/lib/dracut", "lib/dracut")) for name in names)
    inner = {module for modules in modules_in(names).values() for module in modules}
    return Kernel(
        version=version,
        vmlinuz=vmlinuz,
        initrd=initrd,
        modules=tuple(sorted(inner | builtin)),
        available=frozenset(available),
        pins=_pins(root, names, dracut),
        dracut=dracut,
        unread=unread,
        damaged=damaged,
    )


def kernel_names(root: Path, version: str) -> list[str]:
    """Paths at which the kernel of that version may lie, in order: Debian, EL, SUSE and Void name it after the version;
    Arch after the package, which a file beside the modules names; Alpine after the flavour alone; Gentoo has its own
    word; kernel-install(8) makes a directory for it."""
    short = _short(root, version)
    return [
        f"boot/vmlinuz-{version}",
        *(f"boot/vmlinuz-{name}" for name in short),
        f"boot/kernel-{version}",
        f"usr/lib/modules/{version}/vmlinuz",
        *(f"{directory}/linux" for directory in _installed(root, version)),
    ]


def initramfs_places(root: Path, version: str) -> list[str]:
    """Paths at which the initramfs of that version may lie, in order."""
    short = _short(root, version)
    return [
        f"boot/initrd.img-{version}",
        f"boot/initramfs-{version}.img",
        f"boot/initrd-{version}",
        *(f"boot/initramfs-{name}.img" for name in short),
        *(f"boot/initramfs-{name}" for name in short),
        f"usr/lib/modules/{version}/initramfs.img",
        f"usr/lib/modules/{version}/initrd",
        *(f"{directory}/initrd" for directory in _installed(root, version)),
    ]


def _short(root: Path, version: str) -> list[str]:
    path = inside(root, f"usr/lib/modules/{version}/pkgbase")
    if path is not None and path.is_file() and not path.is_symlink() and path.stat().st_size < 256:
        package = path.read_text(errors="replace").strip()
        if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", package):
            return [package]
    return [version.rpartition("-")[2]]


def _installed(root: Path, version: str) -> list[str]:
    base = inside(root, "boot/x")
    found = sorted(base.parent.glob(f"*/{glob.escape(version)}")) if base else []
    return [os.fspath(path.relative_to(root)) for path in found]


def _names(path: Path) -> tuple[list[str], str, bool]:
    """The files of an initramfs, or why they cannot be told and whether it is damaged."""
    try:
        if path.stat().st_size > MAX_FILE:
            return [], f"it is larger than {MAX_FILE} bytes", False
        return initramfs_names(path.read_bytes()), "", False
    except SourceInvalid as error:
        return [], str(error), True
    except ToolMissing as error:
        return [], str(error), False


def _pins(root: Path, names: list[str], dracut: bool) -> tuple[str, ...]:
    """Files of an initramfs that belong to one machine. initramfs-tools copies every .link file of the tree, from etc
    too, to usr/lib in the archive; one that the tree has no more was stripped, because it named one machine's card."""
    found = []
    for name in names:
        link = LINK_FILE.search(name)
        stripped = link and not any(os.path.lexists(root / place / link[1]) for place in LINK_PLACES)
        copied = name in COPIED and not os.path.lexists(root / COPIED[name])
        pinned = PINS.fullmatch(name) and not (dracut and name == "etc/machine-id")
        if stripped or copied or pinned:
            found.append(name)
    return tuple(found)


def _builtin(directory: Path) -> set[str]:
    path = directory / "modules.builtin"
    if path.is_symlink() or not path.is_file():
        return set()
    lines = path.read_text(errors="replace").splitlines()
    return {os.path.basename(line).removesuffix(".ko").replace("-", "_") for line in lines if line.endswith(".ko")}


def _first(root: Path, *candidates: str) -> str:
    for candidate in candidates:
        path = inside(root, candidate)
        if path is not None and path.is_file() and not path.is_symlink():
            return candidate
    return ""
