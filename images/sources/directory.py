"""A directory of this machine that holds the root of a system becomes a version."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from images import working
from images.disk import disk_errors
from images.errors import SourceInvalid
from images.ext4 import tree_size
from images.manifest import Manifest
from images.options import Options
from images.sources.space import Space
from images.store import Store
from images.treesync import sync_tree


def import_directory(store: Store, name: str, path: Path, options: Options) -> Manifest:
    """Publish the tree at `path` as the next version of `name`. The directory itself is only read: the tree is copied
    first, one filesystem only, so what is mounted inside it comes out empty. NoSpace before the copy if the disk is too
    small for it. Needs root. Raises SourceInvalid, Busy, NoSpace, CommandFailed."""
    root = Path(path)
    if not root.is_dir():
        raise SourceInvalid(f"{path} is not a directory")
    if not (root / "etc").is_dir() or not (root / "usr").is_dir():
        raise SourceInvalid(f"{path} has no etc and usr: it is not the root of a system")
    if os.geteuid() != 0:
        raise SourceInvalid(f"importing {path} must read every file with its owner", "run this as root")
    if store.root.resolve().is_relative_to(root.resolve()) and _same_device(store.root, root):
        raise SourceInvalid(f"the store {store.root} lies inside {path}", "import from another place or move the store")

    def fill(tree: Path) -> dict[str, Any]:
        with disk_errors(f"copying {path}"):
            size = tree_size(root)
            entries = size.inodes
            # Better said now than after half an hour of copying.
            Space(tree).take(size.bytes, os.fspath(path))
            options.tell("copy", 0, entries)
            sync_tree(root, tree, lambda done: options.tell("copy", min(done, entries), entries))
        return {"kind": "directory", "path": os.fspath(root.resolve())}

    return working.from_tree(store, name, fill, options)


def _same_device(one: Path, other: Path) -> bool:
    return one.stat().st_dev == other.stat().st_dev
