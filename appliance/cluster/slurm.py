"""Slurm: node and partition lines from the inventory, in a file of gild's own that slurm.conf includes.

A file that is included by a relative name travels to configless nodes with slurm.conf (measured with 22.05.8), so no
path in it may be one of this machine alone.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass

from appliance.cluster.change import Change, Command, File, blocked
from appliance.cluster.inventory import Inventory, Machine
from appliance.errors import Wrong
from netboot.noderange import NoderangeInvalid, expand, fold

NAME = "slurm"
PATH = "/etc/slurm/slurm.conf"
INCLUDED = "gild-nodes.conf"  # beside slurm.conf
FEATURE = "gild"  # of dynamic nodes that are gild's (slurmd -Z --conf "Feature=gild"); the partition of no profile
PARTITIONS = ("auto", "profile", "group", "none")
MOST_INCLUDES = 20  # files that slurm.conf includes and that are looked into
UP_SECONDS = 60.0  # slurmctld reads its state and its nodes; with 4 nodes it answered after 0.1 s
BUSY = ("allocated", "mixed", "completing", "draining")

# What Debian's packages expect; a site has but to add to it. Nodes need no file: they ask for this one.
FRESH = """\
# Written once by gild.pyz cluster slurm; from here on it is yours.
ClusterName=gild
SlurmctldHost={host}({address})
# Nodes have no slurm.conf: they ask DNS for _slurmctld._tcp (gild.pyz serve --slurm on), then slurmctld for this.
SlurmctldParameters=enable_configless
SlurmUser=slurm
StateSaveLocation=/var/lib/slurm/slurmctld
SlurmdSpoolDir=/var/lib/slurm/slurmd
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
"""
DYNAMIC = "MaxNodeCount=4096\nPartitionName=all Nodes=ALL Default=YES\n"


@dataclass(frozen=True)
class Wish:
    """How a site wants it. `restart` are the words of a command that restarts slurmctld, empty where there is none;
    `host` is this machine's own name."""

    conf: str = PATH
    partitions: str = "auto"
    dynamic: bool = False
    restart: tuple[str, ...] = ()
    host: str = "head"


def plan(inventory: Inventory, read: Callable[[str], str | None], shown: str | None, wish: Wish) -> Change:
    """`shown` is what `scontrol -o show nodes` prints, None while slurmctld does not answer. Raises BlockBroken, and
    Wrong where the site's own slurm.conf cannot be gone on with."""
    if wish.dynamic:
        return _dynamic(inventory, read, shown, wish)
    text = read(wish.conf)
    site = Conf.of(whole(text or "", posixpath.dirname(wish.conf), read))
    mine = tuple(machine for machine in inventory.machines if machine.name not in site.nodes)
    notes = [
        f"{wish.conf} itself has a line for {machine.name}: left to it"
        for machine in inventory.machines
        if machine.name in site.nodes
    ]
    gpus = "gpu" in site.value("GresTypes").lower().split(",")
    with_gpus = [machine.name for machine in mine if machine.gpus]
    if with_gpus and not gpus:
        notes.append(f"{fold(with_gpus)} have GPUs: say GresTypes=gpu in {wish.conf} to have them in their lines")
    unseen = [machine.name for machine in mine if not machine.threads]
    if unseen:
        notes.append(f"{fold(unseen)} did not show their hardware yet: one CPU until they have been in the installer")
    body = nodes_text(mine, gpus) + partitions_text(mine, wish.partitions, bool(site.partitions))
    files = (
        _conf(inventory, text, wish, site),
        blocked(read, posixpath.join(posixpath.dirname(wish.conf), INCLUDED), NAME, body),
    )
    known = names_shown(shown) if shown is not None else set()
    unknown = shown is not None and {machine.name for machine in mine} - known
    if not any(file.changed for file in files) and not unknown:
        return Change(NAME, files, notes=tuple(notes))
    follow, undo = _follow(wish, shown is not None)
    if not follow:
        notes.append("slurmctld does not run here; it reads these files when it is started")
    return Change(NAME, files, follow, undo, tuple(notes))


