"""Reads tests/data/packets: one DHCP message a file, a comment and hexadecimal lines."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent.parent / "data" / "packets"
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.hex")))


def packet(name: str) -> bytes:
    """The bytes of tests/data/packets/<name>.hex."""
    lines = (FOLDER / f"{name}.hex").read_text().splitlines()
    return bytes.fromhex("".join(line for line in lines if not line.startswith("#")))
