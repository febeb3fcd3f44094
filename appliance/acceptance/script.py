"""What a node is told to run, in plain sh, and how its answer is read.

A script says lines of the form "@word text" and "@end" as the last one; whatever else comes is ssh's or a program's own
complaint. Everything a node says is a claim: bounded here, judged in `checks`, shown escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from shlex import quote

MAX_LINES, MAX_LINE = 400, 1000  # of one answer
DISK_MIB = 64  # written and read on the node's disk
WIRE_MIB = 32  # sent to the node, and back
TOOLS = ("mpirun", "mpicc")
HELLO = "/tmp/gild-hello-"  # and a random word

# date of GNU and of busybox tell nanoseconds for %N, others tell nothing; the uptime is good to 0.01 s everywhere.
_WORDS = """\
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"
say() { echo "@$*"; }
mark() { read -r up idle </proc/uptime; say mark "$1 $(date +%s.%N) $up"; }
command -v timeout >/dev/null || timeout() { shift; "$@"; }
"""

_PROBE = """\
say clock "$(date +%s.%N)"
say name "$(hostname 2>/dev/null || cat /proc/sys/kernel/hostname)"
{ ip -4 -o addr show scope global || busybox ip -4 -o addr show scope global; } 2>/dev/null |
while read -r number card family address rest; do say address "${address%%/*}"; done
[ -r /etc/gild-release ] && head -n 20 /etc/gild-release | while IFS= read -r line; do say release "$line"; done
say threads "$(grep -c '^processor' /proc/cpuinfo)"
blocks=/sys/devices/system/memory
if [ -r $blocks/block_size_bytes ]; then
    say memory "$(cat $blocks/block_size_bytes) $(cat $blocks/memory*/online | grep -c 1)"
fi
while read -r key value unit; do [ "$key" = MemTotal: ] && say memtotal "$value"; done </proc/meminfo
for tool in __TOOLS__; do command -v $tool >/dev/null && say tool $tool; done
for key in ~/.ssh/id_*; do [ -f "$key" ] && say key "$key"; done
if [ -d /run/systemd/system ]; then
    timeout 10 systemctl list-units --state=failed --plain --no-legend --no-pager 2>/dev/null | head -n 20 |
    while read -r unit rest; do say unit "$unit"; done
    say units asked
fi
if getent --help 2>/dev/null | grep -q -- --service; then
    for name in __NAMES__; do
        say forward "$name $(timeout 10 getent -s dns ahostsv4 "$name" | head -n 1)"
    done
    for address in __ADDRESSES__; do
        say reverse "$address $(timeout 10 getent -s dns hosts "$address" | head -n 1)"
    done
fi
"""

_DISK = """\
dir=$(mktemp -d /var/tmp/gild-test.XXXXXX) || { say end; exit 0; }
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
mark write
if dd if=/dev/zero of="$dir/data" bs=1M count=__COUNT__ conv=fsync 2>"$dir/why"; then
    mark written
    mark read
    dd if="$dir/data" of=/dev/null bs=1M iflag=direct 2>/dev/null && mark done
else
    say disk "$(tail -n 1 "$dir/why")"
fi
say end
"""

_WIRE = """\
{ mark in; cat >/dev/null; mark out; head -c __BYTES__ /dev/zero >&3; mark sent; say end; } 3>&1 >&2
"""

_NEXT = """\
timeout 20 ssh -n -o BatchMode=yes -o ConnectTimeout=8 -- __NEXT__ hostname 2>&1 | tail -n 5 |
while IFS= read -r line; do say said "$line"; done
say end
"""

_COMPILE = """\
umask 077
mkdir __FOLDER__ && cd __FOLDER__ && cat >hello.c <<'END' && timeout 60 mpicc -o hello hello.c && say made
#include <mpi.h>
#include <stdio.h>
int main(int argc, char **argv) {
    int rank, size, length, sum;
    char name[MPI_MAX_PROCESSOR_NAME];
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Get_processor_name(name, &length);
    MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    printf("hello %s %d %d\\n", name, size, sum);
    MPI_Finalize();
    return 0;
}
END
say end
"""

# Open MPI refuses root and counts one slot a host unless told otherwise; Hydra (MPICH) knows neither word.
_MPI = """\
case $(mpirun --version 2>&1) in
*"Open MPI"*|*OpenRTE*|*PRRTE*) set -- --allow-run-as-root --host __SLOTS__ ;;
*) set -- -hosts __HOSTS__ -ppn 1 ;;
esac
timeout __SECONDS__ mpirun "$@" -np __COUNT__ __PROGRAM__ 2>&1 | tail -n __LINES__ |
while IFS= read -r line; do say said "$line"; done
say end
"""


def probe(names: Iterable[str], addresses: Iterable[str]) -> str:
    """What a node tells of itself, and what DNS tells it of `names` and `addresses`."""
    return (_WORDS + _PROBE + "say end\n").replace("__TOOLS__", " ".join(TOOLS)).replace(
        "__NAMES__", " ".join(map(quote, names))
    ).replace("__ADDRESSES__", " ".join(map(quote, addresses)))  # fmt: skip


def disk() -> str:
    """Write a file of DISK_MIB MiB to /var/tmp, flushed, read it past the cache, and remove it."""
    return (_WORDS + _DISK).replace("__COUNT__", str(DISK_MIB))


def wire() -> str:
    """Take what comes in, send as much back (on standard output; what it says is on standard error)."""
    return (_WORDS + _WIRE).replace("__BYTES__", str(WIRE_MIB << 20))


def next_one(name: str) -> str:
    """Log in from the node to the next one, the way a user's program would."""
    return (_WORDS + _NEXT).replace("__NEXT__", quote(name))


