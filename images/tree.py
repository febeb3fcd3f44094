"""Files of an installed system seen from outside. The tree is hostile until checked: no link in it leads out of it.

Names are resolved as the system itself would resolve them with `root` as its "/": absolute links start there, ".."
stops there. Nobody else changes the tree meanwhile (a mounted disk of this machine, or a working image of one process).
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import os
import stat

from images.errors import ImageError
from images.labels import Labels, labels_of

MAX_HOPS = 40  # links in one name, as the kernel has it (MAXSYMLINKS, include/linux/namei.h)
MAX_READ = 1 << 20  # bytes of one configuration file
MAX_LISTED = 20_000  # entries of one directory
MAX_TABLE = 8 << 20  # bytes of SELinux's table of labels; Fedora's has half a megabyte
LABEL = "security.selinux"  # the extended attribute that SELinux reads (xattr(7))
PART = ".gild-part"  # suffix of a file that is being written


class TreeInvalid(ImageError):
    """A name in the tree loops, is of the wrong kind or cannot be written; the message names it."""


class Tree:
    """The system whose files lie below `root`. Every path is relative to it, with or without a leading "/"."""

    def __init__(self, root: str) -> None:
        self.root = os.path.realpath(root)
        self._labels: list[Labels | None] = []  # the table, once it was needed

    def resolve(self, path: str, *, last: bool = True) -> str:
        """`path` without links, relative to the tree ("usr/lib/systemd/systemd"). With last=False a link at the end is
        kept. Parts that do not exist stay as they are. Raises TreeInvalid for a loop."""
        todo, done, hops = _parts(path)[::-1], list[str](), 0
        while todo:
            part = todo.pop()
            if part == "..":
                done = done[:-1]
                continue
            here = os.path.join(self.root, *done, part)
            if (todo or last) and os.path.islink(here):
                hops += 1
                if hops > MAX_HOPS:
                    raise TreeInvalid(f"{_plain(path)} in the image leads through more than {MAX_HOPS} links")
                target = os.readlink(here)
                if target.startswith("/"):
                    done = []
                todo.extend(_parts(target)[::-1])
            else:
                done.append(part)
        return "/".join(done)

    def place(self, path: str, *, last: bool = True) -> str:
        """Where `path` lies for this process; never outside of the tree. Raises TreeInvalid."""
        return os.path.join(self.root, self.resolve(path, last=last)).rstrip("/")

    def is_file(self, path: str) -> bool:
        """A regular file, links followed inside the tree. A loop is no file."""
        return stat.S_ISREG(self._mode(path))

    def is_dir(self, path: str) -> bool:
        """A directory, links followed inside the tree."""
        return stat.S_ISDIR(self._mode(path))

    def link(self, path: str) -> str:
        """The target of the link `path`, "" if it is none."""
        with contextlib.suppress(OSError, TreeInvalid):
            return os.readlink(self.place(path, last=False))
        return ""

    def lexists(self, path: str) -> bool:
        """Something of that name is there, be it a dangling link."""
        with contextlib.suppress(TreeInvalid):
            return os.path.lexists(self.place(path, last=False))
        return False

    def names(self, directory: str, pattern: str = "*") -> list[str]:
        """Sorted names in `directory` that fit a shell pattern; [] if there is no such directory."""
        with contextlib.suppress(OSError, TreeInvalid), os.scandir(self.place(directory)) as entries:
            found = [entry.name for _, entry in zip(range(MAX_LISTED), entries, strict=False)]
            return sorted(name for name in found if fnmatch.fnmatchcase(name, pattern) and not name.endswith(PART))
        return []

    def read(self, path: str, limit: int = MAX_READ) -> bytes:
        """The file's bytes, b"" if there is none. Raises TreeInvalid if it is not a regular file or larger than
        `limit` bytes."""
        try:
            # Without O_NONBLOCK a FIFO of that name would hold us for ever.
            fd = os.open(self.place(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise TreeInvalid(f"{_plain(path)} in the image cannot be read: {error.strerror}") from None
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            raise TreeInvalid(f"{_plain(path)} in the image is not a regular file")
        with os.fdopen(fd, "rb") as file:
            # Never read(limit): Python sets that much memory aside first, and an installer may have 300 MB in all.
            data = file.read(min(limit, status.st_size) + 1)
        if len(data) > limit:
            raise TreeInvalid(f"{_plain(path)} in the image is larger than {limit} bytes")
        return data

    def text(self, path: str, limit: int = MAX_READ) -> str:
        """`read` as text; bytes that are not UTF-8 survive being written back with `write`."""
        return self.read(path, limit).decode("utf-8", "surrogateescape")

    def write(self, path: str, data: str | bytes, mode: int | None = None, group: int | None = None) -> bool:
        """Put a file in place whole or not at all; False if it stood there like that already.

        A link of that name is replaced, not followed. `mode` is by default that of the file it replaces, else 0644; the
        owner is root and the group `group`, or that of the file it replaces. Directories are made. The SELinux label is
        that of the old file, else what the system's table says, else that of a neighbour. Raises TreeInvalid.
        """
        body = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
        self.make_dir(os.path.dirname(path))
        place = self.place(path, last=False)
        try:
            old: os.stat_result | None = os.lstat(place)
        except FileNotFoundError:
            old = None
        if old is not None and stat.S_ISDIR(old.st_mode):
            raise TreeInvalid(f"{_plain(path)} in the image is a directory and should be a file")
        old = old if old is not None and stat.S_ISREG(old.st_mode) else None
        wanted = mode if mode is not None else stat.S_IMODE(old.st_mode) if old else 0o644
        gid = group if group is not None else old.st_gid if old else os.getegid()
        same = old is not None and old.st_size == len(body) and stat.S_IMODE(old.st_mode) == wanted
        if same and old is not None and old.st_gid == gid and _same(place, body):
            return False
        label = self._label(place, "f", old is not None)
        part = place + PART
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part)
            fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(body)
                _set_label(fd, label)
                if os.fstat(fd).st_gid != gid:
                    os.fchown(fd, -1, gid)
                os.fchmod(fd, wanted)
            os.rename(part, place)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(part)
            raise TreeInvalid(f"{_plain(path)} in the image cannot be written: {error.strerror}") from None
        return True

    def make_link(self, path: str, target: str) -> bool:
        """Make `path` a link to `target`, which is stored as it is; False if it was one already. Raises TreeInvalid."""
        if self.link(path) == target:
            return False
        self.make_dir(os.path.dirname(path))
        place = self.place(path, last=False)
        part = place + PART
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part)
            os.symlink(target, part)
            _set_label(part, self._label(place, "l", False))
            os.rename(part, place)
        except OSError as error:
            raise TreeInvalid(f"{_plain(path)} in the image cannot become a link: {error.strerror}") from None
        return True

    def remove(self, path: str) -> bool:
        """Remove a file or link (never what it leads to); False if there was none. Raises TreeInvalid."""
        try:
            os.unlink(self.place(path, last=False))
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno == errno.ENOTDIR:
                return False
            raise TreeInvalid(f"{_plain(path)} in the image cannot be removed: {error.strerror}") from None
        return True

    def rename(self, path: str, to: str) -> None:
        """Rename a file or link within its directory, over whatever had that name. Raises TreeInvalid."""
        place = self.place(path, last=False)
        try:
            os.rename(place, os.path.join(os.path.dirname(place), to))
        except OSError as error:
            raise TreeInvalid(f"{_plain(path)} in the image cannot be renamed: {error.strerror}") from None

    def make_dir(self, path: str, mode: int = 0o755) -> None:
        """Make a directory and those above it; one that exists stays as it is. Raises TreeInvalid."""
        at = self.root
        for part in _parts(self.resolve(path)):
            at = os.path.join(at, part)
            try:
                os.mkdir(at)
                os.chmod(at, mode)
                _set_label(at, self._label(at, "d", False))
            except FileExistsError:
                if not stat.S_ISDIR(os.lstat(at).st_mode):
                    raise TreeInvalid(f"{_plain(path)} in the image is no directory") from None
            except OSError as error:
                raise TreeInvalid(f"{_plain(path)} in the image cannot be made: {error.strerror}") from None

    def _mode(self, path: str) -> int:
        try:
            return os.lstat(self.place(path)).st_mode
        except (OSError, TreeInvalid):
            return 0

    def _label(self, place: str, kind: str, replaces: bool) -> bytes:
        """The SELinux label for a file ("f"), directory ("d") or link ("l") at `place`, b"" where none are in use."""
        if replaces:
            with contextlib.suppress(OSError):
                return os.getxattr(place, LABEL, follow_symlinks=False)
        if not self._labels:
            self._labels.append(None)
            with contextlib.suppress(TreeInvalid):
                self._labels[0] = labels_of(lambda path: self.text(path, MAX_TABLE))
        table = self._labels[0]
        found = table.of("/" + place[len(self.root) :].lstrip("/"), kind) if table else b""
        if found:
            return found
        directory, candidates = os.path.dirname(place), list[str]()
        if kind == "f":
            with contextlib.suppress(OSError), os.scandir(directory) as entries:
                near = (entry.path for _, entry in zip(range(100), entries, strict=False) if _regular(entry))
                candidates = sorted(near)[:1]
        for candidate in (*candidates, directory):
            with contextlib.suppress(OSError):
                return os.getxattr(candidate, LABEL, follow_symlinks=False)
        return b""


def _set_label(target: str | int, label: bytes) -> None:
    if not label:
        return
    try:
        if isinstance(target, int):
            os.setxattr(target, LABEL, label)
        else:
            os.setxattr(target, LABEL, label, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.ENOTSUP:  # a FAT has no place for it
            raise


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _regular(entry: os.DirEntry[str]) -> bool:
    return entry.is_file(follow_symlinks=False)


def _same(place: str, body: bytes) -> bool:
    with open(place, "rb") as file:
        return file.read(len(body) + 1) == body


def _plain(path: str) -> str:
    return "/" + "".join(c if c.isprintable() else "?" for c in path.lstrip("/"))[:200]
