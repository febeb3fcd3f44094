"""Everything a head knows in one file, taken while it serves.

The database comes by SQLite's online backup within one read transaction: one moment of it, and nobody who writes
waits. Other files are small and replaced by rename, or never change (packs); one that changes between being listed and
being copied ends the backup with its name, for a backup that contradicts itself is worse than none.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import sqlite3
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from appliance import __version__
from appliance.backup_format import (
    END,
    LIST,
    PROFILES,
    SEAL,
    Listing,
    Member,
    Other,
    encode,
    header,
    padding,
    safe_name,
)
from appliance.errors import Unknown
from appliance.paths import Paths
from appliance.schema import DatabaseInvalid, trouble
from images.disk import disk_errors, hold
from images.errors import Busy, GildError, NoSpace
from images.options import Progress

PIECE = 1 << 20  # bytes read at once
KEPT = 1 << 20  # bytes of a file that is read once and held until it is written
KEPT_ALL = 64 << 20  # bytes held at most
PAGES = 4096  # of the database between two reports of progress
SCRATCH = ".gild-backup-"
# What is of no use elsewhere: what a process holds open now, and what can be made again.
NOT_STATE = ("lock", "gild.sock", "gild.db", "gild.db-wal", "gild.db-shm", "gild.db-journal", "gild.db.new", "store")
STORE_PARTS = ("images", "tags", "packs")  # packs last: a version published meanwhile has its packs before its list


@dataclass(frozen=True)
class _Source:
    """A file to be written: its content if that is held, or where to read it."""

    member: Member
    path: Path
    content: bytes | None = None


@dataclass(frozen=True)
class Made:
    """What a backup holds, its size in bytes, and what is not in it, with the reason."""

    listing: Listing
    size: int
    left_out: tuple[str, ...]


def backup(paths: Paths, out: IO[bytes], scratch: Path, *, images: bool, progress: Progress) -> Made:
    """Write a backup of the state directory to `out`; `scratch` is a directory for a copy of the database. Raises
    Unknown if there is nothing to back up, Busy if `images` and garbage is being collected, DatabaseInvalid, NoSpace,
    GildError if a file changes or cannot be read."""
    if not paths.state.is_dir():
        raise Unknown(f"there is no state directory {paths.state}", "give another: gild.pyz --state DIR backup FILE")
    gathering = _Gathering(paths.state)
    with contextlib.ExitStack() as held, disk_errors("writing the backup"):
        if images and paths.images.is_dir():
            held.enter_context(hold(paths.images / ".lock", exclusive=False, what="the image store"))
        schema = 0
        if paths.database.exists():
            copy = scratch / paths.database.name
            schema = copy_database(paths.database, copy, progress)
            gathering.add(copy, paths.database.name)
        gathering.walk(paths.state, skip=NOT_STATE)
        if images:
            for part in STORE_PARTS:
                gathering.walk(paths.images / part, below=f"{paths.images.name}/{part}/")
        if not gathering.sources:
            raise Unknown(f"there is nothing in {paths.state} to back up", "is that the --state of the head?")
        members = tuple(source.member for source in gathering.sources)
        others = tuple(gathering.others)
        listing = Listing(__version__, int(time.time()), socket.gethostname()[:255], schema, images, members, others)
        size = _write(out, listing, gathering.sources, progress)
    return Made(listing, size, tuple(gathering.left_out))


@contextmanager
def scratch_below(folder: Path) -> Iterator[Path]:
    """A directory for root alone in `folder`, removed afterwards, as is any that a killed backup left there."""
    with disk_errors(f"writing to {folder}"):
        for left in folder.glob(f"{SCRATCH}*"):
            with contextlib.suppress(Busy), hold(left / "lock", exclusive=True, what="a backup"):
                shutil.rmtree(left)
        place = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=folder))
    try:
        with hold(place / "lock", exclusive=True, what="a backup"):
            yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def copy_database(database: Path, copy: Path, progress: Progress) -> int:
    """A copy of a database that may be in use, checked throughout (PRAGMA integrity_check); gives its version.
    Raises DatabaseInvalid, NoSpace."""
    act = f"copying the database {database}"
    try:
        with (
            contextlib.closing(sqlite3.connect(f"file:{database}?mode=rw", uri=True, isolation_level=None)) as source,
            contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as target,
        ):
            os.chmod(copy, 0o600)
            # Without this the copy would begin anew whenever the head writes (sqlite.org/backup.html).
            source.execute("BEGIN")
            source.execute("SELECT count(*) FROM sqlite_master").fetchone()
            source.backup(target, pages=PAGES, progress=lambda _, left, all_: progress("database", all_ - left, all_))
            target.execute("PRAGMA journal_mode = DELETE")
            check_whole(target, f"the database {database}")
            return int(target.execute("PRAGMA user_version").fetchone()[0])
    except sqlite3.Error as error:
        raise trouble(error, act) from None


def check_whole(connection: sqlite3.Connection, what: str) -> None:
    """Raises DatabaseInvalid if any page or index of a database is damaged."""
    found = str(connection.execute("PRAGMA integrity_check(1)").fetchone()[0])
    if found != "ok":
        raise DatabaseInvalid(f"{what} is damaged: {' '.join(found.split())[:200]}", "keep the backup from before")


class _Gathering:
    """Files on their way into a backup."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.sources: list[_Source] = []
        self.others: list[Other] = []
        self.left_out: list[str] = []
        self._held = 0

    def walk(self, folder: Path, *, below: str = "", skip: tuple[str, ...] = ()) -> None:
        """Add every regular file in `folder`; `below` is its name in the backup. What is half written is passed over,
        and so are other backups that lie here."""
        if not folder.is_dir():
            return
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        if below.startswith(PROFILES):
            entries = [entry for entry in entries if not self._other(entry)]
        else:
            entries = [entry for entry in entries if not _passed_over(entry.name, skip)]
        for entry in entries:
            name, path = below + entry.name, Path(entry.path)
            if entry.is_symlink():
                self.left_out.append(f"{_shown(name)}: a link")
            elif entry.is_dir():
                self.walk(path, below=f"{name}/")
            elif not entry.is_file():
                self.left_out.append(f"{_shown(name)}: not a file")
            elif not safe_name(name) or name in (LIST, SEAL):
                self.left_out.append(f"{_shown(name)}: its name is too long or not plain text")
            else:
                self.add(path, name)

    def _other(self, entry: os.DirEntry[str]) -> bool:
        """Take up a profile's link or empty folder, if it is one that can be written down."""
        name = os.path.relpath(entry.path, self.state)
        target = os.readlink(entry.path) if entry.is_symlink() else ""
        empty = entry.is_dir(follow_symlinks=False) and not any(os.scandir(entry.path))
        if not (target or empty) or not safe_name(name) or not target.isprintable():
            return False
        mode = stat.S_IMODE(entry.stat(follow_symlinks=False).st_mode) & 0o777
        self.others.append(Other(name, mode, target))
        return True

    def add(self, path: Path, name: str) -> None:
        """Add one file."""
        pack = name.startswith("store/") and path.suffix == ".pack" and not path.with_suffix(".damaged").exists()
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                mode = stat.S_IMODE(status.st_mode) & 0o777
                if pack:  # named by its sha256, which is compared when it is written
                    self.sources.append(_Source(Member(name, status.st_size, path.stem, mode), path))
                elif status.st_size <= KEPT and self._held + status.st_size <= KEPT_ALL:
                    content = file.read(KEPT + 1)
                    if content.startswith(LIST.encode() + b"\0"):
                        self.left_out.append(f"{_shown(name)}: another backup")
                        return
                    self._held += len(content)
                    member = Member(name, len(content), hashlib.sha256(content).hexdigest(), mode)
                    self.sources.append(_Source(member, path, content))
                else:
                    if file.peek(len(LIST) + 1).startswith(LIST.encode() + b"\0"):
                        self.left_out.append(f"{_shown(name)}: another backup")
                        return
                    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                    self.sources.append(_Source(Member(name, file.tell(), sha256, mode), path))
        except FileNotFoundError:
            # It was there a moment ago: replaced or removed, and a list that lacks it is as true as one that has it.
            return
        except OSError as error:
            raise GildError(f"{path} cannot be read: {error.strerror}", "look at the head node's disk") from None


