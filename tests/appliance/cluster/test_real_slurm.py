"""gild cluster slurm beside a real munged, slurmctld and two slurmds that have no slurm.conf."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.cluster.scheduler import Slurm
from tests.appliance.cluster.daemons import ADDRESSES, HEAD_IP, Room, end, head_with_nodes, wait_for
from tests.appliance.process import Served

MISSING = [tool for tool in ("munged", "slurmctld", "slurmd", "scontrol", "sinfo") if shutil.which(tool) is None]
pytestmark = [pytest.mark.root, pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")]

# Paths of daemons that run on one machine; linuxproc needs no cgroups, which a namespace like this does not show, and
# config_overrides lets a node be smaller than its line says.
CONF = """\
ClusterName=lab
SlurmctldHost=head({head})
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir=/var/spool/slurmd
SlurmctldPidFile={folder}/ctl.pid
SlurmdPidFile=/var/spool/slurmd.pid
ProctrackType=proctrack/linuxproc
SlurmctldParameters=enable_configless
SlurmdParameters=config_overrides
CommunicationParameters=NoInAddrAny
ReturnToService=2
"""


class Site:
    """A head with a Slurm controller, and two nodes behind the cable."""

    def __init__(self, served: Served, folder: Path) -> None:
        self.served, self.folder, self.conf = served, folder, folder / "slurm.conf"
        self.daemons: list[subprocess.Popen[bytes]] = []
        for name in ("state", "run"):
            (folder / name).mkdir()
        (folder / "key").write_bytes(secrets.token_bytes(1024))
        (folder / "key").chmod(0o600)
        (folder / "hosts").write_text(f"127.0.0.1 localhost\n{HEAD_IP} head\n")
        names = "".join(f"{address} node0{number}\n" for number, address in enumerate(ADDRESSES, 1))
        (folder / "node-hosts").write_text((folder / "hosts").read_text() + names)
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        self.conf.write_text(CONF.format(folder=folder, head=HEAD_IP))
        (folder / "restart").write_text(
            "#!/bin/sh\nscontrol shutdown slurmctld 2>/dev/null\n"
            "for n in $(seq 100); do scontrol ping | grep -q DOWN && break; sleep 0.05; done\n"
            f"slurmctld -D -f {self.conf} > {folder}/ctl.log 2>&1 < /dev/null &\n"
            "for n in $(seq 60); do scontrol ping | grep -q UP && exit 0; kill -0 $! || break; sleep 0.1; done\n"
            f"grep fatal {folder}/ctl.log >&2; exit 1\n"
        )
        (folder / "restart").chmod(0o755)
        mounts = {"/run/munge": folder / "run", "/etc/hosts": folder / "hosts"}
        self.head = Room(served.lan.head, "head", mounts, {"SLURM_CONF": str(self.conf)})
        self.daemons.append(self.head.start(
            folder / "log", "munged", "-F", f"--key-file={folder}/key",
            *(f"--{kind}-file={folder}/munge.{kind}" for kind in ("seed", "log", "pid")),
        ))  # fmt: skip
        wait_for((folder / "run/munge.socket.2").exists)

    def node(self, name: str) -> None:
        """Start the slurmd of a node, which knows nothing but munge and where the controller is."""
        spool = self.folder / name
        (spool / "run").mkdir(parents=True)
        mounts = {"/run/munge": self.folder / "run", "/etc/hosts": self.folder / "node-hosts", "/var/spool": spool,
                  "/run/slurm": spool / "run"}  # fmt: skip
        room = Room(self.served.lan.node, name, mounts)
        self.daemons.append(room.start(
            self.folder / "log", "slurmd", "-D", "-N", name, "--conf-server", f"{HEAD_IP}:6817"
        ))  # fmt: skip

    def gild(self, *words: str) -> subprocess.CompletedProcess[str]:
        program = (*self.served.program, "--state", str(self.served.state), "cluster", "slurm")
        return self.head.run(*program, "--conf", self.conf, "--restart", self.folder / "restart", *words)

    def states(self) -> list[str]:
        return self.head.run("sinfo", "-h", "-N", "-o", "%N %t %c %f").stdout.splitlines()

    def log(self) -> str:
        return "".join((self.folder / name).read_text()[-3000:] for name in ("log", "ctl.log"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("slurm")
    base = tmp_path_factory.getbasetemp()
    for path in (folder, base, base.parent):  # and no further up: what is above is not this test's
        path.chmod(0o755)  # both daemons refuse a way that others could write to, and munge's clients need one
    with head_with_nodes() as served:
        made = Site(served, folder)
        try:
            yield made
        finally:
            end(served.lan.head, made.daemons)
            end(served.lan.node, [])


@pytest.mark.timeout(120)
def test_nodes_are_added_and_slurmctld_lives(site: Site) -> None:
    first = site.gild("--nodes", "node01", "--dry-run").stdout
    assert "+NodeName=node01 NodeAddr=10.77.0.31" in first and "would run: scontrol reconfigure" in first
    assert "include" not in site.conf.read_text()
    done = site.gild("--nodes", "node01")
    assert done.returncode == 0 and "ran: scontrol reconfigure" in done.stdout, done.stdout + done.stderr
    site.node("node01")
    wait_for(lambda: site.states() == ["node01 idle 1 default,compute"])

    # A second one: what kills slurmctld 22.05 if it is done in the wrong order.
    done = site.gild("--json")
    assert done.returncode == 0, done.stdout + done.stderr + site.log()
    said = json.loads(done.stdout)
    assert said["done"] and [argv[-1] for argv in said["commands"]][1:] == ["ping", "reconfigure", "ping"]
    site.node("node02")
    both = ["node01 idle 1 default,compute", "node02 idle 1 default,compute"]
    wait_for(lambda: site.states() == both)
    assert "UP" in site.head.say("scontrol", "ping")
    # The old node has learnt of the new one: a job over both of them.
    assert sorted(site.head.say("srun", "-N2", "-t1", "hostname").split()) == ["node01", "node02"], site.log()

    again = site.gild()
    assert (again.returncode, again.stdout) == (0, "slurm: nothing to do\n"), again.stdout + again.stderr


@pytest.mark.timeout(120)
def test_drained_and_given_back(site: Site) -> None:
    slurm = Slurm(lambda argv: site.head.say(*argv))
    wait_for(lambda: len(site.states()) == 2)
    slurm.drain(["node01", "node02"])
    assert [line.split()[1] for line in site.states()] == ["drain", "drain"]
    slurm.drain(["node01"])
    assert slurm.busy(["node01", "node02"]) == set()
    slurm.resume(["node01", "node02"])
    wait_for(lambda: [line.split()[1] for line in site.states()] == ["idle", "idle"])
    slurm.resume(["node01"])  # never drained, as far as Slurm is concerned
    site.head.say("scontrol", "update", "NodeName=node02", "State=DRAIN", "Reason=disk")
    slurm.resume(["node02"])
    assert site.states()[1].split()[1] == "drain"
    site.head.say("scontrol", "update", "NodeName=node02", "State=RESUME")
    job = site.head.say("sbatch", "--parsable", "-w", "node02", "-o", "/dev/null", "--wrap", "sleep 60").strip()
    wait_for(lambda: slurm.busy(["node01", "node02"]) == {"node02"})
    slurm.drain(["node02"])
    assert slurm.busy(["node02"]) == {"node02"}
    site.head.say("scancel", job)
    wait_for(lambda: slurm.busy(["node02"]) == set())
    slurm.resume(["node02"])
    with pytest.raises(AssertionError, match="Invalid node name"):
        slurm.drain(["node03"])


@pytest.mark.timeout(120)
def test_lines_that_slurmctld_does_not_take_are_taken_back(site: Site) -> None:
    wait_for(lambda: len(site.states()) == 2)
    nodes = site.folder / "gild-nodes.conf"
    assert site.gild("--nodes", "node01").returncode == 0
    before = nodes.read_text()
    picky = site.folder / "picky"
    picky.write_text(
        f"#!/bin/sh\ngrep -q node02 {nodes} && {{ echo fatal: no room for node02 >&2; exit 1; }}\n"
        f"exec {site.folder}/restart\n"
    )
    picky.chmod(0o755)
    done = site.gild("--restart", str(picky))
    told = "fatal: no room for node02; the old file is back"
    assert done.returncode == 1 and told in done.stderr, done.stdout + done.stderr
    assert nodes.read_text() == before
    assert "UP" in site.head.say("scontrol", "ping") and len(site.states()) == 1
