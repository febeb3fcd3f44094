"""TFTP reads (RFC 1350, RFC 2347-2349, RFC 7440) as bytes in, bytes out: requests, errors and one transfer's state.

Requests, option acknowledgements and errors go through tftpy's packet classes. DATA and ACK, which come by the
thousand, are packed here: measured 0.6 us a block against 2.7 us. tftpy raises AssertionError, UnicodeDecodeError,
struct.error and more for bad packets, none of it documented: everything it raises becomes TftpInvalid here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from images.errors import GildError

MAX_REQUEST = 512  # bytes: RFC 2347 section 2
MAX_BLKSIZE = 1468  # bytes: an Ethernet frame of 1500 less IP, UDP and TFTP headers; larger blocks arrive in fragments
MAX_WINDOW = 64  # blocks: beyond it nothing gets faster (measured) and a burst overruns small receivers
MAX_RETRIES = 6  # unanswered repeats: a forged request must not turn us into an amplifier
MAX_NETASCII = 1 << 20  # bytes: converted in memory; boot files are fetched in octet mode
RRQ, WRQ, DATA, ACK, ERROR, OACK = 1, 2, 3, 4, 5, 6
NOT_FOUND, ACCESS, ILLEGAL, UNKNOWN_TID, OPTION = 1, 2, 4, 5, 8  # RFC 1350 appendix I, RFC 2347

_HEAD = struct.Struct("!HH")


class TftpInvalid(GildError):
    """A datagram is not a TFTP request we answer. `code` is the error code to send back."""

    def __init__(self, message: str, code: int = ILLEGAL) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class ReadRequest:
    """What a client wants to read. `mode` is "octet" or "netascii"; option names are in lower case, values text."""

    name: str
    mode: str
    options: dict[str, str]


def parse_request(data: bytes) -> ReadRequest:
    """Read the first datagram of a client. Raises TftpInvalid, and nothing else; its `code` and message are meant for
    the client (write requests: code 2)."""
    if len(data) > MAX_REQUEST:
        raise TftpInvalid(f"request of {len(data)} bytes is longer than {MAX_REQUEST}")
    if data[:2] == b"\x00\x02":
        raise TftpInvalid("read only", ACCESS)
    if data[:2] != b"\x00\x01":
        raise TftpInvalid("not a read request")
    from tftpy.TftpPacketFactory import TftpPacketFactory  # here: it costs every command of the .pyz 40 ms otherwise

    try:
        packet: Any = TftpPacketFactory().parse(data)
        name, mode = str(packet.filename), str(packet.mode)
        options = {str(key).lower(): str(value) for key, value in packet.options.items()}
    except Exception as error:
        raise TftpInvalid(f"malformed read request: {type(error).__name__}") from None
    if not name or not name.isprintable():
        raise TftpInvalid("file name is empty or not printable", ACCESS)
    if mode not in ("octet", "netascii"):
        raise TftpInvalid("unknown transfer mode")
    return ReadRequest(name, mode, options)


def error(code: int, message: str = "") -> bytes:
    """An ERROR packet. Without `message` it carries RFC 1350's own words."""
    from tftpy.TftpPacketTypes import TftpPacketERR

    packet: Any = TftpPacketERR()
    packet.errorcode = code
    # tftpy sends only its fixed texts; the table it takes them from belongs to the packet.
    packet.errmsgs[code] = (message or packet.errmsgs.get(code, b"").decode()).encode("ascii", "replace")[:256]
    return bytes(packet.encode().buffer)


def read_error(data: bytes) -> tuple[int, str]:
    """Code and printable message of an ERROR packet, also of one cut short. Never raises."""
    code = int.from_bytes(data[2:4], "big")
    return code, "".join(chr(b) if 32 <= b < 127 else "?" for b in data[4:260].split(b"\x00")[0])


def netascii(content: bytes) -> bytes:
    """`content` as the text mode of RFC 764 wants it on the wire: LF becomes CR LF, a lone CR becomes CR NUL."""
    return content.replace(b"\r", b"\r\x00").replace(b"\n", b"\r\n")


