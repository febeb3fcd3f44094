"""BMCs by IPMI 2.0, spoken by ipmitool: an interpreter of this protocol that has met every vendor's."""

from __future__ import annotations

import re
from dataclasses import replace

from appliance.power.limit import Limit
from images.run import Done, run, tail
from netboot.bmc import CIPHERS, Act, Bmc, BmcFailed, Power

ONE_CALL = 20.0  # seconds; a BMC that is there answers within one, one that is not costs 2 x 3 tries of 2 s
_COMMANDS = {Act.ON: "on", Act.OFF: "off", Act.SOFT: "soft", Act.CYCLE: "cycle", Act.RESET: "reset"}
_STATUS = re.compile(rb"^Chassis Power is (on|off)\s*$", re.MULTILINE)
# What ipmitool -v says of the ways in which a session does not come about, in words for people (measured: 1.8.19).
_REASONS = (
    ("RAKP 2 message indicates an error", "its user {user} is not known there, or may not do that"),
    ("RAKP 2 HMAC is invalid", "the password is wrong"),
    ("Address lookup", "the name {address} is not known"),
    ("Get Auth Capabilities error", "nothing answers at {place}"),
    ("insufficient resources", "it has no session free"),
)


class Ipmi:
    """A BMC by IPMI. `bmc` is what is known of it, with what was learned on the way."""

    def __init__(self, bmc: Bmc, limit: Limit) -> None:
        self.bmc, self._limit = bmc, limit

    def status(self) -> Power:
        """Whether the machine is on. Raises BmcFailed, ToolMissing."""
        said = _STATUS.search(self._call("chassis", "power", "status"))
        return Power(said[1].decode()) if said else Power.UNKNOWN

    def tell(self, act: Act) -> None:
        """Give a command, without waiting for what comes of it. Raises BmcFailed, ToolMissing."""
        self._call("chassis", "power", _COMMANDS[act])

    def boot_from_network(self, uefi: bool) -> None:
        """Have the next boot come from the network, once. Without `efiboot` the boot is one of BIOS (IPMI 2.0, table
        28-14). Raises BmcFailed, ToolMissing."""
        self._call("chassis", "bootdev", "pxe", *(["options=efiboot"] if uefi else []))

    def about(self) -> str:
        """What it says it is. Raises BmcFailed, ToolMissing."""
        said = self._call("mc", "info").decode("utf-8", "replace")
        found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in said.splitlines())}
        words = [found.get("Manufacturer Name", ""), found.get("Product Name", "")]
        version = found.get("Firmware Revision", "")
        return " ".join(word for word in words if word) + (f", firmware {version}" if version else "")

    def _call(self, *words: str) -> bytes:
        """What ipmitool printed. Suites of ciphers are tried once each until one works, which is remembered."""
        suites = (self.bmc.cipher,) if self.bmc.cipher else CIPHERS
        for suite in suites:
            done = self._once(suite, words)
            if done.returncode == 0:
                self.bmc = replace(self.bmc, cipher=suite)
                return done.stdout[:65536]
            if b"open session response" not in done.stderr:
                raise self._failed(done.stderr + done.stdout)
        # A BMC that was updated may want another suite than the one that once worked: the next call tries all.
        self.bmc = replace(self.bmc, cipher=0)
        raise self._failed(done.stderr + done.stdout)

    def _once(self, suite: int, words: tuple[str, ...]) -> Done:
        bmc = self.bmc
        argv = ["ipmitool", "-I", "lanplus", "-C", str(suite), "-N", "2", "-R", "2", "-v", "-E"]
        argv += ["-H", bmc.address, "-p", str(bmc.port), "-U", bmc.user, *words]
        # By the environment: everybody may read the command lines of a machine.
        secret = {"IPMI_PASSWORD": bmc.password}
        act = f"asking the BMC {bmc.place}"
        return run(argv, env=secret, timeout=self._limit.left(ONE_CALL, act), check=False, act=act)

    def _failed(self, said: bytes) -> BmcFailed:
        text = said.decode("utf-8", "replace")
        for sign, reason in _REASONS:
            if sign in text:
                return BmcFailed(f"the BMC {self.bmc.place}: " + reason.format(**_words(self.bmc)))
        return BmcFailed(f"the BMC {self.bmc.place} says: {tail(said, 2, 200)}")


def _words(bmc: Bmc) -> dict[str, str]:
    return {"user": bmc.user, "address": bmc.address, "place": bmc.place}
