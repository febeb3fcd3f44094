"""Where rpm keeps its book in a system that is built from outside.

The tool on the head writes the book where the head's own rpm has it, and Debian's has it in the user's home (measured:
dnf 4.14 and zypper 1.14 of Debian 12 made root/.rpmdb in the tree, which no rpm inside would find). So the tool is
given a home with macros that name one place, and the book is moved to where the system looks for it.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from images.errors import CommandFailed
from images.tree import Tree

PLACE = "usr/lib/sysimage/rpm"  # of Fedora since 36, EL since 10, SUSE since 2017
OLD_PLACE = "var/lib/rpm"  # of EL to 9
MACROS = ("usr/lib/rpm/macros", "usr/lib/rpm/suse/macros")
# Directories that are a system's own even when they are empty (hier(7)), beside those right below /.
KEPT = ("/usr/local", "/usr/share", "/var/cache", "/var/lib", "/var/opt", "/var/spool", "/var/tmp")
READS = ("sqlite", "ndb")  # these two say of a book of the other kind what it is and read it; bdb does not


def home(scratch: Path) -> dict[str, str]:
    """The environment for dnf, zypper and rpm with a home of their own in `scratch`. Raises OSError."""
    own = scratch / "home"
    own.mkdir()
    (own / ".rpmmacros").write_text(f"%_dbpath /{PLACE}\n")
    return {"HOME": os.fspath(own)}


def settle(tree: Path, scratch: Path, act: str) -> None:
    """Move the book to where the rpm inside the tree has it, and remove what the tools wrote of `scratch`, whose path
    they took for one inside the tree too. Raises CommandFailed if the rpm inside could not read it; OSError."""
    inside = Tree(os.fspath(tree))
    _remove_traces(inside, scratch)
    said = "".join(inside.text(path) for path in MACROS if inside.is_file(path))
    kinds = re.findall(r"(?m)^%_db_backend\s+(\S+)", said)
    if kinds and kinds[-1] not in READS and inside.names(PLACE, "rpmdb.sqlite"):
        raise CommandFailed(
            f"{act}: the rpm of that release has its book as {kinds[-1]}, this machine's writes another kind",
            "build it on a machine of that release, or take a later one",
        )
    places = re.findall(r"(?m)^%_dbpath\s+(\S+)", said)
    if not places or not places[-1].endswith("/lib/rpm") or inside.resolve(OLD_PLACE) == inside.resolve(PLACE):
        return
    inside.make_dir(OLD_PLACE)
    book, place = Path(inside.place(PLACE)), Path(inside.place(OLD_PLACE))
    if book.is_dir():
        for name in sorted(os.listdir(book)):
            os.replace(book / name, place / name)
        book.rmdir()


def _remove_traces(inside: Tree, scratch: Path) -> None:
    place = inside.place(os.fspath(scratch), last=False)
    if os.path.isdir(place) and not os.path.islink(place):
        shutil.rmtree(place)
    for parent in scratch.parents:
        if len(parent.parts) < 3 or os.fspath(parent) in KEPT:
            return
        try:
            os.rmdir(inside.place(os.fspath(parent), last=False))
        except OSError:  # the system's own, or not there
            return
