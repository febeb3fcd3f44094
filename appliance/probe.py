"""The probe: a process of its own that looks at one interface for DHCP messages and asks for offers if told.

It is the only place that imports scapy, so that neither its cost (160 ms, 24 MB: measured) nor its licence (GPL-2.0)
comes into the process that serves. It prints a JSON line for each message and understands none of them: what they
mean is `sightings`' work. It never requests what was offered, so it never holds a lease.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import select
import socket
import struct
import sys
import time
from typing import Any

MOST_LINES = 2000  # messages a second that are passed on; a flood is counted, not copied
AGAIN = 2.0  # seconds after which the first question is repeated, in case the link was not ready for it
SIZE = 2048  # bytes of a frame that are looked at; more than a DHCP message may have
# A PXE client's question (RFC 4578; PXE 2.1 section 2.2.1): UEFI x86-64, and it wants what boots.
VENDOR_CLASS = b"PXEClient:Arch:00007:UNDI:003016"
WANTED = [1, 2, 3, 6, 12, 15, 17, 43, 54, 60, 66, 67, 97, 128, 129, 130]
_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
_ETH_P_IP = 0x0800


def main(argv: list[str]) -> int:
    """`probe-child INTERFACE requests|replies SECONDS EVERY`: tell of DHCP messages of that kind for SECONDS (0: for
    ever) or until standard input ends, and ask for offers at once and then EVERY seconds (0: never). Returns an exit
    code."""
    interface, what, seconds, every = argv[0], argv[1], float(argv[2]), float(argv[3])
    # scapy writes a cache below this folder, and would read what it finds there: there is no folder below a device.
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        os.environ[name] = "/dev/null"
    try:
        socket.if_nametoindex(interface)
        _look(interface, what == "requests", seconds, every)
    except OSError as error:
        known = ", ".join(name for _, name in socket.if_nameindex() if name != "lo")
        hint = f"ip link set {interface} up" if error.errno == errno.ENETDOWN else f"this machine has: {known}"
        _say({"error": f"cannot listen on {interface}: {error.strerror or error}", "hint": hint})
        return 1
    return 0


def _look(interface: str, requests: bool, seconds: float, every: float) -> None:
    from scapy.config import conf

    conf.logLevel = 40  # what it finds odd about this machine's routes is of no interest
    from scapy.arch.linux import L2Socket
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Ether

    # Promiscuous while it asks: a server that ignores the broadcast flag answers the address the question came from,
    # which is no card's. Received frames only: with this type the kernel does not loop back what is sent.
    wire = L2Socket(iface=interface, type=_ETH_P_IP, promisc=bool(every), nofilter=1)
    _attach(wire.ins, requests)
    mac = bytes([0x02, *os.urandom(5)]) if every else b""
    question = _question(mac, wire.ins.getsockname()[4]) if every else b""
    _say({"ready": interface, "mac": mac.hex(":")})
    begun = time.monotonic()
    until = begun + seconds if seconds else None
    ask_at, asked = begun if every else None, 0
    second, passed, dropped = 0, 0, 0
    while until is None or time.monotonic() < until:
        now = time.monotonic()
        if ask_at is not None and now >= ask_at:
            wire.ins.send(question)
            asked += 1
            ask_at = now + (min(AGAIN, every) if asked == 1 else every)
        waits = [moment - now for moment in (until, ask_at) if moment is not None]
        patience = max(0.0, min(waits, default=3600.0))
        ready, _, _ = select.select([wire.ins, sys.stdin], [], [], patience)
        if sys.stdin in ready and not os.read(0, 4096):
            return
        if wire.ins not in ready:
            continue
        _, data, at = wire.recv_raw(SIZE)
        if data is None:
            continue
        if int(now - begun) != second:
            if dropped:
                _say({"dropped": dropped})
            second, passed, dropped = int(now - begun), 0, 0
        passed += 1
        if passed > MOST_LINES:
            dropped += 1
            continue
        try:
            packet = Ether(data)
            message = packet[UDP].payload.original
            line = {"at": float(at or time.time()), "mac": packet.src, "source": packet[IP].src, "data": message.hex()}
        except Exception as error:  # scapy raises what it likes for damaged packets; struct.error was seen
            line = {"damaged": type(error).__name__}
        _say(line)


def _question(mac: bytes, card: bytes) -> bytes:
    """A DHCPDISCOVER of a machine that is not there, in a frame. `mac` is the machine's, `card` the interface's own: a
    switch with port security must not see a second address behind this port."""
    from scapy.layers.dhcp import BOOTP, DHCP
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Ether

    identity = b"\x00" + os.urandom(16)
    options: list[Any] = [
        ("message-type", "discover"),
        ("max_dhcp_size", 1472),
        ("param_req_list", WANTED),
        (97, identity),
        (93, struct.pack("!H", 7)),
        (94, b"\x01\x03\x10"),
        ("vendor_class_id", VENDOR_CLASS),
        "end",
    ]
    return bytes(
        Ether(src=card, dst="ff:ff:ff:ff:ff:ff")
        / IP(src="0.0.0.0", dst="255.255.255.255")
        / UDP(sport=68, dport=67)
        / BOOTP(op=1, chaddr=mac, xid=int.from_bytes(os.urandom(4), "big"), flags=0x8000)
        / DHCP(options=options)
    )


def _attach(sock: socket.socket, requests: bool) -> None:
    """Let through UDP to port 67 (requests) or from port 67 or 4011 (replies) and nothing else: on a head that sends
    images at full speed, other packets must be dropped in the kernel. Classic BPF for Ethernet, the same steps as of
    `tcpdump -d 'udp dst port 67'` (Documentation/networking/filter.rst); Debian's libpcap need not be there."""
    program = (
        (0x30, 0, 0, 23),  # ldb protocol
        (0x15, 0, 7, 17),  # UDP, or reject
        (0x28, 0, 0, 20),  # ldh fragment
        (0x45, 5, 0, 0x1FFF),  # reject all but the first one
        (0xB1, 0, 0, 14),  # ldxb 4*([14]&0xf), the length of the IP header
        (0x48, 0, 0, 16 if requests else 14),  # ldh destination or source port
        (0x15, 1, 0, 67),
        (0x15, 0, 1, 67 if requests else 4011),
        (0x06, 0, 0, SIZE),  # accept
        (0x06, 0, 0, 0),  # reject
    )
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(code)))


def _say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
