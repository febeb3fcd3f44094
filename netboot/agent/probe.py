"""What stands on a disk or partition, told from the few bytes where each format keeps its mark."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass

HEAD = 256 * 1024  # bytes read from the start: btrfs has the farthest mark, at 64 KiB + 64
TAIL = 128 * 1024  # bytes read from the end: md 0.90 stands in the last full 64 KiB
MARK_OFFSET = (1 << 20) - 4096  # of the disk: in the unused MiB before the first partition
MARK_SIZE = 4096
_MARK = b"gild-mark 1\n"
MAX_PARTS = 16  # told of one disk

# (offset, bytes, name); the offsets are those of libblkid's superblock probes.
_SIGNS = (
    (0, b"LUKS\xba\xbe", "LUKS"),
    (0, b"XFSB", "xfs"),
    (3, b"NTFS    ", "NTFS"),
    (3, b"EXFAT   ", "exFAT"),
    (3, b"-FVE-FS-", "BitLocker"),
    (54, b"FAT1", "vfat"),
    (82, b"FAT32   ", "vfat"),
    (0, b"hsqs", "squashfs"),
    (4096 - 10, b"SWAPSPACE2", "swap"),
    (65536 - 10, b"SWAPSPACE2", "swap"),
    (64 * 1024 + 64, b"_BHRfS_M", "btrfs"),
    (0x8001, b"CD001", "ISO 9660"),
    (0, b"\xfc\x4e\x2b\xa9", "md RAID"),  # 1.1
    (4096, b"\xfc\x4e\x2b\xa9", "md RAID"),  # 1.2
    (4096 + 24, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca", "bcache"),
)


@dataclass(frozen=True)
class Mark:
    """What the agent leaves on a disk it wrote: for people, and so that a resumed install knows its own work."""

    image: str
    node: str
    manifest: str
    finished: bool


def encode_mark(mark: Mark) -> bytes:
    """One block of MARK_SIZE bytes."""
    body = {"image": mark.image, "node": mark.node, "manifest": mark.manifest, "finished": mark.finished}
    return (_MARK + json.dumps(body).encode() + b"\n").ljust(MARK_SIZE, b"\0")[:MARK_SIZE]


def decode_mark(block: bytes) -> Mark | None:
    """The mark in `block`, or None. Never raises: what stands on a disk may be anything."""
    if not block.startswith(_MARK):
        return None
    try:
        body = json.loads(block[len(_MARK) :].split(b"\n", 1)[0])
        texts = [body[key] for key in ("image", "node", "manifest")]
        if not all(isinstance(text, str) and len(text) <= 256 for text in texts):
            return None
        return Mark(_plain(texts[0]), _plain(texts[1]), texts[2], body["finished"] is True)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def content(read: Callable[[int, int], bytes], size: int, sector: int = 512) -> str:
    """One short phrase for a disk of `size` bytes: "empty", "gild compute:3 (n17)", "GPT: vfat 'ESP', ext4 'root'".

    `read(offset, length)` gives bytes of the disk, fewer at its end; an OSError from it is told as "unreadable".
    """
    try:
        return _content(read, size, sector)
    except OSError as error:
        return f"unreadable: {error.strerror or error}"


def read_content(path: str, size: int, sector: int = 512) -> str:
    """`content` of a device or file, opened for reading only."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        return f"unreadable: {error.strerror}"
    try:
        return content(lambda offset, length: os.pread(fd, length, offset), size, sector)
    finally:
        os.close(fd)


