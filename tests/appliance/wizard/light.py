"""A machine made of packets: it boots, waits, installs on paper and calls home, as a head over its sockets sees it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from images.errors import GildError
from netboot.plan import InstallPlan
from netboot.report import HELLO, NEXT, PLAN, REPORT, Answer, Disk, Do, Facts, Hello, Next, Nic, Phase, PlanAsk, Report
from netboot.wire import decode, encode
from tests.appliance.process import MAC, PATIENCE, Served, rack_of_one, wait_for
from tests.netboot.lan import HEAD_IP

FACTS = Facts(
    firmware="bios", vendor="Acme", product="Box", serial="S1", cores=2, memory=1 << 30, arch="x86_64",
    disks=(Disk("/dev/vda", 20 << 30, "QEMU", "D1", bus="virtio", content="NTFS 'photos'"),),
    nics=(Nic("eth0", MAC, boot=True),),
)  # fmt: skip
PIECES = ("boot.img", "core.img", "grubx64.efi", "shimx64.efi", "mmx64.efi", "grub-disk.efi", "local.efi")


@contextmanager
def fresh_head() -> Iterator[Served]:
    """A machine on a cable, on which nothing was ever served; a head that a wizard has started there is ended."""
    with rack_of_one() as served:
        served.paths.boot.mkdir()
        for name in PIECES:
            (served.paths.boot / name).write_bytes(name.encode() * 100)
        try:
            yield served
        finally:
            with contextlib.suppress(GildError, ProcessLookupError):
                pid = served.client.get("status")["pid"]
                os.kill(pid, signal.SIGTERM)
                wait_for(lambda: _ended(pid))


def _ended(pid: int) -> bool:
    """Whether a process is gone, or only waits for somebody to hear that it is."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def wishes(head: Served) -> list[tuple[Any, ...]]:
    """What people have decided and what came of it, out of the database: nodes and profiles."""
    with contextlib.closing(sqlite3.connect(f"file:{head.paths.database}?mode=ro", uri=True)) as database:
        nodes = database.execute(
            "select name, state, address, body ->> '$.profile' from nodes order by name"
        ).fetchall()
        return [*nodes, *database.execute("select * from profiles order by name").fetchall()]


class LightNode:
    """Lives in a thread from the moment a head serves until it is up; `trouble` is what went wrong."""

    def __init__(self, head: Served) -> None:
        self.head = head
        self.trouble: BaseException | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)

    def __enter__(self) -> LightNode:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive() and self.trouble is None, self.trouble

    def _live(self) -> None:
        try:
            wait_for(lambda: self._over.is_set() or ((self.head.paths.keys / "head.pem").exists() and self._serves()))
            if not self._over.is_set():
                self.head.source = self.head.dhcp()
                self._install(self._order())
        except BaseException as error:  # told by the test that owns this thread
            self.trouble = error

    def _serves(self) -> bool:
        return self.head.paths.socket.exists()

    def _say(self, path: str, message: object) -> bytes:
        reply = self.head.tls(path, encode(message))
        assert reply.status == 200, reply.body
        return reply.body

    def _order(self) -> Answer | None:
        """The order, once it is given."""
        answer = decode(Answer, self._say(HELLO, Hello(MAC, FACTS)))
        self.session = answer.session
        while answer.do is not Do.INSTALL and not self._over.is_set():
            answer = decode(Answer, self._say(NEXT, Next(self.session, 1)))
        return answer if answer.do is Do.INSTALL else None

    def _install(self, order: Answer | None) -> None:
        if order is None:
            return
        plan = decode(InstallPlan, self._say(PLAN, PlanAsk(self.session, order.token)))
        for phase in Phase:
            if phase is not Phase.READ:
                self._say(REPORT, Report(self.session, phase=phase, done=1, total=2, disk="vda 20 GB"))
        self._say(REPORT, Report(self.session, finished=True, finish=plan.finish))
        body = f"hostname {order.node}\nkernel 6.1\n".encode()
        proof = hashlib.sha256(plan.home_secret.encode() + body).hexdigest()
        path = plan.home_url.partition(HEAD_IP)[2]
        assert self.head.http("POST", path, body, {"Gild-Proof": proof}).status == 200
