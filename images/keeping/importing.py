"""Versions out of a bundle into a store: whole and verified, or not at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from images import packs
from images.disk import disk_errors
from images.errors import BundleDamaged, ChunkInvalid, ChunkMissing, ImageError, ManifestInvalid, NoSpace
from images.keeping.bundle import (
    END,
    KEY_SIZE,
    SIGNATURE_SIZE,
    START,
    Header,
    Pack,
    Version,
    decode_header,
    decode_start,
    message,
)
from images.keeping.garbage import sweep
from images.keeping.usage import frames_of
from images.manifest import Manifest, decode_manifest, decode_runs, digest
from images.options import Progress
from images.store import Store

AGAIN = "fetch or export it again; nothing of it was kept"

# public key, what is signed, signature, what the head calls itself -> what the key is called here
Check = Callable[[bytes, bytes, bytes, str], str]


@dataclass(frozen=True)
class Imported:
    """What became of a bundle: versions that are new here, versions that were here already; who signed it; the bytes
    of packs that were new."""

    added: tuple[str, ...]
    present: tuple[str, ...]
    signer: str
    size: int = 0


@dataclass
class _Fresh:
    """What is not in the store yet, on its way."""

    versions: list[tuple[Version, bytes, bytes]] = field(default_factory=list)
    packs: list[tuple[Pack, bytes, Path]] = field(default_factory=list)


class Reader:
    """A bundle as it comes."""

    def __init__(self, stream: IO[bytes], progress: Progress | None = None) -> None:
        self._stream, self._progress = stream, progress
        self.at = self.total = 0

    def head(self, check: Check) -> tuple[Header, str]:
        """The header, once `check` has accepted its signature, and what `check` calls the signer. Raises BundleDamaged,
        and what `check` raises."""
        encoded = self.take(decode_start(self.take(START.size, "its start")), "the header")
        key, signature = self.take(KEY_SIZE, "the key"), self.take(SIGNATURE_SIZE, "the signature")
        try:
            header = decode_header(encoded)
        except BundleDamaged:
            check(key, message(encoded), signature, "")  # a changed file is told first, for it is the likelier one
            raise
        signer = check(key, message(encoded), signature, header.head)
        self.total = self.at + header.body + len(END)
        return header, signer

    def take(self, length: int, what: str) -> bytes:
        """The next `length` bytes."""
        return b"".join(self.pieces(length, what))

    def pieces(self, length: int, what: str) -> Iterator[bytes]:
        """The next `length` bytes in pieces, as they come: a hostile length takes no memory."""
        left = length
        while left:
            try:
                piece = self._stream.read(min(left, packs.BLOCK))
            except OSError as error:
                raise BundleDamaged(f"the bundle cannot be read at byte {self.at}: {error.strerror}", AGAIN) from None
            if not piece:
                raise BundleDamaged(f"the bundle ends at byte {self.at}, in {what}", AGAIN)
            left -= len(piece)
            self.at += len(piece)
            if self._progress and self.total:
                self._progress("read", self.at, self.total)
            yield piece

    def end(self) -> None:
        """Raises BundleDamaged unless the bundle ends here."""
        if self.take(len(END), "its end") != END or self._stream.read(1):
            raise BundleDamaged("the bundle does not end where it should", AGAIN)


def import_bundle(store: Store, stream: IO[bytes], check: Check, progress: Progress | None = None) -> Imported:
    """Take every version of a bundle that is not here yet into the store. `check` verifies who signed it, before
    anything is written. A lineage that is new gets its newest version tagged. `progress` hears ("read", bytes done,
    bytes in all).

    Raises BundleDamaged (also where it was cut short), what `check` raises, ImageError if another version has a number
    that is in it, ChunkMissing if packs that are not in it are not here, NoSpace, Busy. Whatever is raised, the store
    is as it was; if the process is killed, the next import or collection of garbage removes what it left."""
    reader = Reader(stream, progress)
    header, signer = reader.head(check)
    fresh = _new_versions(store, header)
    present = tuple(v.ref for v in header.versions if v not in fresh)
    if not fresh:
        return Imported((), present, signer)
    _check_packs(store, header)
    sweep(store)
    needed = sum(pack.size + pack.index for pack in header.packs if pack.included and not _there(store, pack))
    free = os.statvfs(store.packs)
    if needed > free.f_bavail * free.f_frsize:
        raise NoSpace(
            f"importing: the disk is full: {needed >> 20} MiB are needed, {free.f_bavail * free.f_frsize >> 20} free",
            "free some space, or gild image gc",
        )
    with ExitStack() as locks:
        for name in sorted({version.name for version in fresh}):
            locks.enter_context(store.lineage_lock(name))
        fresh = _new_versions(store, header)  # somebody may have been quicker
        with _given_back() as temporary, disk_errors("importing"):
            coming = _receive(store, reader, header, fresh, temporary)
            _keep(store, coming)
        for name in sorted({version.name for version in fresh}):
            if not store.tag(name):
                store.set_tag(name, max(v.number for v in fresh if v.name == name))
    return Imported(tuple(v.ref for v in fresh), present, signer, sum(pack.size for pack, _, _ in coming.packs))


def _new_versions(store: Store, header: Header) -> list[Version]:
    """The versions that are not here. Raises ImageError if a number stands for something else here."""
    fresh = []
    for version in header.versions:
        if version.number not in store.versions(version.name):
            fresh.append(version)
            continue
        try:
            sha = store.load(version.ref)[1]
        except ManifestInvalid:
            sha = store.kept_digest(version.name, version.number)
        if sha != version.digest:
            raise ImageError(
                f"{version.ref} is another version here ({sha[:12] or 'damaged'}) than in the bundle "
                f"({version.digest[:12]})",
                "its name is part of what is signed: to keep both, import it on an empty --state, "
                f"or remove the one here: gild.pyz image rm {version.ref}",
            )
    return fresh


def _check_packs(store: Store, header: Header) -> None:
    missing = [pack.sha256 for pack in header.packs if not pack.included and not _there(store, pack)]
    if missing:
        named = ", ".join(sha[:12] for sha in missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise ChunkMissing(
            f"the bundle leaves out {len(missing)} packs that are not here: {named}",
            "export it whole, or with the list of what is here: gild.pyz image have",
        )


def _there(store: Store, pack: Pack) -> bool:
    """Whether a pack is here, whole as far as is known."""
    try:
        size = store.pack_path(pack.sha256).stat().st_size
    except FileNotFoundError:
        return False
    return size == pack.size and packs.read_mark(store.packs, pack.sha256) == frozenset()


@contextmanager
def _given_back() -> Iterator[list[Path]]:
    """A list of files that go if the block fails."""
    made: list[Path] = []
    try:
        yield made
    except BaseException:
        for path in made:
            path.unlink(missing_ok=True)
        raise


def _receive(store: Store, reader: Reader, header: Header, wanted: list[Version], temporary: list[Path]) -> _Fresh:
    """Everything to the end of the bundle, verified; packs in temporary files, on the disk."""
    fresh = _Fresh()
    sizes = {pack.sha256: pack.size for pack in header.packs}
    for version in header.versions:
        manifest = reader.take(version.manifest, f"the manifest of {version.ref}")
        runs = reader.take(version.runs, f"the runs of {version.ref}")
        _check_version(version, manifest, runs, sizes)
        if version in wanted:
            fresh.versions.append((version, manifest, runs))
    for pack in header.packs:
        if not pack.included:
            continue
        index = reader.take(pack.index, f"the index of pack {pack.sha256[:12]}")
        if hashlib.sha256(index).hexdigest() != pack.index_sha256:
            raise BundleDamaged(f"the index of pack {pack.sha256[:12]} was changed on its way", AGAIN)
        try:
            if any(
                offset + length > pack.size for _, offset, length, _ in packs.PackIndex(pack.sha256, index).entries()
            ):
                raise ChunkInvalid("it names bytes behind the pack's end")
        except ChunkInvalid as error:
            raise BundleDamaged(f"the index of pack {pack.sha256[:12]}: {error.message}", AGAIN) from None
        path = None if _there(store, pack) else _temporary(store, temporary)
        running = hashlib.sha256()
        with open(path or os.devnull, "wb") as file:
            for piece in reader.pieces(pack.size, f"pack {pack.sha256[:12]}"):
                running.update(piece)
                if path:
                    file.write(piece)
            if running.hexdigest() != pack.sha256:
                raise BundleDamaged(f"pack {pack.sha256[:12]} was changed on its way", AGAIN)
            if path:
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
                fresh.packs.append((pack, index, path))
    reader.end()
    return fresh


def _check_version(version: Version, manifest_data: bytes, runs_data: bytes, sizes: dict[str, int]) -> None:
    """The manifest is the one that was signed, its runs are its own, and they lie within packs of the bundle."""
    if digest(manifest_data) != version.digest:
        raise BundleDamaged(f"the manifest of {version.ref} was changed on its way", AGAIN)
    try:
        manifest: Manifest = decode_manifest(manifest_data)
        if manifest.ref != version.ref or sum(p.runs_bytes for p in manifest.partitions) != version.runs:
            raise ManifestInvalid(f"it is the manifest of {manifest.ref}")
        at = 0
        for index, part in enumerate(manifest.partitions):
            data = runs_data[at : at + part.runs_bytes]
            at += part.runs_bytes
            if digest(data) != part.runs_sha256:
                raise BundleDamaged(f"the runs of {version.ref} were changed on their way", AGAIN)
            runs = decode_runs(data, size=part.size, chunk_size=manifest.chunk_size, packs=len(manifest.packs))
            for pack, chunk, frame in frames_of(manifest, index, runs):
                if frame[0] + frame[1] > sizes.get(pack, 0):
                    raise ManifestInvalid(f"chunk {chunk} of {part.role} lies in no pack of the bundle")
    except ManifestInvalid as error:
        raise BundleDamaged(f"{version.ref} in the bundle: {error.message}", "export it again") from None


def _temporary(store: Store, temporary: list[Path]) -> Path:
    fd, name = tempfile.mkstemp(prefix=".tmp-", dir=store.packs)
    os.close(fd)
    temporary.append(Path(name))
    return Path(name)


def _keep(store: Store, fresh: _Fresh) -> None:
    """Make it all visible: packs first, each version last and at once."""
    made: list[Path] = []
    try:
        for pack, index, path in fresh.packs:
            final = store.pack_path(pack.sha256)
            if not final.exists():
                made += [final.with_suffix(".idx"), final]
            packs.write_file(final.with_suffix(".idx"), index)
            os.replace(path, final)
            packs.write_mark(store.packs, pack.sha256, ())
        packs.sync_directory(store.packs)
        for version, manifest, runs in fresh.versions:
            made += [
                store.manifest_path(version.name, version.number),
                store.runs_path(version.name, version.number),
                store.digest_path(version.name, version.number),
            ]
            store.add_version(manifest, version.name, version.number, runs)
    except BaseException:
        # The manifests first: nobody may see a version without its packs.
        for path in sorted(made, key=lambda path: path.suffix != ".json"):
            path.unlink(missing_ok=True)
        raise
