"""Builds gild.pyz: our three packages, other people's wheels for every target, and the netboot payload, in one file.

    __main__.py MEMBERS components.json     first.py; the list of members; what is bundled
    appliance/ netboot/ images/             our own files
    lib/                                    Python files of the wheels, the same for every target
    native/MACHINE/                         their libraries, which name the version of Python in their own names;
                                            the large one as .xz, which is a third smaller than deflated
    code/MAGIC/                             Python files compiled by the version that built the file
    licences/PACKAGE/                       their licences
    payload/NAME                            kernel, installer and loaders, under the names they are served by

Payload that compression cannot shrink (kernel and installer, three quarters of it) is stored as it is, to be sent from
the .pyz by sendfile; the EFI loaders shrink to two fifths and are unpacked into memory when serving starts.

The same inputs, built by the same Python, zlib and binutils, give the same bytes.
"""

from __future__ import annotations

import ast
import io
import json
import lzma
import os
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from appliance.wheels import Wheel
from images.errors import GildError
from images.run import run

PACKAGES = ("appliance", "netboot", "images")
# Files that are loaded by name and not by an import statement, so that following imports would not find them.
AGENT = ("netboot/agent/", "images/edits/", "images/distro/")
STAMP = (1980, 1, 1, 0, 0, 0)
STORE_ABOVE = 0.8  # compressed size over size from which payload is stored: kernel and initrd 0.99, EFI loaders 0.4
# Bytes of a library from which 0.15 s for unpacking (measured) are well paid: cryptography's, which is rarely used.
XZ_FROM = 1 << 20
SHEBANG = b"#!/usr/bin/env python3\n"
COMPILE = """
import importlib.util, json, marshal, sys
sources = json.load(sys.stdin)
print(int.from_bytes(importlib.util.MAGIC_NUMBER[:2], "little"), flush=True)
for member, text in sources:
    code = marshal.dumps(compile(text.encode("latin-1"), "gild.pyz/" + member, "exec", dont_inherit=True))
    sys.stdout.buffer.write(len(code).to_bytes(4, "little") + code)
"""


class BundleInvalid(GildError):
    """What should go into the .pyz contradicts itself."""


