"""The names of an archive's members, which may be anything."""

from __future__ import annotations

import os

from images.errors import SourceInvalid

MAX_PATH = 3072  # bytes; PATH_MAX is 4096, with the path of the store before it
NAME_MAX = 255  # bytes of one name (linux/limits.h)
MAX_DEPTH = 256  # of nested directories; no system has 50


def show(name: str) -> str:
    """A name out of an archive for a message: one line, not too long."""
    return repr(name if len(name) <= 200 else name[:200] + "...")


def clean(name: str) -> str:
    """A member's path without leading "/" and "./"; raises SourceInvalid for one that leads out of the tree."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    joined = "/".join(parts)
    if ".." in parts or "\0" in name:
        raise SourceInvalid(f"archive member {show(name)} leads out of the tree")
    try:
        long = len(os.fsencode(joined)) > MAX_PATH or any(len(os.fsencode(part)) > NAME_MAX for part in parts)
    except UnicodeEncodeError:  # out of JSON, half a character
        long = True
    if long:
        raise SourceInvalid(f"archive member {show(name)} has an impossible name")
    if len(parts) > MAX_DEPTH:
        raise SourceInvalid(f"archive member {show(name)} is nested more than {MAX_DEPTH} directories deep")
    return joined
