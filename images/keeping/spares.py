"""Where right bytes come from when a store is damaged: another store, another head, or a bundle.

Nothing here is believed: whoever asks knows the hash of what it asks for.
"""

from __future__ import annotations

import http.client
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from images.errors import BundleDamaged, ChunkMissing, ImageError, SourceInvalid
from images.fetch import Fetcher, FileSource, HttpSource
from images.keeping.bundle import END, KEY_SIZE, MAX_RUNS, SIGNATURE_SIZE, START, Header, decode_header, decode_start
from images.manifest import MAX_MANIFEST, MAX_PACK, decode_manifest
from images.store import Store

TIMEOUT = 20.0  # seconds without a byte


class Spare(Protocol):
    """Somebody who may have what is damaged here."""

    def manifest(self, digest: str) -> bytes | None:
        """The manifest with that digest; None if it is not there."""
        ...

    def runs(self, sha256: str) -> bytes | None:
        """The runs of a partition with that sha256; None if they are not there."""
        ...

    def size(self, pack: str) -> int:
        """The bytes of a pack; 0 if it is not there."""
        ...

    def open(self) -> Fetcher:
        """A connection that gives ranges of packs."""
        ...


def spare_at(place: str) -> Spare:
    """The spare that `place` names: an http:// URL of a head, a bundle, or the directory of a store or of a state.
    Raises SourceInvalid, BundleDamaged, ChunkMissing."""
    if "://" in place:
        return HeadSpare(place)
    path = Path(place)
    if path.is_file():
        return BundleSpare(path)
    for root in (path, path / "store"):
        if (root / "packs").is_dir() and (root / "images").is_dir():
            return StoreSpare(root)
    raise SourceInvalid(
        f"{place} is no bundle, no store of images and no URL", "for another head: --from http://ADDRESS"
    )


class StoreSpare:
    """Another store on this machine."""

    def __init__(self, root: Path) -> None:
        self._store = Store(root)

    def manifest(self, digest: str) -> bytes | None:
        """Looks at every version."""
        try:
            return self._store.manifest_bytes(digest)
        except ImageError:
            return None

    def runs(self, sha256: str) -> bytes | None:
        """Looks at every version."""
        for name in self._store.images():
            for number in self._store.versions(name):
                try:
                    at = 0
                    for part in self._store.load(f"{name}:{number}")[0].partitions:
                        if part.runs_sha256 == sha256:
                            return self._store.runs_bytes(name, number)[at : at + part.runs_bytes]
                        at += part.runs_bytes
                except ImageError:  # one damaged version does not keep the others from helping
                    continue
        return None

    def size(self, pack: str) -> int:
        """As the file system says."""
        path = self._store.pack_path(pack)
        return path.stat().st_size if path.is_file() else 0

    def open(self) -> Fetcher:
        """Reads the files."""
        return FileSource(os.fspath(self._store.packs)).open()


class HeadSpare:
    """A head that serves its packs, manifests and runs to everybody."""

    def __init__(self, base: str) -> None:
        self._packs = HttpSource([base.rstrip("/")])
        self._base = urlsplit(base.rstrip("/"))

    def manifest(self, digest: str) -> bytes | None:
        """Asks for it."""
        return self._ask("GET", f"/manifests/{digest}", MAX_MANIFEST)[1]

    def runs(self, sha256: str) -> bytes | None:
        """Asks for them."""
        return self._ask("GET", f"/runs/{sha256}", MAX_RUNS)[1]

    def size(self, pack: str) -> int:
        """Asks for it."""
        return self._ask("HEAD", f"/packs/{pack}.pack", 0)[0]

    def open(self) -> Fetcher:
        """A connection of its own."""
        return self._packs.open()

    def _ask(self, method: str, path: str, most: int) -> tuple[int, bytes | None]:
        """Length and body of an answer of at most `most` bytes; (0, None) if it is not there."""
        connection = http.client.HTTPConnection(self._base.hostname or "", self._base.port or 80, timeout=TIMEOUT)
        try:
            connection.request(method, self._base.path + path)
            response = connection.getresponse()
            length = response.headers.get("Content-Length", "")
            if response.status == 404 or response.status == 410:
                return 0, None
            if response.status != 200 or not length.isdecimal() or not int(length) <= (most or MAX_PACK):
                raise OSError(0, f"status {response.status}, {length[:20] or 'no'} bytes")
            body = b"" if method == "HEAD" else response.read(int(length))
            if method != "HEAD" and len(body) != int(length):
                raise OSError(0, f"sent {len(body)} of {length} bytes")
            return int(length), body
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            said = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise ChunkMissing(f"{self._base.geturl()}{path}: {said}", "does a head serve there?") from None
        finally:
            connection.close()


