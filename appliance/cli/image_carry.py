"""gild image export, have, trust, and the import of a bundle: images on their way from head to head."""

from __future__ import annotations

import os
import re
import sys
from io import BufferedReader
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from appliance.cli import show
from appliance.cli.main import Noun, Site
from appliance.errors import ConfigInvalid, Wrong
from images.disk import disk_errors
from images.errors import NotFound, SourceInvalid
from images.keeping.bundle import MAGIC, MAX_PACKS
from images.options import Progress

if TYPE_CHECKING:
    from images.keeping.bundle import Header

HAVE = "# packs of a gild store"
MAX_HAVE = MAX_PACKS * 80  # bytes of such a list


@click.command("export")
@click.argument("refs", nargs=-1, required=True)
@click.argument("file")
@click.option("--have", metavar="FILE", default="", help="Leave out what is in this list, made by: image have.")
@click.option("--since", metavar="NAME:N", multiple=True, help="Leave out what this version has: it is there already.")
@click.pass_obj
def export(site: Site, /, refs: tuple[str, ...], file: str, have: str, since: tuple[str, ...]) -> None:
    """Write versions into one signed file for another head. REFS are NAME:NUMBER; FILE may be - for output, as in
    `gild.pyz image export compute:3 - | ssh other gild.pyz image import -`."""
    store = site.store
    without: set[str] = set()
    for ref in since:
        without.update(store.load(ref)[0].packs)
    if have:
        without.update(read_have(have))
    if file == "-":
        if sys.stdout.isatty():
            raise Wrong(
                "a bundle is nothing to look at", "give a file, or pipe it: ... | ssh other gild.pyz image import -"
            )
        with show.progress("export") as progress:
            header = _export(site, refs, sys.stdout.buffer, without, progress)
    else:
        path = Path(file)
        if path.exists():
            raise Wrong(f"{path} exists already", "give another name, or remove it")
        fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
        try:
            with disk_errors(f"writing {path}"), open(fresh, "xb") as out, show.progress("export") as progress:
                header = _export(site, refs, out, without, progress)
                os.fsync(out.fileno())
                fresh.rename(path)
        finally:
            fresh.unlink(missing_ok=True)
    left = sum(not pack.included for pack in header.packs)
    told = f"{', '.join(version.ref for version in header.versions)}: {show.size(header.body)}"
    print(told + (f", {left} packs left out" if left else ""), file=sys.stderr if file == "-" else sys.stdout)


@click.command("have")
@click.pass_obj
def have(site: Site, /) -> None:
    """Print which packs are here. For `image export --have` on another head."""
    from images.packs import read_mark

    store = site.store
    print(HAVE)
    for path in sorted(store.packs.glob("*.pack")):
        if read_mark(store.packs, path.stem) == frozenset():
            print(path.stem)


def read_have(file: str) -> set[str]:
    """The packs in a list that `have` printed; FILE may be - for input. Raises Wrong, ConfigInvalid."""
    try:
        if file == "-":
            text = sys.stdin.read(MAX_HAVE + 1)
        else:
            with open(file, encoding="ascii", errors="replace") as stream:
                text = stream.read(MAX_HAVE + 1)
    except OSError as error:
        raise Wrong(f"{file} cannot be read: {error.strerror}") from None
    lines = text.splitlines()
    wrong = next((n for n, line in enumerate(lines, 1) if not re.fullmatch(r"[0-9a-f]{64}|\s*(#.*)?", line)), 0)
    if wrong or len(text) > MAX_HAVE or not lines:
        raise ConfigInvalid(f"{file}, line {wrong or 1}: not a list of packs", "made on the other head by: image have")
    return {line for line in lines if len(line) == 64 and line[0] != "#"}


def is_bundle(stream: IO[bytes]) -> bool:
    """Whether a stream begins as a bundle does; nothing of it is used up."""
    if isinstance(stream, BufferedReader):
        return stream.peek(len(MAGIC))[: len(MAGIC)] == MAGIC
    start = stream.read(len(MAGIC))
    stream.seek(-len(start), os.SEEK_CUR)
    return start == MAGIC


