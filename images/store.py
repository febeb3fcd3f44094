"""The store: every version of every image, in files that never change once they can be seen.

    packs/<sha256>.pack, .idx      zstd frames in disk order; where each chunk lies in them
    images/<name>/<n>.json, .runs  one version; <n>.sha256 is its digest, so that damage to the manifest is found;
                                   `last` holds the highest number ever given, so none is used twice
    tags/<name>                    the number nodes get
    work/<name>/                   the lineage's working image, rebuildable from packs

A manifest is written last and by rename, so a version is whole or not there. Locks are flock(2) on files nobody
deletes: one per lineage for a writer, one for the store that publishing shares and garbage collection takes alone.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from images import packs, tags, zstd
from images.chunk import chunk_hash
from images.disk import disk_errors, hold
from images.errors import Busy, ChunkInvalid, ChunkMissing, ManifestInvalid, NotFound
from images.manifest import Manifest, Run, decode_manifest, decode_runs, digest

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
REPAIR = "gild image verify says what is damaged, gild image repair fetches it"


class Store:
    """A directory of images. Methods read the disk each time; a Store may be shared between threads."""

    def __init__(self, root: Path) -> None:
        """Use the store at `root`, making its directories. Raises NoSpace or ImageError if that is not possible."""
        self.root = Path(root)
        self.packs = self.root / "packs"
        self._digests: dict[Path, tuple[int, int, str]] = {}
        with disk_errors(f"opening the store {self.root}"):
            for directory in ("packs", "images", "tags", "work"):
                (self.root / directory).mkdir(parents=True, exist_ok=True)

    # --- reading

    def images(self) -> list[str]:
        """Names of the lineages that have a version, sorted."""
        names = (entry.name for entry in (self.root / "images").iterdir() if NAME.fullmatch(entry.name))
        return sorted(name for name in names if self.versions(name))

    def versions(self, name: str) -> list[int]:
        """Numbers of the versions of a lineage, ascending; empty if there is no such lineage."""
        directory = self._lineage(name)
        if not directory.is_dir():
            return []
        return sorted(int(p.stem) for p in directory.glob("*.json") if re.fullmatch(r"[1-9][0-9]{0,8}", p.stem))

    def resolve(self, ref: str) -> tuple[str, int]:
        """(name, number) of `name` (the tagged version, else the newest), `name:3` or `name:latest`.
        Raises NotFound with what there is instead."""
        name, colon, wanted = ref.partition(":")
        have = self.versions(name)
        if not have:
            known = ", ".join(self.images()[:10]) or "none"
            raise NotFound(f"there is no image {name!r}", f"images here: {known}")
        if colon and wanted == "latest":
            return name, have[-1]
        if colon:
            if not re.fullmatch(r"[1-9][0-9]{0,8}", wanted):
                raise NotFound(f"{ref!r} is not an image and version", f"write {name}:{have[-1]} or {name}:latest")
            if int(wanted) not in have:
                raise NotFound(f"image {name} has no version {wanted}", f"it has {', '.join(map(str, have[-10:]))}")
            return name, int(wanted)
        tagged = self.tag(name)
        return name, tagged if tagged in have else have[-1]

    def load(self, ref: str) -> tuple[Manifest, str]:
        """The manifest of a version and its digest; see `resolve` for `ref`.
        Raises NotFound, or ManifestInvalid for a damaged file."""
        name, number = self.resolve(ref)
        path = self.manifest_path(name, number)
        data = _read(path, f"manifest of {name}:{number}")
        manifest = decode_manifest(data)
        if (manifest.name, manifest.version) != (name, number):
            raise ManifestInvalid(f"{path} holds the manifest of {manifest.ref}", REPAIR)
        found = digest(data)
        if self.kept_digest(name, number) not in ("", found):
            raise ManifestInvalid(f"{path} is not the manifest that was published", REPAIR)
        return manifest, found

    def manifest_path(self, name: str, number: int) -> Path:
        """Where the manifest of a version lies."""
        return self._lineage(name) / f"{number}.json"

    def runs_path(self, name: str, number: int) -> Path:
        """Where the runs of a version lie."""
        return self._lineage(name) / f"{number}.runs"

    def digest_path(self, name: str, number: int) -> Path:
        """Where the digest of a version lies."""
        return self._lineage(name) / f"{number}.sha256"

    def kept_digest(self, name: str, number: int) -> str:
        """The digest a version was published with; empty if nobody wrote it down."""
        try:
            text = self.digest_path(name, number).read_text("ascii", "replace").strip()
        except FileNotFoundError:
            return ""
        return text if re.fullmatch(r"[0-9a-f]{64}", text) else ""

    def manifest_bytes(self, wanted: str) -> bytes:
        """The manifest with this digest (sha256, hex), byte for byte. Raises NotFound."""
        return _read(self.find_digest(wanted), f"manifest {wanted[:12]}")

    def runs_bytes(self, name: str, number: int) -> bytes:
        """The runs of all partitions of a version, one after another. Raises NotFound."""
        return _read(self.runs_path(name, number), f"runs of {name}:{number}")

    def find_digest(self, wanted: str) -> Path:
        """Path of the manifest with this digest (sha256, hex). Raises NotFound."""
        for name in self.images():
            for number in reversed(self.versions(name)):
                path = self.manifest_path(name, number)
                if self._digest(path) == wanted:
                    return path
        raise NotFound(f"no version here has the digest {wanted[:12]}", "was it removed? see gild image list")

    def runs(self, manifest: Manifest, index: int) -> list[Run]:
        """Runs of partition `index` of a version, checked against the manifest.
        Raises NotFound or ManifestInvalid."""
        partition = manifest.partitions[index]
        start = sum(p.runs_bytes for p in manifest.partitions[:index])
        data = self.runs_bytes(manifest.name, manifest.version)[start : start + partition.runs_bytes]
        if digest(data) != partition.runs_sha256:
            raise ManifestInvalid(f"runs of {manifest.ref}, partition {index}, are not those of its manifest")
        return decode_runs(data, size=partition.size, chunk_size=manifest.chunk_size, packs=len(manifest.packs))

    def pack_path(self, sha256: str) -> Path:
        """Path of a pack by its sha256 in hex. Raises NotFound for anything else, so it is safe on a URL's text."""
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise NotFound(f"{sha256[:80]!r} is not the name of a pack")
        return self.packs / f"{sha256}.pack"

    def tag(self, name: str) -> int:
        """The number of the version nodes get; 0 if there is none."""
        self._lineage(name)
        try:
            text = (self.root / "tags" / name).read_text()
        except FileNotFoundError:
            return 0
        return int(text) if re.fullmatch(r"[1-9][0-9]{0,8}\n?", text) else 0

    def read_chunk(self, pack: str, offset: int, frame: int, length: int, name: bytes) -> bytes | memoryview:
        """The raw bytes of one chunk: `frame` bytes at `offset` of a pack, `length` bytes raw, checked against its
        hash. Raises ChunkMissing or ChunkInvalid."""
        path = self.pack_path(pack)
        try:
            with path.open("rb") as file:
                data = os.pread(file.fileno(), frame, offset)
        except OSError as error:
            raise ChunkMissing(f"pack {pack[:12]} cannot be read: {error.strerror}", "restore the store") from None
        try:
            raw = zstd.decompress(data, length)
        except ChunkInvalid as error:
            raise ChunkInvalid(f"chunk at {offset} of pack {pack[:12]}: {error.message}", "gild image verify") from None
        if len(raw) != length or chunk_hash(raw) != name:
            raise ChunkInvalid(f"chunk at {offset} of pack {pack[:12]} does not match its hash", "gild image verify")
        return raw

    # --- writing

    def set_tag(self, name: str, number: int, *, back: bool = False) -> None:
        """Make `number` the version nodes get; `back` says that it is one they had before, and the way to it is undone
        (see images.tags). Raises NotFound if it does not exist."""
        self.resolve(f"{name}:{number}")
        with disk_errors(f"tagging {name}:{number}"):
            packs.write_file(self.root / "tags" / name, f"{number}\n".encode())
            tags.remember(self._lineage(name), number, time.time(), back=back)

    def tagged_before(self, name: str) -> list[int]:
        """Versions that nodes got before the one they get now and that are still there, the last one first."""
        have = self.versions(name)
        return [number for number in tags.before(self._lineage(name), self.tag(name)) if number in have]

    def remove(self, ref: str) -> None:
        """Remove `name:3`, or with `name` alone the whole lineage, its tag and its working image. Packs stay until gc.
        Raises NotFound, and Busy for the tagged version while others exist or while somebody works on the lineage."""
        name, number = self.resolve(ref)
        whole = ":" not in ref
        have = self.versions(name)
        if not whole and number == self.tag(name) and len(have) > 1:
            raise Busy(f"{name}:{number} is what nodes get", f"tag another version first: gild image tag {name}:N")
        if (whole or len(have) == 1) and (self.work(name) / "held").exists():
            raise Busy(f"{name} is mounted for editing", f"first: gild.pyz image edit {name} --publish, or --discard")
        with self.lineage_lock(name), disk_errors(f"removing {ref}"):
            for version in have if whole or len(have) == 1 else [number]:
                # The manifest goes first: what is left over without it is garbage, not a broken version.
                self.manifest_path(name, version).unlink(missing_ok=True)
                self.runs_path(name, version).unlink(missing_ok=True)
                self.digest_path(name, version).unlink(missing_ok=True)
            packs.sync_directory(self._lineage(name))
            if not self.versions(name):
                (self.root / "tags" / name).unlink(missing_ok=True)
                shutil.rmtree(self.work(name), ignore_errors=True)

    def add_version(self, manifest_data: bytes, name: str, number: int, runs: bytes) -> None:
        """Make a version visible: runs first, the manifest last. The packs must be there. Raises NoSpace."""
        with disk_errors(f"storing {name}:{number}"):
            packs.write_file(self.runs_path(name, number), runs)
            packs.write_file(self._lineage(name) / "last", f"{max(number, self.next_version(name) - 1)}\n".encode())
            packs.write_file(self.digest_path(name, number), f"{digest(manifest_data)}\n".encode())
            packs.write_file(self.manifest_path(name, number), manifest_data)

    def next_version(self, name: str) -> int:
        """The number the next version of a lineage gets: never one that was given before, even if it was removed."""
        last = self._lineage(name) / "last"
        text = last.read_text().strip() if last.exists() else ""
        return max([0, *self.versions(name), int(text) if re.fullmatch(r"[0-9]{1,9}", text) else 0]) + 1

    def work(self, name: str) -> Path:
        """Directory of the lineage's working image; it may not exist."""
        self._lineage(name)
        return self.root / "work" / name

    @contextmanager
    def lineage_lock(self, name: str) -> Iterator[None]:
        """Hold a lineage for writing. Raises Busy, naming the process, if somebody else does."""
        directory = self._lineage(name)
        with disk_errors(f"locking image {name}"):
            directory.mkdir(exist_ok=True)
        with (
            hold(self.root / ".lock", exclusive=False, what="the store"),
            hold(directory / ".lock", exclusive=True, what=f"image {name}"),
        ):
            yield

    # --- inside

    def _lineage(self, name: str) -> Path:
        if not NAME.fullmatch(name):
            raise NotFound(
                f"{name[:80]!r} is not a name for an image", "a-z, 0-9, '.', '_', '-', at most 63 characters"
            )
        return self.root / "images" / name

    def _digest(self, path: Path) -> str:
        stat = path.stat()
        known = self._digests.get(path)
        if known and known[:2] == (stat.st_mtime_ns, stat.st_size):
            return known[2]
        if len(self._digests) > 10000:
            self._digests.clear()
        value = digest(path.read_bytes())
        self._digests[path] = (stat.st_mtime_ns, stat.st_size, value)
        return value


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"{what} is not in the store") from None
