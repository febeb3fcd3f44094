"""Listens for what switches say of themselves, while the machine does other things."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterable

from netboot import lldp
from netboot.report import Nic, Seat

MAX_SEATS = 64
_OUTGOING = 4  # PACKET_OUTGOING, packet(7): our own frames, which bridges of a test machine may send
_SOL_PACKET, _ADD_MEMBERSHIP, _MULTICAST = 263, 1, 0  # linux/if_packet.h
_MREQ = struct.Struct("@iHH8s")


class Switches:
    """Hears LLDP on all network cards that are up. `seats` are the ports they are on, as far as they are known."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._seats: dict[str, Seat] = {}
        self._lock = threading.Lock()

    def listen(self, nics: Iterable[Nic]) -> None:
        """Begin, in a thread of its own. A machine on which that cannot be done does without."""
        try:
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(lldp.PROTOCOL))
        except OSError as error:
            self._log(f"switches are not listened to: {error.strerror}")
            return
        for nic in nics:
            with contextlib.suppress(OSError):  # a card that is gone, or takes no group
                wanted = _MREQ.pack(socket.if_nametoindex(nic.name), _MULTICAST, 6, lldp.GROUP)
                sock.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, wanted)
        threading.Thread(target=self._hear, args=(sock,), name="lldp", daemon=True).start()

    def seats(self) -> tuple[Seat, ...]:
        """What is known now."""
        with self._lock:
            return tuple(self._seats.values())

    def _hear(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                body, source = sock.recvfrom(2048)
                self.heard(body, source[0], source[2])

    def heard(self, body: bytes, nic: str, kind: int = 0) -> None:
        """One frame on a network card."""
        found = lldp.parse(body) if kind != _OUTGOING else None
        if found is None:
            return
        seat = Seat(nic, *found)
        with self._lock:
            if self._seats.get(nic) == seat or (nic not in self._seats and len(self._seats) >= MAX_SEATS):
                return
            self._seats[nic] = seat
        self._log(f"{nic} is on port {seat.port} of the switch {seat.switch}")
