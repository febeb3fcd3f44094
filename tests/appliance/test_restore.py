"""All of a backup, or the state as it was: hostile files, full disks, orders, and a kill at any moment."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import io
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from appliance import restore as module
from appliance.backup_format import (
    END,
    LIST,
    MAX_LIST,
    SEAL,
    BackupInvalid,
    Listing,
    Member,
    Other,
    encode,
    header,
    padding,
)  # fmt: skip
from appliance.errors import Environment
from appliance.paths import Paths
from appliance.restore import Incoming, clean_up, occupied, restore
from appliance.schema import MIGRATIONS, open_database
from images.disk import hold
from images.errors import Busy, GildError, NoSpace
from netboot.node import State
from tests.appliance.rack import Rack, token_in
from tests.appliance.test_backup import add_images, add_profile, fill, make, nothing


def snapshot(folder: Path) -> dict[str, tuple[int, str]]:
    """Mode and content of every file, but for what a process holds."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mode & 0o777, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("lock", ".lock", "gild.db-wal", "gild.db-shm")
    }


def put(paths: Paths, data: bytes) -> module.Restored:
    return restore(paths, Incoming(io.BytesIO(data)), nothing)


@pytest.fixture
def old(tmp_path: Path) -> Paths:
    """The state a backup is made of."""
    return fill(Paths(tmp_path / "old"), "old")


@pytest.fixture
def here(tmp_path: Path) -> Paths:
    """The state it is restored over."""
    return fill(Paths(tmp_path / "here"), "here")


def marks(paths: Paths) -> list[str]:
    with contextlib.closing(sqlite3.connect(paths.database)) as connection:
        return [row[0] for row in connection.execute("SELECT name FROM profiles")]


def test_into_nothing(old: Paths, tmp_path: Path) -> None:
    data, _, _ = make(old)
    new = Paths(tmp_path / "deep" / "new")
    assert not occupied(new)
    done = put(new, data)
    assert (done.before, done.kept_images, done.withdrawn) == (None, False, 0)
    expected = {name: what for name, what in snapshot(old.state).items() if not name.endswith((".new", ".db"))}
    assert {name: what for name, what in snapshot(new.state).items() if not name.endswith(".db")} == expected
    assert marks(new) == ["old"] and new.keys.stat().st_mode & 0o777 == 0o700 == new.trusted.stat().st_mode & 0o777
    assert new.state.stat().st_mode & 0o777 == 0o755 and list(new.state.parent.iterdir()) == [new.state]
    assert make(new)[1].members[1:] == make(old)[1].members[1:]  # and the same again, but for the database's header


def test_an_empty_directory_is_as_good_as_none(old: Paths, tmp_path: Path) -> None:
    new = Paths(tmp_path / "new")
    new.state.mkdir()
    assert put(new, make(old)[0]).before is None
    assert marks(new) == ["old"] and not list(tmp_path.glob("new.*"))


def test_what_was_there_is_moved_aside(old: Paths, here: Paths) -> None:
    before = snapshot(here.state)
    done = put(here, make(old)[0])
    assert done.before is not None and snapshot(done.before) == before and marks(here) == ["old"]
    again = put(here, make(old)[0])
    assert again.before is not None and again.before != done.before
    assert sorted(here.state.parent.glob("here*")) == sorted([here.state, done.before, again.before])


def test_images_that_are_there_stay(old: Paths, here: Paths) -> None:
    pack = add_images(here)
    done = put(here, make(old)[0])
    assert done.kept_images and done.before is not None
    new, aside = (folder / "store" / "packs" / f"{pack}.pack" for folder in (here.state, done.before))
    assert new.samefile(aside)  # the same bytes, once
    tags = here.images / "images" / "compute" / "tags"  # appended to in place: a file of its own
    assert tags.read_bytes() == b"1 1 to\n" and tags.stat().st_nlink == 1
    assert not (here.images / "work").exists() and not list(here.images.glob("packs/.tmp*"))


