"""BMCs by Redfish (DMTF DSP0266): HTTP with JSON, of which each vendor has an idea of its own.

One connection a request, ended by a watchdog when the time is over: a BMC that sends a byte every few seconds would
keep a reader of HTTP for ever. The password leaves only after the certificate was found to be the one known.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import os
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any

from appliance.power.limit import Limit
from appliance.timeline import clean
from netboot.bmc import Act, Bmc, BmcFailed, Power, learned, reset_type, same_uuid
from netboot.identity import real_mac

ROOT = "/redfish/v1/"
ONE_CALL = 20.0  # seconds of one request, TLS handshake included: small processors take 2 to 3 s for that
MAX_ANSWER = 1 << 20  # bytes
MAX_SYSTEMS = 64  # of one chassis
MAX_CARDS = 32
_PATH = re.compile(r"/redfish/[A-Za-z0-9._~:@!$&'()*+,;=%/#-]{1,500}")

Body = dict[str, Any]


class Redfish:
    """A BMC by Redfish, or a chassis's that has many. `bmc` is what is known of it, with what was learned."""

    def __init__(self, bmc: Bmc, limit: Limit, uuid: str, macs: tuple[str, ...]) -> None:
        """`uuid` and `macs` tell the node's system from the others of one chassis."""
        self.bmc, self._limit, self._uuid, self._macs = bmc, limit, uuid, macs

    def status(self) -> Power:
        """Whether the machine is on. Raises BmcFailed."""
        state = str(self._system()[0].get("PowerState", ""))
        # PoweringOn and PoweringOff are neither: it is looked at again.
        return {"On": Power.ON, "Off": Power.OFF}.get(state, Power.UNKNOWN)

    def tell(self, act: Act) -> None:
        """Give a command, without waiting for what comes of it. Raises BmcFailed."""
        system, _ = self._system()
        action = _object(_object(system.get("Actions")).get("#ComputerSystem.Reset"))
        offered = action.get("ResetType@Redfish.AllowableValues")
        words = [word for word in offered if isinstance(word, str)] if isinstance(offered, list) else []
        word = reset_type(act, words)
        if not word:
            raise BmcFailed(f"the BMC {self.bmc.place} cannot {act.value}: it has {clean(', '.join(words))[:100]}")
        self._ask("POST", _path(action.get("target")) or f"{self.bmc.system}/Actions/ComputerSystem.Reset",
                  {"ResetType": word})  # fmt: skip

    def boot_from_network(self, uefi: bool) -> None:
        """Have the next boot come from the network, once. The mode (UEFI or BIOS) stays what it is: some BMCs refuse to
        be told the one they have. Raises BmcFailed."""
        _, tag = self._system()
        change = {"Boot": {"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Pxe"}}
        # DSP0266 section 7.5: some want to be told which state is changed, and some that take tags give wrong ones.
        try:
            self._ask("PATCH", self.bmc.system, change, tag)
        except _Status as error:
            if error.status != 412 or not tag:
                raise
            self._ask("PATCH", self.bmc.system, change)

    def about(self) -> str:
        """What it says it is; with a remark if it seems to be another machine's. Raises BmcFailed."""
        system, _ = self._system()
        words = " ".join(str(system.get(key) or "") for key in ("Manufacturer", "Model")).strip() or "a system"
        uuid = str(system.get("UUID") or "")
        if uuid and self._uuid and not same_uuid(uuid, self._uuid):
            words += f", with the UUID {uuid} where the node's is {self._uuid}: another machine?"
        return clean(words)[:200]

    # --- the system

    def _system(self) -> tuple[Body, str]:
        """The system that is the node, and its entity tag."""
        if not self.bmc.system:
            self.bmc = learned(self.bmc, system=self._find())
        try:
            return self._get(self.bmc.system)
        except _Status as error:
            if error.status != 404:
                raise
        # Updates of firmware have renamed them.
        self.bmc = learned(self.bmc, system=self._find())
        return self._get(self.bmc.system)

    def _find(self) -> str:
        root, _ = self._get(ROOT)
        systems, _ = self._get(_path(_object(root.get("Systems")).get("@odata.id")) or f"{ROOT}Systems")
        paths = _members(systems)[:MAX_SYSTEMS]
        if len(paths) == 1:
            return paths[0]
        for path in paths:
            system, _ = self._get(path)
            if same_uuid(str(system.get("UUID") or ""), self._uuid) or self._has_card(system):
                return path
        raise BmcFailed(
            f"the BMC {self.bmc.place} has {len(paths)} systems, and none of them has this node's UUID or cards",
            "boot the machine once, so that its UUID is known",
        )

    def _has_card(self, system: Body) -> bool:
        place = _path(_object(system.get("EthernetInterfaces")).get("@odata.id"))
        if not place or not self._macs:
            return False
        for path in _members(self._get(place)[0])[:MAX_CARDS]:
            card, _ = self._get(path)
            shown = {real_mac(str(card.get(key) or "")) for key in ("MACAddress", "PermanentMACAddress")}
            if shown & set(self._macs):
                return True
        return False

    # --- HTTP

    def _get(self, path: str) -> tuple[Body, str]:
        return self._ask("GET", path)

    def _ask(self, method: str, path: str, body: Body | None = None, tag: str = "") -> tuple[Body, str]:
        """The object and the entity tag that come back. Raises BmcFailed."""
        act = f"asking the BMC {self.bmc.place}"
        password = base64.b64encode(f"{self.bmc.user}:{self.bmc.password}".encode()).decode()
        headers = {"Authorization": f"Basic {password}", "Accept": "application/json", "Connection": "close"}
        headers |= {"If-Match": tag} if tag else {}
        data = None if body is None else json.dumps(body).encode()
        headers |= {"Content-Type": "application/json"} if data else {}
        span = Limit(self._limit.left(ONE_CALL, act))
        try:
            with self._connected(span.seconds) as connection:
                connection.request(method, path, data, headers)
                answer = connection.getresponse()
                said = answer.read(MAX_ANSWER + 1)
        except (OSError, http.client.HTTPException, ValueError) as error:
            span.left(0, act)  # the watchdog has shut the connection: say that, and not what it looked like
            raise BmcFailed(f"{act}: {_reason(error)}") from None
        if len(said) > MAX_ANSWER:
            raise BmcFailed(f"{act}: more than {MAX_ANSWER} bytes came")
        if answer.length:
            raise BmcFailed(f"{act}: its answer was cut short")
        found = _read(said)
        if answer.status in (401, 403):
            raise _Status(answer.status, f"the BMC {self.bmc.place} refuses its user {self.bmc.user} or the password")
        if answer.status not in (200, 201, 202, 204) or (method == "GET" and found is None):
            raise _Status(answer.status, f"the BMC {self.bmc.place} says {answer.status}: {_told(found or {})}")
        return found or {}, _tag(answer.getheader("ETag") or "")

    @contextlib.contextmanager
    def _connected(self, seconds: float) -> Iterator[http.client.HTTPConnection]:
        bmc = self.bmc
        connection = http.client.HTTPConnection(bmc.address, bmc.port, timeout=seconds)
        plain = socket.create_connection((bmc.address, bmc.port), seconds)
        # Of its own, so that it can be shut while another thread reads from the connection in the middle of TLS.
        guard = socket.socket(fileno=os.dup(plain.fileno()))
        watch = threading.Timer(seconds, _shut, [guard])
        watch.daemon = True
        watch.start()
        try:
            connection.sock = self._secured(plain) if bmc.tls else plain
            yield connection
        finally:
            watch.cancel()
            connection.close()
            plain.close()
            guard.close()

    def _secured(self, plain: socket.socket) -> ssl.SSLSocket:
        """TLS to the certificate that is known, or to the first one ever seen. BMCs come with certificates they made
        themselves: no authority has signed them."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        secured = context.wrap_socket(plain, server_hostname=self.bmc.address)
        pin = hashlib.sha256(secured.getpeercert(binary_form=True) or b"").hexdigest()
        if self.bmc.pin not in ("", pin):
            secured.close()
            raise BmcFailed(
                f"the BMC {self.bmc.place} shows another certificate than the known one: nothing was sent to it",
                f"if it is the right one: gild.pyz node bmc trust NODE --fingerprint {pin}",
            )
        self.bmc = learned(self.bmc, pin=pin)
        return secured


class _Status(BmcFailed):
    """An HTTP status that is no success."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _shut(guard: socket.socket) -> None:
    with contextlib.suppress(OSError):
        guard.shutdown(socket.SHUT_RDWR)


