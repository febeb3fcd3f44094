"""The one table of settings. A setting is a flag, a GILD_* variable and a key of gild.toml, all by the same name."""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from appliance.errors import ConfigInvalid


@dataclass(frozen=True)
class Setting:
    """One row: `read` turns text (or a TOML value) into the value, or raises ValueError with what it wants."""

    name: str
    default: Any
    read: Callable[[Any], Any]
    help: str


def _text(value: Any) -> str:
    if not isinstance(value, str) or any(not c.isprintable() for c in value):
        raise ValueError("a line of text")
    return value


def _choice(*words: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in words:
            raise ValueError("one of " + ", ".join(words))
        return str(value)

    return read


def _number(low: int, high: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, bool) or not re.fullmatch(r"\d{1,9}", str(value)) or not low <= int(value) <= high:
            raise ValueError(f"a number from {low} to {high}")
        return int(value)

    return read


def _several(*words: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        chosen = [word.strip() for word in str(value).split(",") if word.strip()]
        if not isinstance(value, str) or not set(chosen) <= set(words):
            raise ValueError("some of " + ", ".join(words) + ", or nothing")
        return ",".join(dict.fromkeys(chosen))

    return read


def _address(value: Any) -> str:
    if value == "":
        return ""
    try:
        return str(ipaddress.IPv4Address(value))
    except ValueError:
        raise ValueError("an IPv4 address such as 10.1.0.1, or nothing") from None


FIRST_LAST = re.compile(r"\s*(\d[\d.]{6,14})\s*-\s*(\d[\d.]{6,14})\s*")


def _range(value: Any) -> str:
    if value == "":
        return ""
    first, _, last = str(value).partition("-")
    try:
        if ipaddress.IPv4Address(first.strip()) <= ipaddress.IPv4Address(last.strip()):
            return f"{first.strip()}-{last.strip()}"
    except ValueError:
        pass
    raise ValueError("two IPv4 addresses such as 10.1.0.100-10.1.0.250")


def _servers(value: Any) -> str:
    if value in ("", "system"):
        return str(value)
    try:
        addresses = [str(ipaddress.IPv4Address(word.strip())) for word in str(value).split(",")]
    except ValueError:
        addresses = []
    if not 1 <= len(addresses) <= 3:
        raise ValueError("one to three IPv4 addresses such as 192.0.2.53,192.0.2.54, or system, or nothing")
    return ",".join(addresses)


def _aliases(value: Any) -> str:
    words = [word.strip() for word in str(value).split(",") if word.strip()]
    if len(words) > 100 or not all(_alias(*word.partition("=")[::2]) for word in words):
        raise ValueError("NAME=ADDRESS or NAME=head, several with commas, such as www=head,printer=10.1.0.5")
    return ",".join(words)


def _alias(name: str, target: str) -> bool:
    try:
        stands_for = target == "head" or ipaddress.IPv4Address(target)
    except ValueError:
        return False
    plain = re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,48}[a-z0-9])?", name) and ".." not in name
    return bool(stands_for and plain)


def _domain(value: Any) -> str:
    label = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
    if not isinstance(value, str) or len(value) > 200 or not re.fullmatch(rf"{label}(\.{label})*", value):
        raise ValueError("a domain in lower case such as cluster.internal")
    return value


def _pattern(value: Any) -> str:
    try:
        text = str(value).format(n=7)
    except (KeyError, IndexError, ValueError, AttributeError):
        text = ""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", text) or str(value).format(n=8) == text:
        raise ValueError("a pattern with a number in it such as node{n:02}")
    return str(value)


def _arguments(value: Any) -> str:
    from netboot.plan import CMDLINE  # here, as every command reads this table and few need a plan

    if not isinstance(value, str) or len(value) > 512 or (value and not CMDLINE.fullmatch(value)):
        raise ValueError("kernel arguments without quotes, $ ; # | & and braces")
    return value


SETTINGS: tuple[Setting, ...] = (
    Setting("state", "/var/lib/gild", _text, "directory that holds everything: database, images, keys"),
    Setting("interface", "", _text, "network interface the nodes are on; nothing is served before one is named"),
    Setting("address", "", _address, "the head's address on that interface; empty: the one it has"),
    Setting("range", "", _range, "addresses for nodes, first-last; empty: the network without its first tenth"),
    Setting("router", "", _address, "default gateway told to nodes; empty: none"),
    Setting("domain", "cluster.internal", _domain, "DNS zone of the cluster; the head is head.DOMAIN"),
    Setting("ntp", "", _address, "time server told to nodes; empty: none"),
    Setting("lease", 3600, _number(120, 604800), "seconds a node may keep its address without asking again"),
    Setting("unknown", "wait", _choice("wait", "local", "ignore"), "what a machine nobody approved gets: the installer"
            " (wait there), its own disk (local), or no answer (ignore)"),
    Setting("names", "node{n:02}", _pattern, "pattern for the names of approved machines"),
    Setting("finish", "kexec", _choice("kexec", "reboot", "poweroff"), "how a written machine starts its new system:"
            " kexec, reboot or poweroff"),
    Setting("verify", "sample", _choice("none", "sample", "full"), "how much of the disk is read back after writing:"
            " none, sample or full"),
    Setting("installer_cmdline", "", _arguments, "more kernel arguments of the installer, on every machine, such as"
            " nomodeset, or gild.shell for a shell where it fails; empty: none"),
    Setting("slurm", "off", _choice("on", "off"), "whether DNS names this head as the Slurm controller, for nodes that"
            " have no slurm.conf (SRV record of _slurmctld._tcp, port 6817)"),
    Setting("services", "", _several("hosts", "slurm", "pbs", "sge", "ansible", "genders"), "services of this machine"
            " that are told of the nodes whenever these change: hosts,slurm (see: help cluster); empty: none"),
    Setting("forward", "", _servers, "DNS servers that names outside the cluster are asked of, or system: those of this"
            " machine's /etc/resolv.conf; empty: such names are refused"),
    Setting("aliases", "", _aliases, "more names in the cluster's DNS zone: NAME=ADDRESS or NAME=head, with commas"),
    Setting("http_port", 80, _number(1, 65535), "port of boot files and image packs"),
    Setting("https_port", 443, _number(1, 65535), "port the installer reports to"),
    Setting("power_wait", 180, _number(10, 3600), "seconds a machine that was switched on has to ask for an address;"
            " servers take minutes in their firmware"),
    Setting("dhcp", "authority", _choice("authority", "proxy"), "who gives addresses: this head (authority), or another"
            " DHCP server while this head says what to boot (proxy)"),
    Setting("dhcp_check", "on", _choice("on", "off"), "whether to look for other DHCP servers and not be the second"),
    Setting("log", "info", _choice("info", "debug"), "how much is printed: info, or debug for every packet"),
)  # fmt: skip
BY_NAME = {setting.name: setting for setting in SETTINGS}