def sign(head: bytes, tail: bytes = b"") -> str:
    """The format of a filesystem or container from its first HEAD and last TAIL bytes, "" for none that is known."""
    if head[1080:1082] == b"\x53\xef":  # ext2/3/4 superblock at 1024, s_magic at 56, s_volume_name at 120
        compat, incompat = struct.unpack_from("<II", head, 1024 + 92)
        kind = "ext4" if incompat & 0x2C0 else "ext3" if compat & 4 else "ext2"
        return _labelled(kind, head[1144:1160])
    if head[512:520] == b"LABELONE" or head[0:8] == b"LABELONE":
        return "LVM"
    for offset, mark, name in _SIGNS:
        if head[offset : offset + len(mark)] == mark:
            at = {"xfs": (108, 12), "vfat": (71 if offset == 82 else 43, 11), "btrfs": (65536 + 299, 32)}.get(name)
            at = (offset - (4086 - 1052), 16) if name == "swap" and offset == 4086 else at
            return _labelled(name, head[at[0] : sum(at)]) if at else name
    if _zfs(head):
        return "ZFS"
    # md 1.0 keeps its superblock 8 KiB before the end, 0.90 in the last full 64 KiB (md(4)).
    for back in (8192, 65536, 131072):
        if tail[-back:][:4] == b"\xfc\x4e\x2b\xa9" and len(tail) >= back:
            return "md RAID"
    return ""


def _content(read: Callable[[int, int], bytes], size: int, sector: int) -> str:
    head, tail = read(0, min(HEAD, size)), read(max(0, size - TAIL), min(TAIL, size))
    mark = decode_mark(read(MARK_OFFSET, MARK_SIZE)) if size > MARK_OFFSET + MARK_SIZE else None
    if mark is not None:
        rest = "" if mark.finished else ", unfinished"
        return f"gild {mark.image} ({mark.node}{rest})"
    if head[sector : sector + 8] == b"EFI PART":
        return _told("GPT", read, _gpt(read, head, sector))
    whole = sign(head, tail)
    if whole:
        return whole
    if head[510:512] == b"\x55\xaa":
        return _told("MBR", read, _mbr(head))
    if tail[-sector:][:8] == b"EFI PART":
        return "damaged GPT"
    return "data of an unknown kind" if any(head) or any(tail) else "empty"


def _told(table: str, read: Callable[[int, int], bytes], spans: list[tuple[int, int]]) -> str:
    parts = [sign(read(start, HEAD)) or "unknown" for start, _ in spans[:MAX_PARTS]]
    more = ", ..." if len(spans) > MAX_PARTS else ""
    return f"{table}: {', '.join(parts)}{more}" if parts else f"{table}, no partitions"


def _gpt(read: Callable[[int, int], bytes], head: bytes, sector: int) -> list[tuple[int, int]]:
    """(start, length) in bytes per used entry; UEFI 2.10 section 5.3, with every number bounded."""
    at, count, entry = struct.unpack_from("<QII", head, sector + 72)
    if not 128 <= entry <= 4096 or not 0 < count <= 256 or not 0 < at < 1 << 40:
        return []
    table, spans = read(at * sector, entry * count), []
    for n in range(len(table) // entry):
        first, last = struct.unpack_from("<QQ", table, n * entry + 32)
        if any(table[n * entry : n * entry + 16]) and 0 < first <= last < 1 << 50:
            spans.append((first * sector, (last - first + 1) * sector))
    return spans


def _mbr(head: bytes) -> list[tuple[int, int]]:
    spans = []
    for n in range(4):
        kind = head[446 + 16 * n + 4]
        start, length = struct.unpack_from("<II", head, 446 + 16 * n + 8)
        if kind and start and length:
            spans.append((start * 512, length * 512))
    return spans


def _zfs(head: bytes) -> bool:
    """A ZFS label has an array of uberblocks from 128 KiB on, each at a multiple of 1 KiB."""
    magics = (struct.pack("<Q", 0x00BAB10C), struct.pack(">Q", 0x00BAB10C))
    return any(head[at : at + 8] in magics for at in range(128 * 1024, min(len(head), HEAD) - 8, 1024))


def _labelled(kind: str, raw: bytes) -> str:
    label = _plain(raw.split(b"\0", 1)[0].decode("utf-8", "replace").strip())
    return f"{kind} {label!r}" if label and label != "NO NAME" else kind


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:64]
