"""A small checkout and made-up wheels, to build a .pyz from in a second."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path

from appliance import bundle
from appliance.wheels import MINORS, Wheel

ROOT = Path(__file__).resolve().parents[2]
MACHINE = EXTENSION_SUFFIXES[0].partition("-")[2].split("-")[1]
KEPT = ("appliance/first.py", "appliance/bootstrap.py", "appliance/bundled.py", "images/errors.py")

MAIN = """
import sys


def main():
    if sys.argv[1:2] == ["--version"]:
        print("small 1", *sys.version_info[:2])
        return 0
    namespace = {}
    exec(sys.argv[1], namespace)
    return namespace.get("code", 0)
"""


def checkout(folder: Path) -> Path:
    """A checkout whose program runs its first argument as Python."""
    for name in KEPT:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    files = {
        "appliance/__init__.py": '"""Small."""\n',
        "appliance/__main__.py": MAIN,
        "appliance/errors.py": "from images.errors import GildError\n\n\nclass Environment(GildError):\n    pass\n",
        "appliance/late.py": "WORD = 'old'\n",
        "appliance/help/start.md": "how to start\n",
        "images/__init__.py": "",
        "images/chunk.py": "",
        "images/layers.py": "from images import chunk\n",
        "images/server.py": "import aiohttp\n",
        "netboot/__init__.py": "",
        "netboot/agent/__init__.py": "",
        "netboot/agent/__main__.py": "def run():\n    from images.layers import chunk\n    return chunk\n",
        "netboot/agent/init.sh": "#!/bin/sh\n",
        "netboot/__pycache__/left.pyc": "stale",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def wheels() -> list[Wheel]:
    """A pure package, and multidict's real library for this interpreter (empty ones for the others)."""
    spec = find_spec("multidict._multidict")
    assert spec is not None and spec.origin is not None
    library, package = Path(spec.origin), {}
    for path in sorted(library.parent.glob("*.py")):
        package[f"multidict/{path.name}"] = path.read_bytes()
    files = {
        "colours/__init__.py": b'RED = {"red", "rot", "rouge"}\n',
        "colours/broken.py": b"def fall():\n    raise ValueError('line two')\n",
        "colours/data/green.txt": "grün\n".encode(),
    }
    made = [Wheel("Colours", "1", "MIT", "0" * 64, "", files, {"LICENSE": b"free\n"})]
    for minor in MINORS:
        name = f"multidict/_multidict.cpython-3{minor}-{MACHINE}-linux-gnu.so"
        data = library.read_bytes() if name.endswith(library.name) else b""
        made.append(Wheel("multidict", "7", "Apache-2.0", f"{minor:064}", MACHINE, {**package, name: data}, {}))
    return made


def payload(folder: Path) -> Path:
    """A payload of one file that cannot be compressed, one that can, and one that nobody listed."""
    folder.mkdir()
    (folder / "vmlinuz").write_bytes(random.Random(1).randbytes(300_000))
    (folder / "loader.efi").write_bytes(b"loader" * 50_000)
    (folder / "left-over").write_bytes(b"x")
    (folder / "COMPONENTS.json").write_text(
        '[{"name": "linux", "version": "6", "licence": "GPL-2.0-only", "sha256": "%s",'
        ' "files": ["vmlinuz", "vmlinuz:inner", "loader.efi"]}]' % ("1" * 64)
    )
    return folder


def build(folder: Path) -> Path:
    """A .pyz with all of it, in `folder`."""
    out = folder / "small.pyz"
    bundle.build(checkout(folder / "checkout"), out, wheels(), payload(folder / "payload"), lambda line: None)
    return out


def run(pyz: Path, code: str, python: str = sys.executable, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `code` inside of a .pyz, with nothing in the environment but what is given."""
    return subprocess.run(
        [python, str(pyz), code], env={"PATH": "/usr/bin:/bin", **environment}, capture_output=True, text=True,
        timeout=60, cwd="/",
    )  # fmt: skip
