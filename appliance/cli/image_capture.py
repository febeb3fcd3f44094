"""gild image capture: a version of a running system, the golden client."""

from __future__ import annotations

import contextlib
import http.client
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, cast

import click

from appliance.cli import show
from appliance.cli.client import Client
from appliance.cli.image_show import published
from appliance.cli.main import Site
from appliance.errors import Wrong
from images.errors import GildError, SourceInvalid
from images.manifest import Manifest
from images.options import CMDLINE, Options
from images.sources.client import printable
from images.sources.leftout import Wishes, check_wishes

WAIT = 25  # seconds a question may be held back
EVERY = 5.0  # seconds between two lines of progress for the golden client


class Broken(SourceInvalid):
    """The stream from the golden client broke; the same line is good for another try."""


@click.command("capture")
@click.argument("name")
@click.option("--from", "source", metavar="SOURCE", required=True,
              help='"/" (this machine), ssh:USER@HOST[:PORT], or "paste": a line to paste on the client.')  # fmt: skip
@click.option("--exclude", metavar="PATTERN", multiple=True, help="A path to leave out, with all below; wildcards.")
@click.option("--with", "include", metavar="PATH", multiple=True,
              help="A filesystem to take too (/home, say), or a place that is left out by itself.")  # fmt: skip
@click.option("--one-file-system", is_flag=True, help="The root filesystem alone.")
@click.option("--message", "-m", default="", help="What is new in this version.")
@click.option("--cmdline", default="", help="Kernel arguments of the installed system.")
@click.option("--ssh-config", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="For ssh, instead of this user's own.")  # fmt: skip
@click.pass_obj
def command(
    site: Site,
    /,
    name: str,
    source: str,
    exclude: tuple[str, ...],
    include: tuple[str, ...],
    one_file_system: bool,
    message: str,
    cmdline: str,
    ssh_config: Path | None,
) -> None:
    """Make a version of a running system, the golden client. It is only read; what belongs to one machine is left out.

    It needs GNU tar. What databases write meanwhile need not fit together: stop them first.
    """
    from images.sources import golden

    wishes = Wishes(exclude, include, one_file_system)
    check_wishes(wishes)
    options = Options(message=message, cmdline=cmdline or CMDLINE)
    kind, colon, address = source.partition(":")
    if ssh_config and kind != "ssh" and "@" not in source:
        raise Wrong(f"--ssh-config says nothing about {source}")
    if source == "paste":
        manifest = _paste(site, name, wishes, options)
    elif source == "/":
        with show.progress("capture") as progress:
            wishes = replace(wishes, own=(str(site.paths.state),))
            manifest = golden.capture_here(site.store, name, wishes, replace(options, progress=progress))
    elif (kind == "ssh" and colon) or "@" in source:
        where = address if kind == "ssh" and colon else source
        with show.progress("capture") as progress:
            manifest = golden.capture_ssh(
                site.store, name, where, wishes, replace(options, progress=progress), ssh_config
            )
    else:
        raise Wrong(
            f"--from {source} is no golden client", 'give "/", ssh:USER@HOST or paste; a directory: image import'
        )
    for warning in manifest.source.get("warnings", ()):
        print(f"  ! {warning}")
    published(site, manifest.ref)


def _paste(site: Site, name: str, wishes: Wishes, options: Options) -> Manifest:
    """Wait for the client on which the line is pasted, and publish what it sends."""
    client, store = site.client, site.store
    offer = client.post(
        "captures", name=name, exclude=wishes.exclude, include=wishes.include, one_file_system=wishes.one_file_system
    )
    token = str(offer["token"])
    until = show.clock(time.time() + offer["seconds"])
    print(f"Paste this on the golden client; it is good for one capture, until {until}:\n\n  {offer['line']}\n")
    print(f"Without curl there:\n\n  {offer['python']}\n", flush=True)
    try:
        while True:
            known = _client_that_sends(client, token)
            try:
                with show.progress("capture") as progress:
                    told = replace(options, progress=_both(progress, client, token))
                    manifest = _receive(client, token, known, store, name, wishes, told)
            except Broken as error:
                print(f"{error.message}; the line is good for another try", file=sys.stderr)
                continue
            client.post("captures", token, "end", good=True, text=f"{manifest.ref} is published")
            return manifest
    except BaseException as error:
        _give_up(client, token, error)
        raise


def _give_up(client: Client, token: str, error: BaseException) -> None:
    """Tell the client why there will be no version. Telling it twice does no harm."""
    text = str(error) if isinstance(error, GildError) else "the capture was ended on the head"
    with contextlib.suppress(GildError):
        client.post("captures", token, "end", good=False, text=text)


def _client_that_sends(client: Client, token: str) -> dict[str, Any]:
    """Wait until a client sends, and tell what happens meanwhile."""
    state, trouble = "", ""
    while True:
        answer: dict[str, Any] = client.get("captures", token, known=state or "open", wait=WAIT)
        if answer["trouble"] and answer["trouble"] != trouble:
            print(printable(answer["trouble"]), file=sys.stderr)
        if answer["state"] == "sending":
            return answer
        if answer["state"] == "asked" != state:
            print(f"{printable(answer['peer'])} has asked what to send", file=sys.stderr)
        state, trouble = answer["state"], answer["trouble"]


def _receive(
    client: Client, token: str, known: dict[str, Any], store: Any, name: str, wishes: Wishes, options: Options
) -> Manifest:
    from images.sources.client import choose, read_facts
    from images.sources.golden import receive

    golden = read_facts(known["facts"].encode("latin-1"))
    with client.stream("captures", token, "stream") as stream:
        try:
            return receive(
                store, name, cast(IO[bytes], _Stream(stream)), golden, choose(golden, wishes), known["mark"], options,
                method="paste",
            )  # fmt: skip
        except Broken:
            raise
        except BaseException as error:
            # Before the stream is closed, which would tell the client less.
            _give_up(client, token, error)
            raise


class _Stream:
    """The head's stream; that it broke is an error with a name."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        """The next bytes. Raises Broken."""
        return self._checked(self._stream.read, size)

    def readline(self, size: int) -> bytes:
        """The next line. Raises Broken."""
        return self._checked(self._stream.readline, size)

    def _checked(self, read: Callable[[int], bytes], size: int) -> bytes:
        try:
            return read(size)
        except (OSError, http.client.HTTPException):
            raise Broken("the stream from the golden client broke off") from None


def _both(progress: Callable[[str, int, int], None], client: Client, token: str) -> Callable[[str, int, int], None]:
    """Progress here, and a line now and then for whoever pasted the line."""
    last: list[Any] = ["", 0.0]

    def tell(phase: str, done: int, total: int) -> None:
        progress(phase, done, total)
        now = time.monotonic()
        if phase != "receive" and (phase != last[0] or now - last[1] > EVERY):
            amount = f" {show.size(done)} of {show.size(total)}" if total > 1_000_000 else ""
            last[:] = [phase, now]
            with contextlib.suppress(GildError):
                client.post("captures", token, "say", text=f"the head: {phase}{amount}")

    return tell
