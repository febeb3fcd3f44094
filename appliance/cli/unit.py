"""gild service install, status, remove"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from appliance import __version__
from appliance.cli import show
from appliance.cli.main import Noun, Site
from appliance.cli.serve import options
from appliance.config import parse
from appliance.errors import Environment, NotServing, Wrong
from images.errors import GildError

ROOT = click.option("--root", metavar="DIR", default="/", help="Root directory of another system, for images.")


@click.group("service", cls=Noun)
def command() -> None:
    """Serve from every boot on, by systemd, with few rights."""


@command.command("install")
@options
@ROOT
@click.option("--captures", is_flag=True, help="With the rights that `node capture` needs: those of root.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def install(site: Site, /, root: str, captures: bool, yes: bool, **flags: Any) -> None:
    """Write the unit, show it first, and start it.

    The options are those of serve and go into the unit, where they win over STATE/gild.toml; what is not given here
    stays there.
    """
    from appliance import systemd, unit

    place = systemd.Place(Path(root))
    made = systemd.this(site.paths, _words(flags), captures)
    config = parse(_settings(site, place), {}, {**flags, "state": str(site.paths.state)})
    if not config.interface:
        raise Environment("which interface are the nodes on?", "service install --interface NAME")
    if root == "/":
        systemd.check(made)
    print(unit.render(made))
    for line in systemd.doubts(made):
        print(f"note: {line}")
    show.ask(f"Write this to {place.unit}" + (" and start it?" if place.runs else "?"), yes)
    if systemd.install(place, made):
        print(f"{place.unit} is written, enabled and running; its log: journalctl -u gild -f")
    elif root == "/":
        print(f"{place.unit} is written; systemd does not run here. Then: systemctl enable --now gild")
    else:
        print(f"{place.unit} is written. So that it starts at boot: systemctl --root {root} enable gild")


@command.command("status")
@ROOT
@click.option("--json", "json_", is_flag=True, help="For scripts.")
@click.pass_obj
def status(site: Site, /, root: str, json_: bool) -> None:
    """Tell how it stands. Is the unit there, does it start at boot, does it run, and this file?"""
    from appliance import systemd, unit

    place = systemd.Place(Path(root))
    text = place.text()
    found = unit.read(text)
    own = bundled_file()
    serving = _serving(Site(found.state) if found else site) if root == "/" else ""
    facts: dict[str, Any] = {
        "unit": str(place.unit) if text else None,
        "ours": found is not None,
        "as_written": found is not None and unit.render(found) == text,
        "changes": sorted(str(path) for path in place.unit.with_name(f"{unit.NAME}.d").glob("*.conf")),
        "enabled": place.wanted.is_symlink(),
        "active": systemd.active(place) or None,
        "command": list(found.command) if found else None,
        "captures": found is not None and found.captures,
        "same_file": found is not None and own is not None and _same(found.file, own),
        "serving": serving or None,
        "version": __version__,
    }
    if json_:
        return show.as_json(facts)
    if not text:
        raise NotServing(f"there is no {place.unit}", "write it: gild.pyz service install --interface NAME")
    if found is None:
        raise Wrong(f"{place.unit} was not written by gild", "move it away, then: gild.pyz service install")
    version = "no process answers" if not serving else f"gild {serving}"
    if serving and serving != __version__:
        version += f"; this file is gild {__version__}: systemctl restart gild"
    written = "as this gild writes it" if facts["as_written"] else "differs from what this gild writes: install again"
    show.facts(
        [
            ("unit", f"{place.unit}, {written}"),
            ("changes", show.safe(", ".join(facts["changes"]))),
            ("at boot", "starts" if facts["enabled"] else "does not start: systemctl enable gild"),
            ("systemd", facts["active"] or "does not run here"),
            ("runs", show.safe(" ".join(found.command))),
            ("rights", "root, for node capture" if found.captures else "few; node capture is refused"),
            ("file", "this one" if facts["same_file"] else f"another one than {own or 'this checkout'}"),
            ("serving", version),
        ]
    )
    return None


@command.command("remove")
@ROOT
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def remove(site: Site, /, root: str, yes: bool) -> None:
    """Stop it, and take back what install did. The state directory stays."""
    from appliance import systemd

    place = systemd.Place(Path(root))
    if place.text():
        show.ask(f"Stop gild and remove {place.unit}?" if place.runs else f"Remove {place.unit}?", yes)
    gone = systemd.remove(place)
    print(f"{place.unit} is removed; {gone.state} is as it was")


def bundled_file() -> str | None:
    """The .pyz that runs; None in a checkout."""
    from appliance import bundled

    return bundled.ROOT if bundled.is_archive() else None


def _words(flags: dict[str, Any]) -> tuple[str, ...]:
    """Flags of serve as they are typed."""
    given = [(name, value) for name, value in flags.items() if value is not None]
    return tuple(word for name, value in given for word in (f"--{name.replace('_', '-')}", str(value)))


def _settings(site: Site, place: Any) -> str:
    """gild.toml of the system the unit is for."""
    path = place.root / str(site.paths.settings).lstrip("/")
    try:
        return str(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise Environment(f"cannot read {path}: {error}") from None


def _serving(site: Site) -> str:
    try:
        return str(site.client.get("status")["version"])
    except (GildError, KeyError):
        return ""


def _same(one: str, other: str) -> bool:
    try:
        return Path(one).samefile(other)
    except OSError:
        return False
