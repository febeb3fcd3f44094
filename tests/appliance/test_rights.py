from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from appliance import rights
from appliance.errors import Environment
from tests.appliance.process import CHECKOUT
from tests.appliance.rack import Rack

ASK = "from appliance.rights import root_may_mount; print(root_may_mount())"


@pytest.mark.root
@pytest.mark.parametrize(("bounding", "answer"), [("-sys_admin", "False"), ("+net_raw", "True"), ("-all", "False")])
def test_root_with_less_than_its_rights(bounding: str, answer: str) -> None:
    command = ["setpriv", f"--bounding-set={bounding}", sys.executable, "-c", ASK]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == answer


@pytest.mark.root
def test_who_is_not_root_is_told_elsewhere() -> None:
    command = ["setpriv", "--reuid=65534", "--clear-groups", "--inh-caps=-all", sys.executable, "-S", "-c"]
    program = f"import sys; sys.path.insert(0, {str(CHECKOUT)!r}); {ASK}"
    done = subprocess.run([*command, program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "True"


def test_a_capture_that_could_not_be_published_is_not_ordered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rack = Rack(tmp_path)
    rack.approved(1)
    monkeypatch.setattr(rights, "root_may_mount", lambda: False)
    with pytest.raises(Environment, match="few rights") as refused:
        rack.head.capture("node01", "gold")
    assert "--captures" in refused.value.hint and not rack.head.roster.orders
    rack.stop()
