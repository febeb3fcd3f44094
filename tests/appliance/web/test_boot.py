"""Boot scripts, boot files by HTTP and TFTP, and the call home, asked of the real process."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator

import pytest

from netboot.bootfiles import RESCAN
from netboot.report import HELLO, Facts, Hello
from netboot.wire import encode
from tests.appliance.process import MAC, Served, rack_of_one, wait_for
from tests.netboot.lan import HEAD_IP

pytestmark = pytest.mark.root
BIG = random.Random(5).randbytes(2_000_003)


@pytest.fixture(scope="module")
def head() -> Iterator[Served]:
    with rack_of_one() as served:
        tools = served.paths.boot / "tools"
        tools.mkdir(parents=True)
        (served.paths.boot / "big").write_bytes(BIG)
        (tools / "dos.img").write_bytes(b"DOS")
        (served.state / "secret").write_bytes(b"S")
        (served.paths.boot / "link").symlink_to(served.state / "secret")
        served.start()
        yield served


def test_a_browser_is_told_what_this_is(head: Served) -> None:
    reply = head.http("GET", "/")
    assert reply.status == 200 and reply.body.startswith(b"gild")


def test_the_script_is_made_for_the_machine_that_asks_and_not_kept(head: Served) -> None:
    reply = head.http("GET", f"/boot.ipxe?mac={MAC}&platform=efi")
    assert reply.status == 200 and reply.body.startswith(b"#!ipxe\n")
    assert reply.headers["cache-control"] == "no-store"
    assert head.http("GET", "/boot.ipxe").body.startswith(b"#!ipxe\n")


def test_the_heads_own_segment_carries_its_certificate_and_never_its_key(head: Served) -> None:
    body = head.http("GET", "/boot/head.cpio").body
    assert body.startswith(b"070701") and (head.paths.keys / "head.pem").read_bytes() in body
    assert b"PRIVATE KEY" not in body
    assert head.tftp("head.cpio").stdout.encode() == body


def test_the_sites_files_by_both_protocols(head: Served) -> None:
    assert head.http("GET", "/boot/big").body == BIG
    assert head.http("GET", "/boot/tools/dos.img").body == b"DOS"
    assert head.http("GET", "/boot/big", headers={"Range": "bytes=1000000-"}).body == BIG[1000000:]
    assert head.tftp("tools/dos.img").stdout == "DOS"
    assert head.tftp("/tools/dos.img").stdout == "DOS"  # some loaders send a slash in front
    assert head.http("GET", "/boot/link").status == 404
    got = head.state / "got"
    head.at_node("tftp", "-m", "binary", HEAD_IP, "-c", "get", "big", str(got))
    assert hashlib.sha256(got.read_bytes()).digest() == hashlib.sha256(BIG).digest()


def test_a_file_put_there_while_serving_appears_on_both(head: Served) -> None:
    assert head.http("GET", "/boot/late").status == 404
    (head.paths.boot / "late").write_bytes(b"L")
    wait_for(lambda: head.http("GET", "/boot/late").body == b"L", RESCAN + 20)
    assert head.tftp("late").stdout == "L"
    (head.paths.boot / "late").write_bytes(b"LL")
    assert head.http("GET", "/boot/late").body == b"LL"


def test_grub_gets_a_configuration_made_for_its_address(head: Served) -> None:
    for name in ("grub/grub.cfg", "/grub.cfg"):
        assert "set " in head.tftp(name).stdout or "boot" in head.tftp(name).stdout


@pytest.mark.parametrize(
    "name",
    [
        b"none", b"../secret", b"tools/../../secret", b"/etc/passwd", b"//etc/passwd", b"tools", b"tools/", b".", b"..",
        b"link", b"BIG", b"big\xff", b"C:\\boot.ini", b"..\\secret", b"big/", b"a" * 300,
    ],
)  # fmt: skip
def test_other_names_get_a_tftp_error_and_nothing_more(head: Served, name: bytes) -> None:
    with head.datagram_socket() as sock:
        sock.sendto(b"\0\1" + name + b"\0octet\0", (HEAD_IP, 69))
        answer, _ = sock.recvfrom(2000)
    assert answer[:2] == b"\0\5" and answer[2:4] in (b"\0\1", b"\0\2", b"\0\4")
    # RFC 1350 appendix I: 2 is an access violation, 1 a file that is not there.
    denied = name in (b"tools", b"tools/") or b".." in name.split(b"/")
    assert (answer[2:4] == b"\0\2") == denied
    assert b"S" not in answer[4:5]


def test_writing_by_tftp_is_refused(head: Served) -> None:
    with head.datagram_socket() as sock:
        sock.sendto(b"\0\2big\0octet\0", (HEAD_IP, 69))
        answer, _ = sock.recvfrom(2000)
    assert answer[:4] in (b"\0\5\0\2", b"\0\5\0\4")
    assert (head.paths.boot / "big").read_bytes() == BIG


def test_a_call_home_needs_its_secret_and_a_small_body(head: Served) -> None:
    assert head.http("POST", "/up/1", b"hostname x\n", {"Gild-Proof": "0" * 64}).status in (403, 404)
    assert head.http("POST", "/up/1", b"x" * 5000).status == 413
    assert head.http("POST", "/up/none", b"").status in (400, 403, 404)


def test_files_that_were_sent_and_missed_stand_on_the_timeline(head: Served) -> None:
    head.source = head.dhcp()
    assert head.tls(HELLO, encode(Hello(MAC, Facts()))).status == 200
    assert head.http("GET", f"/boot.ipxe?mac={MAC}").status == 200
    assert head.http("GET", "/boot/big").body == BIG
    assert head.http("GET", "/boot/none").status == 404
    assert head.http("GET", "/boot/tools/dos.img", headers={"Range": "bytes=99-"}).status == 416
    text = "\n".join(event["text"] for event in head.client.get("nodes", "1", "log"))
    assert "has loaded big, 2.0 MB by HTTP" in text
    assert "did not get none by HTTP: not found" in text
    assert "dos.img" not in text
