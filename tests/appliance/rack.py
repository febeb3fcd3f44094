"""A head without sockets and machines made of packets: what tests of the use cases stand on."""

from __future__ import annotations

import asyncio
import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

from appliance.clock import Clock
from appliance.config import parse
from appliance.head import Head
from appliance.host_keys import HostKeys
from appliance.store import Store
from images.errors import NotFound
from images.manifest import Manifest, Partition, Run
from netboot import dhcp
from netboot.plan import BootPiece, InstallPlan
from netboot.report import Ack, Answer, Disk, Facts, Hello, Next, Nic, Phase, PlanAsk, Report, Seat

HEAD_IP = "10.1.0.1"
DIGEST = "d" * 64


class FakeClock(Clock):
    """A clock that moves when told; `jump` is somebody setting the wall clock."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self.up, self.jumped, self.start = 0.0, 0.0, start
        super().__init__(lambda: self.start + self.up + self.jumped, lambda: self.up)

    def pass_(self, seconds: float) -> None:
        self.up += seconds

    def jump(self, seconds: float) -> None:
        self.jumped += seconds


class Shelf:
    """Images by reference, in place of a store."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)

    def images(self) -> list[str]:
        return self.names

    def next_version(self, name: str) -> int:
        return 4

    # Nothing here can be damaged: an image without chunks, whose files are there.
    packs = Path(__file__).parent

    def resolve(self, ref: str) -> tuple[str, int]:
        name, _, number = ref.partition(":")
        return name, int(number)

    def runs_path(self, name: str, number: int) -> Path:
        return Path(__file__)

    def pack_path(self, pack: str) -> Path:
        return Path(__file__)

    def runs(self, manifest: Manifest, index: int) -> list[Run]:
        return []

    def load(self, ref: str) -> tuple[Manifest, str]:
        name, _, number = ref.partition(":")
        if name not in self.names:
            raise NotFound(f"there is no image {name!r}")
        part = Partition("root", "ext4", "u", 1 << 30, 1 << 29, "a" * 64, 100)
        return Manifest(name, int(number or 3), 0, "x86_64", 262144, ("b" * 64,), (part,)), DIGEST


class Rack:
    """A head on a state directory, with a clock and a wire of its own."""

    def __init__(self, state: Path, images: Iterable[str] = ("compute",), **flags: Any) -> None:
        self.state, self.clock = state, FakeClock()
        self.images = Shelf(*images)
        self.network = IPv4Interface(f"{HEAD_IP}/24")
        self.flags = {"interface": "eth1", "state": str(state), **flags}
        self.sent: list[tuple[bytes, tuple[str, int]]] = []
        self.start()

    def start(self) -> None:
        """Start the head, again after `stop`."""
        self.store = Store(self.state / "gild.db", self.state / "lock")
        config = parse("", {}, self.flags).on(self.network)
        images: Any = self.images
        self.head = Head(self.store, images, config, boot_piece=piece, clock=self.clock)

    def stop(self) -> None:
        """Everything to disk, as a clean end does."""
        self.head.roster.save()
        self.crash()

    def crash(self) -> None:
        """Only what was submitted survives."""
        keys: HostKeys = self.head._keys
        keys.close()
        self.store.close()

    def dhcp(self, data: bytes, interface: str = "") -> list[dhcp.DhcpRequest]:
        """One datagram; the replies that are sent at once and, after the commit, later."""
        self.sent.clear()
        late: list[tuple[bytes, tuple[str, int]]] = []
        now = list(self.head.dhcp(data, ("0.0.0.0", 68), lambda packet, to: late.append((packet, to)), interface))
        self.store.flush()
        self.sent += [*now, *late]
        return [dhcp.parse(packet) for packet, _ in self.sent]

    def tick(self, seconds: float = 1.0) -> None:
        self.clock.pass_(seconds)
        self.head.tick()
        self.store.flush()

    def timeline(self, ref: str) -> str:
        return "\n".join(event["text"] for event in self.head.log(ref, 0))

    def state_of(self, ref: str) -> str:
        return str(self.head.node(ref)["state"])

    def machine(self, number: int = 1, **given: Any) -> Machine:
        return Machine(self, number, **given)

    def approved(self, number: int = 1, **given: Any) -> Machine:
        """A machine that was seen, approved and whose keys are there."""
        machine = self.machine(number, **given)
        machine.boot()
        self.head.approve([machine.mac])
        self.await_keys(machine)
        return machine

    def await_keys(self, machine: Machine) -> None:
        keys: HostKeys = self.head._keys
        node = self.head.roster.find(machine.mac)
        if not keys.ready(node.id, node.name):
            keys._making[node.id].result(60)
            assert keys.ready(node.id, node.name)


def piece(name: str) -> BootPiece | None:
    """Every boot file is there but one."""
    return None if name == "mmx64.efi" else BootPiece(name, "c" * 64, 1000)


