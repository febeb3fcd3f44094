"""A backup and back: the same bytes, one moment of the database, and nothing of it on a disk that is full."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import sqlite3
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.backup import backup, scratch_below
from appliance.backup_format import Listing
from appliance.errors import Unknown
from appliance.paths import Paths
from appliance.restore import Incoming
from appliance.schema import MIGRATIONS, DatabaseInvalid, open_database
from images.errors import Busy, GildError, NoSpace
from images.keeping.garbage import collect
from images.store import Store


def nothing(phase: str, done: int, total: int) -> None:
    """Progress nobody looks at."""


def make(paths: Paths, images: bool = False) -> tuple[bytes, Listing, tuple[str, ...]]:
    """A backup, its list, and what was left out."""
    out = io.BytesIO()
    with scratch_below(paths.state) as scratch:
        made = backup(paths, out, scratch, images=images, progress=nothing)
    assert made.size == len(out.getvalue())
    return out.getvalue(), made.listing, made.left_out


def database_of(data: bytes, path: Path) -> Path:
    """The database in a backup, written to `path`."""
    Incoming(io.BytesIO(data)).read(lambda m: path.open("wb") if m.name == "gild.db" else io.BytesIO(), nothing)
    return path


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """A state directory with a little of everything."""
    return fill(Paths(tmp_path / "state"))


def fill(paths: Paths, mark: str = "here") -> Paths:
    paths.state.mkdir()
    open_database(paths.database).close()
    with contextlib.closing(sqlite3.connect(paths.database, isolation_level=None)) as connection:
        connection.execute("INSERT INTO profiles (name, body) VALUES (?, '{}')", (mark,))
    paths.trusted.mkdir(parents=True, mode=0o700)
    for path, mode, content in (
        (paths.settings, 0o644, b'interface = "lo"\n'),
        (paths.keys / "head.key", 0o600, mark.encode()),
        (paths.trusted / "other.pub", 0o644, b"ssh-ed25519 AAAA other\n"),
        (paths.boot / "tools" / "memtest.efi", 0o755, random.Random(1).randbytes(3_000_001)),
        (paths.sets / "site.toml", 0o644, b"packages = []\n"),
        (paths.state / "hooks" / "up" / "10-tell", 0o755, b"#!/bin/sh\n"),
        (paths.state / "lock", 0o600, b"1\n"),
        (paths.state / "boot" / ("long-" * 30) / "x", 0o644, b"x"),
        (paths.state / "boot" / "half.new", 0o644, b"half"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(mode)
    return paths


def add_images(paths: Paths) -> str:
    """A store with one pack; gives the pack's name."""
    store = Store(paths.images)
    pack = random.Random(2).randbytes(5_000_000)
    name = hashlib.sha256(pack).hexdigest()
    for path, content in (
        (store.packs / f"{name}.pack", pack), (store.packs / f"{name}.idx", b"index"),
        (store.packs / ".tmp-half", b"half"), (store.root / "tags" / "compute", b"1\n"),
        (store.root / "images" / "compute" / "1.json", b"{}"),
        (store.root / "images" / "compute" / "tags", b"1 1 to\n"),
        (store.root / "images" / "compute" / ".lock", b""), (store.root / "work" / "compute" / "disk", b"work"),
    ):  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return name


def test_everything_is_in_it_that_cannot_be_made_again(paths: Paths) -> None:
    (paths.boot / "link").symlink_to("/etc/passwd")
    os.mkfifo(paths.boot / "pipe")
    data, listing, left_out = make(paths)
    names = {member.name: member.mode for member in listing.members}
    assert names == {
        "gild.db": 0o600, "gild.toml": 0o644, "keys/head.key": 0o600, "keys/trusted/other.pub": 0o644,
        "boot/tools/memtest.efi": 0o755, "sets/site.toml": 0o644, "hooks/up/10-tell": 0o755,
        f"boot/{'long-' * 30}/x": 0o644,
    }  # fmt: skip
    assert left_out == ("boot/link: a link", "boot/pipe: not a file")
    assert listing.schema == len(MIGRATIONS) and not listing.images and b"head.key" in data
    assert [path.name for path in paths.state.iterdir() if "backup" in path.name] == []


