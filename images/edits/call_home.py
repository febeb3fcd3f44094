"""The installed system tells the head once that it is up, whatever it has or lacks: the means come with the edit."""

from __future__ import annotations

import re
import struct
from typing import Any

from images.distro import inits, rclocal
from images.edits import option
from images.errors import GildError
from images.tree import Tree

OPTIONS = {
    "url": "http:// address of the one call, an IPv4 address in it",
    "secret": "hexadecimal digits that prove who calls",
    "busybox": "statically linked busybox on the machine that runs this edit",
}
BUSYBOX = "/bin/busybox"  # of the installer
MAX_BUSYBOX = 16 << 20
DIRECTORY = "usr/local/lib/gild"
# SELinux has programs in a folder of that name as bin_t, which init may start, and not as lib_t (file_contexts).
PROGRAM = f"{DIRECTORY}/bin/busybox"
UNIT = "gild-home.service"
START = "gild-home"
PATIENCE = 1800  # seconds of one boot; a head that comes back later hears of the node at its next boot
_URL = re.compile(r"http://([0-9.]{7,15})(?::([0-9]{1,5}))?(/[A-Za-z0-9._~/-]*)")
_SECRET = re.compile(r"[0-9a-fA-F]{16,256}")

# The head hashes secret and body as they come (netboot.report.HOME): no newline behind the last line. printf is a
# builtin of the shell, so the secret is never an argument of a process that others could see. Not wget: it asks for the
# port of "http" through the C library's name service, which a static program loads from the system it runs in, and dies
# of it where that is another one or has none (measured: busybox-static 1.35). nc with numbers asks nobody. The sleep
# keeps its input open: it closes its half of the connection at the end of it, and asyncio then drops the whole.
SCRIPT = """\
#!/{program} sh
# Tells the head node once that this system is up, then removes itself and all that came with it.
dir=/{directory}
bb=/{program}
host={host}
port={port}
path='{path}'
umask 077
read -r secret <$dir/secret || [ -n "$secret" ] || exit 0
read -r up rest </proc/uptime
last=$((${{up%%.*}} + {patience}))
pause=1
while :; do
    name=$($bb hostname)
    address=$($bb ip -4 -o addr show scope global | $bb awk '{{ sub("/.*", "", $4); printf "%s%s", s, $4; s = " " }}')
    kernel=$($bb uname -r)
    read -r boot_id </proc/sys/kernel/random/boot_id
    root=
    while read -r source mount rest; do
        [ "$mount" = / ] && root=$source
    done </proc/mounts
    body="hostname $name
address $address
kernel $kernel
boot_id $boot_id
root $root"
    proof=$(printf '%s%s' "$secret" "$body" | $bb sha256sum)
    length=$(printf '%s' "$body" | $bb wc -c)
    head="POST $path HTTP/1.0\\r\\nHost: $host:$port\\r\\nGild-Proof: ${{proof%% *}}\\r\\n"
    reply=$({{ printf "${{head}}Content-Length: $length\\r\\n\\r\\n%s" "$body" && $bb sleep 5; }} |
        $bb timeout 30 $bb nc -w 10 $host $port 2>/dev/null)
    case $reply in
    "HTTP/1."?" 200"*) break ;;
    esac
    read -r up rest </proc/uptime
    [ "${{up%%.*}}" -ge "$last" ] && exit 1
    $bb sleep $pause
    [ $pause -lt 15 ] && pause=$((pause + 1))
done
$bb rm -f $dir/secret
{clean}
exec $bb rm -rf $dir
"""


