"""A marked block in a file that a person also edits: read it, put another in its place, see whether it was changed.

    # gild slurm: begin 5f2c0a1b (gild.pyz cluster slurm writes what stands between these two lines)
    ...
    # gild slurm: end

The eight digits are of the sha256 of the lines between, so that a block somebody has edited is known as such.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from images.errors import GildError


class BlockBroken(GildError):
    """The marks of a block are not there in pairs."""


@dataclass(frozen=True)
class Parts:
    """A file cut at its block. Each part is whole lines; `body` is None where there is no block. `edited`: the body is
    not what was written there."""

    before: str
    body: str | None = None
    after: str = ""
    edited: bool = False


def split(text: str, name: str) -> Parts:
    """`text` cut at the block `name`. Raises BlockBroken."""
    begin = re.compile(rf"^# gild {re.escape(name)}: begin(?: ([0-9a-f]{{8}}))?\b.*$")
    lines = text.splitlines(keepends=True)
    begins = [number for number, line in enumerate(lines) if begin.match(line)]
    ends = [number for number, line in enumerate(lines) if line.rstrip() == _end(name)]
    if not begins and not ends:
        return Parts(text)
    if len(begins) != 1 or len(ends) != 1 or ends[0] < begins[0]:
        where = ", ".join(str(number + 1) for number in sorted([*begins, *ends])[:6])
        raise BlockBroken(
            f"the marks of gild's block '{name}' do not stand there as one pair (line {where})",
            "remove these lines, and what is between them if it is gild's",
        )
    body = "".join(lines[begins[0] + 1 : ends[0]])
    found = begin.match(lines[begins[0]])
    edited = found is None or found[1] != digest(body)
    return Parts("".join(lines[: begins[0]]), body, "".join(lines[ends[0] + 1 :]), edited)


def put(text: str, name: str, body: str) -> str:
    """`text` with `body` (whole lines) as its block `name`: in the place of the present one, else at the end; without
    the block if `body` is empty. Raises BlockBroken."""
    parts = split(text, name)
    if not body:
        return parts.before + parts.after
    body += "" if body.endswith("\n") else "\n"
    before = parts.before
    if parts.body is None and before:
        before = before.rstrip("\n") + "\n\n"
    verb = f"(gild.pyz cluster {name} writes what stands between these two lines)"
    return f"{before}# gild {name}: begin {digest(body)} {verb}\n{body}{_end(name)}\n{parts.after}"


def digest(body: str) -> str:
    """Eight hex digits that change when the body does."""
    return hashlib.sha256(body.encode()).hexdigest()[:8]


def _end(name: str) -> str:
    return f"# gild {name}: end"
