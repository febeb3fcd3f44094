"""What a backup is, byte for byte: a tar archive that says first what is in it.

    backup.json     what follows, with the size and sha256 of each, made when and by which version
    gild.db, ...    the files, by their paths below the state directory
    backup.sha256   the sha256 of backup.json, as sha256sum prints it

Any tar reads it (ustar; IEEE 1003.1-2017, pax, "ustar Interchange Format"). It is read here the other way round: each
header must be the very bytes that backup.json lets expect, so there is no link, device, long name or odd size that
a parser could be led astray by. The links and empty folders of profiles stand in backup.json alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from images.errors import GildError

FORMAT, VERSION = "gild backup", 2  # 1: without others, and still written where there are none
LIST, SEAL, DATABASE = "backup.json", "backup.sha256", "gild.db"
PROFILES = "profiles/"  # below it a tree is kept as it is, links, empty folders and odd names included
BLOCK = 512  # bytes of a header; contents are filled up with zeros to a multiple of it
END = bytes(2 * BLOCK)
MAX_LIST = 64 << 20  # bytes of backup.json: some 300,000 files
MAX_FILE = 1 << 50  # bytes
WHAT = "it was cut short or changed on its way: take another copy"


class BackupInvalid(GildError):
    """A backup is damaged, is not one, or is of a newer version."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file: its path below the state directory, its bytes, their sha256 (hex), its permission bits."""

    name: str
    size: int
    sha256: str
    mode: int


@dataclass(frozen=True, slots=True)
class Other:
    """What is no file: a link to `target`, or where that is empty an empty folder. Only a profile's tree has them."""

    name: str
    mode: int = 0o755
    target: str = ""