def apply(root: str, options: dict[str, Any]) -> list[str]:
    """Put busybox, a script, the secret (mode 0600) and whatever starts the script into the tree. The script tries for
    half an hour of each boot until the head takes the call, and then removes all of it. Without a url nothing is done.
    Raises OptionInvalid, TreeInvalid, and GildError for a busybox or an init that will not do."""
    url = option.text(options, "url", "call_home", default="")
    if not url:
        return []
    secret = option.text(options, "secret", "call_home")
    place = _URL.fullmatch(url)
    if not place or not 0 < int(place[2] or 80) < 65536:
        raise option.OptionInvalid(f"edit call_home: {url[:80]!r} is not an http:// address with an IPv4 address in it")
    host, port = option.ipv4(place[1], "call_home"), int(place[2] or 80)
    if not _SECRET.fullmatch(secret):
        raise option.OptionInvalid("edit call_home: the secret is not a hexadecimal number")
    program = _busybox(option.text(options, "busybox", "call_home", default=BUSYBOX))
    tree = Tree(root)
    init = inits.init_of(tree)
    clean = _start(tree, init)
    script = SCRIPT.format(
        directory=DIRECTORY, program=PROGRAM, host=host, port=port, path=place[3], patience=PATIENCE, clean=clean
    )
    changed = tree.write(PROGRAM, program, 0o755)
    changed |= tree.write(f"{DIRECTORY}/home", script, 0o700)
    changed |= tree.write(f"{DIRECTORY}/secret", secret + "\n", 0o600)
    return [f"call home to {url} ({init})"] if changed else []


def _busybox(path: str) -> bytes:
    """The program's bytes. Raises GildError if it would not run in another system."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BUSYBOX + 1)
    except OSError as error:
        raise GildError(f"edit call_home: {path} cannot be read: {error.strerror}") from None
    if not 64 <= len(data) <= MAX_BUSYBOX or not data.startswith(b"\x7fELF\x02\x01"):
        raise GildError(f"edit call_home: {path} is not a program of 64 bits")
    # elf(5): program headers; one of type PT_INTERP (3) names a loader, which the installed system may not have.
    (offset,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    for n in range(count):
        at = offset + n * size
        if at + 4 > len(data) or struct.unpack_from("<I", data, at)[0] == 3:
            raise GildError(f"edit call_home: {path} is not statically linked", "Debian has it as busybox-static")
    return data


def _start(tree: Tree, init: str) -> str:
    """Have the script started at boot; gives the shell lines that undo that."""
    command = f"/{PROGRAM} sh /{DIRECTORY}/home"
    if init == "systemd":
        # Type=simple: nothing waits for the call. network-online.target may never be reached, so the script retries.
        unit = (
            "[Unit]\nDescription=Tell the head node once that this system is up\nAfter=network.target\n"
            f"ConditionPathExists=/{DIRECTORY}/secret\n\n[Service]\nType=simple\nExecStart={command}\n\n"
            "[Install]\nWantedBy=multi-user.target\n"
        )
        tree.write(f"{inits.UNIT_DIRS[0]}/{UNIT}", unit, 0o644)
        inits.enable(tree, UNIT, "multi-user.target")
        etc = f"/{inits.UNIT_DIRS[0]}"
        return f"$bb rm -f {etc}/multi-user.target.wants/{UNIT} {etc}/{UNIT}"
    if init == "openrc":
        # local.d of OpenRC: scripts of the service "local", which Debian's OpenRC has in no runlevel that is started.
        tree.write(f"etc/local.d/{START}.start", f"#!/bin/sh\n{command} >/dev/null 2>&1 &\n", 0o755)
        if tree.lexists("etc/init.d/local"):
            tree.make_link("etc/runlevels/default/local", "/etc/init.d/local")
        return f"$bb rm -f /etc/local.d/{START}.start"
    if init in ("runit", "sysvinit"):
        rclocal.set_block(tree, "call home", [f"{command} >/dev/null 2>&1 &"])
        begin, end = rclocal.marks("call home")
        return f"$bb sed -i '/^{begin}$/,/^{end}$/d' /{rclocal.PATH}"
    raise GildError("edit call_home: what starts this system is not known", "the image needs systemd, OpenRC or runit")