def _object(value: Any) -> Body:
    return value if isinstance(value, dict) else {}


def _path(value: Any) -> str:
    """A path that a BMC names, if it is one of its own; else ""."""
    return value if isinstance(value, str) and _PATH.fullmatch(value) else ""


def _members(collection: Body) -> list[str]:
    listed = collection.get("Members")
    entries = listed if isinstance(listed, list) else []
    return [path for entry in entries if (path := _path(_object(entry).get("@odata.id")))]


def _read(said: bytes) -> Body | None:
    try:
        value = json.loads(said or b"{}")
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _told(answer: Body) -> str:
    """The message of an error (DSP0266 section 8.6)."""
    error = _object(answer.get("error"))
    more = error.get("@Message.ExtendedInfo")
    first = _object(more[0]) if isinstance(more, list) and more else {}
    return clean(str(first.get("Message") or error.get("message") or "nothing more"))[:200]


def _tag(text: str) -> str:
    return text if len(text) < 200 and text.isascii() and text.isprintable() else ""


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "nothing answers"
    if isinstance(error, ssl.SSLError):
        return f"no TLS: {clean(error.reason or str(error))[:100]}"
    if isinstance(error, socket.gaierror):
        return "its name is not known"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return clean(f"no sense in what it says ({type(error).__name__})")[:100]
