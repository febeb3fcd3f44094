"""Which SELinux label a file of a system should have, by the system's own table (selabel_file(5), file_contexts(5))."""

from __future__ import annotations

import re
from collections.abc import Callable

DIRECTORY = "etc/selinux"
MAX_RULES = 50_000  # Fedora has 6000
_META = re.compile(
    r"[.^$?*+|\[({]"
)  # what makes a rule a pattern, as libselinux counts (label_file.h, spec_hasMetaChars)
_NONE = "<<none>>"
KINDS = {"--": "f", "-d": "d", "-l": "l"}


class Labels:
    """The table of one system. `contexts` and `subs` are the texts of file_contexts and file_contexts.subs_dist, each
    with the site's own additions (.local, .subs) behind it."""

    def __init__(self, contexts: str, subs: str = "") -> None:
        self._rules: list[tuple[str, str, str, str]] = []  # fixed beginning, pattern or "", kind or "", label
        exact = []
        for line in contexts.splitlines()[:MAX_RULES]:
            words = line.split()
            if len(words) not in (2, 3) or not words[0].startswith("/") or (len(words) == 3 and words[1][:1] != "-"):
                continue
            kind = KINDS.get(words[1], "other") if len(words) == 3 else ""
            meta = _META.search(re.sub(r"\\.", "__", words[0]))
            if meta:
                self._rules.append((_beginning(words[0], meta.start()), words[0], kind, words[-1]))
            else:
                exact.append((_plain(words[0]), "", kind, words[-1]))
        self._rules += exact  # a plain path counts more than any pattern
        self._subs = [(w[0], w[1]) for line in subs.splitlines() if len(w := line.split()) == 2 and w[0][0] == "/"]

    def of(self, path: str, kind: str) -> bytes:
        """The label of `path` in the system ("/etc/hostname"), of kind "f", "d" or "l", as its attribute has it;
        b"" if the table has none. Of several rules the last one counts."""
        for old, new in self._subs:
            if path == old or path.startswith(f"{old}/"):
                path = new + path[len(old) :]
                break
        for begin, pattern, wanted, label in reversed(self._rules):
            if (wanted and wanted != kind) or not path.startswith(begin):
                continue
            if pattern:
                try:
                    fits = re.fullmatch(pattern, path) is not None
                except re.error:  # a form that only PCRE has
                    continue
            else:
                fits = path == begin
            if fits:
                return b"" if label == _NONE else label.encode() + b"\0"
        return b""


def _plain(pattern: str) -> str:
    return re.sub(r"\\(.)", r"\1", pattern)


def _beginning(pattern: str, end: int) -> str:
    """What every path has in front that fits `pattern`, whose first special character is at `end`."""
    if "|" in pattern.partition("(")[0]:
        return ""
    plain = _plain(pattern[:end])
    return plain[:-1] if pattern[end] in "?*{" else plain  # the character before one of these may be missing


def labels_of(text: Callable[[str], str]) -> Labels | None:
    """The table of the system whose files `text` reads ("" for none there), None if it uses no SELinux."""
    config = text(f"{DIRECTORY}/config")
    mode = re.search(r"(?m)^SELINUX=(\w+)", config)
    kind = re.search(r"(?m)^SELINUXTYPE=([\w-]+)", config)
    if mode is None or mode[1] == "disabled" or kind is None:
        return None
    base = f"{DIRECTORY}/{kind[1]}/contexts/files/file_contexts"
    contexts = text(base)
    if not contexts:
        return None
    more = text(f"{base}.local")
    return Labels(f"{contexts}\n{more}", "\n".join([text(f"{base}.subs_dist"), text(f"{base}.subs")]))