class BundleSpare:
    """A bundle in a file. Its signature does not matter here: what it gives is compared with what is known."""

    def __init__(self, path: Path) -> None:
        """Raises BundleDamaged if it is not a bundle or not whole, SourceInvalid if it cannot be read."""
        self._path = path
        self._manifests: dict[str, tuple[int, int]] = {}
        self._runs: dict[str, tuple[int, int]] = {}
        self._packs: dict[str, tuple[int, int]] = {}
        try:
            with path.open("rb") as file:
                size = decode_start(file.read(START.size))
                self.header: Header = decode_header(file.read(size))
                at = START.size + size + KEY_SIZE + SIGNATURE_SIZE
                if path.stat().st_size != at + self.header.body + len(END):
                    raise BundleDamaged(
                        f"{path} has {path.stat().st_size} bytes, not {at + self.header.body + len(END)}"
                    )
                digests = {version.ref: version.digest for version in self.header.versions}
                for kind, name, length in self.header.places():
                    if kind == "manifest":
                        self._manifests[digests[name]] = (at, length)
                    elif kind == "runs":
                        self._runs.update(self._parts(file.fileno(), digests[name], at, length))
                    elif kind == "pack":
                        self._packs[name] = (at, length)
                    at += length
        except OSError as error:
            raise SourceInvalid(f"{path} cannot be read: {error.strerror}") from None

    def manifest(self, digest: str) -> bytes | None:
        """As it lies in the file."""
        return self._bytes(self._manifests.get(digest))

    def runs(self, sha256: str) -> bytes | None:
        """As they lie in the file."""
        return self._bytes(self._runs.get(sha256))

    def size(self, pack: str) -> int:
        """As the header says."""
        return self._packs.get(pack, (0, 0))[1]

    def open(self) -> Fetcher:
        """Reads the file."""
        return _BundleFetcher(self._path, self._packs)

    def _parts(self, fd: int, digest: str, at: int, length: int) -> Iterator[tuple[str, tuple[int, int]]]:
        """Where the runs of each partition of a version lie; none if its manifest is damaged."""
        start, size = self._manifests[digest]
        try:
            manifest = decode_manifest(os.pread(fd, size, start))
        except ImageError:
            return
        end = at + length
        for part in manifest.partitions:
            if at + part.runs_bytes <= end:
                yield part.runs_sha256, (at, part.runs_bytes)
            at += part.runs_bytes

    def _bytes(self, place: tuple[int, int] | None) -> bytes | None:
        if place is None:
            return None
        try:
            with self._path.open("rb") as file:
                file.seek(place[0])
                return file.read(place[1])
        except OSError:
            return None


class _BundleFetcher:
    def __init__(self, path: Path, packs: dict[str, tuple[int, int]]) -> None:
        self._path, self._packs = path, packs
        self._file = path.open("rb")

    def fetch(self, pack: str, offset: int, length: int) -> memoryview:
        at, size = self._packs.get(pack, (0, 0))
        try:
            data = os.pread(self._file.fileno(), length, at + offset) if offset + length <= size else b""
        except OSError as error:
            raise ChunkMissing(f"{self._path} cannot be read: {error.strerror}") from None
        if len(data) != length:
            raise ChunkMissing(f"bytes {offset}+{length} of pack {pack} are not in {self._path}")
        return memoryview(data)

    def distrust(self) -> None:
        """The same bytes will come again."""

    def close(self) -> None:
        self._file.close()
