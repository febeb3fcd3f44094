"""A tar stream, member by member, in bounded memory: ustar, GNU and pax headers, sparse files of every kind.

Nothing is believed of a header before it was held against a limit; the standard library's reader takes a pax header
or a sparse map of any size into memory first, and reads them differently from one Python version to the next.
Sources: pax(1) in POSIX.1-2017 for ustar and pax; "Basic Tar Format" and "Storing Sparse Files" in the GNU tar manual.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from images.errors import SourceInvalid
from images.sources import sparse
from images.sources.compressed import PIECE, Readable
from images.sources.names import show
from images.sources.pax import MAX_PAX, Pax, read_pax

BLOCK = 512
MAX_EXTENSIONS = 16  # headers before the one they are for; GNU tar writes three at most
MAX_HEADERS = 20_000_000  # of every kind: four for each of five million members
MAX_SKIPPED = 4 << 30  # bytes of pax headers and the like in all, some 800 for each of five million members
MAX_NAME = 1 << 16  # bytes of a GNU long name
NO_ID = 0xFFFFFFFF  # (uid_t) -1 means "leave it" to chown(2)
# name mode uid gid size mtime checksum type link magic+version uname gname major minor prefix
HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
OCTAL = re.compile(rb"[0-7]+")
USTAR = b"ustar\x0000"
KINDS = {
    b"0": stat.S_IFREG,
    b"\0": stat.S_IFREG,
    b"7": stat.S_IFREG,  # contiguous
    b"S": stat.S_IFREG,  # GNU, sparse
    b"1": 0,  # a hard link
    b"2": stat.S_IFLNK,
    b"3": stat.S_IFCHR,
    b"4": stat.S_IFBLK,
    b"5": stat.S_IFDIR,
    b"6": stat.S_IFIFO,
    b"D": stat.S_IFDIR,  # GNU, incremental: followed by a list of names
}


@dataclass(slots=True)
class Member:
    """One entry of an archive. `kind` is S_IFREG and so on, 0 for a hard link to `target`. `size` is that of the file,
    `stored` how much of it is in the archive; `segments` are (offset, length) one after another, None if not sparse.
    Names are as os.fsdecode makes them. Attributes are those of the filesystem, `acls` the same as text."""

    name: str
    kind: int
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int = 0
    stored: int = 0
    target: str = ""
    device: tuple[int, int] = (0, 0)
    attributes: dict[str, bytes] = field(default_factory=dict)
    acls: dict[str, str] = field(default_factory=dict)
    segments: array[int] | None = None

    @property
    def shown(self) -> str:
        """The name for a message."""
        return show(self.name)


class Archive:
    """The members of a tar stream. `shown` names it in messages. `whole` says that an archive without its end mark
    was cut off. With `seekable`, the file is seeked in to pass over content that nobody asks for."""

    def __init__(self, file: Readable, shown: str, *, whole: bool = True, seekable: BinaryIO | None = None) -> None:
        self._file, self._shown, self._whole, self._seekable = file, shown, whole, seekable
        self._global = Pax()
        self._left = 0  # bytes of content and padding up to the next header
        self._skipped = 0
        self._now: Member | None = None
        self.position = 0

    def members(self) -> Iterator[Member]:
        """The members one by one. Raises SourceInvalid, naming the member, for a header that cannot be believed or an
        archive that is cut off; OSError."""
        headers = 0
        while True:
            long: dict[bytes, bytes] = {}
            pax = Pax()
            for _ in range(MAX_EXTENSIONS):
                self._pass()
                block = self._header()
                headers += 1
                if headers > MAX_HEADERS:
                    raise SourceInvalid(f"{self._shown} has more than {MAX_HEADERS} headers")
                if block is None:
                    return
                fields = HEADER.unpack(block)
                kind, size = fields[7], _number(fields[4], fields[0])
                if kind in (b"x", b"X"):
                    pax = read_pax(self._extension(fields[0], size, MAX_PAX), _decode(fields[0]))
                elif kind == b"g":
                    self._global.update(read_pax(self._extension(fields[0], size, MAX_PAX), "global header"))
                elif kind in (b"L", b"K"):
                    long[kind] = self._extension(fields[0], size, MAX_NAME).split(b"\0", 1)[0]
                elif kind == b"V":
                    self._skip(size, fields[0])
                else:
                    break
            else:
                raise SourceInvalid(f"archive member {show(_decode(fields[0]))} has headers without end")
            member = self._member(block, fields, pax, long)
            self._now = member
            yield member

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """The content of the member last given, as (offset, bytes) of at most 1 MiB; what lies between is a hole.
        Raises SourceInvalid if the archive ends before; OSError."""
        member = self._now
        if member is None or member.kind != stat.S_IFREG:
            return
        for at, length in sparse.pairs(member.segments) if member.segments is not None else [(0, member.size)]:
            done = 0
            while done < length:
                piece = self._read(min(PIECE, length - done), member.name)
                self._left -= len(piece)
                yield at + done, piece
                done += len(piece)

    # --- inside

    def _member(self, block: bytes, fields: tuple[bytes, ...], pax: Pax, long: dict[bytes, bytes]) -> Member:
        name, mode, uid, gid, size, mtime, _, kind, target, magic, _, _, major, minor, prefix = fields
        if magic == USTAR and prefix[0]:
            name = prefix.split(b"\0", 1)[0] + b"/" + name.split(b"\0", 1)[0]
        given = self._global.over(pax)
        words = given.words
        raw = words.get(b"GNU.sparse.name") or words.get(b"path") or long.get(b"L") or name.split(b"\0", 1)[0]
        if kind not in KINDS:
            what = "continues another archive" if kind == b"M" else f"is of a kind ({kind!r}) that no filesystem has"
            raise SourceInvalid(f"archive member {show(_decode(raw))} {what}")
        member = Member(
            name=_decode(raw),
            kind=stat.S_IFDIR if KINDS[kind] == stat.S_IFREG and raw.endswith(b"/") else KINDS[kind],
            mode=_number(mode, raw) & 0o7777,
            uid=_decimal(words, b"uid", raw) if b"uid" in words else _number(uid, raw),
            gid=_decimal(words, b"gid", raw) if b"gid" in words else _number(gid, raw),
            mtime=_seconds(words, raw) if b"mtime" in words else _number(mtime, raw),
            target=_decode(words.get(b"linkpath") or long.get(b"K") or target.split(b"\0", 1)[0]),
            attributes=given.attributes,
            acls=given.acls,
        )
        if not (0 <= member.uid < NO_ID and 0 <= member.gid < NO_ID):
            raise SourceInvalid(f"archive member {member.shown} has an impossible owner {member.uid}:{member.gid}")
        if member.kind in (stat.S_IFCHR, stat.S_IFBLK):
            numbers = [
                _decimal(words, key, raw) if key in words else _number(number, raw)
                for key, number in ((b"SCHILY.devmajor", major), (b"SCHILY.devminor", minor))
            ]
            if not (0 <= numbers[0] < 1 << 12 and 0 <= numbers[1] < 1 << 20):  # linux/kdev_t.h
                raise SourceInvalid(f"archive member {member.shown} is an impossible device {numbers[0]}:{numbers[1]}")
            member.device = numbers[0], numbers[1]
        stored = _decimal(words, b"size", raw) if b"size" in words else _number(size, raw)
        if stored < 0 or stored >= 1 << 63:
            raise SourceInvalid(f"archive member {member.shown} has an impossible size")
        if kind == b"D" or member.kind != KINDS[kind]:
            self._skip(stored, raw)
        elif member.kind == stat.S_IFREG:
            self._content(member, stored, kind, block, given)
        return member

    def _content(self, member: Member, stored: int, kind: bytes, block: bytes, pax: Pax) -> None:
        """Find out where the content of a file lies. Its map is read where it stands before the content."""
        self._left = stored + -stored % BLOCK
        member.size = member.stored = stored
        if kind == b"S":
            member.size, member.segments = sparse.old_map(block, lambda: self._read(BLOCK, member.name), member.shown)
        elif pax.words.get(b"GNU.sparse.major") == b"1":
            member.size = _decimal(pax.words, b"GNU.sparse.realsize", os.fsencode(member.name))

            def more() -> bytes:
                if self._left < BLOCK:
                    raise SourceInvalid(f"archive member {member.shown} has a map of holes that is cut off")
                self._left -= BLOCK
                member.stored -= BLOCK
                return self._read(BLOCK, member.name)

            member.segments = sparse.new_map(more, member.shown)
        elif b"GNU.sparse.size" in pax.words:
            member.size = _decimal(pax.words, b"GNU.sparse.size", os.fsencode(member.name))
            member.segments = sparse.listed_map(pax.words.get(b"GNU.sparse.map"), pax.segments, member.shown)
        if member.segments is not None:
            sparse.check(member.segments, member.size, member.stored, member.shown)

    def _header(self) -> bytes | None:
        """The next header, None at the end."""
        block = self._file.read(BLOCK)
        while 0 < len(block) < BLOCK and (more := self._file.read(BLOCK - len(block))):
            block += more
        self.position += len(block)
        if block == bytes(BLOCK):
            return None
        if len(block) < BLOCK:
            if not block and not self._whole:
                return None
            if not self.position:
                raise SourceInvalid(f"{self._shown} is empty")
            where = f" after {self._now.shown}" if self._now else ""
            raise SourceInvalid(f"{self._shown} is not a whole archive: it ends{where} without its end mark")
        fields = block[:148] + b"        " + block[156:]
        given = block[148:156].strip(b"\0 ")
        over = sum(fields) - (int(given, 8) if OCTAL.fullmatch(given) else 0)
        if over and over != 256 * sum(byte > 127 for byte in fields):  # old programs summed signed bytes
            where = f"after {self._now.shown}" if self._now else "at its beginning"
            raise SourceInvalid(f"{self._shown} is not a whole archive: there is no header {where}")
        return block

    def _extension(self, name: bytes, size: int, limit: int) -> bytes:
        if not 0 <= size <= limit:
            raise SourceInvalid(f"archive member {show(_decode(name))} is a header of {size} bytes, more than {limit}")
        self._left = size + -size % BLOCK
        self._count(size)
        data = self._read(size, _decode(name))
        self._left -= size
        return data

    def _skip(self, size: int, name: bytes) -> None:
        self._count(size)
        if not 0 <= size <= MAX_SKIPPED:
            raise SourceInvalid(f"archive member {show(_decode(name))} has an impossible size")
        self._left = size + -size % BLOCK

    def _count(self, size: int) -> None:
        self._skipped += size
        if self._skipped > MAX_SKIPPED:
            raise SourceInvalid(f"{self._shown} has more than {MAX_SKIPPED >> 20} MiB of headers")

    def _pass(self) -> None:
        """Go over what is left of a member's content."""
        if self._seekable is not None:
            self._seekable.seek(self._left, os.SEEK_CUR)
            self.position += self._left
            self._left = 0
        while self._left:
            self._left -= len(self._read(min(PIECE, self._left), self._now.name if self._now else ""))

    def _read(self, size: int, name: str) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            parts = [data]
            left = size - len(data)
            while left and parts[-1]:
                parts.append(self._file.read(left))
                left -= len(parts[-1])
            data = b"".join(parts)
            if left:
                raise SourceInvalid(f"{self._shown} is not a whole archive: it ends inside {show(name)}")
        self.position += size
        return data


