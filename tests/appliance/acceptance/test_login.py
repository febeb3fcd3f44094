from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from appliance.acceptance.checks import Target
from appliance.acceptance.login import logins
from images.errors import CommandFailed, GildError

NODE = Target("node01", "10.1.0.11", host_keys=("ssh-ed25519 AAAA", "ssh-rsa BBBB"))


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in the place of ssh, whose text is the test's."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program = tmp_path / "ssh"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    return program


def test_only_the_keys_of_the_head_count_and_nothing_is_asked(ssh: Path, tmp_path: Path) -> None:
    ssh.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{tmp_path}/words\necho @end\n')
    (tmp_path / "key").write_text("x")
    with logins([NODE], str(tmp_path / "key")) as login:
        assert login.ask(NODE, "say it", 10).whole
        folder = Path(login._known).parent
    words = (tmp_path / "words").read_text()
    for option in ("BatchMode=yes", "StrictHostKeyChecking=yes", "GlobalKnownHostsFile=/dev/null", "IdentitiesOnly=yes",
                   "HostKeyAlias=node01", "-F\n/dev/null", "10.1.0.11\nexec sh -c 'say it'"):  # fmt: skip
        assert option in words
    known = next(word.partition("=")[2] for word in words.split() if word.startswith("UserKnownHostsFile="))
    assert Path(known).parent == folder and not folder.exists()


def test_the_file_of_known_hosts(ssh: Path) -> None:
    with logins([NODE], None) as login:
        assert Path(login._known).read_text() == "node01 ssh-ed25519 AAAA\nnode01 ssh-rsa BBBB\n"


def test_one_that_never_ends_is_ended(ssh: Path) -> None:
    ssh.write_text("#!/bin/sh\necho @name n1\nexec sleep 600\n")
    with logins([NODE], None) as login:
        begun = time.monotonic()
        told = login.ask(NODE, "", 0.5)
        assert told.first("name") == "n1" and not told.whole and time.monotonic() - begun < 300
        with pytest.raises(CommandFailed, match="did not end"):
            login.send(NODE, "", b"", 0.5)


def test_a_person_who_has_had_enough(ssh: Path) -> None:
    ssh.write_text("#!/bin/sh\nexec sleep 600\n")
    with logins([NODE], None) as login:
        threading.Timer(0.05, login.stop).start()
        assert not login.ask(NODE, "", 500).whole


def test_one_that_says_too_much_is_heard_in_part(ssh: Path) -> None:
    ssh.write_text("#!/bin/sh\nhead -c 3000000 /dev/zero | tr '\\0' x\nyes '@unit x' | head -n 100000\necho @end\n")
    with logins([NODE], None) as login:
        told = login.ask(NODE, "", 20)
    assert len(told.all("unit")) <= 400 and len(told.complaint) <= 1000


def test_a_key_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(GildError, match="cannot be read"), logins([NODE], str(tmp_path / "none")):
        pass
