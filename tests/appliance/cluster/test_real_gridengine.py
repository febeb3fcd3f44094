"""gild cluster sge beside a real qmaster and two execution hosts, unpacked from Debian's packages and not installed
(installing them would bring a mail server)."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.cluster.scheduler import GridEngine
from tests.appliance.cluster.daemons import ADDRESSES, HEAD_IP, Room, end, head_with_nodes, wait_for
from tests.appliance.process import Served

pytestmark = pytest.mark.root
PACKAGES = ("gridengine-master", "gridengine-exec", "gridengine-client", "gridengine-common")
PLACES = (Path("/usr/lib/gridengine"), Path("/usr/share/gridengine"))


def unpacked(folder: Path) -> Path:
    """The packages below a folder; skips where they cannot be had."""
    if shutil.which("apt-get") is None:
        pytest.skip("no apt-get: Grid Engine comes from Debian")
    words = ["apt-get", "download", *PACKAGES]
    try:
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        pytest.skip("apt-get download of gridengine did not end within 60 s")
    if done.returncode:
        pytest.skip(f"apt-get download of gridengine: {done.stderr.strip()[-200:]}")
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, folder / "root"], check=True)
    return folder / "root"


class Cell:
    """A qmaster on the head, execd on two nodes."""

    def __init__(self, served: Served, folder: Path) -> None:
        self.served, self.folder, self.log = served, folder, folder / "log"
        self.root, self.cell = unpacked(folder), folder / "r"
        self.daemons: list[subprocess.Popen[bytes]] = []
        for name in ("default/common", "spool/db", "spool/qmaster/job_scripts", "spool/execd"):
            (self.cell / name).mkdir(parents=True)
        names = "".join(f"{address} node0{number}\n" for number, address in enumerate(ADDRESSES, 1))
        (folder / "hosts").write_text(f"127.0.0.1 localhost\n{HEAD_IP} head\n{names}")
        self.env = {
            "SGE_ROOT": str(self.cell), "SGE_CELL": "default", "SGE_QMASTER_PORT": "6444", "SGE_EXECD_PORT": "6445",
            "SGE_ND": "1", "PATH": "/usr/lib/gridengine:/usr/sbin:/usr/bin:/sbin:/bin",
        }  # fmt: skip
        self.head = self.room(served.lan.head, "head")
        self._made()

    def room(self, namespace: str, name: str) -> Room:
        usr = {str(place): self.root / str(place).lstrip("/") for place in PLACES}
        binaries = {"/etc/hosts": self.folder / "hosts"}
        return Room(namespace, name, {**usr, **binaries}, self.env)

    def _made(self) -> None:
        """The spool, as the packages' own set-up would make it."""
        source, cell = self.root / "var/lib/gridengine", self.cell
        for name in ("util", "utilbin", "lib"):
            if (source / name).exists():
                shutil.copytree(source / name, cell / name, symlinks=True)
        (cell / "default/common/act_qmaster").write_text("head\n")
        share = self.root / "usr/share/gridengine"
        bootstrap = next(share.rglob("default-bootstrap")).read_text()
        for key, value in {
            "admin_user": "none", "ignore_fqdn": "true", "spooling_params": f"{cell}/spool/db",
            "binary_path": "/usr/lib/gridengine", "qmaster_spool_dir": f"{cell}/spool/qmaster",
        }.items():  # fmt: skip
            bootstrap = re.sub(rf"^{key}\b.*$", f"{key} {value}", bootstrap, flags=re.MULTILINE)
        (cell / "default/common/bootstrap").write_text(bootstrap)
        conf = next(share.rglob("default-configuration")).read_text()
        for key, value in {"execd_spool_dir": f"{cell}/spool/execd", "min_uid": "0", "min_gid": "0"}.items():
            conf = re.sub(rf"^{key}\b.*$", f"{key} {value}", conf, flags=re.MULTILINE)
        (cell / "conf").write_text(conf)
        resources = "/usr/share/gridengine/util/resources"
        self.head.say("spoolinit", "berkeleydb", "libspoolb", cell / "spool/db", "init")
        for words in (
            ("configuration", cell / "conf"), ("complexes", f"{resources}/centry"),
            ("usersets", f"{resources}/usersets"), ("managers", "root"), ("adminhosts", "head"),
        ):  # fmt: skip
            self.head.say("spooldefaults", *words)
        self.daemons.append(self.head.start(self.log, "sge_qmaster"))
        wait_for(lambda: self.head.run("qconf", "-sh").returncode == 0)
        self.head.say("qconf", "-as", "head")

    def queue(self) -> None:
        """A queue of no hosts yet, in which jobs start at once."""
        text = self.head.say("qconf", "-sq")
        for key, value in {"qname": "all.q", "hostlist": "NONE", "pe_list": "NONE", "shell": "/bin/sh"}.items():
            text = re.sub(rf"^{key}\b.*$", f"{key} {value}", text, flags=re.MULTILINE)
        (self.folder / "q").write_text(text)
        self.head.say("qconf", "-Aq", self.folder / "q")
        text = self.head.say("qconf", "-ssconf")
        text = re.sub(r"^schedule_interval\b.*$", "schedule_interval 0:0:1", text, flags=re.MULTILINE)
        text = re.sub(r"^(flush_\w+_sec)\b.*$", r"\1 1", text, flags=re.MULTILINE)
        (self.folder / "sc").write_text(text)
        self.head.say("qconf", "-Msconf", self.folder / "sc")

    def node(self, name: str, address: str) -> None:
        """Start the execd of a node; Grid Engine wants the address it comes from to have its name."""
        lan = self.served.lan
        lan.ip("-n", lan.node, "route", "replace", "10.77.0.0/24", "dev", "node0", "src", address)
        self.daemons.append(self.room(self.served.lan.node, name).start(self.log, "sge_execd"))

    def gild(self, *words: str) -> str:
        return self.head.say(*self.served.program, "--state", str(self.served.state), "cluster", "sge", *words)


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cell]:
    folder = tmp_path_factory.mktemp("sge")
    ours = [place for place in PLACES if not place.exists()]
    with head_with_nodes() as served:
        made = Cell.__new__(Cell)
        made.daemons = []
        try:
            made.__init__(served, folder)  # type: ignore[misc]  # what it has started is ended even if it fails
            yield made
        finally:
            end(served.lan.head, made.daemons)
            end(served.lan.node, [])
            for place in ours:
                with contextlib.suppress(OSError):
                    place.rmdir()


