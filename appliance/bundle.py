"""Builds the one file: our packages, the bundled ones for every interpreter and machine, and the boot payload.

Same inputs, same bytes: members are sorted, have one time stamp and one mode; natives are stripped of their debug
sections (65 MB of wheels become 15); every distinct file is stored once, and a table per target says where it goes.
"""

from __future__ import annotations

import hashlib
import io
import json
import marshal
import re
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

from images.errors import GildError
from images.run import run

ROOT = Path(__file__).resolve().parents[1]
OURS = ("appliance", "netboot", "images")
MINORS = (11, 12, 13, 14)
MACHINES = ("x86_64", "aarch64")
STAMP = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can say

# What no part of gild imports, or what is there for compilers and editors only.
DROPPED = re.compile(
    r"(/tests?/|\.pyi$|\.pyx$|\.pxd$|\.pxi$|\.c$|\.h$|\.a$|\.typed$|_cffi\.|_testcapi|/RECORD$|/WHEEL$|/INSTALLER$"
    r"|entry_points\.txt$|top_level\.txt$|^scapy/(contrib|modules|tools)/|\.tar\.gz$)"
)
# The part of the tree that travels in the installer: it may use the standard library alone.
AGENT = (
    "images/__init__.py", "images/errors.py", "images/chunk.py", "images/manifest.py", "images/zstd.py",
    "images/reassemble.py", "images/fetch.py", "images/target.py", "images/run.py", "images/tree.py",
    "images/initramfs.py", "images/grubcfg.py", "images/edits/", "images/distro/", "netboot/__init__.py",
    "netboot/wire.py", "netboot/plan.py", "netboot/report.py", "netboot/layout.py", "netboot/disks.py",
    "netboot/agent/",
)  # fmt: skip


class BundleFailed(GildError):
    """The file cannot be built."""


def wheels(lock: Path, cache: Path, say: Callable[[str], None]) -> dict[str, list[Path]]:
    """Fetch the locked wheels of every target into `cache`: target ("cp311-x86_64") -> wheels. Hashes are checked by
    pip. Nothing is resolved here: the lock names every package."""
    found: dict[str, list[Path]] = {}
    stamp = hashlib.sha256(lock.read_bytes()).hexdigest()
    for minor in MINORS:
        for machine in MACHINES:
            folder = cache / f"cp3{minor}-{machine}"
            done = folder / "done"
            if not done.exists() or done.read_text() != stamp:
                say(f"fetching packages for Python 3.{minor} on {machine}")
                for old in folder.glob("*.whl"):
                    old.unlink()
                platforms = [f"manylinux{tag}_{machine}" for tag in ("2014", "_2_17", "_2_28")]
                run(
                    [
                        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes",
                        "--only-binary=:all:", "--implementation", "cp", "--python-version", f"3.{minor}",
                        *(word for platform in platforms for word in ("--platform", platform)),
                        "--dest", str(folder), "--requirement", str(lock),
                    ],
                    act=f"fetching packages for Python 3.{minor} on {machine}",
                )  # fmt: skip
                done.write_text(stamp)
            found[folder.name] = sorted(folder.glob("*.whl"))
    return found


