"""gild node tell"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from appliance.acceptance.checks import Target
from appliance.cli import show
from appliance.cli.main import Site
from appliance.cli.selecting import JSON, YES
from images.errors import CommandFailed, GildError

if TYPE_CHECKING:
    from appliance.acceptance.login import Login
    from appliance.telling import Changes

AT_ONCE = 16  # logins


@dataclass
class _Asked:
    """One node: where it was found, what it lacks; or why nothing is known of it."""

    row: dict[str, Any]
    target: Target | None = None
    made: Changes | None = None
    trouble: str = ""
    told: bool = False

    @property
    def name(self) -> str:
        return str(self.row["name"])

    @property
    def lacks(self) -> bool:
        return self.made is not None and bool(self.made.lines)

    def shown(self) -> dict[str, Any]:
        made = self.made
        return {
            "node": self.name, "at": self.target.address if self.target else "", "trouble": self.trouble,
            "changes": list(made.lines) if made else [], "files": [*made.written, *made.removed] if made else [],
            "told": self.told,
        }  # fmt: skip


@click.command("tell")
@click.argument("nodes", nargs=-1, required=True)
@click.option("--key", metavar="FILE", help="The private key to log in with; else root's own and the agent's.")
@click.option("--preview", "--dry-run", "preview", is_flag=True, help="Only show what would change.")
@click.option("--no-restart", is_flag=True, help="Write it, and let them go on until somebody restarts them.")
@YES
@JSON
@click.pass_context
def command(
    ctx: click.Context, /, nodes: tuple[str, ...], key: str | None, preview: bool, no_restart: bool, yes: bool,
    json_: bool,
) -> None:  # fmt: skip
    """Tell running systems their new name and address.

    After node set --name or --address: over ssh, at the address they have now, the files that say who a system is are
    written as an installation would write them, and it restarts. Nothing else on its disk is touched.
    """
    from appliance.acceptance.login import logins

    site: Site = ctx.obj
    asked = [_Asked(row) for row in site.client.get("telling", refs=list(nodes))]
    targets = [Target(each.name, each.row["address"], host_keys=tuple(each.row["host_keys"])) for each in asked]
    with logins(targets, key) as login:
        _each(asked, "asking", lambda each: _look(login, each))
        if not json_:
            _table(asked)
        todo = [each for each in asked if each.lacks]
        if todo and not preview:
            what = "write this" if no_restart else f"write this and restart {', '.join(each.name for each in todo)}"
            show.ask(f"{what[0].upper()}{what[1:]}?", yes)
            _each(todo, "telling", lambda each: _tell(site, login, each, not no_restart))
    if json_:
        show.as_json([each.shown() for each in asked])
    else:
        for each in asked:
            if each.told:
                print(f"{each.name} was told" + ("" if no_restart else " and restarts"))
            elif each.trouble and each.made is not None:
                print(f"{each.name}: {show.safe(each.trouble)}")
    if any(each.trouble for each in asked):
        ctx.exit(1)


def _each(asked: list[_Asked], phase: str, work: Any) -> None:
    with show.progress("tell") as say, ThreadPoolExecutor(AT_ONCE, "tell") as pool:
        for count, _ in enumerate(pool.map(work, asked), 1):
            say(phase, count, len(asked))


def _look(login: Login, each: _Asked) -> None:
    """Find the system, where it is to be or where it was, and what it lacks. Its host key tells that it is the node."""
    from appliance import telling
    from appliance.acceptance import checks
    from appliance.acceptance.script import Told

    row = each.row
    if not row["host_keys"]:
        each.trouble = "it has no host key that this head knows, so nobody can tell whether it is the node"
        return
    for address in row["addresses"]:
        target = Target(each.name, address, host_keys=tuple(row["host_keys"]))
        try:
            stale = [other for other in row["addresses"] if other != row["address"]]
            each.made, each.target = telling.look(login, target, row["edits"], stale), target
        except CommandFailed as error:
            # In the words of `cluster test`, which knows what ssh means.
            text = checks.login(target, Told({}, error.message)).text
            each.trouble += f"{'; ' if each.trouble else ''}at {address} {text}"
        except GildError as error:
            each.trouble = error.message
            return
        else:
            each.trouble = ""
            return


def _tell(site: Site, login: Login, each: _Asked, restart: bool) -> None:
    from appliance import telling

    assert each.target is not None and each.made is not None
    try:
        each.trouble = telling.tell(login, each.target, each.made, restart=restart)
    except GildError as error:
        each.trouble = error.message
    if not each.trouble:
        each.told = True
        site.client.post("telling", node=each.name, lines=list(each.made.lines), restarts=restart)


def _table(asked: list[_Asked]) -> None:
    show.table(
        ["node", "found at", "what changes"],
        [
            [each.name, each.target.address if each.target else "", show.safe(each.trouble or _changes(each))]
            for each in asked
        ],
        "",
    )


def _changes(each: _Asked) -> str:
    return "; ".join(each.made.lines) if each.made and each.lacks else "nothing: it knows"
