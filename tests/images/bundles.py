"""Bundles for tests: exported with a real key, and checked with it."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from images.errors import BundleDamaged, Untrusted
from images.keeping.exporting import Signing, export
from images.store import Store

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
SIGNING = Signing("one", PUBLIC, KEY.sign)


def bundle(store: Store, refs: Sequence[str], without: Collection[str] = ()) -> bytes:
    """A bundle of these versions, in memory."""
    out = io.BytesIO()
    export(store, refs, out, SIGNING, without=without)
    return out.getvalue()


def trusting(raw: bytes, message: bytes, signature: bytes, who: str) -> str:
    """Believes KEY and nobody else."""
    try:
        Ed25519PublicKey.from_public_bytes(raw).verify(signature, message)
    except InvalidSignature:
        raise BundleDamaged("the signature is wrong") from None
    if raw != PUBLIC:
        raise Untrusted(f"{who} is a stranger")
    return who
