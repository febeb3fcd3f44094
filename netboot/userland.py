"""The installer's programs: a trimmed Python, busybox, the disk tools, and every library any of them needs."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from images.errors import GildError
from images.run import run
from netboot.debs import Deb, Root
from netboot.elf import Elf

PYTHON = "3.11"
STDLIB = f"usr/lib/python{PYTHON}"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
LINKER = "usr/lib64/ld-linux-x86-64.so.2"

# Path in the packages and in the initrd alike, and the other names of the same program.
TOOLS: dict[str, tuple[str, ...]] = {
    "usr/sbin/sfdisk": (),
    "usr/sbin/wipefs": (),
    "usr/sbin/blkid": (),
    "usr/sbin/blockdev": (),
    "usr/sbin/blkdiscard": (),
    "usr/sbin/mkswap": (),
    "usr/sbin/mke2fs": ("mkfs.ext2", "mkfs.ext3", "mkfs.ext4"),
    "usr/sbin/e2fsck": ("fsck.ext2", "fsck.ext3", "fsck.ext4"),
    "usr/sbin/resize2fs": (),
    "usr/sbin/tune2fs": ("e2label",),
    "usr/sbin/mkfs.fat": ("mkfs.vfat",),
    "usr/sbin/fsck.fat": ("fsck.vfat",),
    "usr/sbin/mkfs.xfs": (),
    "usr/sbin/xfs_repair": (),
    "usr/sbin/xfs_growfs": (),
    "usr/sbin/mkfs.btrfs": (),
    "usr/bin/btrfs": (),
    "usr/bin/efibootmgr": (),
    "usr/sbin/mdadm": (),
    "usr/sbin/dmsetup": (),
    "usr/bin/busybox": (),
}
# Loaded by name at run time, so that no DT_NEEDED tells of them: the agent's zstd, and what pthread_exit(3) opens.
LOADED = ("libzstd.so.1", "libgcc_s.so.1")
SETTINGS = ("etc/mke2fs.conf",)

# Parts of the standard library no installer uses: tests, editors, GUIs, databases, servers, other people's mail.
UNUSED = """test tests idlelib tkinter lib2to3 distutils ensurepip pydoc_data turtledemo turtle.py pydoc.py venv curses
    sqlite3 dbm wsgiref xmlrpc unittest doctest.py mailbox.py pdb.py pstats.py profile.py cProfile.py nntplib.py
    imaplib.py antigravity.py this.py cgi.py cgitb.py smtplib.py poplib.py ftplib.py telnetlib.py _pydecimal.py
    config-3.11-x86_64-linux-gnu __pycache__ dist-packages sitecustomize.py"""
# Beginnings of the names of extension modules that those parts alone use.
UNUSED_EXTENSIONS = """_codecs_ _test _sqlite3 _curses readline _dbm _gdbm ossaudiodev _crypt nis _xx xx audioop
    _tkinter _multibytecodec"""

# Runs in the packages' own interpreter, so that its bytecode version is the one the node's Python takes.
# Frames on both pipes: name length, data length, name, data.
COMPILER = """
import sys, struct, _imp
from importlib._bootstrap_external import _code_to_hash_pyc, _RAW_MAGIC_NUMBER
inp, out = sys.stdin.buffer, sys.stdout.buffer
while head := inp.read(8):
    n, size = struct.unpack("<II", head)
    name, data = inp.read(n), inp.read(size)
    code = compile(data, "/" + name.decode(), "exec", dont_inherit=True, optimize=2)
    data = _code_to_hash_pyc(code, _imp.source_hash(_RAW_MAGIC_NUMBER, data), checked=False)
    out.write(struct.pack("<II", n, len(data)) + name + data)
