"""What passes by on a wire: DHCP servers by their offers, machines by their requests. Frames in, bounded tables out.

Everything here was sent by somebody who may be anybody: text is printable ASCII, tables have a size, and a frame that
is no DHCP message is counted and otherwise ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from netboot import dhcp, firmware
from netboot.dhcp import NONE, DhcpInvalid, DhcpRequest, Kind

MOST_MACHINES = 4096  # rows; two racks full of twins are far below, an attacker's invented addresses are not
MOST_SERVERS = 64
LONGEST = 128  # characters of anything a stranger named
# Offsets in a DHCP message (RFC 2131 section 2).
_SNAME, _FILE, _OPTIONS = 44, 108, 236

# IANA "Processor Architecture Types" (RFC 5970 and erratum 4625 of RFC 4578), those that machines of today send.
ARCHITECTURES = {
    0: "BIOS", 6: "UEFI ia32", 7: "UEFI x64", 9: "UEFI x64", 10: "UEFI arm32", 11: "UEFI arm64", 15: "HTTP ia32",
    16: "HTTP x64", 18: "HTTP arm32", 19: "HTTP arm64", 20: "HTTP BIOS", 27: "UEFI riscv64", 39: "UEFI loongarch64",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Frame:
    """One DHCP message on the wire: `at` in seconds of wall time, sender's MAC and IPv4 address, the UDP payload."""

    at: float
    mac: str
    source: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Server:
    """A DHCP server as its answer shows it. `server_id` is option 54, `source` and `mac` the packet's sender (of a
    relay they are the relay's), `offered` the address it offers or "", `boot_file` and `next_server` what it lets boot,
    `kind` "addresses" (gives addresses), "boot" (proxyDHCP: a boot file and no address) or "refusal" (a DHCPNAK)."""

    server_id: str
    source: str
    mac: str
    kind: str
    offered: str = ""
    boot_file: str = ""
    next_server: str = ""

    def __str__(self) -> str:
        what = {"addresses": "gives addresses", "boot": "gives boot files only", "refusal": "refuses leases"}[self.kind]
        boot = f", boots {self.boot_file!r}" if self.boot_file else ""
        return f"{self.server_id} ({self.mac}) {what}{boot}"


@dataclass(slots=True)
class Machine:
    """A machine that asks for an address. Times in seconds of wall time; `architecture` the number of option 93."""

    mac: str
    vendor: str
    architecture: int | None
    uuid: str
    hostname: str
    first: float
    last: float
    count: int = 1

    @property
    def firmware(self) -> str:
        """What it boots by, in words; "" if it does not say."""
        return "" if self.architecture is None else ARCHITECTURES.get(self.architecture, f"type {self.architecture}")

    def row(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "firmware": self.firmware}


def frame(line: Mapping[str, Any]) -> Frame | None:
    """A line of the probe's as a Frame; None if it is another kind of line or not whole."""
    try:
        return Frame(float(line["at"]), str(line["mac"]), str(line["source"]), bytes.fromhex(line["data"]))
    except (KeyError, TypeError, ValueError):
        return None


def server(seen: Frame, client: str | None = None) -> Server | None:
    """The server that sent this offer, acknowledgement or refusal, to the client of that MAC if one is named. None for
    anything else."""
    try:
        message = dhcp.parse(seen.data)
    except DhcpInvalid:
        return None
    if message.op != 2 or message.kind not in (Kind.OFFER, Kind.ACK, Kind.NAK):
        return None
    if client is not None and message.mac != client:
        return None
    offered = "" if message.yiaddr == NONE else message.yiaddr
    kind = "refusal" if message.kind is Kind.NAK else "addresses" if offered else "boot"
    overload = _overload(seen.data)
    name = "" if overload & 2 else _line(seen.data[_SNAME:_FILE])
    file = "" if overload & 1 else _line(seen.data[_FILE:_OPTIONS])
    return Server(
        message.server_id or seen.source,
        seen.source,
        seen.mac,
        kind,
        offered,
        _line(message.options.get(dhcp.BOOT_FILE, b"")) or file,
        (message.siaddr if message.siaddr != NONE else "") or _line(message.options.get(dhcp.TFTP_SERVER, b"")) or name,
    )


