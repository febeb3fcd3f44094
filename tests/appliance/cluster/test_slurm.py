from __future__ import annotations

from dataclasses import replace

import pytest

from appliance.cluster import slurm
from appliance.cluster.inventory import Machine
from appliance.cluster.slurm import Conf, Wish
from appliance.errors import Wrong
from tests.appliance.cluster.files import Files
from tests.appliance.cluster.test_inventory import CLUSTER

SITE = """\
ClusterName=lab
SlurmctldHost=head
NodeName=old[1-2],store1 CPUs=4 \\
  RealMemory=1000   # two and one
PartitionName=all Nodes=ALL Default=YES
"""
WISH = Wish(restart=("systemctl", "restart", "slurmctld"))
NODES = "/etc/slurm/gild-nodes.conf"


def test_lines_beside_those_of_the_site() -> None:
    files = Files({slurm.PATH: SITE})
    change = files.take(slurm.plan(CLUSTER, files.read, "NodeName=old1 Arch=x\n", WISH))
    assert files[slurm.PATH].startswith(SITE) and "\ninclude gild-nodes.conf\n" in files[slurm.PATH]
    has = "CPUs=16 Sockets=2 CoresPerSocket=4 ThreadsPerCore=2 RealMemory=62195"
    assert files[NODES].splitlines()[1:-1] == [
        f"NodeName=node01 NodeAddr=10.1.0.11 {has} Features=compute,rack1",
        f"NodeName=node02 NodeAddr=10.1.0.12 {has} Features=compute,gpus,rack1",
    ]
    assert change.notes == (
        "/etc/slurm/slurm.conf itself has a line for store1: left to it",
        "node02 have GPUs: say GresTypes=gpu in /etc/slurm/slurm.conf to have them in their lines",
    )
    # Never reconfigure before the restart is over: slurmctld 22.05 ends itself.
    assert [command.text for command in change.commands] == [
        "systemctl restart slurmctld", "scontrol ping", "scontrol reconfigure", "scontrol ping",
    ]  # fmt: skip
    assert change.commands[1].until == change.commands[3].until == "UP"
    assert [command.text for command in change.undo] == ["systemctl restart slurmctld"]


def test_nothing_to_do_once_slurmctld_knows_them() -> None:
    files = Files({slurm.PATH: SITE + "GresTypes=gpu\n"})
    files.take(slurm.plan(CLUSTER, files.read, "", WISH))
    assert "Gres=gpu:4" in files[NODES]
    shown = "NodeName=node01 A=b\nNodeName=node02 A=b\n"
    assert not slurm.plan(CLUSTER, files.read, shown, WISH).needed
    again = slurm.plan(CLUSTER, files.read, "NodeName=node01 A=b\n", WISH)
    assert again.commands and not any(file.changed for file in again.files)  # the last restart did not happen
    assert not slurm.plan(CLUSTER, files.read, None, WISH).needed


def test_partitions() -> None:
    text = slurm.partitions_text(CLUSTER.machines, "auto", False)
    assert text == (
        "PartitionName=compute Nodes=node[01-02] Default=YES State=UP\nPartitionName=storage Nodes=store1 State=UP\n"
    )
    assert slurm.partitions_text(CLUSTER.machines, "auto", True) == ""
    assert slurm.partitions_text(CLUSTER.machines, "group", True) == (
        "PartitionName=gpus Nodes=node02 State=UP\nPartitionName=rack1 Nodes=node[01-02] State=UP\n"
    )
    plain = (Machine("n1", "10.1.0.9", "default"),)
    assert slurm.partitions_text(plain, "auto", False) == "PartitionName=gild Nodes=n1 Default=YES State=UP\n"
    assert slurm.partitions_text((), "profile", False) == slurm.partitions_text(CLUSTER.machines, "none", False) == ""


