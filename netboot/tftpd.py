"""The TFTP server's sockets: one listener, one socket per transfer, a fixed table of names behind a callable.

It serves what `lookup` hands out and never touches a path, so there is nothing to traverse and nothing to write.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

from netboot import tftp
from netboot.udp import Address, Drain, UdpError, open_udp

ACK_BUFFER = 64 << 10  # bytes: a transfer hears only 4-byte acknowledgements
ACKS_A_TURN = 16


class Source(Protocol):
    """Bytes to serve. `read` returns exactly `size` bytes at `offset`, quickly: it runs in the event loop."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, size: int, /) -> bytes: ...

    def close(self) -> None: ...


class BytesSource:
    """A Source in memory: generated files (a GRUB configuration for one node)."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    @property
    def size(self) -> int:
        return len(self._content)

    def read(self, offset: int, size: int, /) -> bytes:
        return self._content[offset : offset + size]

    def close(self) -> None:
        """Nothing is open."""


Lookup = Callable[[str, str], "Source | None"]
OnDone = Callable[[str, str, int, float, "str | None"], None]


class TftpServer:
    """Read-only TFTP. `lookup(name, client_ip)` gives the bytes or None (error 1), or raises PermissionError (error 2,
    with its text); it may be called with any text.

    `on_done(client_ip, name, bytes, seconds, error)` is told of every transfer that moved data or failed; `error` is
    None for a complete one. A client that only asked for the size (UEFI firmware does, then comes again) is not
    reported, nor one whose place was taken before it had said a word. At the limits a request is left unanswered:
    clients repeat it, whereas an error ends their boot.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        lookup: Lookup,
        *,
        address: str = "0.0.0.0",
        interface: str | None = None,
        port: int = 69,
        max_blksize: int = tftp.MAX_BLKSIZE,
        max_transfers: int = 1024,
        max_per_client: int = 16,
        on_done: OnDone | None = None,
        log: Callable[[str], None] | None = None,
    ) -> None:
        """Opens the port at once. `address` is the one transfers are sent from, so give the head's own. Raises
        UdpError."""
        self.refused = 0  # requests left unanswered at a limit
        self._loop, self._lookup, self._on_done, self._log = loop, lookup, on_done, log
        self._address, self._interface, self._max_blksize = address, interface, max_blksize
        self._max_transfers, self._max_per_client = max_transfers, max_per_client
        self._transfers: dict[Address, _Session] = {}
        self._per_client: Counter[str] = Counter()
        sock = open_udp(port, interface=interface, address=address)
        self.port: int = sock.getsockname()[1]
        self.drain = Drain(loop, sock, self._request, name="TFTP", log=log)

    @property
    def transfers(self) -> int:
        """Transfers in progress."""
        return len(self._transfers)

    def close(self) -> None:
        """Stop listening and drop every transfer."""
        self.drain.close()
        for session in list(self._transfers.values()):
            session.end("server is stopping")

    def _request(self, data: bytes, source: Address) -> Iterable[tuple[bytes, Address]]:
        # Only the two requests are answered with errors: an error for an error, sent back and forth between two
        # servers by one forged packet, would never stop.
        if data[:2] not in (b"\x00\x01", b"\x00\x02"):
            return ()
        earlier = self._transfers.get(source)
        if earlier is not None and earlier.request_bytes == data and not earlier.heard:
            return ()  # repeated before our answer came through: that is repeated by its own timer
        try:
            request = tftp.parse_request(data)
        except tftp.TftpInvalid as invalid:
            return ((tftp.error(invalid.code, invalid.message), source),)
        if earlier is not None:
            earlier.end("client began again")
        if self._per_client[source[0]] >= self._max_per_client or not self._room():
            self.refused += 1
            return ()
        try:
            bytes_source = self._lookup(request.name, source[0])
        except PermissionError as error:
            return ((tftp.error(tftp.ACCESS, str(error)), source),)
        if bytes_source is None:
            return ((tftp.error(tftp.NOT_FOUND), source),)
        if request.mode == "netascii":
            try:
                if bytes_source.size > tftp.MAX_NETASCII:
                    return ((tftp.error(0, "file is too large for text mode: use octet"), source),)
                content = bytes_source.read(0, bytes_source.size)
            finally:
                bytes_source.close()
            bytes_source = BytesSource(tftp.netascii(content))
        transfer = tftp.Transfer(request, bytes_source.size, bytes_source.read, max_blksize=self._max_blksize)
        try:
            sock = open_udp(0, interface=self._interface, address=self._address, receive_buffer=ACK_BUFFER)
        except UdpError:
            bytes_source.close()  # out of descriptors: the client asks again
            self.refused += 1
            raise
        session = _Session(self._loop, sock, source, transfer, bytes_source, data, self._ended)
        session.name = request.name
        self._transfers[source] = session
        self._per_client[source[0]] += 1
        session.begin()
        return ()

    def _room(self) -> bool:
        """There is place for one more transfer, if need be that of the oldest whose client never answered: forged
        requests would otherwise shut everybody out for the half minute until they time out."""
        if len(self._transfers) < self._max_transfers:
            return True
        silent = next((session for session in self._transfers.values() if not session.heard), None)
        if silent is None:
            return False
        silent.displaced = True
        silent.end("displaced")
        return True

    def _ended(self, session: _Session) -> None:
        client = session.peer[0]
        if self._transfers.get(session.peer) is session:
            del self._transfers[session.peer]
        self._per_client[client] -= 1
        if self._per_client[client] <= 0:
            del self._per_client[client]
        if self._on_done is not None and not session.transfer.probe and not session.displaced:
            seconds = self._loop.time() - session.begun
            self._on_done(client, session.name, session.transfer.bytes_sent, seconds, session.failed)


