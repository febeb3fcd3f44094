"""What people call many nodes at once: @rack1, @profile:gpu, @state:failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from appliance.errors import Unknown
from appliance.timeline import clean
from netboot.node import Node, State

_GROUPINGS: dict[str, Callable[[Node], str]] = {
    "profile": lambda node: node.profile if node.name else "",
    "image": lambda node: node.image.partition(":")[0],
    "state": lambda node: node.state.value,
}


def members(name: str, nodes: Sequence[Node]) -> list[str]:
    """The labels of @all, @GROUP, @profile:NAME, @image:NAME or @state:NAME among `nodes`, in their order. Raises
    Unknown."""
    if name == "all":
        return [node.name for node in nodes if node.name]
    kind, colon, value = name.partition(":")
    if not colon:
        known = sorted({group for node in nodes for group in node.groups})
        found = [node.label for node in nodes if name in node.groups]
    else:
        of = _GROUPINGS.get(kind)
        known = sorted(f"{kind}:{of(node)}" for node in nodes) if of else [f"{k}:" for k in _GROUPINGS]
        found = [node.label for node in nodes if of and of(node) == value]
        if kind == "state" and value in list(State):
            return found  # a state nobody is in is no slip of the pen
    if not found:
        hint = f"groups: {', '.join(dict.fromkeys(['all', *known]))}"
        raise Unknown(f"there is no group {clean(name)[:80]!r}", hint[:300])
    return found