@dataclass(frozen=True)
class Listing:
    """backup.json: the version of gild that made it, when (seconds since 1970), on the head of which name, the version
    of its database (0: there is none), whether the image store is in it, the files and what else there is."""

    gild: str
    created: int
    head: str
    schema: int
    images: bool
    members: tuple[Member, ...]
    others: tuple[Other, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(member.size for member in self.members)


def encode(listing: Listing) -> bytes:
    """backup.json."""
    body = {"format": FORMAT, "version": VERSION if listing.others else 1, **asdict(listing)}
    return (json.dumps(body, indent=1, ensure_ascii=True) + "\n").encode()


def decode(data: bytes, schema: int) -> Listing:
    """backup.json, all of it checked; `schema` is the newest version of a database that can be read here.
    Raises BackupInvalid."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        raise BackupInvalid("the list in this backup cannot be read", WHAT) from None
    if not isinstance(body, dict) or body.get("format") != FORMAT or not _number(body.get("version"), 1 << 30):
        raise BackupInvalid("this is not a backup of gild", "made by: gild.pyz backup FILE")
    gild = str(body.get("gild"))[:40]
    if body["version"] > VERSION:
        raise BackupInvalid(
            f"this backup is of version {body['version']}, this gild reads {VERSION}",
            f"restore it with gild {gild}" if gild.isprintable() else "",
        )
    try:
        listing = Listing(
            gild, _checked(body["created"], 1 << 40), str(body["head"])[:255], _checked(body["schema"], 1 << 30),
            bool(body["images"]), tuple(_member(row) for row in body["members"]),
            tuple(_other(row) for row in body.get("others", ())),
        )  # fmt: skip
        _tree([*(member.name for member in listing.members), *(other.name for other in listing.others)])
    except (KeyError, TypeError):
        raise BackupInvalid("the list in this backup is incomplete", WHAT) from None
    if bool(listing.schema) != any(member.name == DATABASE for member in listing.members):
        raise BackupInvalid(f"the list in this backup contradicts itself about {DATABASE}", WHAT)
    if not (gild + listing.head).isprintable():
        raise BackupInvalid("the list in this backup holds control characters", WHAT)
    if listing.schema > schema:
        raise BackupInvalid(
            f"this backup was made by gild {gild} with a database of version {listing.schema}; this one knows {schema}",
            f"restore it with gild {gild} or newer",
        )
    return listing


def safe_name(name: str) -> bool:
    """Whether `name` is a relative path that stays below the directory it is put in, fits a ustar header (RFC 3629
    bytes: 100, or 155 and 100 on both sides of a slash) and can be shown."""
    parts = name.split("/")
    fits = all(part not in ("", ".", "..") and len(part.encode("utf-8", "replace")) <= 255 for part in parts)
    return fits and name.isprintable() and _split(name) is not None


def header(name: str, size: int, mode: int, mtime: int) -> bytes:
    """The 512 bytes before a regular file of root's. `name` must be a safe_name; sizes of 8 GiB and more are written
    in base 256, as GNU tar and libarchive do (tar(5), "GNU tar archives")."""
    split = _split(name)
    assert split is not None
    prefix, last = split
    length = b"%011o\0" % size if size < 1 << 33 else b"\x80" + size.to_bytes(11, "big")
    fields = (
        last.ljust(100, b"\0"), b"%07o\0" % mode, b"%07o\0" % 0, b"%07o\0" % 0, length, b"%011o\0" % mtime,
        b" " * 8, b"0", bytes(100), b"ustar\00000", bytes(32), bytes(32), b"%07o\0" % 0, b"%07o\0" % 0,
        prefix.ljust(155, b"\0"), bytes(12),
    )  # fmt: skip
    block = b"".join(fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def list_header(block: bytes) -> tuple[int, int]:
    """Size in bytes and time of the first member, which must be backup.json. Raises BackupInvalid."""
    found = re.fullmatch(rb"([0-7]{11})\0([0-7]{11})\0", block[124:148])
    if found is None or not block.startswith(LIST.encode() + b"\0"):
        raise BackupInvalid("this is not a backup of gild", "made by: gild.pyz backup FILE")
    size, mtime = int(found[1], 8), int(found[2], 8)
    if size > MAX_LIST or block != header(LIST, size, 0o600, mtime):
        raise BackupInvalid("the beginning of this backup is damaged", WHAT)
    return size, mtime


def padding(size: int) -> bytes:
    """The zeros after `size` bytes of contents."""
    return bytes(-size % BLOCK)


def _split(name: str) -> tuple[bytes, bytes] | None:
    """A path as prefix and name of a header; None if it does not fit."""
    try:
        raw = name.encode()
    except UnicodeEncodeError:  # a file name that is not UTF-8
        return None
    if len(raw) <= 100:
        return b"", raw
    slash = raw.find(b"/", len(raw) - 101)
    return (raw[:slash], raw[slash + 1 :]) if 0 < slash <= 155 and slash + 1 < len(raw) else None


def _member(row: dict[str, object]) -> Member:
    name, sha256 = str(row["name"]), str(row["sha256"])
    if not safe_name(name) or name in (LIST, SEAL):
        raise BackupInvalid(f"this backup names a file that may not be in one: {name[:80]!r}", WHAT)
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise BackupInvalid(f"this backup has no sha256 of {name[:80]}", WHAT)
    return Member(name, _checked(row["size"], MAX_FILE), sha256, _checked(row["mode"], 0o777))


def _other(row: dict[str, object]) -> Other:
    name, target = str(row["name"]), str(row["target"])
    if not safe_name(name) or not name.startswith(PROFILES):
        raise BackupInvalid(f"this backup names a link or folder that may not be in one: {name[:80]!r}", WHAT)
    if not target.isprintable() or len(target.encode("utf-8", "replace")) > 4095:
        raise BackupInvalid(f"this backup has a link {name[:80]} to nowhere", WHAT)
    return Other(name, _checked(row["mode"], 0o777), target)


def _tree(listed: Sequence[str]) -> None:
    """Nothing twice, and no file or link where something else needs a directory: nothing is written through a link."""
    names = set(listed)
    folders = {name[: at.start()] for name in names for at in re.finditer("/", name)}
    if len(names) < len(listed) or names & folders:
        raise BackupInvalid("this backup names a file twice", WHAT)


def _number(value: object, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= limit


def _checked(value: object, limit: int) -> int:
    if not _number(value, limit):
        raise BackupInvalid(f"the list in this backup holds an impossible number: {str(value)[:40]!r}", WHAT)
    assert isinstance(value, int)
    return value
