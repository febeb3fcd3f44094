"""Run the benches that were named, or all; print a table; exit 0 only if every goal is reached."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from tests.bench.rig import Rig, Row, write_json

BENCHES = (
    "start",
    "size",
    "dhcp",
    "dns",
    "tftp",
    "http",
    "publish",
    "restore",
    "republish",
    "reimage",
    "capture",
    "storm",
    "heartbeat",
)


def main(argv: list[str]) -> int:
    """0: all goals reached; 1: some missed."""
    parser = argparse.ArgumentParser(prog="build.py bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHES)}; none: all")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args(argv)
    unknown = set(options.names) - set(BENCHES)
    if unknown:
        parser.error(f"there is no bench {', '.join(sorted(unknown))}; there are: {', '.join(BENCHES)}")
    rows: list[Row] = []
    for name in options.names or BENCHES:
        print(f"bench {name} ...", flush=True)
        with Rig(lambda line: print("   ", line, flush=True)) as rig:
            for row in import_module(f"tests.bench.{name}").run(rig):
                rows.append(row)
                print("   ", text(row), flush=True)
    if options.json:
        write_json(rows, options.json)
    missed = [row for row in rows if not row.ok]
    print(f"{len(rows) - len(missed)} of {len(rows)} figures reached")
    for row in missed:
        print("  missed:", text(row))
    return 1 if missed else 0


def text(row: Row) -> str:
    """One row for people."""
    peer = f", peer {row.peer:.4g}, ratio {row.ratio:.3f}" if row.ratio is not None else ""
    mark = "ok" if row.ok else "MISSED"
    return f"{row.bench} {row.case}: {row.ours:.4g} {row.unit}{peer}  [{row.goal or 'for information'}] {mark}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
