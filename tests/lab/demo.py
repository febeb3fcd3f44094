"""The demonstration: two blank machines, an isolated network, one file; both end "up".

Builds a Debian image (once; it is kept below .build), starts `gild.pyz serve` in a network namespace, switches two
virtual machines on, approves and orders them as a person would, by the command line, and follows them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from tests.lab.lab import ADDRESS, ROOT, Lab, Machine

NAMES = ("node01", "node02")
IMAGE = "debian"
BUILD_SECONDS = 1200  # mmdebstrap on a slow line
INSTALL_SECONDS = 420  # emulated processors, two machines on two cores


def main(argv: list[str]) -> int:
    """0 only if both installed systems called home from their own disk with their own name and address."""
    parser = argparse.ArgumentParser(prog="build.py demo", description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="write the facts as JSON")
    parser.add_argument("--keep", action="store_true", help="leave the lab running at the end, until Ctrl-C")
    options = parser.parse_args(argv)
    with Lab(state=ROOT / ".build" / "demo", keep_images=True) as lab:
        debian(lab)
        lab.head()
        machines = [lab.machine(f"demo{n}", firmware="bios", disk_size="6G") for n in (1, 2)]
        begun = time.monotonic()
        for machine in machines:
            machine.start()
        say("two blank machines are switched on; they ask for an address, load the installer, and wait")
        lab.wait(lambda: states(lab).count("waiting") == 2 and hello(lab), 180, "two machines in the waiting room")
        lab.gild("node", "approve", "--all", "--profile", "default")
        say("approved; one order each, as `gild.pyz node install node[01-02]` gives it")
        lab.gild("node", "install", *NAMES, "--image", IMAGE, "--yes")
        follow(lab, machines)
        rows = [lab.gild("node", "show", name, "--json") for name in NAMES]
        ok = report(rows, machines, time.monotonic() - begun)
        if options.json:
            Path(options.json).write_text(json.dumps({"ok": ok, "nodes": facts(rows)}, indent=2) + "\n")
        if options.keep:
            keep(lab, machines)
    return 0 if ok else 1


def debian(lab: Lab) -> None:
    """Build the image from the recipe in the file, unless an earlier run has left it. Others may stand beside it, so
    orders name it."""
    if any(row["image"] == IMAGE for row in lab.gild("image", "list", "--json")):
        return
    recipe = lab.folder / "debian.toml"
    recipe.write_text(lab.gild("image", "recipe", "debian", text=True))
    say("building a Debian image from the recipe in the file (once)")
    lab.gild("image", "build", str(recipe), "--name", IMAGE, text=True, timeout=BUILD_SECONDS, show=True)


def states(lab: Lab) -> list[str]:
    """The states of all nodes."""
    return [row["state"] for row in lab.gild("node", "list", "--json")]


def hello(lab: Lab) -> bool:
    """Whether every machine's agent has shown its hardware."""
    return all(row["machine"] for row in lab.gild("node", "list", "--json"))


def follow(lab: Lab, machines: list[Machine]) -> None:
    """Until both are up or one has failed: a line for every step, a bar on a terminal."""
    last: dict[str, str] = {}

    def done() -> bool:
        rows = {row["name"]: row for row in lab.gild("node", "list", "--json")}
        bars = []
        for name in NAMES:
            row = rows[name]
            step = row["phase"] if row["state"] == "installing" else row["state"]
            if last.get(name) != step:
                last[name] = step
                say(f"{name}: {step}" + (f" ({row['reason']})" if row["reason"] else ""))
            share = row["done"] / row["total"] if row["state"] == "installing" and row["total"] else 0.0
            bars.append(f"{name} {step:<12} {'█' * round(share * 20):░<20} {share:4.0%}")
        if sys.stdout.isatty():
            print("  " + "   ".join(bars), end="\r", flush=True)
        return all(rows[name]["state"] in ("up", "failed", "lost") for name in NAMES)

    lab.wait(done, INSTALL_SECONDS, "both machines up", every=1.0)


def facts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is written to --json, a node each."""
    return [
        {
            "name": row["name"],
            "address": row["address"],
            "image": row["image"],
            "state": row["state"],
            "disk": row["disk"].partition(" (")[0],
            "firmware": row["firmware"],
            "seconds": {key: row["seconds_to"].get(key) for key in ("hello", "written", "up")},
        }
        for row in rows
    ]


def report(rows: list[dict[str, Any]], machines: list[Machine], seconds: float) -> bool:
    """The table at the end; True if everything is as it should be."""
    print()
    print(f"{'node':<8} {'address':<13} {'image':<10} {'disk':<34} {'hello':>7} {'written':>8} {'up':>7}  state")
    for row in facts(rows):
        spent = [f"{value:.0f} s" if value is not None else "-" for value in row["seconds"].values()]
        print(
            f"{row['name']:<8} {row['address']:<13} {row['image']:<10} {row['disk'][:34]:<34} "
            f"{spent[0]:>7} {spent[1]:>8} {spent[2]:>7}  {row['state']}"
        )
    ok = all(row["state"] == "up" and row["home"].get("hostname") == row["name"] for row in rows)
    ok = ok and all(row["address"] in row["home"].get("address", "").split() for row in rows)
    ok = ok and len({row["address"] for row in rows}) == len(rows)
    print("hello: since power-on; written, up: since the order")
    print(f"\n{'both are up' if ok else 'NOT both are up'}, {seconds:.0f} s after they were switched on")
    if not ok:
        for row, machine in zip(rows, machines, strict=True):
            print(f"\n{row['name']}: {row['state']} {row['reason']}\n{machine.console_tail()}")
    return ok


def keep(lab: Lab, machines: list[Machine]) -> None:
    """Tell how to look at the lab, and wait for Ctrl-C."""
    print("\nThe lab is kept; Ctrl-C ends it. In another terminal:")
    print(f"  {lab.command('watch')}")
    print(f"  {lab.command('node', 'log', NAMES[0])}")
    for machine in machines:
        print(f"  tail -f {machine.console}    # the console of {machine.name}")
    print(f"  ip netns exec {lab.namespace} dig @{ADDRESS} {NAMES[0]}.cluster.internal")
    try:
        while True:
            time.sleep(1)
    except KeyboardInterrupt:
        print()


def say(line: str) -> None:
    """One line of the story."""
    print(f"\033[2K{line}" if sys.stdout.isatty() else line, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
