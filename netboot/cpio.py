"""The initrd's archive format: cpio "newc" written byte for byte the same every time, and read with suspicion.

Format: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel: a magic "070701", thirteen fields of
eight hexadecimal digits, the name with its NUL, the data; name and data padded to four bytes.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass

from images.errors import GildError

MAGICS = (b"070701", b"070702")  # the second carries a checksum, which the kernel ignores as well
HEADER = 110  # bytes: the magic and thirteen fields of eight digits
TRAILER = "TRAILER!!!"
MAX_NAME = 4096  # PATH_MAX, the kernel's own limit for a name in an initramfs
MAX_ENTRIES = 500_000  # of one read; a full installer initrd has about a thousand
MAX_DATA = 0xFFFFFFFF  # the size field has eight hexadecimal digits


class CpioInvalid(GildError):
    """An archive is cut off or contradicts itself, or a file cannot be put into one."""


@dataclass(frozen=True)
class Entry:
    """One file, folder, link or device. `name` has no leading slash; `mode` is st_mode with its type bits;
    a link's target is its `data`; `device` is (major, minor) of a device node."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def folder(name: str, mode: int = 0o755) -> Entry:
    """A directory."""
    return Entry(name, stat.S_IFDIR | mode)


def file(name: str, data: bytes, mode: int = 0o644) -> Entry:
    """A regular file."""
    return Entry(name, stat.S_IFREG | mode, data)


def link(name: str, target: str) -> Entry:
    """A symbolic link to `target`, which need not exist."""
    return Entry(name, stat.S_IFLNK | 0o777, target.encode("utf-8", "surrogateescape"))


def character_device(name: str, major: int, minor: int, mode: int = 0o600) -> Entry:
    """A character device node such as /dev/console (5, 1)."""
    return Entry(name, stat.S_IFCHR | mode, b"", (major, minor))


def write(entries: Iterable[Entry]) -> bytes:
    """The archive of `entries`, sorted by name, with a folder made for every parent that is not among them.

    Owner root, time 0, inode numbers in sequence: the same entries are always the same bytes. The result's length is
    a multiple of four, so that another archive may follow it. Raises CpioInvalid for a name that is empty, absolute,
    holds a NUL or `..`, or comes twice, and for data over 4 GiB.
    """
    named: dict[str, Entry] = {}
    for entry in entries:
        _check(entry)
        if entry.name in named:
            raise CpioInvalid(f"cpio: {entry.name!r} comes twice")
        named[entry.name] = entry
    for name in list(named):
        for parent in _parents(name):
            if not stat.S_ISDIR(named.setdefault(parent, folder(parent)).mode):
                raise CpioInvalid(f"cpio: {name!r} lies below {parent!r}, which is no folder")
    out = bytearray()
    # Sorting by name puts a folder before what it holds; the kernel makes no parents.
    for number, name in enumerate(sorted(named), 1):
        _append(out, named[name], number)
    _append(out, Entry(TRAILER, 0), 0)
    return bytes(out)


def read(data: bytes) -> tuple[list[Entry], int]:
    """Every entry of the uncompressed archives at the start of `data`, and where they end.

    Archives may follow one another with NUL padding between them, as the kernel accepts them; reading stops at the
    first byte that begins no archive (a compressed segment, say). Raises CpioInvalid for an archive that is cut off,
    has a field that is no number, a name over 4096 bytes or more than 500,000 entries.
    """
    entries: list[Entry] = []
    offset = end = 0
    while data[offset : offset + 6] in MAGICS:
        while True:
            entry, offset = _entry(data, offset)
            if entry.name == TRAILER:
                break
            if len(entries) >= MAX_ENTRIES:
                raise CpioInvalid(f"cpio: more than {MAX_ENTRIES} entries")
            entries.append(entry)
        end = offset
        while data[offset : offset + 1] == b"\0":
            offset += 1
        if offset % 4:  # the kernel takes "0" for an archive on a multiple of four only
            break
    return entries, end


def _check(entry: Entry) -> None:
    parts = entry.name.split("/")
    if not entry.name or "\0" in entry.name or any(part in ("", ".", "..") for part in parts):
        raise CpioInvalid(f"cpio: {entry.name!r} is no name for a file of an archive")
    if entry.name == TRAILER:
        raise CpioInvalid(f"cpio: {TRAILER} is the name that ends an archive")
    if len(entry.name.encode("utf-8", "surrogateescape")) >= MAX_NAME:
        raise CpioInvalid(f"cpio: the name {entry.name[:40]!r}... is longer than {MAX_NAME} bytes")
    if len(entry.data) > MAX_DATA:
        raise CpioInvalid(f"cpio: {entry.name!r} is larger than 4 GiB")


def _parents(name: str) -> list[str]:
    parts = name.split("/")[:-1]
    return ["/".join(parts[: n + 1]) for n in range(len(parts))]


def _append(out: bytearray, entry: Entry, number: int) -> None:
    name = entry.name.encode("utf-8", "surrogateescape") + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    values = (number, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    out += MAGICS[0] + b"".join(b"%08X" % value for value in values) + name
    out += bytes(-len(out) % 4)
    out += entry.data
    out += bytes(-len(out) % 4)


def _entry(data: bytes, start: int) -> tuple[Entry, int]:
    if data[start : start + 6] not in MAGICS or start + HEADER > len(data):
        raise CpioInvalid(f"cpio: no header at byte {start}")
    digits = data[start + 6 : start + HEADER]
    if not digits.isalnum():  # int() would take signs, blanks and underscores
        raise CpioInvalid(f"cpio: the header at byte {start} is no list of numbers")
    try:
        values = [int(digits[n : n + 8], 16) for n in range(0, 104, 8)]
    except ValueError:
        raise CpioInvalid(f"cpio: the header at byte {start} is no list of numbers") from None
    mode, size, device, name_size = values[1], values[6], (values[9], values[10]), values[11]
    if not 1 <= name_size <= MAX_NAME:
        raise CpioInvalid(f"cpio: the name at byte {start} is {name_size} bytes long")
    body = start + HEADER + name_size
    # Padding counts from the start of this archive's file; archives start on multiples of four.
    body += -body % 4
    if body + size > len(data):
        raise CpioInvalid(f"cpio: the entry at byte {start} is cut off")
    name = data[start + HEADER : start + HEADER + name_size].partition(b"\0")[0].decode("utf-8", "surrogateescape")
    after = body + size
    after += -after % 4
    return Entry(name, mode, data[body : body + size], device), min(after, len(data))
