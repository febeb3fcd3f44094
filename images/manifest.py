"""The format of a version: a JSON manifest and, per partition, a binary list of runs.

Manifest (`<n>.json`, canonical JSON, UTF-8; its sha256 is the version's digest, the one thing an order names):

    format 1, name, version, parent, created (seconds since 1970), message, arch, chunk_size, hash "sha256",
    codec "zstd", packs [sha256 of each pack file, in the order the runs number them],
    partitions [{role, fs, uuid, label, size, used, runs {sha256, bytes}}], system {what was found in the tree:
    family, id, version, hostname style, kernels [{version, modules, initramfs}], ...}, checks [{name, found, fix}],
    source {kind, ...}, cmdline

Runs (`<n>.runs`, all integers little endian), partitions one after another in manifest order:

    magic 8 "gildrun1" | chunk_size u32 | size u64 | run count u32
    then per run: kind u8 | start chunk u64 | chunk count u32
         and for a data run: pack number u32 | offset of its first frame u64, per chunk: sha256 32 | frame length u32

A data run's frames lie one after another in its pack, so one HTTP range fetches them all.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from images.chunk import HASH_SIZE, MAX_CHUNK_SIZE, MIN_CHUNK_SIZE, chunk_count, chunk_length
from images.errors import ManifestInvalid

FORMAT = 1
MAGIC = b"gildrun1"
HEADER = struct.Struct("<8sIQI")
RUN = struct.Struct("<BQI")
PLACE = struct.Struct("<IQ")
CHUNK = struct.Struct(f"<{HASH_SIZE}sI")

MAX_MANIFEST = 16 * 1024 * 1024  # bytes; a hostile length is refused before it is believed
MAX_SIZE = 1 << 50  # bytes of one partition: 1 PiB
MAX_FRAME = 2 * MAX_CHUNK_SIZE  # a zstd frame grows by less than 1 % even of random bytes
MAX_PACK = 1 << 50  # bytes of one pack: beyond it file offsets would overflow
MAX_TEXT = 65536  # characters
MAX_WORD = 255
WHOLE = "whole"  # role and filesystem of a disk that is kept bit for bit, with whatever is on it


class Kind(IntEnum):
    """What a run of chunks holds."""

    DATA = 1  # bytes, named by hash
    ZERO = 2  # used by the filesystem, must read as zero
    FREE = 3  # nobody cares what stands there


@dataclass(frozen=True, slots=True)
class Run:
    """A stretch of neighbouring chunks of one kind; `chunks` is (hash, frame length) per chunk of a data run."""

    kind: Kind
    start: int
    count: int
    pack: int = 0
    offset: int = 0
    chunks: tuple[tuple[bytes, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition's content: `role` says which partition of a layout it fills ("root", "boot", "data", ...)."""

    role: str
    fs: str
    uuid: str
    size: int  # bytes, as published; a target may be larger and the filesystem is grown
    used: int  # bytes of data and zero chunks
    runs_sha256: str
    runs_bytes: int
    label: str = ""


@dataclass(frozen=True)
class Manifest:
    """One immutable version of an image."""

    name: str
    version: int
    created: int
    arch: str
    chunk_size: int
    packs: tuple[str, ...]
    partitions: tuple[Partition, ...]
    parent: int = 0
    message: str = ""
    cmdline: str = ""
    system: dict[str, Any] = field(default_factory=dict)
    checks: tuple[dict[str, Any], ...] = ()
    source: dict[str, Any] = field(default_factory=dict)

    @property
    def ref(self) -> str:
        """`name:version`, as people write it."""
        return f"{self.name}:{self.version}"

    @property
    def whole(self) -> bool:
        """Whether it is one disk bit for bit, into which nobody looks, and not the partitions of a system."""
        return [partition.role for partition in self.partitions] == [WHOLE]

    def mount(self, role: str) -> str:
        """Where a partition stands in the tree; empty if it does not."""
        mounts = self.system.get("mounts", {"root": "/"})
        return str(mounts.get(role, "")) if isinstance(mounts, dict) else ""


def encode_manifest(manifest: Manifest) -> bytes:
    """Canonical JSON bytes: same manifest, same bytes, same digest."""
    body: dict[str, Any] = {
        "format": FORMAT,
        "name": manifest.name,
        "version": manifest.version,
        "parent": manifest.parent,
        "created": manifest.created,
        "message": manifest.message,
        "arch": manifest.arch,
        "chunk_size": manifest.chunk_size,
        "hash": "sha256",
        "codec": "zstd",
        "packs": list(manifest.packs),
        "partitions": [
            {
                "role": p.role,
                "fs": p.fs,
                "uuid": p.uuid,
                "label": p.label,
                "size": p.size,
                "used": p.used,
                "runs": {"sha256": p.runs_sha256, "bytes": p.runs_bytes},
            }
            for p in manifest.partitions
        ],
        "cmdline": manifest.cmdline,
        "system": manifest.system,
        "checks": list(manifest.checks),
        "source": manifest.source,
    }
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest(manifest_bytes: bytes) -> str:
    """The version's digest: sha256 of the manifest's bytes, hex."""
    return hashlib.sha256(manifest_bytes).hexdigest()


