from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance import bundled, systemd
from appliance.cli.main import run


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another system's root directory; what runs passes for the one file."""
    monkeypatch.setattr(bundled, "is_archive", lambda: True)
    monkeypatch.setattr(bundled, "ROOT", "/usr/local/sbin/gild.pyz")
    monkeypatch.setattr(systemd, "GONE", ())
    return tmp_path


def test_install_status_remove(system: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = ["--root", str(system)]
    assert run(["service", "status", *root]) == 4
    assert "service install --interface" in capsys.readouterr().err
    assert run(["service", "install", "--interface", "eth1", "--http-port", "8080", *root]) == 1  # nobody to ask
    said = capsys.readouterr()
    assert "AmbientCapabilities=" in said.out and "--yes" in said.err and not (system / "etc").exists()
    assert run(["service", "install", "--interface", "eth1", "--http-port", "8080", *root, "--yes"]) == 0
    assert f"systemctl --root {system} enable gild" in capsys.readouterr().out
    unit = (system / "etc/systemd/system/gild.service").read_text()
    assert "gild.pyz --state /var/lib/gild serve --interface eth1 --http-port 8080\n" in unit
    assert run(["service", "status", *root]) == 0
    said = capsys.readouterr()
    assert "as this gild writes it" in said.out and "does not start: systemctl enable gild" in said.out
    assert run(["service", "status", *root, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ours"] and told["as_written"] and not told["enabled"] and told["serving"] is None
    (system / "etc/systemd/system/gild.service").write_text(unit.replace("PrivateTmp=yes", "PrivateTmp=no"))
    assert run(["service", "status", *root]) == 0
    assert "differs from what this gild writes" in capsys.readouterr().out
    assert run(["service", "remove", *root]) == 1
    assert "--yes" in capsys.readouterr().err
    assert run(["service", "remove", *root, "--yes"]) == 0
    assert not (system / "etc/systemd/system/gild.service").exists()
    assert run(["service", "remove", *root, "--yes"]) == 1


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        ([], 5, "which interface"),
        (["--interface", "eth1", "--lease", "1"], 9, "lease = '1' should be"),
        (["--interface", "eth1\n[Service]"], 9, "--interface"),
    ],
)
def test_settings_are_checked_first(
    system: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, line: str
) -> None:
    assert run(["service", "install", "--root", str(system), "--yes", *words]) == code
    said = capsys.readouterr()
    assert line in said.err and not said.out and not (system / "etc").exists()


def test_the_interface_may_stand_in_the_settings(system: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (system / "var/lib/gild").mkdir(parents=True)
    (system / "var/lib/gild/gild.toml").write_text('interface = "eth7"\n')
    assert run(["service", "install", "--root", str(system), "--yes"]) == 0
    assert "serve\n" in (system / "etc/systemd/system/gild.service").read_text()
    assert "interface" not in capsys.readouterr().err


def test_a_checkout_is_no_service(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["service", "install", "--interface", "eth1", "--root", str(tmp_path), "--yes"]) == 5
    assert "this is a checkout" in capsys.readouterr().err
