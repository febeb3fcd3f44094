"""The database file: made, checked, brought up to date, or refused in one line.

Migrations are append-only: a database records how many it has seen (user_version), and a newer one is refused rather
than guessed at. SQLite opens an empty file as a healthy empty database and notices damage only when it reads the
page (measured), so both are looked for here: nothing is ever silently empty.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from images.errors import GildError, NoSpace

APPLICATION_ID = 0x67696C64  # "gild" (sqlite.org/pragma.html#pragma_application_id)

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE nodes (id INTEGER PRIMARY KEY, name TEXT NOT NULL, state TEXT NOT NULL, address TEXT NOT NULL,
                        body TEXT NOT NULL);
    CREATE TABLE facts (node_id INTEGER PRIMARY KEY, body TEXT NOT NULL);
    CREATE TABLE host_keys (node_id INTEGER PRIMARY KEY, body TEXT NOT NULL);
    CREATE TABLE profiles (name TEXT PRIMARY KEY, body TEXT NOT NULL);
    CREATE TABLE orders (id INTEGER PRIMARY KEY, node_id INTEGER NOT NULL, closed REAL NOT NULL, body TEXT NOT NULL);
    CREATE TABLE leases (mac TEXT PRIMARY KEY, address TEXT NOT NULL, expires REAL NOT NULL);
    CREATE TABLE events (id INTEGER PRIMARY KEY, node_id INTEGER NOT NULL, at REAL NOT NULL, level TEXT NOT NULL,
                         text TEXT NOT NULL);
    CREATE INDEX events_of_node ON events (node_id, id);
    """,
    """
    CREATE TABLE rules (id INTEGER PRIMARY KEY, body TEXT NOT NULL);
    CREATE TABLE networks (name TEXT PRIMARY KEY, body TEXT NOT NULL);
    CREATE TABLE secrets (owner TEXT NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (owner, name));
    CREATE TABLE bmcs (node_id INTEGER PRIMARY KEY, body TEXT NOT NULL);
    CREATE TABLE jobs (id INTEGER PRIMARY KEY, closed REAL NOT NULL, body TEXT NOT NULL);
    CREATE TABLE installs (id INTEGER PRIMARY KEY, node_id INTEGER NOT NULL, at REAL NOT NULL, body TEXT NOT NULL);
    CREATE TABLE audit (id INTEGER PRIMARY KEY, at REAL NOT NULL, who TEXT NOT NULL, act TEXT NOT NULL,
                        detail TEXT NOT NULL);
    """,
)


class DatabaseInvalid(GildError):
    """The database is damaged, foreign, or of a newer version."""


def open_database(path: Path) -> sqlite3.Connection:
    """The database at `path`, checked and up to date, in WAL mode with every commit on the disk (synchronous FULL).
    A new one is made if there is no file. Raises DatabaseInvalid or NoSpace, in one line."""
    try:
        if not path.exists():
            _create(path)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    except (sqlite3.Error, OSError) as error:
        raise trouble(error, f"cannot open the database {path}") from None
    try:
        _check(path, connection)
        _migrate(path, connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    except sqlite3.Error as error:
        connection.close()
        raise trouble(error, f"cannot read the database {path}") from None
    except GildError:
        connection.close()
        raise
    return connection


def trouble(error: Exception, act: str) -> GildError:
    """A failure of SQLite or of the disk under it as an error for people."""
    text = str(error).lower()
    if "full" in text or "no space" in text:
        return NoSpace(f"{act}: the disk is full", "free some space; it goes on by itself")
    if isinstance(error, sqlite3.DatabaseError) and ("malformed" in text or "not a database" in text):
        return DatabaseInvalid(f"{act}: it is damaged ({error})", "put the last backup in its place")
    return DatabaseInvalid(f"{act}: {error}", "is the disk full, read-only or failing?")


def _create(path: Path) -> None:
    # Under another name first: a crash in here leaves no empty file behind that would have to be told from a damaged
    # one. Mode 600 from the start, and SQLite gives the -wal file the mode of the database.
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    os.close(os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(fresh, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        _migrate(path, connection)
    finally:
        connection.close()
    fresh.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _check(path: Path, connection: sqlite3.Connection) -> None:
    backup = "put the last backup in its place, or move the file away to begin anew"
    if path.stat().st_size < 512:
        raise DatabaseInvalid(f"the database {path} is empty or cut short", backup)
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise DatabaseInvalid(f"{path} is not a database of gild", "another program's file? give another --state")
    found = " ".join(str(row[0]) for row in connection.execute("PRAGMA quick_check(3)"))
    if found != "ok":
        raise DatabaseInvalid(f"the database {path} is damaged: {' '.join(found.split())[:200]}", backup)


def _migrate(path: Path, connection: sqlite3.Connection) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise DatabaseInvalid(
            f"the database {path} is of version {version}, this gild knows {len(MIGRATIONS)}", "use the newer gild.pyz"
        )
    for number in range(version, len(MIGRATIONS)):
        # One transaction each, the version number inside it: an interrupted migration is done again from its start.
        connection.executescript(f"BEGIN; {MIGRATIONS[number]}; PRAGMA user_version = {number + 1}; COMMIT;")
