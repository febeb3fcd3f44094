"""gild cluster hosts, slurm, pbs, sge, ansible, genders"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from appliance.cli import show
from appliance.cli.main import Site
from appliance.cli.selecting import JSON
from appliance.cluster import munge
from appliance.cluster.ansible import listing
from appliance.cluster.apply import Here, apply
from appliance.cluster.change import Change
from appliance.cluster.inventory import Inventory, from_json
from appliance.cluster.services import ASKED, SERVICES, Wanted
from appliance.cluster.slurm import PARTITIONS
from appliance.errors import Wrong

Decorated = Callable[..., Any]


def options(command: Decorated) -> Decorated:
    """What all of these verbs take."""
    for option in (
        click.pass_obj,
        click.option("--root", type=click.Path(path_type=Path), default="/", metavar="DIR",
                     help="The system below DIR instead of this one; no command is run."),
        click.option("--nodes", "refs", multiple=True, metavar="NODES", help="These nodes alone, as @profile:compute."),
        click.option("--take", is_flag=True, help="Overwrite gild's lines where somebody has changed them."),
        JSON,
        click.option("--dry-run", "--preview", "dry_run", is_flag=True, help="Only show what would change."),
    ):  # fmt: skip
        command = option(command)
    return command


def conf(path: str) -> Callable[[Decorated], Decorated]:
    """The option that names another file than `path`."""
    return click.option("--conf", metavar="FILE", default="", help=f"Another file than {path}.")


@click.command("hosts")
@conf("/etc/hosts")
@options
def hosts(site: Site, /, conf: str, **how: Any) -> None:
    """Names and addresses of the nodes in /etc/hosts."""
    _tell(site, "hosts", Wanted(_absolute(conf)), **how)


@click.command("slurm")
@conf("/etc/slurm/slurm.conf")
@click.option("--partitions", type=click.Choice(PARTITIONS), default="auto", show_default=True,
              help="One for each profile or group; auto: by profile, unless slurm.conf has its own.")  # fmt: skip
@click.option("--restart", metavar="COMMAND", default="", help="Restarts slurmctld where systemd does not run.")
@click.option("--dynamic", is_flag=True, help="Nodes join by themselves (slurmd -Z): only forgotten ones are removed.")
@click.option("--munge-key", is_flag=True, help="Make munge's key, if there is none, and tell how nodes get it.")
@options
def slurm(
    site: Site, /, conf: str, partitions: str, restart: str, dynamic: bool, munge_key: bool, **how: Any
) -> None:  # fmt: skip
    """Nodes and partitions of Slurm, and its restart.

    The lines stand in gild-nodes.conf beside slurm.conf, which includes it. Where there is no slurm.conf, one is
    written, for nodes that have none.
    """
    if munge_key:
        return _munge_key(how["root"])
    return _tell(site, "slurm", Wanted(_absolute(conf), partitions, dynamic, restart), **how)


@click.command("pbs")
@options
def pbs(site: Site, /, **how: Any) -> None:
    """Nodes of OpenPBS, by qmgr."""
    _tell(site, "pbs", Wanted(), **how)


@click.command("sge")
@click.option("--queue", default="all.q", show_default=True, help="The queue that gets the group @gild.")
@options
def sge(site: Site, /, queue: str, **how: Any) -> None:
    """Hosts of Grid Engine, by qconf."""
    _tell(site, "sge", Wanted(queue=queue), **how)


@click.command("ansible")
@conf("/etc/ansible/hosts")
@click.option("--list", "list_", is_flag=True, help="Print the JSON of a dynamic inventory instead.")
@options
def ansible(site: Site, /, conf: str, list_: bool, **how: Any) -> None:
    """An inventory for ansible."""
    if list_:
        return show.as_json(listing(_inventory(site, how["refs"])))
    return _tell(site, "ansible", Wanted(_absolute(conf)), **how)


@click.command("genders")
@conf("/etc/genders")
@click.option("--groups", metavar="FILE", default="", help="ClusterShell's file; else in its groups.d, if it is here.")
@options
def genders(site: Site, /, conf: str, groups: str, **how: Any) -> None:
    """Genders for pdsh, and groups for ClusterShell."""
    wanted = Wanted(_absolute(conf))
    _tell(site, "genders", wanted if not groups else Wanted(wanted.conf, groups=_absolute(groups)), **how)


def _absolute(path: str) -> str:
    return str(Path(path).absolute()) if path else ""


def _inventory(site: Site, refs: tuple[str, ...]) -> Inventory:
    return from_json(site.client.get("inventory", refs=list(refs) or None))


def _tell(
    site: Site, service: str, wanted: Wanted, *, dry_run: bool, json_: bool, take: bool, refs: tuple[str, ...],
    root: Path,
) -> None:  # fmt: skip
    here = Here(root.absolute())
    if service in ASKED and not here.live:
        raise Wrong(f"{service} is told by commands, on a machine that runs", "leave --root away")
    change = SERVICES[service](_inventory(site, refs), here, wanted)
    if not dry_run and change.needed:
        apply(change, here, take)
    if json_:
        return show.as_json({**change.row(), "done": change.needed and not dry_run})
    return _print(change, here, dry_run)


def _print(change: Change, here: Here, dry_run: bool) -> None:
    for note in change.notes:
        print(f"note: {show.plain(note)}")
    if not change.needed:
        print(f"{change.name}: nothing to do")
        return
    for file in change.files:
        if file.changed and dry_run:
            print("".join(f"{show.plain(line)}\n" for line in file.diff().splitlines()), end="")
            if file.edited:
                print(f"{file.path}: somebody has changed gild's lines by hand; --take overwrites them")
        elif file.changed:
            print(f"{here.path(file.path)} written")
    for command in change.commands if here.live else ():
        print(f"{'would run' if dry_run else 'ran'}: {show.plain(command.text)}")


def _munge_key(root: Path) -> None:
    path, made = munge.key(root.absolute())
    print(f"{path} {'is made' if made else 'is there'}")
    print(f"its nodes get it with: gild.pyz secret set munge.key --profile PROFILE {path}\nsee: gild.pyz help cluster")