"""


class UserlandIncomplete(GildError):
    """A program of the installer wants a library that no package in the table brings."""


@dataclass(frozen=True)
class Item:
    """One file for the initrd: its bytes, mode bits, and the package they come from (None: made here)."""

    data: bytes
    mode: int
    deb: Deb | None


def programs(root: Root) -> tuple[dict[str, Item], dict[str, str]]:
    """The tools with their libraries and settings: files by target path, and links by name.
    Raises PackageMissing or UserlandIncomplete."""
    items: dict[str, Item] = {}
    links: dict[str, str] = {}
    for path, others in TOOLS.items():
        _with_libraries(root, path, path, items)
        for other in others:
            links[f"{path.rpartition('/')[0]}/{other}"] = path.rpartition("/")[2]
    for name in LOADED:
        _with_libraries(root, f"{LIBRARIES}/{name}", f"{LIBRARIES}/{name}", items)
    for path in SETTINGS:
        items[path] = _item(root, path, 0o644)
    # The program that the kernel starts for what it wants itself (kernel.modprobe of proc_sys_kernel(5)).
    links["usr/sbin/modprobe"] = "../bin/busybox"
    return items, links


def python(root: Root) -> dict[str, Item]:
    """The interpreter and the trimmed standard library, compiled (-OO), files by target path."""
    items: dict[str, Item] = {}
    binary = f"usr/bin/python{PYTHON}"
    _with_libraries(root, binary, binary, items)
    unused = set(UNUSED.split())
    sources: dict[str, bytes] = {}
    debs: dict[str, Deb] = {}
    for path in root.below(STDLIB):
        parts = path.removeprefix(f"{STDLIB}/").split("/")
        if unused & set(parts) or parts[-1].startswith("_sysconfigdata"):
            continue
        if path.endswith(".so") and not parts[-1].startswith(tuple(UNUSED_EXTENSIONS.split())):
            _with_libraries(root, path, path, items)
        elif path.endswith(".py"):
            debs[path], place = root.get(path)
            sources[path] = place.read_bytes()
    for path, data in compiled(root, sources).items():
        items[path] = Item(data, 0o644, debs[path.removesuffix("c")])
    return items


def compiled(root: Root, sources: Mapping[str, bytes]) -> dict[str, bytes]:
    """Python source files as .pyc files that are never checked against a source (PEP 552), by path + "c".

    Docstrings and asserts are left out; the same sources always give the same bytes. Raises CommandFailed naming the
    line for a source that does not compile.
    """
    frames = bytearray()
    for path in sorted(sources):
        name = path.encode()
        frames += struct.pack("<II", len(name), len(sources[path])) + name + sources[path]
    done = run(
        [*interpreter(root), "-S", "-s", "-c", COMPILER],
        input=bytes(frames),
        # Sets among the constants are laid out by hash; a fixed seed makes that the same each time.
        env={
            "PYTHONHOME": str(root.get(f"{STDLIB}/os.py")[0].tree / "usr"),
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        act="compiling for the installer",
    )
    found: dict[str, bytes] = {}
    offset = 0
    while offset < len(done.stdout):
        n, size = struct.unpack_from("<II", done.stdout, offset)
        offset += 8
        found[done.stdout[offset : offset + n].decode() + "c"] = done.stdout[offset + n : offset + n + size]
        offset += n + size
    return found


def interpreter(root: Root) -> list[str]:
    """The command that starts the packages' own Python on this machine."""
    return command(root, f"usr/bin/python{PYTHON}")


def command(root: Root, path: str) -> list[str]:
    """The command that runs a packaged program on this machine with the packages' own loader and libraries."""
    folders = dict.fromkeys(
        str(root.get(library)[1].parent) for library in root.below(LIBRARIES) if ".so" in library and root.find(library)
    )
    return [str(root.get(LINKER)[1]), "--library-path", ":".join(folders), str(root.get(path)[1])]


def _with_libraries(root: Root, source: str, target: str, items: dict[str, Item]) -> None:
    todo = [(source, target)]
    while todo:
        source, target = todo.pop()
        if target in items:
            continue
        items[target] = item = _item(root, source, 0o755)
        for name in Elf(item.data, target).needed():
            if name == LINKER.rpartition("/")[2]:
                todo.append((LINKER, LINKER))
                continue
            where = next((f"{f}/{name}" for f in (LIBRARIES, "usr/lib") if root.find(f"{f}/{name}")), None)
            if where is None:
                raise UserlandIncomplete(f"{target} needs {name}, which no package of the payload brings")
            todo.append((where, f"{LIBRARIES}/{name}"))


def _item(root: Root, path: str, mode: int) -> Item:
    deb, place = root.get(path)
    return Item(place.read_bytes(), mode, deb)
