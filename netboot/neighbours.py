"""Whose card an address of this wire is, by the kernel's own table: what a machine cannot just say of itself."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import socket
import struct

_SIOCGARP = 0x8954  # arp(7)
_ATF_COM = 0x02  # the entry is complete
_ARPHRD_ETHER = 1
# struct arpreq (linux/if_arp.h): protocol address, hardware address, flags, mask, device
_ARPREQ = struct.Struct("@16s16si16s16s")


class Neighbours:
    """Asks the kernel about one interface. Somebody who has just spoken to this machine is in its table."""

    def __init__(self, interface: str) -> None:
        self._device = interface.encode()[:15]
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def mac(self, address: str) -> str:
        """The card with that address, lower case with colons, or "" if the kernel does not know one."""
        try:
            asked = struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))
            found = fcntl.ioctl(self._sock, _SIOCGARP, _ARPREQ.pack(asked, bytes(16), 0, bytes(16), self._device))
        except OSError as error:
            if error.errno in (errno.ENXIO, errno.ENODEV, errno.EINVAL) or not error.errno:
                return ""
            raise
        _, hardware, flags, _, _ = _ARPREQ.unpack(found)
        family = int(struct.unpack_from("=H", hardware)[0])
        return hardware[2:8].hex(":") if flags & _ATF_COM and family == _ARPHRD_ETHER else ""

    def close(self) -> None:
        """No more questions."""
        with contextlib.suppress(OSError):
            self._sock.close()