class Servers:
    """DHCP servers seen, each once, with the answer that tells most. `own` are addresses not counted; a server that was
    silent for `gone` seconds is forgotten."""

    def __init__(self, own: frozenset[str] = frozenset(), gone: float = float("inf")) -> None:
        self.known: dict[tuple[str, str], Server] = {}
        self._own, self._gone = own, gone
        self._last: dict[tuple[str, str], float] = {}

    def saw(self, seen: Server, at: float = 0.0) -> bool:
        """Note an answer of that wall time (seconds). True if this server was not known, or to give no addresses."""
        self.forget(at)
        if seen.server_id in self._own and seen.source in self._own:
            return False
        key = (seen.server_id, seen.mac)
        before = self.known.get(key)
        if before is None and len(self.known) >= MOST_SERVERS:
            return False
        self._last[key] = at
        if before is not None and before.kind == "addresses" and seen.kind != "addresses":
            return False
        self.known[key] = seen
        return before is None or before.kind != seen.kind

    def forget(self, at: float) -> None:
        """Drop those that were silent for too long at that wall time."""
        for key in [key for key, last in self._last.items() if at - last > self._gone]:
            del self._last[key], self.known[key]

    def rows(self) -> list[Server]:
        """Those that give addresses first, then by address."""
        return sorted(
            self.known.values(), key=lambda server: (server.kind != "addresses", server.server_id, server.mac)
        )


class Machines:
    """Machines seen, by MAC, in the order of their first request. `left_out` counts requests of those that did not
    fit any more, `other` frames that were no request."""

    def __init__(self, most: int = MOST_MACHINES) -> None:
        self.known: dict[str, Machine] = {}
        self.left_out = self.other = 0
        self._most = most

    def saw(self, seen: Frame) -> Machine | None:
        """Note a frame; its machine as it is known now, or None if the frame is no request or the table is full."""
        try:
            request = dhcp.parse(seen.data)
        except DhcpInvalid:
            request = None
        if request is None or not request.from_client:
            self.other += 1
            return None
        machine = self.known.get(request.mac)
        if machine is None and len(self.known) >= self._most:
            self.left_out += 1
            return None
        self.known[request.mac] = machine = _machine(machine, request, seen.at)
        return machine


def _machine(before: Machine | None, request: DhcpRequest, at: float) -> Machine:
    # An installed system asks without what its firmware told: what is known stays.
    vendor, hostname = request.vendor_class[:LONGEST], request.hostname[:LONGEST]
    arch, uuid = firmware.architecture(request), request.uuid or ""
    if before is None:
        return Machine(request.mac, vendor, arch, uuid, hostname, at, at)
    return replace(
        before,
        vendor=vendor or before.vendor,
        architecture=before.architecture if arch is None else arch,
        uuid=uuid or before.uuid,
        hostname=hostname or before.hostname,
        last=max(at, before.last),
        count=before.count + 1,
    )


def _overload(data: bytes) -> int:
    """Option 52 of a message that `dhcp.parse` took: whether `file` (1) and `sname` (2) hold options, not names."""
    at = _OPTIONS + 4
    while at + 2 < len(data) and data[at] != 255:
        if data[at] == 0:
            at += 1
        elif data[at] == dhcp.OVERLOAD:
            return data[at + 2]
        else:
            at += 2 + data[at + 1]
    return 0


def _line(value: bytes) -> str:
    """Text up to its first zero byte, with what is not printable ASCII made visible."""
    text = value.partition(b"\0")[0][:LONGEST]
    return "".join(chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}" for byte in text)
