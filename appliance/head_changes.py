"""What people do with machines: let them out of the waiting room, change what is wanted of them, forget them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from appliance.errors import Unknown, Wrong
from appliance.head_nodes import Nodes
from appliance.host_keys import HostKeys
from appliance.roster import Roster
from appliance.sessions import Sessions
from appliance.timeline import clean
from netboot.naming import check_name, in_rack, is_pattern, next_names
from netboot.node import Event, Node, State
from netboot.noderange import check_group
from netboot.profile import DEFAULT
from netboot.wanted import check_own, wanted


class Changes:
    """The operator's use cases that change nodes."""

    def __init__(self, roster: Roster, keys: HostKeys, sessions: Sessions, nodes: Nodes) -> None:
        self.roster, self.keys, self.sessions, self.nodes = roster, keys, sessions, nodes

    def approve(
        self,
        refs: Sequence[str] | None,
        profile: str = DEFAULT,
        names: str | None = None,
        *,
        groups: Iterable[str] = (),
        rack: int | None = None,
    ) -> list[dict[str, Any]]:
        """Let machines out of the waiting room (None: all of them, in the order of arrival). `names` is a pattern,
        or for one machine a name; None is the pattern of the profile or of the settings. They join `groups`; with
        `rack` {r} in the pattern is its number, and they join the group rackR. On the disk before it is shown. Raises
        Unknown, Wrong, NameInvalid, NoderangeInvalid, ProfileInvalid, NoSpace, and then nobody is approved."""
        roster = self.roster
        self._check_profile(profile)
        doubt = {node.id: self.nodes.like(node) for node in roster.strangers()}
        chosen = [node for node in roster.strangers() if not doubt[node.id]] if refs is None else roster.select(refs)
        for node in chosen:
            if node.state is not State.WAITING:
                raise Wrong(f"{node.label} is approved already", "rename it with: gild.pyz node set NODE --name NAME")
            if like := doubt[node.id]:
                raise Wrong(
                    f"{node.label} looks like {like.label}, with another network card",
                    f"say which it is: gild.pyz node same {node.id} {like.label}, or node other {node.id}",
                )
            if not node.mac:
                raise Wrong(f"{node.label} has shown no network card that could have an address")
        pattern = in_rack(names or wanted(profile, roster.profiles).profile.names or roster.config.names, rack)
        joined = {*map(check_group, groups), *([f"rack{rack}"] if rack is not None else [])}
        given = self._names(pattern, len(chosen))
        places = self._addresses(chosen)
        with roster.durable(chosen):
            for node, name, address in zip(chosen, given, places, strict=True):
                roster.pool.reserve(node.mac, address)
                known = {"name": name, "profile": profile, "address": address}
                roster.apply(node, Event.APPROVED, **known, groups=tuple(sorted({*node.groups, *joined})))
        for node, name in zip(chosen, given, strict=True):
            self.keys.want(node.id, name)
            self.sessions.wake(node.id)
        return [self.nodes.row(roster.nodes[node.id]) for node in chosen]

    def _check_profile(self, name: str) -> None:
        known = ", ".join(sorted(self.roster.profiles))
        if name not in self.roster.profiles:
            raise Unknown(f"there is no profile {clean(name)[:80]!r}", f"profiles: {known}")

    def _names(self, pattern: str, count: int) -> list[str]:
        taken = self.roster.names()
        if is_pattern(pattern):
            return next_names(pattern, taken, count)
        if count > 1:
            raise Wrong(f"{count} machines cannot all be called {pattern[:80]!r}", "give a pattern such as node{n:02}")
        return [self._free_name(pattern)] if count else []

    def _free_name(self, name: str) -> str:
        check_name(name)
        if name in self.roster.names():
            raise Wrong(f"there is a {name} already", "see: gild.pyz node list")
        return name

    def _addresses(self, chosen: list[Node]) -> list[str]:
        """The address each of them has now, or the next free one. Raises Wrong if the range is used up."""
        roster, now = self.roster, self.roster.clock.steady()
        found: list[str] = []
        for node in chosen:
            address = roster.pool.address(node.mac)
            if address is None and roster.config.dhcp == "proxy":
                raise Wrong(
                    f"{node.label} has not asked from an address of the other DHCP server yet", "let it boot once"
                )
            address = address or roster.pool.offer(node.mac, None, now)
            if address is None:
                raise Wrong(
                    f"no address is left for {node.label}",
                    f"the range {roster.config.range_first}-{roster.config.range_last} is used up: serve --range",
                )
            found.append(address)
        return found

    def set(
        self,
        refs: Sequence[str],
        *,
        profile: str | None = None,
        name: str | None = None,
        address: str | None = None,
        loader: str | None = None,
        group: Sequence[str] = (),
        ungroup: Sequence[str] = (),
        own: Mapping[str, str] | None = None,
    ) -> list[dict[str, Any]]:
        """Change what is wanted of approved nodes; None leaves a field as it is. `loader` "secure" or "auto", `group`
        and `ungroup` are groups to join and to leave; `own` are values instead of the profile's, "" for the profile's
        again (netboot.wanted.OWN); a name and an address are for one node alone. All of them or nobody. Raises
        Unknown, Wrong, NameInvalid, NoderangeInvalid, ProfileInvalid, NoSpace."""
        roster = self.roster
        chosen = roster.select(refs)
        if len(chosen) > 1 and (name is not None or address is not None):
            raise Wrong(f"{len(chosen)} nodes cannot have one {'name' if name is not None else 'address'}")
        if profile is not None:
            self._check_profile(profile)
        for word in group:
            check_group(word)
        changed: list[tuple[Node, Node, list[str]]] = []
        for node in chosen:
            if node.state is State.WAITING:
                raise Wrong(f"{node.label} is not approved yet", f"gild.pyz node approve {node.id}")
            after, said = self._wanted(node, profile, loader, group, ungroup)
            if own and (kept := check_own({**node.own, **own})) != node.own:
                after, said = (
                    replace(after, own=kept),
                    [*said, *(f"{key} {own[key] or 'of its profile'}" for key in own)],
                )
            if name is not None and name != node.name:
                after, said = replace(after, name=self._free_name(name)), [*said, f"name {name}"]
            if address is not None and roster.config.dhcp == "proxy":
                raise Wrong("addresses come from the other DHCP server", "reserve this one there")
            if address is not None and address != node.address:
                if not roster.free_address(address):
                    raise Wrong(
                        f"{node.label} cannot have the address {address[:40]!r}", "taken, or not in the network"
                    )
                after, said = replace(after, address=address), [*said, f"address {address}"]
            changed.append((node, after, said))
        with roster.durable([node for node, _, said in changed if said]):
            for node, after, said in changed:
                if said:
                    roster.pool.reserve(node.holder, after.address)
                    roster.replace(after)
                    roster.timeline.add(node.id, f"set by hand: {', '.join(said)}")
        return [self.nodes.row(after) for _, after, _ in changed]

    def _wanted(
        self, node: Node, profile: str | None, loader: str | None, group: Sequence[str], ungroup: Sequence[str]
    ) -> tuple[Node, list[str]]:
        """The node with what many can have in common, and what that is in words."""
        after, said = node, []
        if profile is not None and profile != node.profile:
            after, said = replace(after, profile=profile), [f"profile {profile}"]
        if loader is not None:
            if loader not in ("auto", "secure"):
                raise Wrong(f"loader {loader[:40]!r} is neither auto nor secure")
            after = replace(after, secure=loader == "secure", rung=0)
            said.append("signed loaders" if after.secure else "loaders chosen by trial")
        groups = tuple(sorted({*node.groups, *group} - set(ungroup)))
        if groups != node.groups:
            after = replace(after, groups=groups)
            said.append(f"groups {', '.join(groups)}" if groups else "no group")
        return after, said

    def remove(self, refs: Sequence[str]) -> list[str]:
        """Forget nodes: name, address, host keys, order, timeline. Their disks are not touched. All of them or nobody;
        returns their names. Raises Unknown, Wrong, NoderangeInvalid."""
        chosen = self.roster.select(refs)
        for node in chosen:
            if node.state in (State.INSTALLING, State.CAPTURING):
                raise Wrong(f"{node.label} is {node.state.value}", f"first: gild.pyz node cancel {node.label}")
        for node in chosen:
            self.keys.forget(node.id)
            self.roster.remove(node)
            self.sessions.forget(node.id)
        return [node.label for node in chosen]

    def same(self, ref: str, name: str) -> dict[str, Any]:
        """A machine of the waiting room is that node with another network card: the node keeps name, address, history
        and orders, and has the machine's cards from now on. Raises Unknown, Wrong, NoSpace."""
        roster = self.roster
        stranger, node = roster.find(ref), roster.find(name)
        if stranger.state is not State.WAITING or node.state is State.WAITING:
            raise Wrong(
                f"{stranger.label} would have to wait, and {node.label} to be a node", "see: gild.pyz node list"
            )
        if node.state in (State.INSTALLING, State.CAPTURING):
            raise Wrong(f"{node.label} is {node.state.value}", f"first: gild.pyz node cancel {node.label}")
        if not stranger.mac:
            raise Wrong(f"{stranger.label} has shown no network card")
        after = replace(
            node, macs=stranger.macs, uuid=stranger.uuid or node.uuid, serial=stranger.serial or node.serial,
            facts=stranger.facts or node.facts,
        )  # fmt: skip
        self.sessions.forget(stranger.id)
        roster.remove(stranger)
        with roster.durable([node]):
            roster.pool.unreserve(node.mac)
            roster.pool.reserve(after.mac, node.address)
            roster.replace(after)
            roster.timeline.add(node.id, f"has another network card: {after.mac} for {node.mac}", "good")
        return self.nodes.row(after)

    def other(self, ref: str) -> dict[str, Any]:
        """A machine of the waiting room is not the node it looks like. Raises Unknown, Wrong, NoSpace."""
        stranger = self.roster.find(ref)
        like = self.nodes.like(stranger)
        if stranger.state is not State.WAITING or like is None:
            raise Wrong(f"{stranger.label} does not look like another one", "see: gild.pyz node list")
        after = replace(stranger, apart=(*stranger.apart, like.id))
        with self.roster.durable([stranger]):
            self.roster.replace(after)
            self.roster.timeline.add(stranger.id, f"is not {like.label}: said by hand", "good")
        return self.nodes.row(after)