MOST_ADDRESSES = 1 << 16  # of a range nobody gave: what netboot.lease.Pool holds
NOWHERE = ipaddress.IPv4Network("0.0.0.0/32")


@dataclass(frozen=True)
class Config:
    """All settings, checked. `network`, `address` and the range are filled in by `on`."""

    state: str
    interface: str
    address: str
    range_first: str
    range_last: str
    router: str
    domain: str
    ntp: str
    lease_seconds: int
    unknown: str
    names: str
    finish: str
    verify: str
    installer_cmdline: str
    slurm: str
    services: str
    forward: str
    aliases: str
    http_port: int
    https_port: int
    power_wait: int
    dhcp: str
    dhcp_check: str
    log: str
    network: ipaddress.IPv4Network = NOWHERE

    @property
    def more_names(self) -> dict[str, str]:
        """Names of the zone that are no node's, with their addresses."""
        pairs = (word.partition("=")[::2] for word in self.aliases.split(",") if word)
        return {name: self.address if target == "head" else target for name, target in pairs}

    def on(self, interface: ipaddress.IPv4Interface) -> Config:
        """This configuration on an interface with that address. Raises ConfigInvalid if the range does not fit it."""
        network = interface.network
        address = self.address or str(interface.ip)
        if ipaddress.IPv4Address(address) not in network:
            raise ConfigInvalid(f"address {address} is not in {network}, the network of {self.interface}")
        if network.num_addresses < 8:
            raise ConfigInvalid(f"{self.interface} has {interface}: too small for nodes", "give it a /24, say")
        first, last = self.range_first, self.range_last
        if not first:
            # The first tenth stays free for switches, BMCs and the site's own machines.
            first = str(network.network_address + max(2, min(network.num_addresses // 10, 256)))
            last = str(min(network.broadcast_address - 1, ipaddress.IPv4Address(first) + MOST_ADDRESSES - 1))
        for end in (first, last):
            if ipaddress.IPv4Address(end) not in network:
                raise ConfigInvalid(f"range {first}-{last}: {end} is not in {network}, the network of {self.interface}")
        if address in self.forward.split(","):
            raise ConfigInvalid(f"forward {address}: that is this head, which would ask itself", "name another server")
        if self.router and ipaddress.IPv4Address(self.router) not in network:
            raise ConfigInvalid(f"router {self.router} is not in {network}, the network of {self.interface}")
        return replace(self, address=address, network=network, range_first=first, range_last=last)


def parse(text: str, environ: Mapping[str, str], flags: Mapping[str, Any]) -> Config:
    """Settings from gild.toml's text, GILD_* variables and flags; the later wins. Raises ConfigInvalid naming the
    setting, where it was given, and the nearest known name for an unknown one."""
    values: dict[str, Any] = {setting.name: setting.default for setting in SETTINGS}
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigInvalid(f"gild.toml: {error}") from None
    for name, value in table.items():
        values[name] = _read(name, value, "gild.toml")
    for variable, value in environ.items():
        if variable.startswith("GILD_") and variable not in ENVIRONMENT_ONLY:
            name = variable[5:].lower()
            values[name] = _read(name, value, variable)
    for name, value in flags.items():
        if value is not None:
            values[name] = _read(name, value, "--" + name.replace("_", "-"))
    first, _, last = values.pop("range").partition("-")
    return Config(range_first=first, range_last=last, lease_seconds=values.pop("lease"), **values)


# Read by the bootstrap of the .pyz, before there are settings.
ENVIRONMENT_ONLY = frozenset({"GILD_CACHE", "GILD_REEXEC"})


def _read(name: str, value: Any, where: str) -> Any:
    if name not in BY_NAME:
        near = get_close_matches(name, BY_NAME, 1)
        hint = f"did you mean {near[0]!r}?" if near else "see: gild.pyz help settings"
        raise ConfigInvalid(f"{where}: there is no setting {name!r}", hint)
    try:
        return BY_NAME[name].read(value)
    except ValueError as error:
        raise ConfigInvalid(f"{where}: {name} = {value!r} should be {error}") from None
