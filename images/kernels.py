"""Which kernels a tree has, what their initramfs can drive, and whether that is enough for other machines.

The list of modules goes into the manifest: the node compares it with the driver of its own root disk before it reboots.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images.errors import ImageError
from images.ext4 import EPOCH
from images.initramfs import MAX_FILE, initramfs_names, modules_in
from images.run import run
from images.strip import Check, inside

# Controllers most machines of the last fifteen years boot from, and the cards they boot over. Of a kernel for clouds
# (linux-image-cloud-amd64) all but nvme and virtio_blk are "not set": it cannot boot bare metal.
STORAGE = ("ahci", "nvme", "sd_mod", "megaraid_sas", "mpt3sas", "virtio_blk")
NETWORK = ("e1000e", "igb", "ixgbe", "i40e", "tg3", "bnxt_en", "r8169", "virtio_net")
MAX_KERNELS = 32
MODULE_FILE = re.compile(r"(.+)\.ko(?:\.(?:xz|zst|gz))?$")
# What in an initramfs ties it to one machine, beside the .link files looked at in _pins.
PINS = re.compile(r"^etc/(iscsi/)?initiatorname\.iscsi$|^etc/machine-id$")
LINK_FILE = re.compile(r"(?:^|/)systemd/network/([^/]+\.link)$")
LINK_PLACES = ("etc/systemd/network", "usr/lib/systemd/network", "lib/systemd/network")
CLOUD_HINT = "use the generic kernel (Debian: linux-image-amd64, not linux-image-cloud-amd64)"


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel of a tree. Paths are relative to the tree, empty where there is none; `modules` are those inside its
    initramfs and built into it; `available` those of its module directory as well. '-' in names is '_'."""

    version: str
    vmlinuz: str
    initrd: str
    modules: tuple[str, ...]
    available: frozenset[str]
    pins: tuple[str, ...]

    @property
    def generic(self) -> bool:
        """Whether the initramfs drives every controller of STORAGE that this kernel has a driver for."""
        return bool(self.initrd) and all(name in self.modules for name in STORAGE if name in self.available)

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
    """The kernels of a tree, newest version first. Raises SourceInvalid for an initramfs that cannot be read."""
    base = inside(root, "usr/lib/modules/x") or inside(root, "lib/modules/x")
    if base is None:
        return []
    versions = sorted((p.name for p in base.parent.iterdir() if p.is_dir() and not p.is_symlink()), key=version_key)
    return [_kernel(root, base.parent, version) for version in reversed(versions[-MAX_KERNELS:])]


def check_kernels(found: list[Kernel]) -> list[Check]:
    """What is wrong with the kernels of a tree for booting unknown bare machines; an error makes it no system."""
    if not any(kernel.vmlinuz for kernel in found):
        return [Check("kernel", ("no kernel in boot/",), "add a kernel package", "error")]
    checks = []
    for kernel in found:
        if not kernel.vmlinuz:
            continue
        missing = [name for name in STORAGE if name not in kernel.available]
        cards = [name for name in NETWORK if name not in kernel.available]
        if "ahci" in missing:
            checks.append(Check(f"kernel {kernel.version}", tuple(missing + cards), CLOUD_HINT, "error"))
        elif missing or cards:
            fix = "nodes with these need another kernel"
            checks.append(Check(f"kernel {kernel.version}", tuple(missing + cards), fix, "warning"))
        else:
            checks.append(Check(f"kernel {kernel.version}"))
        if not kernel.initrd:
            checks.append(Check(f"initramfs of {kernel.version}", ("none",), "make one in the image", "warning"))
        elif not kernel.generic:
            lacks = tuple(n for n in STORAGE if n in kernel.available and n not in kernel.modules)
            fix = "rebuild it for all machines, not only for the one it was made on"
            checks.append(Check(f"initramfs of {kernel.version}", lacks, fix, "warning"))
    return checks


def make_generic(root: Path) -> list[Check]:
    """Where Debian's initramfs-tools made an initramfs for one machine only (MODULES=dep), or put a pin of that
    machine into it, set MODULES=most and build it again in a chroot. Gives what was done; needs root.
    Raises CommandFailed."""
    tool = inside(root, "usr/sbin/update-initramfs")
    conf = inside(root, "etc/initramfs-tools/initramfs.conf")
    if tool is None or not tool.is_file() or conf is None or not conf.is_file():
        return []
    narrow = [k.version for k in kernels(root) if k.initrd and (not k.generic or k.pins)]
    text = conf.read_text(errors="replace")
    changed = re.sub(r"(?m)^MODULES=(?!most\b).*$", "MODULES=most", text)
    policy = inside(root, "etc/initramfs-tools/conf.d/driver-policy")  # the installer's answer overrides the file above
    overruled = policy is not None and policy.is_file() and b"most" not in policy.read_bytes()
    if not narrow and changed == text and not overruled:
        return [Check("initramfs for all machines")]
    conf.write_text(changed)
    if policy is not None and overruled:
        policy.unlink()
    for version in narrow:
        # Measured: with nothing bound on /dev, /proc and /sys the same 1189 files come out, in 17 s.
        run(
            ["chroot", os.fspath(root), "update-initramfs", "-u", "-k", version],
            env={"SOURCE_DATE_EPOCH": str(EPOCH)},
            timeout=900,
            act=f"rebuilding the initramfs of {version}",
        )
    return [Check("initramfs for all machines", tuple(narrow) or ("MODULES=dep",), "rebuilt with MODULES=most")]


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
    flavour = version.rpartition("-")[2]  # Alpine names its files after the flavour alone
    vmlinuz = _first(root, f"boot/vmlinuz-{version}", f"usr/lib/modules/{version}/vmlinuz", f"boot/vmlinuz-{flavour}")
    initrd = _first(
        root,
        f"boot/initrd.img-{version}",
        f"boot/initramfs-{version}.img",
        f"boot/initrd-{version}",
        f"boot/initramfs-{flavour}",
        f"usr/lib/modules/{version}/initramfs.img",
    )
    names = initramfs_names(_bytes(root / initrd)) if initrd else []
    inner = {module for modules in modules_in(names).values() for module in modules}
    return Kernel(version, vmlinuz, initrd, tuple(sorted(inner | builtin)), frozenset(available), _pins(root, names))


def _pins(root: Path, names: list[str]) -> tuple[str, ...]:
    """Files of an initramfs that belong to one machine. initramfs-tools copies every .link file of the tree, from etc
    too, to usr/lib in the archive; one that the tree has no more was stripped, because it named one machine's card."""
    found = []
    for name in names:
        link = LINK_FILE.search(name)
        if (link and not any(os.path.lexists(root / place / link[1]) for place in LINK_PLACES)) or PINS.match(name):
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


def _bytes(path: Path) -> bytes:
    if path.stat().st_size > MAX_FILE:
        raise ImageError(f"{path.name} is larger than {MAX_FILE} bytes")
    return path.read_bytes()
