"""gild cluster drain and resume: no new work for nodes, and work again."""

from __future__ import annotations

import click

from appliance.cli.main import Site
from appliance.cluster.scheduler import KINDS, Scheduler, found
from appliance.errors import Environment

NODES = click.argument("nodes", nargs=-1, required=True)
BY = click.option("--by", type=click.Choice(tuple(KINDS)), help="The scheduler; else the one that is installed here.")


@click.command("drain")
@NODES
@BY
@click.pass_obj
def drain(site: Site, /, nodes: tuple[str, ...], by: str | None) -> None:
    """Give nodes no new work; tell who is still busy."""
    names, scheduler = _names(site, nodes), _scheduler(by)
    scheduler.drain(names)
    busy = sorted(scheduler.busy(names))
    print(f"{len(names)} drained" + (f"; still at work: {', '.join(busy)}" if busy else ", none at work"))


@click.command("resume")
@NODES
@BY
@click.pass_obj
def resume(site: Site, /, nodes: tuple[str, ...], by: str | None) -> None:
    """Give nodes that were drained by gild back to the scheduler."""
    names = _names(site, nodes)
    _scheduler(by).resume(names)
    print(f"{len(names)} given back")


def _names(site: Site, nodes: tuple[str, ...]) -> list[str]:
    return [row["name"] for row in site.client.get("nodes", refs=list(nodes)) if row["name"]]


def _scheduler(by: str | None) -> Scheduler:
    scheduler = found([by] if by else [])
    if scheduler is None:
        raise Environment("no scheduler is installed on this machine", f"which one is it? --by {'|'.join(KINDS)}")
    return scheduler