def build(
    root: Path, out: Path, wheels: Sequence[Wheel], payload: Path | None, report: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Write the .pyz to `out` from the checkout at `root` and return what is bundled (its components.json).

    `payload` is a folder of netboot.payload, or None for a file that can serve only the site's own boot files.
    `out` is replaced whole or not at all. Raises BundleInvalid if two wheels disagree about a file, FileNotFoundError
    if the payload is not complete.
    """
    own = own_files(root)
    members = {**own, **wheel_members(wheels), "__main__.py": own["appliance/first.py"]}
    members.update(compiled({name: data for name, data in members.items() if _pays(name)}))
    components = listed(wheels, payload)
    members["components.json"] = (json.dumps(components, indent=1, sort_keys=True) + "\n").encode()
    if payload is not None:
        # Not whatever lies in the folder: what was made from the components.
        served = {file.partition(":")[0] for row in components for file in row.get("files", ())}
        members.update({f"payload/{name}": (payload / name).read_bytes() for name in served})
    members["MEMBERS"] = "\n".join(sorted(members)).encode()
    out.parent.mkdir(parents=True, exist_ok=True)
    new = out.with_name(f".{out.name}.new")
    with open(new, "wb") as file:
        file.write(SHEBANG)
        with zipfile.ZipFile(file, "w") as archive:
            for name in sorted(members):
                archive.writestr(_info(name, _method(name, members[name])), members[name], compresslevel=9)
    os.chmod(new, 0o755)
    os.replace(new, out)
    report(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {len(members)} members")
    return components


def own_files(root: Path) -> dict[str, bytes]:
    """Every file of our three packages in the checkout at `root`, by its path."""
    found = {}
    for package in PACKAGES:
        for base, folders, files in os.walk(root / package):
            folders[:] = sorted(name for name in folders if name != "__pycache__" and not name.startswith("."))
            for name in sorted(files):
                if not name.endswith(".pyc") and not name.startswith("."):
                    path = Path(base, name)
                    found[path.relative_to(root).as_posix()] = path.read_bytes()
    return found


def wheel_members(wheels: Sequence[Wheel]) -> dict[str, bytes]:
    """The wheels' files by their place in the .pyz, each once. Raises BundleInvalid if two targets' files differ where
    there is only one place, so that a package cannot quietly be half of one version and half of another."""
    members: dict[str, bytes] = {}
    for wheel in wheels:
        places = {f"lib/{path}": data for path, data in wheel.files.items() if not path.endswith(".so")}
        libraries = {f"native/{wheel.machine}/{p}": d for p, d in wheel.files.items() if p.endswith(".so")}
        places.update(_packed(place, data) for place, data in libraries.items())
        places.update({f"licences/{wheel.name}/{name}": data for name, data in wheel.licences.items()})
        for place, data in places.items():
            if members.setdefault(place, data) != data:
                raise BundleInvalid(f"{wheel.name} {wheel.version}: {place} is not the same for every target")
    return members


def _packed(place: str, library: bytes) -> tuple[str, bytes]:
    if len(library) < XZ_FROM:
        return place, library
    return f"{place}.xz", _xz(library)


@cache  # every version of Python has the same one: 4 s each
def _xz(data: bytes) -> bytes:
    return lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)


def compiled(sources: Mapping[str, bytes]) -> dict[str, bytes]:
    """Each Python file as marshalled code of the running version of Python, by its place in the .pyz.

    Done in a fresh process with a fixed hash seed, in sorted order: else sets and references come out differently
    from run to run.
    """
    todo = sorted(sources.items())
    text = json.dumps([(name, data.decode("latin-1")) for name, data in todo]).encode()
    output = run(
        [sys.executable, "-s", "-S", "-c", COMPILE],
        input=text,
        env={"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONWARNINGS": "ignore"},
        act="compiling",
    ).stdout
    file = io.BytesIO(output)
    magic = file.readline().decode().strip()
    return {f"code/{magic}/{name}": file.read(int.from_bytes(file.read(4), "little")) for name, _ in todo}


def _pays(name: str) -> bool:
    """Whether to compile a member beforehand. Not scapy, which only short-lived processes load: it would be 3 MB. Nor
    __main__.py, which Python's own zip importer reads."""
    return name.endswith(".py") and not name.startswith("lib/scapy/") and name != "__main__.py"


def listed(wheels: Sequence[Wheel], payload: Path | None) -> list[dict[str, Any]]:
    """What is bundled: each wheel with its sha256, then what the payload says of itself."""
    rows: list[dict[str, Any]] = [
        {"name": w.name, "version": w.version, "licence": w.licence, "sha256": w.sha256, "where": w.machine or "all"}
        for w in sorted(wheels, key=lambda wheel: (wheel.name.lower(), wheel.machine, wheel.sha256))
    ]
    if payload is not None:
        for row in json.loads((payload / "COMPONENTS.json").read_bytes()):
            rows.append({**row, "where": "payload"})
    return rows


def agent_archive(root: Path) -> bytes:
    """A zip of all that runs on the node, from the checkout at `root`: the agent, the edits, and what they import.

    Following the imports rather than keeping a list means that nothing can be forgotten; that all of it needs the
    standard library alone is for tests to hold. The same files give the same bytes.
    """
    own = own_files(root)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in sorted(closure(own, (name for name in own if name.startswith(AGENT)))):
            archive.writestr(_info(name, zipfile.ZIP_DEFLATED), own[name], compresslevel=9)
    return packed.getvalue()


def closure(own: Mapping[str, bytes], names: Iterable[str]) -> set[str]:
    """`names` and all of our own files that they import, directly or not."""
    wanted = set(names)
    todo = sorted(wanted)
    while todo:
        for needed in _imported(own, todo.pop()):
            if needed not in wanted:
                wanted.add(needed)
                todo.append(needed)
    return wanted


def _imported(own: Mapping[str, bytes], name: str) -> Iterator[str]:
    """Our own files that a Python file imports anywhere in it, and the __init__ of each package on the way."""
    parts = name.split("/")[:-1]
    modules = {".".join(parts[: n + 1]) for n in range(len(parts))}
    if name.endswith(".py"):
        for node in ast.walk(ast.parse(own[name], name)):
            if isinstance(node, ast.Import):
                modules.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module)
                modules.update(f"{node.module}.{alias.name}" for alias in node.names)
    for module in sorted(modules):
        base = module.replace(".", "/")
        yield from (path for path in (f"{base}.py", f"{base}/__init__.py") if path in own)


def _method(name: str, data: bytes) -> int:
    if name.startswith(("payload/", "native/")) and len(zlib.compress(data, 1)) > STORE_ABOVE * len(data):
        return zipfile.ZIP_STORED
    return zipfile.ZIP_DEFLATED


def _info(name: str, method: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, STAMP)
    info.compress_type = method
    info.create_system = 3
    info.external_attr = 0o100644 << 16
    return info
