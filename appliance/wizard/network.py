"""Where gild hands out addresses, and a head that serves there for good."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import AddressValueError, IPv4Address

from appliance.config import BY_NAME, parse
from appliance.wizard.engine import (
    BLOCKED,
    DONE,
    OPEN,
    Act,
    Answers,
    Choice,
    Plan,
    Problem,
    Question,
    Status,
    given,
    word,
)
from appliance.wizard.facts import Facts, Wire
from images.errors import GildError

SERVICE, BACKGROUND = "service", "background"
AUTHORITY, PROXY = "authority", "proxy"


class Network:
    """One interface, the addresses for nodes, and the process that answers there."""

    name, title = "network", "Network"
    headline = "Network: where shall gild hand out addresses?"
    waits: tuple[str, ...] = ()
    explain = (
        "gild answers DHCP, TFTP, DNS and HTTP on this one interface and on no other. Choose the one that is wired to"
        " the nodes: best a network of their own, without another DHCP server. Where another server gives the addresses"
        " already, gild can stand beside it and only say what to boot (proxy). The addresses are for nodes; leave room"
        " outside of them for switches, BMCs and this machine itself."
    )

    def status(self, facts: Facts, answers: Answers) -> Status:
        """Done when a process serves this state directory."""
        if facts.serving is not None:
            places = facts.serving["free"] + facts.serving["leases"]
            return Status(DONE, f"{facts.serving['interface']}, {places} places")
        if not facts.root:
            return Status(BLOCKED, "serving needs root: run it with sudo")
        if not any(wire.address for wire in facts.wires):
            return Status(BLOCKED, "no interface has an address")
        return Status(OPEN, "nothing serves yet")

    def questions(self, facts: Facts, answers: Answers) -> tuple[Question, ...]:
        """Interface, addresses, role, domain, forwarding, and how it is started."""
        wires = _sorted(facts)
        best = suggested(facts)
        usual = best.name if best else wires[0].name if wires else ""
        usual = str(facts.serving["interface"]) if facts.serving else usual
        chosen = facts.wire(word(answers.get(self.name, {}), "interface") or usual)
        first = Question(
            "interface", "Interface", usual,
            tuple(Choice(wire.name, _row(wire), heard(wire), wire is best) for wire in wires), setting="interface",
            explain="The interface that is wired to the nodes.",
        )  # fmt: skip
        beside = chosen is not None and bool(chosen.servers)
        rest = [
            Question(
                "range", "Addresses for nodes", addresses(chosen), setting="range", note=_places(addresses(chosen)),
                explain="First and last address, such as 10.20.0.10-10.20.0.249. The head's own may not be among them.",
            ),
            Question(
                "domain", "Domain", str(BY_NAME["domain"].default), setting="domain",
                explain="Names of nodes end in it; the head answers for it.",
            ),
            Question(
                "start", "Start it", BACKGROUND if facts.service else SERVICE,
                (
                    Choice(SERVICE, "as a service, at every boot", facts.service, not facts.service),
                    Choice(BACKGROUND, "in the background, until this machine is off", "", bool(facts.service)),
                ),
                explain="A service of systemd starts by itself and has few rights. In the background it is one process,"
                " its log in STATE/serve.log.",
            ),
        ]  # fmt: skip
        if "dhcp" in BY_NAME:
            rest.insert(1, Question(
                "dhcp", "Role", PROXY if beside else AUTHORITY,
                (
                    Choice(AUTHORITY, "the only DHCP server there", "", not beside),
                    Choice(PROXY, "beside another one, which gives the addresses", "", beside),
                ),
                explain="Two servers that both give addresses give machines whichever answers first.",
            ))  # fmt: skip
        if "forward" in BY_NAME:
            rest.insert(-1, Question(
                "forward", "Forward other names to", str(BY_NAME["forward"].default), setting="forward",
                note="nobody, if empty",
                explain='A name server, "system" for those of this machine, or nothing: nodes then know the names of'
                " the cluster alone.",
            ))  # fmt: skip
        return (first, *rest)

    def problems(self, facts: Facts, answers: Answers) -> tuple[Problem, ...]:
        """What keeps a head from serving there, and what will hurt later."""
        if not facts.root:
            return (Problem("serving needs root: its ports are low", "run it with sudo"),)
        values = given(self, facts, answers)
        name = word(values, "interface")
        wire = facts.wire(name)
        if wire is None:
            return (
                Problem("no interface to serve on" if not name else f"there is no interface {name}", "ip link show"),
            )
        if not wire.address:
            how = f"ip address add 10.20.0.1/24 dev {name}; ip link set {name} up"
            return (Problem(f"{name} has no address of its own", f"give it one: {how}"),)
        if facts.serving is not None:
            pid, where = facts.serving["pid"], facts.serving["interface"]
            again = "" if word(values, "start") == SERVICE and not facts.service else f"to change it, first: kill {pid}"
            return (Problem(f"process {pid} serves on {where} already", again, stops=bool(again)),)
        found = []
        if word(values, "start") == SERVICE and facts.service:
            found.append(Problem(f"it cannot be a service: {facts.service}", "start it in the background"))
        if wire.servers and values.get("dhcp") != PROXY:
            other = "serve beside it (role: proxy), or" if "dhcp" in BY_NAME else "stop that one, or"
            found.append(
                Problem(
                    f"{wire.servers[0]} on {name}; gild will not be a second one", f"{other} take another interface"
                )
            )
        found += [*_range(values, wire), *_cable(wire)]
        return tuple(found)

    def plan(self, facts: Facts, answers: Answers) -> Plan:
        """A service, or a process in the background."""
        values = given(self, facts, answers)
        name = word(values, "interface")
        flags = ["--interface", name]
        usual = addresses(facts.wire(name))
        for key, default in (
            ("range", usual),
            ("domain", BY_NAME["domain"].default),
            ("dhcp", AUTHORITY),
            ("forward", ""),
        ):
            if values.get(key, default) != default:
                flags += [f"--{key}", word(values, key)]
        what = "only say what to boot" if values.get("dhcp") == PROXY else "answer DHCP, TFTP, DNS and HTTP"
        effect = f"{what} on {name} only. Nothing is erased."
        if word(values, "start") == SERVICE:
            return Plan(
                effect + " It starts again at every boot.", (Act(("service", "install", *flags), sure=("--yes",)),)
            )
        effect += f" It runs in the background, until this machine is switched off; its log: {facts.state}/serve.log."
        return Plan(effect, (Act(("serve", *flags), background=True),))

    def watch(self, facts: Facts, answers: Answers) -> tuple[str, ...]:
        """It waits for nothing."""
        return ()


def suggested(facts: Facts) -> Wire | None:
    """The interface a careful person would take: up, with an address and a link, without another DHCP server and
    without the way to the rest of the world. None if there is none like that."""
    fit = [w for w in facts.wires if w.address and w.up and w.link and not w.wireless and not w.servers]
    return next((wire for wire in fit if not wire.default_route), None)


def heard(wire: Wire) -> str:
    """What is known of other DHCP servers there."""
    if not wire.address:
        return "no address of its own"
    if wire.wireless:
        return "Wi-Fi: machines cannot boot from it"
    if wire.servers is None:
        return "nobody asked for other DHCP servers there"
    if wire.servers:
        return f"{wire.servers[0]}: only beside it (proxy)" if "dhcp" in BY_NAME else wire.servers[0]
    return "no other DHCP server heard" + ("; it leads to the rest of the world" if wire.default_route else "")


def addresses(wire: Wire | None) -> str:
    """The addresses that nodes get where nobody says which: first-last, "" for an interface that has none itself."""
    at = wire.interface if wire is not None else None
    try:
        config = parse("", {}, {}).on(at) if at is not None else None
    except GildError:
        return ""
    return f"{config.range_first}-{config.range_last}" if config is not None else ""


def _sorted(facts: Facts) -> list[Wire]:
    best = suggested(facts)
    return sorted(facts.wires, key=lambda wire: (wire is not best, not wire.address, not wire.link, bool(wire.servers)))


def _row(wire: Wire) -> str:
    speed = f" {wire.speed // 1000} Gb/s" if wire.speed >= 1000 else f" {wire.speed} Mb/s" if wire.speed > 0 else ""
    link = "down" if not wire.up else f"link{speed}" if wire.link else "no link"
    return f"{wire.name}  {wire.address or '-'}  {link}"


def _places(text: str) -> str:
    ends = _ends(text)
    return f"{int(ends[1]) - int(ends[0]) + 1} places" if ends else ""


def _ends(text: str) -> tuple[IPv4Address, IPv4Address] | None:
    first, _, last = text.partition("-")
    try:
        return IPv4Address(first), IPv4Address(last)
    except AddressValueError:
        return None


def _range(values: Mapping[str, object], wire: Wire) -> list[Problem]:
    ends, at = _ends(str(values["range"])), wire.interface
    if at is None or (ends is None and not values["range"]):
        return []
    if ends is None or ends[0] not in at.network or ends[1] not in at.network or ends[0] > ends[1]:
        usual = addresses(wire)
        return [Problem(f"the addresses {values['range']} are not in {at.network}, the network of {wire.name}",
                        f"such as {usual}" if usual else "give that network more room")]  # fmt: skip
    return []


def _cable(wire: Wire) -> list[Problem]:
    if wire.wireless:
        return [Problem(f"{wire.name} is Wi-Fi: machines cannot boot from it", "take one with a cable", stops=False)]
    if not wire.up:
        return [Problem(f"{wire.name} is down", f"ip link set {wire.name} up")]
    if not wire.link:
        return [Problem(f"{wire.name} has no link", "look at its cable, and at the other end of it", stops=False)]
    return []
