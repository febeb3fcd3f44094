from __future__ import annotations

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
        code = run(["--state", str(head.state), "profile", *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_the_default_is_there(say: Say) -> None:
    code, out, _ = say("list")
    assert code == 0 and "default" in out and "(the only one)" in out
    assert [row["name"] for row in json.loads(say("list", "--json")[1])] == ["default"]


def test_one_profile_is_made_of_another(say: Say, tmp_path: Path) -> None:
    assert say("set", "big", "--disk", "pick=largest,bus=nvme", "--cmdline", "quiet", "--verify", "full")[0] == 0
    shown = json.loads(say("show", "big", "--json")[1])
    assert shown["verify"] == "full" and "largest" in shown["disk"]
    file = tmp_path / "big.json"
    file.write_text(say("show", "big", "--json")[1])
    assert say("set", "copy", "--from", str(file), "--cmdline", "") == (0, "profile copy is set\n", "")
    assert json.loads(say("show", "copy", "--json")[1]) == {**shown, "name": "copy", "cmdline": ""}


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"5", b"\xff\xfe", b"[" * 100000])
def test_a_file_that_is_no_profile(say: Say, tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(text)
    code, out, err = say("set", "x", "--from", str(file))
    assert code == 1 and not out and "JSON" in err and len(err.splitlines()) <= 2


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("show", "none"), 3, "profiles: "),
        (("show",), 1, "name a profile"),
        (("show", "default", "--node", "x"), 1, "name a profile"),
        (("show", "--node", "nobody"), 3, "nobody"),
        (("set", "x", "--image", "none"), 3, "none"),
        (("set", "x", "--disk", "sda"), 1, "sda"),
        (("set", "x", "--finish", "explode"), 2, "kexec"),
        (("set", "../x", "--cmdline", "q"), 1, "../x"),
        (("set", "x", "--from", "/nonexistent"), 2, "/nonexistent"),
    ],
)
def test_errors_name_the_thing(say: Say, arguments: tuple[str, ...], code: int, word: str) -> None:
    found, out, err = say(*arguments)
    assert found == code and not out and word in err, err
