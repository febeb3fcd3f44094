"""Gathering what `doctor` judges: from /proc, the kernel, the rules of the packet filter. Changes nothing."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import socket
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from appliance import bundled
from appliance.config import Config, parse
from appliance.doctor import TOOLS, Facts, Holder, wanted_ports
from appliance.paths import Paths
from images.errors import GildError
from images.run import run
from netboot.udp import Interface, UdpError, interface_address, interfaces, open_tcp, open_udp

TOOL_SECONDS = 10  # for a program to say its version
_STA_UNSYNC = 0x0040  # linux/timex.h
_LISTENING, _UNCONNECTED = "0A", "07"  # states of /proc/net/tcp and /proc/net/udp (net/tcp_states.h)


def gather(paths: Paths, environ: Mapping[str, str], flags: Mapping[str, Any], serving: int = 0) -> Facts:
    """Look at this machine. `flags` are settings from the command line, `serving` the pid of the gild that serves this
    state directory or 0. DHCP servers are looked for on an interface that somebody named and on no other."""
    config, trouble = _config(paths, environ, flags)
    interface = config.interface if config else str(flags.get("interface") or "")
    if config is not None and interface and not trouble[0]:
        try:
            config = config.on(interface_address(interface))
        except UdpError:
            pass  # the interface's own findings say it
        except GildError as error:
            trouble = error.message, error.hint
    known = tuple(interfaces())
    wanted = wanted_ports(config)
    root = os.geteuid() == 0
    here = next((entry for entry in known if entry.name == interface), None)
    foreign, foreign_trouble = _foreign(here, config)
    return Facts(
        root=root,
        serving=serving,
        state=str(paths.state),
        interface=interface,
        config=config,
        trouble=trouble,
        interfaces=known,
        holders=holders({*wanted, ("udp", 4011)}),
        refused=_refused(wanted, here, config) if root and here and not serving else {},
        nft=_printed(["nft", "-j", "list", "ruleset"]) if root else "",
        iptables=_printed(["iptables-save"]) if root else "",
        foreign=foreign,
        foreign_trouble=foreign_trouble,
        wall=time.time(),
        synchronised=synchronised(),
        disk_free=_free(paths.state),
        memory=_available(),
        files=_files(),
        python=sys.version_info[:3],
        started=f"{sys.executable}, {_started()}",
        payload=frozenset(bundled.payload()) | _own_files(paths.boot),
        tools={name: _version(name) for name in TOOLS},
        confined=_confined(),
        bridge_delay=_bridge_delay(interface),
    )


def holders(wanted: Iterable[tuple[str, int]]) -> tuple[Holder, ...]:
    """Who has these (protocol, port) pairs open, by /proc: all of them for root, one's own for others."""
    sought = set(wanted)
    found: dict[str, Holder] = {}
    for protocol, state in (("udp", _UNCONNECTED), ("tcp", _LISTENING)):
        for table in (protocol, protocol + "6"):
            for line in _text(f"/proc/net/{table}").splitlines()[1:]:
                columns = line.split()
                if len(columns) < 10 or columns[3] != state:
                    continue
                address, _, port = columns[1].rpartition(":")
                if (protocol, int(port, 16)) in sought:
                    found[columns[9]] = Holder(protocol, int(port, 16), _dotted(address))
    if found:
        for inode, pid in _owners(found):
            found[inode] = replace(found[inode], program=_program(pid), pid=pid, unit=_unit(pid))
    return tuple(sorted(found.values(), key=lambda held: (held.port, held.protocol, held.address, held.pid)))


def synchronised() -> bool | None:
    """Whether something keeps the kernel's clock right (adjtimex(2)); None if the kernel does not say."""
    # struct timex on 64-bit Linux: an int, four longs, then the status.
    buffer = ctypes.create_string_buffer(256)
    if ctypes.CDLL(None).adjtimex(buffer) < 0:
        return None
    return not int.from_bytes(buffer.raw[40:44], sys.byteorder) & _STA_UNSYNC


def _config(
    paths: Paths, environ: Mapping[str, str], flags: Mapping[str, Any]
) -> tuple[Config | None, tuple[str, str]]:
    try:
        text = paths.settings.read_text(encoding="utf-8")
    except FileNotFoundError:
        text = ""
    except (OSError, UnicodeDecodeError) as error:
        return None, (f"{paths.settings} cannot be read: {error}", "mend it, or give another --state")
    try:
        return parse(text, environ, {**flags, "state": str(paths.state)}), ("", "")
    except GildError as error:
        return None, (error.message, error.hint)