def test_where_there_is_no_slurm_conf() -> None:
    files = Files()
    change = files.take(slurm.plan(CLUSTER, files.read, None, replace(WISH, host="big")))
    assert "SlurmctldHost=big(10.1.0.1)\n" in files[slurm.PATH] and "enable_configless" in files[slurm.PATH]
    assert files[slurm.PATH].endswith("include gild-nodes.conf\n")
    assert "PartitionName=compute Nodes=node[01-02] Default=YES" in files[NODES]
    assert "store1 did not show" in change.notes[-1] and change.commands
    assert not slurm.plan(CLUSTER, files.read, None, WISH).needed


def test_without_a_way_to_restart_nothing_is_written() -> None:
    files = Files({slurm.PATH: SITE})
    with pytest.raises(Wrong, match="has to be restarted, and systemd does not run") as caught:
        slurm.plan(CLUSTER, files.read, "", Wish())
    assert "--restart" in caught.value.hint
    change = slurm.plan(CLUSTER, files.read, None, Wish())
    assert not change.commands and "does not run here" in change.notes[-1]


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (Machine("n", "10.0.0.9"), "NodeName=n NodeAddr=10.0.0.9"),
        (Machine("n", "10.0.0.9", threads=4), "NodeName=n NodeAddr=10.0.0.9 CPUs=4"),
        (Machine("n", "10.0.0.9", sockets=2, cores=3, threads=4, memory=512, gpus=2),
         "NodeName=n NodeAddr=10.0.0.9 CPUs=4 RealMemory=422 Gres=gpu:2"),
        (Machine("n", "10.0.0.9", "p", ("q", "p"), 1, 2, 2),
         "NodeName=n NodeAddr=10.0.0.9 CPUs=2 Sockets=1 CoresPerSocket=2 ThreadsPerCore=1 Features=p,q"),
    ],
)  # fmt: skip
def test_a_line(machine: Machine, words: str) -> None:
    assert slurm.node_line(machine, gpus=True) == words


def test_reading_a_conf() -> None:
    read = Conf.of(SITE + "  Include /etc/slurm/more.conf\n#NodeName=x\nNodeName=DEFAULT CPUs=1\nnodename=bad[x]\n")
    assert read.nodes == {"old1", "old2", "store1", "DEFAULT"}
    assert read.partitions == ("all",) and read.includes == ("/etc/slurm/more.conf",)
    assert read.value("clustername") == "lab" and read.value("SelectType") == ""


def test_nodes_in_files_that_are_included() -> None:
    more = {"/etc/slurm/more.conf": "NodeName=node0[1-2]\n", "/abs.conf": "PartitionName=x Nodes=node01\n"}
    files = Files({slurm.PATH: "include more.conf\nInclude /abs.conf\ninclude none.conf\n", **more})
    files.take(slurm.plan(CLUSTER, files.read, None, WISH))
    assert files[NODES].count("NodeName") == 1 and "NodeName=store1" in files[NODES]
    assert "PartitionName" not in files[NODES]


def test_dynamic_nodes() -> None:
    wish = replace(WISH, dynamic=True)
    files = Files()
    change = files.take(slurm.plan(CLUSTER, files.read, None, wish))
    assert "MaxNodeCount=4096" in files[slurm.PATH] and "gild-nodes" not in files[slurm.PATH]
    assert [command.argv[0] for command in change.commands] == ["systemctl", "scontrol"]
    shown = (
        "NodeName=node01 AvailableFeatures=gild,x ActiveFeatures=x\nNodeName=gone AvailableFeatures=gild\n"
        "NodeName=theirs AvailableFeatures=(null)\n"
    )
    change = slurm.plan(CLUSTER, files.read, shown, wish)
    assert [command.text for command in change.commands] == ["scontrol delete NodeName=gone"] and not change.files
    with pytest.raises(Wrong, match="dynamic nodes need another MaxNodeCount"):
        slurm.plan(CLUSTER, Files({slurm.PATH: SITE}).read, None, wish)


def test_who_is_busy() -> None:
    assert slurm.busy_shown("a1 allocated\na2 idle*\na3 mixed+\na4 draining\na5 drained\n\nbad\n") == {"a1", "a3", "a4"}