@pytest.mark.timeout(120)
def test_hosts_come_and_go(cell: Cell) -> None:
    said = cell.gild("--nodes", "node01")
    assert "ran: qconf -ah node01" in said and "there is no queue all.q" in said
    cell.queue()
    assert cell.gild("--nodes", "node01") == "ran: qconf -aattr queue hostlist @gild all.q\n"
    cell.node("node01", ADDRESSES[0])
    job = ("-sync", "y", "-b", "y", "-j", "y", "-o", cell.folder / "out", "-S", "/bin/sh", "hostname")
    cell.head.say("qsub", *job)
    assert (cell.folder / "out").read_text() == "node01\n"

    queues = GridEngine(lambda argv: cell.head.say(*argv))
    queues.drain(["node01"])
    assert "d" in cell.head.say("qstat", "-f").splitlines()[2].split()[-1]
    assert queues.busy(["node01"]) == set()
    queues.resume(["node01"])
    queues.resume(["node01"])
    cell.head.say("qsub", "-b", "y", "-S", "/bin/sh", "-o", "/dev/null", "-e", "/dev/null", "sleep", "60")
    wait_for(lambda: queues.busy(["node01"]) == {"node01"})
    cell.head.say("qdel", "-u", "root")
    wait_for(lambda: queues.busy(["node01"]) == set())

    shown = cell.gild("--dry-run")
    assert "would run: qconf -ah node02" in shown and "node02" not in cell.head.say("qconf", "-shgrp", "@gild")
    cell.gild()
    assert cell.gild() == "sge: nothing to do\n"
    assert cell.head.say("qconf", "-shgrp", "@gild").split() == ["group_name", "@gild", "hostlist", "node01", "node02"]

    cell.gild("--nodes", "node02")
    assert cell.head.say("qconf", "-sel").split() == ["node02"]
    assert "node01" not in cell.head.say("qconf", "-sh")
    assert cell.gild("--nodes", "node02") == "sge: nothing to do\n"
