"""Making things definite: which image, disk and partitions an order means, and the plan that carries it out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from appliance.config import Config
from appliance.errors import Wrong
from images.errors import GildError
from images.manifest import Manifest
from netboot import disks, layout
from netboot.ipxe import base_url
from netboot.node import Node
from netboot.order import Order
from netboot.plan import BootPiece, DiskRule, Edit, InstallPlan, Network
from netboot.profile import Profile
from netboot.report import HOME, Disk

if TYPE_CHECKING:
    from images.store import Store as Images

# Boot loader files the agent may need for an image that brings none (netboot.plan.BootPiece).
BOOT_PIECES = ("boot.img", "core.img", "shimx64.efi", "grub-disk.efi", "mmx64.efi")

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


def make_plan(
    node: Node, order: Order, profile: Profile, config: Config, mac: str, piece: BootPieceOf, keys: dict[str, str]
) -> InstallPlan:
    """Everything the agent needs. `mac` is the card the node booted from, `keys` its host keys by file name."""
    base = base_url(config.address, config.http_port)
    home = f"{base}{HOME}{node.id}"
    network = Network(
        mac=mac, address=node.address, prefix=config.network.prefixlen, gateway=config.router, dns=(config.address,),
        domain=config.domain,
    )  # fmt: skip
    return InstallPlan(
        order=str(order.id),
        node=node.name,
        image=order.image,
        manifest=order.digest,
        sources=(base,),
        disk=order.disk,
        layout=profile.layout,
        network=network,
        edits=_edits(node, config, network, keys, home, order.home_secret),
        boot=tuple(found for name in BOOT_PIECES if (found := piece(name)) is not None),
        cmdline=profile.cmdline,
        finish=order.finish,
        verify=profile.verify or config.verify,
        home_url=home,
        home_secret=order.home_secret,
    )


def _edits(
    node: Node, config: Config, network: Network, keys: dict[str, str], home: str, secret: str
) -> tuple[Edit, ...]:
    """The changes every node gets, in the order in which they are applied."""
    return (
        Edit("hostname", {"name": node.name, "domain": config.domain}),
        Edit("network", {
            "mac": network.mac, "address": network.address, "prefix": network.prefix, "gateway": network.gateway,
            "dns": list(network.dns), "domain": network.domain, "name": network.name,
        }),
        Edit("hosts", {
            "name": node.name, "domain": config.domain, "address": node.address,
            "entries": {config.address: f"head.{config.domain} head"},
        }),
        Edit("resolv", {"dns": list(network.dns), "domain": config.domain}),
        Edit("machine_id", {"id": node.machine_id}),
        Edit("host_keys", {"keys": keys}),
        Edit("fstab", {}),
        Edit("call_home", {"url": home, "secret": secret}),
    )  # fmt: skip
