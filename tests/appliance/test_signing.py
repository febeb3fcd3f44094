"""Keys of heads: the own one, trusted ones, and what OpenSSH says of them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from appliance.errors import ConfigInvalid, Environment, Unknown, Wrong
from appliance.paths import Paths
from appliance.signing import PublicKey, Signer, Trust, parse_key
from images.errors import BundleDamaged, Untrusted


@pytest.fixture
def one(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "one")


@pytest.fixture
def two(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "two")


def test_the_key_is_made_once_and_nobody_else_reads_it(one: Paths) -> None:
    first, again = Signer(one), Signer(one)
    assert first.public == again.public and len(first.public.raw) == 32
    assert first.sign(b"x") == again.sign(b"x") and len(first.sign(b"x")) == 64
    assert one.signing_key.stat().st_mode & 0o777 == 0o600
    assert os.listdir(one.keys) == ["signing.key"]


def test_the_own_key_counts_and_a_strangers_does_not(one: Paths, two: Paths) -> None:
    mine, theirs = Signer(one), Signer(two)
    trust = Trust(one)
    assert trust.check(mine.public.raw, b"m", mine.sign(b"m"), "") == mine.public.name
    with pytest.raises(Untrusted) as failure:
        trust.check(theirs.public.raw, b"m", theirs.sign(b"m"), "\x1b[2J; rm -rf /")
    assert theirs.public.fingerprint in failure.value.message and failure.value.message.isprintable()
    line = failure.value.hint.partition("trust add '")[2].rstrip("'")
    assert parse_key(line).raw == theirs.public.raw and ";" not in line and "/ " not in line

    added = trust.add(parse_key(theirs.public.text), "rack-b")
    assert added.name == "rack-b" == trust.check(theirs.public.raw, b"m", theirs.sign(b"m"), "x")
    assert [key.name for key in trust.known()] == ["rack-b"]
    for raw, signature in ((theirs.public.raw, theirs.sign(b"n")), (mine.public.raw, theirs.sign(b"m")), (b"", b"")):
        with pytest.raises(BundleDamaged):
            trust.check(raw, b"m", signature, "x")
    trust.remove("rack-b")
    with pytest.raises(Untrusted):
        trust.check(theirs.public.raw, b"m", theirs.sign(b"m"), "x")


def test_names_are_taken_once(one: Paths, two: Paths) -> None:
    trust, key = Trust(one), Signer(two).public
    trust.add(key)
    with pytest.raises(Wrong, match=f"already, as {key.name}"):
        trust.add(key, "other")
    with pytest.raises(Wrong, match="another key"):
        trust.add(PublicKey(bytes(32), key.name))
    for name in ("../x", "", "a/b", "-x"):
        with pytest.raises(Wrong):
            trust.add(PublicKey(bytes(32), ""), name)
        with pytest.raises(Unknown):
            trust.remove(name)
    assert [known.raw for known in trust.known()] == [key.raw]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ssh-ed25519",
        "ssh-ed25519 !!!! x",
        "ssh-ed25519 AAAA x",
        "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA x",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA x",
        "x" * 10_000,
    ],
)
def test_what_is_no_key(text: str) -> None:
    with pytest.raises(ConfigInvalid):
        parse_key(text)


def test_damaged_files_are_named(one: Paths) -> None:
    Signer(one)
    one.signing_key.write_bytes(b"nonsense")
    with pytest.raises(Environment, match=r"signing\.key is damaged"):
        Signer(one)
    one.trusted.mkdir()
    (one.trusted / "x.pub").write_text("nonsense")
    with pytest.raises(ConfigInvalid, match=r"x\.pub"):
        Trust(one).known()


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="needs ssh-keygen")
def test_openssh_shows_the_same_fingerprint(one: Paths, tmp_path: Path) -> None:
    key = Signer(one).public
    (tmp_path / "key.pub").write_text(key.text + "\n")
    said = subprocess.run(["ssh-keygen", "-lf", tmp_path / "key.pub"], capture_output=True, text=True, check=True)
    assert said.stdout.split()[1] == key.fingerprint and said.stdout.split()[2] == key.name
