"""Telling systemd how the process does: sd_notify(3), without its library."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(*lines: str) -> None:
    """Send lines such as READY=1 to whoever started this process, if that is systemd (NOTIFY_SOCKET). It is never an
    error: the datagram is given up where it would have to wait, for the loop that serves must not."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.setblocking(False)
        # A leading @ is an abstract name (unix(7)).
        sock.sendto("\n".join(lines).encode(), "\0" + address[1:] if address.startswith("@") else address)
