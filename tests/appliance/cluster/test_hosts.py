from __future__ import annotations

from appliance.cluster import hosts
from tests.appliance.cluster.files import Files
from tests.appliance.cluster.test_inventory import CLUSTER

SITE = "127.0.0.1\tlocalhost\n127.0.1.1\thead.site head\n10.9.9.9 store1 # an old one\n"


def test_lines_and_what_is_left_to_the_site() -> None:
    files = Files({"/etc/hosts": SITE})
    change = files.take(hosts.plan(CLUSTER, files.read))
    text = files["/etc/hosts"]
    assert text.startswith(SITE) and "10.1.0.11\tnode01.cluster.internal node01\n" in text
    assert "10.1.0.21" not in text and change.notes == (
        "/etc/hosts itself says that store1 is 10.9.9.9: left as it is",
    )
    assert not hosts.plan(CLUSTER, files.read).needed
    files.take(hosts.plan(CLUSTER.only(["node02"]), files.read))
    assert "node01" not in files["/etc/hosts"] and "node02" in files["/etc/hosts"]
    assert hosts.plan(CLUSTER.only([]), files.read).files[0].after.strip() == SITE.strip()


def test_the_debian_trap_is_told() -> None:
    (note,) = hosts.plan(CLUSTER.only(["node01"]), Files({"/etc/hosts": SITE}).read, host="head").notes
    assert "head, is 127.0.1.1" in note and "10.1.0.1 in the place" in note
    assert hosts.plan(CLUSTER.only(["node01"]), Files({"/etc/hosts": SITE}).read, host="other").notes == ()


def test_the_diff() -> None:
    files = Files({"/etc/hosts": SITE})
    diff = hosts.plan(CLUSTER, files.read).files[0].diff()
    assert (
        diff.startswith("--- /etc/hosts\n+++ /etc/hosts\n@@") and "+10.1.0.11\tnode01.cluster.internal node01" in diff
    )
    assert "\n-" not in diff
    fresh = hosts.plan(CLUSTER, Files().read).files[0]
    assert fresh.diff().startswith("--- /dev/null\n+++ /etc/hosts")
