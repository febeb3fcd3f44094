"""Whole files of the site's own, put in place as they are given: files, links and folders."""

from __future__ import annotations

import base64
import binascii
import os
import re
from dataclasses import dataclass
from typing import Any

from images.edits import option
from images.tree import Tree

OPTIONS = {
    "files": "list of objects: path, and one of content (text), base64 (list of texts), source (a file on the machine"
    ' that runs this edit), link (target) or folder (true); optionally mode ("0644"), owner and group'
}
MAX_FILES = 2048
MAX_CONTENT = 64 * 1024  # characters of one text
MAX_PIECES = 64  # of a file in base64: 3 MB
MAX_SOURCE = 64 << 20  # bytes
KEYS = {"path", "content", "base64", "source", "link", "folder", "mode", "owner", "group"}
WAYS = ("content", "base64", "source", "link", "folder")
_MODE = re.compile(r"0?[0-7]{3,4}")
_OWNER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}\$?")
# Mounted over at boot: what is written there is never seen.
VOLATILE = ("dev", "proc", "sys", "run")


@dataclass(frozen=True)
class _Wanted:
    path: str
    way: str
    value: Any  # bytes, the path of a file, the target of a link, or nothing
    mode: int
    uid: int
    gid: int


def apply(root: str, options: dict[str, Any]) -> list[str]:
    """Put each of `files` in its place, with the directories above it. Owners are names the tree's own etc/passwd and
    etc/group know, or numbers; root where none is given. A link of that name is replaced and not followed. All are
    checked before the first is written. Raises OptionInvalid, TreeInvalid."""
    given = options.get("files", [])
    if not isinstance(given, list | tuple) or len(given) > MAX_FILES:
        raise option.OptionInvalid(f"edit files: files is not a list of at most {MAX_FILES}")
    tree = Tree(root)
    owners = _Owners(tree)
    wanted = [_file(entry, owners) for entry in given]
    return [f"{_word(one)} {one.path}" for one in wanted if _put(tree, one)]


def _put(tree: Tree, one: _Wanted) -> bool:
    """False if it stood there like that already."""
    if one.way == "link":
        return tree.make_link(one.path, one.value)
    if one.way == "folder":
        changed = not tree.is_dir(one.path)
        tree.make_dir(one.path)
        place = tree.place(one.path)
    else:
        changed = tree.write(one.path, _bytes(one), one.mode, group=one.gid)
        place = tree.place(one.path, last=False)
    status = os.lstat(place)
    if (status.st_uid, status.st_gid) != (one.uid, one.gid):
        os.chown(place, one.uid, one.gid, follow_symlinks=False)
        changed = True
    if os.lstat(place).st_mode & 0o7777 != one.mode:  # also because chown takes setuid bits away
        os.chmod(place, one.mode)
        changed = True
    return changed


def _bytes(one: _Wanted) -> bytes:
    if one.way != "source":
        return bytes(one.value)
    try:
        with open(one.value, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(min(size, MAX_SOURCE) + 1)
    except OSError as error:
        raise option.OptionInvalid(
            f"edit files: {one.value} for /{one.path} cannot be read: {error.strerror}"
        ) from None
    if len(data) > MAX_SOURCE:
        raise option.OptionInvalid(f"edit files: {one.value} for /{one.path} has more than {MAX_SOURCE} bytes")
    return data


def _file(entry: Any, owners: _Owners) -> _Wanted:
    if not isinstance(entry, dict) or not set(entry) <= KEYS:
        raise option.OptionInvalid(f"edit files: a file is not an object with only {', '.join(sorted(KEYS))}")
    path = option.text(entry, "path", "files").lstrip("/")
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or len(parts) > 32:
        raise option.OptionInvalid(f"edit files: {path[:80]!r} is not the path of a file")
    if parts[0] in VOLATILE:
        raise option.OptionInvalid(f"edit files: /{path[:80]} would not be there after the start")
    ways = [way for way in WAYS if way in entry]
    if len(ways) != 1:
        raise option.OptionInvalid(f"edit files: /{path[:80]} needs one of {', '.join(WAYS)}, and has {len(ways)}")
    mode = option.text(entry, "mode", "files", default="0755" if ways[0] == "folder" else "0644")
    if not _MODE.fullmatch(mode):
        raise option.OptionInvalid(f"edit files: {mode[:40]!r} is no mode of /{path[:80]}", 'such as "0644"')
    uid, gid = (owners.number(entry, key, path) for key in ("owner", "group"))
    return _Wanted(path, ways[0], _value(entry, ways[0], path), int(mode, 8), uid, gid)


def _value(entry: dict[str, Any], way: str, path: str) -> Any:
    value = entry[way]
    if way == "folder":
        if value is not True:
            raise option.OptionInvalid(f"edit files: folder of /{path[:80]} is not true")
        return None
    if way == "content":
        if not isinstance(value, str) or len(value) > MAX_CONTENT:
            raise option.OptionInvalid(f"edit files: the content of /{path[:80]} is no text of at most {MAX_CONTENT}")
        return value.encode("utf-8", "surrogateescape")
    if way in ("link", "source"):
        target = option.text(entry, way, "files")
        if not target:
            raise option.OptionInvalid(f"edit files: {way} of /{path[:80]} is empty")
        return target
    if not isinstance(value, list | tuple) or len(value) > MAX_PIECES or not all(isinstance(p, str) for p in value):
        raise option.OptionInvalid(f"edit files: base64 of /{path[:80]} is no list of at most {MAX_PIECES} texts")
    try:
        return b"".join(base64.b64decode(piece, validate=True) for piece in value)
    except (binascii.Error, ValueError):
        raise option.OptionInvalid(f"edit files: base64 of /{path[:80]} is none") from None


class _Owners:
    """Users and groups of the tree by name."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._known: dict[str, dict[str, int]] = {}

    def number(self, entry: dict[str, Any], key: str, path: str) -> int:
        """The number of the user ("owner") or group an entry names."""
        name = option.text(entry, key, "files", default="root")
        if not _OWNER.fullmatch(name):
            raise option.OptionInvalid(f"edit files: {key} of /{path[:80]} cannot be {name[:40]!r}")
        if name == "root" or (name.isdigit() and len(name) < 10):
            return 0 if name == "root" else int(name)
        file = "etc/passwd" if key == "owner" else "etc/group"
        if file not in self._known:
            rows = [line.split(":") for line in self.tree.text(file).splitlines()]
            # passwd(5), group(5): name, password, number.
            self._known[file] = {row[0]: int(row[2]) for row in rows if len(row) > 3 and row[2].isdigit()}
        if name not in self._known[file]:
            what = "user" if key == "owner" else "group"
            raise option.OptionInvalid(
                f"edit files: the image has no {what} {name} for /{path[:80]}", "add what brings it to the image"
            )
        return self._known[file][name]


def _word(one: _Wanted) -> str:
    return one.way if one.way in ("link", "folder") else "file"
