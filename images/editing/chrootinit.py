"""The first process of a shell in an image: a program of its own, which `chroot` starts and never imports.

    gild -> outer (this file: new namespaces, chroot, /dev /sys /run) -> init (number 1 inside: /proc) -> the command

Each dies with the one before it (PR_SET_PDEATHSIG), and with init everything that was started inside. All mounts lie in
a namespace of their own and go with its last process, so a crash at any moment leaves none.

/dev is not the head's: it has no disk but those the image lies on, so nothing run inside (grub-install, os-prober) can
reach the head's. /sys and /proc/sys are read-only for the same reason: there is one kernel, and it is the head's.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys
from typing import Any, NoReturn

# linux/sched.h, linux/mount.h, linux/prctl.h
NEWNS, NEWUTS, NEWIPC, NEWPID = 0x20000, 0x4000000, 0x8000000, 0x20000000
RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT, NOATIME = 0x1, 0x2, 0x4, 0x8, 0x20, 0x400
BIND, REC, PRIVATE = 0x1000, 0x4000, 0x40000
PR_SET_PDEATHSIG = 1
# Name, major and minor number: Documentation/admin-guide/devices.txt of the kernel.
NODES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
CALLS = ctypes.CDLL(None, use_errno=True)


class Trouble(Exception):
    """What kept the command from being started."""


def main(plan: dict[str, Any]) -> int:
    """Carry out a plan (see `images.editing.chroot.enter`); gives the command's exit code. Raises Trouble, OSError."""
    _die_with_parent()
    if os.getppid() != plan["parent"]:
        return 1
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)  # typed for the command
    _call(CALLS.unshare(NEWNS | NEWUTS | NEWIPC), "making namespaces")
    _mount("none", "/", "", REC | PRIVATE)
    name = plan["hostname"].encode()
    _call(CALLS.sethostname(name, len(name)), "setting the host name")
    os.umask(0o022)
    # In the image from here on: whatever a link in it says, no path leads out any more.
    os.chroot(_named(plan) if plan["disks"] else plan["root"])
    os.chdir("/")
    _devices(plan["disks"])
    _mount("sysfs", "/sys", "sysfs", RDONLY | NOSUID | NODEV | NOEXEC)
    _mount("tmpfs", "/run", "tmpfs", NOSUID | NODEV, "mode=755")
    os.mkdir("/run/lock")
    os.chmod("/run/lock", 0o1777)
    for path, text in plan["files"].items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
    # Not before: the first child from here on is number 1 inside.
    _call(CALLS.unshare(NEWPID), "making a namespace for processes")
    alive, held = os.pipe()
    init = os.fork()
    if init == 0:
        os.close(held)
        _guarded(plan, lambda: _init(plan, alive))
    _, status = os.waitpid(init, 0)
    return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def _named(plan: dict[str, Any]) -> str:
    """The image mounted once more, by names of devices that exist inside; gives where. It lies on loop devices, and
    grub-mkconfig would make the file behind such a one the root of every node."""
    mounts = os.fork()
    if mounts == 0:
        _guarded(plan, lambda: _mount_disks(plan))
    _, status = os.waitpid(mounts, 0)
    if status:
        raise Trouble("")  # it has said why
    return f"{plan['root']}/run"


def _mount_disks(plan: dict[str, Any]) -> int:
    """In a process of its own, which can leave this root by ending: a device's name counts as it is given."""
    os.chroot(plan["root"])
    os.chdir("/")
    _mount("tmpfs", "/dev", "tmpfs", NOSUID | NOEXEC, "mode=755,size=1m")
    for disk in plan["disks"]:
        os.mknod(f"/dev/{disk['name']}", 0o60600, disk["number"])
        _mount(f"/dev/{disk['name']}", f"/run{disk['mount']}".rstrip("/"), disk["fs"], NOATIME)
    return 0


def _init(plan: dict[str, Any], alive: int) -> int:
    """Process number 1: starts the command, buries what it leaves, ends with it and thereby everything else."""
    _die_with_parent()
    poll = select.poll()
    poll.register(alive, 0)
    if poll.poll(0):  # hung up: the parent was gone before it could be died with
        return 1
    _mount("proc", "/proc", "proc", NOSUID | NODEV | NOEXEC)
    _mount("/proc/sys", "/proc/sys", "", BIND)
    _mount("none", "/proc/sys", "", REMOUNT | BIND | RDONLY | NOSUID | NODEV | NOEXEC)
    command = os.fork()
    if command == 0:
        _guarded(plan, lambda: _command(plan))
    while True:
        process, status = os.waitpid(-1, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            if process == command:  # nobody is there who could wake it
                os.kill(command, signal.SIGCONT)
        elif process == command:
            return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def _command(plan: dict[str, Any]) -> NoReturn:
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    if plan["terminal"]:  # what is typed goes to it, and not to gild as well
        os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        os.tcsetpgrp(0, os.getpid())
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    os.chdir(plan["cwd"])
    try:
        os.execvpe(plan["argv"][0], plan["argv"], plan["env"])
    except OSError as error:
        raise Trouble(f"{plan['argv'][0]} cannot be started in the image: {error.strerror}") from None


def _devices(disks: list[dict[str, Any]]) -> None:
    _mount("tmpfs", "/dev", "tmpfs", NOSUID | NOEXEC, "mode=755,size=64m")
    for name, major, minor in NODES:
        os.mknod(f"/dev/{name}", 0o20600, os.makedev(major, minor))
        os.chmod(f"/dev/{name}", 0o666)
    os.mkdir("/dev/pts")
    _mount("devpts", "/dev/pts", "devpts", NOSUID | NOEXEC, "newinstance,ptmxmode=0666,mode=620,gid=5")
    os.mkdir("/dev/shm")
    _mount("tmpfs", "/dev/shm", "tmpfs", NOSUID | NODEV, "mode=1777")
    for name, target in LINKS.items():
        os.symlink(target, f"/dev/{name}")
    os.makedirs("/dev/disk/by-uuid")
    for disk in disks:
        os.mknod(f"/dev/{disk['name']}", 0o60600, disk["number"])
        if disk["uuid"]:
            os.symlink(f"../../{disk['name']}", f"/dev/disk/by-uuid/{disk['uuid']}")


def _die_with_parent() -> None:
    _call(CALLS.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "tying the shell to its parent")


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    words = [text.encode() or None for text in (source, target, kind, options)]
    done = CALLS.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3])
    _call(done, f"mounting {target} in the image")


def _call(result: int, act: str) -> None:
    if result:
        raise Trouble(f"{act}: {os.strerror(ctypes.get_errno())}")


def _guarded(plan: dict[str, Any], work: Any) -> NoReturn:
    """Do the work and end this process with the exit code it gives; trouble goes to whoever holds the pipe."""
    code = 1
    try:
        code = work()
    except (Trouble, OSError) as error:
        os.write(plan["trouble"], str(error).encode("utf-8", "replace")[:1000])
    finally:
        os._exit(code)


if __name__ == "__main__":
    with open(int(sys.argv[1]), "rb") as told:
        wanted = json.load(told)
    os.set_inheritable(wanted["trouble"], False)
    _guarded(wanted, lambda: main(wanted))
