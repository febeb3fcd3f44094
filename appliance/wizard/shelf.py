"""The images there are, as the steps of the wizard see them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.wizard.facts import Image
from images.manifest import Manifest

if TYPE_CHECKING:
    from images.store import Store

LOCKED = "nobody can log in"  # the check of images.checks.logins


def tagged(store: Store, name: str) -> Image:
    """The version of an image that nodes get, with what is known of all its versions. Raises what reading one does."""
    numbers = store.versions(name)
    manifests = {number: store.load(f"{name}:{number}")[0] for number in numbers}
    given = manifests.get(store.tag(name), manifests[numbers[-1]])
    checks = [check for check in given.checks if check.get("found")]
    return Image(
        name,
        given.version,
        numbers[-1],
        str(given.system.get("pretty", "")),
        str(given.system.get("id", "")),
        str(given.source.get("recipe", "")),
        any(check["name"] == LOCKED for check in checks),
        tuple(str(check["name"]) for check in checks if check.get("severity") == "error"),
        tuple(sorted({piece for manifest in manifests.values() for piece in _edited(manifest)})),
    )


def _edited(manifest: Manifest) -> list[str]:
    command = manifest.source.get("command", [])
    return [str(piece) for piece in command] if isinstance(command, list) else []
