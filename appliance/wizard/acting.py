"""Doing what a step has planned: the program's own commands, by its own entry, with their output where it is seen."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from appliance import bundled
from appliance.cli import show
from appliance.cli.main import run
from appliance.errors import Declined, Environment, NotServing, exit_code
from appliance.wizard.engine import Act, NewFile, Plan
from images.disk import disk_errors
from images.errors import GildError
from images.run import leave

if TYPE_CHECKING:
    from appliance.cli.main import Site

STARTED = 60.0  # seconds until a head that was started must answer: it looks for other DHCP servers first
LAST = 5  # lines of its log that are shown when it does not


def act(site: Site, wanted: Act) -> int:
    """Carry out one command; gives its exit code. Files it reads are written first; a head is started and waited for.
    Raises GildError if a file cannot be written or the head does not start."""
    for file in wanted.files:
        write(file)
    sys.stdout.flush()
    if wanted.background:
        _start(site, wanted)
        return 0
    code = run(["--state", str(site.paths.state), *wanted.words, *wanted.sure])
    if wanted.words[:2] == ("service", "install") and not code:
        _until(site, None)
    return code


def carry_out(site: Site, plan: Plan, agreed: Callable[[str], bool]) -> int:
    """Carry out a plan, one command after the other, as long as they end well; gives the last exit code. What only
    looks comes first, and `agreed` is asked before anything else. Raises as `act` does."""
    looks = [wanted for wanted in plan.acts if wanted.preview]
    for wanted in (*looks, *(wanted for wanted in plan.acts if not wanted.preview)):
        if looks and wanted is plan.acts[len(looks)] and not agreed("Do this?"):
            return exit_code(Declined(""))
        print(f"$ {show.plain(wanted.line(str(site.paths.state)))}", flush=True)
        if code := act(site, wanted):
            return code
    return 0


def write(file: NewFile) -> None:
    """Write a file whole, with the folders it lies in. Raises ImageError, NoSpace."""
    fresh = f"{file.path}.{os.getpid()}"
    with disk_errors(f"writing {file.path}"):
        os.makedirs(os.path.dirname(file.path), exist_ok=True)
        try:
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, file.mode), "w", encoding="utf-8") as out:
                out.write(file.text)
            os.rename(fresh, file.path)
        finally:
            if os.path.exists(fresh):
                os.unlink(fresh)


def answers(site: Site) -> bool:
    """Whether a head serves this state."""
    try:
        site.client.get("status")
    except GildError:
        return False
    return True


def _start(site: Site, wanted: Act) -> None:
    """A process that outlives this one, its log in STATE/serve.log."""
    state = site.paths.state
    with disk_errors(f"making {state}"):
        state.mkdir(parents=True, exist_ok=True)
    # The file itself, not this process's descriptor of it: that one ends with this process.
    archive = bundled.is_archive()
    argv = [sys.executable, os.path.realpath(bundled.ROOT)] if archive else [sys.executable, "-m", "appliance"]
    env = {} if archive else {"PYTHONPATH": bundled.ROOT}
    log = site.paths.serve_log
    ended = leave([*argv, "--state", os.path.abspath(state), *wanted.words], log, env=env, act="starting the head")

    def look() -> None:
        code = ended()
        if code is not None:
            raise Environment(f"the head ended ({code}): {_tail(site)}", f"its whole log: {log}")

    _until(site, look)
    print(f"process {site.client.get('status')['pid']} serves; its log: {log}")


def _until(site: Site, look: Callable[[], None] | None) -> None:
    end = time.monotonic() + STARTED
    while not answers(site):
        if look is not None:
            look()
        if time.monotonic() > end:
            raise NotServing(f"no head answers after {STARTED:.0f} s: {_tail(site)}", "gild.pyz doctor")
        time.sleep(0.1)


def _tail(site: Site) -> str:
    try:
        lines = site.paths.serve_log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "it has no log"
    return show.plain(" | ".join(line.strip() for line in lines[-LAST:] if line.strip())) or "its log is empty"
