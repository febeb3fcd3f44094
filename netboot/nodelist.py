"""Lists of nodes as people keep them: CSV with a header, a hosts file (address name), or ethers (MAC name)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from images.errors import GildError
from netboot.identity import real_mac, real_serial, real_uuid
from netboot.naming import NameInvalid, check_name
from netboot.noderange import NoderangeInvalid, check_group

MAX_ROWS = 20_000
MAX_SIZE = 8 << 20  # bytes
MAX_LINE = 4096  # characters
MAX_PORT = 130  # characters of SWITCH:PORT
MAX_TOLD = 20  # bad lines that are named; the others are counted
COLUMNS = ("name", "mac", "address", "profile", "groups", "serial", "uuid", "port")


class NodelistInvalid(GildError):
    """Lines of a list cannot be used; the message has them all, by number."""


@dataclass(frozen=True)
class Entry:
    """One node as a list has it: empty what is not said. `line` counts from 1; `groups` None if there is no such
    column."""

    line: int
    name: str
    macs: tuple[str, ...] = ()
    address: str = ""
    profile: str = ""
    groups: tuple[str, ...] | None = None
    serial: str = ""
    uuid: str = ""
    port: str = ""  # of a switch, as SWITCH:PORT

    @property
    def is_place(self) -> bool:
        """Nothing says which machine it is: it is filled by one that is switched on in its turn."""
        return not (self.macs or self.serial or self.uuid or self.port)


def parse(data: bytes) -> list[Entry]:
    """The nodes of a list, each name, MAC, address, serial, UUID and port once. Raises NodelistInvalid naming every
    line that cannot be used (the first MAX_TOLD)."""
    if len(data) > MAX_SIZE:
        raise NodelistInvalid(f"the list has {len(data)} bytes, more than {MAX_SIZE}", "split it")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise NodelistInvalid(f"line {line} is not UTF-8 text", "save it as UTF-8") from None
    lines = text.splitlines()
    first = next((line for line in lines if line.strip() and not line.lstrip().startswith("#")), "")
    bad: list[str] = []
    words = [word.strip().lower() for word in first.replace(";", ",").split(",")]
    entries = _table(lines, first, bad) if "name" in words else _pairs(lines, bad)
    _doubles(entries, bad)
    if len(entries) > MAX_ROWS:
        bad.insert(0, f"{len(entries)} nodes are more than {MAX_ROWS}")
    if bad:
        more = [f"and {len(bad) - MAX_TOLD} more"] if len(bad) > MAX_TOLD else []
        raise NodelistInvalid("\n".join([*bad[:MAX_TOLD], *more]), "nothing was changed")
    if not entries:
        raise NodelistInvalid("no node is in the list", f"CSV begins with a line of names: {','.join(COLUMNS)}")
    return entries


def one(row: dict[str, str]) -> Entry:
    """The node of one line's values by column. Raises NodelistInvalid."""
    try:
        return _entry(0, row)
    except (ValueError, NameInvalid, NoderangeInvalid) as error:
        raise NodelistInvalid(error.message if isinstance(error, GildError) else str(error)) from None


