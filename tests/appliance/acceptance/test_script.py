"""Scripts are run here, by this machine's own sh, and by busybox where it is there."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.acceptance import script
from appliance.acceptance.script import MAX_LINES, Told, read

SHELLS = [["sh"], pytest.param(["busybox", "sh"], marks=pytest.mark.skipif(
    shutil.which("busybox") is None, reason="busybox is not installed"))]  # fmt: skip


def told(shell: list[str], text: str) -> Told:
    done = subprocess.run([*shell, "-c", text], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return read((time.time(), line) for line in done.stdout.splitlines())


@pytest.mark.parametrize("shell", SHELLS)
def test_a_machine_tells_of_itself(shell: list[str]) -> None:
    said = told(shell, script.probe([], []))
    assert said.whole and said.first("name") == os.uname().nodename
    assert said.offset is not None and abs(said.offset) < 60
    assert int(said.first("threads")) >= 1 and int(said.first("memtotal")) > 1000


@pytest.mark.parametrize("shell", SHELLS)
def test_a_disk_is_measured_and_nothing_stays(shell: list[str]) -> None:
    before = set(os.listdir("/var/tmp"))
    said = told(shell, script.disk())
    assert (said.span("write", "written") or 0) > 0
    assert {name for name in os.listdir("/var/tmp") if name.startswith("gild-test")} <= before


def test_the_wire_is_measured_both_ways() -> None:
    data = bytes(script.WIRE_MIB << 20)
    done = subprocess.run(["sh", "-c", script.wire()], input=data, capture_output=True, timeout=60)
    assert done.stdout == data
    said = read((0.0, line) for line in done.stderr.decode().splitlines())
    assert said.whole and (said.span("in", "out") or 0) > 0 and (said.span("out", "sent") or 0) > 0


@pytest.mark.parametrize("name", ["a; touch no", "$(touch no)", "'; touch no; '", "-oProxyCommand=x", "a b"])
def test_names_are_never_commands(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names come from the head's own table, which lets no such thing in; a script does not rely on it."""
    (tmp_path / "ssh").write_text('#!/bin/sh\nfor word; do last2=$last; last=$word; done\necho "$last2"\n')
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    assert told(["sh"], script.next_one(name)).first("said") == name
    assert told(["sh"], script.remove(f"{tmp_path}/{name}")).whole
    assert os.listdir(tmp_path) == ["ssh"]


@pytest.mark.parametrize("text", [
    script.compile_hello("/tmp/x"), script.mpi(["a", "b"], "hostname", 10), script.next_one("a"),
])  # fmt: skip
def test_scripts_are_plain_sh(text: str) -> None:
    for shell in ("dash", "bash"):
        if shutil.which(shell):
            assert subprocess.run([shell, "-n", "-c", text], capture_output=True).returncode == 0


@pytest.mark.parametrize(("clock", "offset"), [
    ("1000.500000000", 0.5), ("1000.%N", 0.5), ("1000.", 0.5), ("999", -0.5), ("x.5", None), ("1e9.5", None),
    ("990.25", -9.75),
])  # fmt: skip
def test_clocks_with_and_without_fractions(clock: str, offset: float | None) -> None:
    assert read([(1000.0, f"@clock {clock}"), (1001.0, "@clock 5000.0")]).offset == offset


def test_spans_fall_back_to_the_uptime() -> None:
    marks = ["@mark a 10.%N 5.50", "@mark b 11.%N 7.00", "@mark c 10.000000001 8.00", "@mark d 9.000000000 8.25"]
    said = read((0.0, line) for line in marks)
    assert said.span("a", "b") == 1.5
    assert said.span("c", "d") == 0.25  # the wall clock was set back meanwhile
    assert said.span("b", "a") is None and said.span("a", "z") is None


def test_what_is_no_word_of_ours_is_a_complaint() -> None:
    said = read([(0.0, "Permission denied (publickey)."), (0.0, "  "), (0.0, "@END"), (0.0, "@name n1")])
    assert said.complaint == "@END" and not said.whole and said.words == {"name": ("n1",)}


@given(st.lists(st.text(max_size=40) | st.from_regex(r"@(clock|mark|end|name) .*", fullmatch=True), max_size=20))
def test_any_answer_is_taken(lines: list[str]) -> None:
    said = read((1.0, line) for line in lines)
    assert said.offset is None or -1e13 < said.offset < 1e13
    assert said.whole == ("end" in said.words)


def test_answers_are_bounded() -> None:
    said = read((0.0, "@unit " + "x" * 5000) for _ in range(10_000))
    assert len(said.all("unit")) <= MAX_LINES and all(len(text) <= 1000 for text in said.all("unit"))
