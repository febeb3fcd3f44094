"""The packages inside the .pyz: which versions, fetched for every target, and what is taken out of each wheel.

A target is a minor version of CPython on one kind of machine. The lock names every wheel of every target by sha256, so
what is fetched is what was looked at when the lock was made.
"""

from __future__ import annotations

import email
import hashlib
import re
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from images.errors import GildError
from images.run import run

MINORS = (11, 12, 13, 14)
# Kind of machine -> the program that removes debug sections from its libraries, on an x86-64 build machine.
STRIP = {"x86_64": "x86_64-linux-gnu-strip", "aarch64": "aarch64-linux-gnu-strip"}
TARGETS = tuple((minor, machine) for minor in MINORS for machine in STRIP)
# Named as dependencies by the packages' metadata and not needed by what is used of them: pip is sqlite-utils' plugin
# installer, pygments and markdown-it-py are behind rich's syntax and markdown, pycparser reads C for cffi's own users,
# tzdata is for machines without zoneinfo files.
LEFT_OUT = frozenset({"pip", "pygments", "markdown-it-py", "mdurl", "pycparser", "tzdata"})
# Of what is kept: tests, build leftovers, what zstandard has for other interpreters, cffi without the backend that
# cryptography needs, aiohttp's compiled WebSocket parser (nobody opens one here; its Python twin stays), and all of
# scapy that discovery by DHCP does not import.
DROP = re.compile(
    r"(^|/)tests?/|(^|/)test_(?!pyx)[^/]*\.py$|\.(pyi|pyx|pxd|pxi|c|h|a|rst)$|(^|/)py\.typed$|(^|/)_cffi\.|/_testcapi"
    r"|^aiohttp/_websocket/(reader_c|mask)\..*so$|^cffi/|^zstandard/backend_cffi\.py$|^[^/]+\.data/|^dateutil/zoneinfo/.*\.tar\.gz$"
    r"|^scapy/(contrib|modules|tools|cbor)/|^scapy/layers/(?!(__init__|dhcp6?|dns|inet6?|l2|tftp)\.py$)"
)
LICENCE_FILE = re.compile(r"(?i)^[^/]+\.dist-info/(?:licenses/.+|(?:licen[cs]e|copying|notice|authors)[^/]*)$")


class WheelInvalid(GildError):
    """A lock or a wheel is not what the build needs."""


@dataclass(frozen=True)
class Pin:
    """One line of a lock: the only files that may be installed by that name."""

    name: str
    version: str
    hashes: tuple[str, ...]


@dataclass(frozen=True)
class Wheel:
    """What is taken out of one wheel. `files` by path inside site-packages, `licences` by their own names."""

    name: str
    version: str
    licence: str
    sha256: str
    machine: str
    files: dict[str, bytes]
    licences: dict[str, bytes]


def read_lock(text: str) -> list[Pin]:
    """The pins of a requirements file with hashes. Raises WheelInvalid for a line that pins nothing."""
    pins = []
    for line in text.replace("\\\n", " ").splitlines():
        line = line.split("#", 1)[0].strip()
        if not line:
            continue
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.+!]+)((?:\s+--hash=sha256:[0-9a-f]{64})+)", line)
        if match is None:
            raise WheelInvalid(f"the lock has a line without version or sha256: {line[:80]!r}", "python3 build.py lock")
        pins.append(Pin(match[1], match[2], tuple(re.findall(r"sha256:([0-9a-f]{64})", match[3]))))
    return pins


def write_lock(pins: Iterable[Pin], title: str) -> str:
    """The text of a lock, sorted; `title` becomes its first comment."""
    lines = [f"# {title}", "# Made by: python3 build.py lock"]
    for pin in sorted(pins, key=lambda pin: pin.name):
        hashes = [f"--hash=sha256:{value}" for value in sorted(pin.hashes)]
        lines.append(" \\\n    ".join([f"{pin.name}=={pin.version}", *hashes]))
    return "\n".join(lines) + "\n"


def fetch(python: str, lock: Path, cache: Path, report: Callable[[str], None]) -> list[Path]:
    """All wheels of a lock for all targets, below `cache`; what is there already is not fetched again.

    `python` is an interpreter that has pip. Raises CommandFailed if pip cannot get a file of the named sha256.
    """
    key = hashlib.sha256(lock.read_bytes()).hexdigest()
    done = cache / f"fetched-{key[:32]}"
    if not done.exists():
        report(f"fetching packages for {len(TARGETS)} targets")
        options = ["--no-deps", "--require-hashes", "-r", str(lock)]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda target: _download(python, target, cache, options), TARGETS))
        done.touch()
    wanted = {digest for pin in read_lock(lock.read_text()) for digest in pin.hashes}
    found = {_sha256(path): path for path in sorted(cache.glob("*/*.whl"))}
    missing = wanted - set(found)
    if missing:
        done.unlink()
        raise WheelInvalid(f"{lock}: no target has the wheel of sha256 {min(missing)}", "python3 build.py lock")
    return [found[digest] for digest in sorted(wanted, key=lambda digest: found[digest].name)]