class Transfer:
    """One read in progress: it is told of packets and the time, and returns the packets to send.

    Every transfer ends: `done` becomes True when the client has acknowledged everything, has sent an error, or has
    left 6 repeats unanswered; `failed` then tells why, or is None. `deadline` is when `on_timer` wants to be called,
    in the caller's clock (seconds).
    """

    def __init__(
        self,
        request: ReadRequest,
        size: int,
        read: Callable[[int, int], bytes],
        *,
        max_blksize: int = MAX_BLKSIZE,
    ) -> None:
        """`read(offset, size)` returns the bytes asked for out of `size` bytes; what it raises, or TftpInvalid if it
        returns fewer, passes through the call that needed it (the caller sends an error and ends the transfer)."""
        self.size = size
        self.blksize, self.window, self.timeout = 512, 1, 1.0
        self.deadline = 0.0
        self.done = False
        self.failed: str | None = None
        self.bytes_sent = 0  # payload, repeats included
        self._read = read
        self._backoff = True
        self._oack = self._negotiate(request.options, max_blksize)
        self._blocks = size // self.blksize + 1  # the last one is short, often empty: RFC 1350 section 6
        self._acked = 0  # blocks confirmed; counted on past 65535, only the wire wraps
        self._sent = 0
        self._opened = self._oack is None
        self._went_back = False
        self._retries = 0

    def start(self, now: float) -> list[bytes]:
        """The first packet or packets: the OACK, or block 1 where no option was accepted (RFC 2347)."""
        self._wait(now)
        return [self._oack] if self._oack is not None else self._send()

    def on_packet(self, data: bytes, now: float) -> list[bytes]:
        """A packet of this transfer's client has come."""
        if self.done or len(data) < 4:
            return []
        opcode, number = _HEAD.unpack_from(data)
        if opcode == ERROR:
            code, message = read_error(data)
            return self._end(f"client gave up: error {code} {message}".rstrip())
        if opcode != ACK:
            return [*self._end(f"client sent opcode {opcode} in the middle of a read"), error(ILLEGAL)]
        if not self._opened:
            if number != 0:
                return []
            self._opened = True
            return self._progress(now)
        ahead = (number - self._acked) & 0xFFFF
        if ahead > self._sent - self._acked:
            return []
        if ahead == 0:
            # A repeated ACK must not repeat the data, or every block from here on travels twice (RFC 1123 section
            # 4.2.3.1, Sorcerer's Apprentice). In a window it does mean that the first block got lost (RFC 7440
            # section 4); one repeat until there is progress again cannot run away.
            if self.window == 1 or self._went_back:
                return []
            self._went_back = True
            self._wait(now)
            return self._send()
        # Not the window's end: the client misses the next block and will say so once for every later one.
        partial = ahead < self._sent - self._acked
        self._acked += ahead
        if self._acked == self._blocks:
            return self._end(None)
        packets = self._progress(now)
        self._went_back = partial
        return packets

    def on_timer(self, now: float) -> list[bytes]:
        """The clock may have passed `deadline`: repeat, or give up after 6 repeats."""
        if self.done or now < self.deadline:
            return []
        self._retries += 1
        if self._retries > MAX_RETRIES:
            return self._end(f"client stopped answering at block {self._acked} of {self._blocks}")
        self._went_back = False
        self._wait(now)
        return [self._oack] if not self._opened and self._oack is not None else self._send()

    @property
    def probe(self) -> bool:
        """The client ended the transfer before it took any data: OVMF asks for the size so, and comes again."""
        return self.done and self._acked == 0 and self.failed is not None and self.failed.startswith("client gave up")

    def _negotiate(self, asked: dict[str, str], max_blksize: int) -> bytes | None:
        """Take what is sound and leave the rest out of the answer, which declines it (RFC 2347 section 3)."""
        granted: dict[str, int] = {}
        blksize = _number(asked.get("blksize"))
        if blksize is not None and blksize >= 8:  # RFC 2348: 8..65464
            self.blksize = granted["blksize"] = min(blksize, max_blksize, 65464)
        window = _number(asked.get("windowsize"))
        if window is not None and 1 <= window <= 65535:  # RFC 7440 section 3
            self.window = granted["windowsize"] = min(window, MAX_WINDOW)
        timeout = _number(asked.get("timeout"))
        if timeout is not None and 1 <= timeout <= 255:  # RFC 2349: granted as asked or not at all
            self.timeout, self._backoff = float(timeout), False
            granted["timeout"] = timeout
        if _number(asked.get("tsize")) is not None:
            granted["tsize"] = self.size
        if not granted:
            return None
        from tftpy.TftpPacketTypes import TftpPacketOACK

        packet: Any = TftpPacketOACK()
        packet.options = granted
        return bytes(packet.encode().buffer)

    def _progress(self, now: float) -> list[bytes]:
        self._retries = 0
        self._went_back = False
        self._wait(now)
        return self._send()

    def _send(self) -> list[bytes]:
        """The window behind the last acknowledged block; one read for all of it."""
        first = self._acked
        self._sent = last = min(first + self.window, self._blocks)
        start = first * self.blksize
        wanted = min(last * self.blksize, self.size) - start
        data = self._read(start, wanted)
        if len(data) != wanted:  # a short block would look like the end of the file
            raise TftpInvalid(f"file became shorter than {self.size} bytes while it was sent", 0)
        self.bytes_sent += len(data)
        step, pack = self.blksize, _HEAD.pack
        return [
            pack(DATA, (first + 1 + i) & 0xFFFF) + data[i * step : (i + 1) * step] for i in range(self._sent - first)
        ]

    def _wait(self, now: float) -> None:
        # Without a negotiated timeout the pauses double, up to 8 s: on a crowded network repeats make it worse.
        self.deadline = now + (min(self.timeout * 2**self._retries, 8.0) if self._backoff else self.timeout)

    def _end(self, failed: str | None) -> list[bytes]:
        self.done, self.failed = True, failed
        return []


def _number(value: str | None) -> int | None:
    if value is None or not value.isascii() or not value.isdecimal() or len(value) > 10:
        return None
    return int(value)