def test_images_on_a_disk_of_their_own_stay_there(old: Paths, here: Paths, tmp_path: Path) -> None:
    add_images(here)
    here.images.rename(tmp_path / "disk")
    here.images.symlink_to(tmp_path / "disk")
    assert put(here, make(old)[0]).kept_images
    assert here.images.resolve() == tmp_path / "disk" and (here.images / "tags" / "compute").exists()


def test_images_of_the_backup_replace_those_that_are_there(old: Paths, here: Paths) -> None:
    pack = add_images(old)
    (here.images / "packs").mkdir(parents=True)
    data, _, _ = make(old, images=True)
    done = put(here, data)
    restored = (here.images / "packs" / f"{pack}.pack").read_bytes()
    assert not done.kept_images and hashlib.sha256(restored).hexdigest() == pack


def test_orders_of_the_backup_are_withdrawn(tmp_path: Path) -> None:
    """A node that was ordered before the backup and installed after it is not erased a second time."""
    state = tmp_path / "state"
    state.mkdir()
    rack = Rack(state)
    rack.approved(1)
    rack.approved(2)
    rack.head.install(["node01", "node02"])
    running = rack.machine(2)
    running.boot()
    running.hello(token_in(running.script()))
    running.plan()
    rack.head.roster.save()
    rack.store.flush()
    data, _, _ = make(Paths(state))
    rack.stop()
    done = put(Paths(state), data)
    assert done.withdrawn == 2 and done.before is not None
    rack.start()
    assert "gild.token=" not in rack.machine(1).script() and "gild.token=" not in rack.machine(2).script()
    rack.tick()
    assert rack.state_of("node01") == State.READY
    assert "is withdrawn" in rack.timeline("node01") and "is withdrawn" in rack.timeline("node02")
    rack.stop()


def test_a_state_in_use_is_left_alone(old: Paths, here: Paths) -> None:
    data, before = make(old)[0], snapshot(here.state)
    add_images(here)
    for lock in (here.lock, here.images / ".lock"):
        with hold(lock, exclusive=False, what="it"), pytest.raises(Busy) as refused:
            put(here, data)
        assert f"process {os.getpid()}" in refused.value.message and "stop it" in refused.value.hint
    assert {k: v for k, v in snapshot(here.state).items() if not k.startswith("store/")} == before
    assert sorted(path.name for path in here.state.parent.iterdir()) == ["here", "old"]


# --- files that are not what they should be


def forge(listing: Listing, contents: dict[str, bytes] | None = None, body: bytes | None = None) -> bytes:
    """A backup whose list and seal agree, whatever it says."""
    encoded = encode(listing) if body is None else body
    files = [(member.name, (contents or {}).get(member.name, b""), member.mode) for member in listing.members]
    seal = f"{hashlib.sha256(encoded).hexdigest()}  {LIST}\n".encode()
    blocks = (
        header(name, len(data), mode, listing.created) + data + padding(len(data))
        for name, data, mode in [(LIST, encoded, 0o600), *files, (SEAL, seal, 0o600)]
    )
    return b"".join(blocks) + END


def member(name: str, data: bytes = b"", **more: Any) -> Member:
    return replace(Member(name, len(data), hashlib.sha256(data).hexdigest(), 0o600), **more)


def listing(*members: Member, **more: Any) -> Listing:
    return replace(Listing("0.1.0", 1_700_000_000, "head", 0, False, members), **more)


def refused(here: Paths, data: bytes) -> GildError:
    """The one line; nothing has changed."""
    before = snapshot(here.state)
    with pytest.raises(GildError) as error:
        put(here, data)
    assert snapshot(here.state) == before
    assert [path.name for path in here.state.parent.glob("here*")] == ["here"]
    assert "\n" not in str(error.value) and str(error.value).isprintable()
    return error.value


