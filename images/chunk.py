"""Chunks: where a partition is cut and how a piece of it is named."""

from __future__ import annotations

import hashlib

# 256 KiB. Measured on a 0.8 GB Debian image: against 1 MiB it stores 3.6 % more on a first install, but a re-image
# fetches a quarter of the bytes; requests are ranges of many neighbouring chunks, so their number does not matter.
CHUNK_SIZE = 256 * 1024
MIN_CHUNK_SIZE = 4096
MAX_CHUNK_SIZE = 16 * 1024 * 1024
HASH_SIZE = 32


def chunk_hash(data: bytes | bytearray | memoryview) -> bytes:
    """The name of a chunk: sha256 over its raw (uncompressed) bytes, 32 bytes."""
    return hashlib.sha256(data).digest()


def chunk_count(size: int, chunk_size: int = CHUNK_SIZE) -> int:
    """How many chunks a partition of `size` bytes has; the last one may be short."""
    return -(-size // chunk_size)


def chunk_length(index: int, size: int, chunk_size: int = CHUNK_SIZE) -> int:
    """Length in bytes of chunk `index` of a partition of `size` bytes."""
    return max(0, min(chunk_size, size - index * chunk_size))
