"""An archive of the root of a system becomes a version."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from images import working
from images.errors import SourceInvalid
from images.manifest import Manifest
from images.options import Options
from images.sources.archive import Archive
from images.sources.compressed import PIECE, Compressed, Readable
from images.sources.space import Space
from images.sources.unpack import Unpacker
from images.store import Store

RECORD = 1 << 20  # bytes tar may write after its end mark, to fill a record (tar --blocking-factor)
EVERY = 256  # members between two words about progress


def import_tar(store: Store, name: str, archive: Path | IO[bytes], options: Options) -> Manifest:
    """Publish the tree in a tar archive as the next version of `name`. `archive` is a file or an open stream, which may
    be a pipe; plain or compressed with gzip, bzip2, xz, lzma or zstd. It holds the root directory itself, with owners
    by number: `tar --format=posix --xattrs --xattrs-include='*' --acls --selinux --numeric-owner --sparse -c .` writes
    all that is kept. Needs root.
    Raises SourceInvalid, naming the member, for anything that would leave the tree or cannot be; Busy, NoSpace,
    CommandFailed."""
    if os.geteuid() != 0:
        raise SourceInvalid("importing an archive must set the owner of every file", "run this as root")
    shown = os.fspath(archive) if isinstance(archive, Path) else "the archive"

    def fill(tree: Path) -> dict[str, Any]:
        if isinstance(archive, Path):
            with _opened(archive) as file:
                _read(file, shown, os.fstat(file.fileno()).st_size, tree, options)
            return {"kind": "tar", "file": archive.name}
        _read(archive, shown, 0, tree, options)
        return {"kind": "tar", "file": "stream"}

    return working.from_tree(store, name, fill, options)


def unpack(
    file: Readable,
    target: Path,
    on_bytes: Callable[[int], None] | None = None,
    *,
    shown: str = "the archive",
    whole: bool = True,
) -> int:
    """Unpack a tar stream, compressed or not, into the empty directory `target`; gives the number of members. Owners by
    number, modes, times, hard links, devices (inside dev/ only, but for harmless ones), extended attributes, ACLs and
    holes are set. `on_bytes` hears how many bytes were taken in; nothing is read beyond the end mark but what was
    buffered. `shown` names the stream in messages; without `whole` it need not have an end mark. Needs root.

    Refused by SourceInvalid, naming the member: paths that lead up, a member below a symbolic link, a hard link to
    anything but a file unpacked before, a device, names, sizes, headers and maps beyond the limits, and whatever is no
    whole archive. NoSpace before the disk is full: declared sizes are held against the free space. Raises OSError."""
    stream = Compressed(file, shown)
    return _unpack(stream, target, on_bytes, shown, whole)


def _opened(archive: Path) -> IO[bytes]:
    try:
        return archive.open("rb")
    except OSError as error:
        raise SourceInvalid(f"{archive} cannot be read: {error.strerror}") from None


def _read(file: Readable, shown: str, total: int, tree: Path, options: Options) -> None:
    def tell(done: int) -> None:
        options.tell("unpack", min(done, total) if total else done, total or done)

    stream = Compressed(file, shown)
    _unpack(stream, tree, tell, shown, True)
    # To the end of the last record: what is compressed has its checksum there, and who writes into a pipe is not to
    # find it closed.
    for _ in range(RECORD // (1 << 16)):
        if not stream.read(1 << 16):
            break
    tell(stream.taken)


def _unpack(stream: Compressed, target: Path, on_bytes: Callable[[int], None] | None, shown: str, whole: bool) -> int:
    unpacker = Unpacker(target, Space(target))
    archive = Archive(stream, shown, whole=whole)
    told = 0
    for member in archive.members():
        unpacker.add(archive, member)
        if on_bytes and (unpacker.count % EVERY == 0 or stream.taken - told > PIECE):
            told = stream.taken
            on_bytes(told)
    unpacker.finish()
    return unpacker.count
