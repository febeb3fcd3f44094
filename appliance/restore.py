"""A backup put in the place of a state directory: all of it, or nothing.

    STATE.restoring      the new state while it is being written and checked, with the file RESTORING in it
    STATE                exchanged with it in one step (renameat2(2), RENAME_EXCHANGE)
    STATE.before-DATE    what STATE was; nothing is ever deleted

Whenever it is killed, STATE is the old one or the new one, and the next restore cleans up beside it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from appliance.backup import PIECE, check_whole, room
from appliance.backup_format import (
    BLOCK,
    END,
    LIST,
    PROFILES,
    SEAL,
    WHAT,
    BackupInvalid,
    Listing,
    Member,
    decode,
    header,
    list_header,
    padding,
)  # fmt: skip
from appliance.errors import Environment
from appliance.paths import Paths
from appliance.rows import event_row, order_row
from appliance.schema import MIGRATIONS, DatabaseInvalid, open_database, trouble
from images.disk import disk_errors, hold
from images.errors import Busy, GildError
from images.options import Progress
from netboot.order import Order
from netboot.wire import WireInvalid
from netboot.wire import decode as decode_row

RESTORING = "restoring.new"  # a name that no backup takes up
EXCHANGE = 2  # RENAME_EXCHANGE, linux/fs.h
AT_FDCWD = -100  # fcntl.h


@dataclass(frozen=True)
class Restored:
    """Where the old state lies now (None: there was none), whether its images were kept, and how many open orders of
    the backup were withdrawn."""

    before: Path | None
    kept_images: bool
    withdrawn: int


class Incoming:
    """A backup as it comes."""

    def __init__(self, stream: IO[bytes]) -> None:
        """Reads the list. Raises BackupInvalid."""
        self._stream = stream
        size, self._mtime = list_header(self._take(BLOCK))
        encoded = self._take(size)
        self._seal = f"{hashlib.sha256(encoded).hexdigest()}  {LIST}\n".encode()
        self._zeros(size)
        self.listing: Listing = decode(encoded, len(MIGRATIONS))

    def read(self, sink: Callable[[Member], IO[bytes]] | None, progress: Progress) -> None:
        """Read all files to the end and check every byte. `sink(member)` gives the open file each is written to; None
        only checks. Raises BackupInvalid, and OSError from writing."""
        done = 0
        for member in self.listing.members:
            if self._take(BLOCK) != header(member.name, member.size, member.mode, self._mtime):
                raise BackupInvalid(f"this backup is damaged before {member.name}", WHAT)
            with sink(member) if sink else contextlib.nullcontext() as out:
                digest, left = hashlib.sha256(), member.size
                while left:
                    piece = self._take(min(left, PIECE))
                    digest.update(piece)
                    left -= len(piece)
                    done += len(piece)
                    if out is not None:
                        out.write(piece)
                    progress("read", done, self.listing.size)
            if digest.hexdigest() != member.sha256:
                raise BackupInvalid(f"{member.name} in this backup is damaged", WHAT)
            self._zeros(member.size)
        expected = header(SEAL, len(self._seal), 0o600, self._mtime) + self._seal + padding(len(self._seal)) + END
        if self._take(len(expected)) != expected or self._stream.read(1):
            raise BackupInvalid("this backup does not end as it should", WHAT)

    def _take(self, length: int) -> bytes:
        pieces, left = [], length
        while left:
            try:
                piece = self._stream.read(min(left, PIECE))
            except OSError as error:
                raise BackupInvalid(f"the backup cannot be read: {error.strerror}", WHAT) from None
            if not piece:
                raise BackupInvalid("this backup is cut short", WHAT)
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def _zeros(self, size: int) -> None:
        if self._take(-size % BLOCK) != padding(size):
            raise BackupInvalid("this backup is damaged between two files", WHAT)


def occupied(paths: Paths) -> bool:
    """Whether there is anything in the state directory that a restore would have to move aside."""
    with disk_errors(f"looking at {paths.state}"):
        return paths.state.is_dir() and any(entry.name != paths.lock.name for entry in paths.state.iterdir())


def restore(paths: Paths, incoming: Incoming, progress: Progress) -> Restored:
    """Put a backup in the place of the state directory. Open orders in it are withdrawn: what they allowed may have
    been done since, and nothing is erased twice. A backup without images keeps those that are here.
    Raises Busy while a head serves from there or images are worked on, BackupInvalid, DatabaseInvalid, NoSpace,
    Environment; whatever is raised, the state is as it was."""
    state = Path(os.path.realpath(paths.state))
    if os.path.ismount(state):
        raise Environment(
            f"{state} is a mount point, which cannot be exchanged",
            f"restore below it, then mount that: gild.pyz --state {state}/new restore FILE",
        )
    fresh = state.with_name(state.name + ".restoring")
    with contextlib.ExitStack() as held, disk_errors(f"restoring {state}"):
        state.parent.mkdir(parents=True, exist_ok=True)
        _locked(held, paths)
        clean_up(state)
        room(state.parent, incoming.listing.size, f"restoring {state}")
        with _beside(fresh) as place:
            incoming.read(_writer(place), progress)
            _make_others(place, incoming.listing)
            progress("check", 0, 0)
            withdrawn = _database(place / paths.database.name, incoming.listing) if incoming.listing.schema else 0
            kept = not incoming.listing.images and _keep_images(paths.images, place / paths.images.name)
            os.sync()
            before = _exchange(state, place)
    return Restored(before, kept, withdrawn)


def clean_up(state: Path) -> None:
    """Finish what a killed restore left beside `state`: a state that was not complete goes, one that was exchanged
    gets its name. Raises Busy while another restore runs."""
    left = state.with_name(state.name + ".restoring")
    if not left.is_dir():
        (state / RESTORING).unlink(missing_ok=True)
        return
    if (left / RESTORING).exists():
        with hold(left / RESTORING, exclusive=True, what="a restore of this state directory"):
            shutil.rmtree(left)
    elif any(left.iterdir()):
        left.rename(_name_for(state))
    else:
        left.rmdir()
    (state / RESTORING).unlink(missing_ok=True)


def _locked(held: contextlib.ExitStack, paths: Paths) -> None:
    try:
        if paths.state.is_dir():
            held.enter_context(hold(paths.lock, exclusive=True, what=f"the state directory {paths.state}"))
        if paths.images.is_dir():
            held.enter_context(hold(paths.images / ".lock", exclusive=True, what="the image store"))
    except Busy as error:
        raise Busy(error.message, "stop it first, and start it again afterwards") from None


@contextmanager
def _beside(place: Path) -> Iterator[Path]:
    """The directory that becomes the state; gone afterwards unless it did."""
    place.mkdir(mode=0o700)
    try:
        with hold(place / RESTORING, exclusive=True, what="a restore of this state directory"):
            yield place
    finally:
        if (place / RESTORING).exists():
            shutil.rmtree(place, ignore_errors=True)


def _writer(place: Path) -> Callable[[Member], IO[bytes]]:
    def sink(member: Member) -> IO[bytes]:
        path = place / member.name
        path.parent.mkdir(parents=True, exist_ok=True)
        # Nothing becomes set-user-id, and group and others never get to write (but a profile's file has the mode it
        # shall have on nodes), whatever the backup says.
        kept = 0o777 if member.name.startswith(PROFILES) else 0o755
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        os.fchmod(fd, member.mode & kept)
        return os.fdopen(fd, "wb")

    return sink


def _make_others(place: Path, listing: Listing) -> None:
    """Links and empty folders of profiles, when all files are written: none of them lies behind a link."""
    for other in listing.others:
        path = place / other.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if other.target:
            path.symlink_to(other.target)
        else:
            path.mkdir()
            path.chmod(other.mode)


def _database(path: Path, listing: Listing) -> int:
    """Check the database, bring it up to date and withdraw its open orders; gives how many there were."""
    try:
        with contextlib.closing(open_database(path)) as connection:
            check_whole(connection, "the database")
            withdrawn = _withdraw(connection, listing.created)
            connection.execute("PRAGMA journal_mode = DELETE")  # into one file, without -wal beside it
            return withdrawn
    except sqlite3.Error as error:
        raise trouble(error, "checking the database of this backup") from None
    except DatabaseInvalid as error:
        raise BackupInvalid(f"in this backup {error.message}", "restore another one") from None


def _withdraw(connection: sqlite3.Connection, created: int) -> int:
    """Nobody may take these orders up any more. The head closes them at its first tick and says so."""
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(created))
    last = connection.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()[0]
    rows = connection.execute("SELECT body FROM orders WHERE closed = 0 ORDER BY id").fetchall()
    connection.execute("BEGIN")
    for number, (body,) in enumerate(rows, last + 1):
        try:
            order = decode_row(Order, body.encode())
        except WireInvalid as error:
            raise DatabaseInvalid(f"the database holds an order that cannot be read: {error.message}") from None
        text = f"restored from the backup of {made}: its order of {order.image} is withdrawn"
        connection.execute(*order_row(replace(order, expires=0.0, tokens=())))
        connection.execute(*event_row(number, order.node_id, time.time(), "warn", text))
    connection.execute("COMMIT")
    return len(rows)


def _keep_images(old: Path, new: Path) -> bool:
    """The image store as it is, also in the new state: packs, which never change, as second links to the same bytes."""
    if old.is_symlink():
        new.symlink_to(os.path.realpath(old))
        return True
    if not old.is_dir() or not any(old.iterdir()):
        return False

    def copy(source: str, target: str) -> None:
        if source.endswith((".pack", ".idx")):
            os.link(source, target)
        else:
            shutil.copy2(source, target)

    try:
        # Working images are left behind: they are written in place, and made again from packs.
        shutil.copytree(old, new, copy_function=copy, ignore=shutil.ignore_patterns("work", ".lock", ".tmp-*"))
    except (OSError, shutil.Error) as error:
        if (isinstance(error, OSError) and error.errno == errno.EXDEV) or os.path.ismount(old):
            raise Environment(
                f"{old} is on another disk than {old.parent}", "unmount it for the restore, and mount it again then"
            ) from None
        if isinstance(error, shutil.Error):
            raise GildError(f"keeping the images of {old}: {str(error.args[0])[:200]}") from None
        raise
    return True


def _exchange(state: Path, place: Path) -> Path | None:
    """`place` becomes the state; gives where the old one is now, if it held anything."""
    os.chmod(place, 0o755)
    for folder in (place / "keys", *(place / "keys").glob("**/")):
        if folder.is_dir():
            os.chmod(folder, 0o700)
    if not state.exists():
        place.rename(state)
        before = None
    else:
        _swap(state, place)
        before = _name_for(state)
        if any(entry.name != "lock" for entry in place.iterdir()):
            place.rename(before)
        else:
            shutil.rmtree(place)
            before = None
    (state / RESTORING).unlink()
    parent = os.open(state.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)
    return before


def _swap(state: Path, place: Path) -> None:
    """Exchange two directories: in one step where the file system can, which all but network ones do."""
    libc = ctypes.CDLL(None, use_errno=True)
    names = (ctypes.c_char_p(os.fsencode(state)), ctypes.c_char_p(os.fsencode(place)))
    if libc.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], ctypes.c_uint(EXCHANGE)) == 0:
        return
    number = ctypes.get_errno()
    if number not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(number, os.strerror(number))
    aside = _name_for(state)
    state.rename(aside)
    try:
        place.rename(state)
    except OSError:
        aside.rename(state)
        raise
    aside.rename(place)


def _name_for(state: Path) -> Path:
    """STATE.before-DATE, one that is not taken."""
    name = f"{state.name}.before-{time.strftime('%Y%m%d-%H%M%S')}"
    names = (state.with_name(name + more) for more in ("", *(f"-{number}" for number in range(2, 1000))))
    return next(path for path in names if not path.exists())
