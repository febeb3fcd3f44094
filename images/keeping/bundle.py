"""A bundle: versions and their packs in one file, to be carried to another head.

    magic 8 "gildbdl1" | length of the header u32, little endian | header, JSON
    Ed25519 public key 32 | signature 64, over SIGNED and the sha256 of the header (RFC 8032)
    per version, in the header's order: manifest, runs
    per pack that is included, in the header's order: index, pack
    end 8 "gildend1"

The header gives the sha256 and the length of all that follows, so one signature holds for the whole, and a reader knows
at every byte what it must be. There are no offsets, since everything has one place. Packs that are not included are
listed too: they must be there already.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from images.errors import BundleDamaged
from images.manifest import HEADER, MAX_MANIFEST, MAX_PACK

MAGIC = b"gildbdl1"
END = b"gildend1"
SIGNED = b"gild bundle 1\n"  # what is signed cannot be taken for a signature on anything else
START = struct.Struct("<8sI")
KEY_SIZE, SIGNATURE_SIZE = 32, 64  # RFC 8032 section 5.1.5 and 5.1.6
FORMAT = 1

MAX_HEADER = 16 << 20  # bytes; hostile lengths are refused before they are believed
MAX_VERSIONS = 1000
MAX_PACKS = 65536
MAX_RUNS = 1 << 30  # bytes of one version's runs: 15 TB of data in chunks of 512 KiB
MAX_INDEX = 1 << 30  # bytes of one pack's index
MAX_NUMBER = 999_999_999
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Version:
    """One version in a bundle: its digest, and the bytes of its manifest and of its runs."""

    name: str
    number: int
    digest: str
    manifest: int
    runs: int

    @property
    def ref(self) -> str:
        """`name:number`, as people write it."""
        return f"{self.name}:{self.number}"


@dataclass(frozen=True, slots=True)
class Pack:
    """One pack that a version in a bundle needs: its sha256 and bytes, those of its index, and whether both are in."""

    sha256: str
    size: int
    index_sha256: str
    index: int
    included: bool


@dataclass(frozen=True, slots=True)
class Header:
    """What is in a bundle; `head` is what the head that made it calls itself, `created` is in seconds since 1970."""

    head: str
    created: int
    versions: tuple[Version, ...]
    packs: tuple[Pack, ...]

    @property
    def body(self) -> int:
        """Bytes between the signature and the end."""
        return sum(length for _, _, length in self.places())

    def places(self) -> Iterator[tuple[str, str, int]]:
        """What follows the signature, in order: (kind, name, length). Kinds: manifest and runs, by the version's ref;
        index and pack, by the pack's sha256."""
        for version in self.versions:
            yield "manifest", version.ref, version.manifest
            yield "runs", version.ref, version.runs
        for pack in self.packs:
            if pack.included:
                yield "index", pack.sha256, pack.index
                yield "pack", pack.sha256, pack.size


def message(header: bytes) -> bytes:
    """What is signed for a header."""
    return SIGNED + hashlib.sha256(header).digest()


def encode_header(header: Header) -> bytes:
    """Canonical JSON: same header, same bytes."""
    body = {
        "format": FORMAT,
        "head": header.head,
        "created": header.created,
        "versions": [
            {"name": v.name, "version": v.number, "digest": v.digest, "manifest": v.manifest, "runs": v.runs}
            for v in header.versions
        ],
        "packs": [
            {
                "sha256": p.sha256,
                "size": p.size,
                "index": {"sha256": p.index_sha256, "bytes": p.index},
                "included": p.included,
            }
            for p in header.packs
        ],
    }
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def decode_start(data: bytes) -> int:
    """The length of the header, from the first START.size bytes. Raises BundleDamaged if it is not a bundle."""
    if len(data) < START.size or data[:8] != MAGIC:
        raise BundleDamaged("this is not a bundle of images", "make one: gild.pyz image export")
    length = int(START.unpack(data)[1])
    if not 0 < length <= MAX_HEADER:
        raise BundleDamaged(f"the bundle's header would have {length} bytes, more than {MAX_HEADER}")
    return length


def decode_header(data: bytes) -> Header:
    """Read and check a header. Raises BundleDamaged with what is wrong; never anything else."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        raise BundleDamaged("the bundle's header is not JSON") from None
    if not isinstance(body, dict):
        raise BundleDamaged("the bundle's header is not a JSON object")
    if body.get("format") != FORMAT or body.get("format") is True:
        raise BundleDamaged(f"the bundle is not of format {FORMAT}", "import it with a newer gild")
    try:
        header = Header(
            head=_head(body["head"]),
            created=_number(body["created"], "created", 0, 1 << 40),
            versions=tuple(_version(entry) for entry in _list(body["versions"], "versions", MAX_VERSIONS)),
            packs=tuple(_pack(entry) for entry in _list(body["packs"], "packs", MAX_PACKS)),
        )
    except KeyError as error:
        raise BundleDamaged(f"the bundle's header lacks {error.args[0]!r}") from None
    if not header.versions:
        raise BundleDamaged("the bundle holds no version")
    if len({(v.name, v.number) for v in header.versions}) != len(header.versions):
        raise BundleDamaged("the bundle holds a version twice")
    if len({v.digest for v in header.versions}) != len(header.versions):
        raise BundleDamaged("the bundle holds a manifest twice")
    if len({p.sha256 for p in header.packs}) != len(header.packs):
        raise BundleDamaged("the bundle holds a pack twice")
    return header


def _version(value: Any) -> Version:
    entry = _object(value, "versions")
    name = entry["name"]
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BundleDamaged(f"the bundle names an image {_shown(name)}, which is not possible")
    return Version(
        name,
        _number(entry["version"], "version", 1, MAX_NUMBER),
        _sha256(entry["digest"]),
        _number(entry["manifest"], "manifest", 1, MAX_MANIFEST),
        _number(entry["runs"], "runs", HEADER.size, MAX_RUNS),
    )


def _pack(value: Any) -> Pack:
    entry = _object(value, "packs")
    index = _object(entry["index"], "index")
    if not isinstance(entry["included"], bool):
        raise BundleDamaged("the bundle's header: included is neither true nor false")
    return Pack(
        _sha256(entry["sha256"]),
        _number(entry["size"], "size", 1, MAX_PACK),
        _sha256(index["sha256"]),
        _number(index["bytes"], "bytes", 1, MAX_INDEX),
        entry["included"],
    )


def _head(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable() or len(value) > 255:
        raise BundleDamaged("the bundle's header: head is not a name")
    return value


def _number(value: Any, key: str, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise BundleDamaged(f"the bundle's header: {key} is not a number from {low} to {high}")
    return value


def _sha256(value: Any) -> str:
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise BundleDamaged(f"the bundle's header: {_shown(value)} is not a sha256")
    return value


def _list(value: Any, key: str, most: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise BundleDamaged(f"the bundle's header: {key} is not a list of at most {most}")
    return value


def _object(value: Any, key: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BundleDamaged(f"the bundle's header: {key} holds something that is not an object")
    return value


def _shown(value: Any) -> str:
    return ascii(value[:80]) if isinstance(value, str) else type(value).__name__