def test_images_are_stored_as_they_are(paths: Paths) -> None:
    pack = add_images(paths)
    data, listing, _ = make(paths, images=True)
    store = [member.name for member in listing.members if member.name.startswith("store/")]
    assert store == [
        "store/images/compute/1.json", "store/images/compute/tags", "store/tags/compute",
        f"store/packs/{pack}.idx", f"store/packs/{pack}.pack",
    ]  # fmt: skip
    assert listing.images and (paths.images / "packs" / f"{pack}.pack").read_bytes() in data


def test_tar_reads_it(paths: Paths, tmp_path: Path) -> None:
    data, listing, _ = make(paths)
    (tmp_path / "b.tar").write_bytes(data)
    with tarfile.open(tmp_path / "b.tar") as archive:
        infos = archive.getmembers()
        assert [info.name for info in infos] == ["backup.json", *(m.name for m in listing.members), "backup.sha256"]
        assert all(info.isreg() and info.uid == 0 for info in infos)
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-xf", tmp_path / "b.tar", "-C", tmp_path / "out"], check=True, timeout=60)
    subprocess.run(["sha256sum", "--quiet", "-c", "backup.sha256"], cwd=tmp_path / "out", check=True, timeout=60)
    body = json.loads((tmp_path / "out" / "backup.json").read_text())
    assert body["format"] == "gild backup"
    for row in body["members"]:
        assert hashlib.sha256((tmp_path / "out" / row["name"]).read_bytes()).hexdigest() == row["sha256"]


def test_a_backup_that_lies_in_the_state_is_not_taken_into_the_next(paths: Paths) -> None:
    data, _, _ = make(paths)
    (paths.state / "first.tar").write_bytes(data)  # more than is held in memory
    _, listing, left_out = make(paths)
    assert left_out == ("first.tar: another backup",) and not any("tar" in m.name for m in listing.members)


