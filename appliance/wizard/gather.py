"""Looking at this machine, its head, its images and its nodes, for the steps of the wizard. Changes nothing."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from appliance import systemd
from appliance.config import parse
from appliance.doctor import diagnose
from appliance.doctor_facts import gather as look_around
from appliance.wizard.engine import Answers, Plan, word
from appliance.wizard.facts import Facts, Image, Row, Wire
from appliance.wizard.install import ALL, refs
from appliance.wizard.packages import KEYS
from appliance.wizard.shelf import tagged
from images.errors import GildError
from images.sources.recipetables import public_key
from netboot.udp import interfaces

if TYPE_CHECKING:
    from appliance.cli.main import Site

ASKED = 8  # interfaces that are asked for other DHCP servers at once
MOST_WIRES, MOST_KEYS = 32, 16
# Tool -> a program that is there where its service is.
PROGRAMS = {
    "slurm": "slurmctld", "pbs": "pbs_server", "sge": "sge_qmaster", "ansible": "ansible", "genders": "nodeset",
}  # fmt: skip
PATHS = (("image", "recipe"), ("image", "path"), ("packages", "layout"), ("nodes", "file"))
OS_RELEASE = re.compile(r'(?m)^(ID|VERSION_CODENAME)="?([a-z0-9._-]{1,40})"?$')


class Look:
    """Facts of one site. What takes seconds (doctor, other DHCP servers, what services know) is looked at when a step
    asks for it, and kept until it is asked for again."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.tested: bool | None = None
        self._told: dict[str, frozenset[tuple[str, str]]] = {}
        self._verbs = _verbs()
        self._sets = _sets(site.paths.sets)
        self._findings: tuple[dict[str, Any], ...] | None = None
        self._servers: dict[str, tuple[str, ...] | None] | None = None
        self._images: tuple[tuple[object, ...], tuple[Image, ...]] = ((), ())

    def doctor(self) -> None:
        """Look for what keeps this machine from serving. On no interface is anything asked."""
        pid = (self._serving() or {}).get("pid", 0)
        found = diagnose(look_around(self.site.paths, os.environ, {"interface": ""}, pid))
        self._findings = tuple(asdict(finding) for finding in found)

    @property
    def asks_wires(self) -> bool:
        """Whether `ask_wires` would ask anybody."""
        if self._servers is not None or os.geteuid() or self._serving() is not None:
            return False
        try:
            return parse(_text(self.site.paths.settings), os.environ, {}).dhcp_check == "on"
        except GildError:
            return True

    def ask_wires(self) -> None:
        """Ask for other DHCP servers on every interface that nodes could be on (that of the default route only if
        there is no other), as `gild.pyz probe dhcp` does, all at once; 5 s. Once a session, and not where a head serves
        already, or the settings say not to look."""
        if not self.asks_wires:
            return
        from appliance.probing import ask

        def servers(name: str) -> tuple[str, ...] | None:
            try:
                return tuple(f"DHCP by {server.server_id}" for server in ask(name) if server.kind == "addresses")
            except GildError:
                return None

        # Who has the way to the rest of the world has a server there, and is the last that nodes would be on.
        fit = [wire for wire in self._wires() if wire.up and wire.link and wire.address and not wire.wireless]
        names = [wire.name for wire in fit if not wire.default_route] or [wire.name for wire in fit]
        with ThreadPoolExecutor(ASKED) as pool:
            self._servers = dict(zip(names[:ASKED], pool.map(servers, names[:ASKED]), strict=True))

    def ran(self, step: str, facts: Facts, plan: Plan, code: int) -> None:
        """A step's plan was carried out, with that exit code: what only this session can know of it."""
        if step == "check":
            self.doctor()
        elif step == "test":
            self.tested = code == 0
        elif step == "services" and not code:
            self._told |= {act.words[1]: _known_nodes(facts.nodes) for act in plan.acts}

    def facts(self, answers: Answers, *, preview: bool = False) -> Facts:
        """Everything as it is now; with `preview` also what an installation would erase. Raises GildError if the
        images cannot be read."""
        paths, serving = self.site.paths, self._serving()
        release = dict(OS_RELEASE.findall(_text(Path("/etc/os-release"))))
        nodes = self._asked("nodes") if serving else ()
        seen, refused = self._preview(answers) if preview and serving else (None, ("", ""))
        layout, trouble = _layout(word(answers.get("packages", {}), "layout"))
        return Facts(
            host=platform.node().partition(".")[0],
            state=str(paths.state),
            root=os.geteuid() == 0,
            service=self._service(),
            findings=self._findings,
            verbs=self._verbs,
            wires=self._wires(),
            serving=serving,
            free=_free(paths.state),
            release=release.get("VERSION_CODENAME", ""),
            family=release.get("ID", ""),
            builder=_here("mmdebstrap"),
            sets=self._sets,
            keys=_keys(Path.home() / ".ssh"),
            images=self._known_images(),
            profiles=self._asked("profiles") if serving else (),
            keyed=_keyed(paths.profiles),
            nodes=nodes,
            chosen=self._chosen(answers) if serving else (),
            preview=seen,
            refused=refused,
            services=tuple(tool for tool, program in PROGRAMS.items() if _here(program)),
            told=tuple(tool for tool, known in self._told.items() if known == _known_nodes(nodes)),
            tested=self.tested,
            missing=_missing(answers),
            layout=layout,
            layout_trouble=trouble,
        )

    def _serving(self) -> dict[str, Any] | None:
        try:
            status: dict[str, Any] = self.site.client.get("status")
        except GildError:
            return None
        return status

    def _asked(self, noun: str) -> tuple[dict[str, Any], ...]:
        try:
            return tuple(self.site.client.get(noun))
        except GildError:
            return ()

    def _chosen(self, answers: Answers) -> tuple[str, ...]:
        nodes = word(answers.get("install", {}), "nodes")
        if nodes in ("", ALL):
            return ()
        try:
            return tuple(row["name"] for row in self.site.client.get("nodes", refs=list(refs(nodes))))
        except GildError:
            return ()

    def _preview(self, answers: Answers) -> tuple[dict[str, Any] | None, tuple[str, str]]:
        nodes = word(answers.get("install", {}), "nodes") or ALL
        which: dict[str, Any] = {"all": True} if nodes == ALL else {"refs": list(refs(nodes))}
        try:
            return self.site.client.post("nodes", "install", **which, preview=True), ("", "")
        except GildError as error:
            return None, (error.message, error.hint)

    def _service(self) -> str:
        if not systemd.Place(Path("/")).runs:
            return "systemd does not run here"
        try:
            systemd.this(self.site.paths, ())
        except GildError as error:
            return error.message
        return ""

    def _wires(self) -> tuple[Wire, ...]:
        asked, gateways = self._servers or {}, _gateways()
        found = [entry for entry in interfaces() if not entry.loopback]
        return tuple(
            Wire(
                entry.name, str(entry.address or ""), entry.up, entry.link, _speed(entry.name),
                Path(f"/sys/class/net/{entry.name}/wireless").exists(), entry.name in gateways, asked.get(entry.name),
            )
            for entry in found[:MOST_WIRES]
        )  # fmt: skip

    def _known_images(self) -> tuple[Image, ...]:
        """The tagged version of each image; read again only when a version or a tag is new."""
        if not self.site.paths.images.is_dir():
            return ()
        store = self.site.store
        key = tuple((name, store.tag(name), *store.versions(name)) for name in store.images())
        if key != self._images[0]:
            self._images = key, tuple(tagged(store, name) for name in store.images() if store.versions(name))
        return self._images[1]


