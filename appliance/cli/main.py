"""The group of commands; errors become one line, a hint and an exit code."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from appliance import __version__
from appliance.cli.client import Client
from appliance.config import BY_NAME
from appliance.errors import Environment, exit_code
from appliance.paths import Paths
from images.errors import GildError, ImageError, NoSpace
from images.store import Store


class Site:
    """What every command starts from: the paths below one state directory, the head behind its socket."""

    def __init__(self, state: str) -> None:
        self.paths = Paths(Path(state))

    @property
    def client(self) -> Client:
        """The serving process."""
        return Client(self.paths.socket)

    @property
    def store(self) -> Store:
        """The image store, which needs no server. Raises Environment if it cannot be opened."""
        try:
            return Store(self.paths.images)
        except NoSpace:
            raise
        except ImageError as error:
            raise Environment(error.message, error.hint or "run this as root, or give another --state") from None


# Nouns in the order in which a new user meets them, and the file of each.
NOUNS = {
    "serve": ("serve", "command"),
    "wizard": ("wizard", "command"),
    "status": ("status", "command"),
    "watch": ("watch", "command"),
    "image": ("image", "command"),
    "node": ("node", "command"),
    "job": ("job", "command"),
    "rule": ("rule", "command"),
    "profile": ("profile", "command"),
    "layout": ("layout", "command"),
    "secret": ("secret", "command"),
    "network": ("network", "command"),
    "cluster": ("cluster", "command"),
    "hook": ("hook", "command"),
    "stats": ("record", "stats"),
    "audit": ("record", "audit"),
    "probe": ("probe", "command"),
    "doctor": ("doctor", "command"),
    "service": ("unit", "command"),
    "backup": ("backup", "backup"),
    "restore": ("backup", "restore"),
    "help": ("topics", "command"),
}


# Words that people type for ours.
_OTHERS = {"remove": "rm", "delete": "rm", "del": "rm", "rename": "set --name", "ls": "list", "info": "show",
           "logs": "log", "reinstall": "install"}  # fmt: skip


class Noun(click.Group):
    """The verbs of a noun, in the order in which they are used, and the nearest one named for a mistyped one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """As defined, not by the alphabet."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Names the nearest command when there is none of that name."""
        known = self.list_commands(ctx)
        if args and not args[0].startswith("-") and args[0] not in known:
            near = _nearest(args[0], known, top=ctx.parent is None)
            ctx.fail(f"there is no command {args[0]!r}" + (f"; did you mean {near!r}?" if near else ""))
        return super().resolve_command(ctx, args)


def _nearest(typed: str, known: Sequence[str], top: bool) -> str:
    """What was probably meant by a word that is no command here; "" if nothing comes near."""
    from difflib import get_close_matches

    meant = _OTHERS.get(typed, typed)
    if meant.split()[0] in known:
        return meant
    near = get_close_matches(typed, known, 1, 0.7)
    if near or not top:
        return near[0] if near else ""
    # A verb without its noun is most often one of nodes.
    from appliance.cli.node import VERBS

    verb = meant.split()[0]
    return f"node {meant}" if verb in VERBS else ""


class Verbs(Noun):
    """A group that imports the file of a verb only when the verb is used: the command line starts quickly."""

    def __init__(self, *args: Any, verbs: Mapping[str, tuple[str, str]], **options: Any) -> None:
        """`verbs`: name -> file in this folder, name of the command in it."""
        super().__init__(*args, **options)
        self.verbs = verbs

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table."""
        return list(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a verb, imported now."""
        if cmd_name not in self.verbs:
            return None
        from importlib import import_module

        file, name = self.verbs[cmd_name]
        command: click.Command = getattr(import_module(f"appliance.cli.{file}"), name)
        return command


@click.group(cls=Verbs, verbs=NOUNS, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--state", metavar="DIR", envvar="GILD_STATE", default=BY_NAME["state"].default, show_default=True,
              help=BY_NAME["state"].help.capitalize() + ".")  # fmt: skip
@click.version_option(__version__, message="gild %(version)s")
@click.pass_context
def gild(ctx: click.Context, state: str) -> None:
    """Gild a rack of bare machines with your golden image, from this one file.

    First: serve --interface NAME. Then: image build, node list, node approve, node install, watch.
    The manual is inside: help.
    """
    ctx.obj = Site(state)


def run(argv: Sequence[str]) -> int:
    """Run one command line; returns its exit code. Nothing but an unforeseen fault prints a traceback."""
    try:
        code = gild.main(list(argv), prog_name="gild.pyz", standalone_mode=False)
        sys.stdout.flush()  # here, where its failure is told; at its end Python could only complain
        return code if isinstance(code, int) else 0  # click hands ctx.exit's number over as the result
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        return 130
    except (BrokenPipeError, SystemExit):
        # The reader (head, less) has gone: rich turns that into SystemExit. That is no failure.
        _discard_output()
        return 0
    except GildError as error:
        print(f"gild: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"      {error.hint}", file=sys.stderr)
        return exit_code(error)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO) or error.filename is not None:
            raise
        _discard_output()
        print(f"gild: cannot write the output: {error.strerror}", file=sys.stderr)
        return exit_code(NoSpace(""))
    finally:
        try:
            sys.stdout.flush()
        except OSError:
            # What an error left in the buffer (half an archive, say); else Python ends with 120 whatever is said here.
            _discard_output()


def _discard_output() -> None:
    """Python would complain once more when it flushes what is left at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
