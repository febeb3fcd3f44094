from __future__ import annotations

import json

import pytest

from appliance.cli.main import run
from tests.appliance.process import rack_of_one


@pytest.mark.root
def test_status_says_what_is_served_and_when_nothing_is(capsys: pytest.CaptureFixture[str]) -> None:
    with rack_of_one() as served:
        for verb in (["status"], ["watch", "--once"], ["node", "list"], ["profile", "list"]):
            assert run(["--state", str(served.state), *verb]) == 4
            said = capsys.readouterr()
            assert not said.out and said.err.splitlines()[0] == f"gild: no gild process serves {served.state}"
            assert "serve --interface" in said.err
        served.start()
        assert run(["--state", str(served.state), "status"]) == 0
        said = capsys.readouterr()
        assert "head0, 10.77.0.1 in 10.77.0.0/24" in said.out and "none seen yet" in said.out
        assert "cluster.internal" in said.out
        assert run(["--state", str(served.state), "status", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["range"] == "10.77.0.25-10.77.0.254"