def _follow(wish: Wish, answers: bool) -> tuple[tuple[Command, ...], tuple[Command, ...]]:
    """slurmctld 22.05 ends itself when it is told to reconfigure with a node it did not start with (`fatal:
    MaxNodeCount has changed`, measured), and configless nodes keep the old file until they are told: so restart, wait
    until it answers, then reconfigure, and see that it still answers."""
    if not wish.restart:
        if answers:
            raise Wrong(
                "slurmctld has to be restarted, and systemd does not run here",
                "say how: gild.pyz cluster slurm --restart 'COMMAND'",
            )
        return (), ()
    restart = Command(wish.restart)
    ping = Command(("scontrol", "ping"), until="UP", seconds=UP_SECONDS)
    return (restart, ping, Command(("scontrol", "reconfigure")), ping), (restart,)


def _conf(inventory: Inventory, text: str | None, wish: Wish, site: Conf) -> File:
    """slurm.conf with the line that includes ours; a whole one where there is none."""
    line = f"include {INCLUDED}\n"
    if text is None:
        return File(wish.conf, None, FRESH.format(host=wish.host, address=inventory.head_address) + line)
    if any(posixpath.basename(included) == INCLUDED for included in site.includes):
        return File(wish.conf, text, text)
    return blocked(lambda path: text, wish.conf, NAME, line)


def _dynamic(inventory: Inventory, read: Callable[[str], str | None], shown: str | None, wish: Wish) -> Change:
    """Nodes that register themselves (slurmd -Z): only those that are gone have to be told."""
    text = read(wish.conf)
    if text is None:
        fresh = FRESH.format(host=wish.host, address=inventory.head_address) + DYNAMIC
        follow = (
            (Command(wish.restart), Command(("scontrol", "ping"), until="UP", seconds=UP_SECONDS))
            if wish.restart
            else ()
        )
        return Change(NAME, (File(wish.conf, None, fresh),), follow)
    site = Conf.of(text)
    for key, wanted, good in (
        ("MaxNodeCount", "MaxNodeCount=4096", site.value("MaxNodeCount") not in ("", "0", "1")),
        ("SelectType", "SelectType=select/cons_tres", site.value("SelectType").lower() == "select/cons_tres"),
    ):
        if not good:
            raise Wrong(
                f"{wish.conf}: dynamic nodes need another {key} (slurm.schedmd.com/dynamic_nodes.html)",
                f"write {wanted}, and restart slurmctld and every slurmd",
            )
    names = {machine.name for machine in inventory.machines}
    gone = sorted(name for name in names_shown(shown or "", FEATURE) if name not in names)
    commands = tuple(Command(("scontrol", "delete", f"NodeName={name}")) for name in gone)
    return Change(NAME, (), commands, notes=() if shown is not None else ("slurmctld does not answer here",))


def node_line(machine: Machine, gpus: bool) -> str:
    """The line of one node. What it has is what the installer saw; counts that contradict one another are left out."""
    words = [f"NodeName={machine.name}", f"NodeAddr={machine.address}"]
    if machine.threads:
        words.append(f"CPUs={machine.threads}")
    sockets, cores, threads = machine.sockets, machine.cores, machine.threads
    if sockets and cores and cores % sockets == 0 and threads % cores == 0:
        words += [f"Sockets={sockets}", f"CoresPerSocket={cores // sockets}", f"ThreadsPerCore={threads // cores}"]
    if machine.memory:
        words.append(f"RealMemory={real_memory(machine.memory)}")
    if gpus and machine.gpus:
        words.append(f"Gres=gpu:{machine.gpus}")
    if machine.labels:
        words.append(f"Features={','.join(machine.labels)}")
    return " ".join(words)


