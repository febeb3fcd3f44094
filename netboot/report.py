"""What the agent tells the head, and what it gets back: the node API.

    POST /node/hello   Hello    -> Answer      who I am; with the order's token if this boot was ordered
    POST /node/next    Next     -> Answer      long poll of a waiting agent, at most `Next.wait` seconds
    POST /node/plan    PlanAsk  -> InstallPlan (netboot.plan) uses the order up; 403 for a second use
    POST /node/file    FileAsk  -> bytes       a piece of an overlay file the plan names and does not hold
    POST /node/report  Report   -> Ack         phases, progress, log lines, failure, done; repeats are harmless
    POST /up/<node id>          -> ""          the installed OS, once, plain HTTP (see HOME below)

All but the last go over TLS to the head's pinned certificate. `session` is the secret the head gave in its Answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from netboot.wire import WIRE

HELLO = "/node/hello"
NEXT = "/node/next"
PLAN = "/node/plan"
REPORT = "/node/report"
FILE = "/node/file"
PIECE = 2 << 20  # bytes of one answer to FileAsk; a shorter one is the last
# The installed system's one call: body = lines "hostname ..", "address ..", "kernel ..", "boot_id ..", and the header
# Gild-Proof = hex sha256(secret + body). The secret itself never crosses the wire; it lies in the node's file system,
# readable by root alone, and is good for one call.
HOME = "/up/"
# How an installation ends whose image nobody looks into: it restarts, and no call home is to be expected.
OWN_LOADER = "its own loader"
PROOF_HEADER = "Gild-Proof"


class Do(StrEnum):
    """What the head wants the agent to do."""

    WAIT = "wait"  # stay in the waiting room, ask again
    INSTALL = "install"  # ask for the plan with the token
    CAPTURE = "capture"  # ask for the plan of a capture with the token (netboot.capture)
    LOCAL = "local"  # boot from the disk
    REBOOT = "reboot"
    POWEROFF = "poweroff"


class Phase(StrEnum):
    """Where an installation stands, in order; and a capture, which has one phase here."""

    PLAN = "planning"  # choose the disk, lay out the partitions; nothing is written yet
    PARTITION = "partitioning"
    WRITE = "writing"
    GROW = "growing"
    FIT = "fitting"  # edits, boot loader, driver check
    BOOT = "booting"
    READ = "reading"  # of a capture: the disk is read and sent


@dataclass(frozen=True)
class Disk:
    """One block device. `path` is for this boot only; rules name serial, wwn, bus, size."""

    path: str
    size: int  # bytes
    model: str = ""
    serial: str = ""
    wwn: str = ""
    bus: str = ""  # nvme, sata, scsi, sas, virtio, usb, mmc, ...
    rotational: bool = False
    removable: bool = False
    sector: int = 512  # logical sector size in bytes
    driver: str = ""  # kernel module of the controller
    content: str = ""  # what is on it, for people: "empty", "gild compute:3", "ext4 'root'", "NTFS", ...


@dataclass(frozen=True)
class Nic:
    """One network card. `mac` in lower case with colons."""

    name: str
    mac: str
    driver: str = ""
    link: bool = False
    speed: int = 0  # Mbit/s, 0 = unknown
    boot: bool = False  # the one this machine booted from
    switch: str = ""  # and the port of it that the card is on, once the switch has said so (netboot.lldp)
    port: str = ""


@dataclass(frozen=True)
class Facts:
    """The machine, as /sys and /proc show it. Everything in it is a claim of the machine."""

    firmware: str = ""  # "bios" or "uefi"
    secure_boot: bool = False
    vendor: str = ""
    product: str = ""
    serial: str = ""
    uuid: str = ""  # SMBIOS system UUID, lower case
    cpu: str = ""
    cores: int = 0
    threads: int = 0
    arch: str = ""
    memory: int = 0  # bytes
    disks: tuple[Disk, ...] = ()
    nics: tuple[Nic, ...] = ()
    kernel: str = ""
    sockets: int = 0
    gpus: tuple[str, ...] = ()  # cards that compute, "VENDOR:DEVICE" in hex


@dataclass(frozen=True)
class Hello:
    """First words of an agent. `token` is the order's, from the kernel command line, or empty."""

    mac: str
    facts: Facts
    token: str = ""
    wire: int = WIRE
    agent: str = ""  # version of the agent


@dataclass(frozen=True)
class Answer:
    """The head's word. `session` is a secret for the rest of this boot; `token` an order's when `do` is install."""

    do: Do
    session: str = ""
    node: str = ""  # the name people gave it, or empty
    number: int = 0  # the node's number in the waiting room, to find the machine by its screen
    token: str = ""
    message: str = ""  # one line for the machine's own screen
    wait: int = 5  # seconds until the agent asks again


@dataclass(frozen=True)
class Seat:
    """The port of a switch that a network card (by its name) is on."""

    nic: str
    switch: str
    port: str


@dataclass(frozen=True)
class Next:
    """A waiting agent asks what to do. The head may hold the answer back for `wait` seconds. `seats` is all that the
    machine has heard of switches so far; hello comes too early for that."""

    session: str
    wait: int = 20
    seats: tuple[Seat, ...] = ()


@dataclass(frozen=True)
class PlanAsk:
    """Uses up the order: from here on the node is `installing`."""

    session: str
    token: str


@dataclass(frozen=True)
class FileAsk:
    """A piece of the file `path` of the plan's overlay from byte `offset` on; `stamp` is the plan's word for its state.
    The answer is bytes, at most PIECE."""

    session: str
    path: str
    stamp: str
    offset: int = 0


@dataclass(frozen=True)
class Report:
    """One message of a running installation. Any of its parts may be empty."""

    session: str
    phase: Phase | None = None
    done: int = 0  # bytes, within the phase
    total: int = 0
    fetched: int = 0  # bytes that came over the network
    disk: str = ""  # the chosen disk, for people; sent before anything is written
    lines: tuple[str, ...] = field(default=())  # log lines since the last report
    failed: str = ""  # the reason, in plain words: the installation is over
    finished: bool = False  # everything is on the disk; the agent boots it next
    finish: str = ""  # how: "kexec", "reboot" or "poweroff"
    seconds: float = 0.0  # since the agent started
    seats: tuple[Seat, ...] = ()  # as in Next


@dataclass(frozen=True)
class Ack:
    """`stop` is a reason to give up at the next safe point (order cancelled), or empty. `every` is how many seconds the
    head wants between two reports of mere progress while so many machines are at it; 0: as the agent likes."""

    stop: str = ""
    every: float = 0.0
