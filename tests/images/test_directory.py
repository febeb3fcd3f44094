"""Importing a directory: it is only read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from images.errors import Busy, SourceInvalid
from images.options import Options
from images.sources.directory import import_directory
from images.store import Store
from tests.images.sound import damaged
from tests.images.test_treesync import picture
from tests.images.tinytree import tiny_tree

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


def test_the_directory_stays_as_it_was(tmp_path: Path) -> None:
    tree = tiny_tree(tmp_path / "tree")
    before = picture(tree)
    store = Store(tmp_path / "store")
    phases: list[str] = []
    options = Options(message="hi", progress=lambda phase, done, total: phases.append(phase))
    manifest = import_directory(store, "x", tree, options)
    assert picture(tree) == before
    assert manifest.source == {"kind": "directory", "path": str(tree)} and manifest.message == "hi"
    assert list(dict.fromkeys(phases)) == ["copy", "check", "map", "store"]
    assert not (store.work("x") / "tree").exists() and damaged(store, "x") == []


def test_what_cannot_be_imported_says_why(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with pytest.raises(SourceInvalid, match="is not a directory"):
        import_directory(store, "x", tmp_path / "nothing", Options())
    with pytest.raises(SourceInvalid, match="no etc and usr"):
        import_directory(store, "x", tmp_path, Options())
    tree = tiny_tree(tmp_path / "tree")
    with pytest.raises(SourceInvalid, match="lies inside"):
        import_directory(Store(tree / "var/store"), "x", tree, Options())
    with store.lineage_lock("x"), pytest.raises(Busy):
        import_directory(store, "x", tree, Options())
    assert store.images() == []