def test_the_database_is_of_one_moment_while_it_is_written(paths: Paths, tmp_path: Path) -> None:
    """A writer that adds a row and its twin in one transaction, all the time: no copy holds one without the other."""
    stop = threading.Event()

    def write() -> None:
        with contextlib.closing(sqlite3.connect(paths.database, isolation_level=None, timeout=30)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            number = 0
            while not stop.is_set():
                number += 1
                connection.execute("BEGIN IMMEDIATE")
                for half in ("a", "b"):
                    connection.execute("INSERT INTO profiles VALUES (?, ?)", (f"{half}{number:09}", "x" * 3000))
                connection.execute("COMMIT")

    with contextlib.closing(open_database(paths.database)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint = 50")
        for number in range(3000):
            connection.execute("INSERT INTO profiles VALUES (?, ?)", (f"old{number}", "y" * 3000))
        writer = threading.Thread(target=write)
        writer.start()
        try:
            for _ in range(3):
                rows = connection.execute("SELECT count(*) FROM profiles").fetchone()[0]
                with contextlib.closing(sqlite3.connect(database_of(make(paths)[0], tmp_path / "copy"))) as copy:
                    a, b, all_ = (
                        copy.execute(f"SELECT count(*) FROM profiles WHERE name LIKE '{like}'").fetchone()[0]
                        for like in ("a0%", "b0%", "%")
                    )
                assert a == b and all_ >= rows
        finally:
            stop.set()
            writer.join(30)
        assert connection.execute("SELECT count(*) FROM profiles").fetchone()[0] > all_


def test_what_was_written_before_a_crash_is_in_it(paths: Paths, tmp_path: Path) -> None:
    """The -wal file of a process that was killed belongs to the database."""
    program = (
        "import sqlite3, os, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute(\"INSERT INTO profiles VALUES ('last', 'x')\"); os.kill(os.getpid(), 9)"
    )
    subprocess.run(["python3", "-c", program, paths.database], check=False, timeout=60)
    assert paths.database.with_name("gild.db-wal").stat().st_size
    data, _, _ = make(paths)
    with contextlib.closing(sqlite3.connect(database_of(data, tmp_path / "copy"))) as copy:
        assert copy.execute("SELECT count(*) FROM profiles WHERE name = 'last'").fetchone() == (1,)


def test_a_damaged_database_is_not_backed_up(paths: Paths) -> None:
    with contextlib.closing(sqlite3.connect(paths.database, isolation_level=None)) as connection:
        for number in range(500):
            connection.execute("INSERT INTO profiles VALUES (?, ?)", (f"p{number}", "x" * 1000))
        connection.execute("PRAGMA journal_mode = DELETE")
    with paths.database.open("r+b") as file:
        file.seek(4096 * 20)
        file.write(b"\xff" * 4096 * 5)
    with pytest.raises(DatabaseInvalid, match="damaged"):
        make(paths)


def test_a_damaged_pack_is_named(paths: Paths) -> None:
    pack = paths.images / "packs" / f"{add_images(paths)}.pack"
    content = bytearray(pack.read_bytes())
    content[4_000_000] ^= 1
    pack.write_bytes(content)
    with pytest.raises(GildError, match=f"pack store/packs/{pack.name} is damaged"):
        make(paths, images=True)
    pack.with_suffix(".damaged").write_bytes(b"")  # known: it is kept as it is
    assert make(paths, images=True)[1].images


def test_a_file_that_changes_meanwhile_ends_it(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    big = paths.boot / "tools" / "memtest.efi"

    def progress(phase: str, done: int, total: int) -> None:
        if phase == "write" and big.stat().st_size > 3_000_000:
            big.write_bytes(b"other")

    with scratch_below(paths.state) as scratch, pytest.raises(GildError, match="changed while it was being read"):
        backup(paths, io.BytesIO(), scratch, images=False, progress=progress)


def test_nothing_to_back_up(tmp_path: Path) -> None:
    for state in (tmp_path / "none", tmp_path):
        with pytest.raises(Unknown):
            backup(Paths(state), io.BytesIO(), tmp_path, images=False, progress=nothing)


def test_garbage_is_not_collected_meanwhile(paths: Paths) -> None:
    add_images(paths)
    tried: list[object] = []

    def progress(phase: str, done: int, total: int) -> None:
        if phase == "write" and not tried:
            with pytest.raises(Busy) as refused:
                collect(Store(paths.images))
            tried.append(refused)

    with scratch_below(paths.state) as scratch:
        backup(paths, io.BytesIO(), scratch, images=True, progress=progress)
    assert tried


def test_a_scratch_directory_of_a_killed_backup_goes(tmp_path: Path) -> None:
    left = tmp_path / ".gild-backup-killed"
    left.mkdir()
    (left / "backup").write_bytes(b"half")
    with scratch_below(tmp_path) as mine, scratch_below(tmp_path) as other:
        assert not left.exists() and mine.exists() and other.exists()
        assert mine.stat().st_mode & 0o777 == 0o700
    assert not list(tmp_path.iterdir())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=True, timeout=30)
    yield disk
    subprocess.run(["umount", disk], check=True, timeout=30)


@pytest.mark.root
def test_a_full_disk_is_one_line_and_keeps_nothing(paths: Paths, small_disk: Path) -> None:
    with pytest.raises(NoSpace, match="disk is full"), scratch_below(small_disk) as scratch:
        backup(paths, (scratch / "backup").open("wb"), scratch, images=False, progress=nothing)
    assert not list(small_disk.iterdir())


def add_profile(paths: Paths) -> None:
    """Files of a profile, with everything a tree can have."""
    tree = paths.profiles / "compute" / "overlay"
    for name, mode in (("etc/motd", 0o664), ("etc/x.new", 0o600), (".lock", 0o644), ("a.pack", 0o644)):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(name.encode())
        (tree / name).chmod(mode)
    (tree / "etc/wants").symlink_to("/usr/lib/systemd/system/x.service")
    (tree / "etc/folder").symlink_to("..")
    (tree / "var/spool/empty").mkdir(parents=True)
    (tree / "var/spool/empty").chmod(0o700)


def test_the_files_of_profiles_are_in_it_as_they_are(paths: Paths) -> None:
    before = make(paths)[0]
    assert json.loads(before[512:].split(b"\0")[0])["version"] == 1  # an older gild reads it
    add_profile(paths)
    data, listing, left_out = make(paths)
    names = {member.name: member.mode for member in listing.members if member.name.startswith("profiles/")}
    at = "profiles/compute/overlay"
    assert names == {f"{at}/.lock": 0o644, f"{at}/a.pack": 0o644, f"{at}/etc/motd": 0o664, f"{at}/etc/x.new": 0o600}
    others = {other.name.removeprefix(f"{at}/"): (other.target, other.mode) for other in listing.others}
    assert others == {
        "etc/wants": ("/usr/lib/systemd/system/x.service", 0o777), "etc/folder": ("..", 0o777),
        "var/spool/empty": ("", 0o700),
    }  # fmt: skip
    assert not left_out and json.loads(data[512:].split(b"\0")[0])["version"] == 2
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert all(member.isreg() for member in archive)
