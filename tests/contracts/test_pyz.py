"""The built file runs with every Python it claims, and carries what it must."""

from __future__ import annotations

import glob
import json
import lzma
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from appliance import __version__
from appliance.wheels import MINORS, STRIP, read_lock
from tests.contracts.house import ROOT

LIMIT = 60_000_000  # bytes of the whole file: it is copied to head nodes over whatever link there is
IMPORTS = """
import os, sys
before, pyz = set(sys.modules), sys.argv[1]
sys.path.insert(0, pyz)
from appliance import bootstrap
bundle = bootstrap.Bundle(pyz)
assert bundle.fits()
sys.path[:] = [entry for entry in sys.path if entry != pyz and "-packages" not in entry]
sys.meta_path.insert(0, bundle)
for name in ("appliance", "appliance.bootstrap"):
    del sys.modules[name]
import aiohttp.web, aiohttp._http_parser, yarl._quoting_c, multidict._multidict, frozenlist._frozenlist
import propcache._helpers_c, zstandard.backend_c, _cffi_backend, cryptography.x509, dnslib, tftpy, sqlite_utils, click
import rich.console, rich.progress, rich.live, rich.table, scapy.layers.dhcp, scapy.sendrecv
from cryptography.hazmat.primitives.asymmetric import ec
ec.generate_private_key(ec.SECP256R1())
assert zstandard.decompress(zstandard.compress(b"gild" * 99)) == b"gild" * 99
new = [module for name, module in sys.modules.items() if name not in before]
foreign = [module for module in new if "-packages" in (getattr(module, "__file__", None) or "")]
print("imported", foreign)
"""


def interpreters() -> list[str]:
    """One of each version of Python that is on this machine, this one first."""
    found = {sys.version_info[1]: sys.executable}
    for minor in MINORS:
        elsewhere = glob.glob(os.path.expanduser(f"~/.pyenv/versions/3.{minor}.*/bin/python"))
        for path in (shutil.which(f"python3.{minor}"), *elsewhere):
            # A version manager's shim is there for versions that are not.
            if path and minor not in found and subprocess.run([path, "-c", ""], capture_output=True).returncode == 0:
                found[minor] = path
    return [found[minor] for minor in sorted(found)]


@pytest.fixture(scope="module", params=interpreters())
def python(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_it_starts(pyz: Path, python: str) -> None:
    done = subprocess.run([python, pyz, "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"gild {__version__}\n", "")


def test_all_packages_can_be_imported_from_memory(pyz: Path, python: str, tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [python, "-B", "-c", IMPORTS, pyz], capture_output=True, text=True, timeout=100, env=home, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (0, "imported []\n"), done.stderr


def test_the_version_costs_the_standard_library_alone(pyz: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", pyz, "--version"], capture_output=True, text=True, timeout=60
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "appliance.bootstrap" in imported
    assert not imported & {"click", "aiohttp", "rich", "asyncio", "json", "zipfile", "images.errors"}


def test_every_target_has_its_libraries(pyz: Path) -> None:
    with zipfile.ZipFile(pyz) as archive:
        names = set(archive.namelist())
        # e_machine of the ELF header: 62 is x86-64, 183 AArch64 (elf.h).
        libraries = {n: archive.read(n) for n in names if n.startswith("native/")}
    kinds = {
        (n.split("/")[1], (lzma.decompress(data) if n.endswith(".xz") else data)[18]) for n, data in libraries.items()
    }
    assert kinds == {("x86_64", 62), ("aarch64", 183)}
    for machine in STRIP:
        assert f"native/{machine}/cryptography/hazmat/bindings/_rust.abi3.so.xz" in names
        for minor in MINORS:
            for module in ("aiohttp/_http_parser", "multidict/_multidict", "zstandard/backend_c", "_cffi_backend"):
                assert f"native/{machine}/{module}.cpython-3{minor}-{machine}-linux-gnu.so" in names


def test_everything_bundled_is_told_with_version_licence_and_hash(pyz: Path) -> None:
    done = subprocess.run(
        [sys.executable, pyz, "help", "components", "--json"], capture_output=True, text=True, timeout=60
    )
    rows = json.loads(done.stdout)
    assert [row for row in rows if not (row["name"] and row["version"] and row["licence"])] == []
    assert {len(row["sha256"]) for row in rows} == {64}
    locked = {digest for pin in read_lock((ROOT / "appliance/requirements.txt").read_text()) for digest in pin.hashes}
    assert locked <= {row["sha256"] for row in rows}
    with zipfile.ZipFile(pyz) as archive:
        licensed = {name.split("/")[1].lower() for name in archive.namelist() if name.startswith("licences/")}
    # tabulate's, pluggy's ... every package that we carry must come with its licence's text.
    assert {row["name"].lower() for row in rows if row["where"] != "payload"} - licensed == set()


def test_the_payload_is_whole_and_the_file_not_too_large(pyz: Path) -> None:
    with zipfile.ZipFile(pyz) as archive:
        payload = {
            i.filename.removeprefix("payload/"): i for i in archive.infolist() if i.filename.startswith("payload/")
        }
    for name in ("vmlinuz", "initrd.img", "undionly.kpxe", "snponly.efi", "shimx64.efi", "grubx64.efi", "local.efi"):
        assert payload[name].file_size > 50_000
    assert payload["vmlinuz"].compress_type == payload["initrd.img"].compress_type == zipfile.ZIP_STORED
    assert pyz.stat().st_size < LIMIT