def import_bundle(site: Site, path: str, stream: IO[bytes] | None = None, *, json: bool = False) -> None:
    """Take the versions of the bundle at `path` (- for input) into the store, or those of `stream`, which is open
    already and named `path` in errors. Raises as images.keeping.importing.import_bundle does, and SourceInvalid."""
    from appliance.signing import Trust
    from images.keeping.importing import import_bundle as take

    if stream is None and path != "-":
        try:
            with open(path, "rb") as file:
                return import_bundle(site, path, file, json=json)
        except OSError as error:
            raise SourceInvalid(f"{path} cannot be read: {error.strerror}") from None
    store = site.store
    with show.progress("import") as progress:
        done = take(store, stream or sys.stdin.buffer, Trust(site.paths).check, progress)
    if json:
        rows = {"added": done.added, "present": done.present, "signer": done.signer, "bytes": done.size}
        return show.as_json(rows)
    for ref in done.added:
        print(f"{ref} is here, signed by {done.signer}")
    for ref in done.present:
        print(f"{ref} was here already")
    for name in dict.fromkeys(ref.partition(":")[0] for ref in done.added):
        newest, tagged = store.versions(name)[-1], store.tag(name)
        if tagged != newest:
            print(f"nodes still get {name}:{tagged}; change that: gild.pyz image tag {name}:{newest}")
    return None


@click.group("trust", cls=Noun, invoke_without_command=True)
@click.pass_context
def trust(ctx: click.Context) -> None:
    """Whose images may be imported. Without a verb: the list."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(trust_list)


@trust.command("list")
@click.option("--json", "json_", is_flag=True, help="For scripts.")
@click.pass_obj
def trust_list(site: Site, /, json_: bool = False) -> None:
    """The heads that are trusted. Their images may be imported; this one is always among them."""
    from appliance.signing import Trust

    keys = Trust(site.paths).known()
    if json_:
        return show.as_json([{"name": key.name, "fingerprint": key.fingerprint, "key": key.text} for key in keys])
    rows = [[show.safe(key.name), key.fingerprint] for key in keys]
    return show.table(["head", "fingerprint"], rows, "no other head is trusted; see: gild.pyz image trust add")


@trust.command("show")
@click.pass_obj
def trust_show(site: Site, /) -> None:
    """This head's own key. The line that another head is to trust, and its fingerprint."""
    from appliance.signing import Signer

    key = Signer(site.paths).public
    print(key.text)
    print(key.fingerprint, file=sys.stderr)


@trust.command("add")
@click.argument("key", nargs=-1, required=True)
@click.option("--name", default="", help="What to call it; otherwise the name in it.")
@click.pass_obj
def trust_add(site: Site, /, key: tuple[str, ...], name: str) -> None:
    """Trust a key. KEY is the line that `image trust show` prints there, or a file that holds it."""
    from appliance.signing import KIND, MAX_TEXT, Trust, parse_key

    text = " ".join(key)
    if not text.startswith(KIND):
        try:
            with open(text, encoding="utf-8", errors="replace") as file:
                text = file.read(MAX_TEXT)
        except OSError as error:
            raise NotFound(f"{text[:80]} is neither a key nor a file: {error.strerror}") from None
    added = Trust(site.paths).add(parse_key(text), name)
    print(f"{added.name} is trusted: {added.fingerprint}")


@trust.command("remove")
@click.argument("name")
@click.pass_obj
def trust_remove(site: Site, /, name: str) -> None:
    """Trust a key no more. What was imported stays."""
    from appliance.signing import Trust

    Trust(site.paths).remove(name)
    print(f"{name} is trusted no more")


def _export(site: Site, refs: tuple[str, ...], out: IO[bytes], without: set[str], progress: Progress) -> Header:
    from appliance.signing import Signer
    from images.keeping.exporting import Signing
    from images.keeping.exporting import export as write

    signer = Signer(site.paths)
    signing = Signing(signer.public.name, signer.public.raw, signer.sign)
    return write(site.store, refs, out, signing, without=without, progress=progress)
