"""Finding damage: every stored byte against the hash that names it, and which versions what is found touches."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from images.disk import hold
from images.errors import ChunkInvalid, ImageError, ManifestInvalid, NotFound
from images.keeping.damage import MAX_DAMAGE, Damage, Report, told
from images.keeping.rehash import Reader
from images.keeping.usage import frames_of, readable
from images.manifest import Manifest, Run
from images.options import Progress
from images.packs import read_mark
from images.workers import Workers

if TYPE_CHECKING:
    from images.store import Store

KNOWN = re.compile(r"[0-9a-f]{64}\.(pack|idx|damaged)")
OF_A_LINEAGE = re.compile(r"[1-9][0-9]{0,8}\.(json|runs|sha256)|last|tags|\.lock")


def verify(store: Store, refs: Sequence[str] = (), progress: Progress | None = None, *, workers: int = 0) -> Report:
    """Read every pack of the versions `refs` (none: of the whole store) once, and compare all hashes: of packs, of
    chunks, of runs, of manifests. With `workers` threads (0: one a processor). `progress` hears ("verify", bytes done,
    bytes in all). What is found is noted beside the packs, so that nobody uses it meanwhile, and the note goes when it
    is sound again. No garbage is collected meanwhile. Raises NotFound for a version that does not exist, Busy."""
    with hold(store.root / ".lock", exclusive=False, what="the store"):
        wanted = [f"{name}:{n}" for name, n in map(store.resolve, refs)] if refs else _all(store)
        found: list[Damage] = []
        packs: dict[str, list[str]] = {} if refs else {p.stem: [] for p in sorted(store.packs.glob("*.pack"))}
        for ref in wanted:
            damage, manifest = check_version(store, ref)
            found += damage
            for pack in manifest.packs if manifest else ():
                packs.setdefault(pack, []).append(ref)
        whole = [pack for pack in packs if store.pack_path(pack).exists()]
        for pack in packs.keys() - set(whole):
            touched = tuple(m.ref for m in readable(store) if pack in m.packs)
            found.append(Damage(f"packs/{pack}.pack", "is missing", touched))
        reader = Reader(store, whole, progress)
        Workers(workers or os.cpu_count() or 1, "verifying").share(reader.batches(), reader.check)
        reader.finish()
        found += reader.findings()
        strays = () if refs else tuple(_strays(store))
        found.sort(key=lambda damage: (damage.file, damage.offset))
        kept = tuple(found[:MAX_DAMAGE])
        return Report(kept, len(found) - len(kept) + reader.more, tuple(wanted), reader.total, strays)


def check_version(store: Store, ref: str) -> tuple[list[Damage], Manifest | None]:
    """Damage to a version's own files, manifest and runs; and its manifest, if that can be read. Reads no pack."""
    name, number = store.resolve(ref)
    try:
        manifest, _ = store.load(ref)
    except (ManifestInvalid, NotFound, OSError) as error:
        return [Damage(f"images/{name}/{number}.json", told(error), (ref,))], None
    file = f"images/{name}/{number}.runs"
    try:
        size, wanted = store.runs_path(name, number).stat().st_size, sum(p.runs_bytes for p in manifest.partitions)
        if size != wanted:
            return [Damage(file, f"has {size} bytes, not {wanted}", (ref,))], manifest
        for index in range(len(manifest.partitions)):
            store.runs(manifest, index)
    except FileNotFoundError:
        return [Damage(file, "is missing", (ref,))], manifest
    except (ImageError, OSError) as error:
        return [Damage(file, told(error), (ref,))], manifest
    found = []
    if not store.kept_digest(name, number) and store.digest_path(name, number).exists():
        found.append(Damage(f"images/{name}/{number}.sha256", "is not a sha256", (ref,)))
    return found, manifest


