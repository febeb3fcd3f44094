"""The installer's initrd in three segments, which the kernel unpacks one over the other.

The head's segment (certificate and settings, uncompressed, first), the base (kernel modules, Python, tools: slow to
compress and the same for every agent), and the agent (small). No udev, kmod or dracut has a part in it.
"""

from __future__ import annotations

import io
import os
import posixpath
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from images.errors import GildError
from netboot import cpio, kmods, userland
from netboot.debs import Deb, Root
from netboot.userland import Item

AGENT = "usr/lib/gild"  # where the agent's packages lie; PYTHONPATH of init.sh
FOLDERS = (
    "dev",
    "etc",
    "mnt",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
    "usr/bin",
    "usr/lib",
    "usr/lib64",
    "usr/sbin",
    "var",
)
LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64", "var/run": "../run"}
MAX_AGENT = 16 * 1024 * 1024  # bytes unpacked: the agent's sources are some hundred kilobytes
MAX_HEAD = 1024 * 1024  # bytes: a certificate and settings


class InitrdInvalid(GildError):
    """What should go into the installer's initrd does not belong there."""


@dataclass(frozen=True)
class Segment:
    """One uncompressed archive, and for each package whose files it holds the paths of those files."""

    data: bytes
    files: dict[Deb, list[str]]


def head_segment(files: Mapping[str, bytes]) -> bytes:
    """The archive that a head puts before the installer's initrd: its certificate and settings, by path.

    Uncompressed, a multiple of 512 bytes long: the kernel wants an archive to start on a multiple of four bytes, and
    loaders and people concatenate files without looking. Files are readable by root alone.
    Raises InitrdInvalid for more than 1 MiB, CpioInvalid for an impossible path.
    """
    if sum(map(len, files.values())) > MAX_HEAD:
        raise InitrdInvalid(f"the head's part of the initrd is larger than {MAX_HEAD} bytes")
    data = cpio.write(cpio.file(path.lstrip("/"), content, 0o600) for path, content in files.items())
    return data + bytes(-len(data) % 512)


def base_segment(root: Root, release: str) -> Segment:
    """All but the agent: folders, the modules of kernel `release` with their index, Python, tools, libraries.
    Raises PackageMissing or UserlandIncomplete if the packages do not fit together."""
    items, links = userland.programs(root)
    items.update(userland.python(root))
    items.update(modules(root, release))
    entries = [cpio.folder(name, 0o1777 if name == "tmp" else 0o755) for name in FOLDERS]
    entries += [cpio.link(name, target) for name, target in {**LINKS, **links}.items()]
    # The kernel opens /dev/console for /init before anything is mounted.
    entries += [cpio.character_device("dev/console", 5, 1), cpio.character_device("dev/null", 1, 3, 0o666)]
    entries += [cpio.file(path, item.data, item.mode) for path, item in items.items()]
    return Segment(cpio.write(entries), by_deb(items))


def modules(root: Root, release: str) -> dict[str, Item]:
    """The installer's kernel modules, signatures and all (they are checked under Secure Boot), and their index."""
    folder = f"usr/lib/modules/{release}"
    files = {name: path for path in root.below(f"{folder}/kernel") if (name := kmods.module_name(path))}
    if not files:
        raise InitrdInvalid(f"the kernel package has no modules for {release}")
    wanted = [name for group in kmods.WANTED.values() for name in group.split()]
    chosen = kmods.choose(wanted, files, lambda path: root.get(path)[1].read_bytes())
    items = {f"{folder}/{n}.ko": Item(m.data, 0o644, root.get(files[n])[0]) for n, m in chosen.items()}
    index = {f"{folder}/{name}": Item(text, 0o644, None) for name, text in kmods.index(chosen).items()}
    return {**items, **index}


def agent_segment(root: Root, agent: bytes) -> Segment:
    """The agent from `agent`, a zip of its source tree: Python compiled with the initrd's own interpreter, other files
    as they are, and /init, which starts it. The same zip gives the same bytes.
    Raises InitrdInvalid for a zip that is damaged, too large or names paths outside of itself."""
    files = _unzipped(agent)
    if "netboot/agent/__main__.py" not in files:
        raise InitrdInvalid("the agent's archive has no netboot/agent/__main__.py")
    sources = {f"{AGENT}/{path}": data for path, data in files.items() if path.endswith(".py")}
    packed = {f"{AGENT}/{path}": data for path, data in files.items() if not path.endswith(".py")}
    packed.update(userland.compiled(root, sources))
    entries = [cpio.file(path, data) for path, data in packed.items()]
    entries.append(cpio.file("init", _init(), 0o755))
    return Segment(cpio.write(entries), {})


def by_deb(items: Mapping[str, Item]) -> dict[Deb, list[str]]:
    """The paths of `items` by the package they come from, sorted."""
    found: dict[Deb, list[str]] = {}
    for path in sorted(items):
        deb = items[path].deb
        if deb is not None:
            found.setdefault(deb, []).append(path)
    return found


def releases(root: Root) -> list[str]:
    """The kernel releases whose modules the packages bring, such as 6.1.0-18-amd64."""
    return sorted({path.split("/")[3] for path in root.below("usr/lib/modules") if path.count("/") > 3})


def _init() -> bytes:
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "agent", "init.sh"), "rb") as file:
        return file.read()


def _unzipped(agent: bytes) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(agent)) as archive:
            return dict(_members(archive, archive.infolist()))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise InitrdInvalid(f"the agent's archive cannot be read: {error}") from None


def _members(archive: zipfile.ZipFile, infos: Iterable[zipfile.ZipInfo]) -> Iterable[tuple[str, bytes]]:
    total = 0
    for info in infos:
        total += info.file_size
        if total > MAX_AGENT:
            raise InitrdInvalid(f"the agent's archive unpacks to more than {MAX_AGENT} bytes")
        if info.is_dir():
            continue
        if info.filename != posixpath.normpath(info.filename) or info.filename.startswith(("/", "..")):
            raise InitrdInvalid(f"the agent's archive names {info.filename!r}, which lies outside of it")
        yield info.filename, archive.read(info)
