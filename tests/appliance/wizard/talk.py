"""The program on a terminal of its own, and somebody who types."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import termios
import time
from collections.abc import Sequence
from types import TracebackType

from tests.appliance.process import CHECKOUT, PATIENCE, clean_environment


class Talk:
    """A conversation; `said` is everything the program has printed."""

    def __init__(self, argv: Sequence[str], columns: int, **environ: str) -> None:
        self.fd, other = pty.openpty()
        termios.tcsetwinsize(self.fd, (24, columns))
        self.before = termios.tcgetattr(self.fd)
        # With the terminal as its own, so that Ctrl-C is a signal as it is for a person.
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *argv], cwd=CHECKOUT, stdin=other, stdout=other, stderr=other,
            env={**clean_environment(), "TERM": "vt100", **environ},
        )  # fmt: skip
        os.close(other)
        self.said, self.seen = "", 0

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)
        os.close(self.fd)

    def hear(self, pattern: str) -> str:
        """Read until the pattern has come since the last call; gives what it matched."""
        end = time.monotonic() + PATIENCE
        while (found := re.compile(pattern).search(self.said, self.seen)) is None:
            assert time.monotonic() < end, f"no {pattern!r} in {self.said[self.seen :]!r}"
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    self.said += os.read(self.fd, 65536).decode()
                except OSError:  # EIO: the other end is closed
                    raise AssertionError(f"it ended without {pattern!r}: {self.said[self.seen :]!r}") from None
        self.seen = found.end()
        return found[0]

    def type(self, text: str) -> None:
        """A line, with Enter."""
        os.write(self.fd, text.encode() + b"\n")

    def reply(self, *pairs: tuple[str, str]) -> None:
        """Hear a pattern, type a line; again and again."""
        for pattern, text in pairs:
            self.hear(pattern)
            self.type(text)

    def end(self) -> int:
        """Its exit code; the terminal must be as it was."""
        code = self.process.wait(PATIENCE)
        assert termios.tcgetattr(self.fd) == self.before
        return code
