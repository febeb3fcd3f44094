from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest

from appliance import schema
from appliance.schema import MIGRATIONS, DatabaseInvalid, open_database, trouble
from images.errors import NoSpace


def made(path: Path) -> Path:
    database = path / "gild.db"
    connection = open_database(database)
    connection.execute("INSERT INTO profiles VALUES ('p', '{}')")
    connection.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION SELECT i + 1 FROM n WHERE i < 3000)"
                       " INSERT INTO events SELECT i, 1, 0, 'info', 'a line of the timeline' FROM n")  # fmt: skip
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return database


def test_a_new_database_is_private_safe_and_current(tmp_path: Path) -> None:
    connection = open_database(tmp_path / "gild.db")
    assert connection.execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS)
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2
    connection.execute("INSERT INTO profiles VALUES ('p', '{}')")
    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    connection.close()


def test_what_was_written_is_found_again(tmp_path: Path) -> None:
    connection = open_database(made(tmp_path))
    assert connection.execute("SELECT name FROM profiles").fetchall() == [("p",)]
    connection.close()


def test_a_crash_while_it_is_made_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "gild.db.new").write_bytes(b"half a file")
    open_database(tmp_path / "gild.db").close()


def test_a_newer_database_is_refused_in_one_line(tmp_path: Path) -> None:
    database = made(tmp_path)
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(DatabaseInvalid, match="version 99") as refused:
        open_database(database)
    assert "\n" not in str(refused.value) and "newer gild.pyz" in refused.value.hint


def test_an_interrupted_migration_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = made(tmp_path)
    broken = "CREATE TABLE extra (id INTEGER); CREATE TABLE profiles (again TEXT)"
    monkeypatch.setattr(schema, "MIGRATIONS", (*MIGRATIONS, broken))
    with pytest.raises(DatabaseInvalid):
        open_database(database)
    monkeypatch.setattr(schema, "MIGRATIONS", (*MIGRATIONS, "CREATE TABLE extra (id INTEGER)"))
    connection = open_database(database)
    assert connection.execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS) + 1
    assert connection.execute("SELECT count(*) FROM extra").fetchone()[0] == 0
    assert connection.execute("SELECT count(*) FROM events").fetchone()[0] == 3000
    connection.close()


def damage(data: bytes, kind: str) -> bytes:
    page = 4096
    return {
        "nothing left": b"",
        "one byte": b"\0",
        "cut in the header": data[:300],
        "cut in the middle": data[: len(data) // 2],
        "cut by a page": data[:-page],
        "another file": b"PK\x03\x04" + data[4:],
        "zeroes": bytes(len(data)),
        "a page of zeroes": data[: 5 * page] + bytes(page) + data[6 * page :],
        "a page of noise": data[: 5 * page] + b"\xa5" * page + data[6 * page :],
        "schema overwritten": data[:100] + b"\xff" * 400 + data[500:],
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "nothing left", "one byte", "cut in the header", "cut in the middle", "cut by a page", "another file", "zeroes",
        "a page of zeroes", "a page of noise", "schema overwritten",
    ],
)  # fmt: skip
def test_a_damaged_database_is_refused_and_never_silently_empty(tmp_path: Path, kind: str) -> None:
    database = made(tmp_path)
    database.write_bytes(damage(database.read_bytes(), kind))
    with pytest.raises(DatabaseInvalid) as refused:
        open_database(database)
    assert str(database) in refused.value.message and "\n" not in str(refused.value) and refused.value.hint


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "gild.db")
    connection.execute("CREATE TABLE cookies (id INTEGER)")
    connection.commit()
    connection.close()
    with pytest.raises(DatabaseInvalid, match="not a database of gild"):
        open_database(tmp_path / "gild.db")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DatabaseInvalid, match="cannot open"):
        open_database(tmp_path / "no" / "gild.db")


def test_a_full_disk_has_its_own_error() -> None:
    assert isinstance(trouble(sqlite3.OperationalError("database or disk is full"), "x"), NoSpace)
    assert isinstance(trouble(OSError(28, "No space left on device"), "x"), NoSpace)
    assert isinstance(trouble(sqlite3.OperationalError("disk I/O error"), "x"), DatabaseInvalid)
