"""What keeps a head node from serving, and what will hurt later: facts about the machine in, findings out.

Each finding says what was looked at, what was found, and the command that mends it. Gathering is done in
`doctor_facts`; here nothing is read and nothing is changed.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from appliance.firewall import blocked, opening
from netboot.dhcp import PROXY_PORT
from netboot.firmware import LADDER, SECURE

if TYPE_CHECKING:
    from appliance.config import Config
    from appliance.sightings import Server
    from netboot.udp import Interface

OLDEST_YEAR = 2025  # this program is younger: a clock before it has lost its battery
NEWEST_YEAR = 2100
LEAST_DISK, SCARCE_DISK = 200 << 20, 5 << 30  # bytes: the database's journal; one image of 2 GB with its working copy
SCARCE_MEMORY = 256 << 20  # bytes available; serve has 57 MB, its probe 70 (measured)
FEW_FILES = 1024  # each connection is one; a node has up to eight
OPENED = {("udp", 53): "DNS", ("tcp", 53): "DNS", ("udp", 67): "DHCP", ("udp", 69): "TFTP"}


@dataclass(frozen=True)
class Finding:
    """`level` is "ok", "note", "warning" or "error" (it cannot serve); `fix`
    a command or a short instruction, "" where nothing is to be done."""

    name: str
    level: str
    found: str
    fix: str = ""


@dataclass(frozen=True)
class Holder:
    """Who has a local port: `address` dotted or "::", `program` and `pid` ("" and 0 if /proc does not tell), `unit` the
    systemd service it belongs to or ""."""

    protocol: str
    port: int
    address: str
    program: str = ""
    pid: int = 0
    unit: str = ""


@dataclass(frozen=True)
class Facts:
    """A head node as it is. `interface` is the one that was named (flag, variable or gild.toml) or ""; `config` the
    settings or None where `trouble` (message, hint) says what is wrong with them; `serving` the pid of the gild that
    serves this state directory or 0; `refused` which ports could not be opened just now and why; `foreign` the DHCP
    servers that answered, None if nobody asked. `synchronised` and `bridge_delay` (seconds) are None if unknown."""

    root: bool
    serving: int
    state: str
    interface: str
    config: Config | None
    trouble: tuple[str, str]
    interfaces: tuple[Interface, ...]
    holders: tuple[Holder, ...]
    refused: dict[tuple[str, int], str]
    nft: str
    iptables: str
    foreign: tuple[Server, ...] | None
    foreign_trouble: str
    wall: float
    synchronised: bool | None
    disk_free: int
    memory: int
    files: int
    python: tuple[int, int, int]
    started: str
    payload: frozenset[str]
    tools: dict[str, str | None]
    confined: str
    bridge_delay: float | None


def diagnose(facts: Facts) -> list[Finding]:
    """All findings, in the order in which they should be mended."""
    checks = (_rights, _settings, _interface, _ports, _firewall, _foreign, _clock, _room, _program, _tools)
    return [finding for check in checks for finding in check(facts)]


def wanted_ports(config: Config | None) -> dict[tuple[str, int], str]:
    """(protocol, port) of everything `serve` opens to nodes, and what for."""
    http, https = (config.http_port, config.https_port) if config else (80, 443)
    late = {("udp", PROXY_PORT): "proxyDHCP"} if config is not None and config.dhcp == "proxy" else {}
    return {**OPENED, **late, ("tcp", http): "boot files and images", ("tcp", https): "installers"}


def _rights(facts: Facts) -> Iterator[Finding]:
    if not facts.root:
        yield Finding(
            "rights", "warning", "not root: other people's ports and rules cannot be seen", "run it with sudo"
        )
    if facts.serving:
        yield Finding("serving", "ok", f"process {facts.serving} serves {facts.state}")


def _settings(facts: Facts) -> Iterator[Finding]:
    message, hint = facts.trouble
    if message:
        yield Finding("settings", "error", message, hint)


def _interface(facts: Facts) -> Iterator[Finding]:
    usable = [entry for entry in facts.interfaces if not entry.loopback]
    if not facts.interface:
        known = ", ".join(entry.name for entry in usable) or "only lo"
        yield Finding(
            "interface", "note", f"none is named; this machine has: {known}", "gild.pyz doctor --interface NAME"
        )
        return
    name = shlex.quote(facts.interface)
    one = next((entry for entry in facts.interfaces if entry.name == facts.interface), None)
    if one is None:
        known = ", ".join(entry.name for entry in usable) or "only lo"
        yield Finding("interface", "error", f"there is no {facts.interface}; this machine has: {known}", "ip link show")
        return
    if not one.up:
        yield Finding("interface", "error", f"{one.name} is down", f"ip link set {name} up")
    elif not one.link:
        yield Finding("link", "error", f"{one.name} has no carrier", f"plug in its cable, then: ip link show {name}")
    if facts.bridge_delay:
        found = (
            f"{one.name} is a bridge that holds a new port back for {2 * facts.bridge_delay:.0f} s: firmware gives up"
        )
        yield Finding("spanning tree", "warning", found, f"ip link set {name} type bridge stp_state 0")
    if one.address is None:
        yield Finding(
            "address", "error", f"{one.name} has no IPv4 address", f"ip address add 10.1.0.1/16 dev {name}"
        )  # fmt: skip
        return
    yield from _addresses(facts, one)


def _addresses(facts: Facts, one: Interface) -> Iterator[Finding]:
    assert one.address is not None
    if facts.config is not None and not facts.trouble[0]:
        first, last = facts.config.range_first, facts.config.range_last
        size = int(IPv4Address(last)) - int(IPv4Address(first)) + 1 if first else 0
        yield Finding("address", "ok", f"{one.name} has {one.address}; nodes get {first}-{last}, {size} addresses")
    for other in facts.interfaces:
        if other.name == one.name or other.address is None or other.loopback:
            continue
        if other.address.network.overlaps(one.address.network):
            yield Finding(
                "two interfaces", "warning",
                f"{other.name} ({other.address}) is in the network of {one.name} ({one.address}): answers may leave by"
                " the wrong one", f"ip address del {other.address} dev {shlex.quote(other.name)}",
            )  # fmt: skip


def _ports(facts: Facts) -> Iterator[Finding]:
    wanted = wanted_ports(facts.config)
    quiet = True
    for (protocol, port), purpose in sorted(wanted.items(), key=lambda item: (item[0][1], item[0][0])):
        name = f"{protocol.upper()} port {port}"
        holders = [held for held in facts.holders if (held.protocol, held.port) == (protocol, port)]
        others = [held for held in holders if not held.pid or held.pid != facts.serving]
        refused = facts.refused.get((protocol, port), "")
        if facts.serving and not others:
            continue
        if refused:
            quiet = False
            held = others[0] if others else None
            found = f"{name} ({purpose}) is held by {_who(held)}" if held else refused
            yield Finding(name, "error", found, _stop(held, protocol, port))
        for held in () if refused else others:
            if held.address in ("0.0.0.0", "::"):
                # It could be opened: that one is bound to another interface, as libvirt's dnsmasq is. Or nobody tried.
                quiet = False
                tried = bool(facts.interface) and facts.root and not facts.serving
                level = "note" if tried else "warning"
                where = ", on another interface" if tried else ""
                yield Finding(name, level, f"{_who(held)} has it{where}", "" if tried else _stop(held, protocol, port))
    proxies = [held for held in facts.holders if (held.protocol, held.port) == ("udp", PROXY_PORT)]
    for held in proxies if ("udp", PROXY_PORT) not in wanted else ():
        quiet = False
        yield Finding(
            "UDP port 4011", "warning", f"{_who(held)} is there: a second boot server for the same machines",
            _stop(held, "udp", 4011),
        )  # fmt: skip
    if quiet:
        found = ", ".join(f"{kind}/{port}" for kind, port in sorted(wanted, key=lambda key: (key[1], key[0])))
        yield Finding("ports", "ok", f"{found} are {'ours' if facts.serving else 'free'}")


def _who(held: Holder) -> str:
    return f"{held.program} (PID {held.pid})" if held.pid else "a program that /proc does not name"


def _stop(held: Holder | None, protocol: str, port: int) -> str:
    if held is not None and held.unit:
        return f"systemctl disable --now {shlex.quote(held.unit)}"
    if held is not None and held.pid:
        return f"kill {held.pid}"
    return f"ss -ln{'u' if protocol == 'udp' else 't'}p 'sport = {port}'"


def _firewall(facts: Facts) -> Iterator[Finding]:
    if not facts.root or all(entry.name != facts.interface for entry in facts.interfaces):
        return
    if not facts.nft and not facts.iptables:
        yield Finding("firewall", "note", "neither nft nor iptables-save is here: its rules were not looked at")
        return
    ports = list(wanted_ports(facts.config))
    chains = blocked(facts.interface, ports, facts.nft, facts.iptables)
    for chain in chains:
        which = ", ".join(map(str, chain.ports))
        drops = "drops" if chain.sure else "seems to drop"
        found = f"{chain.tool}: {chain.chain} {drops} {chain.protocol.upper()} to {which}"
        yield Finding("firewall", "error" if chain.sure else "warning", found, opening(chain, facts.interface))
    if not chains:
        yield Finding("firewall", "ok", "no rule keeps nodes from the ports that are served")


def _foreign(facts: Facts) -> Iterator[Finding]:
    if facts.foreign_trouble:
        yield Finding("other DHCP servers", "warning", f"could not look: {facts.foreign_trouble}", "run it with sudo")
    if facts.config is not None and facts.config.dhcp == "proxy" and facts.foreign is not None:
        yield from _beside(facts)
        return
    for server in facts.foreign or ():
        if server.kind == "boot":
            yield Finding(
                "other DHCP servers", "warning", f"{server} on {facts.interface}: machines may boot from it instead",
                "stop it there, or serve another network",
            )  # fmt: skip
        else:
            yield Finding(
                "other DHCP servers", "error", f"{server} on {facts.interface}: machines get whichever answers first",
                "stop it there, or serve another network",
            )  # fmt: skip
    if facts.foreign == ():
        yield Finding("other DHCP servers", "ok", f"none answers on {facts.interface}")


def _beside(facts: Facts) -> Iterator[Finding]:
    """In proxy mode somebody else has to give the addresses."""
    givers = [server for server in facts.foreign or () if server.kind != "boot"]
    if givers:
        found = f"{givers[0]} on {facts.interface}; this head says what to boot"
        yield Finding("other DHCP servers", "ok", found)
    else:
        yield Finding(
            "other DHCP servers", "error", f"nobody on {facts.interface} gives addresses, and dhcp = proxy",
            "start that server, or let this head give them: serve --dhcp authority",
        )  # fmt: skip


def _clock(facts: Facts) -> Iterator[Finding]:
    then = datetime.fromtimestamp(facts.wall, UTC)
    stamp = then.strftime("%Y-%m-%d %H:%M:%S UTC")
    if not OLDEST_YEAR <= then.year <= NEWEST_YEAR:
        found = f"it is {stamp} here: certificates and orders would not be valid"
        yield Finding("clock", "error", found, "date -u -s 'YYYY-MM-DD HH:MM:SS' && hwclock -w")
    elif facts.synchronised is False:
        yield Finding("clock", "note", f"{stamp}, not synchronised", "timedatectl set-ntp true")
    else:
        yield Finding("clock", "ok", f"{stamp}{', synchronised' if facts.synchronised else ''}")


def _room(facts: Facts) -> Iterator[Finding]:
    free = f"{facts.disk_free / (1 << 30):.1f} GiB free for {facts.state}"
    if facts.disk_free < LEAST_DISK:
        yield Finding("disk", "error", free, "gild.pyz image gc, or --state on a larger disk")
    elif facts.disk_free < SCARCE_DISK:
        yield Finding("disk", "warning", f"{free}: little for images", "gild.pyz image gc, or --state on a larger disk")
    else:
        yield Finding("disk", "ok", free)
    memory = f"{facts.memory >> 20} MiB of memory available"
    if facts.memory < SCARCE_MEMORY:
        yield Finding("memory", "warning", memory, "ps --sort=-rss -eo rss,pid,comm | head")
    else:
        yield Finding("memory", "ok", memory)
    if facts.files < FEW_FILES:
        found = f"{facts.files} open files are allowed: each download of a node is one"
        yield Finding("open files", "warning", found, "ulimit -n 65536, in the shell that starts serve")


def _program(facts: Facts) -> Iterator[Finding]:
    version = ".".join(map(str, facts.python))
    yield Finding("program", "ok", f"Python {version}, {facts.started}")
    loaders = {"x64": "UEFI x64", "bios": "BIOS"}
    missing = [what for family, what in loaders.items() if not facts.payload & set(LADDER[family])]
    if not facts.payload:
        yield Finding("boot files", "error", "no kernel, installer or loader comes with this program",
                      "python3 build.py payload, or run gild.pyz")  # fmt: skip
        return
    for name in ("vmlinuz", "initrd.img"):
        if name not in facts.payload:
            yield Finding("boot files", "error", f"{name} is missing", "python3 build.py payload")
    if missing:
        yield Finding("boot files", "warning", f"no loader for {', '.join(missing)}", "python3 build.py payload")
    if not facts.payload.issuperset((*SECURE["x64"], "grubx64.efi")):
        yield Finding("Secure Boot", "warning", "shimx64.efi and grubx64.efi are not both here: machines with Secure"
                      " Boot cannot start", "python3 build.py payload")  # fmt: skip
    else:
        yield Finding("Secure Boot", "ok", "the signed shim and GRUB are here")


# Tool -> what needs it, the package of Debian, Fedora and SUSE.
TOOLS = {
    "mke2fs": ("images of all kinds", "apt install e2fsprogs"),
    "mmdebstrap": ("building Debian and Ubuntu images", "apt install mmdebstrap"),
    "qemu-img": ("importing qcow2, VMDK, VDI and VHDX disks", "apt install qemu-utils"),
}


def _tools(facts: Facts) -> Iterator[Finding]:
    for name, (purpose, fix) in TOOLS.items():
        version = facts.tools.get(name)
        if version is None:
            level = "warning" if name == "mke2fs" else "note"
            yield Finding("tools", level, f"{name} is not here: it is needed for {purpose}", fix)
        else:
            yield Finding("tools", "ok", version or name)
    if facts.confined.startswith("SELinux"):
        yield Finding("confinement", "note", f"{facts.confined}: if the built file cannot load its libraries from"
                      " memory, give it a folder", "export GILD_CACHE=/var/lib/gild/cache")  # fmt: skip
    elif facts.confined:
        yield Finding("confinement", "note", facts.confined, "aa-status")
