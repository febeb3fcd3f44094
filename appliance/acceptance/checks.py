"""The one table of what is tested on a node, and the judgement of each answer: values in, a verdict out.

A verdict is a word and a sentence that stands alone; a failure says what was found, what it should be and, where one is
known, the way out. A node's own words are bounded by `script.read` and escaped where they are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from appliance.acceptance.script import Told

PASS, FAIL, NONE = "pass", "fail", "none"  # none: there is nothing to test, which is no failure
CLOCK_SECONDS = 2.0  # munge, Kerberos and make begin to complain at minutes to seconds; NTP keeps milliseconds
MEMORY_SHARE = 0.05  # one of sixteen modules is 0.06; what a virtual machine gives back is less
LEFT_SHARE = 0.15  # of a kernel that tells only what it has left: its own and a crash kernel's part
SHOWN = 300  # characters of a machine's own words


@dataclass(frozen=True)
class Target:
    """A node as the head knows it. `threads` and `memory` (bytes) are those at its installation, 0 if nobody knows;
    `host_keys` are its public ones, "TYPE BASE64" each."""

    name: str
    address: str
    profile: str = "default"
    state: str = "up"
    image: str = ""
    digest: str = ""
    threads: int = 0
    memory: int = 0
    host_keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asked:
    """What a node's DNS is asked, and what is right: name -> address, address -> full name."""

    names: Mapping[str, str] = field(default_factory=dict)
    addresses: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """`value` is MB/s (10^6 bytes) where a speed was measured, seconds for the clock, else None."""

    word: str
    text: str = ""
    fix: str = ""
    value: float | None = None


def passed(text: str = "", value: float | None = None) -> Verdict:
    """It is as it should be."""
    return Verdict(PASS, text, "", value)


def failed(text: str, fix: str = "", value: float | None = None) -> Verdict:
    """It is not."""
    return Verdict(FAIL, text, fix, value)


def nothing(text: str) -> Verdict:
    """There is nothing to test, and why."""
    return Verdict(NONE, text)


@dataclass(frozen=True)
class Check:
    """`title` heads its column; `judge` is None where more than the node's own answer is needed."""

    name: str
    title: str
    judge: Callable[[Target, Told, Asked], Verdict] | None = None


def login(target: Target, told: Told) -> Verdict:
    """Whether the node let the head in, or why not, by what ssh complained of (OpenSSH 7 to 10)."""
    if told.whole:
        return passed()
    said = told.complaint
    for part, text, fix in _REFUSALS:
        if part in said:
            return failed(text, fix.replace("NODE", target.name).replace("PROFILE", target.profile))
    if told.words:
        return failed("broke off in the middle of its answers", "its load, its disk: gild.pyz node log " + target.name)
    return failed(f"does not let us in: {said[-SHOWN:]}" if said else "does not answer in time")


_KEY = (
    'build the image with keys = ["ssh-ed25519 ..."] in its recipe, or put the public key into'
    " STATE/profiles/PROFILE/overlay/root/.ssh/authorized_keys and install again; or name the right key: --key FILE"
)
_STRANGER = (
    "shows a host key that is not the one it was given: this is another machine, or another system than the one that"
    " was installed"
)
_REFUSALS = (
    ("Permission denied", "lets none of this head's keys in", _KEY),
    ("Too many authentication failures", "lets none of this head's keys in", "name the right one: --key FILE"),
    ("Host key verification failed", _STRANGER, "gild.pyz node install NODE"),
    ("Connection refused", "is there, but no ssh server runs on it", "add the set ssh-cluster to the image's recipe"),
    ("No route to host", "does not answer at its address", "is it switched on? gild.pyz node log NODE"),
    ("timed out", "does not answer at its address", "is it switched on? gild.pyz node log NODE"),
    ("unreachable", "does not answer at its address", "is it switched on? gild.pyz node log NODE"),
)


def _name(target: Target, told: Told, asked: Asked) -> Verdict:
    said = told.first("name")
    if said.partition(".")[0].lower() == target.name:
        return passed(said)
    return failed(f"calls itself {said[:SHOWN]!r}, not {target.name}", f"gild.pyz node install {target.name}")


