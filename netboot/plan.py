"""The install plan: everything the agent needs to turn a machine into a node, decided on the head, checked on both."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from netboot.wire import WIRE

# Kernel arguments that neither GRUB's script nor a shell takes apart: no quotes, $, ;, #, braces or back slashes.
CMDLINE = re.compile(r"[A-Za-z0-9_.,:=/@%+~^-]+(?: +[A-Za-z0-9_.,:=/@%+~^-]+)*")

SCRIPT_SECONDS = 600


@dataclass(frozen=True)
class DiskRule:
    """Which disk of a machine is written. Every given condition must hold; removable disks never fit.

    `pick` decides among those that fit: "only" wants exactly one, "smallest" and "largest" the one of that size (and
    still exactly one: two of the same smallest size are a tie, and a tie is a failure).
    """

    serial: str = ""
    wwn: str = ""
    model: str = ""  # shell pattern
    bus: tuple[str, ...] = ()
    min_size: int = 0  # bytes
    max_size: int = 0  # bytes, 0 = no limit
    rotational: bool | None = None
    pick: str = "only"


@dataclass(frozen=True)
class LayoutPart:
    """One partition wanted on the disk.

    `size` is a rule in text: "512MiB" (fixed), "ram" (as much as the machine has memory), or "rest" (what is left, once
    per layout); `low` and `high` bound it, in bytes. `role` names the partition of the image that fills it; without one
    it is made on the node with `fs` ("vfat", "swap", "ext4", "" for raw).
    """

    name: str
    kind: str  # "bios", "esp", "linux", "swap", "home", "data": becomes the GPT type
    size: str
    fs: str = ""
    mount: str = ""
    role: str = ""
    low: int = 0
    high: int = 0
    label: str = ""


# Partition 1 is the BIOS boot partition and partition 2 the EFI system partition in every layout: the prebuilt core
# image finds its configuration in partition 2 of the disk it was started from, whatever else is in the machine.
DEFAULT_LAYOUT = (
    LayoutPart("bios", "bios", "1MiB"),
    LayoutPart("esp", "esp", "128MiB", fs="vfat", mount="/boot/efi", label="ESP"),
    LayoutPart("swap", "swap", "ram", fs="swap", mount="swap", low=256 << 20, high=8 << 30),
    LayoutPart("root", "linux", "rest", fs="ext4", mount="/", role="root"),
)


@dataclass(frozen=True)
class Network:
    """The node's address, the same from ROM to installed system. Matched by MAC, named `name` in the system."""

    mac: str
    address: str
    prefix: int
    gateway: str = ""
    dns: tuple[str, ...] = ()
    domain: str = ""
    name: str = "lan0"
    mtu: int = 0  # bytes; 0: what the card has
    routes: tuple[str, ...] = ()  # "10.0.0.0/8 via 10.1.0.1", beside the gateway's


@dataclass(frozen=True)
class Edit:
    """One change to the installed tree: a module of images.edits and its options."""

    edit: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Script:
    """A script of the site's own: "pre.d/10-raid" runs in the installer before the disk is touched, "post.d/50-join" in
    the written tree. Its first line names its interpreter; it may take `seconds`."""

    name: str
    content: str
    profile: str
    seconds: int = SCRIPT_SECONDS


@dataclass(frozen=True)
class BootPiece:
    """A boot loader file the agent fetches from the head when the image brings none: public name, sha256, bytes."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class InstallPlan:
    """What one order comes down to."""

    order: str  # the order's id, for the log
    node: str
    image: str  # name:version
    manifest: str  # sha256 of the manifest: everything else about the image hangs on it
    sources: tuple[str, ...]  # base URLs: <base>/manifests/<sha256>, <base>/runs/<sha256>, <base>/packs/<sha256>.pack
    disk: DiskRule
    layout: tuple[LayoutPart, ...]
    network: Network
    edits: tuple[Edit, ...]
    boot: tuple[BootPiece, ...]  # from <base>/boot/<name>
    cmdline: str = ""  # kernel arguments of the profile, added to the image's own
    finish: str = "kexec"  # kexec, reboot or poweroff
    verify: str = "sample"  # none, sample or full: how much is read back from the disk
    home_url: str = ""  # where the installed system calls once
    home_secret: str = ""  # see netboot.report.HOME
    profile: str = ""
    pre: tuple[Script, ...] = ()  # in this order, before anything is erased
    post: tuple[Script, ...] = ()  # in this order, after the edits
    wire: int = WIRE
