"""Members of an archive become files of a tree. They are hostile until checked: nothing is written outside of it."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from images.errors import ImageError, NoSpace, SourceInvalid
from images.ext4 import EPOCH
from images.sources.acl import encode_acl, read_ids
from images.sources.archive import Archive, Member
from images.sources.names import clean, show
from images.sources.pax import MAX_ATTRIBUTE
from images.sources.space import Space
from images.tree import Tree, TreeInvalid

MAX_MEMBERS = 5_000_000
# The login records of user 4294967294 make lastlog 1.2 TB long, nearly all of it a hole (292 bytes a user, lastlog(8)).
MAX_HOLES = 2 << 40  # bytes in all
MAX_LATER = 256 << 20  # bytes of what is remembered until the end
REMEMBERED = 200  # bytes that one thing remembered takes beside its name
ALLOWED_XATTR = re.compile(r"(?:security|user|trusted)\.[^\x00]{1,200}|system\.posix_acl_(?:access|default)")
# What belongs to a filesystem of another kind and means nothing on this one.
FOREIGN_XATTR = ("btrfs.", "com.apple.")
DEFAULT_ACL = "system.posix_acl_default"
# Devices that every chroot has and that give nobody anything: null zero full random urandom, tty ptmx (devices.txt of
# the kernel). A chroot of named or postfix is part of many systems.
HARMLESS = frozenset(((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)))
TIMES = -(1 << 31), (1 << 34) - (1 << 31) - 1  # what an ext4 inode can hold (Documentation/filesystems/ext4, inodes)
# What the kernel says of a name, an attribute or a file that no filesystem takes.
IMPOSSIBLE = frozenset(
    (errno.EINVAL, errno.ENAMETOOLONG, errno.E2BIG, errno.ERANGE, errno.EFBIG, errno.EPERM, errno.EACCES,
     errno.EOVERFLOW, errno.EILSEQ, errno.EMLINK, errno.ENOTDIR, errno.ENOENT, errno.EISDIR, errno.ELOOP)
)  # fmt: skip


class Unpacker:
    """Unpacks members into the empty directory `target`: owners by number, modes, times, hard links, devices, extended
    attributes and ACLs. Nobody else changes `target` meanwhile. Needs root."""

    def __init__(self, target: Path, space: Space) -> None:
        self._root = os.fspath(target)
        self._space = space
        self._sure = ""  # a directory known to be one, all the way
        self._times: dict[str, int] = {"": EPOCH}
        self._defaults: dict[str, bytes] = {}  # would be inherited by what is unpacked into the directory
        self._named: dict[tuple[str, str], str] = {}  # ACLs with names that only the archive's own passwd knows
        self._later = self._holes = 0
        self.count = 0
        os.chmod(target, 0o755)

    def add(self, archive: Archive, member: Member) -> None:
        """Unpack one member. Raises SourceInvalid and NoSpace, naming it; ImageError, OSError."""
        self.count += 1
        if self.count > MAX_MEMBERS:
            raise SourceInvalid(f"the archive has more than {MAX_MEMBERS} members")
        with member_errors(member):
            name = clean(member.name)
            if not name:
                if member.kind != stat.S_IFDIR:
                    raise SourceInvalid(f"archive member {member.shown} stands for the root but is no directory")
                self._dress("", member)
            else:
                self._entry(archive, member, self._place(name, member))

    def finish(self) -> None:
        """Set what must wait until all is there: times and default ACLs of directories, ACLs with names in them.
        Raises SourceInvalid, OSError."""
        tree = Tree(self._root)
        ids = {kind: read_ids(_text(tree, f"etc/{file}")) for kind, file in (("user", "passwd"), ("group", "group"))}
        for (name, attribute), text in self._named.items():
            if self._is_real(name):
                self._set(name, attribute, encode_acl(text, ids))
        for name, value in self._defaults.items():
            if self._is_real(name) and stat.S_ISDIR(self._mode(name)):
                self._set(name, DEFAULT_ACL, value)
        for name, when in self._times.items():
            if self._is_real(name) and stat.S_ISDIR(self._mode(name)):
                os.utime(self._path(name), (when, when), follow_symlinks=False)

    # --- what a system of layers does in another way

    def _place(self, name: str, member: Member) -> str:
        """Where a member belongs, with the directories above it made. Every one must be a directory, not a link."""
        parent = name.rpartition("/")[0]
        if parent != self._sure:
            self._make_parents(parent, member)
            self._sure = parent
        return name

    def _clear(self, name: str, member: Member) -> None:
        """Make way for a member that is no directory."""
        mode = self._mode(name)
        if stat.S_ISDIR(mode):
            raise SourceInvalid(f"archive member {member.shown} is a directory and later something else")
        self._forget(name)
        if mode:
            os.unlink(self._path(name))

    def _link_target(self, member: Member) -> str:
        """Where the file that a hard link is to lies."""
        target = clean(member.target)
        return target if target and self._is_real(target) else ""

    # --- inside

    def _entry(self, archive: Archive, member: Member, name: str) -> None:
        path = self._path(name)
        if member.kind == stat.S_IFDIR:
            self._directory(name, member)
            return
        if member.kind == 0:
            self._hard_link(name, member)
            return
        self._clear(name, member)
        stored = member.stored if member.kind == stat.S_IFREG else len(member.target)
        self._space.take(stored + sum(map(len, member.attributes.values())), member.shown)
        if member.kind == stat.S_IFREG:
            self._file(archive, member, path)
        elif member.kind == stat.S_IFLNK:
            os.symlink(member.target, path)
        elif member.kind == stat.S_IFIFO:
            os.mkfifo(path, 0o600)
        else:
            harmless = member.kind == stat.S_IFCHR and member.device in HARMLESS
            if not name.startswith("dev/") and not harmless:
                raise SourceInvalid(f"archive member {member.shown} is a device outside dev/")
            os.mknod(path, member.kind | 0o600, os.makedev(*member.device))
        self._dress(name, member)

    def _directory(self, name: str, member: Member) -> None:
        mode = self._mode(name)
        if not stat.S_ISDIR(mode):
            if mode:
                self._clear(name, member)
            self._space.take(4096 + sum(map(len, member.attributes.values())), member.shown)
            os.mkdir(self._path(name), 0o700)
        self._dress(name, member)

    def _hard_link(self, name: str, member: Member) -> None:
        target = self._link_target(member)
        mode = self._mode(target) if target else 0
        if not mode or stat.S_ISDIR(mode) or target == name:
            raise SourceInvalid(
                f"archive member {member.shown} is a link to {show(member.target)}, which was not unpacked before"
            )
        if self._mode(name) and os.path.samestat(os.lstat(self._path(target)), os.lstat(self._path(name))):
            return
        self._clear(name, member)
        self._space.take(0, member.shown)
        os.link(self._path(target), self._path(name), follow_symlinks=False)

    def _file(self, archive: Archive, member: Member, path: str) -> None:
        self._holes += member.size - member.stored
        if self._holes > MAX_HOLES:
            raise SourceInvalid(
                f"archive member {member.shown}: the files have more than {MAX_HOLES >> 40} TiB of holes"
            )
        with open(path, "xb", buffering=0, opener=lambda p, flags: os.open(p, flags | os.O_NOFOLLOW, 0o600)) as file:
            for at, piece in archive.pieces():
                if piece.count(0) == len(piece):
                    continue  # a hole reads as the zeros it stands for
                view = memoryview(piece)
                while view:
                    done = os.pwrite(file.fileno(), view, at)
                    view, at = view[done:], at + done
            file.truncate(member.size)

    def _dress(self, name: str, member: Member) -> None:
        """Owner, mode, extended attributes, times: in this order, since chown drops setuid bits and capabilities."""
        path = self._path(name)
        os.chown(path, member.uid, member.gid, follow_symlinks=False)
        link = member.kind == stat.S_IFLNK
        if not link:
            os.chmod(path, member.mode)
        if member.kind == stat.S_IFDIR:
            self._undress(name)
        for attribute, value in member.attributes.items():
            if attribute.startswith(FOREIGN_XATTR):
                continue
            if not ALLOWED_XATTR.fullmatch(attribute) or len(value) > MAX_ATTRIBUTE:
                raise SourceInvalid(
                    f"archive member {member.shown} has an attribute {show(attribute)} that is not allowed"
                )
            self._attribute(name, member, attribute, value)
        for attribute, text in member.acls.items():
            # Names in the text may be anybody's; the attribute itself, if it is there too, has numbers.
            if attribute not in member.attributes and not link:
                self._acl(name, member, attribute, text)
        when = min(max(member.mtime, TIMES[0]), TIMES[1])
        if member.kind == stat.S_IFDIR:
            self._at(name, when)
        else:
            os.utime(path, (when, when), follow_symlinks=False)

    def _acl(self, name: str, member: Member, attribute: str, text: str) -> None:
        try:
            value = encode_acl(text, {})
        except SourceInvalid:
            self._remember(name + text)
            self._named[name, attribute] = text
        else:
            self._attribute(name, member, attribute, value)

    def _attribute(self, name: str, member: Member, attribute: str, value: bytes) -> None:
        if attribute == DEFAULT_ACL and member.kind == stat.S_IFDIR:
            self._remember(name, len(value))
            self._defaults[name] = value
        else:
            self._set(name, attribute, value)

    def _set(self, name: str, attribute: str, value: bytes) -> None:
        try:
            os.setxattr(self._path(name), attribute, value, follow_symlinks=False)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.ENOTSUP, *IMPOSSIBLE):
                # ext4 says ENOSPC of attributes that do not fit into the one block it has for them.
                raise SourceInvalid(
                    f"archive member {show(name)}: its attribute {show(attribute)} ({len(value)} bytes) cannot be kept"
                    f" on the disk of the store: {error.strerror}"
                ) from None
            raise

    def _undress(self, name: str) -> None:
        """Take from a directory what an earlier member of that name gave it."""
        self._defaults.pop(name, None)
        self._forget(name)
        for attribute in os.listxattr(self._path(name), follow_symlinks=False):
            if attribute == "security.selinux":
                continue  # where this machine has SELinux on, everything has one
            os.removexattr(self._path(name), attribute, follow_symlinks=False)

    def _forget(self, name: str) -> None:
        for attribute in ("system.posix_acl_access", DEFAULT_ACL):
            self._named.pop((name, attribute), None)

    def _make_parents(self, parent: str, member: Member) -> None:
        parts = parent.split("/") if parent else []
        for depth in range(1, len(parts) + 1):
            above = "/".join(parts[:depth])
            mode = self._mode(above)
            if stat.S_ISDIR(mode):
                continue
            if mode:
                raise SourceInvalid(f"archive member {member.shown} lies below {show(above)}, which is not a directory")
            self._space.take(4096, member.shown)
            os.mkdir(self._path(above), 0o700)
            os.chmod(self._path(above), 0o755)
            self._undress(above)
            self._at(above, EPOCH)

    def _at(self, name: str, when: int) -> None:
        """The time a directory gets when nothing is written into it any more."""
        if name not in self._times:
            self._remember(name)
        self._times[name] = when

    def _remember(self, name: str, more: int = 0) -> None:
        self._later += len(name) + more + REMEMBERED
        if self._later > MAX_LATER:
            raise SourceInvalid(f"archive member {show(name)}: there are more directories than any system has")

    def _is_real(self, name: str) -> bool:
        """Something is there, and every name above it is a directory and no link."""
        parts = name.split("/") if name else []
        above = all(stat.S_ISDIR(self._mode("/".join(parts[:depth]))) for depth in range(1, len(parts)))
        return above and (not name or self._mode(name) != 0)

    def _mode(self, name: str) -> int:
        """Kind and mode, 0 if there is nothing."""
        try:
            return os.lstat(self._path(name)).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return 0

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root


@contextmanager
def member_errors(member: Member) -> Iterator[None]:
    """Turn what the kernel says of a member into one line that names it."""
    try:
        yield
    except TreeInvalid as error:
        raise SourceInvalid(f"archive member {member.shown}: {error.message}") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(f"unpacking {member.shown}: the disk is full", "free some space, or gild image gc") from None
        if error.errno in IMPOSSIBLE:
            raise SourceInvalid(f"archive member {member.shown} cannot be: {error.strerror}") from None
        raise ImageError(f"unpacking {member.shown}: {error.strerror or error}") from error


def _text(tree: Tree, name: str) -> str:
    """A file of the tree; "" where there is none or something else."""
    try:
        return tree.text(name)
    except TreeInvalid:
        return ""
