"""gild image log, diff, tag, rollback: how versions came about, how they differ, and which one nodes get."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from appliance.cli import show
from appliance.cli.image_edit import plain
from appliance.cli.main import Site
from images.errors import GildError, NotFound
from images.manifest import Manifest, digest, encode_manifest
from images.store import Store

if TYPE_CHECKING:
    from images.editing.diff import Change

SHOWN = 40  # lines of each section


@click.command("log")
@click.argument("name")
@click.option("--json", "json_", is_flag=True, help="For scripts.")
@click.pass_obj
def log(site: Site, /, name: str, json_: bool) -> None:
    """The versions of an image. Newest first: where each came from and what it added."""
    rows = list(_log(site.store, name))[::-1]
    if json_:
        return show.as_json(rows)
    nodes = _nodes(site, name)
    return show.table(
        ["version", "from", "nodes get", "nodes up", "made", "source", "used", "new", "message"],
        [
            [
                f"{name}:{row['version']}",
                f"{name}:{row['parent']}" if row["parent"] else "",
                "●" if row["tagged"] else "",
                str(nodes.get(f"{name}:{row['version']}", "")),
                show.clock(row["created"]),
                show.safe(row["source"]),
                show.size(row["used"]),
                show.size(row["new"]),
                show.safe(row["message"]),
            ]
            for row in rows
        ],
        "",
    )


@click.command("diff")
@click.argument("before")
@click.argument("after", required=False)
@click.option("--files", is_flag=True, help=f"Every file that differs, and not the first {SHOWN}.")
@click.option("--json", "json_", is_flag=True, help="For scripts.")
@click.pass_obj
def diff(site: Site, /, before: str, after: str | None, files: bool, json_: bool) -> None:
    """Compare two versions. What differs, and what moving a node from one to the other costs.

    BEFORE and AFTER are NAME:NUMBER, of one image or of two. With one of them alone: what it changed in its parent.
    """
    from images.editing.diff import changes, two_versions
    from images.editing.moving import cost
    from images.editing.packages import packages

    old, new = _pair(site.store, before, after)
    price = cost(site.store, old, new)
    counts: Counter[str] = Counter()
    first: list[Change] = []

    def compare(one: Path, two: Path, tell: Callable[[int], None]) -> tuple[dict[str, str] | None, ...]:
        for change in changes(one, two, on_entry=tell):
            counts[change.how] += 1
            if files and not json_:
                print(_line(change))
            elif files or len(first) < SHOWN:
                first.append(change)
        return packages(str(one)), packages(str(two))

    had, has = two_versions(site.store, old, new, compare)
    told: dict[str, Any] = {
        "before": old.ref,
        "after": new.ref,
        "packages": _packages(had, has),
        "kernels": {"before": _kernels(old), "after": _kernels(new)},
        "files": {how: counts[how] for how in ("added", "removed", "changed")},
        "cost": {"fetch": price.fetch, "write": price.write, "zero": price.zero, "kept": price.kept},
    }
    if json_:
        rows = [{"path": _text(c.path), "how": c.how, "what": [_text(word) for word in c.what]} for c in first]
        return show.as_json({**told, "changes": rows})
    return _page(told, first)


@click.command("tag")
@click.argument("ref")
@click.pass_obj
def tag(site: Site, /, ref: str) -> None:
    """Let nodes get this version from now on. REF is NAME:NUMBER; image rollback goes back."""
    manifest, _ = site.store.load(ref)
    was = site.store.tag(manifest.name)
    site.store.set_tag(manifest.name, manifest.version)
    _gets(site, manifest, was)


@click.command("rollback")
@click.argument("name")
@click.pass_obj
def rollback(site: Site, /, name: str) -> None:
    """Let nodes get what they got before. Again: the one before that."""
    store = site.store
    store.resolve(name)
    was, earlier = store.tag(name), store.tagged_before(name)
    if not earlier:
        raise NotFound(f"nodes never got another version of {name}", f"choose one: gild.pyz image tag {name}:NUMBER")
    manifest, _ = store.load(f"{name}:{earlier[0]}")
    store.set_tag(name, earlier[0], back=True)
    _gets(site, manifest, was)


def _gets(site: Site, manifest: Manifest, was: int) -> None:
    """Say what nodes get, and who has something else."""
    before = f", and no more {manifest.name}:{was}" if was not in (0, manifest.version) else ""
    print(f"nodes get {manifest.ref} from now on{before}")
    others = {ref: count for ref, count in _nodes(site, manifest.name).items() if ref != manifest.ref}
    for ref, count in sorted(others.items()):
        print(f"  {count} {'node is' if count == 1 else 'nodes are'} up with {ref}, until installed again")


def _nodes(site: Site, name: str) -> Counter[str]:
    """How many nodes are up with each version of an image; none where nothing serves."""
    try:
        rows = site.client.get("nodes")
    except GildError:
        return Counter()
    return Counter(row["image"] for row in rows if row["state"] == "up" and row["image"].partition(":")[0] == name)


def _log(store: Store, name: str) -> Iterator[dict[str, Any]]:
    from images.editing.moving import grown

    store.resolve(name)
    tagged = store.tag(name)
    for manifest, new in grown(store, name):
        yield {
            "image": name,
            "version": manifest.version,
            "parent": manifest.parent,
            "tagged": manifest.version == tagged,
            "created": manifest.created,
            "source": str(manifest.source.get("kind", "")),
            "used": sum(partition.used for partition in manifest.partitions),
            "new": new,
            "message": manifest.message,
            "digest": digest(encode_manifest(manifest)),
        }


def _pair(store: Store, before: str, after: str | None) -> tuple[Manifest, Manifest]:
    first = store.load(before)[0]
    if after is not None:
        return first, store.load(after)[0]
    if not first.parent:
        raise NotFound(f"{first.ref} has no parent to be compared with", "name two versions")
    return store.load(f"{first.name}:{first.parent}")[0], first


def _packages(had: dict[str, str] | None, has: dict[str, str] | None) -> dict[str, Any] | None:
    if had is None or has is None:
        return None
    return {
        "added": {name: has[name] for name in sorted(has.keys() - had.keys())},
        "removed": {name: had[name] for name in sorted(had.keys() - has.keys())},
        "changed": {n: [had[n], has[n]] for n in sorted(had.keys() & has.keys()) if had[n] != has[n]},
    }


def _kernels(manifest: Manifest) -> list[str]:
    found = manifest.system.get("kernels", [])
    return [str(kernel.get("version", "")) for kernel in found if isinstance(kernel, dict)]


def _page(told: dict[str, Any], first: list[Change]) -> None:
    files, price, books = told["files"], told["cost"], told["packages"]
    _section("files", [_line(change) for change in first], sum(files.values()))
    if books is None:
        print("packages: unknown; one of the two has no package manager that can be read here")
    else:
        lines = itertools.chain(
            (f"  + {name} {version}" for name, version in books["added"].items()),
            (f"  - {name} {version}" for name, version in books["removed"].items()),
            (f"  ~ {name} {old} to {new}" for name, (old, new) in books["changed"].items()),
        )
        _section("packages", [plain(line) for line in lines], sum(map(len, books.values())))
    before, after = told["kernels"]["before"], told["kernels"]["after"]
    if before != after:
        print(plain(f"kernels: {', '.join(before) or 'none'} to {', '.join(after) or 'none'}"))
    print(f"{files['changed']} files changed, {files['added']} added, {files['removed']} removed")
    print(
        f"from {told['before']} to {told['after']} a node fetches {show.size(price['fetch'])}"
        f" and writes {show.size(price['write'] + price['zero'])}; {show.size(price['kept'])} are there already"
    )


def _section(title: str, lines: list[str], total: int) -> None:
    if not lines:
        return
    print(f"{title}:")
    for line in lines[:SHOWN]:
        print(line)
    if total > SHOWN:
        print(f"  and {total - SHOWN} more; all of them: {'--files' if title == 'files' else '--json'}")


def _line(change: Change) -> str:
    sign = {"added": "+", "removed": "-", "changed": "~"}[change.how]
    return plain(f"  {sign} {change.path}" + (f"  ({', '.join(change.what)})" if change.what else ""))


def _text(name: str) -> str:
    """A file name in JSON: bytes that are no UTF-8 as \\x.., since half a surrogate pair is no JSON text."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
