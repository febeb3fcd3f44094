"""rpm's book in a tree that was built from outside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from images.errors import CommandFailed
from images.sources.rpmbook import OLD_PLACE, PLACE, home, settle
from tests.images.systems import put

NEW = "%_dbpath\t\t%{_usr}/lib/sysimage/rpm\n%_db_backend\t      sqlite\n"
OLD = "%_dbpath\t\t%{_var}/lib/rpm\n%_db_backend\t      sqlite\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    put(tmp_path / "tree", f"{PLACE}/rpmdb.sqlite", "book")
    put(tmp_path / "tree", f"{PLACE}/.rpm.lock", "")
    return tmp_path / "tree"


def test_the_tools_are_given_a_home_that_says_where_the_book_is(tmp_path: Path) -> None:
    found = home(tmp_path)
    assert (Path(found["HOME"]) / ".rpmmacros").read_text() == "%_dbpath /usr/lib/sysimage/rpm\n"


def test_the_book_goes_where_the_system_looks_for_it(tree: Path, tmp_path: Path) -> None:
    put(tree, "usr/lib/rpm/macros", OLD)
    put(tree, f"{OLD_PLACE}/other", "")
    settle(tree, tmp_path / "scratch", "building x")
    assert sorted(os.listdir(tree / OLD_PLACE)) == [".rpm.lock", "other", "rpmdb.sqlite"]
    assert not (tree / PLACE).exists()


@pytest.mark.parametrize("macros", [NEW, ""])
def test_the_book_stays_where_it_is_looked_for(tree: Path, tmp_path: Path, macros: str) -> None:
    put(tree, "usr/lib/rpm/macros", macros)
    settle(tree, tmp_path / "scratch", "building x")
    assert (tree / PLACE / "rpmdb.sqlite").read_text() == "book"


def test_a_link_to_the_new_place_is_enough(tree: Path, tmp_path: Path) -> None:
    put(tree, "usr/lib/rpm/macros", OLD)
    (tree / "var/lib").mkdir(parents=True)
    (tree / OLD_PLACE).symlink_to("../../usr/lib/sysimage/rpm")
    settle(tree, tmp_path / "scratch", "building x")
    assert (tree / PLACE / "rpmdb.sqlite").is_file()


def test_a_book_the_system_cannot_read_is_an_error(tree: Path, tmp_path: Path) -> None:
    put(tree, "usr/lib/rpm/macros", OLD.replace("sqlite", "bdb"))
    with pytest.raises(CommandFailed, match="has its book as bdb"):
        settle(tree, tmp_path / "scratch", "building x")


def test_what_the_tools_took_for_a_path_inside_is_removed(tree: Path) -> None:
    for scratch in (Path("/srv/site/store/build-1"), Path("/var/lib/site/build-1")):
        put(tree, f"{scratch}/log/dnf.log".lstrip("/"), "")
        settle(tree, scratch, "building x")
    assert (tree / "srv").is_dir() and not (tree / "srv/site").exists()
    assert (tree / "var/lib").is_dir() and not (tree / "var/lib/site").exists()


def test_a_link_in_the_tree_is_not_followed_out(tree: Path, tmp_path: Path) -> None:
    mine = put(tmp_path, "outside/build-1/kept")
    (tree / "srv").symlink_to(tmp_path / "outside")
    settle(tree, Path("/srv/build-1"), "building x")
    assert mine.exists()
