from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance.cli.main import run
from tests.appliance.process import Served, rack_of_one

Say = Callable[..., tuple[int, str, str]]
pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def head() -> Iterator[Served]:
    with rack_of_one() as served:
        served.start()
        yield served


@pytest.fixture
def say(head: Served, capsys: pytest.CaptureFixture[str]) -> Say:
    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(["--state", str(head.state), *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_a_secret_comes_and_goes_and_is_never_shown(
    say: Say, head: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "munge.key"
    file.write_bytes(b"\x00hunter2\xff")
    assert say("secret", "set", "munge.key", str(file)) == (
        0, "secret munge.key for every node is set: 9 bytes\n", "",
    )  # fmt: skip
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"hunter3\n")))
    assert "for profile default is set: 8 bytes" in say("secret", "set", "pw", "-", "--profile", "default")[1]
    code, out, _ = say("secret", "list")
    assert code == 0 and "munge.key" in out and "profile default" in out and "hunter" not in out
    assert json.loads(say("secret", "list", "--json")[1]) == [
        {"name": "munge.key", "for": "every node", "bytes": 9}, {"name": "pw", "for": "profile default", "bytes": 8},
    ]  # fmt: skip
    assert "hunter" not in head.log
    assert say("secret", "rm", "pw", "--profile", "default")[0] == 0
    code, _, err = say("secret", "rm", "pw")
    assert code == 3 and "no secret 'pw' for every node" in err
    code, _, err = say("secret", "set", "pw")  # nothing to type it on
    assert code == 1 and "where is the secret pw?" in err
    for arguments in (("a b", str(file)), ("pw", str(file), "--node", "nobody"), ("pw", "/nonexistent")):
        code, out, err = say("secret", "set", *arguments)
        assert code and not out and len(err.splitlines()) <= 4


def test_what_a_node_gets_is_shown_from_the_command_line(say: Say, head: Served, tmp_path: Path) -> None:
    from tests.appliance.test_overlays import put

    assert say("profile", "set", "login", "--cmdline", "quiet", "--extends", "default")[0] == 0
    files = head.paths.profiles
    assert files.is_dir() and json.loads(say("profile", "list", "--json")[1])[1]["extends"] == "default"
    shown = say("profile", "show", "login")[1]
    assert "from profile login" in shown and "from settings" in shown and str(files / "login") in shown
    code, out, _ = say("profile", "render", "nobody")
    assert code == 3 and not out
    assert say("profile", "set", "default", "--extends", "login")[0] == 1
    assert say("profile", "set", "login", "--clear", "cmdline", "--clear", "extends")[0] == 0
    assert "quiet" not in say("profile", "show", "login")[1]
    put(files, "login/overlay/etc/motd")
    code, out, _ = say("profile", "rm", "login", "--yes")
    assert code == 0 and f"its files stay in {files / 'login'}" in out
    assert say("profile", "rm", "default", "--yes")[0] == 1
    assert say("profile", "set", "login", "--cmdline", "x", "--clear", "cmdline")[0] == 1