def resolve(python: str, names: Iterable[str], cache: Path, leave: Iterable[str]) -> list[Pin]:
    """The newest versions of `names` and of all they need, for all targets, without those of `leave`.

    Raises WheelInvalid if two targets would get two versions: everything that is tested should be what is shipped.
    """
    for target in TARGETS:
        _download(python, target, cache, list(names))
    versions: dict[str, set[str]] = {}
    hashes: dict[str, set[str]] = {}
    for path in sorted(cache.glob("*/*.whl")):
        name, version = path.name.split("-")[:2]
        name = name.replace("_", "-").lower()
        if name not in leave:
            versions.setdefault(name, set()).add(version)
            hashes.setdefault(name, set()).add(_sha256(path))
    for name, found in versions.items():
        if len(found) > 1:
            raise WheelInvalid(f"{name} has different versions for different targets: {', '.join(sorted(found))}")
    return [Pin(name, min(versions[name]), tuple(hashes[name])) for name in sorted(versions)]


def read(path: Path, stripped: Path) -> Wheel:
    """What the .pyz takes out of a wheel, libraries without debug sections. `stripped` caches those by sha256.

    Raises WheelInvalid for a wheel without metadata or for a machine that is not in STRIP.
    """
    data = path.read_bytes()
    machine = next((machine for machine in STRIP if path.stem.endswith(machine)), "")
    if not machine and not path.stem.endswith("-any"):
        raise WheelInvalid(f"{path.name} is for a machine this build does not know")
    files, licences, metadata = {}, {}, b""
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith("/"):
                continue
            if ".dist-info/" in name:
                if name.endswith(".dist-info/METADATA"):
                    metadata = archive.read(name)
                elif LICENCE_FILE.match(name):
                    licences[name.split("/", 1)[1].removeprefix("licenses/")] = archive.read(name)
            elif not DROP.search(name):
                files[name] = archive.read(name)
    if not metadata:
        raise WheelInvalid(f"{path.name} has no METADATA")
    for name, content in files.items():
        if name.endswith(".so"):
            files[name] = strip(content, machine, stripped)
    head = email.message_from_bytes(metadata)
    return Wheel(
        head["Name"], head["Version"], _licence(head), hashlib.sha256(data).hexdigest(), machine, files, licences
    )


def strip(library: bytes, machine: str, cache: Path) -> bytes:
    """A shared library without what only debuggers and linkers read (zstandard's shrinks from 11.6 to 1.0 MB).
    The result is kept in `cache` by the sha256 of `library`."""
    kept = cache / f"{hashlib.sha256(library).hexdigest()}.so"
    if not kept.exists():
        cache.mkdir(parents=True, exist_ok=True)
        new = kept.with_suffix(".new")
        new.write_bytes(library)
        run([STRIP[machine], "--strip-unneeded", str(new)], act="stripping a library")
        new.rename(kept)
    return kept.read_bytes()


def _licence(head: email.message.Message) -> str:
    """The licence as the metadata has it: an SPDX expression, a short word, or the classifier."""
    classifiers = [text for text in head.get_all("Classifier", []) if text.startswith("License ::")]
    short = str(head["License"] or "").strip()
    if not short or "\n" in short or len(short) > 60:
        short = ""
    return str(
        head["License-Expression"]
        or short
        or ", ".join(text.rsplit(" :: ", 1)[1] for text in classifiers)
        or "see its licence file"
    )


def _download(python: str, target: tuple[int, str], cache: Path, options: list[str]) -> None:
    minor, machine = target
    # The old names of a platform come first with some packages and are missing with others; pip takes the best match.
    platforms = [
        f"--platform={name}_{machine}" for name in ("manylinux_2_28", "manylinux2014", "manylinux_2_17", "manylinux1")
    ]
    argv = [python, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--implementation=cp", *platforms]
    argv += [f"--python-version=3.{minor}", f"--dest={cache / f'cp3{minor}-{machine}'}", *options]
    run(argv, timeout=900, act=f"fetching packages for CPython 3.{minor} on {machine}")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
