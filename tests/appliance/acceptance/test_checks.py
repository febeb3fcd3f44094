from __future__ import annotations

import pytest

from appliance.acceptance import checks
from appliance.acceptance.checks import CHECKS, FAIL, NAMES, NONE, PASS, Asked, Target, Verdict, passed
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


def test_slow_ones_are_named_within_their_profile() -> None:
    speeds = {f"a{n}": passed("", 100.0 + n) for n in range(5)} | {"a5": passed("", 20.0)}
    speeds |= {"b1": passed("", 5.0), "b2": passed("", 5.0), "c": checks.failed("broken")}
    profiles = {name: name[0] for name in speeds}
    found = checks.slow_ones("write", profiles, speeds)
    assert list(found) == ["a5"] and found["a5"].word == FAIL and found["a5"].value == 20.0
    assert found["a5"].text == "its disk writes 20 MB/s; the others of profile a have 102"


def test_the_better_of_two_measurements_counts() -> None:
    slow, fast, broken = passed("", 1.0), passed("", 9.0), checks.failed("broken")
    assert checks.better(slow, fast) is fast and checks.better(fast, slow) is fast
    assert checks.better(broken, slow) is slow and checks.better(None, slow) is slow
    assert checks.better(None, None) is None


def test_speeds_come_from_marks() -> None:
    marks = ("write 0.000000000 0.00", "written 1.000000000 1.00", "read 1.0 1.00", "done 1.5 1.50")
    told = Told({"mark": marks})
    assert checks.written(told).value == pytest.approx(67.1, abs=0.1)
    assert checks.was_read(told).value == pytest.approx(134.2, abs=0.1)
    full = Told({"mark": marks[:1], "disk": ("dd: error writing: No space left on device",)})
    assert "No space left" in checks.written(full).text and checks.was_read(full).word == NONE
    assert "did not come through: Broken pipe" in checks.carried(Told({}, "Broken pipe"), "in", "out").text


NEXT = Target("node02", "10.1.0.12")


@pytest.mark.parametrize(("said", "keys", "word", "part"), [
    (("node02",), ("/root/.ssh/id_rsa",), PASS, "to node02"),
    (("node02.cluster.internal",), (), PASS, "to node02"),
    (("Permission denied (publickey).",), (), NONE, "no key of its own"),
    (("Permission denied (publickey).",), ("k",), FAIL, "is not let in by node02"),
    (("No ED25519 host key is known", "Host key verification failed."), (), FAIL, "does not know the host key"),
    (("sh: ssh: not found",), (), NONE, "no ssh client"),
    (("imposter",), (), FAIL, "calls itself 'imposter'"),
    (("ssh: connect to host node02 port 22: No route to host",), ("k",), FAIL, "cannot log in to node02: ssh"),
    ((), (), FAIL, "no answer"),
])  # fmt: skip
def test_from_node_to_node(said: tuple[str, ...], keys: tuple[str, ...], word: str, part: str) -> None:
    told = Told({"said": said, "key": keys, "end": ("",)})
    verdict = checks.ring(NODE, NEXT, told)
    assert verdict.word == word and part in verdict.text


def test_mpi_counts_who_took_part() -> None:
    names = ["a", "b", "c"]
    hello = checks.mpi(names, Told({"said": ("hello a 3 3", "hello b.c 3 3", "hello c 3 2")}), True)
    assert [hello[name].word for name in names] == [PASS, PASS, FAIL]
    plain = checks.mpi(names, Told({"said": ("a", "c", "There are not enough slots available")}), False)
    assert [plain[name].word for name in names] == [PASS, FAIL, PASS] and "not enough slots" in plain["b"].text
    assert {one.word for one in checks.mpi(names, Told(), False).values()} == {FAIL}


def test_the_table_has_every_name_once() -> None:
    assert len(set(NAMES)) == len(NAMES) and set(checks.SPEEDS) <= set(NAMES)
