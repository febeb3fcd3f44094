"""Offers and relays, without a network: who may use a line, how often, how long; and that what breaks is told."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from appliance import live as module
from appliance.errors import Unknown, Wrong
from appliance.keys import head_identity
from appliance.live import AHEAD, MAX_OFFERS, OFFER_SECONDS, SILENT, Broken, Live, Relay, Spent
from images.errors import Busy, SourceInvalid
from images.sources.leftout import Wishes
from tests.appliance.rack import FakeClock
from tests.images.test_client import SAID


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return head_identity(tmp_path_factory.mktemp("keys"), "10.1.0.1", "cluster.internal").certificate


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def live(certificate: bytes, clock: FakeClock) -> Live:
    return Live("10.1.0.1", 443, certificate, clock)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 20))


def offered(live: Live, **wishes: Any) -> str:
    return str(live.offer("gold", Wishes(**wishes))["token"])


# --- offers


def test_an_offer_is_a_line_with_the_heads_key_and_a_token(live: Live) -> None:
    offer = live.offer("gold", Wishes())
    assert len(offer["token"]) == 32 and offer["seconds"] == OFFER_SECONDS
    for line in (offer["line"], offer["python"]):
        assert "\n" not in line and f"/capture/{offer['token']}" in line and "10.1.0.1" in line
    assert live.pin.key in offer["line"] and live.pin.certificate in offer["python"]
    assert offered(live) != offer["token"]


def test_from_the_line_to_the_version(live: Live) -> None:
    async def story() -> None:
        token = offered(live, exclude=("/srv/big",))
        assert (await live.state(token, "", 0))["state"] == "open"
        assert token in live.script(token, python=False)
        asking = asyncio.create_task(live.state(token, "open", 10))
        await asyncio.sleep(0)
        script = live.facts(token, SAID, "10.1.0.7")
        assert script.startswith("# read\n") and "--exclude=./srv/big" in script
        assert (await asking)["peer"] == "10.1.0.7"
        with pytest.raises(Wrong, match="no client is sending"):
            live.stream(token)
        relay = live.sending(token)
        state = await live.state(token, "asked", 0)
        assert state["state"] == "sending" and state["facts"].encode("latin-1") == SAID and state["mark"] in script
        pieces = live.stream(token).pieces()
        await relay.put(b"one")
        assert await anext(pieces) == b"one"
        await relay.end()
        assert [piece async for piece in pieces] == []
        live.say(token, "half\nway")
        live.end(token, "gold:1 is published", good=True)
        assert [line async for line in relay.lines()] == ["+ half way", "= gold:1 is published"]
        live.sent(token, relay)
        with pytest.raises(Spent, match="was used"):
            live.script(token, python=False)

    run(story())


def test_one_client_at_a_time_and_another_try_after_a_break(live: Live) -> None:
    async def story() -> None:
        token = offered(live)
        with pytest.raises(Wrong, match="nobody has asked"):
            live.sending(token)
        live.facts(token, SAID, "a")
        relay = live.sending(token)
        for act in (lambda: live.script(token, python=True), lambda: live.facts(token, SAID, "b"),
                    lambda: live.sending(token)):  # fmt: skip
            with pytest.raises(Busy, match="in use"):
                act()
        live.sent(token, relay, "the connection broke")
        state = await live.state(token, "sending", 5)
        assert (state["state"], state["trouble"]) == ("open", "the connection broke")
        with pytest.raises(Wrong):
            live.sending(token)  # it must ask again: the mark is new
        live.facts(token, SAID, "a")
        assert live.sending(token) is not relay

    run(story())


def test_a_client_that_cannot_be_read_is_told_and_so_is_the_command(live: Live) -> None:
    token = offered(live)
    with pytest.raises(SourceInvalid, match="bsdtar"):
        live.facts(token, SAID.replace(b"tar (GNU tar)", b"bsdtar"), "a")
    state = run(live.state(token, "open", 0))
    assert state["state"] == "open" and "bsdtar" in state["trouble"]


def test_lines_grow_old_also_while_nobody_looks(live: Live, clock: FakeClock) -> None:
    token = offered(live)
    clock.pass_(OFFER_SECONDS + 1)
    with pytest.raises(Spent, match="too old") as caught:
        live.script(token, python=False)
    assert caught.value.status == 410
    with pytest.raises(Spent, match="too old"):
        run(live.state(token, "open", 0))


def test_a_stream_that_has_begun_may_outlast_its_line(live: Live, clock: FakeClock) -> None:
    token = offered(live)
    live.facts(token, SAID, "a")
    relay = live.sending(token)
    clock.pass_(OFFER_SECONDS + 1)
    assert live.stream(token) is relay
    live.sent(token, relay, "broke")
    with pytest.raises(Spent, match="too old"):
        live.stream(token)


def test_a_line_whose_command_has_ended_is_not_good(live: Live, clock: FakeClock) -> None:
    token = offered(live)
    clock.pass_(SILENT - 1)
    run(live.state(token, "", 0))
    clock.pass_(SILENT - 1)
    assert live.script(token, python=False)
    clock.pass_(2)
    with pytest.raises(Spent, match="has ended"):
        live.script(token, python=False)


def test_a_command_that_gives_up_is_told_to_the_client(live: Live) -> None:
    async def story() -> None:
        token = offered(live)
        live.facts(token, SAID, "a")
        relay = live.sending(token)
        live.end(token, "the disk is full", good=False)
        with pytest.raises(Broken, match="the disk is full"):
            await relay.put(b"more")
        assert [line async for line in relay.lines()] == ["! the disk is full"]
        with pytest.raises(Spent, match="taken back"):
            live.script(token, python=False)

    run(story())


def test_guesses_and_crowds(live: Live) -> None:
    with pytest.raises(Unknown):
        live.script("0" * 32, python=False)
    tokens = [offered(live) for _ in range(MAX_OFFERS)]
    with pytest.raises(Busy, match="wait for a client"):
        offered(live)
    for token in tokens:
        live.end(token, "", good=False)
    for _ in range(module.MAX_SPENT + 1):
        live.end(offered(live), "", good=False)
    with pytest.raises(Unknown):  # forgotten by now
        live.script(tokens[0], python=False)


def test_wishes_are_looked_at_before_anybody_walks_to_the_client(live: Live) -> None:
    with pytest.raises(SourceInvalid, match="--exclude"):
        live.offer("gold", Wishes(exclude=("relative",)))


# --- relays


def test_a_relay_holds_only_so_much() -> None:
    async def story() -> None:
        relay = Relay()
        for number in range(AHEAD):
            await relay.put(bytes([number]))
        waiting = asyncio.create_task(relay.put(b"x"))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        pieces = relay.pieces()
        assert await anext(pieces) == b"\0"
        await waiting

    run(story())


def test_what_was_sent_before_the_end_is_still_read() -> None:
    async def story() -> None:
        relay = Relay()
        await relay.put(b"x")
        await relay.end()
        relay.break_off("the client has left")
        assert [piece async for piece in relay.pieces()] == [b"x"]

    run(story())


def test_a_break_wakes_everybody() -> None:
    async def story() -> None:
        relay = Relay()
        pieces = relay.pieces()
        reading = asyncio.ensure_future(anext(pieces))
        hearing = asyncio.ensure_future(anext(relay.lines()))
        await asyncio.sleep(0)
        relay.break_off("the line was cut")
        relay.break_off("later")
        with pytest.raises(Broken, match="the line was cut"):
            await reading
        assert await hearing == "! the line was cut"

    run(story())


def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TAKE_TIME", 0.01)
    monkeypatch.setattr(module, "SAY_TIME", 0.01)

    async def story() -> None:
        relay = Relay()
        with pytest.raises(Broken, match="does not take"):
            await relay.taken()
        assert [line async for line in relay.lines()][-1].startswith("! the command on the head has been silent")

    run(story())


def test_a_stream_has_one_reader() -> None:
    async def story() -> None:
        relay = Relay()
        await relay.put(b"x")
        assert await anext(relay.pieces()) == b"x"
        with pytest.raises(Busy):
            await anext(relay.pieces())

    run(story())
