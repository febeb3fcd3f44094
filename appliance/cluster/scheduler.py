"""Drained and given back: what the schedulers of this machine are asked around a reinstallation.

Every question may take as long as its command: ask in a thread.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from appliance.cluster import gridengine, pbs, slurm
from appliance.cluster.apply import Here
from netboot.noderange import fold

REASON = "gild: reinstallation"
# Why Slurm itself takes a node down while that is installed (slurmctld's own words).
_BY_SLURM = ("Node unexpectedly rebooted", "Not responding")
Need = Callable[[list[str]], str]  # what a program says; raises CommandFailed, ToolMissing


def _need(argv: list[str]) -> str:
    return Here().need(argv)


@dataclass(frozen=True)
class Slurm:
    """By scontrol and sinfo. A node that somebody else has drained stays drained, with its reason."""

    need: Need = _need

    def drain(self, names: Iterable[str]) -> None:
        """Give them no more work. Raises CommandFailed, ToolMissing."""
        chosen = list(names)
        seen = self._seen(chosen)
        ours = [name for name in chosen if not seen.get(name, ("", ""))[0].startswith("drain")]
        if ours:
            self.need(["scontrol", "update", f"NodeName={fold(ours)}", "State=DRAIN", f"Reason={REASON}"])

    def resume(self, names: Iterable[str]) -> None:
        """Give them work again, those that were drained for this."""
        chosen = list(names)
        back = [
            name
            for name, (state, reason) in self._seen(chosen).items()
            if state.startswith(("drain", "down")) and reason.startswith((REASON, *_BY_SLURM))
        ]
        if back:
            self.need(["scontrol", "update", f"NodeName={fold(back)}", "State=RESUME"])

    def busy(self, names: Iterable[str]) -> set[str]:
        """Those of them that still run something."""
        return slurm.busy_shown(self.need(["sinfo", "-h", "-N", "-n", fold(names), "-o", "%N %T"]))

    def _seen(self, names: list[str]) -> dict[str, tuple[str, str]]:
        """Name -> state and reason."""
        lines = self.need(["sinfo", "-h", "-N", "-n", fold(names), "-o", "%N|%T|%E"]).splitlines()
        rows = (line.split("|", 2) for line in lines)
        return {row[0]: (row[1], row[2]) for row in rows if len(row) == 3}


@dataclass(frozen=True)
class GridEngine:
    """By qmod and qstat, in every queue a host is in."""

    need: Need = _need

    def drain(self, names: Iterable[str]) -> None:
        """Give them no more work. Raises CommandFailed, ToolMissing."""
        self.need(["qmod", "-d", *(f"*@{name}" for name in names)])

    def resume(self, names: Iterable[str]) -> None:
        """Give them work again."""
        self.need(["qmod", "-e", *(f"*@{name}" for name in names)])

    def busy(self, names: Iterable[str]) -> set[str]:
        """Those of them that still run something."""
        return gridengine.busy_shown(self.need(["qstat", "-u", "*", "-s", "rs", "-xml"])) & set(names)


@dataclass(frozen=True)
class Pbs:
    """By pbsnodes."""

    need: Need = _need

    def drain(self, names: Iterable[str]) -> None:
        """Give them no more work. Raises CommandFailed, ToolMissing."""
        self.need(["pbsnodes", "-o", "-C", REASON, *names])

    def resume(self, names: Iterable[str]) -> None:
        """Give them work again."""
        self.need(["pbsnodes", "-r", "-C", "", *names])

    def busy(self, names: Iterable[str]) -> set[str]:
        """Those of them that still run something."""
        nodes = pbs.nodes_shown(self.need(["pbsnodes", "-a", "-F", "json"]))
        return {name for name in names if name in nodes and nodes[name].jobs}


Scheduler = Slurm | GridEngine | Pbs
# The program of its server's side: client commands alone may be there for another cluster.
KINDS: dict[str, tuple[str, type[Scheduler]]] = {
    "slurm": ("slurmctld", Slurm), "sge": ("sge_qmaster", GridEngine), "pbs": ("pbs_server", Pbs),
}  # fmt: skip


def found(services: Iterable[str] = ()) -> Scheduler | None:
    """The scheduler of this machine: the first of `services` that is one, else the first that is installed."""
    for name in services:
        if name in KINDS:
            return KINDS[name][1]()
    for program, kind in KINDS.values():
        if shutil.which(program, path="/usr/sbin:/sbin:/usr/bin:/usr/lib/gridengine:/opt/pbs/sbin"):
            return kind()
    return None
