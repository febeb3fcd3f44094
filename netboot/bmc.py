"""A BMC: the small computer beside a machine that can switch it on and off, as people name it and as it is kept.

What a BMC says is believed of nobody: whether a machine really came up is told by its DHCP packet.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import urlsplit

from images.errors import GildError

IPMI_PORT = 623  # RMCP, IPMI 2.0 section 13.1.2
IPMI_PASSWORD = 20  # bytes at most, IPMI 2.0 section 22.30
CIPHERS = (17, 3)  # suites by preference: SHA-256, and SHA-1 for BMCs from before about 2015 (IPMI 2.0, table 22-20)
MAX_USER = 64
MAX_PASSWORD = 256

_HOST = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*\.?")
_PLACE = re.compile(r"\{n(?:\+([0-9]{1,5}))?(?::0?([1-9]))?\}")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


class BmcInvalid(GildError):
    """What somebody says of a BMC cannot be."""


class BmcFailed(GildError):
    """A BMC cannot be reached, refuses, or makes no sense."""


class Kind(StrEnum):
    """The language it speaks."""

    IPMI = "ipmi"
    REDFISH = "redfish"


class Act(StrEnum):
    """What it can be told."""

    STATUS = "status"
    ON = "on"
    OFF = "off"
    SOFT = "soft"  # asks the system to end, as the button does
    CYCLE = "cycle"
    RESET = "reset"


class Power(StrEnum):
    """What it says of the machine."""

    ON = "on"
    OFF = "off"
    UNKNOWN = "unknown"


# What a timeline and a table say of an act.
TOLD = {
    Act.ON: "switch on",
    Act.OFF: "switch off",
    Act.SOFT: "shut the system down",
    Act.CYCLE: "switch off and on",
    Act.RESET: "reset",
}
# Acts after which the machine must ask for an address.
BOOTING = frozenset({Act.ON, Act.CYCLE, Act.RESET})
# What an act is meant to come to; a BMC takes a command and carries it out seconds later, or never.
AFTER = {Act.ON: Power.ON, Act.OFF: Power.OFF, Act.CYCLE: Power.ON, Act.RESET: Power.ON}
# ResetType of Redfish (DSP0268, Resource.ResetType) by preference: not every BMC has every one.
RESETS: dict[Act, tuple[str, ...]] = {
    Act.ON: ("On", "ForceOn"),
    Act.OFF: ("ForceOff",),
    Act.SOFT: ("GracefulShutdown", "PushPowerButton"),
    Act.CYCLE: ("PowerCycle", "FullPowerCycle", "ForceRestart"),
    Act.RESET: ("ForceRestart", "PowerCycle"),
}


@dataclass(frozen=True)
class Bmc:
    """How to reach the BMC of a node. `password` is shown nowhere; it is left out of every text of this object."""

    node_id: int
    kind: Kind
    address: str  # host name or IP address, of IPv6 without brackets
    port: int
    user: str
    password: str = field(repr=False)
    tls: bool = True  # Redfish; plain HTTP only where somebody has said http://
    pin: str = ""  # Redfish: sha256 of its certificate, hex; "" until it was seen for the first time
    system: str = ""  # Redfish: path of the system that is this node; "" until it was found
    cipher: int = 0  # IPMI: the suite that worked; 0 until one did

    @property
    def place(self) -> str:
        """Where it is, for people."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        if self.kind is Kind.IPMI:
            return host if self.port == IPMI_PORT else f"{host}:{self.port}"
        usual = 443 if self.tls else 80
        return f"{'https' if self.tls else 'http'}://{host}" + ("" if self.port == usual else f":{self.port}")


