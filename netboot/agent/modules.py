"""Kernel modules on the node, without udev, kmod or modules.dep's binary cousins: who drives this, and load it.

Every device the kernel finds has a `modalias` in sysfs; modules.alias says which modules answer to it; modules.dep
says what must be there first. Loading a bus driver makes new devices appear, so the walk is repeated until nothing
new comes, and again whenever the kernel tells of a change.
"""

from __future__ import annotations

import ctypes
import errno
import fnmatch
import os
import re
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

# asm-generic/unistd.h numbers finit_module 273 and x86 313; glibc has no wrapper for it.
FINIT_MODULE = {"x86_64": 313, "aarch64": 273}
NETLINK_KOBJECT_UEVENT = 15  # linux/netlink.h
QUIET = (errno.EEXIST, errno.ENODEV)  # already loaded; no such hardware after all
MAX_ALIAS = 4096  # characters: a sysfs attribute is one page
MAX_DEVICES = 100_000  # modaliases read in one walk
SETTLE = 0.05  # seconds between a change and the next walk: changes come in bursts
PAUSE = 0.5  # seconds between two walks when the kernel says nothing
NAME = re.compile(r"[A-Za-z0-9_]{1,64}")


@dataclass
class Index:
    """`needs` gives for each module what to load before it, in that order; `before` and `after` its soft
    dependencies; `patterns` the aliases by their fixed beginning, as (pattern, module)."""

    needs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    before: dict[str, tuple[str, ...]] = field(default_factory=dict)
    after: dict[str, tuple[str, ...]] = field(default_factory=dict)
    patterns: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    def match(self, alias: str) -> list[str]:
        """The modules that answer to `alias` (a device's modalias, or a name such as crypto-crc32c), each once.

        Looking up every beginning of the text costs one dictionary access a character; matching the 20,000 patterns
        one by one costs 100 ms a device.
        """
        alias = alias[:MAX_ALIAS]
        found: dict[str, None] = {}
        for end in range(len(alias) + 1):
            for pattern, module in self.patterns.get(alias[:end], ()):
                if module not in found and fnmatch.fnmatchcase(alias, pattern):
                    found[module] = None
        return list(found)


def parse(dep: str, alias: str, softdep: str) -> Index:
    """Read the texts of modules.dep, modules.alias and modules.softdep (modules.dep(5)). Lines of another form are
    passed over, so that a damaged index costs drivers and not the whole node."""
    index = Index()
    for line in dep.splitlines():
        name, colon, needs = line.partition(":")
        if colon and plain(name):
            # modules.dep names the deepest need last; it has to be loaded first.
            index.needs[plain(name)] = tuple(filter(None, (plain(word) for word in reversed(needs.split()))))
    for line in alias.splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == "alias" and plain(words[2]):
            fixed = re.split(r"[*?\[]", words[1], maxsplit=1)[0]
            index.patterns.setdefault(fixed, []).append((words[1], plain(words[2])))
    for line in softdep.splitlines():
        words = line.split()
        if len(words) >= 3 and words[0] == "softdep" and plain(words[1]):
            sides: dict[str, list[str]] = {"pre:": [], "post:": []}
            side = "pre:"
            for word in words[2:]:
                if word in sides:
                    side = word
                elif plain(word):
                    sides[side].append(plain(word))
            index.before[plain(words[1])] = tuple(sides["pre:"])
            index.after[plain(words[1])] = tuple(sides["post:"])
    return index


def plain(word: str) -> str:
    """The module a path or name means: kernel/fs/ext4/ext4.ko -> ext4, dm-mod -> dm_mod. "" if none can be meant."""
    name = word.strip().rpartition("/")[2].removesuffix(".ko").replace("-", "_")
    return name if NAME.fullmatch(name) else ""


def insert(path: str) -> int:
    """Hand a module's file to the kernel (finit_module(2)). Returns 0 or the error number.

    Probing happens inside the call, in the kernel: no time limit could end it, so none is pretended.
    """
    number = FINIT_MODULE.get(os.uname().machine)
    if number is None:
        return errno.ENOSYS
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        return error.errno or errno.EIO
    try:
        return ctypes.get_errno() if libc.syscall(number, fd, b"", 0) else 0
    finally:
        os.close(fd)


