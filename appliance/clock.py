"""Time for people and time for comparing."""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """Two clocks: `wall` for people, `steady` for everything that is compared. Steady time begins as wall time and
    then only follows the machine's uptime, so a head that corrects its clock by a year loses no lease and no order."""

    def __init__(self, wall: Callable[[], float] = time.time, uptime: Callable[[], float] = time.monotonic) -> None:
        self.wall = wall
        self._uptime = uptime
        self._offset = wall() - uptime()

    def steady(self) -> float:
        """Seconds since 1970 by the wall clock of the start."""
        return self._uptime() + self._offset
