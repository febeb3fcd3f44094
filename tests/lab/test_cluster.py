"""From unknown machines to a working cluster: four of them, two profiles, and a real Slurm on the head.

No more than two run at a time: the emulated processors of a small machine carry no more.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from appliance.acceptance.checks import NAMES
from tests.lab.controller import Controller
from tests.lab.demo import IMAGE, debian
from tests.lab.lab import Lab, LabError, Machine
from tests.lab.test_install import SECONDS, lab_with_image, row

pytestmark = [pytest.mark.lab, pytest.mark.root, pytest.mark.timeout(2400)]
SLURM = "slurm"
RECIPE = """\
name = "slurm"
extends = "debian"
scheduler = "slurm"
"""


def image_with_slurm(lab: Lab) -> None:
    """Build it, unless an earlier run has left it."""
    if any(version["image"] == SLURM for version in lab.gild("image", "list", "--json")):
        return
    recipe = lab.folder / "slurm.toml"
    recipe.write_text(RECIPE)
    lab.gild("image", "build", str(recipe), text=True, timeout=1200, show=True)


def nodes(lab: Lab) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = lab.gild("node", "list", "--json")
    return found


def appear(lab: Lab, machine: Machine) -> dict[str, Any]:
    """Switch a machine on; its row once it has shown its hardware."""
    machine.start()

    def waiting() -> dict[str, Any] | None:
        return next((node for node in nodes(lab) if machine.mac in node["macs"] and node["machine"]), None)

    found: dict[str, Any] = lab.wait(waiting, SECONDS, f"{machine.name} to say hello", every=1.0)
    return found


def installed(lab: Lab, *names: str) -> None:
    """Order them, as their profile says, and wait until they have called home."""
    lab.gild("node", "install", *names, "--yes")

    def up() -> bool:
        states = [node["state"] for node in lab.gild("node", "list", *names, "--json")]
        assert not {"failed", "lost"} & set(states), lab.story()
        return states == ["up"] * len(states)

    lab.wait(up, 2 * SECONDS, f"{names} up", every=2.0)


def key_of(lab: Lab) -> Path:
    """The key with which the head logs in, and the nodes at each other's."""
    return lab.folder / "key"


def profiles(lab: Lab, controller: Controller) -> None:
    """Two kinds of node, told from each other by their memory: one with Slurm and the cluster's munge key, and one
    without."""
    lab.gild("profile", "set", "compute", "--image", SLURM, "--names", "node{n:02}", text=True)
    lab.gild("profile", "set", "storage", "--image", IMAGE, "--names", "store{n}", text=True)
    lab.gild("rule", "add", "memory=600MiB+", "--profile", "compute", "--group", "rack1", text=True)
    lab.gild("rule", "add", "--profile", "storage", text=True)
    lab.gild("secret", "set", "munge.key", "--profile", "compute", str(controller.key), text=True)
    folder = lab.state / "profiles/compute"
    (folder / "overlay/etc").mkdir(parents=True)
    ssh = folder / "overlay/root/.ssh"
    ssh.mkdir(parents=True, mode=0o700)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key_of(lab)], check=True)
    (ssh / "authorized_keys").write_text(key_of(lab).with_suffix(".pub").read_text())
    (folder / "overlay/etc/motd.j2").write_text("{{ node.name }} of {{ node.profile }}\n")
    config = folder / "overlay/etc/ssh/ssh_config.d/cluster.conf"
    config.parent.mkdir(parents=True)
    config.write_text("StrictHostKeyChecking accept-new\n")
    lab.gild("secret", "set", "cluster_key", "--profile", "compute", str(key_of(lab)), text=True)
    (folder / "overlay.toml").write_text(
        '["etc/munge/munge.key"]\nsecret = "munge.key"\nowner = "munge"\ngroup = "munge"\nmode = "0400"\n'
        '["root/.ssh/id_ed25519"]\nsecret = "cluster_key"\nmode = "0600"\n'
    )
    (folder / "post.d").mkdir()
    script = folder / "post.d/10-who"
    script.write_text('#!/bin/sh -e\ngrep -q "^$GILD_NODE of compute$" /etc/motd\nid -un munge\n')
    script.chmod(0o755)


