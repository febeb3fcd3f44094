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
import ssl
import sys
from ipaddress import IPv4Interface

from aiohttp import web

from appliance import bundled, keys
from appliance.config import Config
from appliance.errors import ConfigInvalid, Environment
from appliance.foreign import ForeignServers
from appliance.head import Head
from appliance.lan import Lan
from appliance.live import Live
from appliance.notify import notify
from appliance.paths import Paths
from appliance.store import Store
from appliance.web import app
from appliance.web.acceptance_api import AcceptanceApi
from appliance.web.boot import MAX_BODY, Boot
from appliance.web.cluster_api import ClusterApi
from appliance.web.hooks_api import HooksApi
from appliance.web.live_api import LiveApi
from appliance.web.node_api import NodeApi
from appliance.web.operator import Operator
from appliance.web.packs import Packs
from appliance.web.power_api import PowerApi
from appliance.web.profile_api import ProfileApi
from appliance.web.rule_api import RuleApi
from appliance.web.secret_api import SecretApi
from images.errors import GildError
from images.store import Store as Images
from netboot.bootfiles import BootFiles
from netboot.initrd import head_segment
from netboot.lease import LeaseInvalid
from netboot.plan import BootPiece
from netboot.udp import UdpError, interface_address, interfaces, open_tcp

log = logging.getLogger("gild")

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
    config = config.on(_interface(config.interface))
    _directories(paths)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(config, paths))


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


async def _run(config: Config, paths: Paths) -> None:
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
        segment = head_segment(_settings(config, identity.certificate))
        await _listen(opened, config, paths, head, Boot(head, files, segment), packs, identity)
        others = ForeignServers(config.interface, config.address) if config.dhcp_check == "on" else None
        head.foreign = others.rows if others is not None else head.foreign
        lan = Lan(head, files, segment, lambda: others is None or others.clear)
        opened.push_async_callback(lan.close)
        await lan.open()
        await _until_told(head, config, others)
    if others is not None and others.refusal is not None:
        raise others.refusal


def _settings(config: Config, certificate: bytes) -> dict[str, bytes]:
    """What the installer must know about this head: the certificate it trusts and where the head is."""
    settings = {"head": config.address, "https_port": config.https_port, "http_port": config.http_port}
    return {"etc/gild/head.pem": certificate, "etc/gild/settings.json": json.dumps(settings).encode()}


async def _listen(
    opened: contextlib.AsyncExitStack,
    config: Config,
    paths: Paths,
    head: Head,
    boot: Boot,
    packs: Packs,
    identity: keys.HeadIdentity,
) -> None:
    """The three HTTP listeners: public, node (TLS) and operator (unix socket)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate_path, identity.key_path)
    runners: list[web.AppRunner] = []
    opened.push_async_callback(_end, runners)
    public = await _started(runners, app.application([*boot.routes(), *packs.routes()], MAX_BODY))
    live = LiveApi(Live(config.address, config.https_port, identity.certificate, head.clock))
    node = await _started(runners, app.application([*NodeApi(head).routes(), *live.routes()]))
    routes = [
        *Operator(head).routes(),
        *ProfileApi(head).routes(),
        *SecretApi(head).routes(),
        *ClusterApi(head).routes(),
        *HooksApi(head).routes(),
        *PowerApi(head).routes(),
        *RuleApi(head).routes(),
        *AcceptanceApi(head).routes(),
        *live.operator_routes(),
    ]
    operator = await _started(runners, app.application(routes))
    try:
        await web.SockSite(public, open_tcp(config.http_port, address=config.address), backlog=1024).start()
        secure = open_tcp(config.https_port, address=config.address)
        await web.SockSite(node, secure, backlog=1024, ssl_context=context).start()
    except UdpError as error:
        raise Environment(error.message, f"{error.hint}, or serve with --http-port and --https-port") from None
    paths.socket.unlink(missing_ok=True)
    # The socket is born closed to everybody else: the umask counts, not a chmod a moment later.
    before = os.umask(0o177)
    try:
        await web.UnixSite(operator, str(paths.socket)).start()
    except OSError as error:
        raise Environment(f"{paths.socket}: {error.strerror}", "give a --state with a shorter path") from None
    finally:
        os.umask(before)
    opened.callback(paths.socket.unlink, missing_ok=True)


async def _started(runners: list[web.AppRunner], application: web.Application) -> web.AppRunner:
    runner = app.runner(application)
    runners.append(runner)
    await runner.setup()
    return runner


async def _end(runners: list[web.AppRunner]) -> None:
    """Together: each waits a second for its running requests, and one after the other would be three."""
    await asyncio.gather(*(runner.cleanup() for runner in runners))


async def _until_told(head: Head, config: Config, others: ForeignServers | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(_tick(head)), tasks.create_task(head.work())]
        log.info(
            "serving on %s: %s, nodes get %s-%s in %s",
            config.interface, config.address, config.range_first, config.range_last, config.domain,
        )  # fmt: skip
        if others is not None:
            running += [tasks.create_task(others.watch()), tasks.create_task(_alone(others, stop))]
        notify("READY=1", f"STATUS=serving on {config.interface}, {config.address}")
        await stop.wait()
        notify("STOPPING=1")
        log.info("stopping")
        for task in running:
            task.cancel()


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
