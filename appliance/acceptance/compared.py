"""Judgement of what shows only by measuring, or between nodes: speeds beside those of the others, the way from one node
to the next, MPI over all of them."""

from __future__ import annotations

from collections.abc import Mapping

from appliance.acceptance.checks import PASS, SHOWN, Target, Verdict, failed, nothing, passed
from appliance.acceptance.outliers import outliers
from appliance.acceptance.script import DISK_MIB, WIRE_MIB, Told


def written(told: Told) -> Verdict:
    """The speed at which the node's disk took DISK_MIB MiB."""
    seconds = told.span("write", "written")
    if seconds is None:
        why = told.first("disk") or told.complaint
        return failed(f"could not write {DISK_MIB} MiB to /var/tmp: {why[-SHOWN:] or 'no time for it'}")
    return _speed(DISK_MIB, seconds)


def was_read(told: Told) -> Verdict:
    """The speed at which it gave them back."""
    seconds = told.span("read", "done")
    return nothing("its disk cannot be read past the cache") if seconds is None else _speed(DISK_MIB, seconds)


def carried(told: Told, begin: str, end: str) -> Verdict:
    """The speed of the network between two marks."""
    seconds = told.span(begin, end)
    if seconds is None:
        return failed(f"{WIRE_MIB} MiB did not come through: {told.complaint[-SHOWN:] or 'no time for it'}")
    return _speed(WIRE_MIB, seconds)


def _speed(mib: int, seconds: float) -> Verdict:
    speed = mib * 1.048576 / seconds
    return passed(f"{speed:.0f} MB/s", speed)


SPEEDS = {
    "write": "its disk writes", "read": "its disk reads", "to": "the network brings it", "from": "the network takes",
}  # fmt: skip


def slow_ones(check: str, profiles: Mapping[str, str], verdicts: Mapping[str, Verdict]) -> dict[str, Verdict]:
    """Who is slow beside the others of its profile, by node; `profiles` and `verdicts` are by node as well."""
    found = {}
    for profile in sorted(set(profiles.values())):
        values = {
            name: verdict.value
            for name, verdict in verdicts.items()
            if profiles[name] == profile and verdict.word == PASS and verdict.value is not None
        }
        for name, middle in outliers(values).items():
            value = values[name]
            text = f"{SPEEDS[check]} {value:.0f} MB/s; the others of profile {profile} have {middle:.0f}"
            fix = f"ssh {name} dmesg" if check in ("write", "read") else "its cable and its port of the switch"
            found[name] = failed(text, fix, value)
    return found


def better(one: Verdict | None, two: Verdict | None) -> Verdict | None:
    """The faster of two measurements of the same; one that failed is slower than any."""
    found = [verdict for verdict in (one, two) if verdict is not None]
    return max(found, key=lambda verdict: verdict.value if verdict.value is not None else -1.0, default=None)


def ring(target: Target, following: Target, told: Told) -> Verdict:
    """Whether the node could log in to the next one."""
    said = told.all("said")
    last = said[-1] if said else ""
    if last.partition(".")[0].lower() == following.name:
        return passed(f"to {following.name}")
    if "Permission denied" in last and not told.all("key"):
        return nothing("it has no key of its own, so it can log in to no other node")
    if "Host key verification failed" in " ".join(said):
        text, fix = f"does not know the host key of {following.name}", "gild.pyz help test: ssh between nodes"
    elif "Permission denied" in last:
        text, fix = f"is not let in by {following.name}", "gild.pyz help test: ssh between nodes"
    elif len(said) == 1 and told.whole and len(last.split()) == 1:
        text, fix = f"reaches a machine as {following.name} that calls itself {last[:SHOWN]!r}", ""
    elif "not found" in last or "No such file" in last:
        return nothing("it has no ssh client")
    else:
        text, fix = f"cannot log in to {following.name}: {last[-SHOWN:] or told.complaint[-SHOWN:] or 'no answer'}", ""
    return failed(text, fix)


def mpi(names: list[str], told: Told, hello: bool) -> dict[str, Verdict]:
    """Who of the nodes took part. Every process of the hello must also have heard of all the others."""
    count, heard = len(names), set()
    for line in told.all("said"):
        words = line.split()
        if not hello and len(words) == 1:
            heard.add(words[0].partition(".")[0].lower())
        elif hello and words[:1] == ["hello"] and words[2:] == [str(count), str(count * (count - 1) // 2)]:
            heard.add(words[1].partition(".")[0].lower())
    others = (line for line in reversed(told.all("said")) if len(line.split()) > 3 and not line.startswith("hello "))
    what = "the hello" if hello else "mpirun"
    why = f"took no part in {what} of {count} nodes: {next(others, told.complaint)[-SHOWN:] or 'no word of it'}"
    done = "a hello with all the others" if hello else "a process was started on it"
    return {name: passed(done) if name in heard else failed(why) for name in names}
