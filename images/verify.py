"""Finding damage: every stored byte against the hash that names it, and which versions what is found touches."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from images import zstd
from images.chunk import chunk_hash
from images.errors import ChunkInvalid, ChunkMissing, ImageError, ManifestInvalid, NotFound
from images.manifest import Manifest, Run
from images.options import Progress
from images.packs import BLOCK, PackIndex, read_mark, write_mark
from images.usage import Frame, Use, frames_of, readable, used_frames, users
from images.workers import Workers

if TYPE_CHECKING:
    from images.store import Store

MAX_DAMAGE = 1000  # findings of one verify; a dead disk would give one per chunk
BATCH = 4 << 20  # bytes of frames a worker gets at once
KNOWN = re.compile(r"[0-9a-f]{64}\.(pack|idx|damaged)")
OF_A_LINEAGE = re.compile(r"[1-9][0-9]{0,8}\.(json|runs|sha256)|last|tags|\.lock")


@dataclass(frozen=True, slots=True)
class Damage:
    """One damaged file, or a place in it: `file` is its path below the store, `versions` are those it touches. For a
    chunk: `offset` and `length` of its frame in the pack (bytes), and where the first of `versions` has it."""

    file: str
    what: str
    versions: tuple[str, ...] = ()
    partition: str = ""
    chunk: int = -1
    offset: int = -1
    length: int = 0

    @property
    def pack(self) -> str:
        """The pack's sha256 in hex; empty if it is not a pack's damage."""
        return Path(self.file).stem if self.file.endswith(".pack") else ""

    def __str__(self) -> str:
        name = f"pack {self.pack[:12]}" if self.pack else self.file
        place = f", byte {self.offset}" if self.offset >= 0 else ""
        place += f", chunk {self.chunk} of {self.partition}" if self.chunk >= 0 else ""
        return f"{name}{place}: {self.what}"


@dataclass(frozen=True, slots=True)
class Report:
    """What `verify` found: `checked` versions and `size` bytes of packs were read; `more` findings did not fit;
    `strays` are files that belong to no version (path below the store, why), which harm nothing."""

    damage: tuple[Damage, ...] = ()
    more: int = 0
    checked: tuple[str, ...] = ()
    size: int = 0
    strays: tuple[tuple[str, str], ...] = ()


def verify(store: Store, refs: Sequence[str] = (), progress: Progress | None = None, *, workers: int = 0) -> Report:
    """Read every pack of the versions `refs` (none: of the whole store) once, and compare all hashes: of packs, of
    chunks, of runs, of manifests. With `workers` threads (0: one a processor). `progress` hears ("verify", bytes done,
    bytes in all). What is found is noted beside the packs, so that nobody uses it meanwhile, and the note goes when it
    is sound again. Raises NotFound for a version that does not exist."""
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
        return [Damage(f"images/{name}/{number}.json", _told(error), (ref,))], None
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
        return [Damage(file, _told(error), (ref,))], manifest
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
            found.append(Damage(file, "is missing" if missing else _told(error), (ref,)))
            continue
        if size < ends.get(pack, 0):
            found.append(Damage(file, f"ends after {size} bytes", (ref,), offset=size))
            continue
        spoilt = read_mark(store.packs, pack)
        if spoilt is None or (spoilt and any(use.ref == ref for use in users(store, pack, spoilt))):
            found.append(Damage(file, "was found damaged", (ref,)))
    return found


def refuse_damaged(store: Store, ref: str) -> None:
    """Raise ChunkInvalid, naming the first thing that `quick` finds, if the version may not be served or ordered."""
    found = quick(store, ref)
    if found:
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        raise ChunkInvalid(f"{ref} is damaged: {found[0]}{more}", "gild image repair --from a bundle or another head")


class Reader:
    """Reads packs from front to end, once; workers check the frames meanwhile."""

    def __init__(self, store: Store, packs: Sequence[str], progress: Progress | None = None) -> None:
        """`packs` are there; `progress` as for `verify`."""
        self._store, self._progress = store, progress
        self._packs = list(packs)
        self.total = sum(store.pack_path(pack).stat().st_size for pack in packs)
        self.more = 0
        self._done = 0
        self._used = used_frames(store, packs)
        self._spoilt: dict[str, dict[Frame, str]] = {pack: {} for pack in packs}
        self._whole: dict[str, tuple[str, int]] = {}  # pack -> what is wrong with it, and from which byte on
        self._indexes: list[Damage] = []
        self._lock = threading.Lock()

    def batches(self) -> Iterator[list[tuple[str, Frame, bytes]]]:
        """Frames with their bytes, a few MiB at once, while the packs themselves are hashed."""
        for pack in self._packs:
            yield from self._read(pack)

    def check(self, batches: Iterator[list[tuple[str, Frame, bytes]]]) -> None:
        """Compare the chunks of batches with their hashes."""
        for batch in batches:
            for pack, frame, data in batch:
                try:
                    raw = zstd.decompress(data, frame[2])
                    what = "" if len(raw) == frame[2] and chunk_hash(raw) == frame[3] else "does not match its hash"
                except ChunkInvalid as error:
                    what = error.message
                if what:
                    self._bad(pack, frame, what)

    def finish(self) -> None:
        """Note what was found beside the packs. Where the disk cannot be written, nothing is noted."""
        for pack in self._packs:
            spoilt = self._spoilt[pack]
            offsets = {frame[0] for frame in spoilt} if len(spoilt) < MAX_DAMAGE else None
            with suppress(OSError):
                write_mark(self._store.packs, pack, offsets)
        if self._progress:
            self._progress("verify", self.total, self.total)

    def findings(self) -> list[Damage]:
        """Everything that was found, with the versions it touches."""
        found = list(self._indexes)
        for pack in self._packs:
            file, spoilt = f"packs/{pack}.pack", self._spoilt[pack]
            what, start = self._whole.get(pack, ("", -1))
            uses = users(self._store, pack, {frame[0] for frame in spoilt}) if spoilt else []
            by_offset: dict[int, list[Use]] = {}
            for use in uses:
                by_offset.setdefault(use.offset, []).append(use)
            if what and (start >= 0 or not spoilt):
                refs = tuple(dict.fromkeys(use.ref for use in uses if use.end > start))
                found.append(Damage(file, what, refs, offset=start))
            for frame, wrong in sorted(spoilt.items()):
                if frame[0] + frame[1] > start >= 0:
                    continue  # it is behind the end, which is told already
                places = by_offset.get(frame[0], [])
                refs = tuple(dict.fromkeys(use.ref for use in places))
                role, chunk = (places[0].role, places[0].chunk) if places else ("", -1)
                found.append(Damage(file, wrong, refs, role, chunk, frame[0], frame[1]))
        return found

    def _read(self, pack: str) -> Iterator[list[tuple[str, Frame, bytes]]]:
        try:
            fd = os.open(self._store.pack_path(pack), os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            self._whole[pack] = (f"cannot be read: {error.strerror}", -1)
            return
        try:
            size = os.fstat(fd).st_size
            indexed = self._index(pack)
            running, at, held = hashlib.sha256(), 0, 0
            batch: list[tuple[str, Frame, bytes]] = []
            for frame in sorted(self._used[pack] | indexed):
                if frame[0] + frame[1] > size:
                    self._whole[pack] = (f"ends after {size} bytes", size)
                    self._bad(pack, frame, f"ends after {size} bytes")
                    continue
                while at < frame[0]:
                    at += self._pass(pack, fd, running, at, min(BLOCK, frame[0] - at))
                try:
                    data = os.pread(fd, frame[1], frame[0])
                except OSError as error:
                    self._bad(pack, frame, f"cannot be read: {error.strerror}")
                    data = b""
                if len(data) == frame[1]:
                    batch.append((pack, frame, data))
                if frame[0] == at:  # another frame may overlap this one: then these bytes were seen
                    running.update(data)
                    at += frame[1]
                    self._count(frame[1])
                held += len(data)
                if held >= BATCH:
                    yield batch
                    batch, held = [], 0
            while at < size:
                at += self._pass(pack, fd, running, at, min(BLOCK, size - at))
            yield batch
            if running.hexdigest() != pack:
                self._whole.setdefault(pack, ("its bytes do not match its name, though its chunks are right", -1))
        finally:
            os.close(fd)

    def _pass(self, pack: str, fd: int, running: hashlib._Hash, at: int, length: int) -> int:
        """Hash bytes that no frame covers."""
        try:
            running.update(os.pread(fd, length, at))
        except OSError as error:
            self._whole[pack] = (f"cannot be read at byte {at}: {error.strerror}", at)
        self._count(length)
        return length

    def _index(self, pack: str) -> set[Frame]:
        """The frames the pack's index names; what is wrong with the index is noted."""
        file = f"packs/{pack}.idx"
        try:
            data = (self._store.packs / f"{pack}.idx").read_bytes()
            frames = {(offset, frame, raw, name) for name, offset, frame, raw in PackIndex(pack, data).entries()}
        except FileNotFoundError:
            what = "is missing: new versions cannot share the pack's chunks"
            self._indexes.append(Damage(file, what))
            return set()
        except (ChunkInvalid, OSError) as error:
            self._indexes.append(Damage(file, _told(error)))
            return set()
        used = self._used[pack]
        places = {frame[0]: frame for frame in used}
        if any(places.get(frame[0], frame) != frame for frame in frames):
            self._indexes.append(Damage(file, "does not agree with the runs of the versions"))
            return set()
        return frames - used

    def _bad(self, pack: str, frame: Frame, what: str) -> None:
        with self._lock:
            if len(self._spoilt[pack]) >= MAX_DAMAGE:
                self.more += 1
            else:
                self._spoilt[pack][frame] = what

    def _count(self, length: int) -> None:
        self._done += length
        if self._progress:
            self._progress("verify", min(self._done, self.total), self.total)


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


def _told(error: Exception) -> str:
    if isinstance(error, ChunkMissing | ImageError):
        return error.message
    return f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
