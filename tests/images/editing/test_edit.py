"""Editing versions: what changes becomes a version, what does not leaves no trace, and a crash costs nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from images import ext4
from images.editing import edit as editing
from images.editing.diff import changes, two_versions
from images.editing.edit import Session, edit, edit_session, newest
from images.editing.interrupts import Interrupts
from images.errors import Busy, CommandFailed, NotFound, SourceInvalid
from images.manifest import Manifest
from images.namespace import in_private_namespace, mounted
from images.options import Options
from images.publish import Part
from images.store import Store
from images.treesync import sync_tree
from images.working import from_parts, publish_tree
from tests.images.shelltree import shell_tree
from tests.images.sound import damaged
from tests.images.test_working import view

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A lineage `x` of one version that can run a shell."""
    store = Store(tmp_path / "store")
    with store.lineage_lock("x"):
        publish_tree(store, "x", shell_tree(tmp_path / "tree"))
    return store


def left(store: Store) -> list[str]:
    return sorted(path.name for path in store.work("x").iterdir())


def test_a_change_becomes_the_next_version(store: Store, tmp_path: Path) -> None:
    first, digest = store.load("x:1")

    def change(root: Path) -> None:
        (root / "etc/motd").write_text("new")
        (root / "usr/lib/text").unlink()

    manifest = edit(store, "x", change, Options(message="motd"))
    assert manifest is not None and (manifest.version, manifest.parent, manifest.message) == (2, 1, "motd")
    assert manifest.source == {"kind": "edit", "parent": digest}
    found = view(store, "x:2", tmp_path)
    assert isinstance(found, tuple) and "etc/motd" in found[0] and "usr/lib/text" not in found[0]
    assert store.load("x:1")[0] == first and damaged(store, "x:1") == damaged(store, "x:2") == []
    assert left(store) == ["current"] and store.tag("x") == 1


def test_nothing_changed_is_no_version(store: Store) -> None:
    def touch(root: Path) -> None:
        (root / "etc/passing").write_text("there and gone")
        (root / "etc/passing").unlink()
        (root / "etc/ssh/ssh_host_rsa_key").write_text("no image keeps this")
        (root / "etc/fstab").write_bytes((root / "etc/fstab").read_bytes())

    before = sorted(store.packs.iterdir())
    assert edit(store, "x", touch, Options()) is None
    assert store.versions("x") == [1] and sorted(store.packs.iterdir()) == before and left(store) == ["current"]


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "etc/fstab").chmod(0o600),
        lambda root: os.chown(root / "etc/fstab", 1, 1),
        lambda root: os.setxattr(root / "etc/fstab", "user.x", b"1"),
        lambda root: (root / "etc/fstab").write_bytes((root / "etc/fstab").read_bytes()[::-1]),
        lambda root: os.utime(_reversed(root / "usr/lib/text"), (1, 1)),
        lambda root: (root / "usr/bin/env2").unlink(),
        lambda root: (root / "opt").mkdir(),
    ],
    ids=["mode", "owner", "attribute", "content", "content under an old date", "removed", "added"],
)
def test_every_kind_of_change_is_noticed(store: Store, change: Callable[[Path], object]) -> None:
    looks = []

    def work(session: Session) -> None:
        assert session.look().nothing
        change(session.root)
        looks.append(session.look())

    assert edit_session(store, "x", work, {}) is None
    assert [look.added + look.removed + look.changed for look in looks] == [1], looks
    assert store.versions("x") == [1]


def _reversed(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[::-1])
    return path


def test_an_edit_starts_from_the_newest_version_and_any_other_can_be_named(store: Store, tmp_path: Path) -> None:
    def add(name: str) -> Callable[[Path], object]:
        return lambda root: (root / "etc" / name).write_text(name)

    edit(store, "x", add("a"), Options())
    assert newest(store, "x") == ("x", 2) and store.resolve("x") == ("x", 1)
    edit(store, "x", add("b"), Options())
    other = edit(store, "x:1", add("c"), Options(tag=True))
    assert other is not None and (other.version, other.parent, store.tag("x")) == (4, 1, 4)
    both, one = view(store, "x:3", tmp_path), view(store, "x:4", tmp_path)
    assert isinstance(both, tuple) and isinstance(one, tuple)
    assert {"etc/a", "etc/b"} <= both[0].keys() and "etc/c" not in both[0]
    assert "etc/c" in one[0] and not {"etc/a", "etc/b"} & one[0].keys()
    with pytest.raises(NotFound):
        edit(store, "x:9", add("d"), Options())


