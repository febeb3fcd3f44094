"""Schedulers on the head: how each is asked for one process on every node, and what its answer says of them."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.acceptance.checks import SHOWN, Verdict, failed, nothing, passed

SECONDS = 60  # a job that has not run by then waits for something
# sinfo(1), NODE STATE CODES: a node that runs others' jobs is well, but has no room for ours.
_BUSY = ("allocated", "completing", "reserved", "planned", "maint")
SINFO = ("sinfo", "--noheader", "--Node", "--format=%N %T")


def srun(names: Sequence[str]) -> list[str]:
    """Slurm: one process on each node, at once or not at all."""
    return [
        "srun", f"--nodes={len(names)}", f"--ntasks={len(names)}", "--ntasks-per-node=1",
        f"--nodelist={','.join(names)}", f"--immediate={SECONDS // 2}", "--time=1", "--quit-on-interrupt", "hostname",
    ]  # fmt: skip


def qsub(name: str, pbs: bool) -> list[str]:
    """OpenPBS or Grid Engine: a job on one node, waited for."""
    if pbs:
        return ["qsub", "-W", "block=true", "-l", f"select=1:host={name}", "-o", "/dev/null", "-j", "oe",
                "--", "/bin/hostname"]  # fmt: skip
    return ["qsub", "-sync", "y", "-b", "y", "-shell", "n", "-cwd", "-o", "/dev/null", "-j", "y",
            "-l", f"hostname={name}", "/bin/hostname"]  # fmt: skip


def slurm_ready(names: Sequence[str], output: str) -> tuple[list[str], dict[str, Verdict]]:
    """From sinfo's lines: who can take a job now, and a verdict for everybody else."""
    states = {words[0]: words[1] for line in output.splitlines() if len(words := line.split()) == 2}
    ready, verdicts = [], {}
    for name in names:
        state = states.get(name, "")
        plain = state.rstrip("*~#!%$@^-+").lower()
        if not state:
            verdicts[name] = failed("Slurm does not know it", "gild.pyz cluster slurm")
        elif state.endswith("*") or plain not in ("idle", "mixed", *_BUSY):
            why = f"Slurm has it as {state[:40]}"
            verdicts[name] = failed(why, f"its slurmd; then: scontrol update node={name} state=resume")
        elif plain in _BUSY:
            verdicts[name] = nothing(f"Slurm has it as {plain}: it has work")
        else:
            ready.append(name)
    return ready, verdicts


def slurm_ran(names: Sequence[str], output: str, complaint: str) -> dict[str, Verdict]:
    """From srun's output: where it ran."""
    ran = {line.strip().partition(".")[0].lower() for line in output.splitlines()}
    why = complaint.strip().splitlines()[-1][-SHOWN:] if complaint.strip() else "no output of it came"
    return {
        name: passed("srun ran on it") if name in ran else failed(f"srun did not run on it: {why}") for name in names
    }