def write(out: Path, targets: dict[str, list[Path]], payload: Path) -> str:
    """Write the archive to `out` by rename; returns its sha256. `payload` is the folder of boot files."""
    blobs: dict[str, bytes] = {}
    tables: dict[str, dict[str, str]] = {}
    components: dict[str, dict[str, Any]] = {}
    for target, files in sorted(targets.items()):
        table = tables[target] = {}
        for wheel in files:
            component = _component(wheel)
            components[component["sha256"]] = component
            for name, data in _files(wheel, target.rpartition("-")[2]):
                digest = hashlib.sha256(data).hexdigest()
                blobs[digest] = data
                table[name] = "packages/" + digest[:32] + ("" if not name.endswith(".py") else ".py")
    boot = sorted(file for file in payload.iterdir() if file.is_file()) if payload.is_dir() else []
    listed = [file for file in boot if file.name == "COMPONENTS.json"]
    rows = sorted(components.values(), key=lambda row: (row["name"], row["file"]))
    for file in listed:
        rows += json.loads(file.read_text())

    body = io.BytesIO()
    tag = sys.implementation.cache_tag
    with zipfile.ZipFile(body, "w") as archive:
        _put(archive, "__main__.py", (ROOT / "appliance" / "first.py").read_bytes())
        _put(archive, "components.json", json.dumps(rows, indent=1, sort_keys=True).encode())
        for target, table in sorted(tables.items()):
            _put(archive, f"targets/{target}.json", json.dumps(table, sort_keys=True).encode())
        for digest, data in sorted(blobs.items()):
            member = "packages/" + digest[:32]
            source = {name for table in tables.values() for name, where in table.items() if where == member + ".py"}
            _put(archive, member + (".py" if source else ""), data)
            if source and not any(name.startswith("scapy/") for name in source):
                _put(archive, f"{member}.py.{tag}", _compiled(data, min(source)))
        for name, data in own_files():
            _put(archive, name, data)
            if name.endswith(".py"):
                _put(archive, f"{name}.{tag}", _compiled(data, name))
        for file in boot:
            if file not in listed:
                _put(archive, f"payload/{file.name}", file.read_bytes(), stored=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_suffix(".part")
    part.write_bytes(b"#!/usr/bin/env python3\n" + body.getvalue())
    part.chmod(0o755)
    part.replace(out)
    return hashlib.sha256(out.read_bytes()).hexdigest()


def own_files() -> Iterator[tuple[str, bytes]]:
    """Our own packages, sources and data, by path from the root."""
    for package in OURS:
        for file in sorted((ROOT / package).rglob("*")):
            name = file.relative_to(ROOT).as_posix()
            if file.is_file() and "__pycache__" not in name and name != "appliance/requirements.txt":
                yield name, file.read_bytes()


def agent_archive() -> bytes:
    """The agent's part of the tree as a zip of sources, for the installer's initrd."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for name, data in own_files():
            if name in AGENT or (name.startswith(tuple(entry for entry in AGENT if entry.endswith("/")))):
                _put(archive, name, data)
    return body.getvalue()


def lock_text(targets: dict[str, list[Path]], header: str) -> str:
    """A requirements file that pins exactly these wheels by hash."""
    hashes: dict[str, set[str]] = {}
    for files in targets.values():
        for wheel in files:
            name, version = wheel.name.split("-")[:2]
            pinned = f"{name.replace('_', '-').lower()}=={version}"
            hashes.setdefault(pinned, set()).add(hashlib.sha256(wheel.read_bytes()).hexdigest())
    lines = [header]
    for pinned, known in sorted(hashes.items()):
        lines.append(" \\\n".join([pinned, *(f"    --hash=sha256:{value}" for value in sorted(known))]))
    return "\n".join(lines) + "\n"


def _files(wheel: Path, machine: str) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            if not name.endswith("/") and ".data/" not in name and not DROPPED.search(name):
                data = archive.read(name)
                yield name, _stripped(data, machine) if name.endswith(".so") else data


def _stripped(data: bytes, machine: str, known: dict[bytes, bytes] = {}) -> bytes:  # noqa: B006  # a cache
    key = hashlib.sha256(data).digest()
    if key not in known:
        with tempfile.NamedTemporaryFile(suffix=".so") as file:
            file.write(data)
            file.flush()
            run([f"{machine}-linux-gnu-strip", "--strip-debug", file.name], act="stripping a native module")
            known[key] = Path(file.name).read_bytes()
    return known[key]


def _compiled(source: bytes, name: str) -> bytes:
    # Marshal version 2 has no back references: those depend on reference counts, and so on the weather.
    return marshal.dumps(compile(source, f"gild.pyz/{name}", "exec", dont_inherit=True, optimize=0), 2)


def _component(wheel: Path) -> dict[str, Any]:
    with zipfile.ZipFile(wheel) as archive:
        name = next(entry for entry in archive.namelist() if entry.endswith(".dist-info/METADATA"))
        head = HeaderParser().parsestr(archive.read(name).decode("utf-8", "replace"))
    licence = head["License-Expression"] or ""
    classifiers: Sequence[str] = head.get_all("Classifier") or []
    if not licence:
        named = [text.rpartition(" :: ")[2] for text in classifiers if text.startswith("License :: ")]
        licence = ", ".join(named) or (head["License"] or "").strip().splitlines()[0:1][0:1] or "see its files"
        licence = licence if isinstance(licence, str) else licence[0]
    return {
        "name": head["Name"],
        "version": head["Version"],
        "licence": licence,
        "file": wheel.name,
        "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
    }


def _put(archive: zipfile.ZipFile, name: str, data: bytes, *, stored: bool = False) -> None:
    entry = zipfile.ZipInfo(name, STAMP)
    entry.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    entry.create_system = 3  # Unix, whatever builds it
    archive.writestr(entry, data, compresslevel=None if stored else 9)
