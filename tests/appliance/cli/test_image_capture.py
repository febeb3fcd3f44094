"""image capture: which words mean which golden client, and what is printed. The pasted line is tested in web/."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.main import run
from images.sources import golden
from images.store import Store
from tests.images.tinytree import tiny_tree

Say = Callable[..., tuple[int, str, str]]
pytestmark = pytest.mark.root


@pytest.fixture
def say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    """Run the verb on an empty state: exit code, output, error output."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(["--state", str(tmp_path / "state"), "image", "capture", *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, "Missing option '--from'"),
        (("--from", "/srv/tree"), 1, "image import"),
        (("--from", "gold"), 1, "ssh:USER@HOST"),
        (("--from", "ssh:-oProxyCommand=x"), 1, "no address"),
        (("--from", "/", "--exclude", "relative"), 1, "is not a path"),
        (("--from", "/", "--ssh-config", "/etc/hosts"), 1, "says nothing about /"),
        (("--from", "paste"), 4, "serve --interface"),
        (("--from", "ssh:root@gold", "--ssh-config", "/nowhere"), 2, "does not exist"),
    ],
)
def test_what_cannot_be_is_said_at_once(say: Say, arguments: tuple[str, ...], code: int, words: str) -> None:
    said = say("gold", *arguments)
    assert said[0] == code and words in said[2], said


def test_this_machine(say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With another root: this machine's own is too large for a test."""
    system, real = tiny_tree(tmp_path / "system"), golden.capture_here
    seen: list[Any] = []

    def here(store: Store, name: str, wishes: Any, options: Any) -> Any:
        seen.append(wishes)
        return real(store, name, wishes, options, root=str(system))

    monkeypatch.setattr(golden, "capture_here", here)
    code, out, err = say("gold", "--from", "/", "--exclude", "/usr/lib/z*", "-m", "first", "--cmdline", "quiet")
    assert code == 0 and "gold:1 is published" in out, err
    assert "capture: probe" in err and "capture: receive" in err
    assert seen[0].own == (str(tmp_path / "state"),) and seen[0].exclude == ("/usr/lib/z*",)
    manifest, _ = Store(tmp_path / "state/store").load("gold")
    assert (manifest.message, manifest.cmdline) == ("first", "quiet")


@pytest.mark.parametrize("source", ["ssh:ann@gold:2222", "ann@gold:2222"])
def test_by_ssh(say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    """ssh is one that runs the script here, on a small system, where something was odd."""
    system = tiny_tree(tmp_path / "system")
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin/ssh"
    fake.write_text(
        f'#!/bin/sh\necho "$*" >> {tmp_path}/called\nsed "s,^root=/$,root={system},; s,  cd / ,  cd {system} ,;'
        ' s,^bash$,mysqld," | sed "s/sort -u/sort -u; echo mysqld/" | sh -s\n'
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    (tmp_path / "config").write_text("")
    code, out, err = say("gold", "--from", source, "--ssh-config", str(tmp_path / "config"))
    assert code == 0 and "gold:1 is published" in out and "! mysqld runs" in out, err
    called = (tmp_path / "called").read_text()
    assert f"-F {tmp_path}/config" in called and "-p 2222 -l ann -- gold" in called


def test_ssh_that_fails_is_one_line_and_a_hint(say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin/ssh"
    fake.write_text("#!/bin/sh\necho 'ann@gold: Permission denied (publickey).' >&2\nexit 255\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    code, out, err = say("gold", "--from", "ann@gold")
    lines = [line for line in err.splitlines() if not line.startswith("capture: ")]
    assert code == 1 and out == "" and len(lines) == 2
    assert "Permission denied (publickey)" in lines[0] and "ssh-copy-id" in lines[1]
