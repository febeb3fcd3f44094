"""What this process may do: root is not always root."""

from __future__ import annotations

import os
import re

SYS_ADMIN = 21  # CAP_SYS_ADMIN, linux/capability.h


def root_may_mount() -> bool:
    """Whether a process of root has the right to mount. A service with a bounded set of capabilities has not; whoever
    is not root at all is told so elsewhere, and counts as one who may."""
    if os.geteuid():
        return True
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        found = re.search(r"^CapEff:\s*([0-9a-f]+)$", file.read(), re.MULTILINE)  # proc(5)
    return found is None or bool(int(found[1], 16) >> SYS_ADMIN & 1)
