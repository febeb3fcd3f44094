"""What becomes of a node's packets in rules as nft and iptables-save print them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.firewall import Blocked, blocked, opening
from tests.netboot.lan import cable

PORTS = (("udp", 53), ("tcp", 53), ("udp", 67), ("udp", 69), ("tcp", 80), ("tcp", 443))
NFT = """
table inet filter {
 set lan { type ipv4_addr; elements = { 10.0.0.1 } }
 chain input { type filter hook input priority 0; policy drop;
  ct state established,related accept
  ct state vmap { established : accept, invalid : drop }
  iif lo accept
  iifname vmap { "eth1" : jump zone, "lo" : accept }
  tcp dport { 22, 80-90 } accept
  udp dport 67 iifname "head*" accept
  meta l4proto icmp accept
  th dport 53 accept
  log prefix "x" counter
 }
 chain zone { tcp dport 443 accept
  return
 }
}
"""
IPTABLES = """*nat
:INPUT DROP [0:0]
COMMIT
*filter
:INPUT DROP [0:0]
:FORWARD ACCEPT [0:0]
:Z - [0:0]
-A INPUT -i head0 -j Z
-A INPUT ! -i eth+ -p tcp -m tcp --dport 80:90 -m comment --comment "it's here" -j ACCEPT
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A Z -p udp -m multiport --dports 67,69 -j ACCEPT
COMMIT
"""


def rules(*expressions: list[Any], policy: str = "accept", family: str = "inet", table: str = "filter") -> str:
    """One input chain as nft -j prints it."""
    chain = {"family": family, "table": table, "name": "input", "type": "filter", "hook": "input", "policy": policy}
    listed = [{"rule": {"family": family, "table": table, "chain": "input", "expr": one}} for one in expressions]
    return json.dumps({"nftables": [{"metainfo": {}}, {"chain": chain}, *listed]})


def match(left: dict[str, Any], right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def dropped(interface: str, nft: str = "", iptables: str = "") -> dict[str, tuple[int, ...]]:
    return {found.protocol: found.ports for found in blocked(interface, PORTS, nft, iptables)}


def test_no_rules_drop_nothing() -> None:
    assert blocked("eth0", PORTS, "", "") == blocked("eth0", PORTS, rules(), "") == []


@pytest.mark.root
@pytest.mark.skipif(shutil.which("nft") is None, reason="nftables is not installed")
def test_a_ruleset_as_the_kernel_holds_it() -> None:
    with cable() as lan:
        nft = ["ip", "netns", "exec", lan.head, "nft"]
        subprocess.run([*nft, "-f", "-"], input=NFT.encode(), check=True, timeout=20)

        def text() -> str:
            return subprocess.run([*nft, "-j", "list", "ruleset"], capture_output=True, text=True, timeout=20).stdout

        assert dropped("head0", text()) == {"udp": (69,), "tcp": (443,)}
        assert dropped("eth1", text()) == {"udp": (67, 69)}
        assert dropped("br0", text()) == {"udp": (67, 69), "tcp": (443,)}
        assert dropped("lo", text()) == {}
        # The commands that doctor names do what it says.
        for chain in blocked("head0", PORTS, text(), ""):
            assert chain.sure and chain.chain == "inet filter input"
            command = opening(chain, "head0")
            subprocess.run(["ip", "netns", "exec", lan.head, "sh", "-c", command], check=True, timeout=20)
        assert dropped("head0", text()) == {}


@pytest.mark.root
@pytest.mark.skipif(shutil.which("iptables-save") is None, reason="iptables is not installed")
def test_iptables_as_it_prints_itself(tmp_path: Path) -> None:
    with cable() as lan:
        inside = ["ip", "netns", "exec", lan.head]
        subprocess.run([*inside, "iptables-restore"], input=IPTABLES.partition("COMMIT\n")[2].encode(), check=True)

        def text() -> str:
            return subprocess.run([*inside, "iptables-save"], capture_output=True, text=True, timeout=20).stdout

        assert dropped("head0", "", text()) == {"udp": (53,), "tcp": (53, 443)}
        for chain in blocked("head0", PORTS, "", text()):
            subprocess.run([*inside, "sh", "-c", opening(chain, "head0")], check=True, timeout=20)
        assert dropped("head0", "", text()) == {}


def test_chains_of_iptables() -> None:
    assert dropped("head0", "", IPTABLES) == {"udp": (53,), "tcp": (53, 443)}
    assert dropped("eth0", "", IPTABLES) == {"udp": (53, 67, 69), "tcp": (53, 80, 443)}


def test_what_iptables_keeps_is_not_told_twice() -> None:
    nft = rules(policy="drop", family="ip").replace('"input"', '"INPUT"', 1)
    nft = nft.replace('"name": "input"', '"name": "INPUT"').replace('"chain": "input"', '"chain": "INPUT"')
    assert {found.tool for found in blocked("eth0", PORTS, nft, IPTABLES)} == {"iptables"}
    assert {found.tool for found in blocked("eth0", PORTS, nft, "")} == {"nft"}


def test_what_cannot_be_judged_makes_it_uncertain() -> None:
    source = match({"payload": {"protocol": "ip", "field": "saddr"}}, "10.0.0.0/8")
    (udp, tcp) = blocked("eth0", PORTS, rules([source, {"accept": None}], policy="drop"), "")
    assert not udp.sure and not tcp.sure
    (udp, tcp) = blocked("eth0", PORTS, rules(policy="drop"), "")
    assert udp.sure and tcp.sure
    # An unknown condition in front of a drop: packets may pass, and nothing is claimed.
    assert blocked("eth0", PORTS, rules([{"limit": {}}, {"drop": None}]), "") == []


def test_negation_and_reject() -> None:
    others = match({"meta": {"key": "iifname"}}, "eth0", "!=")
    nft = rules([others, {"reject": {"type": "icmpx"}}])
    assert dropped("eth0", nft) == {}
    assert dropped("eth1", nft)["udp"] == (53, 67, 69)


@pytest.mark.parametrize(
    ("tool", "chain", "command"),
    [
        ("nft", "inet my in", "nft insert rule inet my in iifname eth0 udp dport '{ 67,69 }' accept"),
        ("iptables", "INPUT", "iptables -I INPUT -i eth0 -p udp -m multiport --dports 67,69 -j ACCEPT"),
        ("ufw", "INPUT", "ufw allow in on eth0 to any port 67,69 proto udp"),
    ],
)
def test_the_way_out_is_in_the_words_of_the_tool(tool: str, chain: str, command: str) -> None:
    assert opening(Blocked(tool, chain, "udp", (67, 69), True), "eth0") == command


def test_firewalld_and_ufw_are_known_by_their_chains() -> None:
    (found, _) = blocked("eth0", PORTS, rules(policy="drop", table="firewalld"), "")
    assert "firewall-cmd" in opening(found, "eth0")
    (found, _) = blocked("eth0", PORTS, "", "*filter\n:INPUT DROP [0:0]\n:ufw-before-input - [0:0]\nCOMMIT\n")
    assert opening(found, "a b") == "ufw allow in on 'a b' to any port 53,67,69 proto udp"


def test_a_ring_of_chains_ends() -> None:
    text = "*filter\n:INPUT DROP [0:0]\n:A - [0:0]\n-A INPUT -j A\n-A A -j A\n-A A -j A\nCOMMIT\n"
    assert dropped("eth0", "", text)["udp"] == (53, 67, 69)


WORDS = st.sampled_from(["match", "left", "right", "set", "vmap", "accept", "drop", "key", "data", "meta"])
LEAVES = st.none() | st.integers() | st.text("aei!*+@", max_size=3)


@given(st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3)))
def test_odd_expressions_do_not_stop_the_doctor(expression: Any) -> None:
    for found in blocked("eth0", PORTS, rules([expression], policy="drop"), ""):
        assert found.ports
