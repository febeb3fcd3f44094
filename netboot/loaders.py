"""The boot loaders: those the packages bring as they are, and two GRUB images made from the packages' modules."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from dataclasses import dataclass

from images.errors import GildError
from images.run import run
from netboot.debs import Deb, Root
from netboot.userland import command

# Public name -> where the packages have it. shim asks by TFTP for grubx64.efi and mmx64.efi by exactly these names.
READY = {
    "undionly.kpxe": "usr/lib/ipxe/undionly.kpxe",
    "snponly.efi": "usr/lib/ipxe/snponly.efi",
    "ipxe.efi": "boot/ipxe.efi",
    "boot.img": "usr/lib/grub/i386-pc/boot.img",
    "shimx64.efi": "usr/lib/shim/shimx64.efi.signed",
    "mmx64.efi": "usr/lib/shim/mmx64.efi.signed",
    "grubx64.efi": "usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed",
    "grub-disk.efi": "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
}

# A full command language, what an installed system's grub.cfg may use, and every file system an image may boot from.
# There is no folder to load more modules from: what is missing here is missing on the node.
DISK_MODULES = """biosdisk part_gpt part_msdos fat ext2 xfs btrfs lvm mdraid1x diskfilter search search_fs_uuid
    search_fs_file search_label configfile normal linux linux16 chain echo test true boot serial terminal sleep reboot
    halt minicmd ls cat help all_video gfxterm font loadenv regexp probe gzio read keystatus"""
LOCAL_MODULES = """part_gpt part_msdos fat search search_fs_file chain boot echo normal configfile test true minicmd
    memdisk tar"""

# GRUB fills the empty disk name with the disk its boot sector came from (grub-core/kern/i386/pc/init.c). Partition 2
# is the EFI system partition of every layout, 1 the BIOS boot partition that holds this very image.
DISK_PREFIX = "(,gpt2)/EFI/gild"
MAX_CORE = 1024 * 1024  # bytes: the BIOS boot partition of every layout

# "set root" first: chainloader hands the loaded program the device that $root names, and shim looks there for GRUB.
# "exit" without a loader to start gives the machine back to its firmware.
LOCAL_CONFIG = """\
if search --no-floppy --file --set=esp /EFI/gild/grub.cfg; then
    set root=$esp
elif search --no-floppy --file --set=esp /EFI/BOOT/BOOTX64.EFI; then
    set root=$esp
else
    echo "gild: no disk of this machine has /EFI/BOOT/BOOTX64.EFI"
    exit
fi
chainloader /EFI/BOOT/BOOTX64.EFI
boot
exit
"""


class LoaderTooLarge(GildError):
    """A boot loader does not fit into the place that every layout keeps for it."""


@dataclass(frozen=True)
class Loader:
    """A boot loader's bytes under its public name, and the packages whose code is in it."""

    name: str
    data: bytes
    debs: tuple[Deb, ...]


def loaders(root: Root) -> list[Loader]:
    """Every boot loader of the payload. Raises PackageMissing, LoaderTooLarge, or CommandFailed if GRUB cannot
    be put together."""
    found = []
    for name, path in READY.items():
        deb, place = root.get(path)
        found.append(Loader(name, place.read_bytes(), (deb,)))
    core = _mkimage(root, "i386-pc", DISK_PREFIX, DISK_MODULES.split())
    if len(core.data) > MAX_CORE:
        raise LoaderTooLarge(f"core.img is {len(core.data)} bytes; the BIOS boot partition has {MAX_CORE}")
    found.append(Loader("core.img", core.data, core.debs))
    # Loaded over the network, $root and $prefix are of no use: the image brings its configuration as a memory disk.
    disk = memory_disk({"boot/grub/grub.cfg": LOCAL_CONFIG.encode()})
    local = _mkimage(root, "x86_64-efi", "(memdisk)/boot/grub", LOCAL_MODULES.split(), disk)
    found.append(Loader("local.efi", local.data, local.debs))
    return found


def memory_disk(files: dict[str, bytes]) -> bytes:
    """An uncompressed tar of `files` with fixed times and owners, as GRUB's memdisk reads it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(files):
            info = tarfile.TarInfo(name)
            info.size = len(files[name])
            archive.addfile(info, io.BytesIO(files[name]))
    return out.getvalue()


def _mkimage(root: Root, platform: str, prefix: str, modules: list[str], disk: bytes = b"") -> Loader:
    deb, first = root.get(f"usr/lib/grub/{platform}/kernel.img")
    with tempfile.TemporaryDirectory() as work:
        image, tar = os.path.join(work, "image"), os.path.join(work, "tar")
        with open(tar, "wb") as file:
            file.write(disk)
        argv = [*command(root, "usr/bin/grub-mkimage"), "-O", platform, "-d", str(first.parent), "-p", prefix]
        argv += ["-o", image, *(["-m", tar] if disk else []), *modules]
        run(argv, act=f"making the GRUB image for {platform}")
        with open(image, "rb") as file:
            return Loader(platform, file.read(), (deb,))