@dataclass
class Machine:
    """One machine on the wire."""

    rack: Rack
    number: int
    arch: int = 7
    disks: tuple[Disk, ...] = (Disk("/dev/vda", 20 << 30, "QEMU", "S1", bus="virtio", content="NTFS"),)
    vendor: str = "Vendor"
    address: str = ""
    session: str = ""
    answer: Answer | None = None
    extra: dict[int, bytes] = field(default_factory=dict)
    relay: str = ""
    interface: str = ""

    @property
    def mac(self) -> str:
        return f"52:54:00:00:00:{self.number:02x}"

    @property
    def uuid(self) -> str:
        return f"4c4c4544-0042-3510-8051-0000000000{self.number:02x}"

    @property
    def name(self) -> str:
        return str(self.rack.head.node(self.mac)["name"])

    def facts(self) -> Facts:
        return Facts(
            "uefi", False, self.vendor, "Model", f"SER{self.number}", self.uuid, "CPU", 4, 8, "x86_64", 8 << 30,
            self.disks, (Nic("eth0", self.mac, boot=True),), "6.1",
        )  # fmt: skip

    def packet(self, kind: dhcp.Kind, *, ipxe: bool = False, firmware: bool = True, **fields: Any) -> bytes:
        options = {dhcp.KIND: bytes((kind,)), **self.extra}
        if firmware:
            options[dhcp.VENDOR_CLASS] = f"PXEClient:Arch:{self.arch:05}:UNDI:003016".encode()
            options[dhcp.ARCH] = self.arch.to_bytes(2, "big")
            options[dhcp.UUID] = b"\x00" + _smbios(self.uuid)
        if ipxe:
            options[dhcp.USER_CLASS] = b"iPXE"
            options[dhcp.IPXE] = b"\x13\x01\x01"
        for key in ("requested", "server"):
            if key in fields:
                number = dhcp.REQUESTED_IP if key == "requested" else dhcp.SERVER_ID
                options[number] = dhcp.ip(fields[key])
        ciaddr = dhcp.ip(fields.get("ciaddr", "0.0.0.0"))
        giaddr = dhcp.ip(self.relay or "0.0.0.0")
        if self.relay:
            options[dhcp.RELAY] = b"\x01\x04eth1"
        head = struct.pack("!BBBBIHH4s4s4s4s", 1, 1, 6, 0, 7, 0, 0x8000, ciaddr, bytes(4), bytes(4), giaddr)
        chaddr = bytes.fromhex(self.mac.replace(":", "")).ljust(16, b"\0")
        body = b"".join(bytes((number, len(value))) + value for number, value in options.items())
        return head + chaddr + bytes(192) + b"\x63\x82\x53\x63" + body + b"\xff"

    def discover(self, **given: Any) -> list[dhcp.DhcpRequest]:
        return self.rack.dhcp(self.packet(dhcp.Kind.DISCOVER, **given), self.interface)

    def request(self, address: str, **given: Any) -> list[dhcp.DhcpRequest]:
        given = {"server": HEAD_IP, **given}
        return self.rack.dhcp(self.packet(dhcp.Kind.REQUEST, requested=address, **given), self.interface)

    def lease(self, **given: Any) -> dhcp.DhcpRequest:
        """DISCOVER to ACK."""
        (offer,) = self.discover(**given)
        (ack,) = self.request(offer.yiaddr, server=offer.server_id, **given)
        assert ack.kind is dhcp.Kind.ACK
        self.address = ack.yiaddr
        return ack

    def boot(self) -> str:
        """Firmware, loader, iPXE; returns its script."""
        ack = self.lease()
        loader = ack.options[dhcp.BOOT_FILE].rstrip(b"\0").decode()
        self.rack.head.file_sent(self.address, loader, 268_000, 0.3, "tftp", "")
        self.lease(ipxe=True)
        return self.script()

    def script(self) -> str:
        return self.rack.head.script(self.mac, self.address, "efi")

    def hello(self, token: str = "") -> Answer:
        self.answer = self.rack.head.hello(Hello(self.mac, self.facts(), token, agent="1"), self.address)
        self.session = self.answer.session
        return self.answer

    def seated(self, port: str, switch: str = "sw1") -> Answer:
        """It has heard its switch."""
        ask = Next(self.session, 0, (Seat("eth0", switch, port),))
        return asyncio.run(self.rack.head.next(ask))

    def plan(self, token: str | None = None) -> InstallPlan:
        assert self.answer is not None
        ask = PlanAsk(self.session, self.answer.token if token is None else token)
        return asyncio.run(self.rack.head.plan(ask))

    def report(self, **given: Any) -> Ack:
        return self.rack.head.report(Report(self.session, **given))

    def write(self) -> InstallPlan:
        """Plan to the last report."""
        plan = self.plan()
        for phase in Phase:
            self.report(phase=phase, done=1, total=2, disk="vda 20 GB")
        self.report(finished=True, finish=plan.finish)
        return plan

    def home(self, plan: InstallPlan, body: bytes = b"hostname node01\nkernel 6.1\n", proof: str = "") -> None:
        good = hashlib.sha256(plan.home_secret.encode() + body).hexdigest()
        self.rack.head.home(plan.home_url.rpartition("/")[2], body, proof or good, self.address)


def token_in(script: str) -> str:
    """The order's token of a boot script, or ""."""
    return next((word[11:] for word in script.split() if word.startswith("gild.token=")), "")


def _smbios(uuid: str) -> bytes:
    a, b, c, d, e = uuid.split("-")
    return bytes.fromhex(a)[::-1] + bytes.fromhex(b)[::-1] + bytes.fromhex(c)[::-1] + bytes.fromhex(d + e)
