from __future__ import annotations

import pytest

from appliance.errors import Unknown, Wrong
from tests.appliance.rack import DIGEST, HEAD_IP, Rack


def test_what_a_test_has_to_know(rack: Rack) -> None:
    machine = rack.approved(1)
    rack.approved(2)
    with pytest.raises(Wrong, match="no node is up"):
        rack.head.acceptance(None)
    machine.hello()
    rack.head.install(["node01"])
    machine.hello()
    machine.home(machine.write())
    known = rack.head.acceptance(None)
    assert (known["domain"], known["head"]) == ("cluster.internal", HEAD_IP)
    (row,) = known["nodes"]
    assert (row["name"], row["state"], row["image"], row["digest"]) == ("node01", "up", "compute:3", DIGEST)
    assert (row["threads"], row["memory"]) == (8, 8 << 30)
    assert [key.split()[0] for key in row["host_keys"]] == ["ecdsa-sha2-nistp256", "ssh-ed25519", "ssh-rsa"]
    assert all(len(key.split()) == 2 for key in row["host_keys"]) and "PRIVATE" not in str(known)
    assert [row["name"] for row in rack.head.acceptance(["node[01-02]"])["nodes"]] == ["node01", "node02"]


def test_host_keys_are_known_after_a_restart(rack: Rack) -> None:
    rack.approved(1)
    before = rack.head.acceptance(["node01"])["nodes"][0]["host_keys"]
    rack.stop()
    rack.start()
    assert len(before) == 3 and rack.head.acceptance(["node01"])["nodes"][0]["host_keys"] == before


def test_strangers_are_not_tested(rack: Rack) -> None:
    rack.machine(1).boot()
    with pytest.raises(Wrong, match="not approved yet"):
        rack.head.acceptance(["1"])
    with pytest.raises(Unknown):
        rack.head.acceptance(["node09"])
