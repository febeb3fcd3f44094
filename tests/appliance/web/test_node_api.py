"""The agent's API over TLS, asked of the real process: one machine from its first packet to "up", and the liars."""

from __future__ import annotations

import hashlib
import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from appliance import keys
from images import working
from images.options import Options
from images.store import Store
from netboot.plan import InstallPlan
from netboot.report import (
    HELLO,
    NEXT,
    PLAN,
    REPORT,
    Ack,
    Answer,
    Disk,
    Do,
    Facts,
    Hello,
    Next,
    Nic,
    Phase,
    PlanAsk,
    Report,
)
from netboot.wire import decode, encode
from tests.appliance.process import MAC, Reply, Served, rack_of_one, wait_for
from tests.images.tinytree import tiny_tree
from tests.netboot.lan import HEAD_IP

pytestmark = pytest.mark.root
FACTS = Facts(
    firmware="bios", vendor="Acme", product="Box", serial="S1", cores=2, memory=1 << 30, arch="x86_64",
    disks=(Disk("/dev/vda", 20 << 30, "QEMU", "D1", bus="virtio", content="NTFS 'photos'"),),
    nics=(Nic("eth0", MAC, boot=True),),
)  # fmt: skip
PIECES = ("boot.img", "core.img", "grubx64.efi", "shimx64.efi", "mmx64.efi", "grub-disk.efi", "local.efi")


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with rack_of_one() as served:
        store = Store(served.paths.images)
        with store.lineage_lock("compute"):
            working.publish_tree(
                store, "compute", tiny_tree(tmp_path_factory.mktemp("api") / "tree"), Options(tag=True)
            )
        served.paths.boot.mkdir()
        for name in PIECES:
            (served.paths.boot / name).write_bytes(name.encode() * 100)
        served.start()
        served.source = served.dhcp()
        yield served


def say(head: Served, path: str, message: object) -> Reply:
    return head.tls(path, encode(message))


def hello(head: Served, token: str = "") -> Answer:
    reply = say(head, HELLO, Hello(MAC, FACTS, token))
    assert reply.status == 200, reply.body
    return decode(Answer, reply.body)


def test_from_hello_to_up(head: Served) -> None:
    first = hello(head)
    assert first.do is Do.WAIT and first.session and first.number == 1 and "approve 1" in first.message

    # A long poll is answered the moment there is news, not at its end.
    heard: list[Answer] = []

    def wait() -> None:
        while not heard or heard[-1].do is Do.WAIT:
            heard.append(decode(Answer, say(head, NEXT, Next(first.session, 25)).body))

    poll = threading.Thread(target=wait, daemon=True)
    poll.start()
    head.client.post("nodes", "approve", all=True, profile="default")
    shown = head.client.post("nodes", "install", refs=["node01"], preview=True)
    assert "21 GB" in shown["nodes"][0]["disk"] and shown["nodes"][0]["content"] == "NTFS 'photos'"
    head.client.post("nodes", "install", refs=["node01"], expect=shown["digest"])
    poll.join(60)
    assert heard, head.log
    order = heard[-1]
    assert (order.do, order.node) == (Do.INSTALL, "node01") and len(order.token) >= 32

    reply = say(head, PLAN, PlanAsk(first.session, order.token))
    assert reply.status == 200, reply.body
    plan = decode(InstallPlan, reply.body)
    assert plan.image == "compute:1" and plan.manifest == Store(head.paths.images).load("compute")[1]
    assert head.http("GET", f"/manifests/{plan.manifest}").status == 200
    for piece in plan.boot:
        data = head.http("GET", f"/boot/{piece.name}").body
        assert (len(data), hashlib.sha256(data).hexdigest()) == (piece.size, piece.sha256)
    assert head.client.get("nodes", "node01")["state"] == "installing"

    for phase in Phase:
        told = say(
            head, REPORT, Report(first.session, phase=phase, done=1, total=2, disk="vda 20 GB", lines=("so far",))
        )
        assert decode(Ack, told.body).stop == ""
    # Used: the same token gives nothing any more, neither to this agent nor to another, and is an alarm.
    assert say(head, PLAN, PlanAsk(first.session, order.token)).status == 403
    assert say(head, PLAN, PlanAsk(hello(head, order.token).session, order.token)).status == 403
    assert "ALARM" in timeline(head)

    say(head, REPORT, Report(first.session, finished=True, finish="kexec"))
    assert head.client.get("nodes", "node01")["state"] == "installed"
    body = b"hostname node01\nkernel 6.1\n"
    path = plan.home_url.partition(HEAD_IP)[2]
    assert head.http("POST", path, body, {"Gild-Proof": "0" * 64}).status == 403
    proof = hashlib.sha256(plan.home_secret.encode() + body).hexdigest()
    assert call_home_in_pieces(head, path, body, proof).startswith(b"HTTP/1.1 200")
    assert head.client.get("nodes", "node01")["state"] == "up"
    assert head.client.get("nodes", "node01")["image"] == "compute:1"
    assert plan.home_secret not in timeline(head) and order.token not in json.dumps(head.client.get("nodes", "node01"))


