"""Everything a template can name: the node, its hardware, its place in the network, its profile, the whole cluster, and
secrets by asking for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Network
from typing import Any

from appliance.head_secrets import Secrets
from appliance.roster import Roster
from appliance.timeline import clean
from netboot.node import Node, State
from netboot.plan import Network
from netboot.profile import rule_text
from netboot.report import Facts
from netboot.wanted import Wanted

TELLING = 8  # characters of a secret that no message may show


@dataclass
class Names:
    """What one node's templates can name, by name; and the secrets they have asked for so far."""

    context: dict[str, Any]
    used: dict[str, str] = field(default_factory=dict)

    def struck(self, text: str) -> str:
        """`text`, which came from a failing template, without any secret that had a part in it."""
        for name, value in self.used.items():
            for said in (value, repr(value)[1:-1], value.strip()):
                text = text.replace(said, hidden(name)) if said else text
            if any(value[at : at + TELLING] in text for at in range(len(value) - TELLING + 1)):
                return f"it fails with the secret {name} in hand, so how is not told"
        return text


class Cluster:
    """All approved nodes, as rows; made when a template asks for them and kept while none of them changes, for a whole
    rack asks at once."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._key: tuple[Any, ...] = ()
        self._rows: list[dict[str, Any]] = []

    @property
    def domain(self) -> str:
        """The DNS zone of the cluster."""
        return self._roster.config.domain

    @property
    def nodes(self) -> list[dict[str, Any]]:
        """A row a node, by name."""
        nodes = [node for node in self._roster.sorted() if node.name and node.state is not State.WAITING]
        key = tuple((node.name, node.address, node.macs, node.profile, node.groups, node.facts) for node in nodes)
        if self._key != key:
            sizes = ("cores", "threads", "memory")
            rows = [{**_row(node), **{name: getattr(node.facts, name, 0) for name in sizes}} for node in nodes]
            self._key, self._rows = key, rows
        return self._rows


def names_of(
    node: Node, network: Network, whole: Wanted, roster: Roster, secrets: Secrets, cluster: Cluster, *, open_: bool
) -> Names:
    """What the templates of a node can name. With `open_` secrets are what they are, else they are struck out."""
    config, profile, subnet = roster.config, whole.profile, roster.addresses.place(node.address)
    names = Names({
        "node": {**_row(node), "machine_id": node.machine_id, "uuid": node.uuid, "serial": node.serial},
        "facts": asdict(node.facts or Facts()),
        "network": {
            **asdict(network), "dns": list(network.dns),
            "netmask": str(IPv4Network(f"0.0.0.0/{network.prefix}").netmask),
        },
        "profile": {
            "name": profile.name, "chain": list(whole.chain), "image": profile.image, "cmdline": profile.cmdline,
            "disk": rule_text(profile.disk), "file": "",
        },
        "head": {"name": "head", "address": subnet.head, "domain": config.domain, "ntp": subnet.ntp},
        "cluster": cluster,
    })  # fmt: skip
    names.context["secret"] = _asking(names, node, whole, secrets, open_)
    return names


def hidden(name: str) -> str:
    """What is shown in the place of a secret."""
    return f"‹secret {clean(name)[:64]}›"


def no_secret(name: str, path: str, profile: str) -> tuple[str, str]:
    """Message and hint about a secret that is not there."""
    shown = clean(name)[:64]
    wants = f", which {path} of profile {profile} wants" if path else ""
    return f"there is no secret {shown!r} for it{wants}", f"gild.pyz secret set {shown} --profile {profile} FILE"


def _asking(names: Names, node: Node, whole: Wanted, secrets: Secrets, open_: bool) -> Callable[[str], str]:
    def secret(name: str) -> str:
        value = secrets.find(str(name), node, whole.chain)
        if value is None:
            raise LookupError("; ".join(no_secret(str(name), "", whole.profile.name)))
        if not open_:
            return hidden(str(name))
        try:
            # A file made by an editor or echo ends in a newline that is no part of the password in it.
            text = value.decode().removesuffix("\n")
        except UnicodeDecodeError:
            raise LookupError(
                f"the secret {clean(str(name))[:64]} is not text: name it in overlay.toml, secret = ..."
            ) from None
        names.used[str(name)] = text
        return text

    return secret


def _row(node: Node) -> dict[str, Any]:
    return {
        "id": node.id, "name": node.name, "address": node.address, "mac": node.mac, "macs": list(node.macs),
        "profile": node.profile, "groups": list(node.groups),
    }  # fmt: skip
