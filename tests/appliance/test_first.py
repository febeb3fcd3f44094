from __future__ import annotations

import ast
import glob
import os
import subprocess
import sys
from pathlib import Path

import pytest

from appliance import first
from tests.appliance import smallapp

OLD = sorted(
    path
    for minor in ("2.7", "3.[0-9]", "3.10")
    for path in glob.glob(os.path.expanduser(f"~/.pyenv/versions/{minor}.*/bin/python"))
)


def program(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_any_python_can_read_it() -> None:
    source = Path(first.__file__).read_text()
    source.encode("ascii")
    tree = ast.parse(source, feature_version=(3, 4))
    unknown_to_2_7 = (ast.JoinedStr, ast.AnnAssign, ast.Nonlocal, ast.Starred, ast.AsyncFunctionDef, ast.NamedExpr)
    found = [type(node).__name__ for node in ast.walk(tree) if isinstance(node, unknown_to_2_7)]
    found += [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.returns]
    assert found == []


def test_the_newest_that_really_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path / 'a'}:relative:{tmp_path / 'b'}")
    assert first.newer() is None
    works = program(tmp_path / "b", "python3.12", "exit 0")
    program(tmp_path / "b", "python3.9", "exit 0")
    assert first.newer() == str(works)
    program(tmp_path / "a", "python3.13", "exit 127")  # a version manager's shim for a version that is not there
    (tmp_path / "a" / "python3.14").mkdir()
    assert first.newer() == str(works)
    better = program(tmp_path / "b", "python3.13", "exit 0")
    assert first.newer() == str(better)


def test_it_hands_over_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[tuple[str, list[str]]] = []

    def execv(path: str, argv: list[str]) -> None:
        calls.append((path, argv))
        raise SystemExit(0)

    monkeypatch.setattr(first, "OLDEST", (4, 0))
    monkeypatch.setattr(first, "NEWEST", (4, 0))
    monkeypatch.setattr(os, "execv", execv)
    monkeypatch.setattr(sys, "argv", ["gild.pyz", "node", "list"])
    path = str(program(tmp_path, "python3.13", "exit 0"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit):
        first.start()
    assert calls == [(path, [path, os.path.dirname(first.__file__), "node", "list"])]
    assert os.environ[first.GUARD] == "1"
    assert first.start() == 5
    assert len(calls) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "none of python3.14, python3.13, python3.12, python3.11 is on PATH" in said
    monkeypatch.delenv(first.GUARD)


@pytest.mark.skipif(not OLD, reason="no older Python on this machine")
def test_older_pythons_say_one_line_or_hand_over(tmp_path: Path) -> None:
    pyz = smallapp.build(tmp_path)
    newer = program(tmp_path / "bin", "python3.14", f'exec "{os.path.realpath("/proc/self/exe")}" "$@"')
    for old in OLD:
        alone = subprocess.run(
            [old, pyz, "--version"], env={"PATH": "/none"}, capture_output=True, text=True, timeout=30
        )
        assert (alone.returncode, alone.stdout, alone.stderr.count("\n")) == (5, "", 1), old
        helped = subprocess.run(
            [old, pyz, "--version"], env={"PATH": str(newer.parent)}, capture_output=True, text=True, timeout=30
        )
        assert (helped.returncode, helped.stderr) == (0, ""), old
        assert helped.stdout.startswith("small 1 3 1")
