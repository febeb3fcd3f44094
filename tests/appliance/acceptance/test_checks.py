from __future__ import annotations

import pytest

from appliance.acceptance import checks
from appliance.acceptance.checks import CHECKS, FAIL, NAMES, NONE, PASS, Asked, Target, Verdict
from appliance.acceptance.script import Told

NODE = Target("node01", "10.1.0.11", image="compute:3", digest="d" * 64, threads=8, memory=16 << 30)
GOOD = {
    "name": ("node01",), "address": ("10.1.0.11", "192.168.1.5"), "threads": ("8",), "units": ("asked",),
    "memory": ("8000000 128",), "release": ("IMAGE=compute:3", "MANIFEST=" + "d" * 64), "end": ("",),
    "forward": ("node02.c 10.1.0.12  STREAM node02.c", "node02 10.1.0.12  STREAM node02.c"),
    "reverse": ("10.1.0.12 10.1.0.12   node02.c",),
}  # fmt: skip
ASKED = Asked({"node02.c": "10.1.0.12", "node02": "10.1.0.12"}, {"10.1.0.12": "node02.c"})


def judged(
    check: str, words: dict[str, tuple[str, ...]] | None = None, node: Target = NODE, offset: float | None = 0.1
) -> Verdict:
    judge = next(row.judge for row in CHECKS if row.name == check)
    assert judge is not None
    return judge(node, Told({**GOOD, **(words or {})}, "", offset), ASKED)


@pytest.mark.parametrize("name", [check.name for check in CHECKS if check.judge])
def test_a_node_as_it_should_be_passes(name: str) -> None:
    assert judged(name).word == PASS


@pytest.mark.parametrize(("name", "words", "sentence"), [
    ("name", {"name": ("localhost",)}, "calls itself 'localhost', not node01"),
    ("name", {"name": ()}, "calls itself '', not node01"),
    ("address", {"address": ("10.1.0.200",)}, "has the addresses 10.1.0.200, not 10.1.0.11"),
    ("address", {"address": ()}, "has the addresses none, not 10.1.0.11"),
    ("image", {"release": ("IMAGE=compute:2",)}, "was installed from 'compute:2', not from this head's compute:3"),
    ("image", {"release": ("IMAGE=compute:3", "MANIFEST=" + "e" * 64)}, "was installed from 'compute:3', not from"),
    ("hardware", {"threads": ("4",)}, "has 4 processors instead of 8 at its installation"),
    ("hardware", {"memory": ("8000000 120",)}, "has 15.0 GiB of memory instead of 16.0"),
    ("hardware", {"memory": (), "memtotal": ("8000000",)}, "has 7.6 GiB of memory instead of 16.0"),
    ("hardware", {"memory": ("zz 1",), "memtotal": ("x",)}, "has 0.0 GiB of memory instead of 16.0"),
    ("units", {"unit": ("munge.service", "slurmd.service")}, "has failed services: munge.service, slurmd.service"),
    ("dns", {"forward": ("node02.c ",)}, "DNS tells it nothing for node02.c instead of 10.1.0.12"),
    ("dns", {"forward": GOOD["forward"][:1]}, "DNS tells it nothing for node02 instead of 10.1.0.12"),
    ("dns", {"reverse": ("10.1.0.12 10.1.0.12  n9.c",)}, "DNS tells it n9.c for 10.1.0.12 instead of node02.c"),
])  # fmt: skip
def test_what_is_wrong_is_said(name: str, words: dict[str, tuple[str, ...]], sentence: str) -> None:
    verdict = judged(name, words)
    assert verdict.word == FAIL and sentence in verdict.text


def test_a_kernel_that_tells_what_it_has_left_is_believed_a_little_less() -> None:
    assert judged("hardware", {"memory": (), "memtotal": (str(14 << 20),)}).word == PASS


@pytest.mark.parametrize(("name", "words"), [
    ("image", {"release": ()}), ("units", {"units": ()}), ("dns", {"forward": (), "reverse": ()}),
])  # fmt: skip
def test_where_there_is_nothing_to_test(name: str, words: dict[str, tuple[str, ...]]) -> None:
    assert judged(name, words).word == NONE
    assert judged("hardware", node=Target("node01", "10.1.0.11")).word == NONE


@pytest.mark.parametrize(("offset", "word", "part"), [
    (1.9, PASS, "+1.9 s"), (-1.9, PASS, "-1.9 s"), (3600.0, FAIL, "3600 s ahead of"), (-5.0, FAIL, "5 s behind"),
    (None, FAIL, "does not tell its time"),
])  # fmt: skip
def test_clocks(offset: float | None, word: str, part: str) -> None:
    verdict = judged("clock", offset=offset)
    assert verdict.word == word and part in verdict.text


@pytest.mark.parametrize(("said", "part", "fix"), [
    ("root@10.1.0.11: Permission denied (publickey).", "none of this head's keys", "keys = ["),
    ("Host key verification failed.", "host key that is not the one", "node install node01"),
    ("ssh: connect to host 10.1.0.11 port 22: Connection refused", "no ssh server", "ssh-cluster"),
    ("ssh: connect to host 10.1.0.11 port 22: No route to host", "does not answer at its address", "node log node01"),
    ("ssh: connect to host 10.1.0.11 port 22: Connection timed out", "does not answer at its address", "switched on"),
    ("Connection closed by 10.1.0.11 port 22", "does not let us in: Connection closed", ""),
    ("", "does not answer in time", ""),
])  # fmt: skip
def test_why_nobody_is_let_in(said: str, part: str, fix: str) -> None:
    verdict = checks.login(NODE, Told({}, said))
    assert verdict.word == FAIL and part in verdict.text and fix in verdict.fix
    assert "NODE" not in verdict.fix and "PROFILE" not in verdict.fix


def test_an_answer_that_breaks_off_is_no_pass() -> None:
    assert "broke off" in checks.login(NODE, Told({"name": ("node01",)}, "")).text
    assert checks.login(NODE, Told(GOOD, "a banner")).word == PASS


def test_the_table_has_every_name_once() -> None:
    assert len(set(NAMES)) == len(NAMES)
