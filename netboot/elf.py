"""The two things the installer's maker asks of an ELF file: a section's bytes and the libraries it wants.

Layout: the System V ABI's ELF-64 object file format, little endian (gABI chapters 4 and 5).
"""

from __future__ import annotations

import struct

from images.errors import GildError

MAX_SECTIONS = 65_536  # e_shnum has 16 bits
MAX_STRINGS = 100_000  # entries of one .modinfo or .dynamic; the largest module has some thousand
DT_NEEDED = 1


class ElfInvalid(GildError):
    """A file is not a 64-bit little-endian ELF file, or its tables point outside of it."""


class Elf:
    """`data` is the whole file; `name` is for messages. Raises ElfInvalid."""

    def __init__(self, data: bytes, name: str) -> None:
        self.data = data
        self.name = name
        if data[:6] != b"\x7fELF\x02\x01" or len(data) < 64:
            raise ElfInvalid(f"{name} is no 64-bit ELF file")
        (offset,) = struct.unpack_from("<Q", data, 40)
        size, count, strings = struct.unpack_from("<HHH", data, 58)
        if size != 64 or offset + 64 * count > len(data) or (count and strings >= count):
            raise ElfInvalid(f"{name}: the table of sections is cut off")
        # name, type, flags, address, offset, size, link, info, alignment, entry size
        self._headers = [struct.unpack_from("<IIQQQQIIQQ", data, offset + 64 * n) for n in range(count)]
        self._names = self._bytes(strings) if count else b""

    def section(self, wanted: str) -> bytes:
        """The bytes of the section of that name, or b"" if there is none."""
        number = self._find(wanted)
        return b"" if number is None else self._bytes(number)

    def modinfo(self) -> list[tuple[str, str]]:
        """A kernel module's `key=value` strings in their order (.modinfo, see include/linux/moduleinfo.h)."""
        found = []
        for text in self.section(".modinfo").split(b"\0")[:MAX_STRINGS]:
            key, equals, value = text.decode("utf-8", "replace").partition("=")
            if equals:
                found.append((key, value))
        return found

    def needed(self) -> list[str]:
        """The shared libraries it names (DT_NEEDED), in their order; empty for a static program."""
        number = self._find(".dynamic")
        if number is None:
            return []
        link = self._headers[number][6]
        if link >= len(self._headers):
            raise ElfInvalid(f"{self.name}: .dynamic names section {link}, which is not there")
        strings = self._bytes(link)
        table = self._bytes(number)
        table = table[: min(len(table) - len(table) % 16, 16 * MAX_STRINGS)]
        return [self._text(strings, value) for tag, value in struct.iter_unpack("<QQ", table) if tag == DT_NEEDED]

    def _find(self, wanted: str) -> int | None:
        for number, header in enumerate(self._headers):
            if self._text(self._names, header[0]) == wanted:
                return number
        return None

    def _bytes(self, number: int) -> bytes:
        kind, offset, size = self._headers[number][1], self._headers[number][4], self._headers[number][5]
        if kind == 8:  # SHT_NOBITS has a size and no bytes
            return b""
        if offset + size > len(self.data):
            raise ElfInvalid(f"{self.name}: section {number} lies outside of the file")
        return self.data[offset : offset + size]

    def _text(self, strings: bytes, offset: int) -> str:
        end = strings.find(b"\0", offset)
        if offset > len(strings) or end < 0:
            raise ElfInvalid(f"{self.name}: a name lies outside of its table")
        return strings[offset:end].decode("utf-8", "replace")