def real_memory(plugged: int) -> int:
    """MiB that a node may promise of those plugged in. A node that turns out to have less than its line says is drained
    ("Low RealMemory"), and the kernel keeps some for itself: of 512 MiB 45, of large memories 2 to 4 % (measured)."""
    return max(1, plugged * 95 // 100 - 64)


def nodes_text(machines: tuple[Machine, ...], gpus: bool) -> str:
    """A line a node."""
    return "".join(node_line(machine, gpus) + "\n" for machine in machines)


def partitions_text(machines: tuple[Machine, ...], kind: str, own: bool) -> str:
    """A partition a profile or group, that of most nodes the default; none for "auto" where the site has its `own`."""
    if kind == "none" or (kind == "auto" and own):
        return ""
    members: dict[str, list[str]] = {}
    for machine in machines:
        for label in machine.groups if kind == "group" else (machine.profile,):
            # PartitionName=default would be no partition but what all others begin with (slurm.conf(5)).
            members.setdefault(FEATURE if label == "default" else label, []).append(machine.name)
    largest = max(sorted(members), key=lambda label: len(members[label]), default="")
    return "".join(
        f"PartitionName={label} Nodes={fold(names)}"
        + (" Default=YES" if label == largest and not own else "")
        + " State=UP\n"
        for label, names in sorted(members.items())
    )


def whole(text: str, folder: str, read: Callable[[str], str | None]) -> str:
    """A slurm.conf and the files it includes, one level deep, without gild's."""
    included = [name for name in Conf.of(text).includes if posixpath.basename(name) != INCLUDED]
    return "\n".join([text, *(read(posixpath.join(folder, name)) or "" for name in included[:MOST_INCLUDES])])


@dataclass(frozen=True)
class Conf:
    """What matters in a slurm.conf that a person wrote."""

    values: dict[str, str]
    nodes: frozenset[str]
    partitions: tuple[str, ...]
    includes: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> Conf:
        """Read a slurm.conf: key = value lines, case does not matter, \\ goes on in the next line (slurm.conf(5))."""
        values: dict[str, str] = {}
        nodes: set[str] = set()
        partitions, includes = [], []
        for line in re.sub(r"\\\n", " ", text).splitlines():
            line = re.sub(r"(?<!\\)#.*", "", line).strip()
            found = re.match(r"(\w+)\s*=\s*(\S+)", line)
            if line.lower().startswith("include "):
                includes.append(line.split(None, 1)[1])
            elif found and found[1].lower() == "nodename":
                nodes |= _names(found[2])
            elif found and found[1].lower() == "partitionname":
                partitions.append(found[2])
            elif found:
                values[found[1].lower()] = found[2]
        return cls(values, frozenset(nodes), tuple(partitions), tuple(includes))

    def value(self, key: str) -> str:
        """The value of a key, "" if it is not set."""
        return self.values.get(key.lower(), "")


def _names(hostlist: str) -> set[str]:
    """The nodes of a hostlist; one that cannot be read names none."""
    try:
        return {name for word in re.split(r",(?![^\[]*\])", hostlist) for name in expand(word)}
    except NoderangeInvalid:
        return set()


def names_shown(text: str, feature: str = "") -> set[str]:
    """The nodes in the output of `scontrol -o show nodes`, or those with a feature."""
    found = set()
    for line in text.splitlines():
        fields = dict(re.findall(r"(\w+)=(\S*)", line))
        if "NodeName" in fields and (not feature or feature in fields.get("AvailableFeatures", "").split(",")):
            found.add(fields["NodeName"])
    return found


def busy_shown(text: str) -> set[str]:
    """The nodes that run something, in the output of `sinfo -h -N -o "%N %T"`."""
    rows = (line.split() for line in text.splitlines())
    return {row[0] for row in rows if len(row) == 2 and row[1].rstrip("*~#!%$@^-+") in BUSY}
