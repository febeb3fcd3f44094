"""gild wizard"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from appliance.cli import show
from appliance.cli.main import Site
from appliance.errors import Wrong

if TYPE_CHECKING:
    from appliance.wizard.engine import Answers, Step
    from appliance.wizard.facts import Facts


@click.command("wizard")
@click.option("--step", metavar="STEP", help="Begin there: check, network, image, packages, nodes, install, services or"
              " test; otherwise where something is open.")  # fmt: skip
@click.option("--print", "print_", is_flag=True, help="Only print the answers so far, as a file for --answers.")
@click.option("--status", is_flag=True, help="Only tell where each step stands.")
@click.option("--json", "json_", is_flag=True, help="With --status, for scripts.")
@click.option("--answers", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              help="Answers from a TOML file; those that were kept count for the steps it does not name.")  # fmt: skip
@click.option("--yes", is_flag=True, help="Ask nothing; it stops before anything is erased.")
@click.option("--erase", type=click.IntRange(min=1), metavar="N", help="With --yes: exactly N disks may be erased.")
@click.option("--wait", default=1800, show_default=True, type=click.IntRange(min=0), metavar="SECONDS",
              help="With --yes: how long machines may take in one step.")  # fmt: skip
@click.option("--until", metavar="STEP", help="With --yes: the last step that is done.")
@click.option("--plain", is_flag=True, help="ASCII signs only.")
@click.pass_obj
def command(
    site: Site, /, answers: Path | None, print_: bool, status: bool, json_: bool, yes: bool, **said: Any
) -> None:
    """From a fresh head to a working cluster, step by step.

    Each step shows what it will do and the command that does the same; leave at any time, it goes on where it was.
    """
    from appliance.wizard import answers as files
    from appliance.wizard.gather import Look
    from appliance.wizard.steps import kept, offered, place, validated

    if not yes and (said["erase"] is not None or said["until"] is not None):
        raise Wrong(f"--{'erase' if said['erase'] is not None else 'until'} is for --yes", "without it you are asked")
    given = files.load(answers) if answers is not None else {}
    known = {**files.load(site.paths.wizard), **given}
    look = Look(site)
    facts = look.facts(known)
    validated(facts, given)
    known = kept(facts, known)
    steps = offered(facts)
    begin = place(said["step"], steps) if said["step"] is not None else None
    until = place(said["until"], steps) if said["until"] is not None else len(steps) - 1
    if print_:
        print(files.template(steps, facts, known), end="")
    elif status:
        look.doctor()
        _told(steps, look.facts(known), known, json_)
    elif yes:
        from appliance.wizard.unattended import Unattended

        Unattended(site, steps, known, erase=said["erase"], wait=said["wait"], until=until).run()
    else:
        from appliance.wizard.terminal import Conversation

        Conversation(site, steps, known, plain=said["plain"] or _simple()).run(begin)


def _told(steps: Sequence[Step], facts: Facts, answers: Answers, json_: bool) -> None:
    from appliance.wizard.engine import open_list

    if not json_:
        return print("\n".join(open_list(steps, facts, answers, plain=_simple())))
    rows = [(step, step.status(facts, answers)) for step in steps]
    return show.as_json(
        [{"step": step.name, "title": step.title, "status": found.word, "why": found.why} for step, found in rows]
    )


def _simple() -> bool:
    """Whether the screen may know ASCII alone."""
    return os.environ.get("TERM", "dumb") == "dumb" or "utf" not in (sys.stdout.encoding or "").lower()
