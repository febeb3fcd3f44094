"""What of a profile's files and scripts one node gets: templates filled in, secrets put in their places. Made for a
plan, checked for an order, shown for a preview; every time anew, and kept nowhere."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from appliance import overlays
from appliance.errors import Unknown, Wrong
from appliance.head_plan import Fitting, network_of
from appliance.head_secrets import Secrets
from appliance.overlays import Entry, OverlayInvalid
from appliance.rendering import Renderer, RenderFailed
from appliance.roster import Roster
from appliance.timeline import clean
from images.errors import GildError
from netboot.node import Node, State
from netboot.plan import SCRIPT_SECONDS, Edit, Network, Script
from netboot.profile import rule_text
from netboot.report import PIECE, Facts
from netboot.wanted import Wanted

MAX_SAID = 3 << 20  # bytes of JSON that all files of a node may be in its plan (netboot.wire.MAX_MESSAGE is 4 MiB)
SMALL, MAX_SMALL = 16 * 1024, 1 << 20  # bytes of one copied file that stands in the plan as well, and of all of them
TEXT = 48 * 1024  # bytes of one text of a message; as base64 it stays below netboot.wire.MAX_TEXT


@dataclass
class _Told:
    """The secrets one rendering has used, so that no message repeats them."""

    values: dict[str, str] = field(default_factory=dict)

    def struck(self, text: str) -> str:
        for name, value in self.values.items():
            for said in {value, clean(value)} - {""}:
                text = text.replace(said, hidden(name))
        return text


class Overlays:
    """The use cases around the files of profiles."""

    def __init__(self, roster: Roster, secrets: Secrets, folder: Path) -> None:
        """`folder` holds the profiles' folders (Paths.profiles)."""
        self.roster, self.secrets, self.folder = roster, secrets, folder
        self._renderer = Renderer()
        self._cluster: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})

    def fitting(self, node: Node, network: Network, *, unseen: bool = False) -> Fitting:
        """All of it for a plan. With `unseen` it is for a machine whose hardware is not known yet: a template that
        fails and speaks of hardware may still be good. Raises ProfileInvalid, OverlayInvalid, RenderFailed, each naming
        the node and the file."""
        with _about(node):
            whole = self.roster.wanted(node)
            entries = overlays.overlay(self.folder, whole.chain)
            files, said, copied = [], 0, 0
            context, told = self._context(node, network, whole, open_=True)
            for entry in entries:
                content = self._made(entry, context, told, node, whole, unseen)
                if entry.kind == "file" and entry.size <= SMALL and copied + entry.size <= MAX_SMALL:
                    content, copied = overlays.read(entry, SMALL), copied + entry.size
                files.append(_file(entry, content))
                said += len(json.dumps(files[-1], ensure_ascii=False).encode())
                if said > MAX_SAID:
                    raise OverlayInvalid(
                        f"templates and secrets of profile {whole.profile.name} come to more than {MAX_SAID >> 20} MiB",
                        "what is the same on all nodes needs no template",
                    )
            edits = (Edit("files", {"files": files}),) if files else ()
            return Fitting(edits, *self._scripts(whole))

    def check(self, node: Node, ref: str, *, looked_into: bool) -> None:
        """Whether `fitting` will do for an order of the image `ref`, whose tree is looked into or not. Raises Wrong, of
        one line that names node, file and line."""
        try:
            network = network_of(node, self.roster.config, node.mac)
            found = self.fitting(node, network, unseen=node.facts is None)
        except GildError as error:
            raise Wrong(error.message, error.hint) from None
        if not looked_into and (found.edits or found.post):
            raise Wrong(
                f"{node.label}: {ref} is a whole disk nobody looks into, and the profile {node.profile} has files or"
                " scripts for it",
                "install it with another profile: gild.pyz node set NODE --profile NAME",
            )

    def piece(self, node: Node, path: str, stamp: str, offset: int) -> bytes:
        """Up to PIECE bytes of a copied file from `offset` on, for the agent that has the plan it stands in. Raises
        OverlayInvalid if it is not there any more as it was then."""
        for entry in overlays.overlay(self.folder, self.roster.wanted(node).chain):
            if entry.path == path and entry.kind == "file" and entry.stamp == stamp:
                return overlays.read_piece(entry, offset, PIECE)
        raise OverlayInvalid(
            f"the file {clean(path)[:200]} of profile {node.profile} is not what it was when the plan was made",
            "order the installation again",
        )

    # --- showing

    def render(self, ref: str) -> dict[str, Any]:
        """What a node would get: `files` with path, kind, mode, owner, group, size, profile it is from and, of a
        template that fails, the reason; `scripts`; `trouble`, one line, if there would be no plan. Raises Unknown,
        ProfileInvalid."""
        node = self.roster.find(ref)
        whole = self.roster.wanted(node)
        answer: dict[str, Any] = {"node": node.label, "chain": list(whole.chain), "folder": str(self.folder)}
        answer |= {"files": [], "scripts": [], "trouble": ""}
        try:
            network = network_of(node, self.roster.config, node.mac)
            context, _ = self._context(node, network, whole, open_=False)
            for entry in overlays.overlay(self.folder, whole.chain):
                row, reason, size = _row(entry), "", entry.size
                if entry.kind == "template":
                    try:
                        size = len(self._rendered(entry, context).encode())
                    except GildError as error:
                        reason = error.message
                elif entry.kind == "secret":
                    secret = self.secrets.find(entry.secret, node, whole.chain)
                    size, reason = len(secret or b""), "" if secret else f"there is no secret {entry.secret} for it"
                answer["files"].append({**row, "size": size, "trouble": reason})
            for stage in self._scripts(whole):
                answer["scripts"] += [
                    {"name": script.name, "from": script.profile, "size": len(script.content.encode()),
                     "seconds": script.seconds} for script in stage
                ]  # fmt: skip
            self.fitting(node, network)
        except GildError as error:
            answer["trouble"] = error.message
        return answer

    def render_file(self, ref: str, path: str) -> dict[str, Any]:
        """One file as a node would get it, as text with secrets struck out: `path`, `text`, or `base64` of what is no
        text. Raises Unknown, ProfileInvalid, OverlayInvalid, RenderFailed."""
        node = self.roster.find(ref)
        whole = self.roster.wanted(node)
        wanted = path.strip("/")
        for entry in overlays.overlay(self.folder, whole.chain):
            if entry.path == wanted:
                return {"path": wanted, **self._shown(node, whole, entry)}
        for stage in self._scripts(whole):
            for script in stage:
                if script.name == wanted:
                    return {"path": wanted, "text": script.content}
        raise Unknown(
            f"{node.label} gets no file {clean(path)[:200]!r}",
            f"see what it gets: gild.pyz profile render {node.label}",
        )

    def _shown(self, node: Node, whole: Wanted, entry: Entry) -> dict[str, str]:
        if entry.kind in ("link", "folder", "secret"):
            texts = {"link": f"-> {entry.target}\n", "secret": hidden(entry.secret) + "\n", "folder": ""}
            return {"text": texts[entry.kind]}
        if entry.kind == "template":
            with _about(node):
                network = network_of(node, self.roster.config, node.mac)
                return {"text": self._rendered(entry, self._context(node, network, whole, open_=False)[0])}
        data = overlays.read(entry, overlays.MAX_COPIED)
        try:
            return {"text": data.decode()}
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(data).decode()}

    # --- making

    def _scripts(self, whole: Wanted) -> tuple[tuple[Script, ...], tuple[Script, ...]]:
        seconds = whole.profile.script_seconds or SCRIPT_SECONDS
        pre, post = (overlays.scripts(self.folder, whole.chain, stage, seconds) for stage in overlays.STAGES)
        return pre, post

    def _made(
        self, entry: Entry, context: dict[str, Any], told: _Told, node: Node, whole: Wanted, unseen: bool
    ) -> bytes | None:
        """What the head makes of an entry itself; None for what is copied."""
        if entry.kind == "secret":
            value = self.secrets.find(entry.secret, node, whole.chain)
            if value is None:
                raise OverlayInvalid(*_no_secret(entry.secret, f"/{entry.path}", entry.profile))
            return value
        if entry.kind != "template":
            return None
        told.values.clear()
        try:
            return self._rendered(entry, context).encode()
        except RenderFailed as error:
            if unseen and self._renderer.names(_text_of(entry), "facts"):
                return b""
            raise RenderFailed(told.struck(error.message), error.hint) from None

    def _rendered(self, entry: Entry, context: dict[str, Any]) -> str:
        context["profile"]["file"] = f"/{entry.path}"
        rendered = self._renderer.render(str(entry.source), _text_of(entry), context)
        try:
            rendered.encode()
        except UnicodeEncodeError:
            raise RenderFailed(f"{entry.source} comes to text that is not UTF-8") from None
        return rendered

    def _context(self, node: Node, network: Network, whole: Wanted, *, open_: bool) -> tuple[dict[str, Any], _Told]:
        """Everything a template can name. With `open_` secrets are what they are, else they are struck out."""
        told = _Told()
        config = self.roster.config

        def secret(name: str) -> str:
            value = self.secrets.find(str(name), node, whole.chain)
            if value is None:
                raise LookupError("; ".join(_no_secret(str(name), "", whole.profile.name)))
            if not open_:
                return hidden(str(name))
            try:
                # A file made by an editor or echo ends in a newline that is no part of the password in it.
                text = value.decode().removesuffix("\n")
            except UnicodeDecodeError:
                raise LookupError(
                    f"the secret {clean(str(name))[:64]} is not text: name it in overlay.toml, secret = ..."
                ) from None
            told.values[str(name)] = text
            return text

        profile = whole.profile
        own = {
            "network": {**asdict(network), "netmask": str(config.network.netmask), "dns": list(network.dns)},
            "node": {**_of_node(node), "machine_id": node.machine_id, "uuid": node.uuid, "serial": node.serial},
            "facts": _facts(node),
            "profile": {
                "name": profile.name, "chain": list(whole.chain), "image": profile.image, "cmdline": profile.cmdline,
                "disk": rule_text(profile.disk), "file": "",
            },
            "head": {"name": "head", "address": config.address, "domain": config.domain, "ntp": config.ntp},
            "cluster": self._everybody(),
            "secret": secret,
        }  # fmt: skip
        return own, told

    def _everybody(self) -> dict[str, Any]:
        """All approved nodes; made anew only when one of them has changed, as a whole rack asks at once."""
        nodes = tuple(node for node in self.roster.sorted() if node.name and node.state is not State.WAITING)
        key = tuple((node.name, node.address, node.macs, node.profile, node.groups, node.facts) for node in nodes)
        if self._cluster[0] != key or not self._cluster[1]:
            domain = self.roster.config.domain
            self._cluster = key, {"domain": domain, "nodes": [{**_of_node(node), **_size(node)} for node in nodes]}
        return self._cluster[1]


