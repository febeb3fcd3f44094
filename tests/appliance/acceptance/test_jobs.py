from __future__ import annotations

import pytest

from appliance.acceptance import jobs
from appliance.acceptance.checks import FAIL, NONE, PASS


@pytest.mark.parametrize(("state", "word"), [
    ("idle", ""), ("mixed", ""), ("idle~", ""), ("idle*", FAIL), ("down", FAIL), ("down*", FAIL), ("drained", FAIL),
    ("allocated", NONE), ("completing", NONE), ("unknown", FAIL), ("", FAIL), ("\x1b[2J", FAIL),
])  # fmt: skip
def test_states_of_slurm(state: str, word: str) -> None:
    ready, verdicts = jobs.slurm_ready(["n1"], f"n0 idle\nn1 {state}\nn2 idle\n")
    assert (ready == ["n1"]) == (word == "")
    assert (verdicts["n1"].word if verdicts else "") == word


def test_a_node_slurm_does_not_know() -> None:
    assert jobs.slurm_ready(["n1"], "")[1]["n1"].fix == "gild.pyz cluster slurm"


def test_where_srun_ran() -> None:
    found = jobs.slurm_ran(["n1", "n2"], "n1.c\n", "srun: job 4 queued\nsrun: error: Unable to allocate resources\n")
    assert (found["n1"].word, found["n2"].word) == (PASS, FAIL)
    assert found["n2"].text == "srun did not run on it: srun: error: Unable to allocate resources"
    assert jobs.slurm_ran(["n1"], "", "")["n1"].text.endswith("no output of it came")


def test_what_is_asked() -> None:
    assert "--nodelist=a,b" in jobs.srun(["a", "b"]) and "--nodes=2" in jobs.srun(["a", "b"])
    assert "select=1:host=a" in jobs.qsub("a", True) and "hostname=a" in jobs.qsub("a", False)
