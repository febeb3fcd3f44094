"""Taking the nodes through the checks: many at a time, each step bounded, and one that is dead holds up nobody."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from appliance.acceptance import checks, compared, jobs, script
from appliance.acceptance.checks import PASS, Asked, Target, Verdict, failed, nothing
from appliance.acceptance.login import Login
from appliance.acceptance.report import Report
from appliance.acceptance.script import Told
from images.errors import GildError, ToolMissing
from images.run import run

AT_ONCE = 16  # logins
PROBE_SECONDS, DISK_SECONDS, WIRE_SECONDS, NEXT_SECONDS, MPI_SECONDS = 60.0, 120.0, 60.0, 40.0, 90.0

Say = Callable[[str, int, int], None]  # what is being done, how many are done, of how many


class Examination:
    """One test of some nodes. Called once, from one thread; its own threads end with `run`."""

    def __init__(
        self, targets: Sequence[Target], domain: str, head: str, login: Login, skip: Collection[str], say: Say
    ) -> None:
        """`head` is the head's address; `skip` names checks that are not done."""
        self.targets, self.domain, self.head = targets, domain, head
        self.login, self.skip, self.say = login, frozenset(skip) - {"reach"}, say
        self.verdicts: dict[str, dict[str, Verdict]] = {target.name: {} for target in targets}
        self._told: dict[str, Told] = {}
        self._ring: dict[str, Verdict] = {}

    def run(self) -> Report:
        """Everything that is not skipped, then the report. Raises ToolMissing if there is no ssh."""
        self._each(self.targets, "asking the nodes", self._probe)
        there = [target for target in self.targets if target.name in self._told]
        self._measure(there, "disks", self._disk, ("write", "read"), AT_ONCE)
        # One after the other: all of them at once would share the head's own cable, and measure that.
        self._measure(there, "network", self._wire, ("to", "from"), 1)
        if self._wanted("next", "mpi") and len(there) > 1:
            following = dict(zip((one.name for one in there), [*there[1:], there[0]], strict=True))
            self._each(there, "from node to node", lambda target: self._next(target, following[target.name]))
        if self._wanted("mpi"):
            self._mpi(there)
        if self._wanted("job"):
            self.say("scheduler", 0, 0)
            self._job([target.name for target in there])
        return Report(self.targets, self.verdicts)

    def _wanted(self, *names: str) -> bool:
        return any(name not in self.skip for name in names)

    def _note(self, node: str, check: str, verdict: Verdict | None) -> None:
        if verdict is not None and check not in self.skip:
            self.verdicts[node][check] = verdict

    def _each(
        self, targets: Sequence[Target], phase: str, work: Callable[[Target], None], at_once: int = AT_ONCE
    ) -> None:
        if not targets:
            return
        self.say(phase, 0, len(targets))
        with ThreadPoolExecutor(at_once, "test") as pool:
            waiting = [pool.submit(work, target) for target in targets]
            try:
                for count, done in enumerate(as_completed(waiting), 1):
                    done.result()
                    self.say(phase, count, len(targets))
            except BaseException:
                self.login.stop()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _measure(
        self, there: Sequence[Target], phase: str, work: Callable[[Target], None], of: tuple[str, str], at_once: int
    ) -> None:
        """Speeds, and a second chance for who is slow: something else may have gone on just then."""
        if not self._wanted(*of):
            return
        self._each(there, phase, work, at_once)
        slow = {name for check in of for name in self._slow(check)}
        before = {name: dict(self.verdicts[name]) for name in slow}
        self._each([target for target in there if target.name in slow], f"{phase} again", work, at_once)
        for name, first in before.items():
            for check in of:
                self._note(name, check, compared.better(first.get(check), self.verdicts[name].get(check)))
        for check in of:
            for name, verdict in self._slow(check).items():
                self._note(name, check, verdict)

    def _slow(self, check: str) -> dict[str, Verdict]:
        found = {name: done[check] for name, done in self.verdicts.items() if check in done}
        return compared.slow_ones(check, {target.name: target.profile for target in self.targets}, found)

    def _probe(self, target: Target) -> None:
        if not target.host_keys:
            text = "has no host key that this head knows, so nobody can tell whether it is the node"
            self._note(target.name, "reach", failed(text, f"gild.pyz node install {target.name}"))
            return
        at = self.targets.index(target)
        following = self.targets[(at + 1) % len(self.targets)]
        both = (target, following)
        names = {f"{one.name}.{self.domain}": one.address for one in both}
        names |= {following.name: following.address, f"head.{self.domain}": self.head}
        asked = Asked(names, {one.address: f"{one.name}.{self.domain}" for one in both})
        told = self.login.ask(target, script.probe(asked.names, asked.addresses), PROBE_SECONDS)
        reach = checks.login(target, told)
        self._note(target.name, "reach", reach)
        if reach.word != PASS:
            return
        self._told[target.name] = told
        for check in checks.CHECKS:
            if check.judge is not None:
                self._note(target.name, check.name, check.judge(target, told, asked))

    def _disk(self, target: Target) -> None:
        told = self.login.ask(target, script.disk(), DISK_SECONDS)
        written = compared.written(told)
        self._note(target.name, "write", written)
        if written.word == PASS:
            self._note(target.name, "read", compared.was_read(told))

    def _wire(self, target: Target) -> None:
        try:
            told = self.login.send(target, script.wire(), bytes(script.WIRE_MIB << 20), WIRE_SECONDS)
        except ToolMissing:
            raise
        except GildError as error:
            told = Told(complaint=error.message)
        self._note(target.name, "to", compared.carried(told, "in", "out"))
        self._note(target.name, "from", compared.carried(told, "out", "sent"))

    def _next(self, target: Target, following: Target) -> None:
        told = self.login.ask(target, script.next_one(following.name), NEXT_SECONDS)
        keys = self._told[target.name].all("key")
        both = Told({**told.words, "key": keys} if keys else told.words, told.complaint)
        self._ring[target.name] = compared.ring(target, following, both)
        self._note(target.name, "next", self._ring[target.name])

    def _mpi(self, there: Sequence[Target]) -> None:
        """From the first of those that have mpirun to all of them: what a user would do."""
        have = [target for target in there if "mpirun" in self._told[target.name].all("tool")]
        able = [one for one in have if len(there) == 1 or self._ring[one.name].word == PASS]
        for target in there:
            if target not in have:
                self._note(target.name, "mpi", nothing("its image has no mpirun"))
            elif target not in able:
                self._note(target.name, "mpi", nothing("mpirun needs a login from node to node"))
        if not able:
            return
        names = [target.name for target in able]
        self.say("mpi", 0, 0)
        folder = script.HELLO + secrets.token_hex(6)
        hello = self._hello(able, folder)
        program = f"{folder}/hello" if hello else "hostname"
        told = self.login.ask(able[0], script.mpi(names, program, int(MPI_SECONDS) - 10), MPI_SECONDS)
        for name, verdict in compared.mpi(names, told, hello).items():
            self._note(name, "mpi", verdict)
        if hello:
            self._each(able, "tidying up", lambda target: self._tidy(target, folder))

    def _hello(self, targets: Sequence[Target], folder: str) -> bool:
        """Whether every one of them has made the hello for itself: there may be no folder they share."""
        if not all("mpicc" in self._told[target.name].all("tool") for target in targets):
            return False
        made: set[str] = set()

        def compile_(target: Target) -> None:
            if "made" in self.login.ask(target, script.compile_hello(folder), MPI_SECONDS).words:
                made.add(target.name)

        self._each(targets, "mpi hello", compile_)
        if len(made) < len(targets):
            self._each(targets, "tidying up", lambda target: self._tidy(target, folder))
        return len(made) == len(targets)

    def _tidy(self, target: Target, folder: str) -> None:
        self.login.ask(target, script.remove(folder), NEXT_SECONDS)

    def _job(self, names: Sequence[str]) -> None:
        if not names:
            return
        found = _slurm(names)
        if found is None:
            found = _queue(names)
        for name in names:
            self._note(name, "job", nothing("no scheduler on this head") if found is None else found[name])


