"""What stands on a disk or partition: the kind of filesystem or container, its name for itself and its size.

Offsets are those of each format's own definition, as libblkid reads them (util-linux, libblkid/src/superblocks).
Nothing here proves that a filesystem is sound; a mark that another format left behind is believed only where the
newer one cannot have overwritten it, so containers come before what they may hold.
"""

from __future__ import annotations

import struct
import uuid as uuids
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

Read = Callable[[int, int], bytes]  # offset, length -> bytes, fewer at the end

# Filesystems that hold a tree of files, and containers that hold disks: nobody looks into those here.
CONTAINERS = {
    "lvm": "a physical volume of LVM",
    "luks": "an encrypted volume (LUKS)",
    "md": "a member of a software RAID",
    "zfs": "a member of a ZFS pool",
    "bcache": "a bcache device",
    "bitlocker": "an encrypted volume (BitLocker)",
}
MAX_LABEL = 64  # characters
EXT4_ONLY = 0x40 | 0x80 | 0x200  # incompatible features extents, 64bit, flex_bg (fs/ext4/ext4.h)
MD_MAGIC = 0xA92B4EFC  # linux/raid/md_p.h
ZFS_MAGIC = 0x00BAB10C  # uberblock, sys/uberblock_impl.h
PAGES = (4096, 8192, 16384, 32768, 65536)  # bytes of a page of memory: swap keeps its mark at the end of the first
BTRFS, ISO = 64 << 10, 32 << 10


@dataclass(frozen=True, slots=True)
class Superblock:
    """What was recognised. `uuid` is written as UUID= in fstab wants it, empty where there is none; `size` is the
    bytes the format says it takes, 0 where it does not say."""

    kind: str
    uuid: str = ""
    label: str = ""
    size: int = 0

    @property
    def container(self) -> str:
        """What kind of container it is, for people; empty for a filesystem."""
        return CONTAINERS.get(self.kind, "")


def recognise(read: Read, size: int) -> Superblock | None:
    """What stands on a device of `size` bytes, None if nothing known. `read(offset, length)` gives its bytes.
    Raises what `read` raises and nothing else, whatever the bytes are."""
    for probe in (_luks, _lvm, _md, _bcache, _bitlocker, _xfs, _btrfs, _f2fs, _swap, _ntfs, _exfat, _fat, _squashfs,
                  _ext, _iso, _zfs):  # fmt: skip
        found = probe(read, size)
        if found is not None:
            return found
    return None


# --- containers


def _luks(read: Read, size: int) -> Superblock | None:
    head = _bytes(read, 0, 592)  # cryptsetup, LUKS1 and LUKS2 on-disk format: uuid at 168, label of LUKS2 at 24
    if head[:6] != b"LUKS\xba\xbe":
        return None
    label = _label(head[24:72]) if head[6:8] == b"\0\2" else ""
    return Superblock("luks", _label(head[168:208]), label)


def _lvm(read: Read, size: int) -> Superblock | None:
    for sector in range(4):  # lvm2, lib/label/label.h: LABEL_SCAN_SECTORS
        head = _bytes(read, sector * 512, 512)
        if head[:8] == b"LABELONE" and head[24:32] == b"LVM2 001":
            at = struct.unpack_from("<I", head, 20)[0]
            name = _label(head[at : at + 32]) if at <= 480 else ""
            cuts = (0, 6, 10, 14, 18, 22, 26, 32)
            whole = len(name) == 32
            return Superblock("lvm", "-".join(name[a:b] for a, b in pairwise(cuts)) if whole else "")
    return None


