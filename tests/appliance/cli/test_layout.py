from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance.cli.main import run
from netboot.plan import DEFAULT_LAYOUT
from tests.appliance.process import rack_of_one
from tests.netboot.test_layoutfile import STORE


def say(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = run(list(arguments))
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_file_needs_no_head(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "store.toml"
    file.write_text(STORE)
    state = ("--state", str(tmp_path / "none"))
    code, out, _ = say(capsys, *state, "layout", "check", str(file), "--disk", "500GB", "--memory", "64GiB")
    assert code == 0 and "/srv" in out and "4.0 GiB" in out and "xfs" in out and "swap 4.0 GiB" in out
    rows = json.loads(say(capsys, *state, "layout", "check", str(file), "--json")[1])
    assert [row["name"] for row in rows] == ["bios", "esp", "root", "swap", "data"] and rows[2]["bytes"] == 40 << 30
    code, out, err = say(capsys, *state, "layout", "check", str(file), "--disk", "20GB")
    assert code == 1 and not out and "root 40.0 GiB" in err and "the disk has 18.6 GiB" in err
    for arguments in ((str(file), "--disk", "much"), (str(tmp_path / "none.toml"),), (str(tmp_path),)):
        code, out, err = say(capsys, *state, "layout", "check", *arguments)
        assert code in (1, 3) and not out and len(err.splitlines()) <= 2
    file.write_text('[[layout]]\nname = "root"\ncolour = "red"\n')
    assert "no 'colour'" in say(capsys, *state, "layout", "check", str(file))[2]


@pytest.mark.root
def test_a_layout_of_ones_own_becomes_that_of_a_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, edits = tmp_path / "store.toml", tmp_path / "edits.toml"
    file.write_text(STORE)
    edits.write_text('[[edit]]\nedit = "resolv"\ndns = ["10.1.0.9"]\n')
    with rack_of_one() as served:
        served.start()
        state = ("--state", str(served.state))
        assert say(capsys, *state, "profile", "set", "storage", "--layout", str(file), "--edits", str(edits))[0] == 0
        code, out, _ = say(capsys, *state, "layout", "check", "storage", "--disk", "2TB")
        assert code == 0 and "/srv" in out and "on 2TB" in out
        shown = say(capsys, *state, "profile", "show", "storage")[1]
        assert "data rest" in shown and "edit resolv" in shown and "10.1.0.9" in shown
        assert say(capsys, *state, "layout", "check", "none")[0] == 3
        edits.write_text('[[edit]]\nedit = "hostname"\nname = "x"\n')
        assert "no edit 'hostname'" in say(capsys, *state, "profile", "set", "storage", "--edits", str(edits))[2]
        assert say(capsys, *state, "profile", "set", "storage", "--clear", "layout")[0] == 0
        rows = json.loads(say(capsys, *state, "profile", "show", "storage", "--json")[1])["layout"]
        assert [row["name"] for row in rows] == [part.name for part in DEFAULT_LAYOUT]