def _slurm(names: Sequence[str]) -> dict[str, Verdict] | None:
    """A verdict for each, None if this head has no Slurm."""
    try:
        told = run(jobs.SINFO, timeout=30, check=False, act="asking Slurm")
        if told.returncode:
            why = told.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no reason given"]
            if "configuration source" in why[0]:
                return None
            return dict.fromkeys(names, failed(f"Slurm does not answer on this head: {why[0][-checks.SHOWN :]}"))
        ready, verdicts = jobs.slurm_ready(names, told.stdout.decode("utf-8", "replace"))
        if ready:
            done = run(jobs.srun(ready), timeout=jobs.SECONDS + 30, check=False, act="a job by srun")
            out, err = (text.decode("utf-8", "replace") for text in (done.stdout, done.stderr))
            verdicts |= jobs.slurm_ran(ready, out, err)
    except ToolMissing:
        return None
    except GildError as error:
        return dict.fromkeys(names, failed(error.message))
    return verdicts


def _queue(names: Sequence[str]) -> dict[str, Verdict] | None:
    """The same for OpenPBS and Grid Engine, which share the name of their command and nothing else."""
    try:
        version = run(["qsub", "--version"], timeout=30, check=False, act="asking the scheduler")
    except ToolMissing:
        return None
    except GildError as error:
        return dict.fromkeys(names, failed(error.message))
    pbs = b"pbs" in (version.stdout + version.stderr).lower()

    def job(name: str) -> Verdict:
        try:
            done = run(jobs.qsub(name, pbs), timeout=jobs.SECONDS, check=False, act="a job by qsub")
        except GildError as error:
            return failed(error.message)
        if done.returncode == 0:
            return checks.passed("a job by qsub ran on it")
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
        return failed(f"qsub ran no job on it: {said[-1][-checks.SHOWN :] if said else 'it gave no reason'}")

    with ThreadPoolExecutor(AT_ONCE, "job") as pool:
        return dict(zip(names, pool.map(job, names), strict=True))
