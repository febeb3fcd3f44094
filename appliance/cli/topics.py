"""gild help: the manual inside the file, since the site has no Internet."""

from __future__ import annotations

import json

import click

from appliance.bundled import read
from appliance.cli import show
from appliance.config import SETTINGS
from appliance.errors import EXIT_CODES, Unknown

# Topic -> its first line; the text lies in appliance/help/TOPIC.md.
TOPICS = {
    "start": "from a fresh head node to the first installed machine",
    "wizard": "all of it step by step, with or without a person",
    "images": "ways to make an image, to change it and to keep it",
    "recipes": "an image from packages, without a golden client",
    "capture": "an image from a machine that was set up by hand",
    "carry": "images from head to head, and mending damage",
    "nodes": "waiting room, approval, orders, what each state means",
    "profiles": "what a kind of node gets: disk, layout, files, secrets, scripts",
    "rolling": "reinstalling many nodes: at night, so many at a time, drained first",
    "hooks": "programs of your own that are told what happens to nodes",
    "cluster": "hosts file, Slurm, Grid Engine, OpenPBS, ansible: who else knows the nodes",
    "boot": "what happens between power-on and up; firmware, your own boot files",
    "networks": "more interfaces, relays, what machines are told by DHCP",
    "proxy": "beside another DHCP server that gives the addresses",
    "dns": "names of nodes and of others",
    "doctor": "before it serves: what is wrong with this machine, who else is on the wire",
    "test": "whether the nodes work as a cluster, and who is slow",
    "power": "switching machines on and off from here: wake, IPMI, Redfish",
    "trouble": "a machine does not come up: where to look",
    "record": "logs, one file about a node, statistics, who asked for what",
    "safety": "who may do what, and what is never done without an order",
    "upkeep": "a service at boot; backup, restore, a newer gild.pyz",
    "settings": "every setting, its flag, variable and default",
    "exit-codes": "what a script can read from the exit status",
    "components": "everything bundled in this file, with version, licence and sha256",
}
# Topic -> words under which people look for it.
WORDS = {
    "boot": "firmware pxe uefi",
    "cluster": "slurm services pbs sge ansible genders",
    "components": "licences licenses",
    "doctor": "probe",
    "images": "image",
    "networks": "network relay dhcp",
    "nodes": "node install approve rule rules group groups lldp conflict",
    "hooks": "hook",
    "power": "bmc ipmi redfish wake",
    "profiles": "profile layout secret secrets",
    "recipes": "recipe",
    "record": "log watch audit stats export",
    "rolling": "job jobs drain",
    "start": "serve",
    "upkeep": "service backup restore upgrade",
}


@click.command("help")
@click.argument("topic", required=False)
@click.option("--json", "json_", is_flag=True, help="Components as JSON.")
def command(topic: str | None, json_: bool) -> None:
    """The manual: all topics, or one."""
    if topic is None:
        show.table(["topic", "what it tells"], [[name, text] for name, text in TOPICS.items()], "")
        print("\ngild.pyz help TOPIC, or gild.pyz COMMAND --help")
        return
    if topic not in TOPICS:
        topic = next((name for name, words in WORDS.items() if topic in words.split()), topic)
    if topic not in TOPICS:
        from difflib import get_close_matches

        near = get_close_matches(topic, TOPICS, 1)
        raise Unknown(f"there is no topic {topic!r}", f"did you mean {near[0]!r}?" if near else "see: gild.pyz help")
    if topic == "settings":
        _settings()
    elif topic == "exit-codes":
        _exit_codes()
    elif topic == "components":
        _components(json_)
    else:
        print(read(f"appliance/help/{topic}.md").decode(), end="")


def _settings() -> None:
    print(
        "A setting is a flag of `serve`, a variable, and a key of STATE/gild.toml. The flag wins, then the variable.\n"
    )
    rows = [
        [s.name, "--" + s.name.replace("_", "-"), f"GILD_{s.name.upper()}", str(s.default), s.help] for s in SETTINGS
    ]
    show.table(["setting", "flag", "variable", "default", "meaning"], rows, "")


def _exit_codes() -> None:
    meanings = {0: "success", 2: "the command line is wrong"}
    for _, code, meaning in EXIT_CODES:
        meanings.setdefault(code, meaning)
    show.table(["code", "meaning"], [[str(code), meanings[code]] for code in sorted(meanings)], "")


def _components(json_: bool) -> None:
    rows = json.loads(read("components.json"))
    if json_:
        return show.as_json(rows)
    return show.table(
        ["component", "version", "licence", "sha256"],
        [[row["name"], row["version"], row["licence"], row["sha256"][:16]] for row in rows],
        "this is a source checkout; the list is made with the file: python3 build.py app",
    )