def test_a_forged_one_that_is_in_order_is_taken(here: Paths) -> None:
    """What the others are compared with."""
    put(here, forge(listing(member("gild.toml", b"log = 1")), {"gild.toml": b"log = 1"}))
    assert here.settings.read_bytes() == b"log = 1"


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/passwd", "a/../../x", "a//b", "./a", "a/.", "", "..", "a/\n", "a\0b", "x" * 256, "a\x1b[2J",
     "backup.json", "y/" * 200 + "z", "\ud800", "boot/" + "x" * 101],
)  # fmt: skip
def test_names_that_lead_elsewhere(here: Paths, name: str) -> None:
    body = {**asdict(listing(member("x"))), "format": "gild backup", "version": 1}
    body["members"] = [{**asdict(member("x")), "name": name}]
    assert "may not be in one" in refused(here, forge(listing(member("x")), body=json.dumps(body).encode())).message


@pytest.mark.parametrize("names", [("a", "a"), ("a", "a/b"), ("a/b/c", "a/b"), ("restoring.new",), ("lock", "lock/x")])
def test_names_in_each_others_way(here: Paths, names: tuple[str, ...]) -> None:
    refused(here, forge(listing(*map(member, names))))


@pytest.mark.parametrize(
    "change",
    [{"size": -1}, {"size": 1 << 60}, {"size": True}, {"size": "1"}, {"mode": 0o4755}, {"sha256": "x"}, {"name": None},
     {"size": 1e3}],
)  # fmt: skip
def test_impossible_members(here: Paths, change: dict[str, Any]) -> None:
    body = {**asdict(listing()), "format": "gild backup", "version": 1, "members": [{**asdict(member("x")), **change}]}
    error = refused(here, forge(listing(member("x")), body=json.dumps(body).encode()))
    assert isinstance(error, BackupInvalid)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"{}", b'"x"', b"[" * 100_000, b"\xff", b'{"format": "gild backup"}',
     b'{"format": "gild backup", "version": 1}', b'{"format": "gild backup", "version": 1, "members": 3}'],
)  # fmt: skip
def test_lists_that_are_none(here: Paths, body: bytes) -> None:
    assert isinstance(refused(here, forge(listing(), body=body)), BackupInvalid)


AT = "profiles/c/overlay"


def test_the_files_of_profiles_come_back_as_they_were(old: Paths, tmp_path: Path) -> None:
    add_profile(old)
    new = Paths(tmp_path / "new")
    put(new, make(old)[0])
    for path in sorted(old.profiles.rglob("*")):
        there = new.profiles / path.relative_to(old.profiles)
        assert there.is_symlink() == path.is_symlink() and there.lstat().st_mode == path.lstat().st_mode, path
        if path.is_symlink():
            assert os.readlink(there) == os.readlink(path)
        elif path.is_file():
            assert there.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "others",
    [
        [Other(f"{AT}/etc", target="/etc")],  # a file of the backup would lie behind it
        [Other(f"{AT}/etc/motd", target="x")], [Other(f"{AT}/etc/motd/x")], [Other(f"{AT}/a"), Other(f"{AT}/a")],
        [Other(f"{AT}/a", target="/etc"), Other(f"{AT}/a/b")], [Other("keys", target="/etc")], [Other("boot/x")],
        [Other("profiles/../keys/x", target="y")], [Other(f"{AT}/a", target="a\nb")], [Other(f"{AT}/a", 0o4755)],
        [Other(f"{AT}/a", target="x" * 5000)], [Other(f"/{AT}/a")],
    ],
)  # fmt: skip
def test_links_and_folders_that_would_lead_elsewhere(here: Paths, others: list[Other]) -> None:
    found = replace(listing(member(f"{AT}/etc/motd", b"x")), others=tuple(others))
    assert isinstance(refused(here, forge(found, {f"{AT}/etc/motd": b"x"})), BackupInvalid)


@pytest.mark.parametrize("others", [5, "x", [5], [{}], [{"name": f"{AT}/x", "mode": 0o700}], {"a": 1}, None])
def test_others_that_are_none(here: Paths, others: Any) -> None:
    body = {**asdict(listing()), "format": "gild backup", "version": 2, "others": others}
    assert isinstance(refused(here, forge(listing(), body=json.dumps(body).encode())), BackupInvalid)


