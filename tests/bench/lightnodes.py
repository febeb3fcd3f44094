"""Machines made of packets, many at a time: from DISCOVER over TFTP, scripts, hello and plan to "up". No disk.

What is left out of a real machine: of the loader the first block is fetched, of kernel and initrd the first 64 KiB.
With PAUSES 1 a machine takes its time where a real one does: a loader begins (1 to 3 s), a kernel with its initramfs is
loaded and begins (15 to 45 s), the installed system begins (10 to 30 s); with 0 it asks its next question at once.
Runs in the client's namespace, where a whole range of addresses is the machine's own:

    python -m tests.bench.lightnodes HEAD CERTIFICATE COUNT RATE PAUSES [REPORT_SECONDS EVERY]

prints one JSON object: how many came up, what failed, and the milliseconds of every kind of answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import socket
import ssl
import struct
import sys
import time
from collections import Counter
from typing import Any

from netboot import dhcp
from netboot.plan import InstallPlan
from netboot.report import HELLO, NEXT, PLAN, REPORT, Answer, Disk, Do, Facts, Hello, Next, Nic, Phase, PlanAsk, Report
from netboot.wire import decode, encode

PATIENCE = (4.0, 8.0, 16.0, 32.0)  # seconds a ROM waits for each of its tries, by DHCP and TFTP (RFC 2131 section 4.1)
LOADER, KERNEL, SYSTEM = (1.0, 3.0), (15.0, 45.0), (10.0, 30.0)  # seconds: least, most
GIVE_UP = 60.0  # seconds for one answer
RANGE = "bytes=0-65535"


def mac_of(number: int) -> str:
    """The card of machine `number`."""
    return f"02:00:00:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"


class Wire(asyncio.DatagramProtocol):
    """Port 68 of all machines: answers find their question by its number."""

    def __init__(self) -> None:
        self.waiting: dict[int, asyncio.Future[dhcp.DhcpRequest]] = {}
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        waiting = self.waiting.get(int.from_bytes(data[4:8], "big"))
        if waiting is not None and not waiting.done():
            waiting.set_result(dhcp.parse(data))


class Fleet:
    """All machines, and what they measured."""

    def __init__(self, head: str, certificate: str, pauses: bool, reports: float = 0.0, every: float = 10.0) -> None:
        self.head, self.pauses, self.reports, self.every = head, pauses, reports, every
        self.context = ssl.create_default_context(cafile=certificate)
        self.context.check_hostname = False
        self.wire = Wire()
        self.spans: dict[str, list[float]] = {}
        self.failures: Counter[str] = Counter()
        self.up = self.reporting = 0

    async def run(self, count: int, rate: float) -> None:
        """Switch `count` machines on, `rate` a second."""
        loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"bc\0")
        sock.bind(("", 68))
        sock.setblocking(False)
        await loop.create_datagram_endpoint(lambda: self.wire, sock=sock)
        begun, running = time.perf_counter(), []
        for number in range(count):
            await asyncio.sleep(max(0.0, begun + number / rate - time.perf_counter()))
            running.append(asyncio.create_task(self._live(number)))
        await asyncio.gather(*running)

    async def _live(self, number: int) -> None:
        where = "DHCP"
        try:
            address, loader = await self._address(number, 1, ipxe=False)
            where = "TFTP"
            await self._loader(address, loader)
            where = "DHCP"
            await self._begin(number, *LOADER)
            await self._address(number, 2, ipxe=True)
            where = "HTTP"
            token = await self._script(number, address)
            where = "agent"
            await self._begin(number, *KERNEL)
            await self._agent(number, address, token)
            self.up += 1
        except Exception as error:  # told as a figure: a bench goes on
            self.failures[f"{where}: {type(error).__name__} {error!s:.80}"] += 1

    async def _begin(self, number: int, least: float, most: float) -> None:
        """What a machine loads needs a moment, each its own."""
        if self.pauses:
            await asyncio.sleep(random.Random(f"{number} {least}").uniform(least, most))

    # --- before the agent

    async def _address(self, number: int, boot: int, *, ipxe: bool) -> tuple[str, str]:
        offer = await self._dhcp(number, boot * 2, dhcp.Kind.DISCOVER, ipxe, {})
        asked = {dhcp.REQUESTED_IP: dhcp.ip(offer.yiaddr), dhcp.SERVER_ID: dhcp.ip(self.head)}
        ack = await self._dhcp(number, boot * 2 + 1, dhcp.Kind.REQUEST, ipxe, asked)
        return ack.yiaddr, ack.options[dhcp.BOOT_FILE].rstrip(b"\0").decode()

    async def _dhcp(
        self, number: int, step: int, kind: dhcp.Kind, ipxe: bool, more: dict[int, bytes]
    ) -> dhcp.DhcpRequest:
        xid = number << 4 | step
        options = {dhcp.KIND: bytes((kind,)), dhcp.VENDOR_CLASS: b"PXEClient:Arch:00000:UNDI:002001",
                   dhcp.ARCH: b"\0\0", **more}  # fmt: skip
        if ipxe:
            options |= {dhcp.USER_CLASS: b"iPXE", dhcp.IPXE: b"\x13\x01\x01"}
        body = b"".join(bytes((key, len(value))) + value for key, value in options.items())
        header = struct.pack("!BBBBIHH16s", 1, 1, 6, 0, xid, 0, 0x8000, bytes(16))
        chaddr = bytes.fromhex(mac_of(number).replace(":", "")).ljust(16, b"\0")
        packet = header + chaddr + bytes(192) + b"\x63\x82\x53\x63" + body + b"\xff"
        waiting: asyncio.Future[dhcp.DhcpRequest] = asyncio.get_running_loop().create_future()
        self.wire.waiting[xid] = waiting
        begun = time.perf_counter()
        try:
            for patience in PATIENCE:
                assert self.wire.transport is not None
                self.wire.transport.sendto(packet, ("255.255.255.255", 67))
                done, _ = await asyncio.wait([waiting], timeout=patience)
                if done:
                    self._took(kind.name, begun)
                    return waiting.result()
            raise TimeoutError(f"no answer to {kind.name}")
        finally:
            del self.wire.waiting[xid]

    async def _loader(self, address: str, name: str) -> None:
        """The first block, as a ROM that asks for the size first does it."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        try:
            sock.bind((address, 0))
            ask = b"\0\1" + name.encode() + b"\0octet\0tsize\x000\0blksize\x001432\0"
            _, peer = await self._datagram(sock, ask, (self.head, 69), b"\0\6")
            await self._datagram(sock, b"\0\4\0\0", peer, b"\0\3\0\1")
            sock.sendto(b"\0\5\0\0enough\0", peer)
        finally:
            sock.close()

    async def _datagram(
        self, sock: socket.socket, ask: bytes, to: tuple[str, int], wanted: bytes
    ) -> tuple[bytes, tuple[str, int]]:
        """One question by TFTP, as often as a ROM asks it; measured from the first time. Late answers to a question
        before are passed over."""
        loop, begun = asyncio.get_running_loop(), time.perf_counter()
        for patience in PATIENCE:
            sock.sendto(ask, to)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    while True:
                        answer: tuple[bytes, tuple[str, int]] = await loop.sock_recvfrom(sock, 2048)
                        if answer[0][:2] == b"\0\5":
                            raise ValueError(f"TFTP said {answer[0][4:44]!r}")
                        if answer[0].startswith(wanted):
                            self._took("TFTP", begun)
                            return answer
        raise TimeoutError("no answer")

    async def _script(self, number: int, address: str) -> str:
        reader, writer = await self._open(address, 80, None, "HTTP connect")
        try:
            _, script = await self._ask(reader, writer, "GET", f"/boot.ipxe?mac={mac_of(number)}&platform=pcbios")
            for name in ("vmlinuz", "initrd.img"):
                await self._ask(reader, writer, "GET", f"/boot/{name}", headers=f"Range: {RANGE}\r\n")
            await self._ask(reader, writer, "GET", "/boot/head.cpio")
        finally:
            writer.close()
        return next((word[11:] for word in script.decode().split() if word.startswith("gild.token=")), "")

    # --- the agent

    async def _agent(self, number: int, address: str, token: str) -> None:
        reader, writer = await self._open(address, 443, self.context, "TLS connect")
        try:

            async def post(path: str, message: object) -> bytes:
                status, body = await self._ask(reader, writer, "POST", path, encode(message))
                if status != 200:
                    raise ValueError(f"{path} {status} {body[:120]!r}")
                return body

            answer = decode(Answer, await post(HELLO, Hello(mac_of(number), facts(number), token, agent="1")))
            session = answer.session
            while answer.do is Do.WAIT:
                answer = decode(Answer, await post(NEXT, Next(session, 20)))
            if answer.do is not Do.INSTALL:
                raise ValueError(f"told to {answer.do}")
            plan = decode(InstallPlan, await post(PLAN, PlanAsk(session, answer.token)))
            for phase in Phase:
                if phase is not Phase.READ:
                    await post(REPORT, Report(session, phase=phase, done=1, total=2, disk="vda 20 GB"))
            end = time.perf_counter() + self.reports
            while self.reports and time.perf_counter() < end:
                await asyncio.sleep(self.every)
                await post(REPORT, Report(session, phase=Phase.WRITE, done=1 << 20, total=1 << 30))
            await post(REPORT, Report(session, finished=True, finish=plan.finish))
        finally:
            writer.close()
        await self._begin(number, *SYSTEM)
        body = f"hostname {plan.node}\nkernel 6.1\n".encode()
        proof = hashlib.sha256(plan.home_secret.encode() + body).hexdigest()
        reader, writer = await self._open(address, 80, None, "HTTP connect")
        try:
            path = plan.home_url.partition(self.head)[2]
            status, _ = await self._ask(reader, writer, "POST", path, body, f"Gild-Proof: {proof}\r\n")
            if status != 200:
                raise ValueError(f"call home {status}")
        finally:
            writer.close()

    async def _open(
        self, address: str, port: int, context: ssl.SSLContext | None, kind: str
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        begun = time.perf_counter()
        opening = asyncio.open_connection(self.head, port, ssl=context, local_addr=(address, 0), limit=1 << 17)
        found = await asyncio.wait_for(opening, GIVE_UP)
        self._took(kind, begun)
        return found

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, method: str, path: str, body: bytes = b"",
        headers: str = "",
    ) -> tuple[int, bytes]:  # fmt: skip
        begun = time.perf_counter()
        length = f"Content-Length: {len(body)}\r\n" if method == "POST" else ""
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: head\r\n{length}{headers}\r\n".encode() + body)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), GIVE_UP)
        size = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        answer = await asyncio.wait_for(reader.readexactly(size), GIVE_UP)
        if path != NEXT:  # which is held back on purpose
            self._took("/up" if path.startswith("/up/") else path.partition("?")[0], begun)
        return int(head[9:12]), answer

    def _took(self, kind: str, begun: float) -> None:
        self.spans.setdefault(kind, []).append((time.perf_counter() - begun) * 1000)

    def told(self) -> dict[str, Any]:
        """What was measured, for JSON; spans as 50th, 99th percentile and maximum."""
        every = sorted(span for spans in self.spans.values() for span in spans)
        return {
            "up": self.up, "failures": dict(self.failures), "answers": len(every), "p99": _at(every, 0.99),
            "spans": {
                kind: [_at(sorted(spans), share) for share in (0.5, 0.99, 1.0)] for kind, spans in self.spans.items()
            },
        }  # fmt: skip


def _at(ordered: list[float], share: float) -> float:
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 1) if ordered else 0.0


def facts(number: int) -> Facts:
    """What an agent says of its machine."""
    disk = Disk("/dev/vda", 20 << 30, "QEMU", f"D{number}", bus="virtio")
    return Facts(
        firmware="bios", vendor="Acme", product="Box", serial=f"S{number:05}", cores=2, memory=1 << 30, arch="x86_64",
        disks=(disk,), nics=(Nic("eth0", mac_of(number), boot=True),),
    )  # fmt: skip


def main(head: str, certificate: str, count: str, rate: str, pauses: str, *reports: str) -> None:
    """See above."""
    fleet = Fleet(head, certificate, pauses == "1", *map(float, reports))
    asyncio.run(fleet.run(int(count), float(rate)))
    print(json.dumps(fleet.told()))


if __name__ == "__main__":
    main(*sys.argv[1:])
