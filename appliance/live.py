"""Offers: a golden client streams itself through the head to the command that waits for it.

The head only hands bytes on. The command makes the version in its own process: unpacking takes a processor, and the
head's event loop has machines to answer; and who ends the command ends the capture.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from appliance.clock import Clock
from appliance.errors import Unknown, Wrong
from appliance.pasted import Pin, line, pin, python_line, script
from images.errors import Busy, GildError
from images.sources.client import choose, new_mark, read_facts, reading
from images.sources.leftout import Wishes, check_wishes

OFFER_SECONDS = 3600.0
MAX_OFFERS = 16
MAX_SPENT = 256  # tokens remembered only to say what became of them
SILENT = 60.0  # seconds after its last question when the waiting command counts as gone; it asks every 25
TAKE_TIME = 30.0  # seconds the command may take to open the stream
AHEAD = 8  # pieces of a stream in memory; a piece is what one read of the socket gives, 64 to 256 KiB
SAY_TIME = 1800.0  # seconds a publishing command may be silent: nothing it does takes that long
MAX_LINES = 1000  # that a client is told
ROOT = "/capture/"


class Spent(GildError):
    """The token was good once."""

    status = 410


class Broken(GildError):
    """One end of a stream has left, or refuses the rest; the message says which and why."""


class Relay:
    """One client's stream on its way to the command, and the command's lines on their way back."""

    def __init__(self) -> None:
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(AHEAD)
        self._lines: asyncio.Queue[str] = asyncio.Queue(MAX_LINES)
        self._taken = asyncio.Event()
        self._broken = asyncio.Event()
        self._why = ""

    async def put(self, piece: bytes) -> None:
        """Hand a piece on, waiting for room. Raises Broken."""
        if self._pieces.full() or self._broken.is_set():
            await self._until(self._pieces.put(piece))
        else:
            self._pieces.put_nowait(piece)

    async def end(self) -> None:
        """There are no more pieces. Raises Broken."""
        await self._until(self._pieces.put(None))

    async def taken(self) -> None:
        """Wait until the command has opened the stream. Raises Broken if it does not."""
        try:
            async with asyncio.timeout(TAKE_TIME):
                await self._until(self._taken.wait())
        except TimeoutError:
            raise Broken("the command that waits on the head does not take the stream") from None

    async def pieces(self) -> AsyncIterator[bytes]:
        """What comes, to the end. Raises Broken; Busy if somebody reads already."""
        if self._taken.is_set():
            raise Busy("this stream is being read already")
        self._taken.set()
        while True:
            piece = await self._until(self._pieces.get()) if self._pieces.empty() else self._pieces.get_nowait()
            if piece is None:
                return
            yield piece

    def break_off(self, why: str) -> None:
        """Nothing more goes in; what is in may still be read."""
        if not self._broken.is_set():
            self._why = why
            self._broken.set()

    def say(self, text: str) -> None:
        """A line for the client, of the form "+ text", or as the last one "= text" or "! text"."""
        if not self._lines.full():
            self._lines.put_nowait(text)

    async def lines(self) -> AsyncIterator[str]:
        """What the command says, up to its last line."""
        while True:
            try:
                async with asyncio.timeout(SAY_TIME):
                    text = await self._until(self._lines.get()) if self._lines.empty() else self._lines.get_nowait()
            except TimeoutError:
                text = "! the command on the head has been silent for too long; look there how it ended"
            except Broken as error:
                text = f"! {error.message}"
            yield text
            if text[:2] != "+ ":
                return

    async def _until(self, wanted: Any) -> Any:
        """The result of `wanted`, unless the relay breaks first."""
        if self._broken.is_set():
            wanted.close()
            raise Broken(self._why)
        work, broken = asyncio.ensure_future(wanted), asyncio.ensure_future(self._broken.wait())
        try:
            await asyncio.wait((work, broken), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise Broken(self._why)
            return work.result()
        finally:
            work.cancel()
            broken.cancel()


@dataclass
class Offer:
    """One line that was given out."""

    token: str
    name: str
    wishes: Wishes
    expires: float  # steady seconds
    seen: float  # when the command last asked, in steady seconds
    asking: int = 0  # questions of the command that are held back now
    state: str = "open"  # "open" | "asked" (a client has told what it is) | "sending"
    facts: bytes = b""
    mark: str = ""
    peer: str = ""
    trouble: str = ""  # why the last try came to nothing
    relay: Relay | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Live:
    """All offers of one head, in memory: a token that survives a restart of the head would be one more secret."""

    def __init__(self, host: str, port: int, certificate: bytes, clock: Clock) -> None:
        """`host` and `port` are where clients reach the node API; `certificate` is its PEM."""
        self.host, self.port, self.clock = host, port, clock
        self.pin: Pin = pin(certificate)
        self._offers: dict[str, Offer] = {}
        self._spent: OrderedDict[str, str] = OrderedDict()

    # --- the command

    def offer(self, name: str, wishes: Wishes) -> dict[str, Any]:
        """Make an offer: its token, the lines to paste, the seconds they are good for. Raises Busy, SourceInvalid."""
        check_wishes(wishes)
        self._prune()
        if len(self._offers) >= MAX_OFFERS:
            raise Busy(f"{MAX_OFFERS} captures wait for a client already", "end one of the commands that wait")
        token, now = secrets.token_hex(16), self.clock.steady()
        self._offers[token] = Offer(token, name, wishes, now + OFFER_SECONDS, now)
        where = (self.host, self.port, ROOT + token, self.pin)
        return {"token": token, "line": line(*where), "python": python_line(*where), "seconds": OFFER_SECONDS}

    async def state(self, token: str, known: str, wait: float) -> dict[str, Any]:
        """How an offer stands, waiting up to `wait` seconds for another state than `known`. Raises Unknown, Spent."""
        offer = self._command(token)
        offer.asking += 1
        try:
            if offer.state == known and wait:
                offer.changed.clear()
                try:
                    async with asyncio.timeout(wait):
                        await offer.changed.wait()
                except TimeoutError:
                    pass
        finally:
            offer.asking -= 1
            offer.seen = self.clock.steady()
        return {
            "state": offer.state,
            "peer": offer.peer,
            "trouble": offer.trouble,
            "mark": offer.mark,
            "facts": offer.facts.decode("latin-1") if offer.state == "sending" else "",
            "left": max(0.0, offer.expires - self.clock.steady()),
        }

    def stream(self, token: str) -> Relay:
        """The stream of the client that sends now. Raises Unknown, Spent, Wrong."""
        relay = self._command(token).relay
        if relay is None:
            raise Wrong("no client is sending now")
        return relay

    def say(self, token: str, text: str) -> None:
        """A line for the client that sends. Raises Unknown, Spent."""
        relay = self._command(token).relay
        if relay is not None:
            relay.say(f"+ {_line(text)}")

    def end(self, token: str, text: str, *, good: bool) -> None:
        """The offer is over: there is a version, or there will be none. Raises Unknown, Spent."""
        offer = self._command(token)
        self._spend(offer, "was used" if good else "was taken back")
        if offer.relay is None:
            return
        offer.relay.say(f"{'=' if good else '!'} {_line(text)}")
        if not good:
            offer.relay.break_off(_line(text))

    # --- the client

    def script(self, token: str, *, python: bool) -> str:
        """What the pasted line runs. Raises Unknown, Spent."""
        self._client(token)
        return script(self.host, self.port, ROOT + token, self.pin, python=python)

    def facts(self, token: str, facts: bytes, peer: str) -> str:
        """A client says what it is; it learns what to read. Raises Unknown, Spent, Busy, SourceInvalid."""
        offer = self._client(token)
        client = read_facts(facts)
        try:
            selection = choose(client, offer.wishes)
        except GildError as error:
            self._change(offer, "open", trouble=str(error))
            raise
        offer.facts, offer.mark, offer.peer = facts, new_mark(), peer
        self._change(offer, "asked")
        return "# read\n" + reading(selection, client.root, offer.mark)

    def sending(self, token: str) -> Relay:
        """A client begins to send what it was asked for. Raises Unknown, Spent, Busy, Wrong."""
        offer = self._client(token)
        if not offer.facts:
            raise Wrong("nobody has asked for this yet", "paste the whole line again")
        offer.relay = Relay()
        self._change(offer, "sending")
        return offer.relay

    def sent(self, token: str, relay: Relay, trouble: str = "") -> None:
        """That client has left, or has been told how it ended; with `trouble` nothing came of it, and the same line is
        good for another try."""
        offer = self._offers.get(token)
        relay.break_off(trouble or "the client has left")
        if offer is not None and offer.relay is relay:
            offer.relay, offer.facts = None, b""
            self._change(offer, "open", trouble=trouble)

    # --- between them

    def _command(self, token: str) -> Offer:
        offer = self._find(token)
        offer.seen = self.clock.steady()
        return offer

    def _client(self, token: str) -> Offer:
        offer = self._find(token)
        if not offer.asking and self.clock.steady() - offer.seen > SILENT:
            self._spend(offer, "was left alone: the command that waited for it has ended")
            return self._client(token)
        if offer.relay is not None:
            raise Busy("this line is in use", "paste it on one machine only")
        return offer

    def _find(self, token: str) -> Offer:
        self._prune()
        if token in self._spent:
            raise Spent(f"this line {self._spent[token]}", "ask for a new one: gild.pyz image capture")
        if token not in self._offers:
            raise Unknown("the head knows nothing of this line", "ask for one: gild.pyz image capture")
        return self._offers[token]

    def _change(self, offer: Offer, state: str, trouble: str = "") -> None:
        offer.state, offer.trouble = state, trouble
        offer.changed.set()

    def _prune(self) -> None:
        now = self.clock.steady()
        for offer in list(self._offers.values()):
            if now > offer.expires and offer.relay is None:
                self._spend(offer, "is too old")

    def _spend(self, offer: Offer, what: str) -> None:
        self._offers.pop(offer.token, None)
        self._spent[offer.token] = what
        offer.changed.set()
        while len(self._spent) > MAX_SPENT:
            self._spent.popitem(last=False)


def _line(text: str) -> str:
    """One printable line."""
    return "".join(c if c.isprintable() else " " for c in text)[:1000]
