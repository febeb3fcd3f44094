"""Where in a recipe's text something stands, so that an error can name the line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from dataclasses import dataclass

from images.errors import RecipeInvalid


@dataclass(frozen=True, slots=True)
class Where:
    """A text with its name ("recipe", "set nfs-client"). Without the text, errors name no line."""

    what: str = "recipe"
    text: str = ""

    def key(self, key: str) -> str:
        """ "recipe, line 3": the first line that sets `key`."""
        return f"{self.what}, line {line_of(self.text, key)}" if self.text else self.what

    def value(self, value: str, key: str) -> str:
        """The first line that has `value` in quotes, else the one that sets `key`."""
        at = min((i for q in "\"'" if (i := self.text.find(f"{q}{value}{q}")) >= 0), default=-1) if value else -1
        if at < 0:
            return self.key(key)
        line = self.text.count("\n", 0, at) + 1
        return f"{self.what}, line {line}"

    def unknown(self, key: str, known: Collection[str], inside: str = "") -> RecipeInvalid:
        """The error for a key that nothing is known of, with the nearest known one."""
        near = difflib.get_close_matches(key, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        return RecipeInvalid(f"{self.key(key)}:{inside and f' {inside}:'} unknown key {key!r}", hint)


def line_of(text: str, key: str) -> int:
    """Number of the first line that sets `key`, from 1; 1 if it cannot be found (a dotted or escaped key)."""
    quoted = re.escape(key)
    pattern = re.compile(rf"""(?m)(?:^\s*|[{{,]\s*|\[|\.)["']?{quoted}["']?\s*(?:[.=\]])""")
    match = pattern.search(text)
    return text.count("\n", 0, match.start() + len(match[0]) - len(match[0].lstrip())) + 1 if match else 1
