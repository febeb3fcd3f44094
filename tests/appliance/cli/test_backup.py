"""backup and restore as they are typed, beside the real process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from appliance.cli.main import run
from appliance.paths import Paths
from tests.appliance.process import CHECKOUT, rack_of_one, wait_for
from tests.appliance.test_backup import add_images, fill


def test_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here, file = fill(Paths(tmp_path / "state")), tmp_path / "head.tar"
    add_images(here)
    assert run(["--state", str(here.state), "backup", str(file), "--images"]) == 0
    said = capsys.readouterr()
    assert "with the images" in said.out and "private keys (mode 600)" in said.out and "read back" in said.out
    assert "backup: write" in said.err and file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["head.tar", "state"]
    assert run(["--state", str(tmp_path / "new"), "restore", str(file)]) == 0
    said = capsys.readouterr()
    assert f"{tmp_path}/new is restored" in said.out and "moved" not in said.out
    assert (tmp_path / "new" / "keys" / "head.key").read_bytes() == b"here"
    assert run(["--state", str(here.state), "restore", str(file)]) == 1  # nobody is there to be asked
    assert "--yes" in capsys.readouterr().err and not list(tmp_path.glob("state.*"))
    assert run(["--state", str(here.state), "restore", str(file), "--yes", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["images"] and told["before"].startswith(f"{tmp_path}/state.before-") and Path(told["before"]).is_dir()


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["backup", "{}/none/x.tar"], 3, "there is no directory"),
        (["backup", "{}/there"], 1, "exists already"),
        (["backup", "-", "--json"], 1, "cannot be JSON"),
        (["restore", "{}/none"], 3, "cannot be read: No such file"),
        (["restore", "{}"], 3, "cannot be read: Is a directory"),
        (["restore", "{}/there"], 1, "this backup is cut short"),
        (["--state", "{}/nowhere", "backup", "{}/x.tar"], 3, "there is no state directory"),
    ],
)
def test_one_line_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, line: str
) -> None:
    fill(Paths(tmp_path / "state"))
    (tmp_path / "there").write_text("x")
    words = [word.format(tmp_path) for word in words]
    assert run(["--state", str(tmp_path / "state"), *words]) == code
    said = capsys.readouterr().err.splitlines()
    assert line in next(text for text in said if text.startswith("gild: ")) and said[-1].startswith("      ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state", "there"]


def test_through_a_pipe(tmp_path: Path) -> None:
    here = fill(Paths(tmp_path / "state"))
    command = [sys.executable, "-m", "appliance", "--state"]
    out = subprocess.run([*command, here.state, "backup", "-"], cwd=CHECKOUT, capture_output=True, timeout=60)
    assert out.returncode == 0 and b"private keys" in out.stderr
    back = subprocess.run(
        [*command, tmp_path / "new", "restore", "-"], cwd=CHECKOUT, input=out.stdout, capture_output=True, timeout=60
    )
    assert back.returncode == 0, back.stderr
    assert (tmp_path / "new" / "gild.toml").read_bytes() == here.settings.read_bytes()
    assert not [name for name in os.listdir(here.state) if "backup" in name]
    gone = subprocess.run(
        f"{sys.executable} -m appliance --state {here.state} backup - | true; exit ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", cwd=CHECKOUT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert gone.returncode == 1 and gone.stderr.splitlines()[-1].startswith("gild: writing the backup: Broken pipe")


@pytest.mark.root
def test_beside_a_head_that_serves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was acknowledged before the backup began is in it, and the head goes on writing meanwhile."""
    with rack_of_one() as served:
        served.start()
        state, file = str(served.state), tmp_path / "head.tar"
        acknowledged: list[str] = []
        stop = threading.Event()

        def write() -> None:
            while not stop.is_set():
                name = f"p{len(acknowledged):05}"
                served.client.post("profiles", name, cmdline="quiet")
                acknowledged.append(name)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            wait_for(lambda: len(acknowledged) > 20)
            promised = list(acknowledged)
            assert run(["--state", state, "backup", str(file)]) == 0
            during = len(acknowledged)
            assert run(["--state", state, "restore", str(file), "--yes"]) == 7  # not while it serves
        finally:
            stop.set()
            writer.join(30)
        said = capsys.readouterr()
        assert "in use by process" in said.err and "stop it first" in said.err and during > len(promised)
        served.client.post("profiles", "after", cmdline="quiet")
        certificate = (served.paths.keys / "head.pem").read_bytes()
        served.kill()
        assert run(["--state", state, "restore", str(file), "--yes"]) == 0
        (before,) = served.state.parent.glob(f"{served.state.name}.before-*")
        try:
            served.start()
            names = {row["name"] for row in served.client.get("profiles")}
            assert names >= set(promised) and "after" not in names
            assert (served.paths.keys / "head.pem").read_bytes() == certificate
            assert served.stop() == 0
        finally:
            shutil.rmtree(before)
