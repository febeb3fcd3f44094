"""Files and directories of the head copied into the tree of an image. No link in the image leads a copy out of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from images.disk import disk_errors
from images.errors import SourceInvalid
from images.tree import Tree


def copy_in(
    root: Path,
    source: Path,
    target: str,
    *,
    preserve: bool = False,
    on_entry: Callable[[int], None] = lambda count: None,
) -> int:
    """Copy a file or a directory with all in it to `target` in the tree at `root`; gives how many entries it were.

    A file goes to the name `target`, or into it where that is a directory or ends with "/". A directory's content goes
    into the directory `target` and joins what is there: "/" takes it as the root of a system. Owners become root, or
    with `preserve` stay as they are, extended attributes too. Modes and times are kept; a link is copied as a link, a
    file replaces a link of its name. `on_entry` hears the number of entries so far.
    Raises SourceInvalid for what is neither file, directory nor link, TreeInvalid, ImageError, NoSpace."""
    tree = Tree(os.fspath(root))
    with disk_errors(f"copying {source} into the image"):
        top = os.stat(source)  # a link that was named is followed
        whole = stat.S_ISDIR(top.st_mode)
        own = os.path.basename(os.path.abspath(source))
        into = target.rstrip("/") if whole or not (target.endswith("/") or tree.is_dir(target)) else f"{target}/{own}"
        done = 0
        for path, place in _walk(os.path.realpath(source), into, whole):
            _copy(tree, path, place, preserve)
            done += 1
            on_entry(done)
    return done


def _walk(source: str, target: str, whole: bool) -> Iterator[tuple[str, str]]:
    """(path, place in the image) of everything to be copied, directories before what is in them."""
    if not whole:
        yield source, target
        return
    if target:
        yield source, target
    for directory, names, files in os.walk(source, onerror=_fail):
        below = os.path.relpath(directory, source)
        base = target if below == "." else f"{target}/{below}"
        for name in sorted((*names, *files)):
            yield f"{directory}/{name}", f"{base}/{name}"


def _copy(tree: Tree, path: str, place: str, preserve: bool) -> None:
    status = os.lstat(path)
    mode = stat.S_IMODE(status.st_mode)
    there = stat.S_ISDIR(status.st_mode) and tree.is_dir(place)
    if stat.S_ISDIR(status.st_mode):
        # Through a link, where there is one: lib is a link to usr/lib in most systems, and stays one.
        tree.make_dir(os.path.dirname(place))
        tree.make_dir(place, mode)
        made = tree.place(place)
    elif stat.S_ISLNK(status.st_mode):
        tree.make_link(place, os.readlink(path))
        made = tree.place(place, last=False)
    elif stat.S_ISREG(status.st_mode):
        tree.write(place, b"", mode)  # with the label its place asks for
        made = tree.place(place, last=False)
        with open(path, "rb") as source, open(made, "r+b", opener=_no_link) as file:
            shutil.copyfileobj(source, file, 1 << 20)
    else:
        raise SourceInvalid(f"{path} is neither a file, a directory nor a link", "an image gets no devices this way")
    if there and not preserve:
        return  # the image's own directory
    uid, gid = (status.st_uid, status.st_gid) if preserve else (0, 0)
    os.chown(made, uid, gid, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(made, mode)  # chown has taken setuid bits away
    if preserve:
        for name in os.listxattr(path, follow_symlinks=False):
            with contextlib.suppress(OSError):  # one the image's filesystem has no place for
                os.setxattr(made, name, os.getxattr(path, name, follow_symlinks=False), follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode):
        os.utime(made, ns=(status.st_mtime_ns, status.st_mtime_ns), follow_symlinks=False)


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)


def _fail(error: OSError) -> None:
    raise error