def test_an_error_leaves_everything_as_it_was(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    image = (store.work("x") / "current/root.img").stat()

    def fail(root: Path) -> None:
        (root / "etc/motd").write_text("new")
        raise CommandFailed("the work failed")

    with pytest.raises(CommandFailed, match="the work failed"):
        edit(store, "x", fail, Options())

    def refuse(*_: object, **__: object) -> Manifest:
        raise SourceInvalid("publishing failed")

    monkeypatch.setattr(editing, "publish_candidate", refuse)
    with pytest.raises(SourceInvalid, match="publishing failed"):
        edit(store, "x", lambda root: (root / "etc/motd").write_text("new"), Options())
    assert store.versions("x") == [1] and left(store) == ["current"]
    now = (store.work("x") / "current/root.img").stat()
    assert (now.st_ino, now.st_mtime_ns) == (image.st_ino, image.st_mtime_ns)


def test_a_command_runs_in_the_image(store: Store, tmp_path: Path) -> None:
    codes = []

    def work(session: Session) -> Options:
        codes.append(
            session.shell(["sh", "-c", "echo made > /etc/made; test -b /dev/disk/by-uuid/*; echo $? > /etc/uuid"])
        )
        session.copy(tmp_path / "tree/etc/fstab", "/etc/copied")
        return Options(message="made")

    assert edit_session(store, "x", work, {"kind": "edit"}) is not None and codes == [0]
    found = view(store, "x:2", tmp_path)
    assert isinstance(found, tuple)
    added = found[0].keys() - view(store, "x:1", tmp_path)[0].keys()  # type: ignore[index]
    assert added == {"etc/made", "etc/uuid", "etc/copied"}


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_every_partition_of_a_system_is_there(store: Store, tmp_path: Path, kind: str) -> None:
    """A root of each kind and a boot partition; what lies on either is changed, shown and published."""
    tool = {"ext4": "mke2fs", "xfs": "mkfs.xfs", "btrfs": "mkfs.btrfs"}[kind]
    if not shutil.which(tool):
        pytest.skip(f"{tool} is not installed")
    if kind == "btrfs" and [int(word) for word in os.uname().release.split(".")[:2]] < [6, 7]:
        pytest.skip("this kernel does not mount a copy of a btrfs beside it")
    tree = tmp_path / "tree"
    boot = tmp_path / "boot"
    (tree / "boot").rename(boot)
    (tree / "boot").mkdir()

    def fill(directory: Path) -> tuple[list[Part], dict[str, str]]:
        image = directory / "root.img"
        if kind == "ext4":
            ext4.make(tree, image, name="z", identity=ext4.filesystem_uuid("z"), size=256 << 20, inodes=500)
        else:
            with image.open("wb") as file:
                file.truncate(512 << 20)
            subprocess.run([tool, "-q", str(image)], check=True)
            in_private_namespace(lambda: _filled(image, tree, tmp_path / "at"))
        ext4.make(boot, directory / "boot.img", name="b", identity=ext4.filesystem_uuid("b"), size=256 << 20, inodes=99)
        return [Part("root", image, kind), Part("boot", directory / "boot.img", "ext4", "/boot")], {"kind": "test"}

    (tmp_path / "at").mkdir()
    from_parts(store, "z", fill, Options())
    shown: list[list[str]] = []

    def work(session: Session) -> Options:
        assert session.shell(["sh", "-c", "echo 1 > /boot/new; echo 2 > /etc/new; test -b /dev/gild-boot"]) == 0
        shown.append([change.path for change in session.look().first])
        return Options()

    manifest = edit_session(store, "z", work, {})
    assert manifest is not None and [part.role for part in manifest.partitions] == ["root", "boot"]
    seen = two_versions(store, store.load("z:1")[0], store.load("z:2")[0], _paths)
    assert shown == [seen] == [["/boot/new", "/etc/new"]]
    assert left(store) == ["current"] and damaged(store, "z:2") == []


def _paths(before: Path, after: Path, tell: Callable[[int], None]) -> list[str]:
    return [change.path for change in changes(before, after, on_entry=tell)]


def _filled(image: Path, tree: Path, at: Path) -> None:
    with mounted(image, at):
        sync_tree(tree, at)


def test_the_second_editor_hears_who_the_first_is(store: Store) -> None:
    def second(root: Path) -> None:
        with pytest.raises(Busy, match=rf"image x is in use by process {os.getpid()} since .*python") as caught:
            edit(store, "x", lambda root: None, Options())
        assert "wait" in caught.value.hint

    assert edit(store, "x", second, Options()) is None


def test_ctrl_c_ends_the_look_and_not_the_shell(store: Store) -> None:
    def work(session: Session) -> Options:
        for number in range(300):
            (session.root / f"etc/{number}").touch()
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(100):
            if session.interrupts._noted.wait(0.05):
                break
        assert session.shell(["sh", "-c", "exit 0"]) == 0  # it was typed for the shell
        session.look()
        session.interrupts.note()
        session.look()
        return Options()

    with pytest.raises(KeyboardInterrupt):
        edit_session(store, "x", work, {})
    assert store.versions("x") == [1] and left(store) == ["current"]
    Interrupts().check()


CRASH = """
import sys
from pathlib import Path
from images.editing.edit import edit_session
from images.store import Store
def work(session):
    (session.root / "etc/motd").write_text("lost")
    session.shell(["sh", "-c", f"sleep {sys.argv[2]} & echo inside; exec sleep {sys.argv[2]}"])
edit_session(Store(Path(sys.argv[1])), "x", work, {})
"""


def test_kill_in_the_middle_costs_nothing(store: Store) -> None:
    """kill -9 of the process that edits: shell, daemons, mounts and loop devices go with it."""
    digest = store.load("x:1")[1]
    root = Path(__file__).parents[3]
    mark = f"4711{os.getpid()}"
    with subprocess.Popen(
        [sys.executable, "-c", CRASH, str(store.root), mark], cwd=root, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"inside\n"
            _wait_for(lambda: len(_sleepers(mark)) == 2 and len(_loops(store)) == 1)
        finally:
            process.kill()
        process.wait()
        assert process.stdout.read() == b""  # everybody who held it is gone
    _wait_for(lambda: not _loops(store) and not _sleepers(mark))
    assert str(store.root) not in Path("/proc/self/mountinfo").read_text()
    assert store.load("x:1")[1] == digest and damaged(store, "x:1") == []
    manifest = edit(store, "x", lambda root: (root / "etc/next").touch(), Options())
    assert manifest is not None and manifest.version == 2 and left(store) == ["current"]


WHOLE = """
import sys
from pathlib import Path
from images.editing.edit import edit
from images.options import Options
from images.store import Store
print("ready", flush=True)
edit(Store(Path(sys.argv[1])), "x", lambda root: (root / "etc" / sys.argv[2]).touch(), Options())
print("done", flush=True)
"""


def test_kill_at_any_moment_leaves_whole_versions(store: Store) -> None:
    """From the first copy to the last rename: a version is there whole or not at all, and the next edit works."""
    for step in range(12):
        argv = [sys.executable, "-c", WHOLE, str(store.root), f"file{step}"]
        with subprocess.Popen(argv, cwd=Path(__file__).parents[3], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            for _ in range(step):
                time.sleep(0.03)
            process.kill()
        _wait_for(lambda: not _loops(store))
        for number in store.versions("x"):
            assert damaged(store, f"x:{number}") == []
    assert str(store.root) not in Path("/proc/self/mountinfo").read_text()
    manifest = edit(store, "x", lambda root: (root / "etc/next").touch(), Options())
    assert manifest is not None and manifest.version == store.versions("x")[-1] and left(store) == ["current"]


def _wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(100):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("it did not come to that")


def _loops(store: Store) -> list[str]:
    found = []
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            found.append(file.read_text())
        except OSError:
            continue
    return [text for text in found if text.startswith(str(store.root))]


def _sleepers(mark: str) -> list[str]:
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if file.read_bytes() == f"sleep\0{mark}\0".encode():
                found.append(file.parent.name)
        except OSError:
            continue
    return found
