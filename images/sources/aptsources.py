"""Where packages come from: the head's own apt sources, turned to the suite a recipe wants."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from images.errors import RecipeInvalid
from images.tree import Tree

ONE_LINE = re.compile(r"^deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s*(.*)$")
LOCAL = re.compile(r"(?:^|(?<=\s))(?:file|copy):(?://)?(/\S*)")  # a URI on this machine's own disk
MAX_FILE = 1 << 20  # bytes of one sources file; they have a few hundred
OPTIONS = {"signed-by": "Signed-By", "arch": "Architectures", "trusted": "Trusted"}


@dataclass(frozen=True, slots=True)
class Source:
    """One deb822 stanza (sources.list(5)): its fields by name in lower case; multi-line values keep their newlines."""

    fields: dict[str, str]

    def text(self) -> str:
        """The stanza as apt reads it."""
        return "".join(f"{key.title()}: {value}\n" for key, value in self.fields.items())


def host_sources(etc_apt: Path = Path("/etc/apt")) -> list[Source]:
    """The binary sources this machine's own apt uses, enabled ones only. Unreadable files are left out."""
    found: list[Source] = []
    lists = [etc_apt / "sources.list", *sorted((etc_apt / "sources.list.d").glob("*.list"))]
    for path in [*lists, *sorted((etc_apt / "sources.list.d").glob("*.sources"))]:
        try:
            if path.stat().st_size > MAX_FILE:
                continue
            text = path.read_text(errors="replace")
        except OSError:
            continue
        found += _stanzas(text) if path.suffix == ".sources" else _lines(text)
    return found


def sources_for(suite: str, own: str, sources: list[Source], components: list[str]) -> str:
    """deb822 text for `suite` from the sources of a machine whose own suite is `own`: its archives with the suite's
    name put in ("trixie-updates" for "bookworm-updates"); foreign repositories are left out. `components`, if any,
    replace the machine's. Raises RecipeInvalid if nothing carries the suite."""
    texts = []
    for source in sources:
        suites = [s for s in source.fields.get("suites", "").split() if s == own or s.startswith(own + "-")]
        if not own or not suites:
            continue
        fields = {**source.fields, "suites": " ".join(suite + s[len(own) :] for s in suites)}
        if components:
            fields["components"] = " ".join(components)
        texts.append(Source(fields).text())
    if not texts:
        raise RecipeInvalid(
            f"no apt source of this machine carries the suite {suite!r}", 'write mirror = "http://..." into the recipe'
        )
    return "\n".join(texts)


def mirror_sources(suite: str, mirrors: list[str], components: list[str]) -> str:
    """deb822 text for the mirrors a recipe names: URLs, or whole "deb ..." lines. Raises RecipeInvalid."""
    texts = []
    for mirror in mirrors:
        if mirror.startswith("deb "):
            found = _lines(mirror)
            if not found:
                raise RecipeInvalid(f"mirror {mirror!r} is not a line of sources.list", "deb URL SUITE COMPONENTS")
            texts += [source.text() for source in found]
        elif re.fullmatch(r"[a-z+]+:\S+", mirror):
            parts = " ".join(components) or "main"
            texts.append(Source({"types": "deb", "uris": mirror, "suites": suite, "components": parts}).text())
        else:
            raise RecipeInvalid(f"mirror {mirror!r} is not a URL", "http://..., file:/... or a whole 'deb ...' line")
    return "\n".join(texts)


def as_copies(text: str) -> str:
    """deb822 text with "copy:" for each "file:": apt then takes packages into the system that is built, where dpkg,
    which runs inside, can see them (sources.list(5)). Raises RecipeInvalid for a directory that is not there."""
    texts = []
    for source in _stanzas(text):
        uris = source.fields.get("uris", "")
        for path in LOCAL.findall(uris):
            if not Path(path).is_dir():
                raise RecipeInvalid(f"mirror file:{path}: there is no such directory", "mount it, or correct the path")
        texts.append(Source({**source.fields, "uris": re.sub(r"(?m)(^|\s)file:", r"\1copy:", uris)}).text())
    return "\n".join(texts)


def local_sources_out(tree: Path) -> list[str]:
    """Take sources that lie on this machine's disk out of a tree's apt sources: the node has no such directory, and
    its apt would complain of them for ever. Gives the files changed. Raises TreeInvalid."""
    inside, changed = Tree(str(tree)), []
    folder = "etc/apt/sources.list.d"
    for path in ("etc/apt/sources.list", *(f"{folder}/{name}" for name in inside.names(folder, "*"))):
        text = inside.text(path) if inside.is_file(path) else ""
        found = _stanzas(text) if path.endswith(".sources") else _lines(text)
        kept = [source for source in found if not _is_local(source)]
        if len(kept) == len(found):
            continue
        if path.endswith(".sources"):
            left = "\n".join(source.text() for source in kept)
        else:
            left = "".join(line for line in text.splitlines(keepends=True) if not any(map(_is_local, _lines(line))))
        changed.append(path)
        if left.strip():
            inside.write(path, left)
        else:
            inside.remove(path)
    return changed


def host_suite(os_release: Path = Path("/etc/os-release")) -> str:
    """VERSION_CODENAME of this machine, empty if it has none."""
    try:
        match = re.search(r'(?m)^VERSION_CODENAME="?([a-z0-9.-]+)"?$', os_release.read_text(errors="replace"))
    except OSError:
        return ""
    return match[1] if match else ""


def _is_local(source: Source) -> bool:
    return bool(LOCAL.search(source.fields.get("uris", "")))


def _stanzas(text: str) -> list[Source]:
    found = []
    for block in re.split(r"\n[ \t]*\n", text):
        fields: dict[str, str] = {}
        key = ""
        for line in block.splitlines():
            if line.startswith("#") or not line.strip():
                continue
            if line[0] in " \t" and key:
                fields[key] += "\n" + line
            elif ":" in line:
                key, _, value = line.partition(":")
                key = key.strip().lower()
                fields[key] = value.strip()
        if "deb" in fields.get("types", "").split() and fields.get("enabled", "yes").lower() not in (
            "no",
            "false",
            "0",
        ):
            found.append(Source({**fields, "types": "deb"}))
    return found


def _lines(text: str) -> list[Source]:
    found = []
    for line in text.splitlines():
        match = ONE_LINE.match(line.partition("#")[0].strip())
        if not match:
            continue
        fields = {"types": "deb", "uris": match[2], "suites": match[3], "components": match[4].strip()}
        for option in (match[1] or "").split():
            key, _, value = option.partition("=")
            if key.lower() in OPTIONS:
                fields[OPTIONS[key.lower()].lower()] = value.replace(",", " ")
        if not fields["components"]:
            del fields["components"]
        found.append(Source(fields))
    return found
