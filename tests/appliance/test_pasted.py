"""The pasted lines and the script behind them: shells that read it, and keys that are the head's."""

from __future__ import annotations

import base64
import hashlib
import shlex
import ssl
import subprocess
from pathlib import Path

import pytest

from appliance.keys import head_identity
from appliance.pasted import Pin, line, pin, python_line, refusal, script

PIN = Pin("sha256//AAAA+/=", "ab" * 32)


def test_the_pins_are_those_openssl_finds(tmp_path: Path) -> None:
    identity = head_identity(tmp_path, "10.1.0.1", "cluster.internal")
    public = subprocess.run(
        ["openssl", "x509", "-in", identity.certificate_path, "-pubkey", "-noout"], capture_output=True, check=True
    ).stdout
    key = subprocess.run(["openssl", "pkey", "-pubin", "-outform", "der"], input=public, capture_output=True).stdout
    known = pin(identity.certificate)
    assert known.key == "sha256//" + base64.b64encode(hashlib.sha256(key).digest()).decode()
    der = ssl.PEM_cert_to_DER_cert(identity.certificate.decode())
    assert known.certificate == hashlib.sha256(der).hexdigest()


@pytest.mark.parametrize("python", [False, True])
@pytest.mark.parametrize("shell", ["sh", "bash", "dash", "busybox sh"])
def test_every_shell_reads_the_script(shell: str, python: bool) -> None:
    text = script("10.1.0.1", 443, "/capture/t", PIN, python=python)
    try:
        done = subprocess.run([*shell.split(), "-n"], input=text.encode(), capture_output=True)
    except FileNotFoundError:
        pytest.skip(f"there is no {shell}")
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("python", [False, True])
def test_a_script_that_is_cut_off_does_nothing(python: bool, tmp_path: Path) -> None:
    """curl | sh runs what has come so far when the connection breaks."""
    text = script("10.1.0.1", 443, "/capture/t", PIN, python=python)
    for name in ("curl", "python3", "tar", "id", "uname"):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n> {tmp_path}/ran\n")
        program.chmod(0o755)
    for length in range(0, text.rindex("main") + 3, 97):
        subprocess.run(
            ["/bin/sh"], input=text[:length].encode(), capture_output=True, timeout=20, env={"PATH": str(tmp_path)}
        )
    assert not (tmp_path / "ran").exists()
    subprocess.run(["sh"], input=text.encode(), capture_output=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(("argument", "words"), [("--rot", "no option --rot"), ("--root /nowhere", "not the root")])
def test_arguments_of_the_script(argument: str, words: str) -> None:
    text = script("10.1.0.1", 443, "/capture/t", PIN).replace('"$(id -u)"', "0")
    done = subprocess.run(["sh", "-s", "--", *argument.split()], input=text, capture_output=True, text=True)
    assert done.returncode and words in done.stderr


def test_it_says_that_it_needs_root() -> None:
    text = script("10.1.0.1", 443, "/capture/t", PIN).replace("id -u", "echo 1000")
    done = subprocess.run(["sh"], input=text, capture_output=True, text=True)
    assert done.returncode == 1 and "sudo" in done.stderr


def test_the_lines_are_what_a_shell_takes_them_for() -> None:
    words = shlex.split(line("10.1.0.1", 8443, "/capture/t", PIN))
    assert words[-5:] == [PIN.key, "https://10.1.0.1:8443/capture/t", "|", "sudo", "sh"]
    words = shlex.split(python_line("10.1.0.1", 8443, "/capture/t", PIN))
    assert words[:3] == ["sudo", "python3", "-c"] and len(words) == 4
    compile(words[3], "line", "exec")
    # Inside double quotes of an interactive shell these would mean something.
    assert not set("$`!\\") & set(words[3].replace("!=", ""))


def test_a_refusal_is_one_line_for_people_and_shells() -> None:
    done = subprocess.run(["sh"], input=refusal("it's $(touch /tmp/evil) over"), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "gild: it's $(touch /tmp/evil) over\n")
