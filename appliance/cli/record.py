"""gild audit and gild stats: what was."""

from __future__ import annotations

import re
import time
from datetime import datetime

import click

from appliance.cli import show
from appliance.cli.main import Site
from appliance.cli.selecting import JSON
from appliance.errors import Wrong

SINCE = click.option("--since", metavar="WHEN", help="2h, 3d, or 2027-01-31T02:00.")


@click.command("audit")
@SINCE
@click.option("--who", default="", metavar="NAME", help="A user of this machine, or gild.")
@click.option("--word", default="", metavar="TEXT", help="Such as a node's name, install, or ALARM.")
@JSON
@click.pass_obj
def audit(site: Site, /, since: str | None, who: str, word: str, json_: bool) -> None:
    """Who ordered, approved and changed what; refused tokens."""
    rows = site.client.get("audit", since=_moment(since), who=who, word=word)
    if json_:
        return show.as_json(rows)
    return show.table(
        ["when", "who", "what", "about"],
        [[_day(row["at"]), show.safe(row["who"]), show.safe(row["act"]), show.safe(row["detail"])] for row in rows],
        "nothing yet",
    )


@click.command("stats")
@click.option("--by", type=click.Choice(["node", "profile", "image", "group"]), default="image", show_default=True)
@SINCE
@JSON
@click.pass_obj
def stats(site: Site, /, by: str, since: str | None, json_: bool) -> None:
    """How long installations took, what failed, who is slow."""
    rows = site.client.get("stats", by=by, since=_moment(since))
    if json_:
        return show.as_json(rows)
    show.table(
        [by, "installed", "failed", "to installer", "written", "up", "fetched"],
        [
            [show.safe(row["key"]), str(row["good"]), str(row["failed"] or ""),
             *(_span(row["spans"].get(name)) for name in ("hello", "written", "up")), f"{row['fetched'] / 1e6:.0f} MB"]
            for row in rows
        ],
        "no installation has ended yet",
    )  # fmt: skip
    for row in rows:
        for reason, count in row["reasons"]:
            print(f"{show.plain(row['key'])}: {count} failed: {show.plain(reason)}")
        if row["slow"]:
            print(f"{show.plain(row['key'])}: slower than the others: {', '.join(map(show.plain, row['slow']))}")
    return None


def _span(spread: dict[str, float] | None) -> str:
    return f"{spread['median']:.0f} s ({spread['p90']:.0f})" if spread else ""


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _moment(text: str | None) -> float:
    """Seconds since 1970. Raises Wrong."""
    if text is None:
        return 0.0
    if match := re.fullmatch(r"([0-9]{1,5})([mhd])", text):
        return time.time() - int(match[1]) * {"m": 60, "h": 3600, "d": 86400}[match[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise Wrong(f"{text[:40]!r} is no moment", "such as 2h, 3d, or 2027-01-31T02:00") from None
