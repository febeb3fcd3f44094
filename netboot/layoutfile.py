"""Layouts and edits as people write them: [[layout]] and [[edit]] tables of TOML, the first in the words of a recipe's
layout, the second with the name of the edit as `edit` and its options beside it."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from netboot import layout
from netboot.layout import LayoutFailed, parse_size
from netboot.plan import LayoutPart

_WORDS = tuple(entry.name for entry in fields(LayoutPart))
MAX_ROWS = 128


def read_layout(text: str, name: str) -> list[dict[str, Any]]:
    """The partitions of a file `name`, checked and completed, as a profile takes them. Every disk starts with the two
    boot partitions, which need not be named; `low` and `high` may be sizes in text. Raises LayoutFailed."""
    rows = _tables(text, name, "layout")
    parts = []
    for number, row in enumerate(rows, 1):
        where = f"{name}: partition {number}"
        if unknown := sorted(set(row) - set(_WORDS)):
            raise LayoutFailed(f"{where} has no {unknown[0][:40]!r}", f"it can have {', '.join(_WORDS)}")
        for key in ("low", "high"):
            if isinstance(row.get(key), str):
                row = {**row, key: parse_size(row[key])}
            elif not isinstance(row.get(key, 0), int) or isinstance(row.get(key), bool):
                raise LayoutFailed(f"{where}: {key} is no size", 'such as "8GiB"')
        if wrong := [key for key in _WORDS if key not in ("low", "high") and not isinstance(row.get(key, ""), str)]:
            raise LayoutFailed(f"{where}: {wrong[0]} is not a text")
        parts.append(row)
    found = layout.completed(parts)
    try:
        layout.check(found)
    except LayoutFailed as error:
        raise LayoutFailed(f"{name}: {error.message}", error.hint) from None
    return [asdict(part) for part in found]


def read_edits(text: str, name: str) -> list[dict[str, Any]]:
    """The edits of a file `name` as a profile takes them; what they may say is for the head to check. Raises
    LayoutFailed."""
    found = []
    for number, row in enumerate(_tables(text, name, "edit"), 1):
        if not isinstance(row.get("edit"), str):
            raise LayoutFailed(f"{name}: edit {number} does not say which one it is", 'edit = "resolv"')
        found.append({"edit": row["edit"], "options": {key: value for key, value in row.items() if key != "edit"}})
    return found


def _tables(text: str, name: str, key: str) -> Sequence[dict[str, Any]]:
    try:
        body = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise LayoutFailed(f"{name}: {str(error)[:200]}") from None
    rows = body.get(key)
    if set(body) - {key} or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise LayoutFailed(f"{name} does not consist of [[{key}]] tables", "see: gild.pyz help profiles")
    if not rows or len(rows) > MAX_ROWS:
        raise LayoutFailed(f"{name} has {len(rows)} [[{key}]] tables, there may be 1 to {MAX_ROWS}")
    return rows