def _verbs() -> tuple[str, ...]:
    """Those commands of this program that not every one of its versions has: "cluster test", "node load"."""
    from appliance.cli.main import gild

    context, found = click.Context(gild), []
    for noun in ("cluster", "node"):
        group = gild.get_command(context, noun)
        if isinstance(group, click.Group):
            found += [f"{noun} {verb}" for verb in group.list_commands(click.Context(group))]
    return tuple(found)


def _known_nodes(nodes: Iterable[Row]) -> frozenset[tuple[str, str]]:
    return frozenset((row["name"], row["address"]) for row in nodes if row["name"])


def _layout(path: str) -> tuple[tuple[dict[str, Any], ...] | None, str]:
    if not path:
        return None, ""
    from netboot.layoutfile import read_layout

    try:
        return tuple(read_layout(Path(path).read_text(encoding="utf-8"), path)), ""
    except GildError as error:
        return None, error.message
    except (OSError, UnicodeDecodeError) as error:
        return None, f"{path} cannot be read: {error}"


def _missing(answers: Answers) -> tuple[str, ...]:
    named = {word(answers.get(step, {}), key) for step, key in PATHS} - {""}
    return tuple(path for path in sorted(named) if not os.path.exists(path))


def _keys(folder: Path) -> tuple[str, ...]:
    """Public keys of the user who runs this, as they lie in ~/.ssh."""
    try:
        files = sorted(folder.glob("*.pub"))[:MOST_KEYS]
    except OSError:
        return ()
    return tuple(dict.fromkeys(line for line in (_text(path).strip() for path in files) if _public(line)))


def _public(line: str) -> bool:
    try:
        return bool(public_key(line, "key"))
    except GildError:
        return False


def _keyed(folder: Path) -> tuple[str, ...]:
    """Profiles that bring a login key with their files."""
    try:
        return tuple(path.name for path in sorted(folder.iterdir()) if (path / "overlay" / KEYS).is_file())
    except OSError:
        return ()


def _sets(folder: Path) -> dict[str, str]:
    from images.sources.sets import known_sets

    try:
        return {known.name: known.description for known in known_sets([folder]).values() if "debian" in known.families}
    except GildError:
        return {known.name: known.description for known in known_sets().values() if "debian" in known.families}


def _gateways() -> frozenset[str]:
    """Interfaces with a default route (proc(5), /proc/net/route)."""
    rows = [line.split() for line in _text(Path("/proc/net/route")).splitlines()[1:]]
    return frozenset(row[0] for row in rows if len(row) > 2 and row[1] == "00000000")


def _speed(name: str) -> int:
    """Mbit/s, 0 where the driver does not tell (Documentation/ABI/testing/sysfs-class-net)."""
    text = _text(Path(f"/sys/class/net/{name}/speed")).strip()
    return int(text) if text.isdecimal() else 0


def _here(program: str) -> bool:
    path = ":".join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    return shutil.which(program, path=path) is not None


def _free(path: Path) -> int:
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
