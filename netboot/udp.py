"""The only datagram sockets: opening them with errors people can act on, and draining them.

asyncio's own datagram transport reads one datagram per turn of the loop; beside 64 busy HTTP transfers a turn takes
15-30 ms, and 20-50 % of DHCP requests were lost (measured). `Drain` reads up to 64 a turn: 99.5 of 100 answered.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Interface
from pathlib import Path

from images.errors import GildError

Address = tuple[str, int]
Handler = Callable[[bytes, Address], "Iterable[tuple[bytes, Address]] | None"]

RECEIVE_BUFFER = 4 << 20  # bytes: 1000 nodes that ask within one busy second (measured: none lost)
STALE_SECONDS = 1.0  # a client that asked longer ago has asked again since
DEEP = 16  # datagrams of one turn after which the queue counts as a backlog
# Linux's numbers, the same on x86 and ARM (asm-generic/socket.h); the socket module does not name them.
_SO_RCVBUFFORCE, _SO_TIMESTAMP = 33, 29
_TIMEVAL = struct.Struct("@ll")
_SIOCGIFFLAGS, _SIOCGIFADDR, _SIOCGIFNETMASK, _SIOCGIFHWADDR = 0x8913, 0x8915, 0x891B, 0x8927  # netdevice(7)
_IFF_UP, _IFF_LOOPBACK, _IFF_RUNNING = 0x1, 0x8, 0x40


class UdpError(GildError):
    """A socket cannot be opened; the hint says what to do."""


@dataclass(frozen=True)
class Interface:
    """A network device of the head as it is now. `address` is its first IPv4 address, `link` its carrier."""

    name: str
    mac: str
    address: IPv4Interface | None
    up: bool
    link: bool
    loopback: bool


def interface_address(name: str) -> IPv4Interface:
    """The first IPv4 address of a device, with its network. Raises UdpError if it does not exist or has none."""
    if not any(name == known for _, known in socket.if_nameindex()):
        raise _no_interface(name)
    address = _ioctl_address(name)
    if address is None:
        raise UdpError(
            f"network interface {name} has no IPv4 address", f"give it one: ip address add 10.0.0.1/16 dev {name}"
        )
    return address


def interfaces() -> list[Interface]:
    """All network devices, by index. One that vanishes meanwhile is left out."""
    found = []
    for _, name in socket.if_nameindex():
        try:
            flags = int(struct.unpack_from("=H", _ioctl(_SIOCGIFFLAGS, name), 16)[0])
            mac = _ioctl(_SIOCGIFHWADDR, name)[18:24].hex(":")
        except OSError:
            continue
        up, loopback = bool(flags & _IFF_UP), bool(flags & _IFF_LOOPBACK)
        found.append(Interface(name, mac, _ioctl_address(name), up, bool(flags & _IFF_RUNNING), loopback))
    return found


def open_udp(
    port: int,
    *,
    interface: str | None = None,
    address: str = "0.0.0.0",
    broadcast: bool = False,
    reuse: bool = False,
    receive_buffer: int = RECEIVE_BUFFER,
) -> socket.socket:
    """A non-blocking UDP socket on `address`:`port` (0: any free port), on one device only if `interface` is given.

    `broadcast` allows sending to 255.255.255.255; `reuse` shares the port with a socket that does the same (off by
    default, so that a second DHCP server on this machine is noticed); `receive_buffer` in bytes. Raises UdpError.
    """
    return _open(socket.SOCK_DGRAM, port, interface, address, broadcast, reuse, receive_buffer)


def open_tcp(port: int, *, interface: str | None = None, address: str = "0.0.0.0") -> socket.socket:
    """A listening, non-blocking TCP socket, for the protocols that have both kinds (DNS). Raises UdpError."""
    sock = _open(socket.SOCK_STREAM, port, interface, address, False, True, 0)
    sock.listen(64)
    return sock


class Drain:
    """Reads a socket in an event loop, up to `limit` datagrams a turn, and sends what `handler` returns.

    A handler that raises costs its datagram and a log line, nothing more. Counters: `received`, `answered` (packets
    sent), `dropped` (stale or oversize, or the network did not take the answer), `errors` (handler failures). With a
    backlog, datagrams that have waited over a second are dropped unread: answering them in turn made a server at
    2000 requests/s answer 359 (measured), all of them too late.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        handler: Handler,
        *,
        name: str,
        limit: int = 64,
        max_size: int = 2048,
        log: Callable[[str], None] | None = None,
    ) -> None:
        """`max_size` in bytes: longer datagrams are dropped. `log` gets at most one line a second. The socket is the
        drain's from here on."""
        self.received = self.answered = self.dropped = self.errors = 0
        self.name = name
        self._loop, self._sock, self._handler = loop, sock, handler
        self._limit, self._max_size, self._log = limit, max_size, log
        self._logged, self._unlogged = -1.0, 0
        self._closed = False
        self._behind_at = -STALE_SECONDS
        if sock.family == socket.AF_INET:
            sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMP, 1)
        loop.add_reader(sock, self._ready)

    def send(self, data: bytes, destination: Address) -> bool:
        """Send one datagram, also later than the question. False if the network does not take it: then it is counted
        as dropped and the client asks again."""
        if self._closed:
            return False
        try:
            self._sock.sendto(data, destination)
        except OSError as error:
            self.dropped += 1
            self._say(f"{self.name}: cannot send to {destination[0]}: {error.strerror or error}")
            return False
        self.answered += 1
        return True

    def close(self) -> None:
        """Stop reading and close the socket. Harmless twice."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._sock)
            self._sock.close()

    def _ready(self) -> None:
        # The last turn left some unread, a moment ago: what comes now has waited already.
        behind = self._loop.time() - self._behind_at < STALE_SECONDS
        for count in range(self._limit):
            if self._closed:
                return
            try:
                data, control, _, source = self._sock.recvmsg(self._max_size + 1, 64)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                # An ICMP error of an earlier send, or the device went away: the socket itself stays good.
                self._say(f"{self.name}: cannot receive: {error.strerror or error}")
                return
            self.received += 1
            if len(data) > self._max_size or ((behind or count >= DEEP) and _age(control) > STALE_SECONDS):
                self.dropped += 1
                continue
            try:
                for answer, destination in self._handler(data, source) or ():
                    self.send(answer, destination)
            except Exception as error:
                self.errors += 1
                what = f"{type(error).__name__}: {error!s:.200}"
                self._say(f"{self.name}: datagram of {len(data)} bytes from {source[0]}: {what}")
        self._behind_at = self._loop.time()

    def _say(self, line: str) -> None:
        now = self._loop.time()
        if self._log is None or (self._logged >= 0 and now - self._logged < 1.0):
            self._unlogged += 1
            return
        if self._unlogged:
            line += f" (and {self._unlogged} like it)"
        self._logged, self._unlogged = now, 0
        self._log(line)


def _age(control: list[tuple[int, int, bytes]]) -> float:
    """Seconds a datagram has waited in the kernel; 0 if unknown. The kernel stamps wall time, so more than an hour
    means that somebody set the clock, not that the datagram is old."""
    for level, kind, value in control:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMP and len(value) >= _TIMEVAL.size:
            seconds, micro = _TIMEVAL.unpack_from(value)
            age = time.time() - seconds - micro / 1e6
            return age if 0 < age < 3600 else 0.0
    return 0.0


def _open(
    kind: socket.SocketKind, port: int, interface: str | None, address: str, broadcast: bool, reuse: bool, buffer: int
) -> socket.socket:
    what = f"{'TCP' if kind == socket.SOCK_STREAM else 'UDP'} port {port} on {interface or address}"
    sock = socket.socket(socket.AF_INET, kind)
    try:
        sock.setblocking(False)
        if reuse:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if broadcast:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        if buffer:
            try:  # past net.core.rmem_max, which is 208 KiB by default; needs CAP_NET_ADMIN
                sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer)
            except PermissionError:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        if interface:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
        sock.bind((address, port))
    except OSError as error:
        sock.close()
        raise _explain(error, what, port, kind, interface, address) from None
    return sock


def _explain(
    error: OSError, what: str, port: int, kind: socket.SocketKind, interface: str | None, address: str
) -> UdpError:
    if error.errno in (errno.ENODEV, errno.ENXIO) and interface:
        return _no_interface(interface)
    if error.errno == errno.EADDRINUSE:
        owner = _port_owner(port, "tcp" if kind == socket.SOCK_STREAM else "udp")
        hint = f"stop {owner} first" if owner else f"find it with: ss -lnup 'sport = {port}'"
        return UdpError(f"{what} is in use{f' by {owner}' if owner else ''}", hint)
    if error.errno in (errno.EACCES, errno.EPERM):
        return UdpError(f"no permission to open {what}", "run as root, or with CAP_NET_BIND_SERVICE and CAP_NET_RAW")
    if error.errno == errno.EADDRNOTAVAIL:
        return UdpError(f"cannot open {what}: no network interface of this machine has the address {address}")
    return UdpError(f"cannot open {what}: {error.strerror}")


def _no_interface(name: str) -> UdpError:
    known = ", ".join(known for _, known in socket.if_nameindex() if known != "lo")
    return UdpError(f"no network interface {name!r}", f"this machine has: {known or 'only lo'}")


def _port_owner(port: int, table: str) -> str:
    """Name and PID of the process that holds a local port, or "": /proc tells root, and others about their own. This
    one comes last, as it may well have the same port on another address."""
    inodes = set()
    for name in (table, table + "6"):
        try:
            lines = Path(f"/proc/net/{name}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            columns = line.split()
            if len(columns) > 9 and columns[1].rpartition(":")[2] == f"{port:04X}":
                inodes.add(f"socket:[{columns[9]}]")
    others = (entry for entry in Path("/proc").iterdir() if entry.name.isdecimal() and int(entry.name) != os.getpid())
    for process in (*others, Path(f"/proc/{os.getpid()}")) if inodes else ():
        try:
            if any(os.readlink(fd) in inodes for fd in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (PID {process.name})"
        except OSError:
            continue
    return ""


def _ioctl_address(name: str) -> IPv4Interface | None:
    try:
        address, mask = (socket.inet_ntoa(_ioctl(ask, name)[20:24]) for ask in (_SIOCGIFADDR, _SIOCGIFNETMASK))
    except OSError:
        return None
    return IPv4Interface(f"{address}/{mask}")


def _ioctl(request: int, name: str) -> bytes:
    """The 40 bytes of struct ifreq as the kernel filled it in: name in the first 16, the answer behind. Asked of a
    socket and not of /sys, which shows the network namespace it was mounted in."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return fcntl.ioctl(sock, request, struct.pack("16s24x", name.encode()[:15]))