def compile_hello(folder: str) -> str:
    """Make a hello of MPI in `folder`, which must not exist."""
    return (_WORDS + _COMPILE).replace("__FOLDER__", quote(folder))


def remove(folder: str) -> str:
    """Undo `compile_hello`."""
    return _WORDS + f"rm -rf {quote(folder)}\nsay end\n"


def mpi(names: list[str], program: str, seconds: int) -> str:
    """One process of `program` on each of the nodes."""
    values = {
        "SLOTS": ",".join(f"{name}:1" for name in names), "HOSTS": ",".join(names), "COUNT": str(len(names)),
        "SECONDS": str(seconds), "LINES": str(MAX_LINES - 10), "PROGRAM": quote(program),
    }  # fmt: skip
    text = _WORDS + _MPI
    for key, value in values.items():
        text = text.replace(f"__{key}__", value)
    return text


@dataclass(frozen=True)
class Told:
    """What a node said: texts by word, in order; `complaint` the last line that no script of ours said. `offset` is
    how many seconds its clock is ahead of the head's, None if it did not tell."""

    words: dict[str, tuple[str, ...]] = field(default_factory=dict)
    complaint: str = ""
    offset: float | None = None

    @property
    def whole(self) -> bool:
        """It was heard to its end."""
        return "end" in self.words

    def all(self, word: str) -> tuple[str, ...]:
        """Every text of that word."""
        return self.words.get(word, ())

    def first(self, word: str) -> str:
        """The first one, or ""."""
        return next(iter(self.all(word)), "")

    def span(self, begin: str, end: str) -> float | None:
        """Seconds between two marks; None if one is missing or time went backwards."""
        marks = {name: rest for name, _, rest in (text.partition(" ") for text in self.all("mark"))}
        if begin not in marks or end not in marks:
            return None
        for column in (0, 1):
            one, two = (_number(marks[name], column) for name in (begin, end))
            if one is not None and two is not None and two > one:
                return two - one
        return None


def read(lines: Iterable[tuple[float, str]]) -> Told:
    """An answer, line by line with the head's time (seconds since 1970) of its arrival. Takes anything."""
    words: dict[str, tuple[str, ...]] = {}
    complaint, offset = "", None
    for count, (at, line) in enumerate(lines):
        if count >= MAX_LINES:
            break
        match = re.fullmatch(r"@([a-z]{1,10})(?: (.*))?", line[:MAX_LINE].rstrip())
        if match is None:
            complaint = line[:MAX_LINE].strip() or complaint
            continue
        word, text = match[1], (match[2] or "").strip()
        words[word] = (*words.get(word, ()), text)
        if word == "clock" and len(words[word]) == 1:
            seconds, _, parts = text.partition(".")
            # Whole seconds are, on average, half a second behind.
            node = _number(text, 0) if parts.isdigit() else _number(f"{seconds}.5", 0)
            offset = None if node is None else node - at
    return Told(words, complaint, offset)


def _number(text: str, column: int) -> float | None:
    """The number in that column of words; None unless it is digits with a fraction (%N that is not known is none)."""
    parts = text.split()
    if column >= len(parts) or not re.fullmatch(r"[0-9]{1,12}\.[0-9]{1,9}", parts[column]):
        return None
    return float(parts[column])