def test_of_a_newer_gild(here: Paths) -> None:
    error = refused(here, forge(listing(member("gild.db"), gild="7.3", schema=len(MIGRATIONS) + 1)))
    assert "made by gild 7.3" in error.message and error.hint == "restore it with gild 7.3 or newer"
    body = encode(listing()).replace(b'"version": 1', b'"version": 9')
    assert "of version 9" in refused(here, forge(listing(), body=body)).message


def test_a_size_no_disk_has_is_refused_before_anything_is_written(here: Paths) -> None:
    with pytest.raises(NoSpace, match="MiB are needed"):
        put(here, forge(listing(member("x", size=1 << 49))))


def test_links_devices_and_other_archives(here: Paths, tmp_path: Path) -> None:
    sound = forge(listing(member("boot/x", b"data")), {"boot/x": b"data"})
    second = 512 + len(encode(listing(member("boot/x", b"data")))) // 512 * 512 + 512
    for kind in b"1234567xgLKS\0":  # tar's kinds of everything that is not a plain file; pax and GNU headers
        block = bytearray(sound[second : second + 512])
        block[156] = kind
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        assert "before boot/x" in refused(here, sound[:second] + bytes(block) + sound[second + 512 :]).message
    (tmp_path / "x").write_bytes(b"x")
    other = subprocess.run(["tar", "-C", tmp_path, "-cf", "-", "x"], capture_output=True, check=True).stdout
    for data in (other, b"", b"\0" * 10240, os.urandom(4096), b"PK\3\4" + bytes(600)):
        assert isinstance(refused(here, data), BackupInvalid)
    huge = bytearray(header(LIST, MAX_LIST + 1, 0o600, 0))
    assert "damaged" in refused(here, bytes(huge)).message