def _decode(name: bytes) -> str:
    return os.fsdecode(name.split(b"\0", 1)[0]) if b"\0" in name else os.fsdecode(name)


def _number(raw: bytes, name: bytes) -> int:
    """A number of a header: octal, or GNU's base-256 for what octal cannot hold."""
    if raw[0] & 0x80:
        value = int.from_bytes(raw, "big", signed=False)
        # 0x80 marks a positive, 0xff a negative number.
        return value - (1 << 8 * len(raw)) if raw[0] == 0xFF else value - (0x80 << 8 * (len(raw) - 1))
    text = raw.split(b"\0", 1)[0].strip(b" ")
    if not text:
        return 0
    if not OCTAL.fullmatch(text):
        raise SourceInvalid(f"archive member {show(_decode(name))} has a header with {text!r} for a number")
    return int(text, 8)


def _decimal(words: dict[bytes, bytes], key: bytes, name: bytes) -> int:
    text = words.get(key, b"")
    if not re.fullmatch(rb"[0-9]{1,20}", text):
        raise SourceInvalid(f"archive member {show(_decode(name))} says {key.decode()} is {text[:80]!r}, no number")
    return int(text)


def _seconds(words: dict[bytes, bytes], name: bytes) -> int:
    """Whole seconds of a pax time, rounded down as the kernel counts them."""
    match = re.fullmatch(rb"(-?)([0-9]{1,20})(?:\.([0-9]{0,40}))?", words[b"mtime"])
    if match is None:
        raise SourceInvalid(f"archive member {show(_decode(name))} has the time {words[b'mtime'][:80]!r}, no number")
    whole = int(match[2])
    return whole if not match[1] else -whole - (1 if (match[3] or b"").strip(b"0") else 0)
