"""The netboot payload: kernel, installer initrd and boot loaders, made from Debian packages into one folder.

The folder's file names are the public names under which they are served. Needs a Debian 12 with its apt lists, but
not root; nothing is installed. What was downloaded, unpacked and compressed is kept in a cache and used again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from images.errors import GildError
from images.run import run
from netboot.copyright import licence
from netboot.debs import Deb, Root, fetch, offered
from netboot.initrd import Segment, agent_segment, base_segment, releases
from netboot.loaders import loaders
from netboot.userland import command

KERNEL = "linux-image-amd64"  # the name that stands for the newest kernel
# Where the files come from; zstd and grub-common are only run. A library that is missing here is named by
# UserlandIncomplete when the payload is made.
PACKAGES = """ipxe grub-common grub-efi-amd64-bin grub-efi-amd64-signed grub-pc-bin shim-signed
    shim-helpers-amd64-signed python3.11-minimal libpython3.11-minimal libpython3.11-stdlib busybox-static fdisk
    util-linux e2fsprogs dosfstools xfsprogs btrfs-progs efibootmgr mdadm dmsetup zstd libc6 libgcc-s1 zlib1g libexpat1
    libssl3 libffi8 libbz2-1.0 liblzma5 libuuid1 libzstd1 libfdisk1 libblkid1 libsmartcols1 libreadline8 libtinfo6
    libselinux1 libpcre2-8-0 libext2fs2 libcom-err2 libinih1 liburcu8 libudev1 liblzo2-2 libefivar1 libefiboot1
    libdevmapper1.02.1 liblz4-1"""
LEVEL = 19  # of zstd, the highest whose window (8 MiB) a small node unpacks without trouble
SOURCE = "Debian source package {} {}"  # the Debian archive keeps the source of every version


@dataclass(frozen=True)
class Component:
    """A package whose files are in the payload. `source` names the source package it was built from (several with
    commas between), `sha256` that of the .deb, `files` the payload's names; those inside of the initrd stand as
    `initrd.img:path`.
    """

    name: str
    version: str
    licence: str
    source: str
    sha256: str
    files: tuple[str, ...]


class PayloadInvalid(GildError):
    """The packages do not make a payload: no kernel, two kernels, or a file where a folder should be."""


def build_payload(
    out: Path,
    cache: Path,
    agent: bytes,
    *,
    level: int = LEVEL,
    apt: Sequence[str] = (),
    report: Callable[[str], None] = print,
) -> list[Component]:
    """Make the whole payload in the folder `out` and say what it is made of (also in its COMPONENTS.json).

    `agent` is a zip of the agent's source tree, `level` the zstd level of the initrd (19: about a minute once; 9 is
    enough for tests), `apt` options for apt (`-o`, `-c`) where the host's own sources are not wanted, `report` gets
    one line for each step. The same packages and agent give the same bytes. Each file is replaced whole, the list
    last. Raises PayloadInvalid and whatever fetching, compiling and GRUB raise (all GildError).
    """
    debs = fetch([kernel_package(apt), *PACKAGES.split()], cache, report, apt)
    root = Root(debs)
    release = _release(root)
    report(f"installer for kernel {release}")
    kernel_deb, kernel = root.get(f"boot/vmlinuz-{release}")
    base = base_segment(root, release)
    made: dict[str, bytes] = {"vmlinuz": kernel.read_bytes()}
    users: dict[Deb, list[str]] = {kernel_deb: ["vmlinuz"]}
    # Two compressed archives one after the other are one initrd to the kernel; only the small one changes often.
    made["initrd.img"] = _compressed(root, base, level, cache, report) + _compressed(
        root, agent_segment(root, agent), level, cache, report
    )
    for deb, paths in base.files.items():
        users.setdefault(deb, []).extend(f"initrd.img:{path}" for path in paths)
    for loader in loaders(root):
        made[loader.name] = loader.data
        for deb in loader.debs:
            users.setdefault(deb, []).append(loader.name)
    components = [_component(root, deb, users[deb]) for deb in sorted(users, key=lambda deb: deb.name)]
    made["COMPONENTS.json"] = (json.dumps([asdict(c) for c in components], indent=1) + "\n").encode()
    out.mkdir(parents=True, exist_ok=True)
    for name, data in made.items():
        _replace(out / name, data)
    report(f"payload of {sum(map(len, made.values())) / 1e6:.1f} MB in {out}")
    return components


def kernel_package(apt: Sequence[str] = ()) -> str:
    """The package that holds the newest kernel apt offers, e.g. linux-image-6.1.0-18-amd64 (the signed one: the name
    without -unsigned). Raises PackageMissing or PayloadInvalid."""
    for name in offered([KERNEL], apt)[KERNEL].depends:
        if name.startswith("linux-image-") and not name.endswith("-unsigned"):
            return name
    raise PayloadInvalid(f"{KERNEL} depends on no kernel image", "run apt-get update; the payload needs Debian 12")


def compress(root: Root, data: bytes, level: int) -> bytes:
    """`data` as one zstd frame, made by the packages' own zstd with two workers, whose output does not depend on how
    many processors there are. `level` 1 to 19."""
    if not 1 <= level <= 19:
        raise PayloadInvalid(f"zstd level {level} is not one of 1 to 19")
    return run(
        [*command(root, "usr/bin/zstd"), "-q", f"-{level}", "-T2", "-c"],
        input=data,
        timeout=1800,
        act="compressing the initrd",
    ).stdout


def _compressed(root: Root, segment: Segment, level: int, cache: Path, report: Callable[[str], None]) -> bytes:
    tool = root.get("usr/bin/zstd")[0].sha256
    key = hashlib.sha256(f"{tool} {level} ".encode() + segment.data).hexdigest()
    kept = cache / "segments" / f"{key}.zst"
    if not kept.exists():
        report(f"compressing {len(segment.data) / 1e6:.1f} MB of the initrd with zstd -{level}")
        kept.parent.mkdir(parents=True, exist_ok=True)
        _replace(kept, compress(root, segment.data, level))
    return kept.read_bytes()


def _component(root: Root, deb: Deb, files: Sequence[str]) -> Component:
    source = ", ".join(SOURCE.format(*pair) for pair in deb.sources)
    return Component(deb.name, deb.version, licence(root, deb), source, deb.sha256, tuple(sorted(files)))


def _release(root: Root) -> str:
    found = releases(root)
    if len(found) != 1:
        raise PayloadInvalid(f"the kernel package has modules for {len(found)} kernels: {' '.join(found)}")
    return found[0]


def _replace(path: Path, data: bytes) -> None:
    new = path.with_name(f".{path.name}.new")
    with open(new, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
