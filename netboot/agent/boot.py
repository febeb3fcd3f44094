"""Making the disk start: GRUB for BIOS and UEFI put in place by hand, without chroot and grub-install.

The BIOS part is two files: boot.img goes into the first sector, core.img into partition 1, and each is told where the
next one lies. The core's configuration is EFI/gild/grub.cfg on partition 2 of the disk it was started from. The UEFI
part is shim as EFI/BOOT/BOOTX64.EFI with GRUB beside it; its configuration lies where the signed GRUB has it built in.
Both lead to the grub.cfg that the image brings. Filesystem UUIDs are the image's, so nothing in that has to change.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from images.distro import alpine, debian, find
from images.distro.family import Family
from images.errors import TargetFailed
from images.tree import Tree
from netboot.agent import entry as entries
from netboot.agent import nvram
from netboot.agent.disk import part_path
from netboot.agent.kexec import KexecFailed
from netboot.agent.localise import superblock
from netboot.agent.stub import BootFailed, Stub, menu
from netboot.layout import Placed
from netboot.plan import CMDLINE, BootPiece, InstallPlan
from netboot.report import Facts

SECTOR = 512
# boot.img: where the core starts (u64), the drive (0xff: the one the BIOS started), two bytes that become NOPs so that
# the drive number the BIOS hands over is believed (grub-core/boot/i386/pc/boot.S and GRUB_BOOT_MACHINE_* in
# include/grub/i386/pc/boot.h).
KERNEL_SECTOR, BOOT_DRIVE, DRIVE_CHECK = 0x5C, 0x64, 0x66
KEEP = slice(0x1B8, 0x200)  # the disk's id, the protective MBR's entries and the signature (UEFI 2.10, 5.2.3)
# core.img: the last list of sectors in its first one: start (u64), count (u16), segment it is loaded to (u16);
# GRUB_BOOT_MACHINE_LIST_SIZE is 12, GRUB_BOOT_MACHINE_KERNEL_SEG 0x800 plus one sector.
BLOCK_LIST, FIRST_SEGMENT = 0x1F4, 0x820
MAX_EFI = 16 << 20  # bytes of one EFI binary of an image
FALLBACK = ("fbx64.efi", "fallback.efi")  # shim's helper that would put the disk before the network in BootOrder
CONSOLE = "console=tty0 console=ttyS0,115200"

Fetch = Callable[[BootPiece], bytes]


@dataclass(frozen=True)
class Kernel:
    """What kexec needs: two files of this machine ("" for no initramfs) and the arguments."""

    path: str
    initrd: str
    cmdline: str


def install(
    root: str,
    disk_path: str,
    parts: Sequence[Placed],
    plan: InstallPlan,
    fetch_boot_piece: Fetch,
    facts: Facts,
    log: Callable[[str], None],
) -> None:
    """Make `disk_path` start the tree mounted at `root`, by BIOS and UEFI. Its ESP is mounted where the layout says.

    The first sector is written last. Raises BootFailed if the machine could not start; a part that only the other
    kind of firmware would need is left out with a line in the log."""
    if plan.cmdline and not CMDLINE.fullmatch(plan.cmdline):
        raise BootFailed(
            f"the kernel arguments {plan.cmdline[:80]!r} of the profile have characters that GRUB would take apart",
            "use letters, digits and the marks _ . , : = / @ % + ~ ^ -",
        )
    tree = Tree(root)
    pieces = {piece.name: piece for piece in plan.boot}
    uuid, folder, fs = _boot_partition(disk_path, parts)
    _configure(tree, plan.cmdline, _root_uuid(disk_path, parts), fs, log)
    esp = next((part for part in parts if part.part.kind == "esp"), None)
    if esp is None or not esp.part.mount:
        raise BootFailed("the layout mounts no EFI system partition", 'give it mount = "/boot/efi"')
    stub = Stub(tree, uuid, folder)
    tree.write(f"{esp.part.mount}/EFI/gild/grub.cfg", stub.text("i386-pc", own=False), 0o755)
    _efi(tree, esp.part.mount, stub, pieces, fetch_boot_piece, facts, log)
    bios = next((part for part in parts if part.part.kind == "bios"), None)
    reason = _bios(disk_path, bios, pieces, fetch_boot_piece)
    if reason and facts.firmware != "uefi":
        raise BootFailed(f"{disk_path} cannot be started by this machine's BIOS: {reason}")
    log(f"boot loader: {'UEFI only, ' + reason if reason else 'BIOS and UEFI'}")
    if facts.firmware == "uefi":
        nvram.register(disk_path, esp.number, r"\EFI\BOOT\BOOTX64.EFI", log)


def kernel_of(root: str, plan: InstallPlan) -> Kernel:
    """What the boot configuration of the tree at `root` starts first, with the plan's arguments, for kexec. Raises
    KexecFailed if it cannot be told; GRUB will know."""
    tree = Tree(root)
    found = entries.default_entry(tree)
    if found is None or not found.cmdline:
        raise KexecFailed("the image's boot configuration names no kernel that can be started directly")
    initrd = tree.place(found.initrd) if found.initrd else ""
    return Kernel(tree.place(found.kernel), initrd, entries.add_words(found.cmdline, plan.cmdline))


def patch_core(core: bytes, lba: int) -> bytes:
    """core.img for sector `lba` (of 512 bytes): padded to whole sectors, its list of sectors naming the rest of it.
    Raises BootFailed for what is no core.img."""
    data = bytearray(core + bytes(-len(core) % SECTOR))
    count = len(data) // SECTOR - 1
    if not 0 < count < 1 << 16:
        raise BootFailed(f"core.img of {len(core)} bytes is not a GRUB core image")
    struct.pack_into("<QHH", data, BLOCK_LIST, lba + 1, count, FIRST_SEGMENT)
    return bytes(data)


def patch_boot(boot: bytes, lba: int, old: bytes) -> bytes:
    """boot.img that loads the core from sector `lba`, with the disk's id and partition entries of the first sector
    `old`. Raises BootFailed for what is no boot.img."""
    if len(boot) != SECTOR or boot[510:] != b"\x55\xaa" or len(old) != SECTOR:
        raise BootFailed(f"boot.img of {len(boot)} bytes is not a GRUB boot sector")
    data = bytearray(boot)
    data[KEEP] = old[KEEP]
    data[510:512] = b"\x55\xaa"
    struct.pack_into("<Q", data, KERNEL_SECTOR, lba)
    data[BOOT_DRIVE] = 0xFF
    data[DRIVE_CHECK : DRIVE_CHECK + 2] = b"\x90\x90"
    return bytes(data)


def _bios(disk_path: str, part: Placed | None, pieces: dict[str, BootPiece], fetch: Fetch) -> str:
    """Write core.img, then boot.img. Returns why the disk cannot start by BIOS, or ""."""
    if part is None:
        return "the layout has no BIOS boot partition"
    if part.sector != SECTOR:
        # GRUB's first stages read sectors of 512 bytes through the BIOS, and nothing else.
        return f"it has sectors of {part.sector} bytes"
    if "boot.img" not in pieces or "core.img" not in pieces:
        return "the head has no boot.img and core.img"
    core = patch_core(fetch(pieces["core.img"]), part.start)
    if len(core) > part.bytes:
        return f"core.img has {len(core)} bytes and partition {part.part.name} {part.bytes}"
    boot = fetch(pieces["boot.img"])
    try:
        fd = os.open(disk_path, os.O_RDWR | os.O_CLOEXEC)
        try:
            first = patch_boot(boot, part.start, os.pread(fd, SECTOR, 0))
            for data, at in ((core, part.offset), (first, 0)):
                written = 0
                while written < len(data):
                    written += os.pwrite(fd, data[written:], at + written)
                os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise TargetFailed(
            f"writing the boot loader to {disk_path} failed: {error.strerror}", "replace the disk"
        ) from None
    return ""


def _efi(
    tree: Tree,
    esp: str,
    stub: Stub,
    pieces: dict[str, BootPiece],
    fetch: Fetch,
    facts: Facts,
    log: Callable[[str], None],
) -> None:
    """The loaders for UEFI, and their configuration where the signed GRUB has its place built in."""
    system = find.system_of(tree.root)
    family = system.family or debian.FAMILY
    vendor = family.vendor(system.release)
    found = own = _own_loaders(tree, family, vendor)
    if own:
        log(f"boot loader: the image's own shim and GRUB ({vendor})")
    elif "shimx64.efi" in pieces and "grub-disk.efi" in pieces:
        found = {"shim": fetch(pieces["shimx64.efi"]), "grub": fetch(pieces["grub-disk.efi"])}
        found |= {"mok": fetch(pieces["mmx64.efi"])} if "mmx64.efi" in pieces else {}
        if facts.secure_boot and family is not debian.FAMILY:
            log("beware: Secure Boot is on, and Debian's shim starts no kernel that another distribution signed")
        family, vendor = debian.FAMILY, "debian"
    else:
        reason = "the image brings no shim and GRUB, and the head has no shimx64.efi and grub-disk.efi"
        if facts.firmware == "uefi":
            raise BootFailed(reason)
        log(f"boot loader: nothing for UEFI, {reason}")
    names = {"shim": "BOOTX64.EFI", "grub": family.second, "mok": family.helper}
    for what, data in found.items():
        tree.write(f"{esp}/EFI/BOOT/{names[what]}", data, 0o755)
    for name in tree.names(f"{esp}/EFI/BOOT"):
        if name.lower() in FALLBACK:
            tree.remove(f"{esp}/EFI/BOOT/{name}")
    if found:
        tree.write(f"{esp}/EFI/{vendor}/grub.cfg", stub.text("x86_64-efi", own=bool(own)), 0o755)


def _own_loaders(tree: Tree, family: Family, vendor: str) -> dict[str, bytes]:
    """The image's signed shim and GRUB; {} unless it has both, since a shim starts only what its vendor signed."""
    found = {}
    for what, paths in (("shim", family.shim), ("grub", family.grub), ("mok", family.mok)):
        for path in paths:
            hit = _match(tree, path.format(vendor=vendor))
            if hit:
                found[what] = tree.read(hit, MAX_EFI)
                break
    return found if found.get("shim") and found.get("grub") else {}


