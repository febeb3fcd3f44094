from __future__ import annotations

from appliance.cluster import gridengine
from appliance.cluster.gridengine import Seen
from tests.appliance.cluster.test_inventory import CLUSTER


def argvs(seen: Seen) -> list[str]:
    return [command.text for command in gridengine.plan(CLUSTER.only(["node01", "node02"]), seen).commands]


def test_from_nothing() -> None:
    none = frozenset[str]()
    change = gridengine.plan(CLUSTER.only(["node01"]), Seen(none, none, None, none))
    assert [command.text for command in change.commands] == [
        "qconf -ah node01", "qconf -Ahgrp FILE", "qconf -aattr queue hostlist @gild all.q",
    ]  # fmt: skip
    assert change.commands[1].input == "group_name @gild\nhostlist node01\n"
    assert "no queue all.q" in gridengine.plan(CLUSTER, Seen(none, none, None, None)).notes[0]
    assert not gridengine.plan(CLUSTER.only([]), Seen(none, none, None, none)).needed


def test_names_are_the_canonical_ones() -> None:
    hosts = frozenset({"node01.cluster.internal", "node03.cluster.internal", "head"})
    group = frozenset({"node01.cluster.internal", "node03.cluster.internal"})
    assert argvs(Seen(hosts, hosts, group, frozenset({"@gild"}))) == [
        "qconf -ah node02", "qconf -aattr hostgroup hostlist node02 @gild",
        "qconf -dattr hostgroup hostlist node03 @gild", "qconf -de node03", "qconf -dh node03",
    ]  # fmt: skip
    both = frozenset({"node01", "node02"})
    assert argvs(Seen(both, both, both, frozenset({"@gild", "@other"}))) == []


def test_what_qconf_and_qstat_print() -> None:
    assert gridengine.hosts_shown("head\nnode01.c.test\n\nno admin host defined\n") == {"head", "node01.c.test"}
    assert gridengine.hostlist_shown("group_name @gild\nhostlist a b \\\n         c\n") == {"a", "b", "c"}
    assert gridengine.hostlist_shown("qname all.q\nhostlist NONE\n") == gridengine.hostlist_shown("x") == frozenset()
    xml = "<job_list><queue_name>all.q@node01.c.test</queue_name></job_list><queue_name></queue_name>"
    assert gridengine.busy_shown(xml) == {"node01"}
