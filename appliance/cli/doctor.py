"""gild doctor"""

from __future__ import annotations

import os
from dataclasses import asdict

import click

from appliance.cli import show
from appliance.cli.main import Site
from appliance.errors import Environment
from images.errors import GildError

SIGNS = {"ok": "[green]✓[/]", "note": "[cyan]·[/]", "warning": "[yellow]![/]", "error": "[red]✖[/]"}


@click.command("doctor")
@click.option("--interface", metavar="NAME", help="Network interface the nodes are on; else what gild.toml names.")
@click.option("--json", "json_", is_flag=True, help="For scripts.")
@click.pass_obj
def command(site: Site, /, interface: str | None, json_: bool) -> None:
    """What keeps this machine from serving, and how to mend it.

    Nothing is changed. On a named interface one DHCP question is asked, and once more, to find other servers; none
    is asked elsewhere. The exit code is 0 if nothing is an error, 5 otherwise.
    """
    from appliance.doctor import diagnose
    from appliance.doctor_facts import gather

    try:
        serving = int(site.client.get("status")["pid"])
    except GildError:
        serving = 0
    findings = diagnose(gather(site.paths, os.environ, {"interface": interface}, serving))
    if json_:
        show.as_json([asdict(finding) for finding in findings])
    else:
        from rich.console import Console

        console = Console(highlight=False, emoji=False, soft_wrap=True)
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            console.print(f"{SIGNS[finding.level]} [bold]{finding.name:<{width}}[/]  {show.safe(finding.found)}")
            if finding.fix:
                console.print(f"  {'':<{width}}  → {show.safe(finding.fix)}")
    errors = sum(finding.level == "error" for finding in findings)
    if errors:
        raise Environment(f"{errors} {'thing keeps' if errors == 1 else 'things keep'} this machine from serving")
