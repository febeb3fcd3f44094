"""gild hook: programs that are told what happens to nodes."""

from __future__ import annotations

import json
import threading

import click

from appliance import hooks
from appliance.cli import show
from appliance.cli.main import Noun, Site
from appliance.cli.selecting import JSON
from appliance.errors import Unknown, Wrong


@click.group("hook", cls=Noun)
def command() -> None:
    """Programs of your own that are told what happens to nodes.

    An executable in STATE/hooks.d is run at every event, one in STATE/hooks.d/EVENT at that one. See: help hooks.
    """


@command.command("list")
@JSON
@click.pass_obj
def list_(site: Site, /, json_: bool) -> None:
    """All hooks in the order in which they are run."""
    found = hooks.found(site.paths.hooks)
    rows = [
        {"name": hook.name, "event": hook.event or "all", "path": str(hook.path), "problem": hook.problem}
        for hook in found
    ]
    if json_:
        return show.as_json({"hooks": rows, "events": hooks.EVENTS})
    show.table(
        ["hook", "at", ""],
        [[show.safe(row["name"]), row["event"], f"[red]not run: {row['problem']}[/]" if row["problem"] else ""]
         for row in rows],
        f"there is no hook in {site.paths.hooks}",
    )  # fmt: skip
    print(f"\nevents: {', '.join(hooks.EVENTS)}")
    return None


@command.command("run")
@click.argument("event")
@click.argument("node")
@click.option("--only", metavar="HOOK", help="This one alone, by its name in the list.")
@click.pass_obj
def run(site: Site, /, event: str, node: str, only: str | None) -> None:
    """Run the hooks of EVENT here and now, as if it had happened to NODE."""
    message = site.client.get("hooks", event, node)
    chosen = [hook for hook in hooks.found(site.paths.hooks) if hook.event in ("", event) and not hook.problem]
    if only is not None:
        chosen = [hook for hook in chosen if hook.name == only]
    if not chosen:
        raise Unknown(f"there is no hook for {event}", "see: gild.pyz hook list")
    failed = 0
    for hook in chosen:
        told = json.dumps(message).encode()
        outcome = hooks.run_hook(hook, event, told, threading.Event(), state=str(site.paths.state))
        for line in outcome.lines:
            print(f"{hook.name}: {show.plain(line)}")
        print(f"{hook.name}: {outcome.why or 'done'} after {outcome.seconds:.1f} s")
        failed += bool(outcome.why)
    if failed:
        raise Wrong(f"{failed} of {len(chosen)} failed")
