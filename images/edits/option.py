"""Reading an edit's options: each value is checked before anything is written, and named when it is wrong."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from images.errors import GildError

# RFC 1123 section 2.1: letters, digits and hyphens; a name of at most 63 characters is what Linux takes as well
# (HOST_NAME_MAX is 64 including the end).
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_DOMAIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")
_NIC = re.compile(r"[a-z][a-z0-9]{0,14}")  # IFNAMSIZ - 1; no dash or dot, which some configuration files give a meaning


class OptionInvalid(GildError):
    """An edit was given a value it cannot use."""


def text(options: dict[str, Any], name: str, edit: str, *, default: str | None = None, limit: int = 4096) -> str:
    """A string without control characters. Raises OptionInvalid."""
    value = options.get(name, default)
    if not isinstance(value, str) or len(value) > limit or not all(c.isprintable() for c in value):
        raise OptionInvalid(f"edit {edit}: option {name} is {str(value)[:40]!r}, not a line of text")
    return value


def host_name(options: dict[str, Any], name: str, edit: str) -> str:
    """A host name without domain."""
    value = text(options, name, edit)
    if not _NAME.fullmatch(value):
        raise OptionInvalid(f"edit {edit}: {value[:80]!r} is not a host name", "letters, digits and dashes, at most 63")
    return value


def domain(options: dict[str, Any], name: str, edit: str) -> str:
    """A domain, or "" for none."""
    value = text(options, name, edit, default="")
    if value and not _DOMAIN.fullmatch(value):
        raise OptionInvalid(f"edit {edit}: {value[:80]!r} is not a domain")
    return value


def address(options: dict[str, Any], name: str, edit: str, *, optional: bool = False) -> str:
    """An IPv4 address, or "" if it may be left out."""
    value = text(options, name, edit, default="" if optional else None)
    if not value and optional:
        return ""
    return ipv4(value, edit)


def ipv4(value: Any, edit: str) -> str:
    """An IPv4 address. Raises OptionInvalid."""
    try:
        return str(ipaddress.IPv4Address(value if isinstance(value, str) else None))
    except ValueError:
        raise OptionInvalid(f"edit {edit}: {str(value)[:80]!r} is not an IPv4 address") from None


def addresses(options: dict[str, Any], name: str, edit: str) -> list[str]:
    """At most eight IPv4 addresses."""
    value = options.get(name, [])
    if not isinstance(value, list | tuple) or len(value) > 8:
        raise OptionInvalid(f"edit {edit}: option {name} is not a list of at most eight addresses")
    return [ipv4(entry, edit) for entry in value]


def routes(options: dict[str, Any], name: str, edit: str) -> tuple[tuple[str, str], ...]:
    """(network, router) of at most 32 routes, each written "NETWORK via ROUTER"."""
    value = options.get(name, [])
    if not isinstance(value, list | tuple) or len(value) > 32:
        raise OptionInvalid(f"edit {edit}: option {name} is not a list of at most 32 routes")
    found = []
    for entry in value:
        try:
            network, word, router = str(entry).split()
            if word != "via":
                raise ValueError
            found.append((str(ipaddress.IPv4Network(network)), str(ipaddress.IPv4Address(router))))
        except ValueError:
            raise OptionInvalid(f"edit {edit}: {str(entry)[:80]!r} is no route", "NETWORK via ROUTER") from None
    return tuple(found)


def number(options: dict[str, Any], name: str, edit: str, low: int, high: int) -> int:
    """A whole number between `low` and `high`."""
    value = options.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise OptionInvalid(f"edit {edit}: option {name} is {str(value)[:40]!r}, not a number from {low} to {high}")
    return value


def mac(options: dict[str, Any], name: str, edit: str) -> str:
    """A MAC address, in lower case with colons."""
    value = text(options, name, edit).lower().replace("-", ":")
    if not _MAC.fullmatch(value):
        raise OptionInvalid(f"edit {edit}: {value[:80]!r} is not a MAC address")
    return value


def nic_name(options: dict[str, Any], name: str, edit: str) -> str:
    """A name for a network card, "lan0" if none is given."""
    value = text(options, name, edit, default="lan0")
    # udev does not rename to a name that the kernel itself hands out (eth0): two cards would race for it.
    if not _NIC.fullmatch(value) or value.startswith("eth") or value == "lo":
        raise OptionInvalid(f"edit {edit}: {value[:80]!r} cannot name a network card", "such as lan0; not ethN")
    return value