def hidden(name: str) -> str:
    """What is shown in the place of a secret."""
    return f"‹secret {clean(name)[:64]}›"


@contextmanager
def _about(node: Node) -> Iterator[None]:
    """Errors inside the block name the node."""
    try:
        yield
    except (OverlayInvalid, RenderFailed) as error:
        hint = error.hint or f"see: gild.pyz profile render {node.label}"
        raise type(error)(f"{node.label}: {error.message}", hint) from None


def _text_of(entry: Entry) -> str:
    try:
        return overlays.read(entry, overlays.MAX_TEMPLATE).decode()
    except UnicodeDecodeError:
        raise RenderFailed(f"{entry.source} is not text in UTF-8") from None


def _file(entry: Entry, content: bytes | None) -> dict[str, Any]:
    """An entry as the edit `files` takes it; a copied file without content is fetched by the agent."""
    said: dict[str, Any] = {"path": entry.path, "owner": entry.owner, "group": entry.group}
    if entry.kind == "link":
        return {"path": entry.path, "link": entry.target}
    said["mode"] = f"{entry.mode:04o}"
    if entry.kind == "folder":
        return {**said, "folder": True}
    if content is None:
        return {**said, "fetch": entry.stamp, "size": entry.size}
    try:
        text = content.decode()
        if len(content) <= TEXT:
            return {**said, "content": text}
    except UnicodeDecodeError:
        pass
    pieces = (content[at : at + TEXT] for at in range(0, len(content), TEXT))
    return {**said, "base64": [base64.b64encode(piece).decode() for piece in pieces]}


def _row(entry: Entry) -> dict[str, Any]:
    return {
        "path": entry.path, "kind": entry.kind, "mode": f"{entry.mode:04o}", "owner": entry.owner,
        "group": entry.group, "from": entry.profile, "source": str(entry.source), "target": entry.target,
    }  # fmt: skip


def _no_secret(name: str, path: str, profile: str) -> tuple[str, str]:
    shown = clean(name)[:64]
    wants = f", which {path} of profile {profile} wants" if path else ""
    return f"there is no secret {shown!r} for it{wants}", f"gild.pyz secret set {shown} --profile {profile} FILE"


def _of_node(node: Node) -> dict[str, Any]:
    return {
        "id": node.id, "name": node.name, "address": node.address, "mac": node.mac, "macs": list(node.macs),
        "profile": node.profile, "groups": list(node.groups),
    }  # fmt: skip


def _size(node: Node) -> dict[str, Any]:
    facts = node.facts
    return {key: getattr(facts, key, 0) for key in ("cores", "threads", "memory")}


def _facts(node: Node) -> dict[str, Any]:
    """What the machine said of itself; all of it, empty, for one that was never seen."""
    return asdict(node.facts or Facts())
