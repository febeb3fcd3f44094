"""Which port of which switch a machine is on, as switches say it every 30 seconds (LLDP, IEEE 802.1AB-2016)."""

from __future__ import annotations

import socket

PROTOCOL = 0x88CC  # EtherType, clause 7.3
# "Nearest bridge", clause 7.1: no switch passes frames for this address on, so what comes is from the next one.
GROUP = bytes.fromhex("0180c200000e")
MAX_TEXT = 64  # characters of one name
_END, _CHASSIS, _PORT, _TTL, _DESCRIPTION, _SYSTEM = 0, 1, 2, 3, 4, 5  # clause 8.4, table 8-1
_MAC, _ADDRESS = {_CHASSIS: 4, _PORT: 3}, {_CHASSIS: 5, _PORT: 4}  # subtypes of both, tables 8-2 and 8-3


def parse(body: bytes) -> tuple[str, str] | None:
    """(switch, port) of a frame's content: the switch's name, or else what it is identified by; the port as the switch
    calls it. None for what is no LLDP, and for a switch that takes its leave (a time to live of 0). Takes anything."""
    known: dict[int, bytes] = {}
    at = 0
    while at + 2 <= len(body):
        head = int.from_bytes(body[at : at + 2], "big")
        kind, size = head >> 9, head & 0x1FF  # clause 8.4: 7 bits and 9 bits
        value = body[at + 2 : at + 2 + size]
        if kind == _END or len(value) < size:
            break
        known.setdefault(kind, value)
        at += 2 + size
    if not all(len(known.get(kind, b"")) > 1 for kind in (_CHASSIS, _PORT, _TTL)) or not any(known[_TTL][:2]):
        return None
    switch = _text(known.get(_SYSTEM, b"")) or _identifier(_CHASSIS, known[_CHASSIS])
    port = _identifier(_PORT, known[_PORT])
    if known[_PORT][0] == _MAC[_PORT]:  # says nothing to people
        port = _text(known.get(_DESCRIPTION, b"")) or port
    return (switch, port) if switch and port else None


def _identifier(kind: int, value: bytes) -> str:
    subtype, rest = value[0], value[1:]
    if subtype == _MAC[kind]:
        return rest.hex(":") if len(rest) == 6 else ""
    if subtype == _ADDRESS[kind]:
        return socket.inet_ntoa(rest[1:]) if rest[:1] == b"\x01" and len(rest) == 5 else rest.hex()[:MAX_TEXT]
    return _text(rest)


def _text(value: bytes) -> str:
    text = value.decode("utf-8", "replace").strip("\0 \t\r\n")
    return "".join(c if c.isprintable() else "?" for c in text)[:MAX_TEXT]
