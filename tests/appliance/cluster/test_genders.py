from __future__ import annotations

import json

from appliance.cluster import genders
from tests.appliance.cluster.files import Files
from tests.appliance.cluster.test_inventory import CLUSTER


def test_genders_and_groups() -> None:
    files = Files({genders.PATH: "# the site's\nlogin1 login\n"})
    files.take(genders.plan(CLUSTER, files.read))
    assert files[genders.PATH].startswith("# the site's\nlogin1 login\n")
    assert "node02\tgild,compute,gpus,rack1\n" in files[genders.PATH]
    lines = files[genders.GROUPS].splitlines()
    assert lines[1] == "gild:" and lines[-1] == "# gild genders: end"
    # Each line is of YAML and, its key and value, of JSON.
    pairs = (line.split(": ") for line in lines[2:-1])
    found = {json.loads(key): json.loads(value) for key, value in pairs}
    assert found == {
        "all": "node[01-02],store1", "compute": "node[01-02]", "gpus": "node02", "rack1": "node[01-02]",
        "storage": "store1",
    }  # fmt: skip
    assert not genders.plan(CLUSTER, files.read).needed
    assert genders.plan(CLUSTER, files.read, groups="").files[0].path == genders.PATH
    empty = genders.plan(CLUSTER.only([]), Files().read)
    assert not empty.needed
