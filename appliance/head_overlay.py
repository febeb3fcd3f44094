"""What of a profile's files and scripts one node gets: templates filled in, secrets put in their places. Made for a
plan, checked for an order, shown for a preview; every time anew, and kept on no disk."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from appliance import overlays
from appliance.errors import Unknown, Wrong
from appliance.head_plan import Fitting, network_of
from appliance.head_secrets import Secrets
from appliance.overlays import Entry, OverlayInvalid
from appliance.rendering import Renderer, RenderFailed
from appliance.roster import Roster
from appliance.template_names import Cluster, Names, hidden, names_of, no_secret
from appliance.timeline import clean
from images.errors import GildError
from netboot.node import Node
from netboot.plan import SCRIPT_SECONDS, Edit, Network, Script
from netboot.report import PIECE
from netboot.wanted import Wanted

MAX_SAID = 3 << 20  # bytes of JSON that all files of a node may be in its plan (netboot.wire.MAX_MESSAGE is 4 MiB)
SMALL, MAX_SMALL = 16 * 1024, 1 << 20  # bytes of one copied file that stands in the plan as well, and of all of them
MAX_SAME = 32  # rendered files held in memory that are the same for many nodes
TEXT = 48 * 1024  # bytes of one text of a message; as base64 it stays below netboot.wire.MAX_TEXT


class Overlays:
    """The use cases around the files of profiles."""

    def __init__(self, roster: Roster, secrets: Secrets, folder: Path) -> None:
        """`folder` holds the profiles' folders (Paths.profiles)."""
        self.roster, self.secrets, self.folder = roster, secrets, folder
        self._renderer = Renderer()
        self._cluster = Cluster(roster)
        self._same: dict[tuple[Path, str], tuple[list[dict[str, Any]], bytes]] = {}

    def fitting(self, node: Node, network: Network, *, unseen: bool = False) -> Fitting:
        """All of it for a plan. With `unseen` it is for a machine whose hardware is not known yet: a template that
        fails and speaks of hardware may still be good. Raises ProfileInvalid, OverlayInvalid, RenderFailed, each naming
        the node and the file."""
        with _about(node):
            whole = self.roster.wanted(node)
            entries = overlays.overlay(self.folder, whole.chain)
            files, said, copied = [], 0, 0
            names: Names | None = None  # most nodes of a storm have no template
            for entry in entries:
                content: bytes | None = None
                if entry.kind == "template":
                    names = names or self._names(node, network, whole, open_=True)
                    content = self._made(entry, names, unseen)
                elif entry.kind == "secret":
                    content = self._secret(entry, node, whole)
                elif entry.kind == "file" and entry.size <= SMALL and copied + entry.size <= MAX_SMALL:
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
            network = self._network(node)
            found = self.fitting(node, network, unseen=node.facts is None)
        except GildError as error:
            raise Wrong(error.message, error.hint) from None
        if not looked_into and (found.edits or found.post):
            raise Wrong(
                f"{node.label}: {ref} is a whole disk nobody looks into, and the profile {node.profile} has files or"
                " scripts for it",
                "install it with another profile: gild.pyz node set NODE --profile NAME",
            )

    def _network(self, node: Node) -> Network:
        roster = self.roster
        return network_of(node, roster.addresses.place(node.address), roster.config.domain, node.mac)

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
            network = self._network(node)
            names = self._names(node, network, whole, open_=False)
            for entry in overlays.overlay(self.folder, whole.chain):
                row, reason, size = _row(entry), "", entry.size
                if entry.kind == "template":
                    try:
                        size = len(self._made(entry, names))
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
                network = self._network(node)
                return {"text": self._made(entry, self._names(node, network, whole, open_=False)).decode()}
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

    def _secret(self, entry: Entry, node: Node, whole: Wanted) -> bytes:
        value = self.secrets.find(entry.secret, node, whole.chain)
        if value is None:
            raise OverlayInvalid(*no_secret(entry.secret, f"/{entry.path}", entry.profile))
        return value

    def _made(self, entry: Entry, names: Names, unseen: bool = False) -> bytes:
        """A template filled in. One that speaks of nothing but the cluster is the same for all its nodes: a hosts file
        for 500 nodes is not to be made 500 times."""
        names.used.clear()
        names.context["profile"]["file"] = f"/{entry.path}"
        name, text, key = str(entry.source), _text_of(entry), (entry.source, entry.stamp)
        spoken = self._renderer.names(name, text)
        nodes, known = self._cluster.nodes if "cluster" in spoken else [], self._same.get(key)
        if known is not None and known[0] is nodes:
            return known[1]
        try:
            made = self._renderer.render(name, text, names.context, names.struck).encode()
        except UnicodeEncodeError:
            raise RenderFailed(f"{entry.source} comes to text that is not UTF-8") from None
        except RenderFailed:
            if unseen and "facts" in spoken:
                return b""
            raise
        if "cluster" in spoken and spoken <= {"cluster", "head"}:
            if len(self._same) >= MAX_SAME:
                self._same.clear()
            self._same[key] = nodes, made
        return made

    def _names(self, node: Node, network: Network, whole: Wanted, *, open_: bool) -> Names:
        return names_of(node, network, whole, self.roster, self.secrets, self._cluster, open_=open_)


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