def _refused(wanted: Iterable[tuple[str, int]], here: Interface, config: Config | None) -> dict[tuple[str, int], str]:
    """Which ports cannot be opened as `serve` opens them. Each is open for an instant and nothing is answered."""
    refused = {}
    address = config.address if config and config.address else str(here.address.ip) if here.address else "0.0.0.0"
    for protocol, port in wanted:
        try:
            if protocol == "tcp":
                open_tcp(port, address=address).close()
            elif port == 67:
                open_udp(port, interface=here.name, broadcast=True).close()
            else:
                open_udp(port, interface=here.name, address=address).close()
        except UdpError as error:
            refused[protocol, port] = error.message
    return refused


def _foreign(here: Interface | None, config: Config | None) -> tuple[tuple[Any, ...] | None, str]:
    if here is None or here.loopback or not here.up or not here.link:
        return None, ""
    from appliance.probing import ask

    own = {config.address if config else "", str(here.address.ip) if here.address else ""}
    try:
        return tuple(server for server in ask(here.name) if server.source not in own), ""
    except GildError as error:
        return None, error.message


def _owners(inodes: Mapping[str, object]) -> list[tuple[str, int]]:
    owners: list[tuple[str, int]] = []
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        try:
            links = [os.readlink(entry) for entry in (process / "fd").iterdir()]
        except OSError:
            continue
        mine = {link[8:-1] for link in links if link.startswith("socket:[")}
        owners.extend((inode, int(process.name)) for inode in mine & inodes.keys())
    return owners


def _program(pid: int) -> str:
    return "".join(c if c.isprintable() else "?" for c in _text(f"/proc/{pid}/comm").strip())


def _unit(pid: int) -> str:
    """The systemd service of a process, by the name of its control group."""
    for line in _text(f"/proc/{pid}/cgroup").splitlines():
        for part in line.rpartition(":")[2].split("/"):
            if part.endswith(".service") and part.isprintable():
                return part
    return ""


def _dotted(address: str) -> str:
    """An address of /proc/net: words in the machine's byte order, hexadecimal."""
    raw = bytes.fromhex(address)
    words = b"".join(raw[at : at + 4][:: -1 if sys.byteorder == "little" else 1] for at in range(0, len(raw), 4))
    return socket.inet_ntop(socket.AF_INET if len(words) == 4 else socket.AF_INET6, words)


def _printed(argv: list[str]) -> str:
    try:
        return run(argv, timeout=TOOL_SECONDS, check=False).stdout.decode("utf-8", "replace")
    except GildError:
        return ""


def _version(name: str) -> str | None:
    """The first line a tool prints of itself; None if it is not there."""
    path = ":".join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    if shutil.which(name, path=path) is None:
        return None
    try:
        done = run([name, "-V" if name == "mke2fs" else "--version"], timeout=TOOL_SECONDS, check=False)
    except GildError:
        return None
    lines = (done.stdout or done.stderr).decode("utf-8", "replace").splitlines()
    return "".join(c for c in lines[0] if c.isprintable())[:80] if lines else name


def _free(path: Path) -> int:
    """Bytes free where `path` is or would be."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def _available() -> int:
    """MemAvailable of /proc/meminfo in bytes (proc(5))."""
    for line in _text("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0


def _files() -> int:
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def _started() -> str:
    return f"from {bundled.ROOT}" + ("" if os.path.isfile(bundled.ROOT) else " (a checkout)")


def _own_files(folder: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except OSError:
        return frozenset()


def _confined() -> str:
    if _text("/sys/fs/selinux/enforce").strip() == "1":
        return "SELinux is enforcing"
    profile = _text("/proc/self/attr/apparmor/current").strip("\0\n ")
    return f"AppArmor confines this process: {profile}" if profile and profile != "unconfined" else ""


def _bridge_delay(interface: str) -> float | None:
    """Seconds a bridge's spanning tree keeps a new port in each of its two states, 0 if it is off; None if that is no
    bridge. Linux counts in hundredths (Documentation/networking/bridge.rst)."""
    folder = f"/sys/class/net/{interface}/bridge"
    state, delay = _text(f"{folder}/stp_state").strip(), _text(f"{folder}/forward_delay").strip()
    if not state.isdecimal() or not delay.isdecimal() or "/" in interface:
        return None
    return int(delay) / 100 if int(state) else 0.0


def _text(path: str) -> str:
    """A file of the kernel's, or "" if it is not there or not ours to read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
