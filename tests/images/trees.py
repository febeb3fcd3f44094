"""The systems of tests/data/trees: read from their one file, built in a directory."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tests.images.systems import link, put
from tests.images.tinytree import newc

KERNEL = "6.1.0-9-amd64"
MODES = {"f": 0o644, "x": 0o755, "s": 0o600}
WORDS = ("is", "boot", "has", "gone", "same", "mode", "refused")
FILE = Path(__file__).parents[1] / "data/trees/systems.txt"


@dataclass
class System:
    """One system: what is in it, path -> (kind, rest of the line), and what has to come out of fitting it."""

    name: str
    files: dict[str, tuple[str, str]] = field(default_factory=dict)
    wanted: list[tuple[str, str]] = field(default_factory=list)

    def all(self, word: str) -> list[list[str]]:
        """The expectations of that word, each as path and rest."""
        return [rest.split(" ", 1) for found, rest in self.wanted if found == word]

    def build(self, root: Path) -> Path:
        """Make the tree below `root`."""
        root.mkdir()
        for path, (kind, rest) in self.files.items():
            if kind == "d":
                (root / path).mkdir(parents=True, exist_ok=True)
            elif kind == "l":
                link(root, path, rest.removeprefix("-> "))
            elif kind == "c":
                put(root, path, newc(rest.split()))
            else:
                text = "x" * (1 << 20) if rest == "*" else rest.replace("\\n", "\n").replace("\\t", "\t")
                put(root, path, text.replace("\\r", "\r"), MODES[kind])
        return root


def load() -> dict[str, System]:
    """Every system that has an expectation of what it is, by name."""
    found: dict[str, System] = {}
    at = System("")
    for row in FILE.read_text().splitlines():
        line = row.replace("$K", KERNEL)
        word, _, rest = line.partition(" ")
        path, _, more = rest.partition(" ")
        if not line or word == "#":
            continue
        if word == "=":
            name, _, bases = rest.partition(" < ")
            at = found[name] = System(name)
            for base in bases.split():
                at.files |= found[base].files
                at.wanted += [entry for entry in found[base].wanted if entry[0] not in ("is", "refused")]
        elif word == "-":
            del at.files[path]
        elif word == "unless":
            at.wanted = [entry for entry in at.wanted if entry[1].split(" ")[0] != path]
        elif word in WORDS:
            at.wanted = [e for e in at.wanted if word != "boot" or e[0] != "boot"] + [(word, rest)]
        else:
            assert word in (*MODES, "l", "d", "c"), row
            at.files[path] = (word, more)
    return {name: system for name, system in found.items() if system.all("is") or system.all("refused")}
