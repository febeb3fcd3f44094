"""ACLs in words become what the kernel keeps."""

from __future__ import annotations

import struct

import pytest

from images.errors import SourceInvalid
from images.sources.acl import encode_acl, read_ids

NO_ID = 0xFFFFFFFF
IDS = {"user": {"lp": 7}, "group": {"adm": 4}}


def entries(acl: bytes) -> list[tuple[int, int, int]]:
    assert acl[:4] == struct.pack("<I", 2)
    return list(struct.iter_unpack("<HHI", acl[4:]))


@pytest.mark.parametrize(
    "text",
    [
        "user::rwx,user:lp:r-x,group::r--,group:adm:-w-,mask::rwx,other::--x",
        "other::--x\nmask::rwx\ngroup:adm:-w-\ngroup::r--\nuser:lp:r-x\nuser::rwx\n",
        "# made by somebody\nuser::rwx\nuser:7:r-x\ngroup::r--\ngroup:4:-w-\nmask::rwx\nother::--x",
        "user::rwx,user:nobody-knows:r-x:7,group::r--,group:adm:-w-:4,mask::rwx,other::--x",
    ],
)
def test_ways_to_write_one_acl(text: str) -> None:
    expected = [(1, 7, NO_ID), (2, 5, 7), (4, 4, NO_ID), (8, 2, 4), (0x10, 7, NO_ID), (0x20, 1, NO_ID)]
    assert entries(encode_acl(text, IDS)) == expected


@pytest.mark.parametrize(
    "text",
    ["user:bob:rwx", "user::rwz", "user::rw", "user:7:rwx:4294967295", "user:4294967295:rwx", "user:99999999999:rwx",
     "mask:7:rwx", "nonsense", "default:user::rwx", "user:lp:rwx\0"],
)  # fmt: skip
def test_what_is_no_acl(text: str) -> None:
    with pytest.raises(SourceInvalid, match="ACL entry"):
        encode_acl(text, IDS)


def test_an_acl_without_end() -> None:
    with pytest.raises(SourceInvalid, match="ACL of 70000 characters"):
        encode_acl("user:7:r-x" * 7000, IDS)


def test_names_and_numbers() -> None:
    text = "root:x:0:0::/:\n\n+::::::\nlp:x:7:7::/:\nbad:x:y:\nshort:x\nlarge:x:4294967294:\nabsurd:x:99999999999:\n"
    assert read_ids(text) == {"root": 0, "lp": 7, "large": 4294967294}
