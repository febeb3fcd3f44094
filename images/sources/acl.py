"""ACLs as archives write them, in words, and as the kernel keeps them."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping

from images.errors import SourceInvalid

NO_ID = 0xFFFFFFFF
MAX_TEXT = 1 << 16
# linux/posix_acl_xattr.h: version u32, then per entry tag u16, permissions u16, id u32
VERSION, ENTRY = 2, struct.Struct("<HHI")
TAGS = {("user", False): 0x01, ("user", True): 0x02, ("group", False): 0x04, ("group", True): 0x08}
TAGS |= {("mask", False): 0x10, ("other", False): 0x20}


def encode_acl(text: str, ids: Mapping[str, Mapping[str, int]]) -> bytes:
    """An ACL in the text form of archives ("user::rwx,user:lp:r--:7,...", acl(5)) as the kernel's attribute. A named
    entry has its number as fourth field, as the name itself, or under `ids` ("user" and "group", name -> number).
    Raises SourceInvalid."""
    if len(text) > MAX_TEXT:
        raise SourceInvalid(f"archive has an ACL of {len(text)} characters")
    entries = []
    for entry in re.split(r"[,\n]+", text.strip()):
        if not entry.strip() or entry.startswith("#"):
            continue
        fields = [*entry.strip().split(":"), "", "", ""]
        kind, who, bits, number = fields[:4]
        tag = TAGS.get((kind, bool(who)))
        if who and not re.fullmatch(r"[0-9]{1,10}", number):
            number = str(ids.get(kind, {}).get(who, who))
        if tag is None or not re.fullmatch(r"[r-][w-][x-]", bits) or (who and not re.fullmatch(r"[0-9]{1,10}", number)):
            raise SourceInvalid(f"archive has an ACL entry {entry[:80]!r} that cannot be read", "use numeric ids in it")
        permissions = sum(value for value, bit in zip((4, 2, 1), bits, strict=True) if bit != "-")
        identity = int(number) if who else NO_ID
        if identity > NO_ID or (who and identity == NO_ID):
            raise SourceInvalid(f"archive has an ACL entry {entry[:80]!r} with an impossible id")
        entries.append((tag, permissions, identity))
    # The kernel wants entries by tag and then by id (fs/posix_acl.c, posix_acl_valid).
    entries.sort(key=lambda entry: (entry[0], entry[2]))
    return struct.pack("<I", VERSION) + b"".join(ENTRY.pack(*entry) for entry in entries)


def read_ids(text: str) -> dict[str, int]:
    """Names and numbers of a passwd or group file; GNU tar writes names into ACLs."""
    lines = [line.split(":") for line in text.splitlines()]
    return {f[0]: int(f[2]) for f in lines if len(f) > 2 and f[0] and re.fullmatch(r"[0-9]{1,10}", f[2])}
