"""gild cluster test"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from appliance.acceptance.checks import FAIL, NAMES, NONE, PASS, Target
from appliance.cli import show
from appliance.cli.main import Site
from appliance.cli.selecting import JSON

if TYPE_CHECKING:
    from appliance.acceptance.report import Report

COLOURS = {PASS: "green", FAIL: "bold red", NONE: "bright_black", "": "default"}
SKIPPED = tuple(name for name in NAMES if name != "reach")


@click.command("test")
@click.argument("nodes", nargs=-1)
@click.option("--key", metavar="FILE", help="The private key to log in with; else root's own and the agent's.")
@click.option("--skip", multiple=True, type=click.Choice(SKIPPED), metavar="CHECK",
              help=f"A check to leave out; repeatable: {', '.join(SKIPPED)}.")  # fmt: skip
@JSON
@click.pass_context
def command(ctx: click.Context, /, nodes: tuple[str, ...], key: str | None, skip: tuple[str, ...], json_: bool) -> None:
    """Whether the nodes work as a cluster.

    All that are up, or the named ones.

    Over ssh, many at a time: name, address, image, clock, hardware, services, DNS, the speed of disk and network
    beside the other nodes of the profile, logins from node to node, MPI and a scheduler's job where there are any.
    Nothing is changed on the nodes. The exit code is 1 if anything failed.
    """
    from appliance.acceptance.login import logins
    from appliance.acceptance.run import Examination

    site: Site = ctx.obj
    known = site.client.get("acceptance", refs=list(nodes) or None)
    targets = [Target(**{**row, "host_keys": tuple(row["host_keys"])}) for row in known["nodes"]]
    with logins(targets, key) as login, show.progress("test") as say:
        report = Examination(targets, known["domain"], known["head"], login, skip, say).run()
    if json_:
        show.as_json(report.as_dict())
    else:
        _show(report)
    if report.failed:
        ctx.exit(1)


def _show(report: Report) -> None:
    titles, rows = report.table()
    show.table(titles, [[f"[{COLOURS[word]}]{show.safe(text)}[/]" for word, text in row] for row in rows], "")
    from rich.console import Console

    console = Console(highlight=False, emoji=False, soft_wrap=True)
    print()
    for name, one in report.failures():
        console.print(f"[red]✖[/] [bold]{show.safe(name)}[/] {show.safe(one.text)}")
        if one.fix:
            console.print(f"  → {show.safe(one.fix)}")
    for note in report.notes():
        console.print(f"[bright_black]· {show.safe(note)}[/]")
    count, failed = len(report.targets), len(report.failed)
    word = "node" if count == 1 else "nodes"
    print(f"{failed} of {count} {word} failed" if failed else f"{count} {word} passed")