def _md(read: Read, size: int) -> Superblock | None:
    # md(4): 1.1 at the start, 1.2 at 4 KiB, 1.0 at least 8 KiB before the end; super_offset names the place.
    for at in (0, 4096, (size // 512 - 16 & ~7) * 512):
        head = _bytes(read, at, 256) if at >= 0 else bytes(256)
        magic, major = struct.unpack_from("<II", head)
        if (magic, major) == (MD_MAGIC, 1) and struct.unpack_from("<Q", head, 144)[0] * 512 == at:
            return Superblock("md", str(uuids.UUID(bytes=head[16:32])), _label(head[32:64]))
    at = (size & ~0xFFFF) - 0x10000  # 0.90: in the last full 64 KiB
    head = _bytes(read, at, 64) if at >= 0 else bytes(64)
    for order in "<>":
        if struct.unpack_from(f"{order}II", head) == (MD_MAGIC, 0):
            return Superblock("md", "-".join(head[a : a + 4].hex() for a in (20, 52, 56, 60)))
    return None


def _bcache(read: Read, size: int) -> Superblock | None:
    head = _bytes(read, 4096, 72)  # include/uapi/linux/bcache.h, struct cache_sb
    if head[24:40] != bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81"):
        return None
    return Superblock("bcache", str(uuids.UUID(bytes=head[40:56])))


def _bitlocker(read: Read, size: int) -> Superblock | None:
    return Superblock("bitlocker") if _bytes(read, 3, 8) == b"-FVE-FS-" else None


def _zfs(read: Read, size: int) -> Superblock | None:
    # Four labels of 256 KiB, two at each end, each with an array of uberblocks in its second half. A new filesystem
    # overwrites a few of them: libblkid asks for four as well.
    labels = (0, 256 << 10, (size & ~0x3FFFF) - (512 << 10), (size & ~0x3FFFF) - (256 << 10))
    magics = (struct.pack("<Q", ZFS_MAGIC), struct.pack(">Q", ZFS_MAGIC))
    found = 0
    for label in dict.fromkeys(at for at in labels if at >= 0):
        ring = _bytes(read, label + (128 << 10), 128 << 10)
        found += sum(ring[at : at + 8] in magics for at in range(0, len(ring), 1024))
    return Superblock("zfs") if found >= 4 else None


# --- filesystems


def _ext(read: Read, size: int) -> Superblock | None:
    sb = _bytes(read, 1024, 1024)  # kernel Documentation/filesystems/ext4/super.rst
    if sb[56:58] != b"\x53\xef":
        return None
    blocks, log_block = struct.unpack_from("<I", sb, 4)[0], struct.unpack_from("<I", sb, 24)[0]
    compat, incompat, ro_compat = struct.unpack_from("<III", sb, 92)
    if log_block > 6 or incompat & 0x8:  # a journal on a device of its own is no filesystem
        return None
    kind = "ext4" if incompat & EXT4_ONLY or ro_compat & ~0x7 else "ext3" if compat & 0x4 else "ext2"
    if incompat & 0x80:
        blocks |= struct.unpack_from("<I", sb, 336)[0] << 32
    return Superblock(kind, _uuid(sb[104:120]), _label(sb[120:136]), blocks * (1024 << log_block))


def _xfs(read: Read, size: int) -> Superblock | None:
    sb = _bytes(read, 0, 120)  # fs/xfs/libxfs/xfs_format.h, struct xfs_dsb
    block, blocks = struct.unpack_from(">IQ", sb, 4)
    if sb[:4] != b"XFSB" or block & (block - 1) or not 512 <= block <= 65536:
        return None
    return Superblock("xfs", _uuid(sb[32:48]), _label(sb[108:120]), blocks * block)


def _btrfs(read: Read, size: int) -> Superblock | None:
    sb = _bytes(read, BTRFS, 4096)  # fs/btrfs, struct btrfs_super_block
    if sb[64:72] != b"_BHRfS_M":
        return None
    total = struct.unpack_from("<Q", sb, 112)[0]
    return Superblock("btrfs", _uuid(sb[32:48]), _label(sb[299:555]), total)


def _f2fs(read: Read, size: int) -> Superblock | None:
    sb = _bytes(read, 1024, 1148)  # include/linux/f2fs_fs.h, struct f2fs_super_block
    if sb[:4] != b"\x10\x20\xf5\xf2":
        return None
    log_block, blocks = struct.unpack_from("<I", sb, 16)[0], struct.unpack_from("<Q", sb, 36)[0]
    label = sb[124:1148].decode("utf-16-le", "replace").encode("utf-8", "replace")
    return Superblock("f2fs", _uuid(sb[108:124]), _label(label), blocks << log_block if 9 <= log_block <= 16 else 0)


def _swap(read: Read, size: int) -> Superblock | None:
    for page in PAGES:  # include/linux/swap.h, union swap_header
        if _bytes(read, page - 10, 10) in (b"SWAPSPACE2", b"SWAP-SPACE", b"S1SUSPEND\0", b"S2SUSPEND\0"):
            head = _bytes(read, 1024, 44)
            last = struct.unpack_from("<I", head, 4)[0]
            return Superblock("swap", _uuid(head[12:28]), _label(head[28:44]), (last + 1) * page)
    return None


def _ntfs(read: Read, size: int) -> Superblock | None:
    boot = _bytes(read, 0, 512)
    if boot[3:11] != b"NTFS    ":
        return None
    sector, total = struct.unpack_from("<H", boot, 11)[0], struct.unpack_from("<Q", boot, 40)[0]
    return Superblock("ntfs", boot[72:80][::-1].hex().upper(), "", (total + 1) * sector)


def _exfat(read: Read, size: int) -> Superblock | None:
    boot = _bytes(read, 0, 512)
    if boot[3:11] != b"EXFAT   " or not 9 <= boot[108] <= 12:
        return None
    serial = struct.unpack_from("<I", boot, 100)[0]
    return Superblock("exfat", _serial(serial), "", struct.unpack_from("<Q", boot, 72)[0] << boot[108])


def _fat(read: Read, size: int) -> Superblock | None:
    """FAT has no magic: the fields must make sense together (Microsoft's FAT specification, sections 3.1 to 3.3)."""
    boot = _bytes(read, 0, 512)
    sector, cluster, reserved, fats, roots, small = struct.unpack_from("<HBHBHH", boot, 11)
    media, short = boot[21], struct.unpack_from("<H", boot, 22)[0]
    large, long = struct.unpack_from("<II", boot, 32)
    if boot[510:512] != b"\x55\xaa" or boot[0] not in (0xEB, 0xE9) or sector not in (512, 1024, 2048, 4096):
        return None
    if (
        not cluster
        or cluster & (cluster - 1)
        or not reserved
        or fats not in (1, 2)
        or media not in (0xF0, *range(0xF8, 0x100))
    ):
        return None
    if not (short or long) or not (small or large) or bool(roots) != bool(short):
        return None
    at = 36 if short else 64
    signed = boot[at + 2] in (0x28, 0x29)
    serial = struct.unpack_from("<I", boot, at + 3)[0] if signed else 0
    label = _label(boot[at + 7 : at + 18]) if boot[at + 2] == 0x29 else ""
    return Superblock(
        "vfat", _serial(serial) if signed else "", "" if label == "NO NAME" else label, (small or large) * sector
    )


def _squashfs(read: Read, size: int) -> Superblock | None:
    sb = _bytes(read, 0, 48)  # fs/squashfs/squashfs_fs.h
    if sb[:4] != b"hsqs" or struct.unpack_from("<H", sb, 28)[0] != 4:
        return None
    return Superblock("squashfs", "", "", struct.unpack_from("<Q", sb, 40)[0])


def _iso(read: Read, size: int) -> Superblock | None:
    sb = _bytes(read, ISO, 2048)  # ECMA-119 section 8.4: the primary volume descriptor
    if sb[1:6] != b"CD001" or sb[0] != 1:
        return None
    date = _label(sb[813:829])  # section 8.4.26.1: digits of the year down to hundredths of a second
    cuts = (0, 4, 6, 8, 10, 12, 14, 16)
    name = "-".join(date[a:b] for a, b in pairwise(cuts)) if len(date) == 16 else ""
    blocks, block = struct.unpack_from("<I", sb, 80)[0], struct.unpack_from("<H", sb, 128)[0]
    return Superblock("iso9660", name, _label(sb[40:72]), blocks * block)


# --- pieces


def _bytes(read: Read, offset: int, length: int) -> bytes:
    """Exactly so many bytes; what lies behind the end reads as zeros, which are nobody's mark."""
    return read(offset, length)[:length].ljust(length, b"\0")


def _uuid(raw: bytes) -> str:
    return str(uuids.UUID(bytes=raw)) if any(raw) else ""


def _serial(number: int) -> str:
    return f"{number >> 16:04X}-{number & 0xFFFF:04X}"


def _label(raw: bytes) -> str:
    text = raw.split(b"\0", 1)[0].decode("utf-8", "replace").strip()
    return "".join(c if c.isprintable() else "?" for c in text)[:MAX_LABEL]