def renamed(lab: Lab, controller: Controller) -> None:
    """node02 becomes db2, at another address: its running system is told, and comes back as that."""
    lab.gild("node", "set", "node02", "--name", "db2", "--address", "10.77.0.222", text=True)
    gild = [*lab.program, "--state", str(lab.state)]
    (told,) = json.loads(
        controller.run(*gild, "node", "tell", "db2", "--key", str(key_of(lab)), "--yes", "--json", timeout=120)
    )
    assert told["told"] and told["at"] != "10.77.0.222", told
    skipped = [word for name in NAMES if name not in ("reach", "name", "address") for word in ("--skip", name)]
    test = [*gild, "cluster", "test", "db2", "--key", str(key_of(lab)), "--json", *skipped]

    def answers() -> bool:
        with contextlib.suppress(LabError, ValueError):
            return bool(json.loads(controller.run(*test, timeout=60))["passed"])
        return False

    lab.wait(answers, SECONDS, "db2 to answer at its new address, by its new name", every=3.0)
    assert row(lab, "db2")["state"] == "up"


def test_four_machines_become_a_cluster(pyz: object) -> None:
    with lab_with_image() as lab, Controller(lab) as controller:
        debian(lab)
        image_with_slurm(lab)
        lab.head("--slurm", "on")
        profiles(lab, controller)
        controller.munged()

        compute = [lab.machine(f"c{n}", "bios", disk_size="4G", memory=768) for n in (1, 2)]
        for machine, name in zip(compute, ("node01", "node02"), strict=True):  # in the order of power-on
            assert appear(lab, machine)["name"] == name
        controller.conf.open("a").write("NodeName=node[01-02] CPUs=1\nPartitionName=all Nodes=ALL Default=YES\n")
        controller.slurmctld()
        installed(lab, "@rack1")
        assert [row(lab, name)["macs"][0] for name in ("node01", "node02")] == [machine.mac for machine in compute]

        def idle() -> bool:
            return controller.try_("sinfo", "-h", "-N", "-o", "%N %t").split() == ["node01", "idle", "node02", "idle"]

        lab.wait(idle, 120, f"both idle in Slurm\n{controller.try_('sinfo')}\n{controller.log()}", every=2.0)
        said = controller.run("srun", "-N2", "hostname", timeout=60)
        assert sorted(said.split()) == ["node01", "node02"]
        assert any("post.d/10-who: munge" in event["text"] for event in lab.gild("node", "log", "node01", "--json"))
        words = ["--state", str(lab.state), "cluster", "test", "@rack1", "--key", str(key_of(lab)), "--json"]
        report = json.loads(controller.run(*lab.program, *words, timeout=300))
        assert report["passed"] and [node["name"] for node in report["nodes"]] == ["node01", "node02"], report
        compute[0].stop()
        renamed(lab, controller)
        compute[1].stop()

        storage = [lab.machine(f"s{n}", "bios", disk_size=f"{n + 3}G", bus="ahci") for n in (1, 2)]
        for machine, name in zip(storage, ("store1", "store2"), strict=True):
            assert appear(lab, machine)["name"] == name
        installed(lab, "store[1-2]")
        assert {node["name"]: node["image"].partition(":")[0] for node in nodes(lab)} == {
            "node01": SLURM, "db2": SLURM, "store1": IMAGE, "store2": IMAGE,
        }  # fmt: skip

        # Another card in the same machine: said, and nothing is guessed.
        storage[1].stop()
        storage[1].mac = "52:54:00:77:00:99"
        stranger = appear(lab, storage[1])
        assert stranger["state"] == "waiting" and stranger["name"] == ""
        assert "of store2 but none of its network cards" in stranger["conflict"], lab.story()
        lab.gild("node", "same", f"#{stranger['id']}", "store2", "--yes")
        assert row(lab, "store2")["macs"] == [storage[1].mac] and len(nodes(lab)) == 4
