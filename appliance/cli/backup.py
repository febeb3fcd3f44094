"""gild backup, gild restore"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from appliance.cli import show
from appliance.cli.main import Site
from appliance.errors import Wrong
from images.disk import disk_errors
from images.errors import NotFound

if TYPE_CHECKING:
    from appliance.backup import Made
    from appliance.backup_format import Listing
    from images.options import Progress


@click.command("backup")
@click.argument("file")
@click.option("--images", is_flag=True, help="The images too.")
@click.option("--json", "json_", is_flag=True, help="For scripts.")
@click.pass_obj
def backup(site: Site, /, file: str, images: bool, json_: bool) -> None:
    """Write everything this head knows into FILE. Nodes, orders, keys, settings, boot files. The head may go on
    serving. FILE may be - for output.

    It holds private keys; keep it as safe as the head.
    """
    from appliance.backup import backup as make
    from appliance.backup import scratch_below

    if file == "-":
        if sys.stdout.isatty():
            raise Wrong("a backup is nothing to look at", "give a file, or pipe it: ... | ssh other 'cat > head.tar'")
        if json_:
            raise Wrong("the output is the backup, and cannot be JSON as well", "name a file")
        with scratch_below(site.paths.state) as scratch, show.progress("backup") as progress:
            made = make(site.paths, sys.stdout.buffer, scratch, images=images, progress=progress)
        return _told("-", made, sys.stderr)
    path = Path(file)
    if path.exists():
        raise Wrong(f"{path} exists already", "give another name, or remove it")
    if not path.parent.is_dir():
        raise NotFound(f"there is no directory {path.parent}", f"make it: mkdir -p {path.parent}")
    with scratch_below(path.parent) as scratch, show.progress("backup") as progress, disk_errors(f"writing {path}"):
        fresh = scratch / "backup"
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as out:
            made = make(site.paths, out, scratch, images=images, progress=progress)
            os.fsync(out.fileno())
        _read_back(fresh, progress)
        fresh.rename(path)
    if json_:
        return show.as_json({"file": str(path), "size": made.size, **_facts(made.listing), "left_out": made.left_out})
    return _told(str(path), made, sys.stdout)


@click.command("restore")
@click.argument("file")
@click.option("--yes", is_flag=True, help="Do not ask before a state that is there is moved aside.")
@click.option("--json", "json_", is_flag=True, help="For scripts.")
@click.pass_obj
def restore(site: Site, /, file: str, yes: bool, json_: bool) -> None:
    """Put a backup in the place of the state. FILE may be - for input. The head must not serve.

    What is there now is moved to STATE.before-DATE. Images that are here stay, if there are none in the backup.
    """
    from appliance.restore import Incoming, occupied
    from appliance.restore import restore as put_in_place

    with contextlib.ExitStack() as opened:
        if file == "-":
            stream: IO[bytes] = sys.stdin.buffer
        else:
            try:
                stream = opened.enter_context(open(file, "rb"))
            except OSError as error:
                raise NotFound(
                    f"{file} cannot be read: {error.strerror}", "give a FILE that gild.pyz backup wrote"
                ) from None
        incoming = Incoming(stream)
        listing = incoming.listing
        if not json_:
            print(f"backup of {_origin(listing)}: {len(listing.members)} files, {show.size(listing.size)}")
        if occupied(site.paths):
            show.ask(f"{site.paths.state} holds a head already. Move that aside and restore?", yes)
        with show.progress("restore") as progress:
            done = put_in_place(site.paths, incoming, progress)
    before = str(done.before) if done.before else None
    if json_:
        return show.as_json(
            {**_facts(listing), "before": before, "kept_images": done.kept_images, "orders_withdrawn": done.withdrawn}
        )
    print(f"{site.paths.state} is restored")
    if before:
        print(f"what was there is {before} now; remove it when all is well")
    if done.kept_images:
        print("the images that were here are here still; the backup has none")
    elif not listing.images:
        print("the backup has no images: take them from another head, help carry")
    if done.withdrawn:
        print(f"{done.withdrawn} open orders were withdrawn: what they allowed may have been done since")
    return None


def _read_back(path: Path, progress: Progress) -> None:
    from appliance.restore import Incoming

    with path.open("rb") as file:
        Incoming(file).read(None, lambda _, done, total: progress("read back", done, total))


def _told(file: str, made: Made, out: IO[str]) -> None:
    for line in made.left_out:
        print(f"left out: {line}", file=sys.stderr)
    with_images = "with the images" if made.listing.images else "without the images (--images)"
    name = "backup" if file == "-" else file
    print(f"{name}: {len(made.listing.members)} files, {show.size(made.size)}, {with_images}", file=out)
    checked = "" if file == "-" else ", read back and found right"
    mode = "" if file == "-" else " (mode 600)"
    print(f"it holds private keys{mode}: keep it as safe as this head{checked}", file=out)


def _origin(listing: Listing) -> str:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(listing.created))
    return f"{show.safe(listing.head)}, {when}, gild {listing.gild}"


def _facts(listing: Listing) -> dict[str, object]:
    return {
        "head": listing.head,
        "created": listing.created,
        "gild": listing.gild,
        "schema": listing.schema,
        "images": listing.images,
        "files": len(listing.members),
        "bytes": listing.size,
    }
