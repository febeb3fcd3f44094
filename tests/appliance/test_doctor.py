"""Findings from facts: each thing that can be wrong is named with a way out, and nothing else is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Interface
from typing import Any

import pytest

from appliance.config import parse
from appliance.doctor import Facts, Finding, Holder, diagnose
from appliance.sightings import Server
from netboot.udp import Interface
from tests.appliance.process import CHECKOUT, Served, clean_environment, rack_of_one
from tests.appliance.rival import CARD, needs_dnsmasq, rival

ETH0 = Interface("eth0", "52:54:00:00:00:01", IPv4Interface("10.1.0.1/16"), True, True, False)
LO = Interface("lo", "00:00:00:00:00:00", IPv4Interface("127.0.0.1/8"), True, True, True)
CONFIG = parse("", {}, {"interface": "eth0"}).on(IPv4Interface("10.1.0.1/16"))
SOUND = Facts(
    root=True, serving=0, state="/var/lib/gild", interface="eth0", config=CONFIG, trouble=("", ""),
    interfaces=(LO, ETH0), holders=(), refused={}, nft='{"nftables": []}', iptables="", foreign=(), foreign_trouble="",
    wall=1_800_000_000.0, synchronised=True, disk_free=100 << 30, memory=8 << 30, files=65536, python=(3, 12, 1),
    started="/usr/bin/python3, from gild.pyz",
    payload=frozenset({"vmlinuz", "initrd.img", "undionly.kpxe", "snponly.efi", "shimx64.efi", "grubx64.efi"}),
    tools={"mke2fs": "mke2fs 1.47.0", "mmdebstrap": "mmdebstrap 1.3.5", "qemu-img": "qemu-img 7.2"}, confined="",
    bridge_delay=None,
)  # fmt: skip
OTHER = Server("10.1.0.9", "10.1.0.9", "52:54:00:00:00:09", "addresses", "10.1.0.50")


def wrong(**changes: Any) -> list[Finding]:
    """All that is not in order when a sound machine is changed like this."""
    return [finding for finding in diagnose(replace(SOUND, **changes)) if finding.level != "ok"]


def test_a_sound_machine_has_nothing_to_mend() -> None:
    assert wrong() == []
    text = "\n".join(finding.found for finding in diagnose(SOUND))
    assert "udp/67" in text and "10.1.0.1/16" in text and "none answers on eth0" in text and "100.0 GiB" in text


def test_as_a_proxy_the_other_server_is_wanted() -> None:
    assert wrong(config=replace(CONFIG, dhcp="proxy"), foreign=(OTHER,)) == []


@pytest.mark.parametrize(
    ("changes", "level", "found", "fix"),
    [
        ({"root": False}, "warning", "not root", "sudo"),
        ({"trouble": ("gild.toml: lease = 'x'", "a number")}, "error", "gild.toml", "a number"),
        ({"interface": "eth7"}, "error", "eth0", "ip link"),
        ({"interface": ""}, "note", "eth0", "--interface"),
        ({"interfaces": (LO, replace(ETH0, up=False))}, "error", "eth0 is down", "ip link set eth0 up"),
        ({"interfaces": (LO, replace(ETH0, link=False))}, "error", "no carrier", "cable"),
        ({"interfaces": (LO, replace(ETH0, address=None))}, "error", "no IPv4", "ip address add"),
        ({"interfaces": (LO, ETH0, replace(ETH0, name="eth1", address=IPv4Interface("10.1.2.3/24")))}, "warning",
         "eth1 (10.1.2.3/24)", "ip address del 10.1.2.3/24 dev eth1"),
        ({"bridge_delay": 15.0}, "warning", "30 s", "stp_state 0"),
        ({"foreign": (OTHER,)}, "error", "10.1.0.9", "stop it"),
        ({"foreign": (replace(OTHER, kind="boot", offered=""),)}, "warning", "boot files only", "stop it"),
        ({"config": replace(CONFIG, dhcp="proxy")}, "error", "nobody on eth0 gives addresses", "--dhcp authority"),
        ({"foreign": None, "foreign_trouble": "no root"}, "warning", "no root", "sudo"),
        ({"wall": 3600.0}, "error", "1970", "date -u"),
        ({"wall": 1e10}, "error", "2286", "date -u"),
        ({"synchronised": False}, "note", "not synchronised", "set-ntp"),
        ({"disk_free": 1 << 20}, "error", "0.0 GiB", "gc"),
        ({"disk_free": 1 << 30}, "warning", "little", "gc"),
        ({"memory": 100 << 20}, "warning", "100 MiB", "ps "),
        ({"files": 256}, "warning", "256 open files", "ulimit"),
        ({"payload": frozenset()}, "error", "no kernel", "build.py"),
        ({"payload": SOUND.payload - {"initrd.img"}}, "error", "initrd.img", "payload"),
        ({"payload": SOUND.payload - {"undionly.kpxe"}}, "warning", "BIOS", "payload"),
        ({"payload": SOUND.payload - {"grubx64.efi"}}, "warning", "Secure Boot", "payload"),
        ({"tools": {**SOUND.tools, "qemu-img": None}}, "note", "qcow2", "apt install qemu-utils"),
        ({"tools": {**SOUND.tools, "mke2fs": None}}, "warning", "mke2fs", "e2fsprogs"),
        ({"confined": "SELinux is enforcing"}, "note", "SELinux", "GILD_CACHE"),
        ({"confined": "AppArmor confines this process: x"}, "note", "AppArmor", "aa-status"),
        ({"nft": ""}, "note", "not looked at", ""),
        ({"iptables": "*filter\n:INPUT DROP [0:0]\nCOMMIT\n"}, "error", "iptables: INPUT drops", "iptables -I INPUT"),
    ],
)  # fmt: skip
def test_one_thing_wrong_is_one_finding(changes: dict[str, Any], level: str, found: str, fix: str) -> None:
    findings = wrong(**changes)
    first = findings[0]
    assert len({finding.name for finding in findings}) == 1, findings
    assert first.level == level and fix in first.fix and (found in first.found or found == first.name), first


DNSMASQ = Holder("udp", 67, "0.0.0.0", "dnsmasq", 77, "dnsmasq.service")


def test_a_port_that_cannot_be_opened_is_an_error_with_its_holder() -> None:
    (one,) = wrong(holders=(DNSMASQ,), refused={("udp", 67): "is in use"})
    assert (one.name, one.level, one.fix) == ("UDP port 67", "error", "systemctl disable --now dnsmasq.service")
    assert "dnsmasq (PID 77)" in one.found
    (one,) = wrong(holders=(replace(DNSMASQ, unit=""),), refused={("udp", 67): "is in use"})
    assert one.fix == "kill 77"
    (one,) = wrong(refused={("tcp", 80): "TCP port 80 is in use"})
    assert one.found == "TCP port 80 is in use" and "ss -lntp" in one.fix


def test_a_holder_on_another_interface_or_address_is_in_nobodys_way() -> None:
    (one,) = wrong(holders=(DNSMASQ,))
    assert one.level == "note" and "another interface" in one.found
    assert wrong(holders=(Holder("udp", 53, "127.0.0.53", "systemd-resolve", 5),)) == []
    # Without an interface nobody could try.
    assert "warning" in {finding.level for finding in wrong(holders=(DNSMASQ,), interface="")}


def test_our_own_ports_are_no_trouble_and_others_beside_them_are() -> None:
    assert wrong(serving=77, holders=(DNSMASQ,)) == []
    assert {finding.name for finding in wrong(serving=78, holders=(DNSMASQ,))} == {"UDP port 67"}


def test_a_second_boot_server_is_told() -> None:
    (one,) = wrong(holders=(replace(DNSMASQ, port=4011),))
    assert (one.name, one.level) == ("UDP port 4011", "warning")


def test_names_of_interfaces_do_not_become_commands() -> None:
    nasty = replace(ETH0, name="e;reboot", up=False)
    (one, *_) = wrong(interface="e;reboot", interfaces=(nasty,), foreign=None)
    assert one.fix == "ip link set 'e;reboot' up"


# --- on real machines


@pytest.fixture(scope="module")
def rack() -> Iterator[Served]:
    with rack_of_one() as served:
        yield served
        served.kill()


def doctor(rack: Served, *flags: str) -> tuple[int, dict[str, dict[str, str]]]:
    done = subprocess.run(
        rack.command("doctor", "--json", *flags), cwd=CHECKOUT, env=clean_environment(), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert not done.stderr or done.stderr.endswith("this machine from serving\n")
    return done.returncode, {row["name"]: row for row in json.loads(done.stdout)}


@pytest.mark.root
def test_a_fresh_machine_and_one_that_serves(rack: Served) -> None:
    code, found = doctor(rack, "--interface", "head0")
    assert code == (0 if "boot files" not in found else 5)
    assert "free" in found["ports"]["found"] and "10.77.0.1/24" in found["address"]["found"]
    assert found["other DHCP servers"]["level"] == "ok"
    rack.start()
    assert rack.process is not None
    _, found = doctor(rack, "--interface", "head0")
    assert f"process {rack.process.pid} " in found["serving"]["found"] and "ours" in found["ports"]["found"]
    assert rack.stop() == 0


@pytest.mark.root
@needs_dnsmasq
def test_a_busy_port_and_a_foreign_server(rack: Served) -> None:
    command = ["ip", "netns", "exec", rack.lan.head, "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=53"]
    holder = subprocess.Popen([*command, "--pid-file="], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert holder.stdout is not None and "started" in holder.stdout.readline()
        with rival(rack.lan):
            code, found = doctor(rack, "--interface", "head0")
    finally:
        holder.kill()
        holder.communicate()
    assert code == 5
    for kind in ("UDP", "TCP"):
        assert found[f"{kind} port 53"]["level"] == "error"
        assert f"dnsmasq (PID {holder.pid})" in found[f"{kind} port 53"]["found"]
    assert found["other DHCP servers"]["level"] == "error" and CARD in found["other DHCP servers"]["found"]


@pytest.mark.root
def test_nothing_is_sent_where_nobody_named_an_interface(rack: Served) -> None:
    """The machine at the other end hears nothing; with gild.toml naming the interface it hears a question."""
    with rack.datagram_socket(67) as sock:
        sock.settimeout(0.05)
        code, found = doctor(rack)
        assert code in (0, 5) and "other DHCP servers" not in found and found["interface"]["level"] == "note"
        with pytest.raises(TimeoutError):
            sock.recv(2048)
        rack.paths.settings.write_text("interface = 'head0'\n")
        try:
            _, found = doctor(rack)
        finally:
            rack.paths.settings.unlink()
        assert b"PXEClient:Arch:00007" in sock.recv(2048)
        assert found["other DHCP servers"]["level"] == "ok"


@pytest.mark.root
def test_it_prints_for_people_and_exits_by_what_it_finds(rack: Served) -> None:
    run = [*rack.command("doctor", "--interface", "eth[red]9")]
    done = subprocess.run(run, cwd=CHECKOUT, env=clean_environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 5 and "there is no eth[red]9" in done.stdout and "ip link show" in done.stdout
    assert done.stderr.startswith("gild: ") and len(done.stderr.splitlines()) == 1 and sys.executable in done.stdout
