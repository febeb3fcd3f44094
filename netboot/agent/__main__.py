"""The story of one machine, from the first driver to the installed system. Started by /init with nothing else running.

Exit status 0 means that the machine may restart; anything else shows the error above and restarts a minute later.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace

from images.errors import GildError
from netboot.agent import settings as given
from netboot.agent.capture import capture
from netboot.agent.install import install
from netboot.agent.link import HeadRefused, Link
from netboot.agent.machine import Machine
from netboot.agent.reporter import Reporter
from netboot.agent.screen import Screen
from netboot.report import OWN_LOADER, Answer, Do, Facts, Nic, Report

VERSION = "1"
LONG_POLL = 20  # seconds the head may hold an answer back
REFUSED_PAUSE = 30.0  # seconds until a head that said no is asked again
MAX_PAUSE = 60  # seconds between two questions, whatever the head says
FAILED_PAUSE = 10  # seconds, at least, between two questions of a machine whose installation failed
LAST_WORDS = 10.0  # seconds for the last log lines of a machine that leaves without an installation
TELL_PATIENCE = 300.0  # seconds to bring the end of an installation to a head that is away
ORDERED = (Do.INSTALL, Do.CAPTURE)

Act = Callable[[Machine, Link, Reporter, Callable[[str], None], str, str], str]


def story(machine: Machine) -> int:
    """Wake the hardware, find the head, do what it says until that is to leave. Returns the exit status."""
    screen = Screen(machine.say)
    words = machine.words()
    settings = given.read(machine.etc, words)
    if not machine.wake(settings.mac):
        screen.say("not all of the hardware showed itself: no network card with the boot MAC, or no disk")
    nic, address = machine.network(screen.say, settings.mac, settings.address)
    facts = machine.facts(nic.mac)
    screen.say(f"{nic.name} {nic.mac} is up as {address.ip}; the head is {settings.head}")

    link = Link(settings.head, settings.https_port, settings.pem, log=screen.out, sleep=machine.sleep)
    reporter = Reporter(link)
    link.seats = machine.switches(screen.say)
    answer = _hello(link, screen, nic, facts, settings.token)
    screen.connect(reporter.say)
    reporter.start()
    return _obey(machine, screen, link, reporter, answer, settings.token, nic, address.ip, facts)


def _obey(
    machine: Machine,
    screen: Screen,
    link: Link,
    reporter: Reporter,
    answer: Answer,
    token: str,
    nic: Nic,
    ip: str,
    facts: Facts,
) -> int:
    """Do what the head answers. A failed installation is told and never tried again without a new order."""
    tried: set[str] = set()
    trouble, failures = "", 0
    while True:
        order = answer.token or token
        if answer.do in ORDERED and order and order not in tried:
            tried.add(order)
            screen.card(answer, facts, nic, ip)
            carry_out = install if answer.do is Do.INSTALL else capture
            how, trouble = _carry_out(carry_out, machine, screen, link, reporter, order, nic.mac)
            if how:
                return _leave(machine, screen, how)
            failures += 1
            link.sleep(min(FAILED_PAUSE * failures, MAX_PAUSE))
        elif answer.do in (Do.LOCAL, Do.REBOOT, Do.POWEROFF):
            screen.card(answer, facts, nic, ip)
            reporter.flush(LAST_WORDS)
            # The head answers the next boot of a machine that is to start from its disk with just that.
            return _leave(machine, screen, "poweroff" if answer.do is Do.POWEROFF else "reboot")
        waiting = replace(answer, do=Do.WAIT, message=answer.message if answer.do is Do.WAIT else "")
        screen.card(waiting, facts, nic, ip, trouble)
        asked = time.monotonic()
        # Each question takes its time even if the head never holds one back, but for news.
        pause = float(max(FAILED_PAUSE if trouble else 1, min(answer.wait, MAX_PAUSE)))
        try:
            answer = link.next(LONG_POLL)
        except HeadRefused as refused:
            screen.say(f"the head refuses: {refused}")
            pause = REFUSED_PAUSE
        if answer.do is Do.WAIT or (answer.do in ORDERED and (answer.token or token) in tried):
            link.sleep(max(0.0, pause - (time.monotonic() - asked)))


def _hello(link: Link, screen: Screen, nic: Nic, facts: Facts, token: str) -> Answer:
    """Say hello until the head takes it."""
    while True:
        try:
            return link.hello(nic.mac, facts, token, VERSION)
        except HeadRefused as refused:
            screen.say(f"the head refuses this machine: {refused}")
            link.sleep(REFUSED_PAUSE)


def _carry_out(
    act: Act, machine: Machine, screen: Screen, link: Link, reporter: Reporter, token: str, mac: str
) -> tuple[str, str]:
    """Carry out one order. Returns (how to leave, "") or ("", why it failed); the head has been told either."""
    reporter.begin()
    try:
        how = act(machine, link, reporter, screen.say, token, mac)
    except GildError as error:
        trouble = str(error)
    except Exception as error:
        # Whatever nobody foresaw ends this order and not the agent: the reason has to reach the head.
        for line in traceback.format_exc().splitlines():
            screen.say(line)
        trouble = f"the installer stumbled: {type(error).__name__}: {error}"
    else:
        reporter.event(Report("", finished=True, finish=how))
        if not reporter.flush(TELL_PATIENCE):
            screen.say(
                f"the head did not hear of the end within {TELL_PATIENCE:.0f} s; the installed system will call it"
            )
        reporter.close()
        return how, ""
    screen.say(f"failed: {trouble}")
    for line in machine.kernel_lines():
        reporter.say(line)
    reporter.event(Report("", failed=trouble))
    reporter.flush(TELL_PATIENCE)
    return "", trouble


def _leave(machine: Machine, screen: Screen, how: str) -> int:
    try:
        machine.leave("reboot" if how == OWN_LOADER else how)
    except GildError as error:
        screen.say(f"{error}; restarting instead")
    return 0


def main() -> int:
    """Run the story on this machine."""
    try:
        return story(Machine())
    except GildError as error:
        print(f"gild: {error}", file=sys.stderr, flush=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
