"""Keys: the head's own TLS key and certificate, and the SSH host keys of the nodes."""

from __future__ import annotations

import datetime
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from appliance.errors import Environment

# Machines that were never switched on believe it is 1970 or 2000 (a dead clock battery), so the certificate is always
# valid: trust comes from the installer carrying this very certificate. 99991231235959Z is "no end" (RFC 5280, 4.1.2.5).
BEGIN = datetime.datetime(1970, 1, 1)
END = datetime.datetime(9999, 12, 31, 23, 59, 59)

RSA_BITS = 3072  # NIST SP 800-57 part 1: 128 bits of security, as the two others have


@dataclass(frozen=True)
class HeadIdentity:
    """The head's certificate (PEM bytes) and where certificate and key lie."""

    certificate: bytes
    certificate_path: Path
    key_path: Path


def head_identity(folder: Path, address: str, domain: str) -> HeadIdentity:
    """The head's TLS identity in `folder`, made if it is not there. The key is made once; the certificate anew when
    the head's address or domain has changed. Raises Environment if the folder cannot be used or the key is damaged."""
    key_path, certificate_path = folder / "head.key", folder / "head.pem"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        key = _read_key(key_path)
        if key is None:
            key = ec.generate_private_key(ec.SECP256R1())
            _write(key_path, key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ))  # fmt: skip
        certificate = _read_certificate(certificate_path, key, address, domain)
        if certificate is None:
            certificate = _certificate(key, address, domain)
            _write(certificate_path, certificate)
    except OSError as error:
        raise Environment(f"{error.filename}: {error.strerror}", "give another --state") from None
    return HeadIdentity(certificate, certificate_path, key_path)


def host_keys(comment: str) -> dict[str, str]:
    """New SSH host keys: file name -> content, private ones in OpenSSH's own format and public ones with `comment`.
    Takes 0.1 to 1 s, nearly all of it for RSA, and lets other threads run meanwhile."""
    made: dict[str, ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey] = {
        "ed25519": ed25519.Ed25519PrivateKey.generate(),
        "ecdsa": ec.generate_private_key(ec.SECP256R1()),
        "rsa": rsa.generate_private_key(65537, RSA_BITS),
    }
    files: dict[str, str] = {}
    for kind, key in made.items():
        files[f"ssh_host_{kind}_key"] = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        ).decode()
        public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        files[f"ssh_host_{kind}_key.pub"] = f"{public.decode()} root@{comment}\n"
    return files


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        key = serialization.load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Environment(f"{path} is damaged or not the head's key", "restore it, or remove it and start again")
    return key


def _read_certificate(path: Path, key: ec.EllipticCurvePrivateKey, address: str, domain: str) -> bytes | None:
    """The certificate if it is one of this key, address and domain."""
    try:
        data = path.read_bytes()
        known = x509.load_pem_x509_certificate(data)
        names = known.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        fits = known.public_key() == key.public_key() and list(names) == _names(address, domain)
    except (FileNotFoundError, ValueError, x509.ExtensionNotFound):
        return None
    return data if fits else None


def _names(address: str, domain: str) -> list[x509.GeneralName]:
    return [x509.IPAddress(ipaddress.ip_address(address)), x509.DNSName(f"head.{domain}")]


def _certificate(key: ec.EllipticCurvePrivateKey, address: str, domain: str) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gild head")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    # It is its own authority. All of these are looked at by the strict checks that Python 3.13 switched on.
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), BEGIN, END)
        .add_extension(x509.SubjectAlternativeName(_names(address, domain)), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, mode 600 from the first byte."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)
    fresh.rename(path)
