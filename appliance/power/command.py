"""One act at one BMC: prepared, told, and looked at until it shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from appliance.power.ipmi import Ipmi
from appliance.power.limit import Limit
from appliance.power.redfish import Redfish
from images.errors import GildError
from netboot.bmc import AFTER, Act, Bmc, BmcFailed, Kind, Power

WHOLE = 90.0  # seconds of one act with all its steps
SETTLE = 30.0  # seconds in which a command has to show: BMCs obey 1 to 15 s after they have said yes
LOOK_EVERY = 1.0


class Line(Protocol):
    """What both languages can say."""

    bmc: Bmc

    def status(self) -> Power: ...
    def tell(self, act: Act) -> None: ...
    def boot_from_network(self, uefi: bool) -> None: ...
    def about(self) -> str: ...


@dataclass(frozen=True)
class Target:
    """A node's BMC, and what tells the node's own system from the others behind it. `uefi`: how the node boots."""

    bmc: Bmc
    uuid: str = ""
    macs: tuple[str, ...] = ()
    uefi: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of an act. `power` as the BMC says, `error` why it failed or "", `remarks` what is odd, `about` what
    the BMC says it is, `bmc` with what was learned about it."""

    bmc: Bmc
    power: Power = Power.UNKNOWN
    error: str = ""
    hint: str = ""
    remarks: tuple[str, ...] = ()
    about: str = ""


def carry_out(target: Target, act: Act, network: bool = False, look: bool = False) -> Outcome:
    """Have a BMC do something; `network`: its next boot is to come from the network, once; `look`: ask what it is.
    Takes WHOLE seconds at most. Never raises for what a BMC does or fails to do."""
    limit = Limit(WHOLE)
    line = _line(target, limit)
    remarks: list[str] = []
    try:
        about = line.about() if look else ""
        power = line.status()
        if act is not Act.STATUS:
            power = _told(line, target, act, power, network, remarks, Limit(SETTLE))
    except GildError as error:
        return Outcome(line.bmc, error=error.message, hint=error.hint, remarks=tuple(remarks))
    return Outcome(line.bmc, power, remarks=tuple(remarks), about=about)


def _line(target: Target, limit: Limit) -> Line:
    if target.bmc.kind is Kind.IPMI:
        return Ipmi(target.bmc, limit)
    return Redfish(target.bmc, limit, target.uuid, target.macs)


def _told(
    line: Line, target: Target, act: Act, power: Power, network: bool, remarks: list[str], settle: Limit
) -> Power:
    if power is Power.OFF and act in (Act.OFF, Act.SOFT):
        return power
    if power is Power.OFF and act in (Act.CYCLE, Act.RESET):
        act = Act.ON  # IPMI 2.0 table 28-4: a cycle of a machine that is off may do nothing
    if network:
        # Not every BMC can, and some say yes and forget: the node may have the network first anyway.
        try:
            line.boot_from_network(target.uefi)
        except BmcFailed as error:
            remarks.append(f"cannot be told to boot from the network once: {error.message}")
    if power is Power.ON and act is Act.ON:
        remarks.append("was on already")
        return power
    line.tell(act)
    wanted = AFTER.get(act)
    power = line.status()
    while wanted is not None and power is not wanted and settle.pause(LOOK_EVERY):
        power = line.status()
    if wanted is not None and power is not wanted:
        remarks.append(f"took the command, and {settle.seconds:.0f} s later the machine is {power.value}")
    return power
