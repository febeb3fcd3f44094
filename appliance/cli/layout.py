"""gild layout"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from appliance.cli import show
from appliance.cli.main import Noun, Site
from appliance.cli.selecting import JSON


@click.group("layout", cls=Noun)
def command() -> None:
    """Partitions: what a layout comes to on a disk."""


@command.command("check")
@click.argument("which", metavar="FILE|PROFILE")
@click.option("--disk", default="500GB", show_default=True, metavar="SIZE", help="The disk it shall stand on.")
@click.option("--memory", default="16GiB", show_default=True, metavar="SIZE", help="The machine's memory.")
@click.option("--sector", default=512, show_default=True, metavar="BYTES", help="The disk's sectors.")
@JSON
@click.pass_obj
def check(site: Site, /, which: str, disk: str, memory: str, sector: int, json_: bool) -> None:
    """Show the partition table a layout gives.

    FILE holds [[layout]] tables of TOML, and needs no head to be checked; else the layout is that of a PROFILE.
    """
    from netboot.layout import describe, parse_size, place
    from netboot.layoutfile import read_layout
    from netboot.plan import LayoutPart

    path = Path(which)
    if path.suffix or "/" in which or path.is_file():
        rows = read_layout(_read(path), which)
    else:
        rows = site.client.get("profiles", which, "values")["layout"]
    parts = tuple(LayoutPart(**row) for row in rows)
    placed = place(parts, parse_size(disk), parse_size(memory), sector=sector)
    if json_:
        found = [{"number": p.number, "offset": p.offset, "bytes": p.bytes, "type": p.type, **asdict(p.part)}
                 for p in placed]  # fmt: skip
        return show.as_json(found)
    show.table(
        ["", "partition", "size", "begins at", "filesystem", "mounted at", "asked for"],
        [
            [str(p.number), p.part.name, show.size(p.bytes), show.size(p.offset),
             p.part.fs or ("(of the image)" if p.part.role else ""), p.part.mount, p.part.size]
            for p in placed
        ],
        "",
    )  # fmt: skip
    print(f"\non {disk} with {memory} of memory: {describe(placed)}")
    return None


def _read(path: Path) -> str:
    from appliance.errors import Unknown, Wrong

    try:
        return path.read_text()
    except FileNotFoundError:
        raise Unknown(f"there is no file {path}", "a profile's name has no dot and no slash") from None
    except (OSError, ValueError) as error:
        raise Wrong(f"{path} cannot be read: {error}") from None