class _Session:
    """One transfer's socket and timer around its tftp.Transfer."""

    name = ""
    heard = False  # the client has answered at least once
    displaced = False  # its place was needed by another
    failed: str | None = None

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        peer: Address,
        transfer: tftp.Transfer,
        source: Source,
        request_bytes: bytes,
        ended: Callable[[_Session], None],
    ) -> None:
        self.peer, self.transfer, self.request_bytes = peer, transfer, request_bytes
        self.begun = loop.time()
        self._loop, self._sock, self._source, self._on_end = loop, sock, source, ended
        self._unsent: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def begin(self) -> None:
        self._loop.add_reader(self._sock, self._readable)
        self._step(self.transfer.start)
        if not self._closed:
            self._timer = self._loop.call_at(self.transfer.deadline, self._timed)

    def end(self, failed: str | None) -> None:
        if self._closed:
            return
        self._closed, self.failed = True, failed
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._sock)
        if self._unsent:
            self._loop.remove_writer(self._sock)
        self._sock.close()
        self._source.close()
        self._on_end(self)

    def _readable(self) -> None:
        for _ in range(ACKS_A_TURN):
            if self._closed:
                return
            try:
                data, source = self._sock.recvfrom(600)
            except OSError:
                return
            if source != self.peer:
                # RFC 1350 section 4: tell the stranger, leave the transfer alone. Not in answer to an error.
                if data[:2] != b"\x00\x05":
                    self._put(tftp.error(tftp.UNKNOWN_TID), source)
                continue
            self.heard = True
            if self._step(self.transfer.on_packet, data):
                return  # in lock step the next ACK is not here yet: asking for it would be a system call in vain

    def _timed(self) -> None:
        # Not moved at every packet: it looks at the deadline when it rings, which costs nothing in the fast path.
        self._step(self.transfer.on_timer)
        if not self._closed:
            self._timer = self._loop.call_at(self.transfer.deadline, self._timed)

    def _step(self, turn: Callable[..., list[bytes]], *packet: bytes) -> bool:
        """One turn of the transfer; True if it sent something."""
        try:
            packets = turn(*packet, self._loop.time())
        except Exception as error:  # the source could not be read
            self._put(tftp.error(0, "file cannot be read"), self.peer)
            self.end(f"reading {self.name} failed: {error}")
            return True
        self._send(packets)
        if self.transfer.done:
            self.end(self.transfer.failed)
        return bool(packets)

    def _send(self, packets: list[bytes]) -> None:
        if not packets:
            return
        if self._unsent:  # the newer window takes the place of the older one's rest
            self._unsent = packets
            return
        for index, packet in enumerate(packets):
            if not self._put(packet, self.peer):
                self._unsent = packets[index:]
                self._loop.add_writer(self._sock, self._writable)
                return

    def _writable(self) -> None:
        packets, self._unsent = self._unsent, []
        self._loop.remove_writer(self._sock)
        self._send(packets)

    def _put(self, packet: bytes, destination: Address) -> bool:
        """False if the send buffer is full; what the network refuses counts as lost on the way."""
        try:
            self._sock.sendto(packet, destination)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True
