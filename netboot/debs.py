"""Debian packages as a source of files: what apt offers is downloaded once, checked, unpacked, and looked up by path.

Nothing is installed on the machine. The host's own apt sources say which versions there are.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from images.errors import GildError
from images.run import run

MAX_LINKS = 16  # symbolic links followed in a row, below the kernel's own 40 (path_resolution(7))
NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")  # Debian policy 5.6.7
# The folders that Debian 12 merged into /usr; a package may name its files either way.
MERGED = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}


class PackageMissing(GildError):
    """apt offers no package of that name, its download is damaged, or it lacks a file it should have."""


@dataclass(frozen=True)
class Deb:
    """One unpacked package. `sha256` is that of the .deb, `sources` are (name, version) of
    the source packages its code comes from."""

    name: str
    version: str
    sources: tuple[tuple[str, str], ...]
    sha256: str
    tree: Path


@dataclass(frozen=True)
class Offer:
    """What apt would install under a name: the fields of its record that matter here."""

    name: str
    version: str
    sources: tuple[tuple[str, str], ...]
    sha256: str
    depends: tuple[str, ...]


def offered(names: Sequence[str], apt: Sequence[str] = ()) -> dict[str, Offer]:
    """What apt offers for each of `names` now. `apt` are options for apt-cache (`-o`, `-c`).
    Raises PackageMissing for a name it does not know; apt's lists must be there (`apt-get update`)."""
    text = run(["apt-cache", *apt, "show", "--no-all-versions", *names], check=False, act="asking apt").stdout
    found = {offer.name: offer for offer in records(text.decode("utf-8", "replace"))}
    for name in names:
        if name not in found:
            raise PackageMissing(f"apt offers no package {name}", "run apt-get update; the payload needs Debian 12")
    return found


def records(text: str) -> Iterator[Offer]:
    """The package records of `apt-cache show`. Records without a name, version or SHA256 are left out."""
    for block in text.split("\n\n"):
        fields: dict[str, str] = {}
        for line in block.splitlines():
            key, colon, value = line.partition(":")
            if colon and not line[0].isspace():
                fields.setdefault(key, value.strip())
        name, version, digest = (fields.get(key, "") for key in ("Package", "Version", "SHA256"))
        if not (NAME.fullmatch(name) and version and re.fullmatch(r"[0-9a-f]{64}", digest)):
            continue
        own, _, other = fields.get("Source", name).partition(" ")
        sources = [(own, other.strip("() ") or version)]
        # A signed package's own source holds little but signatures; what it was built from holds the code.
        for part in fields.get("Built-Using", "").split(","):
            words = part.replace("(= ", "").replace(")", "").split()
            sources += [(words[0], words[1])] if len(words) == 2 else []
        wants = tuple(part.split()[0] for part in fields.get("Depends", "").split(",") if part.strip())
        yield Offer(name, version, tuple(sources), digest, wants)


def fetch(names: Sequence[str], cache: Path, report: Callable[[str], None], apt: Sequence[str] = ()) -> list[Deb]:
    """Download and unpack what apt offers for `names` into `cache`; what is there already is used again.

    Raises PackageMissing as `offered` does or if a downloaded file is not what apt's signed lists name.
    """
    offers = offered(names, apt)
    places = {name: cache / "debs" / f"{name}_{offers[name].sha256[:16]}.deb" for name in names}
    absent = [name for name in names if not places[name].exists()]
    if absent:
        report(f"downloading {len(absent)} of {len(names)} packages")
        _download([offers[name] for name in absent], places, apt)
    found = []
    for name in names:
        offer = offers[name]
        tree = cache / "trees" / f"{name}_{offer.sha256[:16]}"
        if not tree.exists():
            report(f"unpacking {name} {offer.version}")
            _unpack(places[name], tree)
        found.append(Deb(name, offer.version, offer.sources, offer.sha256, tree))
    return found


def _download(offers: Sequence[Offer], places: dict[str, Path], apt: Sequence[str]) -> None:
    folder = places[offers[0].name].parent
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="new-") as new:
        # As root, apt would fetch as the user _apt, who may not write here.
        argv = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", *apt, "download"]
        run([*argv, *(f"{o.name}={o.version}" for o in offers)], cwd=new, timeout=1800, act="downloading packages")
        arrived = {path.name.partition("_")[0]: path for path in Path(new).glob("*.deb")}
        for offer in offers:
            path = arrived.get(offer.name)
            if path is None or hashlib.sha256(path.read_bytes()).hexdigest() != offer.sha256:
                raise PackageMissing(f"{offer.name} {offer.version} did not arrive as apt's lists describe it")
            os.replace(path, places[offer.name])


def _unpack(deb: Path, tree: Path) -> None:
    tree.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(dir=tree.parent, prefix="new-"))
    try:
        run(["dpkg-deb", "-x", str(deb), str(new)], act=f"unpacking {deb.name}")
        os.rename(new, tree)
    finally:
        shutil.rmtree(new, ignore_errors=True)


class Root:
    """Many unpacked packages seen as one file system. Paths have no leading slash and are those of a merged /usr."""

    def __init__(self, debs: Sequence[Deb]) -> None:
        self._at: dict[str, tuple[Deb, Path]] = {}
        for deb in debs:
            for base, folders, files in os.walk(deb.tree):
                links = [name for name in folders if os.path.islink(os.path.join(base, name))]
                for name in sorted(files + links):
                    path = Path(base, name)
                    self._at.setdefault(merged(str(path.relative_to(deb.tree))), (deb, path))

    def find(self, path: str) -> tuple[Deb, Path] | None:
        """The package and the file on this machine that hold `path`, links followed, or None."""
        for _ in range(MAX_LINKS):
            path = self._through_folders(merged(path))
            place = self._at.get(path)
            if place is None or not place[1].is_symlink():
                return place
            path = os.path.join(os.path.dirname("/" + path), os.readlink(place[1])).lstrip("/")
        return None

    def get(self, path: str) -> tuple[Deb, Path]:
        """As `find`, but raises PackageMissing."""
        place = self.find(path)
        if place is None:
            raise PackageMissing(f"no package holds /{path}", "the payload is made from Debian 12 packages")
        return place

    def below(self, folder: str) -> list[str]:
        """Every file or link below `folder`, sorted."""
        prefix = merged(folder).rstrip("/") + "/"
        return sorted(path for path in self._at if path.startswith(prefix))

    def _through_folders(self, path: str) -> str:
        """`path` with a linked folder on its way replaced by what it points to (/usr/share/doc has such)."""
        parts = path.split("/")
        for n in range(1, len(parts)):
            place = self._at.get("/".join(parts[:n]))
            if place is not None and place[1].is_symlink():
                target = os.path.join("/", *parts[: n - 1], os.readlink(place[1]), *parts[n:])
                return merged(target)
        return path


def merged(path: str) -> str:
    """`path` without leading slash, `.` and `..`, and as a merged /usr has it: bin/sh -> usr/bin/sh."""
    path = os.path.normpath("/" + path).lstrip("/")
    first, slash, rest = path.partition("/")
    return f"{MERGED[first]}/{rest}" if slash and first in MERGED else path
