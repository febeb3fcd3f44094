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
@click.argument("name")
@click.option("--node", default="", metavar="NODE", help="The node it is told of; else one that does not exist.")
@click.option(
    "--event", type=click.Choice(tuple(hooks.EVENTS)), metavar="EVENT", help="For a hook of all events; else: changed."
)
@click.pass_obj
def run(site: Site, /, name: str, node: str, event: str | None) -> None:
    """Try out a hook, or all that are run at the event NAME."""
    chosen, event = _chosen(hooks.found(site.paths.hooks), name, event)
    message = json.dumps(site.client.get("hooks", event, *([node] if node else []))).encode()
    failed = 0
    for hook in chosen:
        outcome = hooks.run_hook(hook, event, message, threading.Event(), state=str(site.paths.state))
        for line in outcome.lines:
            print(f"{hook.name}: {show.plain(line)}")
        print(f"{hook.name}: {outcome.why or 'done'} after {outcome.seconds:.1f} s")
        failed += bool(outcome.why)
    if failed:
        raise Wrong(f"{failed} of {len(chosen)} failed")


def _chosen(found: list[hooks.Hook], name: str, event: str | None) -> tuple[list[hooks.Hook], str]:
    """Which hooks, and what for. Raises Unknown, Wrong."""
    if name in hooks.EVENTS:
        chosen, event = [hook for hook in found if hook.event in ("", name) and not hook.problem], name
    else:
        chosen = [hook for hook in found if hook.name == name]
    if not chosen:
        raise Unknown(f"there is no hook {name}", "see: gild.pyz hook list")
    at = chosen[0].event if len(chosen) == 1 else ""
    if event and at and event != at:
        raise Wrong(f"{name} is run at {at} alone", "leave --event away")
    return chosen, event or at or "changed"
