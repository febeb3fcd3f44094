"""Which packages a tree has, by the books of its own package manager: dpkg, rpm, apk or pacman."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from images.errors import CommandFailed, ToolMissing
from images.run import run
from images.tree import Tree

LIMIT = 256 << 20  # bytes of a package manager's book; Debian with 4000 packages has 4 MB
DPKG = "var/lib/dpkg/status"
APK = "lib/apk/db/installed"
PACMAN = "var/lib/pacman/local"
# Where rpm keeps its books: since Fedora 36, SUSE since 2017; before.
RPM = ("usr/lib/sysimage/rpm", "var/lib/rpm")
FIELDS = re.compile(r"^(Package|Status|Version|Architecture): (.*)$", re.MULTILINE)
PACMAN_NAME = re.compile(r"(.+)-([^-]+-[^-]+)")


def packages(root: str) -> dict[str, str] | None:
    """Packages of the tree at `root`, name -> version (several, where there are, with commas); None if that cannot be
    told: it has no package manager known here, or an rpm one and this machine has no rpm. Raises TreeInvalid for a book
    that is no file or larger than LIMIT."""
    tree = Tree(root)
    if tree.is_file(DPKG):
        return _collected(_dpkg(tree.text(DPKG, LIMIT)))
    if tree.is_file(APK):
        return _collected(_apk(tree.text(APK, LIMIT)))
    if tree.is_dir(PACMAN):
        matches = (PACMAN_NAME.fullmatch(name) for name in tree.names(PACMAN))
        return _collected((match[1], match[2]) for match in matches if match)
    book = next((place for place in RPM if tree.names(place, "rpmdb.sqlite") or tree.names(place, "Packages*")), "")
    return _rpm(tree, book) if book else None


def _dpkg(text: str) -> Iterator[tuple[str, str]]:
    for block in text.split("\n\n"):
        fields = dict(FIELDS.findall(block))
        if fields.get("Status", "").endswith(" installed"):
            yield fields.get("Package", ""), fields.get("Version", "")


def _apk(text: str) -> Iterator[tuple[str, str]]:
    for block in text.split("\n\n"):
        fields = dict(line.split(":", 1) for line in block.splitlines() if line[:2] in ("P:", "V:"))
        if "P" in fields:
            yield fields["P"], fields.get("V", "")


def _rpm(tree: Tree, book: str) -> dict[str, str] | None:
    argv = ["rpm", "--root", tree.root, "--dbpath", f"/{tree.resolve(book)}", "-qa"]
    try:
        done = run([*argv, "--queryformat", "%{NAME} %{EVR}\\n"], timeout=300, act="reading the packages of the image")
    except (ToolMissing, CommandFailed):
        return None
    lines = (line.split(" ", 1) for line in done.stdout.decode("utf-8", "replace").splitlines() if " " in line)
    # The keys that packages are signed with stand among them.
    return _collected((name, version) for name, version in lines if name != "gpg-pubkey")


def _collected(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, set[str]] = {}
    for name, version in pairs:
        found.setdefault(name, set()).add(version)
    return {name: ", ".join(sorted(versions)) for name, versions in sorted(found.items())}
