"""gild image list, show: what there is, and what nodes get."""

from __future__ import annotations

from typing import Any

import click

from appliance.cli import show
from appliance.cli.main import Site
from images.checks.check import summary
from images.manifest import Manifest

RANK = {"error": 0, "warning": 1}
MARKS = {"error": "[red]error[/]", "warning": "[yellow]warning[/]"}


@click.command("list")
@click.option("--json", "json_", is_flag=True, help="For scripts.")
@click.pass_obj
def list_(site: Site, /, json_: bool) -> None:
    """Every version of every image; the tagged one is what nodes get."""
    store = site.store
    rows: list[dict[str, Any]] = []
    for name in store.images():
        tag = store.tag(name)
        for number in store.versions(name):
            manifest, digest = store.load(f"{name}:{number}")
            rows.append(
                {
                    "image": name,
                    "version": number,
                    "tagged": number == tag,
                    "created": manifest.created,
                    "used": sum(part.used for part in manifest.partitions),
                    "arch": manifest.arch,
                    "system": system(manifest),
                    "message": manifest.message,
                    "digest": digest,
                }
            )
    if json_:
        return show.as_json(rows)
    return show.table(
        ["image", "nodes get", "system", "used", "arch", "made", "message"],
        [
            [
                f"{row['image']}:{row['version']}",
                "●" if row["tagged"] else "",
                show.safe(row["system"]),
                show.size(row["used"]),
                row["arch"],
                show.clock(row["created"]),
                show.safe(row["message"]),
            ]
            for row in rows
        ],
        "there is no image yet; see: gild.pyz help images",
    )


@click.command("show")
@click.argument("ref")
@click.option("--json", "json_", is_flag=True, help="The whole manifest.")
@click.pass_obj
def show_(site: Site, /, ref: str, json_: bool) -> None:
    """One version. What is in it, what was checked and mended when it was published."""
    import json

    manifest, digest = site.store.load(ref)
    if json_:
        return show.as_json({"digest": digest, **json.loads(site.store.manifest_bytes(digest))})
    show.facts(
        [
            ("image", manifest.ref),
            ("digest", digest),
            ("made", f"{show.clock(manifest.created)} from {manifest.source.get('kind', '?')}"),
            ("message", show.safe(manifest.message)),
            ("system", show.safe(system(manifest))),
            ("kernels", ", ".join(show.safe(kernel.get("version")) for kernel in manifest.system.get("kernels", []))),
            ("arguments", show.safe(manifest.cmdline)),
        ]
    )
    print()
    show.table(
        ["partition", "file system", "uuid", "size", "used"],
        [[p.role, p.fs, p.uuid, show.size(p.size), show.size(p.used)] for p in manifest.partitions],
        "",
    )
    print()
    found = sorted((c for c in manifest.checks if c.get("found")), key=lambda c: RANK.get(str(c.get("severity")), 2))
    show.table(
        ["", "check", "found", "what was done, or is to be done"],
        [
            [
                MARKS.get(str(check.get("severity")), ""),
                show.safe(check["name"]),
                show.safe(", ".join(check["found"])),
                show.safe(check["fix"]),
            ]
            for check in found
        ],
        f"{len(manifest.checks)} checks, nothing found",
    )
    return None


def published(site: Site, /, ref: str) -> None:
    """Say what became of a new version: its digest, what the checks found, and who gets it."""
    manifest, digest = site.store.load(ref)
    print(f"{ref} is published ({digest[:12]}), {show.size(sum(p.used for p in manifest.partitions))} used")
    for check in manifest.checks:
        if check.get("severity") == "error":
            name, found, fix = (show.safe(text) for text in (check["name"], ", ".join(check["found"]), check["fix"]))
            print(f"  ! {name}: {found}. {fix}")
    errors, warnings = summary(manifest.checks)
    counts = [f"{n} {word}{'s' if n > 1 else ''}" for n, word in ((errors, "error"), (warnings, "warning")) if n]
    if counts:
        print(f"  {', '.join(counts)}: gild.pyz image show {ref}")
    if site.store.tag(manifest.name) != manifest.version:
        print(f"  nodes still get version {site.store.tag(manifest.name)}; change that: gild.pyz image tag {ref}")


def system(manifest: Manifest) -> str:
    """What the version calls itself."""
    return str(manifest.system.get("pretty", ""))