def _write(out: IO[bytes], listing: Listing, sources: list[_Source], progress: Progress) -> int:
    encoded = encode(listing)
    seal = f"{hashlib.sha256(encoded).hexdigest()}  {LIST}\n".encode()
    total, done = listing.size, 0

    def put(name: str, data: bytes, mode: int = 0o600) -> int:
        return out.write(header(name, len(data), mode, listing.created) + data + padding(len(data)))

    size = put(LIST, encoded)
    for source in sources:
        member = source.member
        size += out.write(header(member.name, member.size, member.mode, listing.created))
        for piece in (source.content,) if source.content is not None else _pieces(source):
            out.write(piece)
            done += len(piece)
            progress("write", done, total)
        size += member.size + out.write(padding(member.size))
    size += put(SEAL, seal)
    size += out.write(END)
    out.flush()
    return size


def _pieces(source: _Source) -> Iterator[bytes]:
    """The bytes of a file, which must still be those that were listed."""
    digest, left, member = hashlib.sha256(), source.member.size, source.member
    try:
        with source.path.open("rb") as file:
            while left and (piece := file.read(min(left, PIECE))):
                digest.update(piece)
                left -= len(piece)
                yield piece
    except OSError as error:
        raise GildError(f"{source.path} cannot be read: {error.strerror}", "look at the head node's disk") from None
    if left or digest.hexdigest() != member.sha256:
        if source.path.suffix == ".pack":
            raise GildError(f"the pack {member.name} is damaged", "see: gild.pyz image verify, gild.pyz image repair")
        raise GildError(f"{source.path} changed while it was being read", "make the backup again")


def room(folder: Path, needed: int, act: str) -> None:
    """Raises NoSpace if the disk of `folder` has no room for `needed` bytes."""
    free = os.statvfs(folder)
    if needed > free.f_bavail * free.f_frsize:
        raise NoSpace(
            f"{act}: the disk is full: {needed >> 20} MiB are needed, {free.f_bavail * free.f_frsize >> 20} free",
            "free some space, or name another disk",
        )


def _passed_over(name: str, skip: tuple[str, ...]) -> bool:
    return name in (*skip, ".lock") or name.startswith((SCRATCH, ".tmp-")) or name.endswith(".new")


def _shown(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name)[:200]
