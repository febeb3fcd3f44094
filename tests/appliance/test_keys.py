from __future__ import annotations

import datetime
import shutil
import socket
import ssl
import stat
import subprocess
import threading
from pathlib import Path

import pytest
from cryptography import x509

from appliance.errors import Environment
from appliance.keys import head_identity, host_keys


def test_the_identity_is_made_once_and_private(tmp_path: Path) -> None:
    first = head_identity(tmp_path / "keys", "10.1.0.1", "cluster.internal")
    again = head_identity(tmp_path / "keys", "10.1.0.1", "cluster.internal")
    assert first == again and first.certificate == first.certificate_path.read_bytes()
    for path in (first.key_path, first.certificate_path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["head.key", "head.pem"]


def test_it_is_valid_whatever_a_machine_thinks_the_year_is(tmp_path: Path) -> None:
    certificate = x509.load_pem_x509_certificate(head_identity(tmp_path, "10.1.0.1", "c").certificate)
    assert certificate.not_valid_before_utc == datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    assert certificate.not_valid_after_utc.year == 9999


def test_a_new_address_gives_a_new_certificate_for_the_same_key(tmp_path: Path) -> None:
    first = head_identity(tmp_path, "10.1.0.1", "c")
    key = first.key_path.read_bytes()
    second = head_identity(tmp_path, "10.2.0.1", "c")
    assert second.certificate != first.certificate and second.key_path.read_bytes() == key


def test_a_damaged_certificate_is_made_anew_and_a_damaged_key_is_told(tmp_path: Path) -> None:
    first = head_identity(tmp_path, "10.1.0.1", "c")
    first.certificate_path.write_bytes(b"noise")
    assert head_identity(tmp_path, "10.1.0.1", "c").certificate.startswith(b"-----BEGIN CERTIFICATE")
    first.key_path.write_bytes(b"noise")
    with pytest.raises(Environment, match=r"head\.key is damaged"):
        head_identity(tmp_path, "10.1.0.1", "c")


@pytest.mark.parametrize("strict", [False, True])
def test_a_client_that_pins_it_connects_and_any_other_does_not(tmp_path: Path, strict: bool) -> None:
    ours = head_identity(tmp_path / "a", "127.0.0.1", "c")
    other = head_identity(tmp_path / "b", "127.0.0.1", "c")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(ours.certificate_path, ours.key_path)

    def talk(certificate: bytes) -> str:
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.load_verify_locations(cadata=certificate.decode())
        if strict:
            client.verify_flags |= ssl.VERIFY_X509_STRICT
        near, far = socket.socketpair()

        def serve() -> None:
            try:
                server.wrap_socket(far, server_side=True).close()
            except OSError:
                far.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with client.wrap_socket(near, server_hostname="127.0.0.1") as secure:
                return str(secure.version())
        finally:
            near.close()
            thread.join(10)

    assert talk(ours.certificate) == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError):
        talk(other.certificate)


def test_host_keys_are_three_pairs_and_new_each_time() -> None:
    one, two = host_keys("node01"), host_keys("node01")
    names = [f"ssh_host_{kind}_key" for kind in ("ed25519", "ecdsa", "rsa")]
    assert sorted(one) == sorted([*names, *(f"{name}.pub" for name in names)])
    for name in names:
        assert one[name].startswith("-----BEGIN OPENSSH PRIVATE KEY-----\n") and one[name].endswith("\n")
        assert one[f"{name}.pub"].endswith(" root@node01\n") and one[name] != two[name]


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="needs ssh-keygen")
def test_openssh_reads_them(tmp_path: Path) -> None:
    for name, text in host_keys("node01").items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    for kind, bits in (("ed25519", "256"), ("ecdsa", "256"), ("rsa", "3072")):
        file = tmp_path / f"ssh_host_{kind}_key"
        shown = subprocess.run(["ssh-keygen", "-y", "-f", file], capture_output=True, text=True, check=True).stdout
        assert shown.split()[:2] == (tmp_path / f"{file.name}.pub").read_text().split()[:2]
        told = subprocess.run(["ssh-keygen", "-l", "-f", file], capture_output=True, text=True, check=True).stdout
        assert told.split()[0] == bits
