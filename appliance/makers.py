"""Who made a network card, from the first three bytes of its address: so that people find a machine in the list."""

from __future__ import annotations

from functools import cache

from appliance.bundled import read

LOCAL = "not from a factory"


def maker(mac: str) -> str:
    """The maker of the card with that address (lower case, colons), "" for one that is not in the table (it has those
    of the usual servers, boards and cards), LOCAL for an address somebody made up (IEEE 802, bit 2 of the first
    byte)."""
    if not mac:
        return ""
    known = _table().get(mac[:8].replace(":", ""), "")
    return known or (LOCAL if int(mac[:2], 16) & 2 else "")


@cache
def _table() -> dict[str, str]:
    """Three bytes in hex -> maker."""
    found: dict[str, str] = {}
    for line in read("appliance/makers.txt").decode().splitlines():
        name, colon, prefixes = line.partition(": ")
        if colon and not line.startswith("#"):
            found.update(dict.fromkeys(prefixes.split(), name))
    return found
