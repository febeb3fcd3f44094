"""The process: every socket and task has its place here, started in order and stopped in order.

One TaskGroup owns every task. The first failure, SIGTERM or SIGINT ends it; what is open is closed in reverse order,
within two seconds. What must survive (leases, orders, states) is on disk by then: it was before it was shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import signal
import sys
from functools import cache
from ipaddress import IPv4Interface

from appliance import bundled, keys
from appliance.config import Config
from appliance.errors import ConfigInvalid, Environment
from appliance.foreign import ForeignServers
from appliance.head import Head
from appliance.lan import Lans
from appliance.live import Live
from appliance.notify import notify
from appliance.paths import Paths
from appliance.store import Store
from appliance.web import app
from appliance.web.acceptance_api import AcceptanceApi
from appliance.web.auditing import audited
from appliance.web.boot import MAX_BODY, Boot
from appliance.web.cluster_api import ClusterApi
from appliance.web.declare_api import DeclareApi
from appliance.web.hooks_api import HooksApi
from appliance.web.job_api import JobApi
from appliance.web.live_api import LiveApi
from appliance.web.network_api import NetworkApi
from appliance.web.node_api import NodeApi
from appliance.web.operator import Operator
from appliance.web.packs import Packs
from appliance.web.power_api import PowerApi
from appliance.web.profile_api import ProfileApi
from appliance.web.record_api import RecordApi
from appliance.web.rule_api import RuleApi
from appliance.web.secret_api import SecretApi
from appliance.web.sites import Sites
from images.errors import GildError
from images.store import Store as Images
from netboot.bootfiles import BootFiles
from netboot.initrd import head_segment
from netboot.lease import LeaseInvalid
from netboot.neighbours import Neighbours
from netboot.plan import BootPiece
from netboot.udp import UdpError, interface_address, interfaces

log = logging.getLogger("gild")

LOOK = 5.0  # seconds between two looks at the interface's address
TICK = 1.0  # seconds between two looks at the clock of every node


def serve(config: Config, paths: Paths) -> None:
    """Serve until SIGTERM or SIGINT. Raises Environment, ConfigInvalid or another GildError if it cannot start."""
    logging.basicConfig(
        level=logging.DEBUG if config.log == "debug" else logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    if os.geteuid() != 0:
        raise Environment("serving needs root: DHCP, TFTP, DNS and HTTP have low ports", "run it with sudo")
    if not config.interface:
        known = ", ".join(entry.name for entry in interfaces() if entry.name != "lo")
        raise Environment("which interface are the nodes on?", f"serve --interface NAME; this machine has: {known}")
    here = config.on(_interface(config.interface))
    _directories(paths)
    with contextlib.suppress(KeyboardInterrupt):
        while asyncio.run(_run(here, paths, config.address == "")):
            here = config.on(_interface(config.interface))
            log.warning("the address of %s has changed: going on with %s", config.interface, here.address)


def _interface(name: str) -> IPv4Interface:
    try:
        return interface_address(name)
    except UdpError as error:
        raise Environment(error.message, error.hint) from None


def _directories(paths: Paths) -> None:
    try:
        for path in (paths.state, paths.keys, paths.boot, paths.profiles, paths.images):
            path.mkdir(parents=True, exist_ok=True)
        os.chmod(paths.state, 0o755)
        os.chmod(paths.keys, 0o700)
    except OSError as error:
        raise Environment(f"{error.filename}: {error.strerror}", "give another --state") from None


async def _run(config: Config, paths: Paths, follow: bool) -> bool:
    """Serve until told to stop. True if it is to begin anew, as the interface has another address; looked at only with
    `follow`."""
    async with contextlib.AsyncExitStack() as opened:
        store = Store(paths.database, paths.lock)
        opened.callback(store.close)
        identity = keys.head_identity(paths.keys, config.address, config.domain)
        files = BootFiles(bundled.payload(), str(paths.boot))
        images = Images(paths.images)
        try:
            head = Head(store, images, config, boot_piece=BootPieces(files))
        except LeaseInvalid as error:
            raise ConfigInvalid(error.message, error.hint or "name another: serve --range FIRST-LAST") from None
        opened.push_async_callback(head.close)
        packs = Packs(images)
        opened.callback(packs.close)
        segments = cache(lambda address: head_segment(_settings(config, address, identity.certificate)))
        sites = _sites(config, head, Boot(head, files, segments), packs, identity)
        opened.push_async_callback(sites.close)
        await sites.start()
        alone = config.dhcp == "authority" and config.dhcp_check == "on"
        others = ForeignServers(config.interface, config.address) if alone else None
        if config.dhcp == "proxy":
            neighbours = Neighbours(config.interface)
            opened.callback(neighbours.close)
            head.roster.neighbour = neighbours.mac
        lans = Lans(head, files, segments, sites)
        opened.push_async_callback(lans.close)
        head.foreign = lambda: [*(others.rows() if others is not None else ()), *lans.foreign()]
        head.networks.attach, head.networks.detach = lans.attach, lans.close_one
        await lans.open(head.roster.addresses.main, lambda: others is None or others.clear)
        await sites.open_operator(paths.socket)
        moved = await _until_told(head, config, others, follow)
    if others is not None and others.refusal is not None:
        raise others.refusal
    return moved


def _settings(config: Config, address: str, certificate: bytes) -> dict[str, bytes]:
    """What the installer must know about this head: the certificate it trusts and where it finds the head."""
    settings = {"head": address, "https_port": config.https_port, "http_port": config.http_port}
    return {"etc/gild/head.pem": certificate, "etc/gild/settings.json": json.dumps(settings).encode()}


def _sites(config: Config, head: Head, boot: Boot, packs: Packs, identity: keys.HeadIdentity) -> Sites:
    """Who may ask for what: everybody, machines with a session, and people."""
    live = LiveApi(Live(config.address, config.https_port, identity.certificate, head.clock))
    operator = [
        *Operator(head).routes(),
        *DeclareApi(head).routes(),
        *ProfileApi(head).routes(),
        *SecretApi(head).routes(),
        *ClusterApi(head).routes(),
        *HooksApi(head).routes(),
        *JobApi(head).routes(),
        *PowerApi(head).routes(),
        *RuleApi(head).routes(),
        *NetworkApi(head).routes(),
        *RecordApi(head).routes(),
        *AcceptanceApi(head).routes(),
        *live.operator_routes(),
    ]
    return Sites(
        app.application([*boot.routes(), *packs.routes()], MAX_BODY),
        app.application([*NodeApi(head).routes(), *live.routes()]),
        app.application(operator, inside=[audited(head.audit)]),
        identity,
        config.http_port,
        config.https_port,
    )


async def _until_told(head: Head, config: Config, others: ForeignServers | None, follow: bool) -> bool:
    """Work until a signal, a foreign server at the start, or (True) another address on the interface."""
    stop, moved = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with asyncio.TaskGroup() as tasks:
        running = [
            tasks.create_task(_tick(head)),
            tasks.create_task(head.work()),
            tasks.create_task(head.networks.begin()),
        ]
        log.info(
            "serving on %s: %s, nodes get %s-%s in %s",
            config.interface, config.address, config.range_first, config.range_last, config.domain,
        )  # fmt: skip
        if follow:
            running.append(tasks.create_task(_moved(config, moved, stop)))
        if others is not None:
            running += [tasks.create_task(others.watch()), tasks.create_task(_alone(others, stop))]
        notify("READY=1", f"STATUS=serving on {config.interface}, {config.address}")
        await stop.wait()
        notify("STOPPING=1")
        log.info("stopping")
        for task in running:
            task.cancel()
    return moved.is_set()


async def _moved(config: Config, moved: asyncio.Event, stop: asyncio.Event) -> None:
    """Sets both once the interface has another address. One that has none for a while (a cable, a DHCP client at work)
    is waited for."""
    while True:
        await asyncio.sleep(LOOK)
        with contextlib.suppress(UdpError):
            now = interface_address(config.interface)
            if (str(now.ip), now.network) != (config.address, config.network):
                moved.set()
                stop.set()
                return


async def _alone(others: ForeignServers, stop: asyncio.Event) -> None:
    """Ends the process if somebody else gives addresses on its wire."""
    await others.first_look()
    if others.clear:
        log.info("no other DHCP server gives addresses on %s: requests are answered now", others.interface)
    else:
        stop.set()


async def _tick(head: Head) -> None:
    while True:
        await asyncio.sleep(TICK)
        notify("WATCHDOG=1")
        try:
            head.tick()
        except GildError as error:
            log.error("%s", error)


class BootPieces:
    """Name, size and sha256 of boot files, for plans; hashed once per file and kept while it stays the same."""

    def __init__(self, files: BootFiles) -> None:
        self.files = files
        self._known: dict[str, tuple[int, BootPiece]] = {}  # name -> time of last change, piece

    def __call__(self, name: str) -> BootPiece | None:
        """The piece of that public name, or None if there is none."""
        piece = self.files.find(name)
        if piece is None:
            return None
        try:
            changed = os.fstat(piece.fd).st_mtime_ns
            known, made = self._known.get(name, (0, None))
            if made is None or (known, made.size) != (changed, piece.size):
                made = BootPiece(name, hashlib.sha256(piece.read(0, piece.size)).hexdigest(), piece.size)
                self._known[name] = changed, made
            return made
        finally:
            piece.close()
