"""Bringing the boot NIC up: the right card, a link, an address; and saying what is wrong when that takes long."""

from __future__ import annotations

import ipaddress
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from images.errors import GildError
from images.run import run
from netboot.report import Nic

PATIENCE = 900.0  # seconds until giving up: a switch may boot after a power cut as its nodes do
COMPLAIN = 30.0  # seconds until the likely cause is told, then every
COMPLAIN_EVERY = 60.0
LAST_PAUSE = 8.0
TRIES = 4  # DHCP discovers in one go, two seconds apart
RENEW_LEAST = 60.0

_MAC = re.compile(r"([0-9a-f]{2}:){5,19}[0-9a-f]{2}")
# udhcpc gives what it learned in the environment of its script; `mask` is the prefix length there (networking/udhcp).
_SCRIPT = """#!/bin/sh
case "$1" in
bound|renew) printf 'ip=%s\\nmask=%s\\nrouter=%s\\nlease=%s\\n' "$ip" "$mask" "$router" "$lease" > "$GILD_LEASE" ;;
esac
"""

CABLE = "no link: is the cable in, and the switch port enabled? (some transceivers need the port's speed set by hand)"
SILENCE = (
    "the link is up and no DHCP server answers: a switch port in spanning tree is deaf for 30 to 50 s "
    "(set it to edge/portfast), else the port is in another VLAN or the head is not serving"
)


class NetworkFailed(GildError):
    """The machine has no network; the message names the likely cause."""


@dataclass(frozen=True)
class Address:
    """What the NIC is to have. `lease` is in seconds, 0 for an address that was given and not leased."""

    ip: str
    prefix: int
    gateway: str = ""
    lease: int = 0


def boot_mac(words: Mapping[str, str]) -> str:
    """The MAC of the NIC the machine booted from: BOOTIF=01-aa-bb-.. (PXELINUX, iPXE), colons (GRUB), with or without
    the hardware type in front. "" if the command line does not say."""
    text = words.get("BOOTIF", "").lower().replace("-", ":")
    if not _MAC.fullmatch(text):
        return ""
    parts = text.split(":")
    return ":".join(parts[1:] if len(parts) in (7, 21) else parts)


def given_address(words: Mapping[str, str]) -> Address | None:
    """`gild.ip=10.1.2.3/24 gild.gateway=10.1.2.1`, or None. Raises NetworkFailed for an impossible one."""
    text = words.get("gild.ip", "")
    if not text:
        return None
    try:
        interface = ipaddress.IPv4Interface(text)
        gateway = str(ipaddress.IPv4Address(words["gild.gateway"])) if words.get("gild.gateway") else ""
    except ValueError as error:
        raise NetworkFailed(f"the kernel command line gives an impossible address: {error}") from None
    return Address(str(interface.ip), interface.network.prefixlen, gateway)


def parse_lease(text: str) -> Address | None:
    """What the udhcpc script wrote, or None if it is not a usable address."""
    words = dict(line.partition("=")[::2] for line in text.splitlines())
    try:
        ip = ipaddress.IPv4Address(words.get("ip", ""))
        prefix = int(words.get("mask") or 24)
        routers = [str(ipaddress.IPv4Address(word)) for word in words.get("router", "").split()]
        lease = int(words.get("lease") or 0)
    except ValueError:
        return None
    if not 1 <= prefix <= 32 or ip.is_loopback or ip.is_unspecified or ip.is_multicast:
        return None
    return Address(str(ip), prefix, routers[0] if routers else "", max(0, lease))


def candidates(nics: Sequence[Nic], mac: str) -> list[Nic]:
    """The cards to try, in order. With a known boot MAC that card alone: another one may lead anywhere."""
    if mac:
        return [nic for nic in nics if nic.mac == mac]
    return sorted(nics, key=lambda nic: not nic.link)


