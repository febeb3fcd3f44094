"""Keys as they are pressed, on a terminal that is given back as it was, however the program ends."""

from __future__ import annotations

import os
import re
import select
import sys
import termios
import tty
from types import TracebackType

# What terminals send: ECMA-48 cursor keys, in normal and in application mode.
_NAMES = {
    "\x1b[A": "up", "\x1b[B": "down", "\x1bOA": "up", "\x1bOB": "down", "\r": "enter", "\n": "enter", "\x1b": "escape",
    "\x7f": "back", "\x08": "back",
}  # fmt: skip
_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[@-~]|\x1bO.|.", re.DOTALL)


class Keyboard:
    """Reads keys while it is a context; without a terminal there are none."""

    def __init__(self) -> None:
        self._fd = sys.stdin.fileno() if sys.stdin.isatty() else -1
        self._before: list[int | list[bytes | int]] | None = None

    def __enter__(self) -> Keyboard:
        if self._fd >= 0:
            self._before = termios.tcgetattr(self._fd)
            tty.setcbreak(self._fd)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._before is not None:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)

    def keys(self, seconds: float) -> list[str]:
        """The keys pressed within `seconds`, as soon as there are any: characters, or up, down, enter, escape, back.
        At the end of input there is "q"."""
        fds = [self._fd] if self._fd >= 0 else []
        if not select.select(fds, [], [], seconds)[0]:
            return []
        data = os.read(self._fd, 256).decode("utf-8", "replace")
        if not data:
            return ["q"]
        words = _SEQUENCE.findall(data)
        return [_NAMES.get(word, word) for word in words if word in _NAMES or len(word) == 1]