def make(node_id: int, kind: str, address: str, user: str, password: str, pin: str = "") -> Bmc:
    """A BMC as people describe it: `address` is HOST, HOST:PORT, and for Redfish also a URL; `pin` the sha256 of its
    certificate, hex with or without colons. Raises BmcInvalid, naming what cannot be."""
    if kind not in list(Kind):
        raise BmcInvalid(f"{_shown(kind)} is no kind of BMC", f"one of {', '.join(Kind)}")
    if not user or len(user) > MAX_USER or not user.isprintable():
        raise BmcInvalid("the user of a BMC has 1 to 64 printable characters")
    most = IPMI_PASSWORD if kind == Kind.IPMI else MAX_PASSWORD
    if not password or len(password.encode("utf-8", "replace")) > most or not password.isprintable():
        raise BmcInvalid(f"the password of a BMC by {kind} has 1 to {most} bytes, all of them printable")
    tls, host, port = _address(Kind(kind), address)
    if kind == Kind.REDFISH and ":" in user:
        raise BmcInvalid("the user of a BMC has no colon in it", "basic authentication cannot carry one (RFC 7617)")
    clean = pin.replace(":", "").lower()
    if clean and (not _FINGERPRINT.fullmatch(clean) or kind != Kind.REDFISH or not tls):
        raise BmcInvalid("a fingerprint is the sha256 of a BMC's certificate, 64 hex digits", "for Redfish over https")
    return Bmc(node_id, Kind(kind), host, port, user, password, tls=tls, pin=clean)


def _address(kind: Kind, text: str) -> tuple[bool, str, int]:
    """(tls, host, port) of an address. Raises BmcInvalid."""
    wrong = BmcInvalid(
        f"{_shown(text)} is no address of a BMC", "write it as 10.0.1.7, HOST, HOST:PORT or https://HOST"
    )
    url = text if "://" in text else f"https://{text}" if text.count(":") < 2 or "[" in text else f"https://[{text}]"
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        raise wrong from None
    extra = parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None
    if parts.scheme not in ("http", "https") or extra or port == 0 or len(host) > 253 or not text.isprintable():
        raise wrong
    name = _HOST.fullmatch(host) and not host.rpartition(".")[2].isdigit()
    if not (name or _is(IPv4Address, host) or _is(IPv6Address, host)):
        raise wrong
    if kind is Kind.IPMI:
        if "://" in text:
            raise BmcInvalid(f"{_shown(text)}: IPMI has no URLs", "write it as HOST or HOST:PORT")
        return False, host, port or IPMI_PORT
    return parts.scheme == "https", host, port or (443 if parts.scheme == "https" else 80)


def _is(kind: type[IPv4Address] | type[IPv6Address], text: str) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


def is_pattern(address: str) -> bool:
    """Whether an address has a place for a node's number."""
    return bool(_PLACE.search(address))


def fill(pattern: str, name: str) -> str:
    """The address of one node's BMC: in "10.0.1.{n}" the number at the end of the node's name, in "10.0.1.{n+100}" that
    and a hundred, in "bmc{n:02}" two digits, and {name} the name. Raises BmcInvalid if the name has no number."""
    text = pattern.replace("{name}", name)
    number = re.search(r"[0-9]{1,9}$", name)
    if is_pattern(text) and number is None:
        raise BmcInvalid(f"{name} has no number at its end for {_shown(pattern)}", "give its address by itself")
    last = int(number[0]) if number else 0
    return _PLACE.sub(lambda place: str(last + int(place[1] or 0)).zfill(int(place[2] or 0)), text)


def reset_type(act: Act, offered: Iterable[str]) -> str:
    """The ResetType for an act among those a BMC offers; "" if it has none of them. A BMC that offers nothing at all
    does not say (the list is optional), and gets the first."""
    known = tuple(offered)
    return next((word for word in RESETS[act] if word in known or not known), "")


def same_uuid(one: str, other: str) -> bool:
    """Whether two UUIDs are one machine's: vendors disagree on the byte order of the first three fields (SMBIOS 7.2.1
    stores them little-endian)."""
    one, other = one.lower(), other.lower()
    return bool(one) and (one == other or _swapped(one) == other)


def _swapped(uuid: str) -> str:
    parts = uuid.split("-")
    if [len(part) for part in parts] != [8, 4, 4, 4, 12] or any(set(part) - set("0123456789abcdef") for part in parts):
        return ""
    return "-".join([*(bytes.fromhex(part)[::-1].hex() for part in parts[:3]), *parts[3:]])


def learned(bmc: Bmc, *, pin: str = "", system: str = "", cipher: int = 0) -> Bmc:
    """The BMC with what was found out about it; what is known stays."""
    return replace(bmc, pin=bmc.pin or pin, system=system or bmc.system, cipher=cipher or bmc.cipher)


def _shown(text: str) -> str:
    return repr("".join(c if c.isprintable() else "?" for c in text)[:80])