class Network:
    """One machine's way to the head. `read` gives its cards as they are now, `folder` is for the lease file."""

    def __init__(
        self,
        read: Callable[[], Sequence[Nic]],
        log: Callable[[str], None],
        *,
        folder: str = "/run/gild",
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.read, self.log, self.folder, self.clock, self.sleep = read, log, folder, clock, sleep

    def up(self, mac: str, given: Address | None) -> tuple[Nic, Address]:
        """Bring the card with `mac` up (any card if ""), with the `given` address or one by DHCP. Tries again with
        growing pauses and says what is likely wrong. Raises NetworkFailed after PATIENCE seconds."""
        begun, told, pause = self.clock(), 0.0, 0.5
        for nic in candidates(self.read(), mac):
            self._ip("link", "set", nic.name, "up")
        while True:
            nics = candidates(self.read(), mac)
            for nic in nics:
                found = self._try(nic, given)
                if found is not None:
                    return nic, found
            waited = self.clock() - begun
            cause = self._cause(nics, mac)
            if waited >= PATIENCE:
                raise NetworkFailed(f"no network after {waited:.0f} s: {cause}")
            if waited >= (told + COMPLAIN_EVERY if told else COMPLAIN):
                told = waited
                self.log(f"still no network after {waited:.0f} s: {cause}")
            self.sleep(pause)
            pause = min(pause * 2, LAST_PAUSE)

    def keep(self, nic: Nic, address: Address) -> None:
        """Renew a leased address from a thread of its own at half its time, for as long as this process lives."""
        if address.lease:
            threading.Thread(target=self._keep, args=(nic, address), name="lease", daemon=True).start()

    def _try(self, nic: Nic, given: Address | None) -> Address | None:
        self._ip("link", "set", nic.name, "up")
        if given is not None:
            self._set(nic.name, given)
            return given if self._link(nic) else None
        if not self._link(nic):
            return None
        found = self._dhcp(nic.name)
        if found is not None:
            self._set(nic.name, found)
        return found

    def _link(self, nic: Nic) -> bool:
        """The card has a link, now; read anew because a card tells only while it is up."""
        return any(now.link for now in self.read() if now.name == nic.name)

    def _cause(self, nics: Sequence[Nic], mac: str) -> str:
        if not nics:
            what = f"the card {mac} it booted from" if mac else "any network card"
            return f"the installer does not see {what}; its driver or firmware is missing"
        down = [nic.name for nic in nics if not self._link(nic)]
        return f"{', '.join(down)}: {CABLE}" if len(down) == len(nics) else SILENCE

    def _dhcp(self, name: str, want: str = "") -> Address | None:
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        script, lease = f"{self.folder}/udhcpc.sh", f"{self.folder}/{name}.lease"
        with open(script, "w", encoding="ascii") as file:
            file.write(_SCRIPT)
        os.chmod(script, 0o700)
        with open(lease, "w", encoding="ascii"):
            pass
        command = ["busybox", "udhcpc", "-f", "-n", "-q", "-i", name, "-s", script, "-t", str(TRIES), "-T", "2"]
        done = run(
            [*command, *(["-r", want] if want else [])],
            env={"GILD_LEASE": lease},
            check=False,
            timeout=60,
            act="asking for an address",
        )
        with open(lease, encoding="utf-8", errors="replace") as file:
            return parse_lease(file.read(4096)) if done.returncode == 0 else None

    def _set(self, name: str, address: Address) -> None:
        self._ip("address", "flush", "dev", name)
        self._ip("address", "add", f"{address.ip}/{address.prefix}", "dev", name)
        if address.gateway:
            self._ip("route", "add", "default", "via", address.gateway, "dev", name)

    def _ip(self, *words: str) -> None:
        done = run(["ip", *words], check=False, timeout=20, act="setting up the network")
        if done.returncode:
            self.log(f"ip {' '.join(words)}: {done.stderr.decode('utf-8', 'replace').strip()[:200]}")

    def _keep(self, nic: Nic, address: Address) -> None:
        while True:
            self.sleep(max(RENEW_LEAST, address.lease / 2))
            try:
                found = self._dhcp(nic.name, address.ip)
            except (GildError, OSError):
                continue
            if found is not None and found.ip != address.ip:
                self.log(f"the head gave another address: {found.ip} instead of {address.ip}")
                self._set(nic.name, found)
            address = found or address
