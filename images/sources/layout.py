"""The files of a container image on its way in: those of a directory, or of a tar archive, compressed or not."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, Protocol

from images.errors import SourceInvalid
from images.options import Options
from images.sources.archive import Archive
from images.sources.compressed import PIECE, Compressed
from images.sources.names import clean, show
from images.sources.space import Space

MAX_FILES = 20_000  # in an archive of images: three for each of a few thousand layers
MAX_LINKS = 8


class Layout(Protocol):
    """Files by name ("index.json", "blobs/sha256/..."); `shown` names the whole for messages."""

    shown: str

    def has(self, name: str) -> bool: ...

    def open(self, name: str) -> BinaryIO: ...


class DirectoryLayout:
    """A directory of this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.shown = os.fspath(path)

    def has(self, name: str) -> bool:
        """There is a file of that name, links in between not followed out of it."""
        return (self._path / clean(name)).is_file()

    def open(self, name: str) -> BinaryIO:
        """The file, to read and seek. Raises SourceInvalid if there is none."""
        place = self._path / clean(name)
        try:
            if not place.resolve().is_relative_to(self._path.resolve()):
                raise SourceInvalid(f"{show(name)} in {self.shown} leads out of it")
            # Without O_NONBLOCK a FIFO of that name would hold us for ever.
            fd = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError, RuntimeError):
            raise _missing(name, self.shown) from None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise SourceInvalid(f"{show(name)} in {self.shown} is no file")
        return os.fdopen(fd, "rb")


class TarLayout:
    """The members of a tar archive that is a plain file: read where they lie. Raises SourceInvalid."""

    def __init__(self, file: BinaryIO, shown: str) -> None:
        self._fd = file.fileno()
        self.shown = shown
        self._files: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        file.seek(0)
        archive = Archive(file, shown, seekable=file)
        for member in archive.members():
            name = clean(member.name)
            if member.kind == stat.S_IFREG and member.segments is None:
                self._files[name] = archive.position, member.size
            elif member.kind == 0:
                self._links[name] = clean(member.target)
            elif member.kind == stat.S_IFLNK:
                # docker save writes one for a layer that it has saved already.
                self._links[name] = _beside(name, member.target)
            elif member.kind != stat.S_IFDIR:
                raise SourceInvalid(f"archive member {member.shown} does not belong into an archive of images")
            if len(self._files) + len(self._links) > MAX_FILES:
                raise SourceInvalid(f"{shown} has more than {MAX_FILES} files: it is no archive of images")

    def has(self, name: str) -> bool:
        """There is a file of that name."""
        return self._find(name) is not None

    def open(self, name: str) -> BinaryIO:
        """The file, to read and seek. Raises SourceInvalid if there is none."""
        found = self._find(name)
        if found is None:
            raise _missing(name, self.shown)
        return io.BufferedReader(_Slice(self._fd, *found), PIECE)

    def _find(self, name: str) -> tuple[int, int] | None:
        for _ in range(MAX_LINKS):
            if name in self._files:
                return self._files[name]
            name = self._links.get(name, "")
        return None


class _Slice(io.RawIOBase):
    def __init__(self, fd: int, start: int, size: int) -> None:
        self._fd, self._start, self._size, self._at = fd, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        view = memoryview(buffer)[: max(0, self._size - self._at)]
        done = os.preadv(self._fd, [view], self._start + self._at) if view else 0
        self._at += done
        return done


@contextmanager
def open_layout(source: Path | IO[bytes], beside: Path, options: Options) -> Iterator[Layout]:
    """The files of a directory, of an archive, or of a stream. What is compressed or comes by a pipe is copied to the
    disk of the directory `beside` first, as a file without a name, so that nothing of it can stay.
    Raises SourceInvalid, NoSpace, OSError."""
    if not isinstance(source, Path):
        with _spooled(Compressed(source, "the archive"), "the archive", beside, options) as file:
            yield TarLayout(file, "the archive")
    elif source.is_dir():
        yield DirectoryLayout(source)
    else:
        shown = os.fspath(source)
        with source.open("rb") as opened:
            stream = Compressed(opened, shown)
            if not stream.kind and stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                yield TarLayout(opened, shown)
            else:
                with _spooled(stream, shown, beside, options) as file:
                    yield TarLayout(file, shown)


@contextmanager
def _spooled(stream: Compressed, shown: str, beside: Path, options: Options) -> Iterator[BinaryIO]:
    space, done = Space(beside), 0
    with tempfile.TemporaryFile(dir=beside, buffering=0) as file:
        while piece := stream.read(PIECE):
            space.take(len(piece), shown)
            view = memoryview(piece)
            while view:
                view = view[file.write(view) or 0 :]
            done += len(piece)
            options.tell("read", done, done)
        yield file


def read_checked(layout: Layout, name: str, limit: int, digest: str = "", size: int = -1) -> bytes:
    """A small file whole. Raises SourceInvalid if it is missing, larger than `limit` bytes, or not of that digest
    ("sha256:...") and size."""
    with layout.open(name) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise SourceInvalid(f"{show(name)} in {layout.shown} is larger than {limit >> 20} MiB")
    if digest and (size not in (-1, len(data)) or f"sha256:{hashlib.sha256(data).hexdigest()}" != digest):
        raise damaged(name, layout)
    return data


def check_blob(layout: Layout, name: str, file: BinaryIO, digest: str, size: int) -> None:
    """Read a blob to its end and then go back to its beginning. Raises SourceInvalid unless it is of that digest and
    size (-1: any)."""
    found, done = hashlib.sha256(), 0
    while piece := file.read(PIECE):
        found.update(piece)
        done += len(piece)
        if size >= 0 and done > size:
            break
    if (size >= 0 and done != size) or f"sha256:{found.hexdigest()}" != digest:
        raise damaged(name, layout)
    file.seek(0)


def damaged(name: str, layout: Layout) -> SourceInvalid:
    """The error for a file that is not what it was said to be."""
    return SourceInvalid(f"{show(name)} in {layout.shown} is damaged: its sha256 or size is another", "fetch it again")


def _missing(name: str, shown: str) -> SourceInvalid:
    return SourceInvalid(f"{shown} has no {show(name)}: the image is not whole", "save it again, with all its layers")


def _beside(name: str, target: str) -> str:
    """Where a relative link from `name` leads, by its words; raises SourceInvalid if out of the archive."""
    parts = name.split("/")[:-1]
    for part in target.split("/"):
        if part == "..":
            if not parts:
                raise SourceInvalid(f"archive member {show(name)} is a link out of the archive")
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return clean("/".join(parts))
