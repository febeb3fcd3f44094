"""Who may import whom, and what pure modules may not do."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.contracts.house import PACKAGES, ROOT, imports, sources, top

# What a pure module may not import: everything that reads, writes, waits, logs or rolls dice.
IMPURE = {
    "asyncio", "http", "logging", "multiprocessing", "os", "random", "secrets", "select", "selectors", "shutil",
    "signal", "socket", "sqlite3", "ssl", "subprocess", "tempfile", "threading", "time", "urllib.request",
}  # fmt: skip
CONTRACTS = {
    entry["name"]: entry
    for entry in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}
PURE = CONTRACTS["Pure modules do no input or output"]["source_modules"]


def test_the_contracts_of_pyproject_hold() -> None:
    beside = Path(sys.executable).with_name("lint-imports")
    tool = str(beside) if beside.exists() else shutil.which("lint-imports")
    assert tool, "import-linter is not installed"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([tool, "--no-cache"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", PURE)
def test_pure_modules_are_pure(module: str) -> None:
    tree = sources(*PACKAGES)[module.replace(".", "/") + ".py"]
    assert {name for name in imports(tree) if name in IMPURE or top(name) in IMPURE} == set()
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert called & {"open", "print", "input", "exec", "eval", "globals"} == set()


def test_scapy_stays_in_its_own_process() -> None:
    users = {path for path, tree in sources(*PACKAGES).items() if "scapy" in map(top, imports(tree))}
    assert {path for path in users if not path.startswith("appliance/probe")} == set()


def test_subprocesses_have_one_door() -> None:
    users = {path for path, tree in sources(*PACKAGES).items() if "subprocess" in map(top, imports(tree))}
    # first.py runs before there is anything else, on any Python.
    assert users <= {"images/run.py", "appliance/first.py"}


def test_only_datagram_sockets_of_udp() -> None:
    calls = {
        path
        for path, tree in sources(*PACKAGES).items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "create_datagram_endpoint"
    }
    # It reads one packet a turn of the loop: under HTTP load two thirds of the DHCP packets are lost (measured).
    assert calls == set()