def render(entries: Iterable[Entry]) -> str:
    """A list as `parse` reads it, CSV."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for entry in entries:
        writer.writerow([
            entry.name, " ".join(entry.macs), entry.address, entry.profile, " ".join(entry.groups or ()), entry.serial,
            entry.uuid, entry.port,
        ])  # fmt: skip
    return out.getvalue()


def _table(lines: Sequence[str], first: str, bad: list[str]) -> list[Entry]:
    begin = lines.index(first)
    separator = ";" if first.count(";") > first.count(",") else ","
    columns = [word.strip().strip('"').lower() for word in first.split(separator)]
    unknown = [column for column in columns if column not in COLUMNS]
    if unknown or len(set(columns)) != len(columns):
        shown = _shown(unknown[0]) if unknown else "a column twice"
        bad.append(f"line {begin + 1}: {shown} is no column; there are {', '.join(COLUMNS)}")
        return []
    entries = []
    for number, line in enumerate(lines[begin + 1 :], begin + 2):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            if len(line) > MAX_LINE:
                raise ValueError(f"{len(line)} characters are too many for a line")
            (row,) = csv.reader([line], delimiter=separator, strict=True)
            if len(row) != len(columns):
                raise ValueError(f"{len(row)} values for {len(columns)} columns")
            entries.append(_entry(number, dict(zip(columns, (word.strip() for word in row), strict=True))))
        except (ValueError, csv.Error, NameInvalid, NoderangeInvalid) as error:
            bad.append(f"line {number}: {error.message if isinstance(error, GildError) else error}")
    return entries


def _pairs(lines: Sequence[str], bad: list[str]) -> list[Entry]:
    """Hosts and ethers files; addresses of this machine itself (127.*, IPv6) in a hosts file are passed over."""
    entries = []
    for number, line in enumerate(lines, 1):
        words = line[: MAX_LINE + 1].partition("#")[0].split()
        if not words or words[0].startswith("127.") or (":" in words[0] and not real_mac(words[0])):
            continue
        try:
            if len(line) > MAX_LINE:
                raise ValueError(f"{len(line)} characters are too many for a line")
            if len(words) < 2:
                raise ValueError(f"{_shown(line.strip())} is not ADDRESS NAME, MAC NAME, or CSV with a line of names")
            key = "mac" if real_mac(words[0]) else "address"
            entries.append(_entry(number, {key: words[0], "name": words[1].partition(".")[0].lower()}))
        except (ValueError, NameInvalid) as error:
            bad.append(f"line {number}: {error.message if isinstance(error, GildError) else error}")
    return entries


def _entry(line: int, row: dict[str, str]) -> Entry:
    """Raises ValueError, NameInvalid, NoderangeInvalid."""
    macs = tuple(dict.fromkeys(real_mac(word) for word in row.get("mac", "").split()))
    if "" in macs:
        raise ValueError(f"{_shown(row['mac'])} is no address of a network card")
    address, uuid, serial = row.get("address", ""), row.get("uuid", ""), row.get("serial", "")
    try:
        address = str(IPv4Address(address)) if address else ""
    except ValueError:
        raise ValueError(f"{_shown(address)} is no IPv4 address") from None
    if uuid and not real_uuid(uuid):
        raise ValueError(f"{_shown(uuid)} is no UUID, or one that many machines have")
    if serial and real_serial(serial) != serial:
        raise ValueError(f"{_shown(serial)} is no serial number, or one that many machines have")
    groups = tuple(sorted({check_group(word) for word in row["groups"].split()})) if "groups" in row else None
    profile = row.get("profile", "")
    if not all(c.isprintable() for c in profile):
        raise ValueError(f"{_shown(profile)} is no name of a profile")
    port = row.get("port", "")
    if port and not (port.isprintable() and len(port) <= MAX_PORT and port.strip(":").count(":")):
        raise ValueError(f"{_shown(port)} is no port of a switch, such as sw1:Gi1/0/7")
    return Entry(line, check_name(row["name"]), macs, address, profile, groups, serial, real_uuid(uuid), port)


def _doubles(entries: Iterable[Entry], bad: list[str]) -> None:
    seen: dict[tuple[str, str], int] = {}
    for entry in entries:
        keys = [("name", entry.name), ("address", entry.address), ("serial", entry.serial), ("UUID", entry.uuid)]
        keys.append(("port", entry.port.lower()))
        for kind, value in [*keys, *(("MAC", mac) for mac in entry.macs)]:
            if value and (other := seen.setdefault((kind, value), entry.line)) != entry.line:
                bad.append(f"line {entry.line}: the {kind} {_shown(value)} is in line {other} already")


def _shown(text: str) -> str:
    return repr("".join(c if c.isprintable() else "?" for c in text)[:60])