def quick(store: Store, ref: str) -> list[Damage]:
    """Whether a version may be ordered and served, without reading its packs: its own files are right, its packs are
    there and long enough, and no verify found damage in what it uses. Empty means yes. A few stat(2) calls once it has
    been asked for this version. Raises NotFound."""
    name, number = store.resolve(ref)
    ref = f"{name}:{number}"
    try:
        manifest, sha = store.load(ref)
        stamp = store.runs_path(name, number).stat()
        ends = dict(_ends(store, ref, sha, stamp.st_mtime_ns, stamp.st_size))
    except (ImageError, OSError):
        return check_version(store, ref)[0] or [Damage(f"images/{name}/{number}.runs", "cannot be read", (ref,))]
    found = []
    for pack in manifest.packs:
        file, path = f"packs/{pack}.pack", store.pack_path(pack)
        try:
            size = path.stat().st_size
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            found.append(Damage(file, "is missing" if missing else told(error), (ref,)))
            continue
        if size < ends.get(pack, 0):
            found.append(Damage(file, f"ends after {size} bytes", (ref,), offset=size))
            continue
        spoilt = read_mark(store.packs, pack)
        if spoilt is None or (spoilt and _uses(store, manifest, pack, spoilt)):
            found.append(Damage(file, "was found damaged", (ref,)))
    return found


def refuse_damaged(store: Store, ref: str) -> None:
    """Raise ChunkInvalid, naming the first thing that `quick` finds, if the version may not be served or ordered."""
    found = quick(store, ref)
    if found:
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        raise ChunkInvalid(f"{ref} is damaged: {found[0]}{more}", "gild image repair --from a bundle or another head")


@lru_cache(maxsize=64)
def _ends(store: Store, ref: str, sha: str, changed: int, size: int) -> tuple[tuple[str, int], ...]:
    """How long each pack must be for a version; the last three say when the answer is another one."""
    manifest, _ = store.load(ref)
    ends: dict[str, int] = {}
    for index in range(len(manifest.partitions)):
        runs: list[Run] = store.runs(manifest, index)
        for pack, _, frame in frames_of(manifest, index, runs):
            ends[pack] = max(ends.get(pack, 0), frame[0] + frame[1])
    return tuple(ends.items())


def _uses(store: Store, manifest: Manifest, pack: str, offsets: frozenset[int]) -> bool:
    """Whether a version uses one of the frames at these offsets of a pack."""
    return any(
        where == pack and frame[0] in offsets
        for index in range(len(manifest.partitions))
        for where, _, frame in frames_of(manifest, index, store.runs(manifest, index))
    )


def _all(store: Store) -> list[str]:
    return [f"{name}:{number}" for name in store.images() for number in store.versions(name)]


def _strays(store: Store) -> Iterator[tuple[str, str]]:
    """Files of the store that no version has a use for, and why."""
    wanted = {pack for manifest in readable(store) for pack in manifest.packs}
    for path in sorted(store.packs.iterdir()):
        name, pack = f"packs/{path.name}", path.name.partition(".")[0]
        if path.name.startswith(".tmp-"):
            yield name, "left by a command that was cut off"
        elif not KNOWN.fullmatch(path.name):
            yield name, "is no file of gild's"
        elif path.suffix == ".pack" and pack not in wanted:
            yield name, "no version needs it"
        elif path.suffix != ".pack" and not path.with_suffix(".pack").exists() and pack not in wanted:
            yield name, "its pack is not there"
    for directory in sorted((store.root / "images").iterdir()):
        for path in sorted(directory.iterdir()) if directory.is_dir() else [directory]:
            name = os.fspath(path.relative_to(store.root))
            if path.name.startswith(".tmp-"):
                yield name, "left by a command that was cut off"
            elif not OF_A_LINEAGE.fullmatch(path.name) or not path.is_file():
                yield name, "is no file of gild's"
            elif path.suffix in (".runs", ".sha256") and not path.with_suffix(".json").exists():
                yield name, "its manifest is not there"
