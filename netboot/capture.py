"""What agent and head say to each other when a golden client is captured over the network.

    POST /node/capture         PlanAsk  -> CapturePlan   uses the order up; nothing on the machine is written
    POST /node/capture/offer   Offer    -> Choice        what stands on the disk -> which partitions are wanted
    POST /node/capture/ask     Ask      -> Lacking       names of chunks -> those the head does not have
    POST /node/capture/chunks  frames   -> Ack           their bytes, in the binary form below
    POST /node/capture/end     End      -> Ack           everything was sent; the head publishes

All of it goes over TLS to the pinned certificate: a disk holds secrets. Each call may be repeated. The body of
`chunks` (little endian): partition u32 | count u32, per frame: index u64 | length u32, then the zstd frames one after
another. The session stands in the header Gild-Session.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from images.chunk import CHUNK_SIZE
from netboot.plan import DiskRule
from netboot.wire import WIRE, WireInvalid

CAPTURE = "/node/capture"
OFFER = "/node/capture/offer"
ASK = "/node/capture/ask"
CHUNKS = "/node/capture/chunks"
END = "/node/capture/end"
SESSION_HEADER = "Gild-Session"

HEAD = struct.Struct("<II")
FRAME = struct.Struct("<QI")
MAX_BODY = 4 << 20  # bytes of one body of frames; the head's HTTP server takes no more
MAX_FRAMES = 4096
MAX_FRAME = CHUNK_SIZE + (CHUNK_SIZE >> 8) + 64  # zstd.h, ZSTD_COMPRESSBOUND


@dataclass(frozen=True)
class CapturePlan:
    """What one order to capture comes down to."""

    order: str
    node: str
    image: str  # the lineage
    disk: DiskRule
    chunk_size: int = CHUNK_SIZE
    wire: int = WIRE


@dataclass(frozen=True)
class Found:
    """One partition of the golden client. `number` 0 stands for a disk without a table. Sizes in bytes."""

    number: int
    size: int
    kind: str = ""  # what its type in the table stands for: esp, bios, swap, linux ...
    fs: str = ""  # what stands on it: ext4, xfs, vfat, lvm ..., empty if it is not known
    uuid: str = ""
    label: str = ""
    partuuid: str = ""
    used: int = 0  # bytes in use, as far as a map of them can be read; else all of them
    note: str = ""  # why all of them, for people


@dataclass(frozen=True)
class Offer:
    """What stands on the chosen disk, before anything of it is sent."""

    session: str
    disk: str  # for people
    table: str  # gpt, dos or empty
    parts: tuple[Found, ...]


@dataclass(frozen=True)
class Choice:
    """The numbers of the partitions the head wants."""

    parts: tuple[int, ...]


@dataclass(frozen=True)
class Named:
    """A chunk of a partition: its index, and its sha256 in hex or nothing where it is all zeros."""

    index: int
    sha256: str = ""


@dataclass(frozen=True)
class Ask:
    """Which of these does the head lack?"""

    session: str
    part: int
    chunks: tuple[Named, ...]


@dataclass(frozen=True)
class Lacking:
    """Their indexes."""

    indexes: tuple[int, ...]


@dataclass(frozen=True)
class End:
    """Everything that was lacking has been sent."""

    session: str


def encode_frames(part: int, frames: Sequence[tuple[int, bytes]]) -> bytes:
    """The body of one call to `chunks`."""
    heads = b"".join(FRAME.pack(index, len(frame)) for index, frame in frames)
    return HEAD.pack(part, len(frames)) + heads + b"".join(frame for _, frame in frames)


def decode_frames(body: bytes) -> tuple[int, list[tuple[int, memoryview]]]:
    """(partition, [(index, frame)]). Raises WireInvalid, and nothing else, for a body that does not add up."""
    if len(body) < HEAD.size or len(body) > MAX_BODY:
        raise WireInvalid(f"a body of {len(body)} bytes holds no chunks")
    part, count = HEAD.unpack_from(body)
    at = HEAD.size + count * FRAME.size
    if not 0 < count <= MAX_FRAMES or at > len(body):
        raise WireInvalid(f"a body of {len(body)} bytes cannot hold {count} chunks")
    view, frames = memoryview(body), []
    for index, length in FRAME.iter_unpack(view[HEAD.size : at]):
        if not 0 < length <= MAX_FRAME or at + length > len(body):
            raise WireInvalid(f"chunk {index} has a frame of {length} bytes, which is not possible")
        frames.append((index, view[at : at + length]))
        at += length
    if at != len(body):
        raise WireInvalid(f"{len(body) - at} bytes are left behind the last chunk")
    return part, frames
