"""Where the system came from: one small file that outlives every change made to the node by hand."""

from __future__ import annotations

import re
from typing import Any

from images.edits import option
from images.tree import Tree

OPTIONS = {"image": "name:version", "manifest": "sha256 of that version", "profile": "what the node was installed as"}
PATH = "etc/gild-release"
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}:[0-9]{1,9}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PROFILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def apply(root: str, options: dict[str, Any]) -> list[str]:
    """Write etc/gild-release in the manner of os-release(5): IMAGE, MANIFEST and PROFILE, a line each. No time stands
    in it, so installing the same again gives the same file. Raises OptionInvalid, TreeInvalid."""
    lines = []
    for name, form in (("image", _IMAGE), ("manifest", _DIGEST), ("profile", _PROFILE)):
        value = option.text(options, name, "origin")
        if not form.fullmatch(value):
            raise option.OptionInvalid(f"edit origin: option {name} is {value[:80]!r}, which is no {OPTIONS[name]}")
        lines.append(f"{name.upper()}={value}\n")
    return [f"installed from {options['image']} ({PATH})"] if Tree(root).write(PATH, "".join(lines), 0o644) else []
