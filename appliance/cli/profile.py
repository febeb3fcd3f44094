"""gild profile"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from appliance.cli import show
from appliance.cli.main import Noun, Site
from appliance.cli.selecting import JSON, YES
from appliance.errors import Wrong

FIELDS = ("image", "disk", "layout", "cmdline", "finish", "verify", "names", "extends", "edits", "script-seconds")


@click.group("profile", cls=Noun)
def command() -> None:
    """What a kind of node gets: image, disk, files, scripts."""


@command.command("list")
@JSON
@click.pass_obj
def list_(site: Site, /, json_: bool) -> None:
    """All profiles, with what they inherit."""
    rows = site.client.get("profiles")
    if json_:
        return show.as_json(rows)
    return show.table(
        ["profile", "extends", "image", "finish", "verify", "kernel arguments", "nodes"],
        [
            [row["name"], row["extends"], row["image"] or "(the only one)", row["finish"], row["verify"],
             row["cmdline"], str(row["nodes"])] for row in rows
        ],
        "there is no profile",
    )  # fmt: skip


@command.command("show")
@click.argument("name", required=False)
@click.option("--node", metavar="NODE", help="What this node gets, by itself and its profile.")
@JSON
@click.pass_obj
def show_(site: Site, /, name: str | None, node: str | None, json_: bool) -> None:
    """What the nodes of a profile get, and from where.

    With --json it is what `profile set --from` reads back.
    """
    if (name is None) == (node is None):
        raise Wrong("name a profile, or a node with --node", "see: gild.pyz profile list")
    told = site.client.get("nodes", node, "values") if node else site.client.get("profiles", str(name), "values")
    if json_:
        return show.as_json(told if node else site.client.get("profiles", str(name)))
    edits = [[f"edit {edit['edit']}", json.dumps(edit["options"]), f"from profile {edit['from']}"]
             for edit in told["edits"]]  # fmt: skip
    show.table(
        ["value", "is", "where it comes from"],
        [[key.replace("_", "-"), show.safe(value), origin] for key, value, origin in [*told["values"], *edits]],
        "",
    )
    print()
    show.facts([
        ("made of", " <- ".join(reversed(told["chain"])) if len(told["chain"]) > 1 else ""),
        ("nodes", ", ".join(told["nodes"]) or "none"),
        ("layout", ", ".join(f"{part['name']} {part['size']}" for part in told["layout"])),
        ("files", ", ".join(str(site.paths.profiles / profile) for profile in told["chain"])),
    ])  # fmt: skip
    return None


@command.command("set")
@click.argument("name")
@click.option("--image", metavar="NAME", help="Image whose tagged version the nodes get.")
@click.option("--cmdline", metavar="TEXT", help="Kernel arguments of the installed system.")
@click.option("--finish", type=click.Choice(["kexec", "reboot", "poweroff"]), help="How a written machine goes on.")
@click.option("--verify", type=click.Choice(["none", "sample", "full"]), help="How much of the disk is read back.")
@click.option("--disk", metavar="RULE", help="Which disk is written: e.g. pick=smallest,bus=nvme or serial=S3Z9.")
@click.option("--layout", type=click.File("r"), metavar="FILE", help="Partitions, as [[layout]] tables of TOML.")
@click.option("--edits", type=click.File("r"), metavar="FILE", help="Changes to the tree, as [[edit]] tables of TOML.")
@click.option("--extends", metavar="PROFILE", help="The profile whose values count where this one has none.")
@click.option("--names", metavar="PATTERN", help="Names of machines approved with it, such as gpu{n:02}.")
@click.option("--script-seconds", type=int, metavar="N", help="How long each of its scripts may take.")
@click.option(
    "--clear",
    multiple=True,
    type=click.Choice(FIELDS),
    metavar="FIELD",
    help=f"The parent's or the usual value again: {', '.join(FIELDS)}.",
)
@click.option("--from", "source", type=click.File("r"), help="Take everything from a JSON file (- for input).")
@click.pass_obj
def set_(
    site: Site, /, name: str, source: Any, layout: Any, edits: Any, clear: Sequence[str], **fields: str | int | None
) -> None:
    """Make or change a profile.

    Its files and scripts lie in STATE/profiles/NAME: gild.pyz help profiles
    """
    from netboot.layoutfile import read_edits, read_layout

    given: dict[str, Any] = {key: value for key, value in fields.items() if value is not None}
    if layout is not None:
        given["layout"] = read_layout(_text(layout), layout.name)
    if edits is not None:
        given["edits"] = read_edits(_text(edits), edits.name)
    for field in clear:
        key = field.replace("-", "_")
        if key in given:
            raise Wrong(f"--{field} and --clear {field} exclude each other")
        given[key] = {"layout": [], "edits": [], "script_seconds": 0}.get(key, "")
    if source is not None:
        try:
            read = json.load(source)
        except (ValueError, RecursionError) as error:
            raise Wrong(f"{source.name}: not JSON: {error}") from None
        if not isinstance(read, dict):
            raise Wrong(f"{source.name}: not a JSON object", "write it with: gild.pyz profile show NAME --json")
        given = {**read, **given}
    given.pop("name", None)
    site.client.post("profiles", name, **given)
    print(f"profile {name} is set")


@command.command("rm")
@click.argument("name")
@YES
@click.pass_obj
def rm(site: Site, /, name: str, yes: bool) -> None:
    """Forget a profile and its secrets, not its files."""
    site.client.get("profiles", name)
    show.ask(f"Forget profile {name}?", yes)
    site.client.post("profiles", name, "remove")
    folder = site.paths.profiles / name
    print(f"profile {name} is forgotten" + (f"; its files stay in {folder}" if folder.is_dir() else ""))


@command.command("render")
@click.argument("node")
@click.argument("file", required=False)
@click.option("--diff", "other", metavar="NODE", help="Only what differs from what another node gets.")
@JSON
@click.pass_obj
def render(site: Site, /, node: str, file: str | None, other: str | None, json_: bool) -> None:
    """What a node would get of its profile's files.

    All files and scripts, or one FILE of them as it would be. Secrets are not shown.
    """
    if other is not None:
        return _diff(site, node, other, file)
    if file is not None:
        told = site.client.get("nodes", node, "render", file=file)
        if json_:
            return show.as_json(told)
        return _out(told)
    told = site.client.get("nodes", node, "render")
    if json_:
        return show.as_json(told)
    show.table(
        ["file", "mode", "owner", "bytes", "from"],
        [[_shown(row), row["mode"], f"{row['owner']}:{row['group']}", str(row["size"]), _from(row)]
         for row in told["files"]],
        f"no files: put them into {Path(told['folder']) / told['chain'][-1] / 'overlay'}",
    )  # fmt: skip
    for script in told["scripts"]:
        print(f"script {script['name']}, {script['size']} bytes, at most {script['seconds']} s, from {script['from']}")
    for row in told["files"]:
        if row["trouble"]:
            print(f"! /{show.plain(row['path'])}: {show.plain(row['trouble'])}")
    if told["trouble"]:
        raise Wrong(told["trouble"], "it cannot be installed like that; nothing was done")
    return None


def _diff(site: Site, node: str, other: str, file: str | None) -> None:
    """Unified diffs of what two nodes get, file by file."""
    from difflib import unified_diff

    texts = []
    for name in (other, node):
        rows = site.client.get("nodes", name, "render")["files"]
        paths = [row["path"] for row in rows if row["kind"] != "folder" and file in (None, row["path"])]
        texts.append({path: _lines(site.client.get("nodes", name, "render", file=path)) for path in paths})
    old, new = texts
    if file is not None and not old and not new:
        raise Wrong(f"neither {node} nor {other} gets a file {file}", f"see: gild.pyz profile render {node}")
    for path in sorted({*old, *new}):
        names = f"{other}:/{path}", f"{node}:/{path}"
        for line in unified_diff(old.get(path, []), new.get(path, []), *names, lineterm=""):
            print(show.plain(line))


def _lines(told: dict[str, str]) -> list[str]:
    return told["text"].splitlines() if "text" in told else [f"(no text) {told['base64']}"]


def _out(told: dict[str, str]) -> None:
    """A file as it is, whatever is in it."""
    import base64
    import sys

    data = told["text"].encode() if "text" in told else base64.b64decode(told["base64"])
    if sys.stdout.isatty():
        print("\n".join(show.plain(line) for line in data.decode("utf-8", "replace").splitlines()))
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _shown(row: dict[str, Any]) -> str:
    words = {"link": f" -> {row['target']}", "folder": "/", "secret": " (secret)", "template": " (template)"}
    return show.safe(f"{'! ' if row['trouble'] else ''}/{row['path']}{words.get(row['kind'], '')}")


def _from(row: dict[str, Any]) -> str:
    return f"profile {row['from']}"


def _text(file: Any) -> str:
    try:
        return str(file.read(1 << 20))
    except ValueError as error:
        raise Wrong(f"{file.name} is not text: {error}") from None