def decode_manifest(data: bytes) -> Manifest:
    """Read and check a manifest. Raises ManifestInvalid with what is wrong; never anything else."""
    if len(data) > MAX_MANIFEST:
        raise ManifestInvalid(f"manifest of {len(data)} bytes is larger than {MAX_MANIFEST}")
    try:
        body = json.loads(data, parse_constant=_no_number)
        if b"\\u" in data:  # can spell half a surrogate pair, which nothing can print or encode again
            json.dumps(body, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ManifestInvalid(f"manifest is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise ManifestInvalid("manifest is not a JSON object")
    if body.get("format") != FORMAT:
        raise ManifestInvalid(f"manifest has format {_shown(body.get('format'))}, this version reads {FORMAT}")
    if body.get("hash") != "sha256" or body.get("codec") != "zstd":
        wanted = f"{_shown(body.get('hash'))} and {_shown(body.get('codec'))}"
        raise ManifestInvalid(f"manifest wants {wanted}, not sha256 and zstd")
    try:
        manifest = Manifest(
            name=_word(body, "name"),
            version=_number(body, "version", 1, 1 << 31),
            parent=_number(body, "parent", 0, 1 << 31),
            created=_number(body, "created", 0, 1 << 40),
            message=_text(body, "message"),
            arch=_word(body, "arch"),
            chunk_size=_number(body, "chunk_size", MIN_CHUNK_SIZE, MAX_CHUNK_SIZE),
            packs=tuple(_hex(pack) for pack in _list(body, "packs")),
            partitions=tuple(_partition(entry) for entry in _list(body, "partitions")),
            cmdline=_text(body, "cmdline"),
            system=_object(body, "system"),
            checks=tuple(_entry(check, "checks") for check in _list(body, "checks")),
            source=_object(body, "source"),
        )
    except KeyError as error:
        raise ManifestInvalid(f"manifest lacks {error.args[0]!r}") from None
    if not manifest.partitions:
        raise ManifestInvalid(f"manifest of {manifest.ref} has no partition")
    if len({partition.role for partition in manifest.partitions}) != len(manifest.partitions):
        raise ManifestInvalid(f"manifest of {manifest.ref} has two partitions of one role")
    return manifest


def encode_runs(runs: Sequence[Run], size: int, chunk_size: int) -> bytes:
    """Binary form of one partition's runs; the runs must tile the partition (as decode_runs checks)."""
    parts = [HEADER.pack(MAGIC, chunk_size, size, len(runs))]
    for run in runs:
        parts.append(RUN.pack(run.kind, run.start, run.count))
        if run.kind is Kind.DATA:
            parts.append(PLACE.pack(run.pack, run.offset))
            parts.extend(CHUNK.pack(name, length) for name, length in run.chunks)
    return b"".join(parts)


def decode_runs(data: bytes, *, size: int, chunk_size: int, packs: int) -> list[Run]:
    """Read and check one partition's runs: they tile its chunks in order without gap or overlap, every pack number is
    below `packs`, every frame length is possible. `size` is in bytes. Raises ManifestInvalid; never anything else."""
    if not 0 < size <= MAX_SIZE:
        raise ManifestInvalid(f"a partition of {size} bytes is not possible")
    if len(data) < HEADER.size:
        raise ManifestInvalid(f"runs file ends after {len(data)} bytes")
    magic, file_chunk, file_size, count = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise ManifestInvalid("runs file does not start with its magic")
    if (file_chunk, file_size) != (chunk_size, size):
        raise ManifestInvalid(
            f"runs file is for {file_size} bytes in chunks of {file_chunk}, the manifest says {size} and {chunk_size}"
        )
    total, at, chunk, runs = chunk_count(size, chunk_size), HEADER.size, 0, []
    # A restore holds as many frames at once as make a few MiB of raw bytes: one may not be many times its chunk.
    # zstd.h, ZSTD_COMPRESSBOUND: at most 1/256 more, and 64 bytes more where the chunk is short.
    longest = chunk_size + (chunk_size >> 8) + 64
    for _ in range(count):
        if at + RUN.size > len(data):
            raise ManifestInvalid(f"runs file ends inside the run at chunk {chunk}")
        kind, start, length = RUN.unpack_from(data, at)
        at += RUN.size
        if kind not in (Kind.DATA, Kind.ZERO, Kind.FREE):
            raise ManifestInvalid(f"run at chunk {chunk} has unknown kind {kind}")
        if start != chunk or not 0 < length <= total - chunk:
            raise ManifestInvalid(f"run at chunk {chunk} says it covers {start}+{length} of {total}")
        if kind != Kind.DATA:
            runs.append(Run(Kind(kind), start, length))
        else:
            if at + PLACE.size + length * CHUNK.size > len(data):
                raise ManifestInvalid(f"runs file ends inside the data run at chunk {chunk}")
            pack, offset = PLACE.unpack_from(data, at)
            at += PLACE.size
            if pack >= packs:
                raise ManifestInvalid(f"data run at chunk {chunk} names pack {pack} of {packs}")
            chunks = tuple(CHUNK.iter_unpack(memoryview(data)[at : at + length * CHUNK.size]))
            if any(not 0 < frame <= longest for _, frame in chunks):
                raise ManifestInvalid(f"data run at chunk {chunk} has a frame of an impossible length")
            if offset + sum(frame for _, frame in chunks) > MAX_PACK:
                raise ManifestInvalid(f"data run at chunk {chunk} lies at byte {offset} of its pack, beyond {MAX_PACK}")
            at += length * CHUNK.size
            runs.append(Run(Kind.DATA, start, length, pack, offset, chunks))
        chunk += length
    if chunk != total or at != len(data):
        raise ManifestInvalid(f"runs cover {chunk} of {total} chunks and {at} of {len(data)} bytes")
    return runs


def used_bytes(runs: Iterable[Run], size: int, chunk_size: int) -> int:
    """Bytes of data and zero chunks: what a first install has to bring onto the disk."""
    return sum(
        (run.count - 1) * chunk_size + chunk_length(run.start + run.count - 1, size, chunk_size)
        for run in runs
        if run.kind is not Kind.FREE
    )


def _partition(value: Any) -> Partition:
    entry = _entry(value, "partitions")
    runs = _object(entry, "runs")
    partition = Partition(
        role=_word(entry, "role"),
        fs=_word(entry, "fs"),
        uuid=_text(entry, "uuid"),
        label=_text(entry, "label"),
        size=_number(entry, "size", 1, MAX_SIZE),
        used=_number(entry, "used", 0, MAX_SIZE),
        runs_sha256=_hex(runs["sha256"]),
        runs_bytes=_number(runs, "bytes", HEADER.size, 1 << 40),
    )
    if partition.used > partition.size:
        raise ManifestInvalid(f"manifest: {partition.used} of {partition.size} bytes of a partition are used")
    return partition


def _word(body: dict[str, Any], key: str) -> str:
    """A short text that stands in file names, errors and tables."""
    value = _text(body, key)
    if not value or len(value) > MAX_WORD or not value.isprintable():
        raise ManifestInvalid(f"manifest: {key} is {_shown(value)}, not one to {MAX_WORD} printable characters")
    return value


def _text(body: dict[str, Any], key: str) -> str:
    value = body[key]
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise ManifestInvalid(f"manifest: {key} is not a text")
    return value


def _number(body: dict[str, Any], key: str, low: int, high: int) -> int:
    value = body[key]
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ManifestInvalid(f"manifest: {key} is not a number from {low} to {high}")
    return value


def _list(body: dict[str, Any], key: str) -> list[Any]:
    value = body[key]
    if not isinstance(value, list):
        raise ManifestInvalid(f"manifest: {key} is not a list")
    return value


def _object(body: dict[str, Any], key: str) -> dict[str, Any]:
    value = body[key]
    if not isinstance(value, dict):
        raise ManifestInvalid(f"manifest: {key} is not an object")
    return value


def _entry(value: Any, key: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ManifestInvalid(f"manifest: {key} holds something that is not an object")
    return value


def _hex(value: Any) -> str:
    if not isinstance(value, str) or len(value) != 64 or value.strip("0123456789abcdef"):
        raise ManifestInvalid(f"manifest: {_shown(value)} is not a sha256")
    return value


def _shown(value: Any) -> str:
    """A hostile value in an error: short, and on one line."""
    return ascii(value[:80]) if isinstance(value, str) else str(value)[:80] if _scalar(value) else type(value).__name__


def _scalar(value: Any) -> bool:
    return value is None or isinstance(value, float) or (isinstance(value, int) and value.bit_length() < 256)


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is not a number")  # RFC 8259 section 6 knows no NaN and no infinities
