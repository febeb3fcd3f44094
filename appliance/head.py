"""The head's use cases, all of them in one table; each is carried out in the module of its noun.

Everything here runs on the event loop's thread and none of it waits, but for `next`, `changes` and `news`. Sockets,
HTTP and the command line come in by these names and by no others.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance import __version__
from appliance.audit import GILD, Audit, asking
from appliance.clock import Clock
from appliance.cluster.scheduler import found
from appliance.config import Config
from appliance.head_acceptance import Acceptance
from appliance.head_bmcs import Bmcs
from appliance.head_boot import Boots
from appliance.head_capture import Captures
from appliance.head_changes import Changes
from appliance.head_cluster import Cluster
from appliance.head_declare import Declared
from appliance.head_dhcp import Dhcp
from appliance.head_hello import Hellos
from appliance.head_history import History
from appliance.head_hooks import Hooks
from appliance.head_install import Installs
from appliance.head_jobs import Jobs
from appliance.head_networks import Networks
from appliance.head_nodes import Nodes
from appliance.head_orders import Orders
from appliance.head_overlay import Overlays
from appliance.head_plan import BootPieceOf
from appliance.head_power import Powers
from appliance.head_poweron import PowerOn
from appliance.head_profiles import Profiles
from appliance.head_proxy import Proxy
from appliance.head_rolling import Rolling
from appliance.head_rules import Rules
from appliance.head_secrets import Secrets
from appliance.head_services import Services
from appliance.head_telling import Telling
from appliance.host_keys import HostKeys
from appliance.paths import Paths
from appliance.recorder import Recorder
from appliance.roster import Roster
from appliance.sightings import Server
from appliance.store import Store
from netboot.node import Event, Node, overdue

if TYPE_CHECKING:
    from images.store import Store as Images


class Head:
    """Nodes, orders and profiles of one head, in memory, with the journal behind them."""

    def __init__(
        self, store: Store, images: Images, config: Config, boot_piece: BootPieceOf, clock: Clock | None = None
    ) -> None:
        """`config` must know its network (Config.on); `boot_piece(name)` is the head's boot file of that name, or
        None. Raises DatabaseInvalid or LeaseInvalid."""
        self.store, self.config = store, config
        self.clock = clock or Clock()
        self.roster = Roster(store, config, self.clock)
        self._keys = HostKeys(store)
        here = Proxy if config.dhcp == "proxy" else Dhcp
        self._dhcp = here(self.roster, lambda name: boot_piece(name) is not None)
        self._boots = Boots(self.roster)
        self._secrets = Secrets(self.roster)
        self._overlays = Overlays(self.roster, self._secrets, Paths(Path(config.state)).profiles)
        self._hellos = Hellos(self.roster, self._keys)
        self._installs = Installs(self.roster, self._keys, boot_piece, self._overlays, self._hellos)
        self._nodes = Nodes(self.roster)
        self._changes = Changes(self.roster, self._keys, self._hellos.sessions, self._nodes)
        self._profiles = Profiles(self.roster, images)
        self._orders = Orders(self.roster, images, self._overlays, self._hellos.sessions.wake)
        self._captures = Captures(self.roster, images, self._hellos.sessions)
        self._rules = Rules(self.roster, self._changes.approve)
        self.declared = Declared(self.roster, self._hellos.sessions)
        self.history = History(self.roster)
        self.audit = Audit(store, self.clock.wall)
        self.roster.listeners.append(self._approved)
        self._installs.on_refused = lambda node, text: self.audit.note(f"machine {node.mac}", "refused", text)
        self.recorder = Recorder(self.clock.wall)
        self._dhcp.recorded = self.recorder.packet
        self.poweron = PowerOn(self.roster, self._changes.approve, self.declared)
        self._hellos.on_hello = self._shown
        self.networks = Networks(self.roster)
        self._acceptance = Acceptance(self.roster, self._keys)
        self._telling = Telling(self.roster, self._keys)
        self._bmcs = Bmcs(self.roster)
        self._powers = Powers(self.roster, self._bmcs)
        self._dhcp.heard = self._powers.heard
        self._rolling = Rolling(self.roster, self._orders, self._powers)
        self._rolling.drainer.scheduler = found(config.services.split(","))
        self.jobs = Jobs(self.roster, self._orders, self._powers, self._rolling)
        self._cluster = Cluster(self.roster)
        self._hooks = Hooks(self.roster, Paths(Path(config.state)).hooks)
        self._services = Services(self.roster, tuple(filter(None, config.services.split(","))), self._cluster.snapshot)
        self._keys.made = self._hellos.sessions.wake
        self._begun = self.clock.steady()
        self.foreign: Callable[[], list[Server]] = list  # other DHCP servers on the wire, where somebody looks for them

        # Booting machines
        self.dhcp, self.claimed, self.probes = self._dhcp.dhcp, self._dhcp.claimed, self._dhcp.probes
        self.proxied = self._dhcp.proxied if isinstance(self._dhcp, Proxy) else None
        self.script = self._boots.script
        self.grub_cfg = self._boots.grub_cfg
        self.zone = self.roster.zones.zone
        # Agents and installed systems
        self.hello = self._hellos.hello
        self.next = self._hellos.next
        self.plan = self._installs.plan
        self.file_piece = self._installs.file_piece
        self.report = self._installs.report
        self.capture_plan = self._captures.plan
        self.capture_offer = self._captures.offer
        self.capture_ask = self._captures.ask
        self.capture_chunks = self._captures.chunks
        self.capture_end = self._captures.end
        self.home = self._installs.home
        # People
        self.nodes = self._nodes.nodes
        self.node = self._nodes.node
        self.log = self._nodes.log
        self.approve = self._changes.approve
        self.same = self._changes.same
        self.other = self._changes.other
        self.set = self._changes.set
        self.remove = self._changes.remove
        self.profiles = self._profiles.profiles
        self.profile = self._profiles.profile
        self.profile_values = self._profiles.profile_values
        self.node_values = self._profiles.node_values
        self.profile_set = self._profiles.profile_set
        self.profile_remove = self._profiles.profile_remove
        self.render = self._overlays.render
        self.render_file = self._overlays.render_file
        self.secrets = self._secrets.secrets
        self.secret_set = self._secrets.secret_set
        self.secret_remove = self._secrets.secret_remove
        self.rules = self._rules.rules
        self.rule_add = self._rules.rule_add
        self.rule_remove = self._rules.rule_remove
        self.inventory = self._cluster.inventory
        self.hook_message = self._hooks.hook_message
        self.install = self._orders.install
        self.capture = self._captures.order
        self.cancel = self._orders.cancel
        self.acceptance = self._acceptance.acceptance
        self.telling, self.told = self._telling.telling, self._telling.told
        self.bmcs = self._bmcs.bmcs
        self.bmc_set = self._bmcs.set
        self.bmc_trust = self._bmcs.trust
        self.bmc_remove = self._bmcs.remove
        self.power = self._powers.begin
        self.power_outcome = self._powers.outcome
        self.events_since = self._nodes.events_since
        self.changes = self._nodes.changes
        self.news = self.roster.timeline.news

    def file_sent(self, address: str, name: str, count: int, seconds: float, proto: str, error: str) -> None:
        """A boot file went to `address`, or did not. `count` in bytes, `proto` "tftp" or "http"."""
        self.recorder.transfer(address, name, count, seconds, proto, error)
        self._boots.file_sent(address, name, count, seconds, proto, error)

    def record(self, ref: str) -> dict[str, Any]:
        """All that is known of a node, and no secret. Raises Unknown."""
        node = self.roster.find(ref)
        return {
            "node": self._nodes.node(ref),
            "timeline": self._nodes.log(ref, 0),
            "dhcp": self.recorder.packets(node.macs),
            "transfers": self.recorder.transfers(node.address),
        }

    def _approved(self, before: Node | None, after: Node | None, event: Event | None) -> None:
        """What nobody asked for at this moment: approvals by rule and by turn."""
        if event is Event.APPROVED and after is not None and asking.get() == GILD:
            self.audit.note(GILD, "approve", f"{after.name}, {after.mac}, profile {after.profile}")

    def _shown(self, node: Node) -> None:
        """A machine has shown its hardware: it may be a node by declaration, by its turn, or by a rule."""
        if not self.declared.consider(node):
            self.poweron.advance()
            if node.id in self.roster.nodes and self.poweron.walk is None:
                self._rules.consider(self.roster.nodes[node.id])

    def status(self) -> dict[str, Any]:
        """What is served where, and how many nodes are in which state."""
        config, nodes = self.config, self.roster.nodes.values()
        return {
            "interface": config.interface,
            "address": config.address,
            "network": str(config.network),
            "dhcp_mode": config.dhcp,
            "range": f"{config.range_first}-{config.range_last}",
            "networks": [_network(row) for row in self.networks.networks()[1:]],
            "domain": config.domain,
            "leases": self.roster.pool.count(),
            "free": self.roster.pool.free(),
            "uptime": self.clock.steady() - self._begun,
            "pid": os.getpid(),
            "version": __version__,
            "nodes": dict(sorted(Counter(node.state.value for node in nodes).items())),
            "orders": sum(1 for order in self.roster.orders.values() if not order.closed),
            "installing": sorted({order.digest for order in self.roster.orders.values() if not order.closed}),
            "dhcp": dict(sorted(self._dhcp.counts.items())),
            "foreign": [asdict(server) for server in self.foreign()],
            "services": self._services.rows(),
            "hooks": self._hooks.counts(),
            "problem": self.store.problem,
        }

    def tick(self) -> None:
        """Once a second: who has been silent too long, which orders have run out, and everything changed to disk."""
        now = self.clock.steady()
        for node in list(self.roster.nodes.values()):
            reason = overdue(node, now - self.roster.quiet_since.get(node.id, now))
            if reason:
                self.roster.touch(node.id)
                self.roster.apply(node, Event.SILENT, reason=reason)
        self.roster.pool.expire(now)
        self._orders.tick()
        self._hellos.sessions.tick()
        self._captures.tick()
        self.poweron.advance()
        self._powers.tick()
        self._rolling.tick()
        self.roster.save()

    async def work(self) -> None:
        """Tell hooks and services what happens, until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._hooks.work())
            group.create_task(self._services.work())

    async def close(self) -> None:
        """Write what is left and stop making keys; waiting agents get their answer."""
        for node_id in list(self.roster.nodes):
            self._hellos.sessions.wake(node_id)
        self._powers.close()
        await self._hooks.close()
        await self._captures.close()
        self._keys.close()
        self.roster.save()
        self.store.flush()


def _network(row: dict[str, Any]) -> str:
    """A network beside the main one, in a line."""
    if row["trouble"]:
        return f"{row['name']}: not served, {row['trouble']}"
    where = row["interface"] or "behind a relay"
    return f"{row['name']}: {row['network']} {where}, {row['first']}-{row['last']}, {row['leases']} in use"
