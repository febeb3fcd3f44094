"""Whole files of the site's own, put in place as they are given."""

from __future__ import annotations

import re
from typing import Any

from images.edits import option
from images.tree import Tree

OPTIONS = {"files": 'list of objects: path, content (text), and optionally mode ("0644")'}
MAX_FILES = 1024
MAX_CONTENT = 64 * 1024  # characters of one file
_MODE = re.compile(r"0?[0-7]{3}")
# Mounted over at boot: what is written there is never seen.
VOLATILE = ("dev", "proc", "sys", "run")


def apply(root: str, options: dict[str, Any]) -> list[str]:
    """Write each of `files`, with the directories above it, owned by root. A link of that name is replaced and not
    followed. All are checked before the first is written. Raises OptionInvalid, TreeInvalid."""
    given = options.get("files", [])
    if not isinstance(given, list | tuple) or len(given) > MAX_FILES:
        raise option.OptionInvalid(f"edit files: files is not a list of at most {MAX_FILES}")
    wanted = [_file(entry) for entry in given]
    tree = Tree(root)
    changed = [path for path, content, mode in wanted if tree.write(path, content, mode, group=0)]
    return [f"file {path}" for path in changed]


def _file(entry: Any) -> tuple[str, str, int]:
    """(path in the tree, content, mode)."""
    if not isinstance(entry, dict) or not set(entry) <= {"path", "content", "mode"}:
        raise option.OptionInvalid("edit files: a file is not an object with path, content and mode")
    path = option.text(entry, "path", "files").lstrip("/")
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or len(parts) > 32:
        raise option.OptionInvalid(f"edit files: {path[:80]!r} is not the path of a file")
    if parts[0] in VOLATILE:
        raise option.OptionInvalid(f"edit files: /{path[:80]} would not be there after the start")
    content = entry.get("content")
    if not isinstance(content, str) or len(content) > MAX_CONTENT:
        raise option.OptionInvalid(f"edit files: the content of /{path[:80]} is no text of at most {MAX_CONTENT}")
    mode = option.text(entry, "mode", "files", default="0644")
    if not _MODE.fullmatch(mode):
        raise option.OptionInvalid(f"edit files: {mode[:40]!r} is no mode of /{path[:80]}", 'such as "0644"')
    return path, content, int(mode, 8)
