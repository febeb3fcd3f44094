"""The history of a lineage's tag, so that it can go back: `tags` in its directory, a line per change, newest last.

<seconds since 1970> <version> to|back
"""

from __future__ import annotations

import os
import re
from pathlib import Path

LINE = re.compile(r"([0-9]{1,12}) ([1-9][0-9]{0,8}) (to|back)")
LIMIT = 64 << 10  # bytes of history that are looked at: two thousand changes


def remember(lineage: Path, number: int, when: float, *, back: bool = False) -> None:
    """Note that nodes get `number` from now on. Does nothing if that is so already. Raises OSError."""
    if not back and _stack(lineage)[-1:] == [number]:
        return
    fd = os.open(lineage / "tags", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, f"{int(when)} {number} {'back' if back else 'to'}\n".encode())
    finally:
        os.close(fd)


def before(lineage: Path, current: int) -> list[int]:
    """Versions that nodes got before `current`, the last one first, each once. Going back undoes: after 1, 2, 3 and
    back to 2 the one before is 1, not 3. Raises OSError."""
    stack = _stack(lineage)
    if stack[-1:] == [current]:
        stack.pop()
    return [number for number in dict.fromkeys(reversed(stack)) if number != current]


def _stack(lineage: Path) -> list[int]:
    try:
        with (lineage / "tags").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LIMIT))
            text = file.read(LIMIT).decode("ascii", "replace")
    except FileNotFoundError:
        return []
    stack: list[int] = []
    for line in text.splitlines():
        match = LINE.fullmatch(line)  # a line cut off by a crash, or by LIMIT, is left out
        if match is None:
            continue
        number = int(match[2])
        if match[3] == "back" and number in stack:
            while stack[-1] != number:
                stack.pop()
        else:
            stack.append(number)
    return stack
