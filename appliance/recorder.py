"""The flight recorder: the last packets and transfers of every machine, in memory; each costs one append."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

from netboot import dhcp
from netboot.dhcp import DhcpInvalid

PACKETS, TRANSFERS = 16, 64  # kept of each machine
MACHINES = 4096  # kept at all; the one unheard for longest goes
_NAMES = {
    1: "mask", 3: "router", 6: "dns", 12: "hostname", 15: "domain", 26: "mtu", 42: "ntp", 43: "vendor",
    50: "requested address", 51: "lease", 53: "message type", 54: "server", 55: "wants", 57: "largest message",
    60: "vendor class", 61: "client id", 66: "boot server", 67: "boot file", 77: "user class", 82: "relay",
    93: "architecture", 94: "network interface", 97: "uuid", 121: "routes", 175: "iPXE",
}  # fmt: skip


class Recorder:
    """What machines sent and were sent. Keys are the cards of machines, and addresses for transfers."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._packets: OrderedDict[str, deque[tuple[float, str, bytes]]] = OrderedDict()
        self._transfers: OrderedDict[str, deque[tuple[float, str, str, int, float, str]]] = OrderedDict()

    def packet(self, mac: str, way: str, data: bytes) -> None:
        """A DHCP message, `way` "in" or "out"."""
        ring = self._packets.get(mac)
        if ring is None:
            ring = self._packets[mac] = deque(maxlen=PACKETS)
            if len(self._packets) > MACHINES:
                self._packets.popitem(last=False)
        else:
            self._packets.move_to_end(mac)
        ring.append((self._wall(), way, data))

    def transfer(self, address: str, name: str, count: int, seconds: float, proto: str, error: str) -> None:
        """A boot file went out, or did not."""
        ring = self._transfers.get(address)
        if ring is None:
            ring = self._transfers[address] = deque(maxlen=TRANSFERS)
            if len(self._transfers) > MACHINES:
                self._transfers.popitem(last=False)
        ring.append((self._wall(), proto, name, count, seconds, error))

    def packets(self, macs: tuple[str, ...]) -> list[dict[str, Any]]:
        """The packets of these cards, decoded, the oldest first."""
        found = sorted((entry for mac in macs for entry in self._packets.get(mac, ())), key=lambda entry: entry[0])
        return [{"at": at, "way": way, **_decoded(data), "raw": data.hex()} for at, way, data in found]

    def transfers(self, address: str) -> list[dict[str, Any]]:
        """The transfers to an address, the oldest first."""
        keys = ("at", "proto", "name", "bytes", "seconds", "error")
        return [dict(zip(keys, entry, strict=True)) for entry in self._transfers.get(address, ())]


def _decoded(data: bytes) -> dict[str, Any]:
    try:
        message = dhcp.parse(data)
    except DhcpInvalid as error:
        return {"trouble": error.message}
    options = {f"{n} {_NAMES[n]}" if n in _NAMES else str(n): _shown(value) for n, value in message.options.items()}
    addresses = {key: getattr(message, key) for key in ("ciaddr", "yiaddr", "siaddr", "giaddr")}
    used = {key: value for key, value in addresses.items() if value != dhcp.NONE}
    return {"kind": message.kind.name, "mac": message.mac, "secs": message.secs, **used, "options": options}


def _shown(value: bytes) -> str:
    bare = value.rstrip(b"\0")
    return bare.decode("ascii") if len(bare) > 3 and all(32 <= byte < 127 for byte in bare) else value.hex(" ")
