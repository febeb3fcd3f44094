"""Healing a store: only what is damaged is fetched, and nothing is replaced before its hash is right."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from images import packs, zstd
from images.chunk import chunk_hash
from images.disk import disk_errors, hold
from images.errors import ChunkInvalid, ChunkMissing, ImageError, NotFound
from images.fetch import Fetcher
from images.keeping.damage import Damage, Report
from images.keeping.exporting import made_index
from images.keeping.spares import Spare
from images.keeping.usage import Frame, Use, used_frames, users
from images.keeping.verify import check_version, verify
from images.manifest import MAX_PACK, decode_manifest, digest
from images.options import LEVEL, Progress
from images.store import Store

PIECE = 4 << 20  # bytes of one fetch when a whole pack is needed
LEVELS = (LEVEL, 1, 9, 19)  # of zstd: those that are offered; the right one gives the frame that was lost


@dataclass(frozen=True, slots=True)
class Repaired:
    """What `repair` did: files that are right again, by their path below the store; bytes that were fetched; and what
    is still damaged."""

    healed: tuple[str, ...]
    fetched: int
    left: Report


def repair(
    store: Store, refs: Sequence[str] = (), spare: Spare | None = None, progress: Progress | None = None
) -> Repaired:
    """Verify the versions `refs` (none: the whole store) and heal what is damaged: from what is here, other packs and
    working images, and from `spare`. A manifest that is lost or damaged is healed if its digest was written down.
    `progress` hears ("verify" and "repair", bytes done, bytes in all).

    Raises NotFound, NoSpace, Busy, and ChunkMissing if the spare cannot be asked at all. What could not be healed is in
    the answer."""
    with hold(store.root / ".lock", exclusive=False, what="the store"), disk_errors("repairing"):
        work = _Repair(store, spare, progress)
        try:
            work.versions(refs)
            report = verify(store, refs, progress)
            left = work.packs(report)
        finally:
            work.close()
        return Repaired(tuple(work.healed), work.fetched, left)


def lost(store: Store) -> list[str]:
    """Versions of which a digest is left but no manifest."""
    found = []
    for directory in sorted((store.root / "images").iterdir()):
        for path in sorted(directory.glob("*.sha256")):
            if path.stem.isdecimal() and not path.with_suffix(".json").exists():
                found.append(f"{directory.name}:{path.stem}")
    return found


class _Repair:
    def __init__(self, store: Store, spare: Spare | None, progress: Progress | None) -> None:
        self._store, self._spare, self._progress = store, spare, progress
        self._fetcher: Fetcher | None = None
        self._indexes: list[packs.PackIndex] | None = None
        self.healed: list[str] = []
        self.fetched = 0
        self._size = 0  # of the pack in hand, as the spare has it

    def close(self) -> None:
        if self._fetcher is not None:
            self._fetcher.close()

    # --- a version's own files

    def versions(self, refs: Sequence[str]) -> None:
        """Heal manifests, runs and digests: what the packs must hold is known only then."""
        store, gone = self._store, lost(self._store)
        for ref in gone if not refs else [ref for ref in refs if ref in gone]:
            name, _, text = ref.partition(":")
            self._manifest(name, int(text))
        every = [f"{name}:{n}" for name in store.images() for n in store.versions(name)]
        for name, number in map(store.resolve, refs or every):
            ref = f"{name}:{number}"
            found, manifest = check_version(store, ref)
            if manifest is None and self._manifest(name, number):
                found, manifest = check_version(store, ref)
            for damage in found if manifest else ():
                if damage.file.endswith(".runs"):
                    self._runs(name, number)
                elif damage.file.endswith(".sha256"):
                    sha = digest(store.manifest_path(name, number).read_bytes())
                    packs.write_file(store.digest_path(name, number), f"{sha}\n".encode())
                    self.healed.append(damage.file)

    def _manifest(self, name: str, number: int) -> bool:
        wanted, path = self._store.kept_digest(name, number), self._store.manifest_path(name, number)
        data = self._spare.manifest(wanted) if self._spare and wanted else None
        if data is None or digest(data) != wanted or decode_manifest(data).ref != f"{name}:{number}":
            return False
        if not path.exists() and not self._runs(name, number, data):
            return False  # a manifest is seen last, when the rest is there
        packs.write_file(path, data)
        self.fetched += len(data)
        self.healed.append(f"images/{name}/{number}.json")
        return True

    def _runs(self, name: str, number: int, data: bytes | None = None) -> bool:
        store, path = self._store, self._store.runs_path(name, number)
        manifest = decode_manifest(data) if data is not None else store.load(f"{name}:{number}")[0]
        old = path.read_bytes() if path.exists() else b""
        new, at = [], 0
        for part in manifest.partitions:
            piece: bytes | None = old[at : at + part.runs_bytes]
            at += part.runs_bytes
            if piece is None or digest(piece) != part.runs_sha256:
                piece = self._spare.runs(part.runs_sha256) if self._spare else None
                if piece is None or digest(piece) != part.runs_sha256:
                    return False
                self.fetched += len(piece)
            new.append(piece)
        if b"".join(new) != old:
            packs.write_file(path, b"".join(new))
            self.healed.append(f"images/{name}/{number}.runs")
        return True

    # --- packs

    def packs(self, report: Report) -> Report:
        """Heal packs and indexes; gives what is left."""
        left: list[Damage] = []
        by_file: dict[str, list[Damage]] = {}
        for damage in report.damage:
            by_file.setdefault(damage.file, []).append(damage)
        for file, found in sorted(by_file.items(), key=lambda row: row[0].endswith(".idx")):
            if self._heal(Path(file), found):
                self.healed.append(file)
            else:
                left += found
        whole = {damage.pack for damage in left if damage.pack}
        more = 0 if not whole else report.more
        return Report(tuple(left), more, report.checked, report.size, report.strays)

    def _heal(self, file: Path, found: Sequence[Damage]) -> bool:
        if file.suffix == ".pack":
            return self._pack(file.stem, found)
        return file.suffix == ".idx" and self._index(file.stem)

    def _index(self, pack: str) -> bool:
        try:
            packs.write_file(self._store.packs / f"{pack}.idx", made_index(self._store, pack))
        except ChunkMissing:
            return False
        return True

    def _pack(self, pack: str, found: Sequence[Damage]) -> bool:
        """Three tries, the cheapest first: what is here, the same places of the spare's pack, all of the spare's."""
        path = self._store.pack_path(pack)
        self._size = size = self._spare.size(pack) if self._spare else 0
        places = {damage.offset: damage for damage in found if damage.chunk >= 0 or damage.length}
        with self._copy() as (temporary, fd):
            if path.exists() and all(damage.offset >= 0 for damage in found):
                try:
                    shutil.copyfile(path, temporary)
                except OSError as error:
                    if error.errno in (errno.ENOSPC, errno.EDQUOT):
                        raise
                else:
                    wanted = self._frames(pack, found)
                    ends = max((frame[0] + frame[1] for frame in wanted), default=0)
                    os.truncate(fd, size or max(ends, path.stat().st_size))
                    if self._patch(pack, fd, wanted, local=True) and self._right(pack, temporary):
                        return self._put(pack, temporary, fd)
                    if size and places and self._patch(pack, fd, wanted, local=False) and self._right(pack, temporary):
                        return self._put(pack, temporary, fd)
            if size and self._whole(pack, fd, size) and self._right(pack, temporary):
                return self._put(pack, temporary, fd)
        return False

    def _frames(self, pack: str, found: Sequence[Damage]) -> list[Frame]:
        """The frames at the damaged places, and all behind the end of a pack that was cut off."""
        frames = set(used_frames(self._store, [pack])[pack])
        with suppress(ImageError, OSError):
            data = (self._store.packs / f"{pack}.idx").read_bytes()
            frames |= {(o, length, raw, name) for name, o, length, raw in packs.PackIndex(pack, data).entries()}
        starts = {damage.offset for damage in found if damage.length}
        cut = min((damage.offset for damage in found if not damage.length), default=MAX_PACK)
        return sorted(frame for frame in frames if frame[0] in starts or frame[0] + frame[1] > cut)

    def _patch(self, pack: str, fd: int, wanted: Sequence[Frame], *, local: bool) -> bool:
        """Write the right bytes of frames; False if some of them cannot be had."""
        places: dict[int, list[Use]] = {}
        for use in users(self._store, pack, {frame[0] for frame in wanted}) if local else ():
            places.setdefault(use.offset, []).append(use)
        for frame in wanted:
            data = (self._here(pack, frame, places.get(frame[0], [])) if local else None) or self._fetch(
                pack, frame[0], frame[1]
            )
            if data is None or not _is(data, frame):
                return False
            os.pwrite(fd, data, frame[0])
        return bool(wanted)

    def _whole(self, pack: str, fd: int, size: int) -> bool:
        os.ftruncate(fd, 0)
        for at in range(0, size, PIECE):
            data = self._fetch(pack, at, min(PIECE, size - at))
            if data is None:
                return False
            os.pwrite(fd, data, at)
            if self._progress:
                self._progress("repair", min(at + PIECE, size), size)
        return True

    def _fetch(self, pack: str, offset: int, length: int) -> bytes | memoryview | None:
        if self._spare is None or offset + length > self._size:
            return None
        try:
            if self._fetcher is None:
                self._fetcher = self._spare.open()
            data = self._fetcher.fetch(pack, offset, length)
        except ChunkMissing:
            return None
        self.fetched += length
        return data

    def _here(self, pack: str, frame: Frame, places: Sequence[Use]) -> bytes | None:
        """A frame from another pack with the same chunk, or compressed anew from a working image. The pack's hash says
        in the end whether its bytes are the same."""
        _, length, raw, name = frame
        if self._indexes is None:
            self._indexes = []
            for path in self._store.packs.glob("*.idx"):
                with suppress(ImageError, OSError):
                    self._indexes.append(packs.read_index(self._store.packs, path.stem))
        for index in self._indexes:
            place = index.find(name) if index.pack != pack else None
            if place and place[1] == length:
                with suppress(OSError), self._store.pack_path(index.pack).open("rb") as file:
                    data = os.pread(file.fileno(), length, place[0])
                    if len(data) == length and _is(data, frame):
                        return data
        for use in places:
            with suppress(OSError, ImageError):
                data = self._from_work(use, raw)
                for level in LEVELS if chunk_hash(data) == name else ():
                    if len(packed := zstd.compress(data, level)) == length:
                        return packed
        return None

    def _from_work(self, use: Use, length: int) -> bytes:
        """A chunk of the working image, if it is that of the version. Raises OSError, NotFound."""
        manifest, sha = self._store.load(use.ref)
        current = self._store.work(manifest.name) / "current"
        if (current / "digest").read_text("ascii").strip() != sha:
            raise NotFound("the working image is that of another version")
        with (current / f"{use.role}.img").open("rb") as file:
            return os.pread(file.fileno(), length, use.chunk * manifest.chunk_size)

    @contextmanager
    def _copy(self) -> Iterator[tuple[Path, int]]:
        """A temporary file beside the packs, that is gone afterwards unless it was put in place."""
        with ExitStack() as stack:
            fd, name = tempfile.mkstemp(prefix=".tmp-", dir=self._store.packs)
            stack.callback(os.close, fd)
            stack.callback(Path(name).unlink, missing_ok=True)
            yield Path(name), fd

    def _right(self, pack: str, path: Path) -> bool:
        return packs.hash_file(path) == pack

    def _put(self, pack: str, temporary: Path, fd: int) -> bool:
        os.fchmod(fd, 0o644)
        os.fsync(fd)
        os.replace(temporary, self._store.pack_path(pack))
        packs.write_mark(self._store.packs, pack, ())
        packs.sync_directory(self._store.packs)
        if not (self._store.packs / f"{pack}.idx").exists():
            self._index(pack)
        return True


def _is(data: bytes | memoryview, frame: Frame) -> bool:
    """Whether these are the bytes of a frame."""
    try:
        raw = zstd.decompress(data, frame[2])
    except ChunkInvalid:
        return False
    return len(raw) == frame[2] and chunk_hash(raw) == frame[3]