def _match(tree: Tree, path: str) -> str:
    """The file at `path`, of which one folder may be "*" (a version: the last one counts)."""
    before, star, after = path.partition("/*/")
    if not star:
        return path if tree.is_file(path) else ""
    candidates = [f"{before}/{name}/{after}" for name in tree.names(before)]
    return next((candidate for candidate in reversed(candidates) if tree.is_file(candidate)), "")


def _configure(tree: Tree, cmdline: str, uuid: str, fs: str, log: Callable[[str], None]) -> None:
    """See that there is a boot configuration, and that it has the profile's arguments."""
    has_cfg = any(tree.is_file(path) for path in entries.GRUB_CFGS)
    if not has_cfg and not tree.names(entries.ENTRIES, "*.conf"):
        newest = entries.newest_kernel(tree)
        if newest is None:
            raise BootFailed("the image has no kernel in boot/", "add the distribution's kernel package to the image")
        words = f"root=UUID={uuid} ro {CONSOLE}"
        if find.family_of(tree.root) is alpine.FAMILY:  # its initramfs loads what it is told to, no more
            words += f" modules=sd-mod,usb-storage,nvme,{fs} rootfstype={fs}"
        text = menu(f"/{newest.kernel}", f"/{newest.initrd}" if newest.initrd else "", words, uuid)
        tree.write(entries.GRUB_CFGS[0], text, 0o644)
        log(f"boot loader: the image has no configuration, wrote one for {newest.kernel}")
    if cmdline:
        changed = entries.add_arguments(tree, cmdline)
        if changed:
            log(f"kernel arguments {cmdline!r} added to {', '.join(changed)}")


def _boot_partition(disk_path: str, parts: Sequence[Placed]) -> tuple[str, str, str]:
    """UUID of the filesystem that holds boot/, the path of boot/ on it ("" if it is that filesystem's root), and the
    type of the root filesystem."""
    mounts = {part.part.mount: part for part in parts if part.part.mount}
    if "/" not in mounts:
        raise BootFailed("the layout has no partition for /")
    fs, _ = superblock(part_path(disk_path, mounts["/"].number))
    at = mounts.get("/boot", mounts["/"])
    _, uuid = superblock(part_path(disk_path, at.number))
    if not uuid:
        raise BootFailed(f"partition {at.part.name} has no filesystem UUID by which GRUB could find it")
    return uuid, "" if "/boot" in mounts else "/boot", fs


def _root_uuid(disk_path: str, parts: Sequence[Placed]) -> str:
    root = next(part for part in parts if part.part.mount == "/")
    return superblock(part_path(disk_path, root.number))[1]
