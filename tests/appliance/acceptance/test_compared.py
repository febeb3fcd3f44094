from __future__ import annotations

import pytest

from appliance.acceptance import compared
from appliance.acceptance.checks import FAIL, NAMES, NONE, PASS, Target, failed, passed
from appliance.acceptance.script import Told

NODE = Target("node01", "10.1.0.11")


def test_slow_ones_are_named_within_their_profile() -> None:
    speeds = {f"a{n}": passed("", 100.0 + n) for n in range(5)} | {"a5": passed("", 20.0)}
    speeds |= {"b1": passed("", 5.0), "b2": passed("", 5.0), "c": failed("broken")}
    profiles = {name: name[0] for name in speeds}
    found = compared.slow_ones("write", profiles, speeds)
    assert list(found) == ["a5"] and found["a5"].word == FAIL and found["a5"].value == 20.0
    assert found["a5"].text == "its disk writes 20 MB/s; the others of profile a have 102"


def test_the_better_of_two_measurements_counts() -> None:
    slow, fast, broken = passed("", 1.0), passed("", 9.0), failed("broken")
    assert compared.better(slow, fast) is fast and compared.better(fast, slow) is fast
    assert compared.better(broken, slow) is slow and compared.better(None, slow) is slow
    assert compared.better(None, None) is None


def test_speeds_come_from_marks() -> None:
    marks = ("write 0.000000000 0.00", "written 1.000000000 1.00", "read 1.0 1.00", "done 1.5 1.50")
    told = Told({"mark": marks})
    assert compared.written(told).value == pytest.approx(67.1, abs=0.1)
    assert compared.was_read(told).value == pytest.approx(134.2, abs=0.1)
    full = Told({"mark": marks[:1], "disk": ("dd: error writing: No space left on device",)})
    assert "No space left" in compared.written(full).text and compared.was_read(full).word == NONE
    assert "did not come through: Broken pipe" in compared.carried(Told({}, "Broken pipe"), "in", "out").text


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
    verdict = compared.ring(NODE, NEXT, told)
    assert verdict.word == word and part in verdict.text


def test_mpi_counts_who_took_part() -> None:
    names = ["a", "b", "c"]
    hello = compared.mpi(names, Told({"said": ("hello a 3 3", "hello b.c 3 3", "hello c 3 2")}), True)
    assert [hello[name].word for name in names] == [PASS, PASS, FAIL]
    plain = compared.mpi(names, Told({"said": ("a", "c", "There are not enough slots available")}), False)
    assert [plain[name].word for name in names] == [PASS, FAIL, PASS] and "not enough slots" in plain["b"].text
    assert {one.word for one in compared.mpi(names, Told(), False).values()} == {FAIL}


def test_speeds_are_checks() -> None:
    assert set(compared.SPEEDS) <= set(NAMES)
