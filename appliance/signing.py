"""Who vouches for an image that is carried from head to head: this head's Ed25519 key, and the keys it trusts.

Public keys are written as OpenSSH writes them (RFC 8709 section 4), so that `ssh-keygen -lf` shows the same
fingerprint. A trusted key is a file NAME.pub with that one line.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from appliance.errors import ConfigInvalid, Environment, Unknown, Wrong
from appliance.paths import Paths
from images.disk import disk_errors
from images.errors import BundleDamaged, Untrusted
from images.packs import write_file

KIND = "ssh-ed25519"
PREFIX = len(KIND).to_bytes(4, "big") + KIND.encode() + (32).to_bytes(4, "big")
KEY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")
MAX_KEYS = 1000
MAX_TEXT = 4096  # bytes of a public key's file


@dataclass(frozen=True)
class PublicKey:
    """An Ed25519 public key: 32 raw bytes, and what somebody calls it."""

    raw: bytes
    name: str = ""

    @property
    def text(self) -> str:
        """The line OpenSSH would write."""
        return f"{KIND} {base64.b64encode(PREFIX + self.raw).decode()} {self.name}".rstrip()

    @property
    def fingerprint(self) -> str:
        """SHA256:... as `ssh-keygen -l` shows it: over the key as it stands in the line."""
        sha = hashlib.sha256(PREFIX + self.raw).digest()
        return "SHA256:" + base64.b64encode(sha).decode().rstrip("=")


class Signer:
    """This head's own key."""

    def __init__(self, paths: Paths) -> None:
        """Reads the key, and makes it when there is none. Raises Environment if it is damaged or its directory cannot
        be used, NoSpace."""
        self._path = paths.signing_key
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            data = self._make()
        except OSError as error:
            raise Environment(f"{self._path}: {error.strerror}", "run this as root") from None
        try:
            key = serialization.load_pem_private_key(data, None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise Environment(f"{self._path} is damaged", "restore it, or remove it: then others must trust a new one")
        self._key = key
        raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self.public = PublicKey(raw, re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:60].lstrip("._-") or "head")

    def sign(self, message: bytes) -> bytes:
        """The signature of a message, 64 bytes."""
        return self._key.sign(message)

    def _make(self) -> bytes:
        data = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        with disk_errors(f"making {self._path}"):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd, temporary = tempfile.mkstemp(prefix=".new-", dir=self._path.parent)  # mode 600, mkstemp(3)
            try:
                with os.fdopen(fd, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(fd)
                # Another process may have made one meanwhile: the first one counts.
                os.link(temporary, self._path)
            except FileExistsError:
                data = self._path.read_bytes()
            finally:
                os.unlink(temporary)
        return data


class Trust:
    """The keys whose signatures count here."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def known(self) -> list[PublicKey]:
        """Trusted keys by name, without this head's own. Raises ConfigInvalid for a file that is not a key."""
        folder = self._paths.trusted
        with disk_errors(f"reading {folder}"):
            paths = sorted(folder.glob("*.pub")) if folder.is_dir() else []
        return [_read(path) for path in paths[:MAX_KEYS]]

    def add(self, key: PublicKey, name: str = "") -> PublicKey:
        """Trust a key under `name`, or its own name. Raises Wrong if the name is taken by another key or is none."""
        name = name or key.name
        if not KEY_NAME.fullmatch(name):
            raise Wrong(f"{name[:40]!r} is not a name for a key", "give one: --name HEAD")
        known = self.known()
        for other in known:
            if other.raw == key.raw:
                raise Wrong(f"this key is trusted already, as {other.name}")
            if other.name == name:
                raise Wrong(f"another key is trusted as {name}", f"say --name, or: gild image trust remove {name}")
        if len(known) >= MAX_KEYS:
            raise Wrong(f"{MAX_KEYS} keys are trusted already")
        with disk_errors(f"trusting {name}"):
            self._paths.trusted.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_file(self._paths.trusted / f"{name}.pub", PublicKey(key.raw, name).text.encode() + b"\n")
        return PublicKey(key.raw, name)

    def remove(self, name: str) -> None:
        """Trust a key no more. Raises Unknown."""
        known = ", ".join(key.name for key in self.known()) or "none"
        path = self._paths.trusted / f"{name}.pub"
        if not KEY_NAME.fullmatch(name) or not path.exists():
            raise Unknown(f"no key is trusted as {name[:60]!r}", f"trusted keys: {known}")
        with disk_errors(f"removing {path}"):
            path.unlink()

    def check(self, raw: bytes, message: bytes, signature: bytes, who: str) -> str:
        """Whether a signature counts: gives the name of the key. `who` is what the signer calls itself, printable.
        Raises Untrusted for a key nobody trusts here, BundleDamaged for a signature that is not the key's."""
        try:
            Ed25519PublicKey.from_public_bytes(raw).verify(signature, message)
        except (InvalidSignature, ValueError):
            raise BundleDamaged(
                "the signature is not that of its key: the file was changed", "fetch it again"
            ) from None
        own = Signer(self._paths).public
        for key in (own, *self.known()):
            if key.raw == raw:
                return key.name
        name = re.sub(r"[^A-Za-z0-9._-]", "-", who)[:40].lstrip("._-") or "head"
        key = PublicKey(raw, name)
        raise Untrusted(
            f"it is signed by a key nobody trusts here: {key.fingerprint}, which calls itself {name}",
            f"compare it with `gild.pyz image trust show` there; then: gild.pyz image trust add '{key.text}'",
        )


def parse_key(text: str) -> PublicKey:
    """A public key from its line. Raises ConfigInvalid."""
    words = text.split(None, 2)
    try:
        blob = base64.b64decode(words[1], validate=True) if len(words) > 1 and words[0] == KIND else b""
    except (binascii.Error, ValueError):
        blob = b""
    if len(text) > MAX_TEXT or len(blob) != len(PREFIX) + 32 or not blob.startswith(PREFIX):
        raise ConfigInvalid(
            "this is not the public key of a head", f"it is one line, {KIND} AAAA... NAME: gild.pyz image trust show"
        )
    name = words[2].strip() if len(words) == 3 else ""
    return PublicKey(blob[len(PREFIX) :], name if KEY_NAME.fullmatch(name) else "")


def _read(path: Path) -> PublicKey:
    with disk_errors(f"reading {path}"), path.open("rb") as file:
        text = file.read(MAX_TEXT + 1).decode("utf-8", "replace")
    try:
        return PublicKey(parse_key(text).raw, path.stem)
    except ConfigInvalid as error:
        raise ConfigInvalid(f"{path}: {error.message}", "remove the file, or put the key there again") from None
