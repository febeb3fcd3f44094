"""Behind the loader: which script a booting machine gets, and which files it has loaded."""

from __future__ import annotations

import secrets

from appliance.roster import Roster
from netboot import grub, ipxe
from netboot.firmware import LADDER, SECURE
from netboot.identity import real_mac
from netboot.node import Event, Node
from netboot.order import give
from netboot.policy import Act, Asks, Decision, decide

LOADERS = frozenset(name for ladder in (*LADDER.values(), *SECURE.values()) for name in ladder)


def new_token() -> str:
    """128 random bits, hex."""
    return secrets.token_hex(16)


class Boots:
    """The use cases behind a loader: its script, its files."""

    def __init__(self, roster: Roster) -> None:
        self.roster, self.config = roster, roster.config

    def script(self, mac: str, address: str, platform: str | None) -> str:
        """The iPXE script of the machine that asks from `address`. `mac` and `platform` are what its URL says."""
        self.roster.settle(address)
        node, decision, token = self._decide(real_mac(mac), address)
        who = f"{node.label}: {decision.why}" if node else decision.why
        if decision.act in (Act.LOCAL, Act.IGNORE):
            self._sent(node, Event.LOCAL_SENT, decision)
            return ipxe.local_script(self._head(address), self.config.http_port, platform, who)
        self._sent(node, Event.SCRIPT_SENT, decision)
        more = self.config.installer_cmdline
        return ipxe.agent_script(self._head(address), self.config.http_port, real_mac(mac), token, who, more)

    def grub_cfg(self, address: str) -> str:
        """grub.cfg of the machine that asks from `address`."""
        self.roster.settle(address)
        mac = self.roster.pool.holder(address)
        node, decision, token = self._decide(mac, address)
        who = f"{node.label}: {decision.why}" if node else decision.why
        if decision.act in (Act.LOCAL, Act.IGNORE):
            self._sent(node, Event.LOCAL_SENT, decision)
            return grub.local_config("aa64" if node and node.facts and node.facts.arch == "aarch64" else "x64", who)
        self._sent(node, Event.SCRIPT_SENT, decision)
        return grub.agent_config(self._head(address), mac, token, who, self.config.installer_cmdline)

    def _head(self, address: str) -> str:
        """The head's address as the machine at `address` reaches it."""
        return self.roster.addresses.place(address).head

    def _decide(self, mac: str, address: str) -> tuple[Node | None, Decision, str]:
        node = self.roster.by_mac(mac) if mac else None
        order = self.roster.orders.get(node.id) if node else None
        now = self.roster.clock.steady()
        at_home = node is not None and self.roster.pool.address(mac) == address
        if node is not None and not at_home:
            self.roster.timeline.note(node.id, f"its boot script was asked for from {address}, not its address", "warn")
        decision = decide(node, Asks.SCRIPT, order, now, unknown=self.config.unknown, trusted=at_home)
        if not at_home:
            return None, decision, ""
        token = ""
        if decision.armed and order is not None:
            token = new_token()
            self.roster.set_order(give(order, token, now))
        return node, decision, token

    def _sent(self, node: Node | None, event: Event, decision: Decision) -> None:
        if node is not None:
            self.roster.touch(node.id)
            self.roster.apply(node, event, what=decision.why)

    def file_sent(self, address: str, name: str, count: int, seconds: float, proto: str, error: str) -> None:
        """A boot file went to `address`, or did not. `count` in bytes, `proto` "tftp" or "http"."""
        node = self.roster.by_address(address)
        if node is None:
            return
        self.roster.touch(node.id)
        if error:
            self.roster.timeline.note(node.id, f"did not get {name} by {proto.upper()}: {error}", "warn")
            return
        what = f"{name}, {_size(count)} by {proto.upper()} in {seconds:.1f} s"
        if name.lstrip("/") in LOADERS:
            self.roster.apply(node, Event.LOADER_SENT, what=what)
        else:
            self.roster.timeline.note(node.id, f"has loaded {what}")


def _size(count: int) -> str:
    return f"{count / 1_000_000:.1f} MB" if count >= 1_000_000 else f"{count / 1000:.0f} kB"
