"""The agent's link to the head: TLS to the one pinned certificate, every call safe to repeat."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from images.errors import GildError
from netboot.capture import (
    ASK,
    CAPTURE,
    CHUNKS,
    END,
    OFFER,
    SESSION_HEADER,
    Ask,
    CapturePlan,
    Choice,
    End,
    Found,
    Lacking,
    Named,
    Offer,
)
from netboot.plan import InstallPlan
from netboot.report import (
    FILE,
    HELLO,
    NEXT,
    PLAN,
    REPORT,
    Ack,
    Answer,
    Facts,
    FileAsk,
    Hello,
    Next,
    PlanAsk,
    Report,
    Seat,
)
from netboot.wire import MAX_MESSAGE, WireInvalid, decode, encode

T = TypeVar("T")

TIMEOUT = 20.0  # seconds for one request, connect included
FIRST_WAIT = 0.5  # seconds until the second try; doubled each time up to
LAST_WAIT = 10.0
SAY_EVERY = 60.0  # seconds between two lines about a head that is away
MAX_REASON = 500  # characters of what the head says


class HeadAway(GildError):
    """The head does not answer, or not as this head; trying again may help."""


class HeadRefused(GildError):
    """The head answered no. `status` is its HTTP status: 401 and 404 mean that it does not know the session (it was
    restarted), 403 that an order is used up or over."""

    def __init__(self, message: str, hint: str = "", status: int = 0) -> None:
        super().__init__(message, hint)
        self.status = status


class Link:
    """One agent's calls to one head. Each thread that calls has a connection of its own."""

    def __init__(
        self,
        host: str,
        port: int,
        pem: str,
        *,
        log: Callable[[str], None] = lambda line: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`pem` is the head's certificate, the only trust anchor. Raises HeadAway if it is not one."""
        self.host, self.port, self.log, self.sleep = host, port, log, sleep
        try:
            self.pin = ssl.PEM_cert_to_DER_cert(pem.strip() + "\n")
            self.context = _context(pem)
        except (ValueError, ssl.SSLError) as error:
            raise HeadAway(f"the head's certificate cannot be read: {error}") from None
        self.session = ""
        self.seats: Callable[[], tuple[Seat, ...]] = lambda: ()  # what is known of switches; told once it is new
        self._told: tuple[Seat, ...] = ()
        self._who: Hello | None = None
        self._wire = threading.local()

    def hello(self, mac: str, facts: Facts, token: str = "", agent: str = "") -> Answer:
        """First words; repeats until the head answers. Keeps the session, and who we are for later sessions.
        Raises HeadRefused."""
        self._who = Hello(mac=mac, facts=facts, token=token, agent=agent)
        answer = self._until(lambda: self._post(HELLO, self._who, Answer))
        self.session = answer.session
        return answer

    def again(self) -> Answer:
        """Hello once more, without the token: the head has forgotten the session. Raises HeadAway, HeadRefused."""
        if self._who is None:
            raise HeadRefused("hello was never said")
        answer = self._post(HELLO, replace(self._who, token=""), Answer)
        self.session, self._told = answer.session, ()
        return answer

    def _news(self) -> tuple[Seat, ...]:
        seats = self.seats()
        return seats if seats != self._told else ()

    def next(self, wait: int = 20) -> Answer:
        """What to do now; the head holds the answer back for at most `wait` seconds. Repeats while the head is away,
        says hello again if it has forgotten us. Raises HeadRefused for any other no."""

        def ask() -> Answer:
            news = self._news()
            try:
                answer = self._post(NEXT, Next(self.session, wait, news), Answer, timeout=wait + TIMEOUT)
                self._told = news or self._told
                return answer
            except HeadRefused as refused:
                if refused.status not in (401, 404):
                    raise
                return self.again()

        answer = self._until(ask)
        if answer.session:
            self.session = answer.session
        return answer

    def plan(self, token: str) -> InstallPlan:
        """The order's plan; uses the order up. A head that is away is asked again with the same token and session,
        which the head must take as the same question. Raises HeadRefused."""
        return self._until(lambda: self._post(PLAN, PlanAsk(self.session, token), InstallPlan))

    def file(self, path: str, stamp: str, offset: int) -> bytes:
        """A piece of an overlay file the plan names. Raises HeadRefused."""
        return self._until(lambda: self._post(FILE, FileAsk(self.session, path, stamp, offset), bytes))

    # A capture. A head that was restarted has lost it, so none of these says hello again.

    def capture(self, token: str) -> CapturePlan:
        """What is to be read; uses the order up, and may be asked again as `plan` may. Raises HeadRefused."""
        return self._until(lambda: self._post(CAPTURE, PlanAsk(self.session, token), CapturePlan))

    def offer(self, disk: str, table: str, parts: Sequence[Found]) -> Choice:
        """Which partitions of the disk the head wants. Raises HeadRefused."""
        return self._until(lambda: self._post(OFFER, Offer(self.session, disk, table, tuple(parts)), Choice))

    def lacking(self, part: int, chunks: Sequence[Named]) -> tuple[int, ...]:
        """Indexes of the chunks the head does not have. Raises HeadRefused."""
        return self._until(lambda: self._post(ASK, Ask(self.session, part, tuple(chunks)), Lacking)).indexes

    def chunks(self, body: bytes) -> None:
        """Deliver chunks (netboot.capture.encode_frames). Raises HeadRefused."""
        self._until(lambda: self._post(CHUNKS, body, Ack))

    def captured(self) -> None:
        """Everything was sent. Raises HeadRefused."""
        self._until(lambda: self._post(END, End(self.session), Ack))

    def report(self, report: Report) -> Ack:
        """Deliver one report now, with the session of the moment. Raises HeadAway, HeadRefused."""
        news = self._news()
        try:
            ack = self._post(REPORT, replace(report, session=self.session, seats=news), Ack)
            self._told = news or self._told
            return ack
        except HeadRefused as refused:
            if refused.status not in (401, 404):
                raise
            self.again()
            return self._post(REPORT, replace(report, session=self.session), Ack)

    def _until(self, ask: Callable[[], T]) -> T:
        """Ask until the head answers, for ever: a machine without its head has nothing better to do."""
        wait, said = FIRST_WAIT, -SAY_EVERY
        while True:
            try:
                return ask()
            except HeadAway as away:
                if time.monotonic() - said >= SAY_EVERY:
                    said = time.monotonic()
                    self.log(f"{away}; trying again")
            except HeadRefused as refused:
                if refused.status < 500:
                    raise
                self.log(f"{refused}; trying again")
            self.sleep(wait)
            wait = min(wait * 2, LAST_WAIT)

    def _post(self, path: str, message: object, kind: type[T], timeout: float = TIMEOUT) -> T:
        """One call. A kept connection that turns out to be dead is opened anew once, as any call may be repeated."""
        raw = isinstance(message, bytes)
        body = message if isinstance(message, bytes) else encode(message)
        headers = {"Content-Type": "application/octet-stream" if raw else "application/json"}
        if raw:
            headers[SESSION_HEADER] = self.session
        for fresh in (False, True):
            kept: http.client.HTTPSConnection | None = None if fresh else getattr(self._wire, "kept", None)
            connection = kept or self._connect(timeout)
            try:
                if connection.sock is not None:
                    connection.sock.settimeout(timeout)
                connection.request("POST", path, body, headers)
                response = connection.getresponse()
                data = response.read(MAX_MESSAGE + 1)
            except (OSError, http.client.HTTPException) as error:
                self._drop(connection)
                if kept is not None:
                    continue
                raise HeadAway(f"the head {self.host} broke off at {path}: {_why(error)}") from None
            if len(data) > MAX_MESSAGE:
                self._drop(connection)
                raise HeadAway(f"the head's answer to {path} is larger than {MAX_MESSAGE} bytes")
            self._wire.kept = connection
            return _read(path, response.status, data, kind)
        raise HeadAway(f"the head {self.host} broke off at {path}")

    def _connect(self, timeout: float) -> http.client.HTTPSConnection:
        connection = http.client.HTTPSConnection(self.host, self.port, timeout=timeout, context=self.context)
        connection.auto_open = 0  # never behind our back: every new connection has its certificate compared
        try:
            connection.connect()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise HeadAway(f"the head {self.host}:{self.port} does not answer: {_why(error)}") from None
        # Exactly this certificate: a chain that leads to it would not do.
        shown = connection.sock.getpeercert(binary_form=True)
        if shown != self.pin:
            connection.close()
            raise HeadAway(f"{self.host}:{self.port} shows another certificate than this machine's head")
        return connection

    def _drop(self, connection: http.client.HTTPSConnection) -> None:
        connection.close()
        self._wire.kept = None


def _context(pem: str) -> ssl.SSLContext:
    """Trusts `pem` alone. No name is checked: the certificate is pinned, and a head may change its address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    # A certificate that is no CA is a trust anchor of its own only with this flag (openssl-verification-options(1)).
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=pem)
    return context


def _read(path: str, status: int, data: bytes, kind: type[T]) -> T:
    if status == 200 and isinstance(data, kind):
        return data  # bytes are what was asked for
    if status == 200:
        try:
            return decode(kind, data)
        except WireInvalid as error:
            raise HeadRefused(
                f"the head's answer to {path} cannot be read: {error}", "head and agent are of different versions"
            ) from None
    message, hint = f"status {status}", ""
    try:
        told = json.loads(data)
        message, hint = str(told["message"])[:MAX_REASON], str(told.get("hint", ""))[:MAX_REASON]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    raise HeadRefused(message, hint, status)


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "it shows another certificate than this machine's head"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
