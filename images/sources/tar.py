"""An archive of the root of a system becomes a version. Its members are hostile until checked."""

from __future__ import annotations

import os
import re
import shutil
import stat
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from images import working
from images.disk import disk_errors
from images.errors import NoSpace, SourceInvalid
from images.manifest import Manifest
from images.options import Options, Progress
from images.store import Store

MAX_MEMBERS = 5_000_000
MAX_PATH = 4096  # bytes, PATH_MAX
PIECE = 1 << 20
RESERVE = 64 << 20  # bytes of the disk an archive may not take
# PAX keywords that carry extended attributes: star and GNU tar, and GNU tar's own word for SELinux labels.
XATTR, SELINUX = "SCHILY.xattr.", "RHT.security.selinux"
ACLS = {"SCHILY.acl.access": "system.posix_acl_access", "SCHILY.acl.default": "system.posix_acl_default"}
ALLOWED_XATTR = re.compile(r"(?:security|user|trusted)\.[^\x00]{1,200}|system\.posix_acl_(?:access|default)")
# linux/posix_acl_xattr.h: version u32, then per entry tag u16, permissions u16, id u32
ACL_VERSION, ACL_ENTRY, NO_ID = 2, struct.Struct("<HHI"), 0xFFFFFFFF
ACL_TAGS = {("user", False): 0x01, ("user", True): 0x02, ("group", False): 0x04, ("group", True): 0x08}
ACL_TAGS |= {("mask", False): 0x10, ("other", False): 0x20}


def import_tar(store: Store, name: str, archive: Path | IO[bytes], options: Options) -> Manifest:
    """Publish the tree in a tar archive as the next version of `name`. `archive` is a file or an open stream, plain or
    compressed with gzip, bzip2 or xz; it must hold the root directory itself, with owners by number. Needs root.
    Raises SourceInvalid, naming the member, for anything that would leave the tree; Busy, NoSpace, CommandFailed."""
    if os.geteuid() != 0:
        raise SourceInvalid("importing an archive must set the owner of every file", "run this as root")
    shown = os.fspath(archive) if isinstance(archive, Path) else "stream"

    def fill(tree: Path) -> dict[str, Any]:
        with disk_errors(f"unpacking {shown}"):
            _unpack(archive, shown, tree, options.progress)
        return {"kind": "tar", "file": os.path.basename(shown)}

    return working.from_tree(store, name, fill, options)


def _unpack(archive: Path | IO[bytes], shown: str, target: Path, progress: Progress | None) -> None:
    total = archive.stat().st_size if isinstance(archive, Path) else 0

    def tell(done: int) -> None:
        if progress:
            progress("unpack", min(done, total) if total else done, total or done)

    try:
        with open(archive, "rb") if isinstance(archive, Path) else archive as file:
            unpack(file, target, tell)
    except (tarfile.TarError, EOFError, UnicodeError) as error:
        raise SourceInvalid(f"{shown} is not a whole tar archive: {error}") from None
    except OSError as error:
        if error.errno is None or isinstance(error, shutil.ReadError):  # gzip.BadGzipFile and friends carry no errno
            raise SourceInvalid(f"{shown} is not a whole tar archive: {error}") from None
        raise


def unpack(file: IO[bytes], target: Path, on_bytes: Callable[[int], None] | None = None) -> int:
    """Unpack a tar stream into the empty directory `target`; gives the number of members. Owners by number, modes,
    times, hard links, devices (inside dev/ only), extended attributes and ACLs are set.

    Refused by SourceInvalid: absolute paths that lead up, "..", a member below a symbolic link, a hard link to
    anything but a file unpacked before, a device outside dev/, too many members. NoSpace before the disk is full:
    declared sizes are held against the free space. Raises also tarfile.TarError and OSError for a broken archive."""
    unpacker = _Unpacker(target)
    with tarfile.open(fileobj=file, mode="r|*", errors="surrogateescape") as tar:
        for count, member in enumerate(tar, 1):
            if count > MAX_MEMBERS:
                raise SourceInvalid(f"the archive has more than {MAX_MEMBERS} members")
            unpacker.member(tar, member)
            # tarfile keeps every member it has seen, for lookups that never come: a gigabyte for a large tree.
            tar.members = []  # type: ignore[attr-defined]
            if on_bytes and count % 256 == 0:
                on_bytes(member.offset_data)
    unpacker.finish()
    return unpacker.count


