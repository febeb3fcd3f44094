"""Names that have to be known while no name server answers: the node's own and the head's."""

from __future__ import annotations

from typing import Any

from images.edits import option
from images.tree import Tree

OPTIONS = {
    "name": "host name without domain",
    "domain": "domain, or empty",
    "address": "the node's own IPv4 address",
    "entries": "object: IPv4 address -> names, separated by blanks",
}
MAX_ENTRIES = 4096
BASE = (("127.0.0.1", "localhost"), ("::1", "localhost ip6-localhost ip6-loopback"))


def apply(root: str, options: dict[str, Any]) -> list[str]:
    """Give etc/hosts the lines of the node and of `entries`; a line about one of these addresses or about 127.0.1.1
    (Debian's place for the old name) goes, every other stays. Raises OptionInvalid, TreeInvalid."""
    name = option.host_name(options, "name", "hosts")
    domain = option.domain(options, "domain", "hosts")
    address = option.address(options, "address", "hosts")
    entries = options.get("entries", {})
    if not isinstance(entries, dict) or len(entries) > MAX_ENTRIES:
        raise option.OptionInvalid(f"edit hosts: entries is not an object of at most {MAX_ENTRIES} addresses")
    wanted = {address: f"{name}.{domain} {name}" if domain else name}
    for key in entries:
        names = option.text(entries, key, "hosts").split()
        for part in names:
            if not option.domain({"name": part}, "name", "hosts"):
                raise option.OptionInvalid("edit hosts: an empty name")
        if option.ipv4(key, "hosts") != address and names:
            wanted[key] = " ".join(names)
    tree = Tree(root)
    kept = [line for line in tree.text("etc/hosts").splitlines() if not _replaced(line, wanted, name)]
    known = {line.split()[0] for line in kept if line.split()}
    base = [f"{where}\t{names}" for where, names in BASE if where not in known]
    lines = [*base, *kept, *(f"{where}\t{names}" for where, names in wanted.items())]
    return [f"hosts: {len(wanted)} names"] if tree.write("etc/hosts", "\n".join(lines) + "\n") else []


def _replaced(line: str, wanted: dict[str, str], name: str) -> bool:
    words = line.partition("#")[0].split()
    return bool(words) and (words[0] in wanted or words[0] == "127.0.1.1" or (words[0][0].isdigit() and name in words))
