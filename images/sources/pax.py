"""The records of a pax header: "length key=value" (pax(1), POSIX.1-2017), and which of them carry attributes."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from images.errors import SourceInvalid

MAX_PAX = 4 << 20  # bytes of one header: twenty attributes of the largest size the kernel takes, and more
MAX_RECORDS = 4096
MAX_ATTRIBUTE = 1 << 16  # bytes, XATTR_SIZE_MAX of linux/limits.h
# Keys that carry extended attributes: star and GNU tar, and GNU tar's own word for SELinux labels.
XATTR, SELINUX = b"SCHILY.xattr.", b"RHT.security.selinux"
ACLS = {b"SCHILY.acl.access": "system.posix_acl_access", b"SCHILY.acl.default": "system.posix_acl_default"}
# The others are read by who wants to know more, and are nothing to us: atime, comment, LIBARCHIVE.creationtime ...
WORDS = frozenset(
    b"path linkpath size uid gid mtime SCHILY.devmajor SCHILY.devminor GNU.sparse.major GNU.sparse.minor "
    b"GNU.sparse.name GNU.sparse.realsize GNU.sparse.size GNU.sparse.map".split()
)


@dataclass(slots=True)
class Pax:
    """What headers say of a member: plain words, extended attributes, ACLs as text (each by its attribute's name), and
    the segments of a sparse file in GNU's version 0.0."""

    words: dict[bytes, bytes] = field(default_factory=dict)
    attributes: dict[str, bytes] = field(default_factory=dict)
    acls: dict[str, str] = field(default_factory=dict)
    segments: array[int] = field(default_factory=lambda: array("Q"))

    def update(self, other: Pax) -> None:
        """Let what `other` says count as well, and first. Raises SourceInvalid where that would be too much."""
        self.words.update(other.words)
        self.attributes.update(other.attributes)
        self.acls.update(other.acls)
        if len(self.words) + len(self.attributes) > MAX_RECORDS:
            raise SourceInvalid(f"the archive has more than {MAX_RECORDS} global records")

    def over(self, other: Pax) -> Pax:
        """These, with those of a member over them; an empty word takes one back."""
        words = {key: value for key, value in {**self.words, **other.words}.items() if value}
        return Pax(words, {**self.attributes, **other.attributes}, {**self.acls, **other.acls}, other.segments)


def read_pax(data: bytes, name: str) -> Pax:
    """The records of one header, which stands before the member or is itself called `name`. Raises SourceInvalid."""
    pax, at, count = Pax(), 0, 0
    while at < len(data) and data[at]:
        space = data.find(b" ", at, at + 9)
        digits = data[at:space] if space > 0 else b""
        length = int(digits) if digits.isdigit() else 0
        record = data[space + 1 : at + length]
        key, equals, value = record[:-1].partition(b"=")
        if length < 5 or at + length > len(data) or not record.endswith(b"\n") or not equals or not key:
            raise SourceInvalid(f"archive member {name!r} has a header with a damaged record at byte {at}")
        at += length
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            _segment(pax.segments, key, value, name)
            continue
        count += _keep(pax, key, value, name)
        if count > MAX_RECORDS:
            raise SourceInvalid(f"archive member {name!r} has a header with more than {MAX_RECORDS} records")
    return pax


def _keep(pax: Pax, key: bytes, value: bytes, name: str) -> bool:
    if key in WORDS:
        pax.words[key] = value
    elif key.startswith(XATTR):
        if len(value) > MAX_ATTRIBUTE:
            raise SourceInvalid(f"archive member {name!r} has an attribute of {len(value)} bytes")
        # "=" would end the key: GNU tar writes it so (xattr_decode_keyword in its xheader.c).
        attribute = key[len(XATTR) :].replace(b"%3D", b"=").replace(b"%25", b"%")
        pax.attributes[attribute.decode("utf-8", "surrogateescape")] = value
    elif key == SELINUX:
        # The library that sets labels counts the NUL at the end as part of it; GNU tar leaves it out.
        pax.attributes.setdefault("security.selinux", value.rstrip(b"\0") + b"\0")
    elif key in ACLS:
        pax.acls[ACLS[key]] = value.decode("utf-8", "surrogateescape")
    else:
        return False
    return True


def _segment(segments: array[int], key: bytes, value: bytes, name: str) -> None:
    """Offsets and lengths take turns."""
    turn = b"GNU.sparse.numbytes" if len(segments) % 2 else b"GNU.sparse.offset"
    if key != turn or not value.isdigit() or len(value) > 18:
        raise SourceInvalid(f"archive member {name!r} has a damaged map of holes")
    segments.append(int(value))
