"""The result of one check, and what its severity means. The rules stand here and nowhere else.

    error    a node installed from this version does not start, or its installation stops half way: no kernel, a kernel
             or an initramfs without drivers for common disks, a boot menu that names another machine's disk, no init
    warning  it starts, but some nodes will not, or not in every case, or something goes to all nodes that should not:
             a disk in fstab that not all have, a private key, no time service, too little room
    info     nobody has to do anything: what was mended, what the node sets right by itself, what is good to know

A check that found nothing has an empty `found`, an empty `fix` and is of severity info.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

SEVERITIES = ("info", "warning", "error")
MAX_FOUND = 20  # names listed in one finding
MAX_NAME = 200  # characters of one of them: what a tree holds may be of any length


@dataclass(frozen=True, slots=True)
class Check:
    """One check: its name, what was found (names in the tree or short texts; empty means nothing), and what was done
    or is to be done about it, the command included."""

    name: str
    found: tuple[str, ...] = ()
    fix: str = ""
    severity: str = "info"  # one of SEVERITIES

    def as_dict(self) -> dict[str, object]:
        """The form the manifest keeps."""
        return {"name": self.name, "found": list(self.found), "fix": self.fix, "severity": self.severity}


def finding(name: str, found: Iterable[str], fix: str, severity: str = "info") -> Check:
    """A check with at most MAX_FOUND of `found`, each cut to MAX_NAME printable characters; without any, one that found
    nothing."""
    every = [plain(text) for text in found]
    more = len(every) - MAX_FOUND
    if not every:
        return Check(name)
    return Check(name, (*every[:MAX_FOUND], *((f"and {more} more",) if more > 0 else ())), fix, severity)


def plain(text: str) -> str:
    """`text` from a tree, fit to be shown and stored: printable, at most MAX_NAME characters."""
    return "".join(c if c.isprintable() else "?" for c in text[:MAX_NAME])


def summary(checks: Iterable[Mapping[str, object]]) -> tuple[int, int]:
    """How many errors and how many warnings there are among the checks of a manifest."""
    severities = [check.get("severity") for check in checks]
    return severities.count("error"), severities.count("warning")
