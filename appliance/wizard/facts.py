"""What the steps of the wizard go by: this machine, its head, its images and its nodes, as values that JSON knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Interface
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Wire:
    """A network interface. `address` is "10.20.0.1/24" or ""; `speed` in Mbit/s, 0 if unknown; `servers` are the DHCP
    servers that answered there, None if nobody asked."""

    name: str
    address: str = ""
    up: bool = False
    link: bool = False
    speed: int = 0
    wireless: bool = False
    default_route: bool = False
    servers: tuple[str, ...] | None = None

    @property
    def interface(self) -> IPv4Interface | None:
        """The address with its network."""
        return IPv4Interface(self.address) if self.address else None


@dataclass(frozen=True)
class Image:
    """The version of an image that nodes get. `recipe` is the text it was built from or ""; `family` the system's ID of
    os-release(5); `locked`: nobody can log in to it; `errors`: what its checks call an error, a text each."""

    name: str
    version: int
    newest: int
    system: str = ""
    family: str = ""
    recipe: str = ""
    locked: bool = False
    errors: tuple[str, ...] = ()
    added: tuple[str, ...] = ()  # words of the commands by which its versions were edited

    @property
    def ref(self) -> str:
        """NAME:NUMBER."""
        return f"{self.name}:{self.version}"


@dataclass(frozen=True)
class Facts:
    """Everything at one moment. `service` is why no service can be made of this program, "" if one can; `findings` are
    doctor's rows (name, level, found, fix), None if nobody looked; `serving` what `gild.pyz status` tells, None if no
    process serves this state; `preview` what an installation would erase (nodes, digest), None if nobody asked, and
    `refused` why the head gives none; `missing` the files that answers name and that are not there."""

    host: str
    state: str
    root: bool = True
    service: str = ""
    findings: tuple[Row, ...] | None = None
    wires: tuple[Wire, ...] = ()
    serving: Row | None = None
    free: int = 0  # bytes where the state lies
    release: str = ""  # codename of this machine's own distribution
    family: str = ""  # its ID of os-release(5)
    builder: bool = True  # whether mmdebstrap is here
    sets: Mapping[str, str] = field(default_factory=dict)  # name -> what it brings
    keys: tuple[str, ...] = ()  # public keys of root on this machine
    images: tuple[Image, ...] = ()
    profiles: tuple[Row, ...] = ()
    keyed: tuple[str, ...] = ()  # profiles whose files bring a login key
    nodes: tuple[Row, ...] = ()
    chosen: tuple[str, ...] = ()  # names of the nodes that the answers choose to install
    preview: Row | None = None
    refused: tuple[str, str] = ("", "")
    services: tuple[str, ...] = ()  # tools whose service is installed on this machine
    told: tuple[str, ...] = ()  # tools that were told of the nodes as they are, in this session
    verbs: tuple[str, ...] = ()  # commands that not every version has: "cluster test", "node load"
    tested: bool | None = None  # whether the last test of this session found nothing; None: there was none
    missing: tuple[str, ...] = ()
    layout: tuple[Row, ...] | None = None  # of the file that the answers name
    layout_trouble: str = ""

    def image(self, name: str) -> Image | None:
        """The image of that name."""
        return next((image for image in self.images if image.name == name), None)

    def profile(self, name: str) -> Row | None:
        """The profile of that name."""
        return next((row for row in self.profiles if row["name"] == name), None)

    def wire(self, name: str) -> Wire | None:
        """The interface of that name."""
        return next((wire for wire in self.wires if wire.name == name), None)

    def in_state(self, *states: str) -> list[Row]:
        """The nodes in one of these states."""
        return [row for row in self.nodes if row["state"] in states]

    @property
    def approved(self) -> list[Row]:
        """The nodes that have a name."""
        return [row for row in self.nodes if row["name"]]
