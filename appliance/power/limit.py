"""A span of time that a piece of work has in all, however many steps it takes."""

from __future__ import annotations

import time

from netboot.bmc import BmcFailed


class Limit:
    """Begins when it is made."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self.seconds = seconds

    def left(self, most: float, act: str) -> float:
        """Seconds that are left, `most` at most. Raises BmcFailed, naming the act, if there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise BmcFailed(f"{act}: not done after {self.seconds:.0f} s")
        return min(left, most)

    def pause(self, seconds: float) -> bool:
        """Wait that long, or shorter if the time runs out; whether any is left."""
        time.sleep(max(0.0, min(seconds, self._end - time.monotonic())))
        return time.monotonic() < self._end
