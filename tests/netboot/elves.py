"""Small ELF files for tests: as much of a kernel module or a program as the reader looks at."""

from __future__ import annotations

import struct


def elf(sections: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    """A 64-bit ELF file with these sections; `links` names the section whose number stands in another's sh_link."""
    names = ["", *sections, ".shstrtab"]
    strings = b"\0".join(name.encode() for name in names) + b"\0"
    bodies = [b"", *sections.values(), strings]
    out = bytearray(64)
    headers = []
    for name, body in zip(names, bodies, strict=True):
        link = names.index(links[name]) if links and name in links else 0
        at = strings.index(b"\0" + name.encode() + b"\0") + 1 if name else 0
        headers.append(struct.pack("<IIQQQQIIQQ", at, 1 if name else 0, 0, 0, len(out), len(body), link, 0, 1, 0))
        out += body
    struct.pack_into("<6sHHIQQQIHHHHHH", out, 0, b"\x7fELF\x02\x01", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    struct.pack_into("<Q", out, 40, len(out))
    struct.pack_into("<HHH", out, 58, 64, len(headers), len(headers) - 1)
    return bytes(out) + b"".join(headers)


def module(*lines: str) -> bytes:
    """A kernel module with these key=value lines in its .modinfo, and a signature's mark at its end."""
    info = b"".join(line.encode("utf-8", "surrogateescape") + b"\0" for line in lines)
    return elf({".text": b"\x90" * 8, ".modinfo": info}) + b"~Module signature appended~\n"


def program(*libraries: str) -> bytes:
    """A program that needs these shared libraries."""
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in libraries)
    table = b"".join(struct.pack("<QQ", 1, strings.index(b"\0" + n.encode() + b"\0") + 1) for n in libraries)
    return elf({".dynstr": strings, ".dynamic": table + struct.pack("<QQ", 0, 0)}, {".dynamic": ".dynstr"})