class _Unpacker:
    def __init__(self, target: Path) -> None:
        self._root = os.fspath(target)
        self._directories: dict[str, tarfile.TarInfo | None] = {"": None}  # real directories we made
        self._files: set[str] = set()
        self._left = shutil.disk_usage(target).free - RESERVE
        self._acls: list[tuple[str, str, str]] = []  # path, attribute, text; only waits for names, a few per system
        self.count = 0

    def member(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        name = _clean(member.name)
        path = f"{self._root}/{name}"
        self.count += 1
        for key, attribute in ACLS.items():
            if key in member.pax_headers:
                self._acls.append((name, attribute, member.pax_headers[key]))
        if not name:
            if not member.isdir():
                raise SourceInvalid(f"archive member {member.name!r} stands for the root but is no directory")
            self._directories[""] = member
            return
        self._parents(name)
        if member.isdir():
            if name not in self._directories:
                self._replace(name)
                os.mkdir(path, 0o700)
            self._directories[name] = member
            return
        if name in self._directories:
            raise SourceInvalid(f"archive member {name!r} is a directory and later something else")
        if member.islnk():
            self._hard_link(name, member)
            return
        self._replace(name)
        if member.issym():
            os.symlink(member.linkname, path)
        elif member.isreg():
            self._file(tar, member, path)
            self._files.add(name)
        elif member.ischr() or member.isblk():
            if not name.startswith("dev/"):
                raise SourceInvalid(f"archive member {name!r} is a device outside dev/")
            kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
            os.mknod(path, kind | 0o600, os.makedev(member.devmajor, member.devminor))
        elif member.isfifo():
            os.mkfifo(path, 0o600)
        else:
            raise SourceInvalid(f"archive member {name!r} is of a kind ({member.type!r}) that no filesystem has")
        _attributes(path, member)

    def finish(self) -> None:
        """Set owners, modes and times of directories, deepest first, when nothing is written into them any more."""
        for name, member in sorted(self._directories.items(), reverse=True):
            path = f"{self._root}/{name}" if name else self._root
            if member is None:
                os.chmod(path, 0o755)
            else:
                _attributes(path, member)
        ids = {kind: self._ids(f"etc/{file}") for kind, file in (("user", "passwd"), ("group", "group"))}
        for name, attribute, text in self._acls:
            path = f"{self._root}/{name}"
            if not os.path.islink(path):
                os.setxattr(path, attribute, encode_acl(text, ids), follow_symlinks=False)

    def _ids(self, name: str) -> dict[str, int]:
        """Names and numbers of the archive's own passwd or group file; GNU tar writes names into ACLs."""
        if name not in self._files:
            return {}
        with open(f"{self._root}/{name}", errors="replace") as file:
            lines = [line.split(":") for line in file.read(1 << 20).splitlines()]
        return {f[0]: int(f[2]) for f in lines if len(f) > 2 and f[0] and re.fullmatch(r"[0-9]{1,10}", f[2])}

    def _parents(self, name: str) -> None:
        """Make the directories above a member; every one must be a directory this archive made."""
        parts = name.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            parent = "/".join(parts[:depth])
            if parent in self._directories:
                continue
            if os.path.lexists(f"{self._root}/{parent}"):
                raise SourceInvalid(f"archive member {name!r} lies below {parent!r}, which is not a directory")
            os.mkdir(f"{self._root}/{parent}", 0o700)
            self._directories[parent] = None

    def _replace(self, name: str) -> None:
        path = f"{self._root}/{name}"
        if os.path.lexists(path):
            os.unlink(path)
            self._files.discard(name)

    def _hard_link(self, name: str, member: tarfile.TarInfo) -> None:
        target = _clean(member.linkname)
        parent = target.rpartition("/")[0]
        path = f"{self._root}/{target}"
        if (
            target == name
            or parent not in self._directories
            or not os.path.lexists(path)
            or target in self._directories
        ):
            raise SourceInvalid(f"archive member {name!r} is a link to {target!r}, which was not unpacked before")
        self._replace(name)
        os.link(path, f"{self._root}/{name}", follow_symlinks=False)
        if target in self._files:
            self._files.add(name)

    def _file(self, tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        self._left -= -(-member.size // 4096) * 4096
        if self._left < 0:
            raise NoSpace(f"unpacking {member.name!r}: the archive needs more room than the disk has")
        source = tar.extractfile(member)
        assert source is not None
        with open(path, "xb") as file:
            done = 0
            while piece := source.read(PIECE):
                if piece.count(0) == len(piece):
                    file.seek(len(piece), os.SEEK_CUR)  # a hole reads as the zeros it stands for
                else:
                    file.write(piece)
                done += len(piece)
            if done != member.size:
                raise SourceInvalid(f"the archive ends inside {member.name!r}")
            file.truncate(member.size)


def _clean(name: str) -> str:
    """A member's path without leading "/" and "./"; raises SourceInvalid for one that leads out of the tree."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if (
        ".." in parts
        or "\0" in name
        or len(os.fsencode(name)) > MAX_PATH
        or any(len(os.fsencode(p)) > 255 for p in parts)
    ):
        raise SourceInvalid(f"archive member {name[:200]!r} leads out of the tree or has an impossible name")
    return "/".join(parts)


def _attributes(path: str, member: tarfile.TarInfo) -> None:
    """Owner, mode, extended attributes, times: in this order, since chown drops setuid bits and capabilities."""
    if not (0 <= member.uid < NO_ID and 0 <= member.gid < NO_ID):
        raise SourceInvalid(f"archive member {member.name!r} has an impossible owner {member.uid}:{member.gid}")
    os.chown(path, member.uid, member.gid, follow_symlinks=False)
    if not member.issym():
        os.chmod(path, member.mode & 0o7777)
    for key, value in member.pax_headers.items():
        name, data = key.removeprefix(XATTR), value.encode("utf-8", "surrogateescape")
        if key == SELINUX:
            name = "security.selinux"
            data = data if data.endswith(b"\0") else data + b"\0"
        elif not key.startswith(XATTR):
            continue
        if not ALLOWED_XATTR.fullmatch(name) or len(data) > 65536:
            raise SourceInvalid(f"archive member {member.name!r} has an attribute {name[:80]!r} that is not allowed")
        os.setxattr(path, name, data, follow_symlinks=False)
    when = min(max(int(member.mtime), 0), (1 << 34) - 1)  # what an ext4 inode can hold
    os.utime(path, (when, when), follow_symlinks=False)


def encode_acl(text: str, ids: dict[str, dict[str, int]]) -> bytes:
    """An ACL in the text form of archives ("user::rwx,user:lp:r--:7,...") as the kernel's attribute. A named entry has
    its number as fourth field, as the name itself, or under `ids` ("user" and "group", name -> number).
    Raises SourceInvalid."""
    entries = []
    for entry in re.split(r"[,\n]+", text.strip()):
        if not entry.strip() or entry.startswith("#"):
            continue
        fields = [*entry.strip().split(":"), "", "", ""]
        kind, who, bits, number = fields[:4]
        tag = ACL_TAGS.get((kind, bool(who)))
        if who and not re.fullmatch(r"[0-9]{1,10}", number):
            number = str(ids.get(kind, {}).get(who, who))
        if tag is None or not re.fullmatch(r"[r-][w-][x-]", bits) or (who and not re.fullmatch(r"[0-9]{1,10}", number)):
            raise SourceInvalid(f"archive has an ACL entry {entry[:80]!r} that cannot be read", "use numeric ids in it")
        permissions = sum(value for value, bit in zip((4, 2, 1), bits, strict=True) if bit != "-")
        identity = int(number) if who else NO_ID
        if identity > NO_ID:
            raise SourceInvalid(f"archive has an ACL entry {entry[:80]!r} with an impossible id")
        entries.append((tag, permissions, identity))
    return struct.pack("<I", ACL_VERSION) + b"".join(
        ACL_ENTRY.pack(tag, bits, who) for tag, bits, who in _acl_order(entries)
    )


def _acl_order(entries: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """The kernel wants entries by tag and then by id (fs/posix_acl.c, posix_acl_valid)."""
    return sorted(entries, key=lambda entry: (entry[0], entry[2]))
