"""What an agent is started with, and what people see when it was started wrongly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from netboot.agent import settings
from netboot.agent.network import NetworkFailed
from netboot.agent.settings import SettingsInvalid


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    (tmp_path / "head.pem").write_text("PEM")
    (tmp_path / "settings.json").write_text(json.dumps({"head": "10.77.0.1", "https_port": 8443, "http_port": 80}))
    return tmp_path


def test_the_segment_alone(etc: Path) -> None:
    found = settings.read(str(etc), {})
    assert (found.head, found.https_port, found.pem, found.mac, found.token) == ("10.77.0.1", 8443, "PEM", "", "")
    assert found.address is None


def test_the_command_line_counts_over_it(etc: Path) -> None:
    words = {
        "gild.head": "10.9.9.9",
        "gild.token": "ab" * 16,
        "BOOTIF": "01-52-54-00-AA-bb-01",
        "gild.ip": "10.9.9.5/16",
    }
    found = settings.read(str(etc), words)
    assert (found.head, found.mac, found.token) == ("10.9.9.9", "52:54:00:aa:bb:01", "ab" * 16)
    assert found.address is not None and (found.address.ip, found.address.prefix) == ("10.9.9.5", 16)
    assert "abab" not in repr(found)


@pytest.mark.parametrize(
    ("body", "words", "told"),
    [
        ("[]", {}, "not an object"),
        ("{", {}, "no part from a head"),
        ("{}", {}, "'None' is not an IP address"),
        ('{"head":"head.example"}', {}, "not an IP address"),
        ('{"head":"10.0.0.1","https_port":"x"}', {}, "not a port"),
        ('{"head":"10.0.0.1","https_port":true}', {}, "not a port"),
        ('{"head":"10.0.0.1"}', {"gild.token": "not-hex"}, "not a hexadecimal"),
    ],
)
def test_what_is_refused(etc: Path, body: str, words: dict[str, str], told: str) -> None:
    (etc / "settings.json").write_text(body)
    with pytest.raises(SettingsInvalid, match=told) as refused:
        settings.read(str(etc), words)
    assert "not-hex" not in str(refused.value)


def test_an_initrd_without_its_head_says_what_to_load(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match=r"head\.cpio"):
        settings.read(str(tmp_path), {})


def test_an_impossible_address_is_refused(etc: Path) -> None:
    with pytest.raises(NetworkFailed, match="impossible address"):
        settings.read(str(etc), {"gild.ip": "10.9.9.500/16"})