def _address(target: Target, told: Told, asked: Asked) -> Verdict:
    has = told.all("address")
    if target.address in has:
        return passed(target.address)
    return failed(f"has the addresses {', '.join(has)[:SHOWN] or 'none'}, not {target.address}")


def _image(target: Target, told: Told, asked: Asked) -> Verdict:
    lines = dict(line.partition("=")[::2] for line in told.all("release"))
    if not lines:
        return nothing("its system does not tell what it was installed from (no /etc/gild-release)")
    if not target.image:
        return failed(f"has {lines.get('IMAGE', '')[:SHOWN]!r}; this head has installed nothing on it")
    if lines.get("IMAGE") == target.image and target.digest in ("", lines.get("MANIFEST")):
        return passed(target.image)
    return failed(
        f"was installed from {lines.get('IMAGE', '')[:SHOWN]!r}, not from this head's {target.image}",
        f"gild.pyz node install {target.name}",
    )


def _clock(target: Target, told: Told, asked: Asked) -> Verdict:
    if told.offset is None:
        return failed("does not tell its time")
    off = told.offset
    if abs(off) <= CLOCK_SECONDS:
        return passed(f"{off:+.1f} s", off)
    way = "ahead of" if off > 0 else "behind"
    return failed(f"its clock is {abs(off):.0f} s {way} the head's", "set ntp: gild.pyz help settings", off)


def _hardware(target: Target, told: Told, asked: Asked) -> Verdict:
    if not target.threads and not target.memory:
        return nothing("this head has not seen its hardware")
    threads = _int(told.first("threads"))
    wrong = []
    if target.threads and threads != target.threads:
        wrong.append(f"{threads} processors instead of {target.threads}")
    size, _, online = told.first("memory").partition(" ")
    memory, share = int(size, 16) * _int(online) if _hex(size) else 0, MEMORY_SHARE
    if not memory:
        memory, share = _int(told.first("memtotal")) * 1024, LEFT_SHARE
    if target.memory and memory < (1 - share) * target.memory:
        wrong.append(f"{memory / 2**30:.1f} GiB of memory instead of {target.memory / 2**30:.1f}")
    if wrong:
        return failed(f"has {' and '.join(wrong)} at its installation", "look at its modules and firmware settings")
    return passed(f"{threads} processors, {memory / 2**30:.1f} GiB")


def _units(target: Target, told: Told, asked: Asked) -> Verdict:
    units = told.all("unit")
    if units:
        return failed(f"has failed services: {', '.join(units)[:SHOWN]}", f"ssh {target.name} systemctl status")
    return passed() if told.all("units") else nothing("its system is not started by systemd")


def _dns(target: Target, told: Told, asked: Asked) -> Verdict:
    answers = [*told.all("forward"), *told.all("reverse")]
    if not answers:
        return nothing("its getent cannot ask DNS alone")
    # getent(1): "ADDRESS STREAM NAME" for a name, "ADDRESS NAME" for an address.
    given = {question: answer.split() for question, _, answer in (text.partition(" ") for text in answers)}
    for column, expected in enumerate((asked.names, asked.addresses)):
        for question, right in expected.items():
            answer = "".join(given.get(question, [])[column : column + 1]).rstrip(".")
            if answer.lower() == right.lower():
                continue
            return failed(
                f"DNS tells it {answer[:SHOWN] or 'nothing'} for {question} instead of {right}",
                "what it asks: its /etc/resolv.conf; gild.pyz help dns",
            )
    return passed(f"{len(given)} questions")


CHECKS = (
    Check("reach", "ssh"),
    Check("name", "name", _name),
    Check("address", "addr", _address),
    Check("image", "image", _image),
    Check("clock", "clock", _clock),
    Check("hardware", "hw", _hardware),
    Check("units", "units", _units),
    Check("dns", "dns", _dns),
    Check("write", "write"),
    Check("read", "read"),
    Check("to", "to it"),
    Check("from", "from it"),
    Check("next", "next"),
    Check("mpi", "mpi"),
    Check("job", "job"),
)
NAMES = tuple(check.name for check in CHECKS)


def _int(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else 0


def _hex(text: str) -> bool:
    return 0 < len(text) < 16 and all(c in "0123456789abcdef" for c in text)