class Loader:
    """Loads modules from `folder` (default /lib/modules/RELEASE) for the devices under `sys_folder`.

    `failed` keeps name -> reason of every module that would not load, for the report to the head.
    """

    def __init__(self, folder: str = "", sys_folder: str = "/sys", insert: Callable[[str], int] = insert) -> None:
        self.folder = folder or f"/lib/modules/{os.uname().release}"
        self.sys_folder = sys_folder
        self.index = parse(*(self._text(f"modules.{kind}") for kind in ("dep", "alias", "softdep")))
        self.failed: dict[str, str] = {}
        self.loaded: list[str] = []
        self._insert = insert
        self._settled = {plain(name) for name in _names(os.path.join(sys_folder, "module"))}
        self._seen: set[str] = set()
        self._open: set[str] = set()

    def load(self, name: str) -> bool:
        """Load the module `name`, or those that answer to that alias, with all they need. True if it is there
        afterwards; built-in modules without parameters are unknown here and count as absent."""
        module = plain(name)
        if module in self._settled:
            return module not in self.failed
        if module not in self.index.needs:
            # Each of them is tried: crypto-crc32c has a plain and a fast driver, and both are wanted.
            answers = [self.load(found) for found in self.index.match(name) if found != module]
            return any(answers)
        if module in self._open:  # two modules may name each other softly
            return False
        self._open.add(module)
        for soft in self.index.before.get(module, ()):
            self.load(soft)
        done = [self._one(needed) for needed in (*self.index.needs[module], module)][-1]
        for soft in self.index.after.get(module, ()):
            self.load(soft)
        self._open.discard(module)
        return done

    def scan(self) -> int:
        """Load what the devices present ask for. Returns how many devices were not seen before."""
        fresh = 0
        for alias in self._aliases():
            if alias in self._seen or len(self._seen) >= MAX_DEVICES:
                continue
            self._seen.add(alias)
            fresh += 1
            for module in self.index.match(alias):
                self.load(module)
        return fresh

    def load_all(self, wait: Callable[[], bool], timeout: float) -> bool:
        """Load drivers until `wait()` is true (the NIC and the disks are there, say) and nothing new appears.

        The first walk is always made, and the disk driver sd_mod is loaded wherever SCSI is. Returns whether
        `wait()` came true within `timeout` seconds.
        """
        end = time.monotonic() + timeout
        events = _uevents()
        try:
            while True:
                fresh = self.scan()
                if fresh and os.path.isdir(os.path.join(self.sys_folder, "module/scsi_mod")):
                    self.load("sd_mod")
                if not fresh and wait():
                    return True
                left = end - time.monotonic()
                if left <= 0:
                    return wait()
                # After a walk that found something, its children are likely there already: look again soon.
                _pause(events, min(left, SETTLE if fresh else PAUSE))
        finally:
            if events is not None:
                events.close()

    def _one(self, name: str) -> bool:
        if name in self._settled:
            return name not in self.failed
        if name not in self.index.needs:
            return False
        self._settled.add(name)
        code = self._insert(os.path.join(self.folder, f"{name}.ko"))
        if code and code not in QUIET:
            self.failed[name] = os.strerror(code)
            return False
        self.loaded.append(name)
        return True

    def _aliases(self) -> list[str]:
        found: dict[str, None] = {}
        for base, folders, files in os.walk(os.path.join(self.sys_folder, "devices")):
            folders.sort()
            if "modalias" in files:
                try:
                    with open(os.path.join(base, "modalias"), encoding="utf-8", errors="replace") as file:
                        alias = file.read(MAX_ALIAS).strip()
                except OSError:  # the device went away, or has none after all
                    continue
                if alias:
                    found[alias] = None
                if len(found) >= MAX_DEVICES:
                    break
        return list(found)

    def _text(self, name: str) -> str:
        try:
            with open(os.path.join(self.folder, name), encoding="utf-8", errors="replace") as file:
                return file.read()
        except OSError:  # a kernel with all built in has no index; the walk then finds nothing to do
            return ""


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _uevents() -> socket.socket | None:
    """A socket on which the kernel tells of new devices, or None where it may not be had."""
    try:
        events = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT)
    except (OSError, AttributeError):
        return None
    try:
        events.bind((0, 1))
        events.setblocking(False)
    except OSError:
        events.close()
        return None
    return events


def _pause(events: socket.socket | None, seconds: float) -> None:
    """Wait until the kernel tells of a change, `seconds` at most. What it says is only taken as a nudge to look."""
    if events is None:
        time.sleep(seconds)
        return
    if not select.select([events], [], [], seconds)[0]:
        return
    for _ in range(1000):
        try:
            events.recv(8192)
        except OSError:  # empty (EAGAIN), or more came than the socket could hold (ENOBUFS): look either way
            break
    time.sleep(min(SETTLE, seconds))


_default: list[Loader] = []


def loader() -> Loader:
    """The one loader of this machine, made at its first use: the index is read once."""
    if not _default:
        _default.append(Loader())
    return _default[0]


def load(name: str) -> bool:
    """Load one module by name or alias on this machine; see Loader.load."""
    return loader().load(name)


def load_all(wait: Callable[[], bool], timeout: float) -> bool:
    """Load what this machine's devices ask for; see Loader.load_all."""
    return loader().load_all(wait, timeout)
