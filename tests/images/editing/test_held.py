"""A version mounted for other tools: visible, exclusive, recoverable."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from images.editing import edit as editing
from images.editing import held
from images.editing.edit import edit, publish_held
from images.errors import Busy, CommandFailed, ImageError, NotFound, SourceInvalid
from images.manifest import Manifest
from images.namespace import loop_of
from images.options import Options
from images.store import Store
from images.working import publish_tree
from tests.images.test_working import view
from tests.images.tinytree import tiny_tree

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A lineage `x` of one version; nothing stays mounted."""
    store = Store(tmp_path / "store")
    with store.lineage_lock("x"):
        publish_tree(store, "x", tiny_tree(tmp_path / "tree"))
    yield store
    subprocess.run(["umount", "-R", str(tmp_path / "a b")], capture_output=True, check=False)


@pytest.fixture
def at(tmp_path: Path) -> Path:
    (tmp_path / "a b").mkdir()
    return tmp_path / "a b"


def left(store: Store) -> list[str]:
    return sorted(path.name for path in store.work("x").iterdir())


def test_others_see_it_until_it_is_published(store: Store, at: Path, tmp_path: Path) -> None:
    found, unmounted = held.hold_open(store, "x", 0, at)
    assert (found.manifest.ref, found.points, unmounted) == ("x:1", (str(at),), [])
    subprocess.run(["sh", "-c", 'echo new > "$1/etc/motd"', "-", str(at)], check=True)
    with pytest.raises(Busy, match=r"x:1 is open for editing since .* by .*: it is mounted on .*/a b") as caught:
        edit(store, "x", lambda root: None, Options())
    assert "--publish" in caught.value.hint and "--discard" in caught.value.hint
    with pytest.raises(Busy, match="open for editing"):
        held.hold_open(store, "x", 0, _empty(tmp_path / "other"))
    manifest, look = publish_held(store, "x", Options(message="by hand"))
    assert manifest is not None and (manifest.version, manifest.parent, look.added) == (2, 1, 1)
    assert list(at.iterdir()) == [] and left(store) == ["current"] and held.held(store, "x") is None
    seen = view(store, "x:2", tmp_path)
    assert isinstance(seen, tuple) and "etc/motd" in seen[0]
    assert edit(store, "x", lambda root: (root / "etc/motd").unlink(), Options()) is not None


def test_discarding_leaves_nothing(store: Store, at: Path) -> None:
    found, _ = held.hold_open(store, "x", 1, at)
    (at / "etc/motd").write_text("new")
    held.discard(store, "x")
    assert list(at.iterdir()) == [] and left(store) == ["current"] and store.versions("x") == [1]
    assert not any(loop_of(part.file) for part in found.parts)
    for act in (lambda: held.discard(store, "x"), lambda: publish_held(store, "x", Options())):
        with pytest.raises(NotFound, match="no version of x is mounted"):
            act()


def test_nothing_changed_is_no_version(store: Store, at: Path) -> None:
    held.hold_open(store, "x", 0, at)
    manifest, look = publish_held(store, "x", Options())
    assert manifest is None and look.nothing and store.versions("x") == [1] and left(store) == ["current"]


def test_what_is_in_use_is_not_torn_away(store: Store, at: Path) -> None:
    held.hold_open(store, "x", 0, at)
    with (at / "etc/motd").open("w") as file:
        with pytest.raises(Busy, match="busy") as caught:
            publish_held(store, "x", Options())
        assert "fuser" in caught.value.hint
        file.write("written after the refusal")
    assert publish_held(store, "x", Options())[0] is not None


def test_after_a_reboot_it_can_be_published_mounted_again_or_discarded(store: Store, at: Path, tmp_path: Path) -> None:
    held.hold_open(store, "x", 0, at)
    (at / "etc/motd").write_text("written before")
    subprocess.run(["umount", str(at)], check=True)  # what a reboot leaves: the copy, mounted nowhere
    with pytest.raises(Busy, match=r"was mounted on .*/a b, and is no more"):
        edit(store, "x", lambda root: None, Options())
    with pytest.raises(Busy):
        held.hold_open(store, "x", 7, at)
    found, _ = held.hold_open(store, "x", 1, at)
    assert found.points == (str(at),) and (at / "etc/motd").read_text() == "written before"
    subprocess.run(["umount", str(at)], check=True)
    manifest, _ = publish_held(store, "x", Options())
    seen = view(store, "x:2", tmp_path)
    assert manifest is not None and isinstance(seen, tuple) and "etc/motd" in seen[0]


def test_new_versions_may_come_meanwhile(store: Store, at: Path, tmp_path: Path) -> None:
    held.hold_open(store, "x", 0, at)
    (at / "etc/motd").write_text("mine")
    with store.lineage_lock("x"):
        assert publish_tree(store, "x", tiny_tree(tmp_path / "two", seed=2)).version == 2
    store.set_tag("x", 2)
    store.remove("x:1")  # even the one it came from may go
    manifest, look = publish_held(store, "x", Options())
    assert manifest is not None and (manifest.version, manifest.parent, look.known) == (3, 1, False)


def test_an_error_while_publishing_keeps_the_copy(store: Store, at: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held.hold_open(store, "x", 0, at)
    (at / "etc/motd").write_text("kept")

    def fail(*_: object, **__: object) -> Manifest:
        raise SourceInvalid("trouble")

    monkeypatch.setattr(editing, "publish_candidate", fail)
    with pytest.raises(SourceInvalid, match="trouble"):
        publish_held(store, "x", Options())
    assert store.versions("x") == [1] and left(store) == ["current", "held", "held.json"]
    monkeypatch.undo()
    assert publish_held(store, "x", Options())[0] is not None


def test_a_place_that_is_none(store: Store, at: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    for place in (tmp_path / "missing", tmp_path / "full", Path("/proc"), _empty(store.root / "work/inside")):
        with pytest.raises(SourceInvalid):
            held.hold_open(store, "x", 0, place)
    with pytest.raises(NotFound):
        held.hold_open(store, "x", 9, at)
    assert held.held(store, "x") is None


def test_a_mount_that_fails_leaves_nothing(store: Store, at: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "FLAGS", "loop,nonsense")
    with pytest.raises(CommandFailed, match="mounting root"):
        held.hold_open(store, "x", 0, at)
    monkeypatch.undo()
    assert held.held(store, "x") is None and list(at.iterdir()) == []
    assert edit(store, "x", lambda root: None, Options()) is None


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"manifest": "x", "at": "/", "since": 1, "by": ""}', "\xff"])
def test_a_damaged_note_is_said(store: Store, at: Path, text: str) -> None:
    held.hold_open(store, "x", 0, at)
    (store.work("x") / "held.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ImageError, match=r"held\.json cannot be read"):
        held.held(store, "x")


def test_programs_of_the_image_give_nobody_rights(store: Store, at: Path) -> None:
    held.hold_open(store, "x", 0, at)
    (row,) = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if "a\\040b" in line]
    assert {"nosuid", "nodev"} <= set(row.split()[5].split(","))
    held.discard(store, "x")


def _empty(path: Path) -> Path:
    path.mkdir()
    return path
