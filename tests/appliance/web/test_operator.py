"""The operator's API, over a unix socket: the real process for the socket, a head without sockets for the rest."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, UnixConnector, web
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from appliance.cli.client import Client
from appliance.errors import Environment, NotServing, Unknown, Wrong
from appliance.web import app
from appliance.web.operator import Operator
from appliance.web.profile_api import ProfileApi
from appliance.web.secret_api import SecretApi
from netboot.report import Hello, Nic
from tests.appliance.process import Served, rack_of_one
from tests.appliance.rack import Rack

Asked = tuple[str, str, bytes]


def routes_of(rack: Rack) -> list[web.AbstractRouteDef]:
    return [*Operator(rack.head).routes(), *ProfileApi(rack.head).routes(), *SecretApi(rack.head).routes()]


def answers(rack: Rack, folder: Path, *asked: Asked) -> list[tuple[int, Any]]:
    """Status and JSON of each (method, path, body), asked one after the other."""

    async def main() -> list[tuple[int, Any]]:
        runner = app.runner(app.application(routes_of(rack)))
        await runner.setup()
        path = str(folder / "s")
        await web.UnixSite(runner, path).start()
        found = []
        try:
            async with ClientSession("http://head", connector=UnixConnector(path)) as session:
                for method, url, body in asked:
                    async with session.request(method, url, data=body) as answer:
                        found.append((answer.status, json.loads(await answer.read())))
        finally:
            await runner.cleanup()
        return found

    return asyncio.run(main())


def post(path: str, **body: Any) -> Asked:
    return "POST", path, json.dumps(body).encode()


def get(path: str) -> Asked:
    return "GET", path, b""


def test_every_route_answers_json(rack: Rack, tmp_path: Path) -> None:
    first = rack.approved(1)
    first.hello()
    for number in (2, 3, 4, 5):
        rack.machine(number).boot()
    for mac in (rack.machine(4).mac, rack.machine(5).mac):  # the first one's body, with another card
        facts = replace(first.facts(), nics=(Nic("eth0", mac, boot=True),))
        rack.head.hello(Hello(mac, facts), rack.head.node(mac)["address"])
    preview = answers(rack, tmp_path, post("/nodes/install", refs=["node01"], preview=True))[0][1]
    asked = [
        get("/status"),
        get("/nodes"),
        get("/nodes/node01"),
        get("/nodes/node01/log"),
        get("/nodes/node01/log?after=1"),
        get("/changes"),
        post("/nodes/approve", refs=["2"], names="login"),
        post("/nodes/approve", all=True),
        post("/nodes/install", refs=["node01"], expect=preview["digest"]),
        post("/nodes/cancel", all=True),
        post("/nodes/other", ref="4"),
        post("/nodes/same", ref="5", node="node01"),
        post("/nodes/set", refs=["node01"], name="first"),
        post("/nodes/remove", refs=["first"]),
        get("/profiles"),
        get("/profiles/default"),
        post("/profiles/small", disk="pick=smallest"),
        get("/profiles/small/values"),
        post("/profiles/small/remove"),
        get("/nodes/login/render"),
        get("/nodes/login/values"),
        post("/secrets/token", value="c2VjcmV0", node="login"),
        get("/secrets"),
        post("/secrets/token/remove", node="login"),
        post("/nodes/capture", ref="login", image="compute", preview=True),
    ]
    found = answers(rack, tmp_path, *asked)
    assert [status for status, _ in found] == [200] * len(asked)
    assert found[6][1][0]["name"] == "login"
    assert found[8][1]["nodes"][0]["node"] == "node01"
    assert found[16][1]["disk"] == "pick=smallest"
    routes = {(route.method, route.path) for route in routes_of(rack)}  # type: ignore[attr-defined]
    assert len(routes) == 23, "a new route wants a line in this test"


def test_an_order_that_is_not_what_was_shown_is_not_given(rack: Rack, tmp_path: Path) -> None:
    rack.approved(1)
    rack.approved(2)
    shown = answers(rack, tmp_path, post("/nodes/install", all=True, preview=True))[0][1]
    assert len(shown["nodes"]) == 2
    rack.approved(3)
    found = answers(
        rack,
        tmp_path,
        post("/nodes/install", all=True, expect=shown["digest"]),
        post("/nodes/install", refs=["node01"], expect=shown["digest"]),
        post("/nodes/install", all=True),
        post("/nodes/install", all=True, expect="x"),
        get("/nodes"),
    )
    assert [status for status, _ in found[:4]] == [409] * 4
    assert found[0][1]["error"] == "Wrong" and "changed" in found[0][1]["message"]
    assert not any(row["ordered"] for row in found[4][1])


@pytest.mark.parametrize(
    "asked",
    [
        ("POST", "/nodes/approve", b""),
        ("POST", "/nodes/approve", b"nonsense"),
        ("POST", "/nodes/approve", b"[]"),
        ("POST", "/nodes/approve", b"[" * 5000),
        ("POST", "/nodes/approve", b"\xff\xfe"),
        post("/nodes/approve", refs="node01"),
        post("/nodes/approve", refs=[]),
        post("/nodes/approve", refs=[1]),
        post("/nodes/approve", refs=["nobody"]),
        post("/nodes/approve", all=True, profile="none"),
        post("/nodes/approve", all=True, profile=7),
        post("/nodes/approve", refs=["1"], names="../x"),
        post("/nodes/approve", refs=["1"], names="{n:0999999999}"),
        post("/nodes/approve", refs=["1"], names="{n.__class__}"),
        post("/nodes/install", refs=["1"], preview=True),
        post("/nodes/install", refs=["1"], image="../../etc", preview=True),
        post("/nodes/install", refs=["1"], disk="sda", preview=True),
        post("/nodes/install", refs=["1"], finish="explode", preview=True),
        post("/nodes/set", refs=["1"], name="x" * 1000),
        post("/nodes/set", refs=["1"], address="1.2.3.4.5"),
        post("/nodes/set", refs=["1"], group="rack1"),
        post("/nodes/set", name="x"),
        post("/nodes/remove", refs=["nobody"]),
        post("/profiles/x", image=["compute"]),
        post("/profiles/x", colour="red"),
        post("/profiles/x", layout=[{"name": "root"}]),
        post("/profiles/x", layout="all of it"),
        post("/profiles/x", disk={"serial": 5}),
        post("/profiles/x", image="nothing"),
        post("/profiles/x", name="y"),
        post("/profiles/..%2fx", image="compute"),
        post("/profiles/" + "x" * 300),
        get("/profiles/nothing"),
        get("/nodes/nobody"),
        get("/nodes/1/log?after=x"),
        get("/nodes/1/log?after=-1"),
        get("/nodes/1/log?after=" + "9" * 30),
        get("/changes?cursor=١x"),
        get("/nowhere"),
    ],
)
def test_a_bad_question_gets_a_reason_and_changes_nothing(rack: Rack, tmp_path: Path, asked: Asked) -> None:
    rack.machine(1).boot()
    before, (status, body), after, profiles = answers(
        rack, tmp_path, get("/nodes/1"), asked, get("/nodes/1"), get("/profiles")
    )
    assert 400 <= status < 500, body
    assert set(body) == {"error", "message", "hint"} and body["message"] and "\n" not in body["message"]
    assert {**before[1], "since_seconds": 0, "seen_seconds": 0} == {**after[1], "since_seconds": 0, "seen_seconds": 0}
    assert len(profiles[1]) == 1


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(
    ["refs", "all", "profile", "names", "image", "disk", "finish", "preview", "expect", "layout", "cmdline", "verify",
     "name", "address", "loader", "group", "ungroup", "extends", "edits", "script_seconds", "value", "node"]
)  # fmt: skip
PATHS = [
    "/nodes/approve",
    "/nodes/install",
    "/nodes/cancel",
    "/nodes/set",
    "/nodes/remove",
    "/profiles/p",
    "/profiles/default",
    "/profiles/default/remove",
    "/secrets/s",
    "/secrets/s/remove",
]


@settings(
    max_examples=8, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.sampled_from(PATHS), st.dictionaries(keys, values, max_size=4)), min_size=20, max_size=20))
def test_no_body_makes_it_fail(rack: Rack, tmp_path: Path, bodies: list[tuple[str, dict[str, Any]]]) -> None:
    found = answers(rack, tmp_path, *(post(path, **body) for path, body in bodies), get("/nodes"), get("/profiles"))
    assert [(body, answer) for body, answer in zip(bodies, found, strict=False) if answer[0] >= 500] == []
    assert found[-1][0] == found[-2][0] == 200


# --- the socket of the real process


@pytest.fixture(scope="module")
def head() -> Iterator[Served]:
    with rack_of_one() as served:
        served.start()
        yield served


@pytest.mark.root
def test_the_socket_is_roots_alone_and_goes_with_the_process(head: Served) -> None:
    mode = head.paths.socket.stat()
    assert stat.S_ISSOCK(mode.st_mode) and stat.S_IMODE(mode.st_mode) == 0o600 and mode.st_uid == 0
    pid = os.fork()
    if pid == 0:
        os.setgid(65534)
        os.setuid(65534)
        try:
            Client(head.paths.socket).get("status")
        except Environment as error:
            os._exit(17 if "root" in error.hint else 18)
        os._exit(19)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 17


@pytest.mark.root
def test_the_clients_errors_are_the_heads(head: Served) -> None:
    with pytest.raises(Unknown) as unknown:
        head.client.get("nodes", "no/such?node")
    assert "no/such?node" in unknown.value.message
    with pytest.raises(Wrong):
        head.client.post("nodes", "approve")
    with pytest.raises(NotServing):
        Client(head.state / "none.sock").get("status")


@pytest.mark.root
def test_garbage_on_the_socket_ends_in_400(head: Served) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(20)
        sock.connect(str(head.paths.socket))
        sock.sendall(b"\0\1\2\3 nonsense\r\n\r\n")
        answer = http.client.HTTPResponse(sock)
        answer.begin()
        assert answer.status == 400
    assert head.client.get("status")["interface"] == "head0"
    assert "Traceback" not in head.log