def call_home_in_pieces(head: Served, path: str, body: bytes, proof: str) -> bytes:
    """TCP may cut a request anywhere."""
    lines = f"POST {path} HTTP/1.1\r\nHost: h\r\nGild-Proof: {proof}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with head.connect() as sock:
        for at, piece in enumerate((lines + body[:5], body[5:9], body[9:])):
            sock.sendall(piece)
            if at < 2:
                head.http("GET", "/")  # by now the head has read the piece
        return sock.recv(65536)


def timeline(head: Served) -> str:
    return "\n".join(event["text"] for event in head.client.get("nodes", "1", "log"))


@pytest.mark.parametrize("path", [HELLO, NEXT, PLAN, REPORT])
@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"{}", b'{"session": 5}', b"\xff", b"[" * 100000, b'{"mac": "' + b"x" * 70000 + b'"}'],
    ids=["empty", "cut", "list", "null", "bare", "type", "bytes", "deep", "long"],
)  # fmt: skip
def test_messages_that_are_none_get_400(head: Served, path: str, body: bytes) -> None:
    reply = head.tls(path, body)
    assert reply.status == 400 and json.loads(reply.body)["error"] == "WireInvalid"


def test_a_message_without_end_is_refused(head: Served) -> None:
    assert head.tls(HELLO, b" " * (5 << 20)).status == 413
    assert hello(head).session


@pytest.mark.parametrize(
    ("path", "message"),
    [(NEXT, Next("x" * 32)), (NEXT, Next("")), (PLAN, PlanAsk("x" * 32, "y" * 32)), (REPORT, Report("x" * 32))],
)
def test_without_a_session_nothing_is_said(head: Served, path: str, message: object) -> None:
    reply = say(head, path, message)
    assert reply.status == 401 and json.loads(reply.body)["error"] == "SessionUnknown"


def test_other_versions_and_cardless_machines_are_refused(head: Served) -> None:
    assert say(head, HELLO, Hello(MAC, FACTS, wire=99)).status == 403
    assert say(head, HELLO, Hello("ff:ff:ff:ff:ff:ff", FACTS)).status == 403
    assert head.tls("/node/none", b"{}").status == 404


def test_a_machine_elsewhere_that_claims_the_card_gets_no_order(head: Served) -> None:
    mine, head.source = head.source, "10.77.0.9"
    try:
        answer = hello(head)
        assert answer.do is not Do.INSTALL and not answer.token
        assert say(head, PLAN, PlanAsk(answer.session, "0" * 32)).status == 403
    finally:
        head.source = mine
    assert "says hello from 10.77.0.9" in timeline(head)


def test_what_a_machine_says_reaches_nobodys_screen_raw(head: Served) -> None:
    session = hello(head).session
    say(head, HELLO, Hello(MAC, replace(FACTS, vendor="\x1b[2J\n\u202egnp")))
    say(head, REPORT, Report(session, lines=("\x1b]0;title\x07 line", "two\r\nlines")))
    wait_for(lambda: "title" in timeline(head))
    assert not set(timeline(head).replace("\n", "")) & set("\x1b\x07\r\u202e")


def test_the_certificate_is_pinned(head: Served, tmp_path: Path) -> None:
    other = keys.head_identity(tmp_path, HEAD_IP, "cluster.internal")
    with pytest.raises(ssl.SSLCertVerificationError):
        head.tls(HELLO, b"{}", ssl.create_default_context(cafile=str(other.certificate_path)))
    with pytest.raises(ssl.SSLCertVerificationError):
        head.tls(HELLO, b"{}", ssl.create_default_context())
    assert hello(head).session


def test_plain_http_on_the_tls_port_gets_nothing_and_breaks_nothing(head: Served) -> None:
    assert b"200" not in head.raw(b"POST /node/hello HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}", 443)
    assert hello(head).session
    assert "Traceback" not in head.log
