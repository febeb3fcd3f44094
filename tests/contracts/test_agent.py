"""The agent's archive needs a bare Python and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from appliance import bundle
from tests.contracts.house import ROOT

# Every module of the archive, imported with nothing but the archive and the standard library on the path.
IMPORT_ALL = """
import sys, zipfile
archive = sys.argv[1]
sys.path.insert(0, archive)
with zipfile.ZipFile(archive) as members:
    names = [name[:-3].replace("/", ".") for name in members.namelist() if name.endswith(".py")]
for name in names:
    if not name.endswith("__main__"):
        __import__(name.removesuffix(".__init__"))
foreign = [m for m in sys.modules.values() if "-packages" in (getattr(m, "__file__", None) or "")]
print(len(names), foreign)
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("agent") / "agent.zip"
    path.write_bytes(bundle.agent_archive(ROOT))
    return path


def test_it_needs_the_standard_library_alone(archive: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", IMPORT_ALL, archive], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(archive) as members:
        count = len([name for name in members.namelist() if name.endswith(".py")])
    assert done.stdout == f"{count} []\n"


def test_it_holds_the_agent_and_not_the_head(archive: Path) -> None:
    with zipfile.ZipFile(archive) as members:
        names = set(members.namelist())
        size = sum(info.file_size for info in members.infolist())
    assert {"netboot/agent/__main__.py", "netboot/agent/init.sh", "netboot/plan.py", "images/target.py"} <= names
    assert {name for name in names if name.startswith("appliance/")} == set()
    assert not names & {"images/store.py", "images/publish.py", "netboot/dhcp.py", "netboot/payload.py"}
    # It is in memory on every node, beside the kernel.
    assert size < 1_000_000
