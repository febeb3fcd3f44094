"""A golden client: the scripts its shell is given, and what it says of itself.

`probe` prints what the client is; `reading` writes the archive between two marks, and behind it what tar said. An
archive without its second mark is not whole: for tar alone, a stream that broke between two files looks like one that
ended. Everything a client says is checked.
"""

from __future__ import annotations

import re
import secrets
import shlex
from dataclasses import dataclass

from images.errors import SourceInvalid
from images.sources.leftout import FAT, Mount, Selection, Wishes, read_mounts, select

# Attributes as they are: that keeps ACLs with numbers, capabilities and SELinux labels, where --acls would write names
# only the client's user database knows.
TAR = (
    "tar", "--create", "--file=-", "--format=posix", "--pax-option=delete=atime,delete=ctime", "--numeric-owner",
    "--sparse", "--xattrs", "--xattrs-include=*", "--warning=no-file-ignored", "--anchored",
)  # fmt: skip
MAX_FACTS = 4 << 20  # bytes a client may say about itself
MAX_SAID = 40  # lines of tar's warnings
PACKAGE_TOOL = {  # how to get GNU tar, by ID of os-release(5)
    "alpine": "apk add tar", "arch": "pacman -S tar", "void": "xbps-install tar", "gentoo": "emerge app-arch/tar",
    "opensuse-leap": "zypper install tar", "opensuse-tumbleweed": "zypper install tar", "sles": "zypper install tar",
    "debian": "apt install tar", "ubuntu": "apt install tar",
}  # fmt: skip
FACTS = r"""
LC_ALL=C; PATH="$PATH:/usr/sbin:/sbin"; export LC_ALL PATH
section() { echo "== $1"; sed 's/^/ /'; }
facts() {
  echo "$root" | section root
  uname -s | section system
  uname -n | section host
  uname -r | section kernel
  uname -m | section machine
  id -u | section user
  tar --version 2>&1 | head -n 1 | section tar
  { TAR --files-from=/dev/null 2>&1 >/dev/null; echo "exit $?"; } | section check
  sed -n 's/^ID=//p' "$root/etc/os-release" 2>/dev/null | section release
  stat -f -c '%S %b %f' "$root" 2>/dev/null | section used
  findmnt -rno UUID "${root%/}/boot" 2>/dev/null | section boot
  cat /proc/self/mountinfo | section mounts
  cat /proc/swaps 2>/dev/null | section swaps
  cat /proc/[0-9]*/comm 2>/dev/null | sort -u | section running
  echo "== end"
}
""".replace("TAR", shlex.join(TAR))
READ = r"""
read_all() {
  cd ROOT || exit 1
  exec 3>&1
  printf '\n%s\n' MARK
  said=$({ TAR . 2>&1 >&3 3>&- </dev/null; echo "exit $?"; } | tail -n LINES | cut -c 1-300)
  printf '\n%s\n%s\n' MARK "$said"
}
"""


@dataclass(frozen=True)
class Client:
    """What a golden client says of itself; all of it is text from there."""

    root: str
    system: str
    host: str
    kernel: str
    machine: str
    user: str
    tar: str
    check: tuple[str, ...]  # what tar says to the options wanted, and how it ended
    release: str
    used: int  # bytes of the root filesystem
    boot: str  # UUID of the filesystem on /boot, if it has one of its own
    mounts: tuple[Mount, ...]
    swaps: tuple[str, ...]
    running: tuple[str, ...]


def probe(root: str = "/") -> str:
    """The script that prints what the client is; `root` is its root directory, another one to read what lies there."""
    return f"root={shlex.quote(root)}\n{FACTS}\nfacts </dev/null\n"


def read_facts(data: bytes) -> Client:
    """What `probe` printed. Raises SourceInvalid if it is not that, or cut off."""
    sections: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in data.decode("utf-8", "surrogateescape").split("\n"):
        if line.startswith("== "):
            lines = sections.setdefault(line[3:30], [])
        elif line.startswith(" "):
            lines.append(line[1:])
    if "end" not in sections or len(data) >= MAX_FACTS:
        raise SourceInvalid("the client does not say what it is: its shell ended before the probe did")

    def one(name: str) -> str:
        return printable(next(iter(sections.get(name, ())), ""))[:200]

    root = next(iter(sections.get("root", ())), "")
    blocks = [int(word) for word in re.findall(r"\b\d{1,15}\b", one("used"))]
    return Client(
        root=root or "/",
        system=one("system"),
        host=one("host") or "an unnamed client",
        kernel=one("kernel"),
        machine=one("machine"),
        user=one("user"),
        tar=one("tar"),
        check=tuple(printable(line)[:300] for line in sections.get("check", ())[-MAX_SAID:]),
        release=one("release").strip("\"'"),
        used=blocks[0] * max(0, blocks[1] - blocks[2]) if len(blocks) == 3 else 0,
        boot=one("boot"),
        mounts=tuple(read_mounts(sections.get("mounts", ()), root or "/")),
        swaps=tuple(sections.get("swaps", ())),
        running=tuple(sections.get("running", ())),
    )


def choose(client: Client, wishes: Wishes) -> Selection:
    """What of a client is taken. Raises SourceInvalid if it cannot be read, saying what it lacks, or for a wish that
    cannot be fulfilled."""
    if client.system != "Linux":
        raise SourceInvalid(f"{client.host} runs {client.system or 'nobody knows what'}; only Linux can be captured")
    if client.user != "0":
        raise SourceInvalid(f"reading every file of {client.host} needs root there", "log in as root or allow sudo")
    if "GNU tar" not in client.tar:
        what = client.tar if client.tar and "not found" not in client.tar else "no tar"
        how = PACKAGE_TOOL.get(client.release, "dnf install tar")
        raise SourceInvalid(f"{client.host} has {what}; GNU tar is needed, which keeps all of a file", f"there: {how}")
    complaints = [line for line in client.check if not line.startswith("exit ")]
    if "exit 0" not in client.check:
        said = " | ".join(complaints[:3])
        raise SourceInvalid(f"{client.tar} of {client.host} is too old: {said}", "GNU tar 1.27 or later is needed")
    selection = select(client.mounts, client.swaps, client.running, wishes)
    return Selection(
        selection.taken, selection.left, selection.points, (*complaints[: MAX_SAID // 4], *selection.warnings)
    )


def own_boot(client: Client, selection: Selection) -> bool:
    """Whether /boot is taken from a filesystem of its own. An EFI partition there does not count: it comes as files."""
    return "/boot" in selection.taken and any(
        mount.point == "/boot" and mount.fs not in FAT and mount.root == "/" for mount in client.mounts
    )


def new_mark() -> str:
    """A mark no file of the client can hold: it is made now."""
    return f"gild-{secrets.token_hex(16)}"


def reading(selection: Selection, root: str, mark: str) -> str:
    """The script that writes the archive of what was selected, between two lines `mark`."""
    argv = [*TAR, *(f"--exclude=.{left.pattern}" for left in selection.left)]
    words = {"ROOT": shlex.quote(root), "MARK": mark, "TAR": shlex.join(argv), "LINES": str(MAX_SAID)}
    return "LC_ALL=C; export LC_ALL\n" + re.sub("ROOT|MARK|TAR|LINES", lambda word: words[word[0]], READ) + "read_all\n"


def printable(text: str) -> str:
    """Text of a client with nothing in it that a terminal or a manifest could stumble over."""
    return "".join(c if c.isprintable() else "?" for c in text)
