"""Run a command or a shell inside the tree of an image, with everything it expects around it and nothing left behind.

Packages installed inside must find name servers and must not start their services, so a resolv.conf and a policy-rc.d
are lent to the tree and taken back afterwards; everything else is mounted by `chrootinit` where nobody sees it.
"""

from __future__ import annotations

import contextlib
import json
import os
import pkgutil
import signal
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from images.disk import disk_errors
from images.errors import CommandFailed, SourceInvalid
from images.run import attached
from images.strip import MOUNT_POINTS
from images.tree import Tree

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHELLS = ("bash", "sh")
# What a shell takes over from the head beside its terminal: the way to the packages.
KEPT = ("TERM", "http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
# invoke-rc.d(8): 101, action forbidden by policy.
POLICY = "#!/bin/sh\nexit 101\n"
RESOLV = "/etc/resolv.conf"
ASIDE = ".gild-aside"  # suffix of a file of the image while another one is lent in its place


@dataclass(frozen=True, slots=True)
class Disk:
    """A block device the image lies on: its name in /dev, its number (os.makedev); kind and UUID of its filesystem, and
    where that stands in the tree."""

    name: str
    number: int
    fs: str
    mount: str
    uuid: str = ""


def enter(root: Path, argv: Sequence[str] = (), *, title: str, disks: Sequence[Disk] = ()) -> int:
    """Run `argv`, or a shell where it is empty, in the tree at `root`, on this process's terminal; gives its exit code.

    Whatever is still running inside when it ends is killed. The network is the head's, so that packages can be
    fetched; processes, mounts and the host name are the shell's own. `title` stands in its prompt. `disks` are what
    is mounted on `root` and below; without them the tree is a directory of the head. Only inside
    `images.namespace.in_private_namespace`, as root. Raises CommandFailed if it cannot be started, SourceInvalid if
    the tree has no shell, TreeInvalid."""
    tree = Tree(os.fspath(root))
    terminal = _in_foreground()
    shell = next((f"/bin/{name}" for name in SHELLS if tree.is_file(f"/bin/{name}")), "")
    if not argv and not shell:
        raise SourceInvalid("the image has no shell", "give a command after --, or copy files with --copy")
    _mount_points(root)
    text = _name_servers()
    place = tree.resolve(RESOLV)
    # A link into /run belongs to the service that writes it there; the shell has a /run of its own.
    files = {f"/{place}": text} if place.startswith("run/") else {}
    with contextlib.ExitStack() as lent:
        if not files:
            lent.enter_context(_lent(tree, RESOLV, text, 0o644))
        if tree.is_dir("/var/lib/dpkg") and tree.is_dir("/usr/sbin"):
            lent.enter_context(_lent(tree, "/usr/sbin/policy-rc.d", POLICY, 0o755))
        return _start(
            {
                "root": os.fspath(root),
                "argv": list(argv) or [shell],
                "env": _environment(title, shell, interactive=terminal and not argv),
                "cwd": "/root" if tree.is_dir("/root") else "/",
                "hostname": "localhost",
                "disks": [asdict(disk) for disk in sorted(disks, key=lambda disk: disk.mount)],
                "files": files,
                "terminal": terminal,
                "parent": os.getpid(),
            }
        )


def _start(plan: dict[str, object]) -> int:
    source = pkgutil.get_data("images.editing", "chrootinit.py")
    assert source is not None, "it lies beside this file"
    read, write = os.pipe()
    # Not as arguments: every user of the head can read those, and a proxy's address may hold a password.
    program, told = _in_memory(source), _in_memory(json.dumps({**plan, "trouble": write}).encode())
    try:
        argv = [sys.executable, "-I", "-S", "-c", f"exec(open({program}, 'rb').read())", str(told)]
        try:
            code = attached(argv, fds=[write, program, told], act="starting a shell in the image")
        finally:
            os.close(write)
            if plan["terminal"]:
                _take_terminal_back()
        trouble = os.read(read, 1000).decode("utf-8", "replace")
    finally:
        for fd in (read, program, told):
            os.close(fd)
    if trouble:
        raise CommandFailed("".join(c if c.isprintable() else "?" for c in trouble))
    return code


def _in_memory(data: bytes) -> int:
    fd = os.memfd_create("shell")
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _in_foreground() -> bool:
    """Whether what is typed on the terminal comes to this process."""
    try:
        return os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp()
    except OSError:  # a terminal, but not the one that controls this process
        return False


def _take_terminal_back() -> None:
    """The shell's process group had the terminal; without this the next question would stop us."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    with contextlib.suppress(OSError):
        os.tcsetpgrp(0, os.getpgrp())
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _environment(title: str, shell: str, *, interactive: bool) -> dict[str, str]:
    found = {name: os.environ[name] for name in KEPT if name in os.environ}
    found |= {"PATH": PATH, "HOME": "/root", "USER": "root", "LOGNAME": "root", "SHELL": shell or "/bin/sh"}
    found |= {"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
    # systemctl then changes links only (systemd docs/ENVIRONMENT.md), which is what enabling a unit means here.
    found["SYSTEMD_OFFLINE"] = "1"
    # ischroot(1) believes it: the shell looks like a system of its own, and initramfs-tools would write the head's swap
    # partition, which /proc/swaps shows, into the initramfs as the one to resume from (hooks/resume).
    found["FAKECHROOT"] = "true"
    # Debian's bash.bashrc sets a prompt of its own and shows this name in it.
    found["debian_chroot"] = title
    found["PS1"] = f"({title}) \\w \\$ " if shell.endswith("bash") else f"({title}) # "
    if not interactive:
        found["DEBIAN_FRONTEND"] = "noninteractive"
    return found


def _name_servers() -> str:
    try:
        return Path(RESOLV).read_text(errors="surrogateescape")[:65536]
    except OSError:  # a head without name servers
        return ""


def _mount_points(root: Path) -> None:
    """Directories to mount on, where the tree has none or a link, which would lead the mount elsewhere."""
    with disk_errors("making mount points in the image"):
        for name, mode in MOUNT_POINTS.items():
            path = root / name
            if os.path.lexists(path) and not stat.S_ISDIR(os.lstat(path).st_mode):
                path.unlink()
            if not os.path.lexists(path):
                path.mkdir()
                path.chmod(mode)


@contextlib.contextmanager
def _lent(tree: Tree, path: str, text: str, mode: int) -> Iterator[None]:
    """Put a file in the tree for the time of the block. What stood there comes back as it was, the times of its
    directory too; unless somebody put something else in the file's place, which then stays."""
    place = tree.place(path, last=False)
    folder, aside = os.path.dirname(place), place + ASIDE
    if not os.path.isdir(folder) or (os.path.isdir(place) and not os.path.islink(place)):
        yield
        return
    with disk_errors(f"lending the image a {path}"):
        times = os.stat(folder)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)
        kept = os.path.lexists(place)
        if kept:
            os.rename(place, aside)
        tree.write(path, text, mode)
        mine, changed = _stamp(place), os.stat(folder).st_mtime_ns
    try:
        yield
    finally:
        with disk_errors(f"taking {path} back out of the image"):
            untouched = os.stat(folder).st_mtime_ns == changed
            if _stamp(place) == mine:
                os.unlink(place)
                if kept:
                    os.rename(aside, place)
            elif kept:
                os.unlink(aside)
            if untouched:
                os.utime(folder, ns=(times.st_atime_ns, times.st_mtime_ns))


def _stamp(place: str) -> tuple[int, int] | None:
    """What changes when a file is replaced or written."""
    try:
        status = os.lstat(place)
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns
