"""Making things definite: which image, disk and partitions an order means, and the plan that carries it out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from appliance.config import Config
from appliance.errors import Wrong
from images.edits.all import EDITS
from images.edits.option import OptionInvalid
from images.errors import GildError
from images.manifest import Manifest
from netboot import disks, layout
from netboot.ipxe import base_url
from netboot.node import Node
from netboot.order import Order
from netboot.plan import BootPiece, DiskRule, Edit, InstallPlan, Network, Script
from netboot.profile import Profile
from netboot.report import HOME, Disk
from netboot.subnet import Subnet

if TYPE_CHECKING:
    from images.store import Store as Images

# Boot loader files the agent may need for an image that brings none (netboot.plan.BootPiece).
BOOT_PIECES = ("boot.img", "core.img", "shimx64.efi", "grub-disk.efi", "mmx64.efi")

# Options of edits that say who a node is, or that only it can know: no profile may give them.
OWNED: dict[str, tuple[str, ...]] = {
    "hostname": ("name", "domain"),
    "machine_id": ("id",),
    "host_keys": ("keys",),
    "origin": ("image", "manifest", "profile"),
    "call_home": ("url", "secret", "busybox"),
    "fstab": ("mounts",),
    "hosts": ("name", "domain", "address"),
    "network": ("mac", "address", "prefix"),
    "resolv": (),
    "files": (),
}
# What stands in for those while the others are checked.
_EXAMPLE: dict[str, dict[str, Any]] = {
    "hosts": {"name": "node01", "domain": "", "address": "192.0.2.1"},
    "network": {"mac": "00:00:5e:00:53:01", "address": "192.0.2.1", "prefix": 24},
}

BootPieceOf = Callable[[str], BootPiece | None]


@dataclass(frozen=True)
class Choice:
    """What one order would do, definite."""

    node: Node
    profile: Profile
    manifest: Manifest
    digest: str
    rule: DiskRule
    finish: str
    disk: Disk | None  # predicted, or None while the node's hardware is not known

    def row(self) -> dict[str, str]:
        """For people who are to say yes: node, image, the disk and what stands on it."""
        if self.disk is None:
            told, content = f"not seen yet; the rule: {disks.tell(self.rule)}", "unknown"
        else:
            told, content = disks.describe(replace(self.disk, content="")), self.disk.content or "unknown"
        return {"node": self.node.name, "image": self.manifest.ref, "disk": told, "content": content}


def choose_image(images: Images, wanted: str, who: str) -> tuple[Manifest, str]:
    """The manifest and its digest for `wanted` ("name", "name:3", or "" for the only image there is). Raises NotFound,
    ManifestInvalid, and Wrong if there is no image or more than one to choose from."""
    if wanted:
        return images.load(wanted)
    names = images.images()
    if not names:
        raise Wrong(f"there is no image to install on {who}", "make one: gild.pyz image build or image import")
    if len(names) > 1:
        raise Wrong(
            f"{who}: its profile names no image, and there are {len(names)}: {', '.join(names[:10])}",
            "say --image NAME, or set the profile's: gild.pyz profile set PROFILE --image NAME",
        )
    return images.load(names[0])


def predict(node: Node, profile: Profile, manifest: Manifest, rule: DiskRule) -> Disk | None:
    """The disk that would be written, as far as the node's hardware is known. Raises Wrong, naming the node, if none
    or several disks fit the rule, or if the layout does not fit on the disk."""
    if node.facts is None:
        return None
    try:
        disk = disks.choose(node.facts.disks, rule)
        needs = {partition.role: partition.size for partition in manifest.partitions}
        if manifest.whole:
            layout.check_whole(manifest, disk.size, disk.sector)
        else:
            parts = layout.fitted(profile.layout, manifest)
            layout.place(parts, disk.size, node.facts.memory, needs, sector=disk.sector)
    except GildError as error:
        raise Wrong(f"{node.label}: {error.message}", error.hint) from None
    return disk


@dataclass(frozen=True)
class Fitting:
    """What the site's own files and scripts come to for one node: the edit that puts the files in place, the scripts
    before and after."""

    edits: tuple[Edit, ...] = ()
    pre: tuple[Script, ...] = ()
    post: tuple[Script, ...] = ()


def make_plan(
    node: Node,
    order: Order,
    profile: Profile,
    config: Config,
    network: Network,
    piece: BootPieceOf,
    keys: dict[str, str],
    fitting: Fitting,
) -> InstallPlan:
    """Everything the agent needs. `config` has the head's address in the node's network, `network` is the node's place
    in that, `keys` are its host keys by file name."""
    base = base_url(config.address, config.http_port)
    home = f"{base}{HOME}{node.id}"
    return InstallPlan(
        order=str(order.id),
        node=node.name,
        image=order.image,
        manifest=order.digest,
        sources=(base,),
        disk=order.disk,
        layout=profile.layout,
        network=network,
        edits=_with(profile.edits, _edits(node, order, profile, config, network, keys, home)) + fitting.edits,
        boot=tuple(found for name in BOOT_PIECES if (found := piece(name)) is not None),
        cmdline=profile.cmdline,
        finish=order.finish,
        verify=profile.verify or config.verify,
        home_url=home,
        home_secret=order.home_secret,
        profile=profile.name,
        pre=fitting.pre,
        post=fitting.post,
    )


def network_of(node: Node, subnet: Subnet, domain: str, mac: str) -> Network:
    """The node's place in its network; `mac` is the card it boots from."""
    return Network(
        mac=mac, address=node.address, prefix=subnet.net.prefixlen, gateway=subnet.router,
        dns=subnet.dns or (subnet.head,), domain=domain, mtu=subnet.mtu, routes=subnet.routes,
    )  # fmt: skip


def check_edit(edit: Edit, nowhere: str) -> None:
    """Whether a profile may have an edit: one that exists, with options that are not the node's own, of values it can
    use. It is tried on the empty directory `nowhere`. Raises Wrong, OptionInvalid."""
    known, apply = EDITS.get(edit.edit, ({}, None))
    open_ = [name for name in known if name not in OWNED.get(edit.edit, known)]
    if apply is None or not open_:
        usable = [name for name, (options, _) in EDITS.items() if set(options) - set(OWNED.get(name, options))]
        raise Wrong(f"a profile can have no edit {edit.edit[:40]!r}", f"it can have {', '.join(usable)}")
    if unknown := sorted(set(edit.options) - set(open_)):
        raise Wrong(
            f"a profile cannot give the edit {edit.edit} the option {unknown[0][:40]!r}", f"only {', '.join(open_)}"
        )
    try:
        apply(nowhere, {**_EXAMPLE.get(edit.edit, {}), **edit.options})
    except OptionInvalid:
        raise
    except GildError:
        pass  # the directory is no system: nothing can be said about what the edit does to one


def _with(extra: tuple[Edit, ...], edits: tuple[Edit, ...]) -> tuple[Edit, ...]:
    """The edits every node gets with the options of a profile's in place of theirs (tables are put together), then the
    profile's others."""
    more = {edit.edit: edit.options for edit in extra}
    joined = []
    for edit in edits:
        options = dict(edit.options)
        for key, value in more.pop(edit.edit, {}).items():
            old = options.get(key)
            options[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
        joined.append(Edit(edit.edit, options))
    return (*joined, *(Edit(name, options) for name, options in more.items()))


def identity(node: Node, profile: Profile, config: Config, network: Network) -> tuple[Edit, ...]:
    """The changes that say who a node is and where, with what its profile says of them: all that has to be made anew
    when it is renamed or readdressed."""
    edits = _identity(node, config, network)
    names = {edit.edit for edit in edits}
    return _with(tuple(edit for edit in profile.edits if edit.edit in names), edits)


def _identity(node: Node, config: Config, network: Network) -> tuple[Edit, ...]:
    return (
        Edit("hostname", {"name": node.name, "domain": config.domain}),
        Edit("network", {
            "mac": network.mac, "address": network.address, "prefix": network.prefix, "gateway": network.gateway,
            "dns": list(network.dns), "domain": network.domain, "name": network.name, "mtu": network.mtu,
            "routes": list(network.routes),
        }),
        Edit("hosts", {
            "name": node.name, "domain": config.domain, "address": node.address,
            "entries": {config.address: f"head.{config.domain} head"},
        }),
        Edit("resolv", {"dns": list(network.dns), "domain": config.domain}),
    )  # fmt: skip


def _edits(
    node: Node, order: Order, profile: Profile, config: Config, network: Network, keys: dict[str, str], home: str
) -> tuple[Edit, ...]:
    """The changes every node gets, in the order in which they are applied."""
    return (
        *_identity(node, config, network),
        Edit("machine_id", {"id": node.machine_id}),
        Edit("host_keys", {"keys": keys}),
        Edit("origin", {"image": order.image, "manifest": order.digest, "profile": profile.name}),
        Edit("fstab", {}),
        Edit("call_home", {"url": home, "secret": order.home_secret}),
    )  # fmt: skip