def test_any_changed_or_missing_byte_is_found(old: Paths, here: Paths) -> None:
    data, _, _ = make(old)
    chosen = random.Random(4)
    anywhere = [chosen.randrange(len(data)) for _ in range(60)]
    for at in (*range(0, 2048, 97), *anywhere, *range(len(data) - 2600, len(data), 173)):
        changed = bytearray(data)
        changed[at] ^= 1 << chosen.randrange(8)
        with pytest.raises(GildError):
            Incoming(io.BytesIO(changed)).read(None, nothing)
    for end in (0, 1, 511, 512, 600, len(data) // 2, len(data) - 1025, len(data) - 1):
        assert "cut short" in refused(here, data[:end]).message
    assert "does not end" in refused(here, data + b"\0").message


def test_a_database_that_is_none(here: Paths, old: Paths) -> None:
    for content in (b"", b"not a database" * 100, old.database.read_bytes()[:4096] + os.urandom(8192)):
        data = forge(listing(member("gild.db", content), schema=1), {"gild.db": content})
        assert "in this backup" in refused(here, data).message
    with contextlib.closing(sqlite3.connect(old.database)) as connection:
        connection.execute("PRAGMA user_version = 99")
    content = old.database.read_bytes()
    error = refused(here, forge(listing(member("gild.db", content), schema=1), {"gild.db": content}))
    assert "is of version 99" in error.message


def test_a_list_that_promises_a_database_keeps_its_word(here: Paths) -> None:
    for forged in (listing(member("gild.toml"), schema=1), listing(member("gild.db"))):
        assert "contradicts itself about gild.db" in refused(here, forge(forged)).message


# --- power, disks


def test_killed_at_any_moment(old: Paths, here: Paths) -> None:
    """kill -9 at each step: the state is the old one or the new one, and the next restore leaves nothing beside it."""
    data = make(old)[0]
    (here.state.parent / "b.tar").write_bytes(data)
    before = snapshot(here.state)
    program = """
import os, sys
from pathlib import Path
step, count = int(sys.argv[3]), 0
def watch(event, arguments):
    global count
    if event in ("os.rename", "os.mkdir", "os.remove", "os.chmod", "shutil.rmtree", "sqlite3.connect", "os.rmdir") or (
        event == "open" and "restoring" in str(arguments[0])
    ) or event == "ctypes.dlsym":
        count += 1
        if count == step:
            os.kill(os.getpid(), 9)
from appliance.paths import Paths
from appliance.restore import Incoming, restore
sys.addaudithook(watch)
restore(Paths(Path(sys.argv[1])), Incoming(open(sys.argv[2], "rb")), lambda *_: None)
"""
    arguments = [sys.executable, "-c", program, str(here.state), str(here.state.parent / "b.tar")]
    kept = replaced = 0
    for step in range(1, 200):
        done = subprocess.run([*arguments, str(step)], timeout=60, check=False)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        if marks(here) == ["here"]:
            kept += 1
            assert snapshot(here.state) == before
            clean_up(here.state)
            beside = [path.name for path in here.state.parent.glob("here.*")]
            assert not beside
        else:
            replaced += 1
            assert marks(here) == ["old"] and (here.keys / "head.key").read_bytes() == b"old"
            clean_up(here.state)
            (aside,) = here.state.parent.glob("here.*")
            assert ".before-" in aside.name and snapshot(aside) == before
            assert not (here.state / module.RESTORING).exists()
            subprocess.run(["rm", "-r", here.state], check=True)
            aside.rename(here.state)
    assert done.returncode == 0 and kept > 15 and replaced >= 2 and marks(here) == ["old"]


def test_two_at_once(old: Paths, here: Paths) -> None:
    fresh = here.state.with_name("here.restoring")
    fresh.mkdir()
    with hold(fresh / module.RESTORING, exclusive=True, what="it"), pytest.raises(Busy, match="a restore of this"):
        put(here, make(old)[0])
    assert fresh.is_dir() and marks(here) == ["here"]


def test_where_directories_cannot_be_exchanged_in_one_step(
    old: Paths, here: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Libc:
        """NFS: EINVAL (rename(2))."""

        def renameat2(self, *_: Any) -> int:

            ctypes.set_errno(22)
            return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Libc())
    before = snapshot(here.state)
    done = put(here, make(old)[0])
    assert done.before is not None and snapshot(done.before) == before and marks(here) == ["old"]
    assert len(list(here.state.parent.glob("here*"))) == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=True, timeout=30)
    yield disk
    subprocess.run(["umount", disk], check=True, timeout=30)


@pytest.mark.root
def test_a_full_disk_leaves_the_state_as_it_was(old: Paths, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Paths(small_disk / "here")
    here.state.mkdir()
    here.settings.write_text("log = 'info'\n")
    data = make(old)[0]
    assert isinstance(refused(here, data), NoSpace)  # by what the list says
    monkeypatch.setattr(module, "room", lambda *_: None)
    assert isinstance(refused(here, data), NoSpace)  # by the disk itself


@pytest.mark.root
def test_a_mount_point_is_not_exchanged(old: Paths, small_disk: Path) -> None:
    with pytest.raises(Environment, match="mount point"):
        put(Paths(small_disk), make(old)[0])
    assert not list(small_disk.iterdir())
    put(Paths(small_disk / "new"), forge(listing(member("gild.toml", b"x")), {"gild.toml": b"x"}))
    assert (small_disk / "new" / "gild.toml").read_bytes() == b"x"


@pytest.mark.root
def test_a_store_mounted_there_is_not_lost(old: Paths, here: Paths) -> None:
    here.images.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", here.images], check=True, timeout=30)
    try:
        add_images(here)
        assert "another disk" in refused(here, make(old)[0]).message
    finally:
        subprocess.run(["umount", here.images], check=True, timeout=30)


def test_an_older_database_is_brought_up_to_date(here: Paths, tmp_path: Path) -> None:
    path = tmp_path / "older.db"
    open_database(path).close()
    content = path.read_bytes()
    put(here, forge(listing(member("gild.db", content), schema=1), {"gild.db": content}))
    with contextlib.closing(sqlite3.connect(here.database)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert not here.database.with_name("gild.db-wal").exists()
