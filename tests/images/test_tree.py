"""images.tree: what a hostile tree cannot do, and what a file looks like after it was written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images import tree as tree_module
from images.tree import Tree, TreeInvalid
from tests.images.systems import link, picture, put


@pytest.fixture
def both(tmp_path: Path) -> tuple[Tree, Path]:
    """A tree, and a directory beside it in which nothing may ever change."""
    (tmp_path / "root").mkdir()
    put(tmp_path, "outside/passwd", "root:x:0:0\n")
    return Tree(str(tmp_path / "root")), tmp_path / "outside"


@pytest.mark.parametrize("target", ["../../outside", "/../../outside", "{outside}", "../../../../../../../..{outside}"])
def test_a_link_out_of_the_tree_leads_nowhere_but_into_it(both: tuple[Tree, Path], target: str) -> None:
    tree, outside = both
    before = picture(outside)
    link(Path(tree.root), "etc", target.format(outside=outside))
    tree.write("etc/passwd", "evil\n")
    tree.make_link("etc/link", "x")
    tree.make_dir("etc/a/b")
    tree.remove("etc/passwd")
    assert picture(outside) == before
    assert all(os.path.realpath(tree.place(path)).startswith(tree.root) for path in ("etc/a", "etc/../../../x"))


def test_a_link_in_place_of_a_file_is_replaced_and_not_followed(both: tuple[Tree, Path]) -> None:
    tree, outside = both
    for n, target in enumerate(("../../outside/passwd", f"{outside}/passwd", "/etc/passwd")):
        link(Path(tree.root), f"etc/f{n}", target)
        assert tree.write(f"etc/f{n}", "new\n")
        assert (Path(tree.root) / f"etc/f{n}").is_file() and not tree.link(f"etc/f{n}")
    assert (outside / "passwd").read_text() == "root:x:0:0\n"
    assert not tree.lexists("etc/passwd")


def test_a_prepared_link_at_the_temporary_name_is_not_written_through(both: tuple[Tree, Path]) -> None:
    tree, outside = both
    link(Path(tree.root), "etc/hostname" + tree_module.PART, f"{outside}/passwd")
    tree.write("etc/hostname", "n1\n")
    assert (outside / "passwd").read_text() == "root:x:0:0\n"
    assert tree.text("etc/hostname") == "n1\n"


def test_a_loop_is_an_error_with_the_name_in_it(both: tuple[Tree, Path]) -> None:
    tree, _ = both
    link(Path(tree.root), "a", "b")
    link(Path(tree.root), "b", "a")
    for act in (lambda: tree.read("a"), lambda: tree.write("a/x", ""), lambda: tree.resolve("a")):
        with pytest.raises(TreeInvalid, match="/a"):
            act()
    assert not tree.is_file("a") and not tree.is_dir("a")
    assert tree.write("a", "now a file\n")


def test_what_is_no_plain_small_file_is_not_read(both: tuple[Tree, Path]) -> None:
    tree, _ = both
    os.mkfifo(os.path.join(tree.root, "fifo"))
    put(Path(tree.root), "big", "x" * 101)
    for path in ("fifo", ".", "big"):
        with pytest.raises(TreeInvalid):
            tree.read(path, 100)
    assert tree.read("big", 101) and tree.read("none") == b""


def test_write_keeps_mode_and_group_of_what_it_replaces_and_knows_when_nothing_changed(both: tuple[Tree, Path]) -> None:
    tree, _ = both
    place = put(Path(tree.root), "etc/x", "old", 0o640)
    os.chown(place, -1, 4321) if os.geteuid() == 0 else None
    group = place.stat().st_gid
    assert tree.write("etc/x", "new") and not tree.write("etc/x", "new")
    assert (place.stat().st_mode & 0o7777, place.stat().st_gid) == (0o640, group)
    assert tree.write("etc/x", "new", 0o600) and place.stat().st_mode & 0o7777 == 0o600
    assert tree.write("etc/new", "") and (place.parent / "new").stat().st_mode & 0o7777 == 0o644
    assert os.listdir(place.parent).count("x") == 1 and len(os.listdir(place.parent)) == 2


def test_bytes_that_are_no_utf8_survive_an_edit(both: tuple[Tree, Path]) -> None:
    tree, _ = both
    put(Path(tree.root), "f", b"caf\xe9\n")
    tree.write("f", tree.text("f") + "more\n")
    assert tree.read("f") == b"caf\xe9\nmore\n"


def test_a_directory_in_the_way_is_named(both: tuple[Tree, Path]) -> None:
    tree, _ = both
    tree.make_dir("etc/hostname")
    put(Path(tree.root), "file", "")
    with pytest.raises(TreeInvalid, match="/etc/hostname in the image is a directory"):
        tree.write("etc/hostname", "x")
    with pytest.raises(TreeInvalid, match="/file in the image is no directory"):
        tree.write("file/x", "x")
    assert not tree.remove("file/x") and not tree.remove("none")


def test_labels_come_from_the_old_file_or_a_neighbour(both: tuple[Tree, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    tree, _ = both
    monkeypatch.setattr(tree_module, "LABEL", "user.gild-test")
    first = put(Path(tree.root), "etc/first", "")
    try:
        os.setxattr(first, "user.gild-test", b"net_conf_t\0")
    except OSError:
        pytest.skip("this file system keeps no extended attributes")
    tree.write("etc/second", "new")
    tree.write("etc/first", "changed")
    assert os.getxattr(f"{tree.root}/etc/second", "user.gild-test") == b"net_conf_t\0"
    assert os.getxattr(f"{tree.root}/etc/first", "user.gild-test") == b"net_conf_t\0"


@settings(deadline=None)
@given(st.lists(st.sampled_from(["..", "a", "b", "c", ".", ""]), max_size=8).map("/".join))
def test_resolve_stays_inside_whatever_the_links_say(path: str) -> None:
    with tempfile.TemporaryDirectory() as root:
        os.symlink("..", f"{root}/a")
        os.symlink("/a/../b/c", f"{root}/c")
        os.mkdir(f"{root}/b")
        os.symlink("../../..", f"{root}/b/a")
        tree = Tree(root)
        try:
            place = tree.place(path, last=False)
        except TreeInvalid:
            return
        assert os.path.normpath(place) == place and (place + "/").startswith(tree.root + "/")
        assert os.path.realpath(os.path.dirname(place) if place != tree.root else place).startswith(tree.root)
