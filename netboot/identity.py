"""Which node is this? MACs, SMBIOS UUID and serial number, scored; what contradicts itself is said, never guessed.

A MAC alone names a machine, unless the machine says another UUID (a USB network card that was moved). A UUID alone
names one only as long as nothing better is known of it: boards with the same UUID are sold.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from netboot.node import Node, State

MAC_SCORE, UUID_SCORE, SERIAL_SCORE = 4, 3, 2
ENOUGH = 3

_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# What vendors leave in the SMBIOS tables of boards they did not finish.
_PLACEHOLDERS = frozenset({
    "", "none", "default string", "default", "to be filled by o.e.m.", "to be filled by o.e.m", "system serial number",
    "chassis serial number", "base board serial number", "not specified", "not applicable", "n/a", "na", "unknown",
    "invalid", "o.e.m.", "oem", "empty", "serial number", "0123456789", "123456789", "1234567890", "ssn", "sernum",
})  # fmt: skip
# AMI's reference BIOS and others ship these; the second half of the first is a counting pattern, not a number.
_PLACEHOLDER_UUIDS = frozenset({
    "03000200-0400-0500-0006-000700080009", "00020003-0004-0005-0006-000700080009",
    "12345678-1234-5678-90ab-cddeefaabbcc", "01234567-8910-1112-1314-151617181920",
})  # fmt: skip


def real_mac(text: str) -> str:
    """A MAC in lower case with colons, or "" for what cannot be one machine's: malformed, zero, or a group address."""
    mac = text.strip().lower().replace("-", ":")
    if not _MAC.fullmatch(mac) or mac == "00:00:00:00:00:00" or int(mac[1], 16) & 1:
        return ""
    return mac


def real_uuid(text: str) -> str:
    """A UUID in lower case, or "" for a placeholder."""
    uuid = text.strip().lower()
    if not _UUID.fullmatch(uuid) or uuid in _PLACEHOLDER_UUIDS or len(set(uuid.replace("-", ""))) <= 2:
        return ""
    return uuid


def real_serial(text: str) -> str:
    """A serial number in printable text of at most 64 characters, or "" for a placeholder."""
    serial = "".join(c for c in text.strip() if c.isprintable())[:64].strip()
    bare = serial.lower()
    if bare in _PLACEHOLDERS or len(set(bare)) <= 1 or (len(bare) > 2 and set(bare) <= set("x.-_ 0")):
        return ""
    return serial


@dataclass(frozen=True)
class Sighting:
    """What a machine shows of itself, cleaned by the functions above. `macs` begins with the card it boots from."""

    macs: tuple[str, ...]
    uuid: str = ""
    serial: str = ""


@dataclass(frozen=True)
class Verdict:
    """`node` is who it is, or None for a machine never seen. With a `conflict` nothing that matters may be handed to
    this machine until a person has looked. `absorbed` are sightings of the same machine under other cards."""

    node: Node | None
    score: int = 0
    conflict: str = ""
    absorbed: tuple[Node, ...] = ()
    like: Node | None = None  # the node it would be if its network card had been changed: a person has to say


def identify(sighting: Sighting, known: Iterable[Node]) -> Verdict:
    """Match a sighting against the nodes that share a MAC, UUID or serial with it."""
    scored = sorted(((score(sighting, node), node) for node in known), key=lambda pair: (-pair[0], pair[1].id))
    scored = [pair for pair in scored if pair[0] > 0]
    boot = sighting.macs[0] if sighting.macs else ""
    holder = next((node for _, node in scored if boot and boot in node.macs), None)
    if holder is not None:
        return _by_mac(sighting, holder, [node for _, node in scored if node is not holder])
    if not scored or scored[0][0] < ENOUGH:
        return Verdict(None)
    points, best = scored[0]
    if len(scored) > 1 and scored[1][0] == points:
        return Verdict(None, points, f"looks like {best.label} and like {scored[1][1].label}")
    shared = set(sighting.macs) & set(best.macs)
    if best.facts is not None and not shared:
        # Its cards are known and this is none of them: a card was changed, or two boards have the same UUID.
        return Verdict(None, points, _no_card_of(best), like=best)
    if _differs(sighting, best):
        return Verdict(None, points, f"has a network card of {best.label} but another UUID or serial")
    return Verdict(best, points)


def score(sighting: Sighting, node: Node) -> int:
    """Points for what agrees."""
    points = MAC_SCORE if set(sighting.macs) & set(node.macs) else 0
    points += UUID_SCORE if sighting.uuid and sighting.uuid == node.uuid else 0
    return points + (SERIAL_SCORE if sighting.serial and sighting.serial == node.serial else 0)


def _by_mac(sighting: Sighting, holder: Node, others: list[Node]) -> Verdict:
    points = score(sighting, holder)
    if _differs(sighting, holder):
        return Verdict(holder, points, f"has the network card of {holder.label} but another UUID or serial")
    # Before the first hello a machine with several cards may have been seen once for each of them.
    absorbed = tuple(
        node
        for node in others
        if node.state is State.WAITING
        and node.facts is None
        and set(node.macs) <= set(sighting.macs)
        and node.uuid == holder.uuid
    )
    rivals = [node for node in others if node not in absorbed and set(node.macs) & set(sighting.macs)]
    if rivals:
        return Verdict(holder, points, f"claims a network card of {rivals[0].label}", absorbed)
    like = next((node for node in others if _changed_card(holder, node) and node not in absorbed), None)
    if like is not None:
        return Verdict(holder, points, _no_card_of(like), absorbed, like)
    return Verdict(holder, points, "", absorbed)


def _changed_card(stranger: Node, node: Node) -> bool:
    """Whether a machine that waits under a card of its own may be this node all the same. Until somebody has said that
    it is not, it stays in doubt, however often it is seen."""
    known = stranger.state is State.WAITING and node.state is not State.WAITING and node.facts is not None
    return known and node.id not in stranger.apart


def _no_card_of(node: Node) -> str:
    return f"has the UUID or serial of {node.label} but none of its network cards"


def _differs(sighting: Sighting, node: Node) -> bool:
    uuid = bool(sighting.uuid and node.uuid and sighting.uuid != node.uuid)
    serial = bool(sighting.serial and node.serial and sighting.serial != node.serial)
    return uuid or serial
