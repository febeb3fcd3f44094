"""gild image edit: change a version by hand, by a command, by copied files, or by other tools on a mounted copy."""

from __future__ import annotations

import shlex
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from appliance.cli import show
from appliance.cli.image_show import published
from appliance.cli.main import Site
from appliance.errors import Wrong
from images.errors import CommandFailed
from images.options import Options

if TYPE_CHECKING:
    from images.editing.edit import Look, Session
    from images.publish import Part

SHOWN = 12  # changes that are shown before the question
TRIES = 20  # answers that are none, before the question is given up: the terminal is gone


@click.command("edit")
@click.argument("ref")
@click.argument("command", nargs=-1)
@click.option("--message", "-m", default="", help="What is new in this version.")
@click.option("--copy", "copies", metavar="SRC:DST", multiple=True, help="Copy a file or directory into the image.")
@click.option("--preserve", is_flag=True, help="With --copy: keep owners and extended attributes.")
@click.option("--keep", is_flag=True, help="Publish even if COMMAND fails.")
@click.option("--mount", metavar="DIR", help="Mount a copy on DIR for other tools.")
@click.option("--publish", is_flag=True, help="Publish what --mount has opened.")
@click.option("--discard", is_flag=True, help="Throw away what --mount has opened.")
@click.option("--tag", is_flag=True, help="Nodes get the new version from now on.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def edit(site: Site, /, ref: str, command: tuple[str, ...], **said: Any) -> None:
    """Change a version and publish the result as the next one.

    REF is NAME (its newest version) or NAME:NUMBER. Opens a shell in the image; or runs what follows --, for instance:
    image edit compute -- apt-get install -y hwloc.
    """
    ways = [word for word in ("mount", "publish", "discard") if said[word]]
    if len(ways) + bool(command or said["copies"]) > 1:
        raise Wrong(f"--{ways[0]} goes with no other way to edit", "one at a time; see: gild.pyz image edit --help")
    if said["mount"]:
        return _mount(site, ref, Path(said["mount"]))
    if said["publish"]:
        return _publish(site, ref, said["message"], said["tag"])
    if said["discard"]:
        return _discard(site, ref, said["yes"])
    return _edit(site, ref, command, said)


def _edit(site: Site, ref: str, command: tuple[str, ...], said: dict[str, Any]) -> None:
    from images.editing.edit import edit_session, newest

    copies = [_copy(text) for text in said["copies"]]
    by_hand = not command and not copies
    if by_hand and not said["yes"] and not sys.stdin.isatty():
        raise Wrong("a shell needs a terminal", "give a command after --, copy files with --copy, or add --yes")
    name, number = newest(site.store, ref)
    print(f"edit: opening {name}:{number}", file=sys.stderr)
    source: dict[str, Any] = {"kind": "edit"}
    if command:
        source["command"] = list(command)
    if copies:
        source["copies"] = [[str(path), target] for path, target in copies]
    looked: list[Look] = []
    with ExitStack() as stack:

        def work(session: Session) -> Options | None:
            _unmounted(session.left)
            if by_hand:
                print(f"This is {name}:{number}, in a private copy. exit ends the shell, and asks what becomes of it.")
            for path, target in copies:
                session.copy(path, target, preserve=said["preserve"])
            while True:
                if command or by_hand:
                    _run(session, command, said["keep"])
                print("edit: looking for what was changed", file=sys.stderr)
                looked[:] = [session.look()]
                if looked[0].nothing:
                    return None
                _show(looked[0])
                answer = "p" if said["yes"] or not by_hand else _asked(said["message"])
                if answer == "t":
                    return None
                if answer != "b":
                    break
            message = said["message"] or answer[1:].strip() or _told(command, copies)
            progress = stack.enter_context(show.progress("edit"))
            return Options(message=message, tag=said["tag"], progress=progress)

        manifest = edit_session(site.store, f"{name}:{number}", work, source)
    if manifest is not None:
        published(site, manifest.ref)
    elif looked[0].nothing:
        print(f"nothing was changed in {name}:{number}: there is no new version")
    else:
        print("thrown away; no version was changed")


def _run(session: Session, command: tuple[str, ...], keep: bool) -> None:
    code = session.shell(command)
    if command and code and not keep:
        raise CommandFailed(
            f"{plain(shlex.join(command))[:200]} ended with exit code {code}: nothing was kept",
            "mend it, or add --keep to publish all the same",
        )


def _copy(text: str) -> tuple[Path, str]:
    source, colon, target = text.rpartition(":")
    if not colon or not source or not target.startswith("/"):
        raise Wrong(f"{text!r} is not SRC:DST", "for instance --copy motd:/etc/motd")
    if not Path(source).exists():
        raise Wrong(f"there is no {source} to copy", "give a file or a directory of this machine")
    return Path(source).absolute(), target


def _show(look: Look) -> None:
    if not look.known:
        return print("what was changed cannot be told: the version before cannot be mounted beside it")
    print(f"{look.changed} changed, {look.added} added, {look.removed} removed")
    signs = {"added": "+", "removed": "-", "changed": "~"}
    for change in look.first[:SHOWN]:
        what = f"  ({', '.join(change.what)})" if change.what else ""
        print(plain(f"  {signs[change.how]} {change.path}{what}"))
    more = look.changed + look.added + look.removed - SHOWN
    if more > 0:
        print(f"  and {more} more")
    return None


def plain(text: str) -> str:
    """Text out of an image for a line without markup: control and direction characters made visible."""
    return show.safe(text).replace("\\[", "[")


def _asked(message: str) -> str:
    """`p` and the message, `t` or `b`. Who presses the end-of-file key once too often loses nothing."""
    for _ in range(TRIES):
        print("[p]ublish, [t]hrow away, or [b]ack to the shell? ", end="", flush=True)
        answer = sys.stdin.readline().strip().lower()
        if answer in ("t", "throw", "throw away") or answer in ("b", "back"):
            return answer[0]
        if answer in ("p", "publish"):
            if message:
                return "p"
            print("What is new in it? ", end="", flush=True)
            return "p" + sys.stdin.readline().strip()
        print()
    return "t"


def _told(command: tuple[str, ...], copies: list[tuple[Path, str]]) -> str:
    parts = [f"copied {path.name} to {target}" for path, target in copies]
    if command:
        parts.append(shlex.join(command))
    return "; ".join(parts)[:200] or "edited by hand"


def _unmounted(left: list[Part] | Any) -> None:
    for part in left:
        print(f"{part.role} ({part.fs}) stays as it is: this machine cannot mount it", file=sys.stderr)


def _mount(site: Site, ref: str, at: Path) -> None:
    from images.editing.held import hold_open

    name, _, number = ref.partition(":")
    site.store.resolve(ref)
    found, left = hold_open(site.store, name, site.store.resolve(ref)[1] if number else 0, at)
    _unmounted(left)
    print(f"{found.manifest.ref} is mounted on {at}, in a copy. Change it, then")
    print(f"  gild.pyz image edit {name} --publish -m MESSAGE    or  gild.pyz image edit {name} --discard")


def _publish(site: Site, ref: str, message: str, tag: bool) -> None:
    from images.editing.edit import publish_held
    from images.editing.held import wanted

    name = ref.partition(":")[0]
    before = wanted(site.store, name).manifest
    with show.progress("edit") as progress:
        options = Options(message=message or "edited by hand", tag=tag, progress=progress)
        manifest, look = publish_held(site.store, name, options)
    if manifest is None:
        return print(f"nothing was changed in {before.ref}: there is no new version")
    _show(look)
    return published(site, manifest.ref)


def _discard(site: Site, ref: str, yes: bool) -> None:
    from images.editing import held

    name = ref.partition(":")[0]
    found = held.wanted(site.store, name)
    show.ask(f"{found.told}. Throw away what was changed in it?", yes)
    held.discard(site.store, name)
    print("thrown away; no version was changed")
