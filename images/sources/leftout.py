"""What of a running system belongs in its image: which filesystems are walked and what is left out of them, and why.

Pure: the mounts, swap files and programs of the golden client come in as text that it printed, so all of it is checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from images.errors import SourceInvalid

MAX_MOUNTS = 20_000  # lines of mountinfo; a busy container host has a few thousand
MAX_PATTERNS = 1000  # what a tar command line is given at most
MAX_WARNINGS = 50


@dataclass(frozen=True)
class Left:
    """Something left out: a path of the client, with shell wildcards that also match "/", and why."""

    pattern: str
    reason: str


_BOOT = "made anew at every boot"
_BRIEF = "temporary files"
_CACHE = "a cache, which fills itself again"
_GUESTS = "containers and virtual machines belong to this machine alone"
_LOGS = "logs and crashes of this machine"
SWAP = "swap space"
_SNAPSHOTS = "snapshots of what is taken anyway"
_DISK = "another disk"
_ALONE = "another filesystem"
_ASK = "another filesystem; --with takes it"
ANOTHER = (_DISK, _ALONE, _ASK)  # reasons of filesystems no other machine has
# hier(7) and file-hierarchy(7) for the first; the others are the defaults of the program in the path.
RULES: tuple[Left, ...] = (
    *(Left(f"/{name}/*", _BOOT) for name in ("proc", "sys", "dev", "run")),
    *(Left(f"/{name}/*", _BRIEF) for name in ("tmp", "var/tmp")),
    *(Left(path, SWAP) for path in ("/swapfile", "/swap.img", "/swap/swapfile")),
    *(Left(f"{path}/*", _SNAPSHOTS) for path in ("/.snapshots", "/home/.snapshots", "/timeshift")),
    *(Left(f"/var/cache/{path}", _CACHE) for path in (
        "apt/archives/*.deb", "apt/*.bin", "dnf/*", "yum/*", "libdnf5/*", "zypp/*", "pacman/pkg/*", "apk/*", "xbps/*",
        "distfiles/*", "binpkgs/*", "PackageKit/*", "man/*/*",
    )),
    *(Left(f"{home}/.cache/*", _CACHE) for home in ("/root", "/home/*")),
    *(Left(f"/var/lib/{path}/*", _GUESTS) for path in (
        "docker", "containerd", "containers/storage", "libvirt/images", "machines", "lxc", "lxd", "incus", "kubelet",
        "rancher", "lxcfs",
    )),
    *(Left(f"{home}/.local/share/containers/*", _GUESTS) for home in ("/root", "/home/*")),
    *(Left(f"/var/{path}/*", _LOGS) for path in (
        "log/journal", "crash", "lib/systemd/coredump", "spool/abrt", "lib/apport/coredump",
    )),
    Left("/var/lib/gild/*", "a head's own state and keys"),
)  # fmt: skip


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Filesystems the kernel makes up or that live in memory: Documentation/filesystems of the kernel.
VIRTUAL = _words(
    "proc sysfs devtmpfs devpts tmpfs ramfs cgroup cgroup2 mqueue debugfs tracefs securityfs pstore efivarfs bpf "
    "configfs fusectl hugetlbfs binfmt_misc rpc_pipefs nfsd nsfs autofs selinuxfs smackfs apparmorfs none"
)
NETWORK = _words(
    "nfs nfs4 cifs smb3 smbfs ncpfs 9p virtiofs ceph afs coda glusterfs lustre beegfs beegfs_nodev gpfs panfs wekafs "
    "pvfs2 orangefs ocfs2 gfs2 dlmfs vboxsf vmhgfs prl_fs"
)
READ_ONLY = _words("squashfs iso9660 udf erofs cramfs romfs")
FAT = frozenset(("vfat", "msdos", "exfat"))
# What an installer splits off the root of one system; under /usr everything is the system's.
SYSTEM = _words("/boot /usr /var /opt /srv /etc /root /var/lib /var/log /var/log/audit /var/cache /var/spool /var/www")
# Programs whose files change in more than one place at a time: a copy made meanwhile need not open again.
DATABASES = _words(
    "mysqld mariadbd postgres postmaster slapd ns-slapd mongod redis-server valkey-server etcd influxd slapd.bin "
    "oracle cockroach clickhouse-serv memgraph neo4j"
)


@dataclass(frozen=True)
class Mount:
    """A mount as the client sees it; `root` is the directory of the filesystem that lies there."""

    point: str
    root: str
    fs: str
    options: str = ""


@dataclass(frozen=True)
class Wishes:
    """What whoever captures asks for: more `exclude` patterns, filesystems or left-out places to take all the same
    (`include`), only the root filesystem, and the paths of gild itself, which are never taken."""

    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    one_file_system: bool = False
    own: tuple[str, ...] = ()


@dataclass(frozen=True)
class Selection:
    """What is taken: mount points walked, what is left out of them, mount points that must be made anew as empty
    directories because not even they are looked at, and what whoever captures should know."""

    taken: tuple[str, ...]
    left: tuple[Left, ...]
    points: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())


def check_wishes(wishes: Wishes) -> None:
    """Raises SourceInvalid for a pattern or mount point that is no absolute path, before anybody is asked."""
    for what, paths in (("--exclude", wishes.exclude), ("--with", wishes.include)):
        for path in paths:
            if not path.startswith("/") or "\0" in path or "\n" in path or len(path) > 4096 or ".." in path.split("/"):
                raise SourceInvalid(f"{what} {path!r} is not a path of the client", f"give one such as {what} /srv/big")
            if not path.strip("/"):
                raise SourceInvalid(f"{what} {path} means all of the system")
    if len(wishes.exclude) + len(wishes.include) > 200:
        raise SourceInvalid("more than 200 --exclude and --with", "one pattern with wildcards matches many paths")


def read_mounts(lines: Iterable[str], root: str = "/") -> list[Mount]:
    """The mounts at and below `root` as they are seen, from the lines of /proc/self/mountinfo (proc(5)), sorted by
    mount point, which is given below `root`. Lines of another form are skipped. Raises SourceInvalid for too many."""
    found: dict[str, Mount] = {}
    for number, line in enumerate(lines):
        if number >= MAX_MOUNTS:
            raise SourceInvalid(f"the client has more than {MAX_MOUNTS} mounts")
        before, dash, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if not dash or len(fields) < 6 or len(kind) < 2:
            continue
        point = unescape(fields[4])
        if root != "/":
            if point != root and not point.startswith(root + "/"):
                continue
            point = point[len(root) :] or "/"
        # What was mounted last on a place is what is seen there.
        found[point] = Mount(point, unescape(fields[3]), kind[0], kind[2] if len(kind) > 2 else "")
    return [found[point] for point in sorted(found)]


def unescape(text: str) -> str:
    """Text of /proc/self/mountinfo or /proc/swaps: blanks, tabs, newlines and backslashes stand as \\ooo there."""
    return re.sub(r"\\([0-3][0-7]{2})", lambda match: chr(int(match[1], 8)), text)


def select(mounts: Sequence[Mount], swaps: Iterable[str], running: Iterable[str], wishes: Wishes) -> Selection:
    """Decide what is taken. `mounts` as `read_mounts` gives them, `swaps` the lines of /proc/swaps, `running` names of
    programs. Raises SourceInvalid for a wish that cannot be fulfilled, naming what could."""
    check_wishes(wishes)
    include = {_plain(path) for path in wishes.include}
    rules = [rule for rule in RULES if rule.reason == _BOOT or not _wanted(rule, include)]
    taken, points, warnings = ["/"], list[str](), list[str]()
    left: list[Left] = []
    for mount in mounts:
        if mount.point == "/":
            warnings += _root_warnings(mount)
            continue
        if above := next((rule.pattern for rule in (*left, *rules) if _below(mount.point, rule.pattern)), ""):
            if mount.point in include:
                raise SourceInvalid(f"--with {mount.point} lies below {above.removesuffix('/*')}, which is left out")
            continue
        if mount.point in include and mount.fs in VIRTUAL:
            raise SourceInvalid(f"--with {mount.point}: what is there is made by the kernel, or in memory")
        reason = "" if mount.point in include else _why_not(mount, wishes)
        if not reason:
            taken.append(mount.point)
            if mount.fs in FAT:
                warnings.append(f"{mount.point} is a FAT filesystem: owners and modes are not kept there")
            continue
        if mount.point in SYSTEM or mount.point.startswith("/usr/"):
            warnings.append(f"{mount.point} is left out: {reason}")
        # Only to look at one of these can hang for ever (a server that is gone), mount something, or be refused.
        if mount.fs == "autofs" or mount.fs in NETWORK or mount.fs.startswith("fuse"):
            left.append(Left(escape(mount.point), reason))
            points.append(mount.point)
        else:
            left.append(Left(f"{escape(mount.point)}/*", reason))
    missing = include - set(taken) - {_base(rule.pattern) for rule in RULES if rule.reason != _BOOT}
    if missing:
        known = ", ".join(mount.point for mount in mounts if mount.fs not in VIRTUAL and mount.point not in taken)
        raise SourceInvalid(
            f"--with {min(missing)}: the client has no filesystem mounted there, nor is it left out by itself",
            f"not taken yet: {known[:300]}" if known else "",
        )
    left += [rule for rule in rules if not any(other.pattern == rule.pattern for other in left)]
    left += [Left(f"{escape(path)}/lost+found", "belongs to the filesystem") for path in taken if path != "/"]
    left.append(Left("/lost+found", "belongs to the filesystem"))
    left += [Left(escape(path), SWAP) for path in _swap_files(swaps)]
    left += [Left(f"{escape(_plain(path))}/*", "the head's own state and images") for path in wishes.own]
    left += [Left(_plain(pattern), "asked for") for pattern in wishes.exclude]
    if len(left) > MAX_PATTERNS:
        raise SourceInvalid(f"the client has so many mounts that {len(left)} places would have to be left out")
    warnings += [
        f"{name} runs: what it writes meanwhile need not fit together; stop it for the capture, or restore a dump"
        for name in sorted(DATABASES & set(running))
    ]
    return Selection(tuple(taken), tuple(left), tuple(points), tuple(warnings[:MAX_WARNINGS]))


def escape(path: str) -> str:
    """A path as a pattern that matches nothing else."""
    return re.sub(r"([\\*?\[])", r"\\\1", path)


def _why_not(mount: Mount, wishes: Wishes) -> str:
    """Why a filesystem is not taken; empty if it is."""
    point, fs = mount.point, mount.fs
    if fs in VIRTUAL:
        return "made by the kernel, or in memory"
    if wishes.one_file_system:
        return _ALONE
    if fs in NETWORK or fs.startswith("fuse"):
        return "on the network or made by a program"
    if fs in READ_ONLY:
        return "a read-only image file or disc"
    if fs in FAT and point != "/boot":
        return "EFI system partition: every node makes its own" if "efi" in point.lower() else _DISK
    if point in SYSTEM or point.startswith("/usr/"):
        return ""
    if _is_bind(mount):
        return "seen at another place too (bind mount)"
    return _ASK


def _is_bind(mount: Mount) -> bool:
    """Whether only a part of a filesystem lies there. A subvolume of btrfs is whole and names itself in its options."""
    if mount.fs in ("btrfs", "bcachefs"):
        subvolume = next((word[7:] for word in mount.options.split(",") if word.startswith("subvol=")), mount.root)
        return mount.root != unescape(subvolume)
    return mount.root != "/"


def _root_warnings(mount: Mount) -> list[str]:
    if mount.fs in ("overlay", "aufs"):
        return ["/ is an overlay: what is taken is the merged view, and not what its layers hold"]
    if mount.fs in VIRTUAL:
        return [f"/ is a {mount.fs}: this system was started from memory or a live medium"]
    if "ostree" in mount.root:
        return ["/ is an ostree deployment: the image will not update itself as this system does"]
    return []


def _swap_files(lines: Iterable[str]) -> list[str]:
    """Paths of the swap files among the lines of /proc/swaps, first 16."""
    rows = [line.split() for line in lines]
    return [unescape(row[0]) for row in rows if len(row) > 1 and row[1] == "file" and row[0].startswith("/")][:16]


def _base(pattern: str) -> str:
    """The directory a rule empties."""
    return pattern.removesuffix("/*")


def _below(point: str, pattern: str) -> bool:
    """Whether a mount point lies below what an earlier mount's pattern leaves out."""
    base = _base(pattern)
    return escape(point).startswith(base + "/")


def _wanted(rule: Left, include: Iterable[str]) -> bool:
    """Whether what a rule leaves out is at or below one of these paths."""
    base = _base(rule.pattern)
    return any(base == path or base.startswith(path + "/") for path in include)


def _plain(path: str) -> str:
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
