from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import Wrong
from appliance.head_hello import Refused
from appliance.sessions import SessionUnknown
from netboot import dhcp
from netboot.order import LIFETIME
from netboot.report import Disk, Do, Hello, Next, Nic, Phase, PlanAsk
from tests.appliance.rack import DIGEST, HEAD_IP, Rack, token_in

HOSTILE = "a\r\nchain http://evil/ ${x}\x1b[31m\u202e<b>"


def test_from_the_first_packet_to_up(rack: Rack) -> None:
    machine = rack.machine()
    assert "gild.token" not in machine.boot()
    answer = machine.hello()
    assert (answer.do, answer.number) == (Do.WAIT, 1) and "approve 1" in answer.message
    (row,) = rack.head.approve(None)
    assert (row["name"], row["address"], row["profile"]) == ("node01", machine.address, "default")
    (preview,) = rack.head.install(["node01"], preview=True)
    assert preview["node"] == "node01" and preview["image"] == "compute:3"
    assert "vda" in preview["disk"] and preview["content"] == "NTFS"
    assert not rack.head.node("node01")["ordered"]
    assert rack.head.install(["node01"]) == [preview]
    rack.await_keys(machine)
    machine.boot()
    answer = machine.hello()
    assert answer.do is Do.INSTALL and answer.token
    plan = machine.plan()
    assert (plan.image, plan.manifest, plan.node) == ("compute:3", DIGEST, "node01")
    assert rack.state_of("node01") == "installing"
    machine.report(phase=Phase.WRITE, done=50, total=100, fetched=20, lines=("hello",), disk="vda")
    row = rack.head.node("node01")
    assert (row["phase"], row["done"], row["total"], row["fetched"]) == ("writing", 50, 100, 20)
    machine.report(finished=True, finish="reboot")
    assert rack.state_of("node01") == "installed"
    assert "sanboot" in rack.head.script(machine.mac, machine.address, "pcbios")
    machine.home(plan)
    row = rack.head.node("node01")
    assert (row["state"], row["image"], row["digest"]) == ("up", "compute:3", DIGEST)
    assert set(row["seconds_to"]) == {"hello", "written", "up"}
    story = rack.timeline("node01")
    for part in ("first seen", "snponly.efi", "has loaded", "in the installer", "approved as node01", "order for",
                 "takes the plan", "writing", "hello", "written in", "up: node01"):  # fmt: skip
        assert part in story, part


def test_the_plan_says_everything(rack: Rack) -> None:
    machine = rack.approved()
    rack.head.install(["node01"], finish="poweroff", disk="pick=smallest")
    machine.hello()
    plan = machine.plan()
    assert plan.sources == (f"http://{HEAD_IP}",) and plan.finish == "poweroff" and plan.disk.pick == "smallest"
    assert (plan.network.mac, plan.network.address, plan.network.prefix) == (machine.mac, machine.address, 24)
    assert plan.network.dns == (HEAD_IP,) and plan.network.domain == "cluster.internal"
    edits = {edit.edit: edit.options for edit in plan.edits}
    assert next(iter(edits)) == "hostname" and edits["hostname"] == {"name": "node01", "domain": "cluster.internal"}
    assert len(edits["machine_id"]["id"]) == 32 and "ssh_host_ed25519_key" in edits["host_keys"]["keys"]
    assert edits["origin"] == {"image": "compute:3", "manifest": DIGEST, "profile": "default"}
    assert edits["call_home"] == {"url": plan.home_url, "secret": plan.home_secret}
    assert plan.home_url == f"http://{HEAD_IP}/up/1"
    assert [piece.name for piece in plan.boot] == ["boot.img", "core.img", "shimx64.efi", "grub-disk.efi"]


def test_identity_survives_a_reinstall(rack: Rack) -> None:
    machine = rack.approved()
    plans = []
    for _ in range(2):
        rack.head.install(["node01"])
        machine.boot()
        machine.hello()
        plans.append(machine.write())
        machine.home(plans[-1])
    first, second = ({edit.edit: edit.options for edit in plan.edits} for plan in plans)
    assert first["machine_id"] == second["machine_id"] and first["host_keys"] == second["host_keys"]
    assert first["network"] == second["network"]
    assert plans[0].home_secret != plans[1].home_secret


# --- DHCP


def test_one_address_from_rom_to_installer_and_after_a_restart(rack: Rack) -> None:
    machine = rack.approved()
    before = machine.address
    machine.lease(ipxe=True)
    machine.lease(firmware=False)
    assert machine.address == before
    rack.stop()
    rack.start()
    machine.lease()
    assert machine.address == before
    assert rack.head.node("node01")["address"] == before


def test_a_lease_is_on_the_disk_before_its_ack(rack: Rack) -> None:
    machine = rack.machine()
    (offer,) = machine.discover()
    seen: list[Any] = []

    def send(packet: bytes, to: tuple[str, int]) -> None:
        seen.append((dhcp.parse(packet).kind, rack.store.read("SELECT mac, address FROM leases")))

    data = machine.packet(dhcp.Kind.REQUEST, requested=offer.yiaddr, server=HEAD_IP)
    assert list(rack.head.dhcp(data, ("0.0.0.0", 68), send)) == [] and seen == []
    rack.store.flush()
    assert seen == [(dhcp.Kind.ACK, [(machine.mac, offer.yiaddr)])]


def test_a_stranger_with_no_wish_to_boot_gets_an_address_and_no_row(rack: Rack) -> None:
    machine = rack.machine()
    machine.lease(firmware=False)
    assert machine.address and rack.head.nodes() == []


def test_known_nodes_get_theirs_when_strangers_have_taken_the_rest(tmp_path: Path) -> None:
    rack = Rack(tmp_path, range="10.1.0.10-10.1.0.20")
    machine = rack.approved(1)
    before = machine.address
    got = sum(bool(rack.machine(number).discover(firmware=False)) for number in range(2, 110))
    assert got == 10
    machine.lease()
    assert machine.address == before
    with pytest.raises(Wrong, match="no address is left"):
        stranger = rack.machine(200)
        rack.clock.pass_(61)
        for number in range(2, 30):
            rack.machine(number).discover(firmware=False)
        stranger.discover()
        rack.head.approve([stranger.mac])
    assert rack.state_of(stranger.mac) == "waiting"
    rack.crash()


def test_the_wrong_address_is_refused(rack: Rack) -> None:
    machine = rack.approved()
    for wrong in ("192.168.9.9", "10.1.0.200"):
        (nak,) = machine.request(wrong)
        assert nak.kind is dhcp.Kind.NAK
    assert "may not have the address 192.168.9.9" in rack.timeline("node01")


def test_another_servers_client_is_left_alone_and_told_of(rack: Rack) -> None:
    machine = rack.approved()
    assert rack.dhcp(machine.packet(dhcp.Kind.REQUEST, requested="10.1.0.66", server="10.1.0.99")) == []
    assert "another DHCP server, 10.1.0.99" in rack.timeline("node01")


def test_release_and_decline_are_answered_with_silence(rack: Rack) -> None:
    machine = rack.machine()
    machine.lease()
    assert rack.dhcp(machine.packet(dhcp.Kind.RELEASE, ciaddr=machine.address)) == []
    assert rack.store.read("SELECT * FROM leases") == []
    (offer,) = machine.discover()
    machine.request(offer.yiaddr)
    assert rack.dhcp(machine.packet(dhcp.Kind.DECLINE, requested=offer.yiaddr, server=HEAD_IP)) == []
    (other,) = machine.discover()
    assert other.yiaddr != offer.yiaddr
    assert "in use by somebody else" in rack.timeline("1")


@pytest.mark.parametrize("data", [b"", b"\0" * 300, b"\xff" * 1600])
def test_noise_is_counted(rack: Rack, data: bytes) -> None:
    assert rack.dhcp(data) == []
    assert rack.head.status()["dhcp"]["not DHCP"] == 1


@pytest.mark.parametrize(
    ("unknown", "answered", "words"), [("wait", 1, "vmlinuz"), ("local", 1, "local.efi"), ("ignore", 0, "")]
)
def test_what_strangers_get(tmp_path: Path, unknown: str, answered: int, words: str) -> None:
    rack = Rack(tmp_path, unknown=unknown)
    machine = rack.machine()
    assert len(machine.discover()) == answered
    assert len(rack.head.nodes()) == 1
    if answered:
        assert words in machine.boot()
    else:
        assert "is not answered: nobody has approved it" in rack.timeline("1")
    rack.crash()


def test_the_next_loader_is_offered_when_one_fails_and_remembered(rack: Rack) -> None:
    machine = rack.approved()

    def loader() -> str:
        (offer,) = machine.discover()
        first = offer.options[dhcp.BOOT_FILE]
        (ack,) = machine.request(offer.yiaddr)
        assert ack.options[dhcp.BOOT_FILE] == first
        return first.rstrip(b"\0").decode()

    assert loader() == "snponly.efi"
    rack.head.file_sent(machine.address, "snponly.efi", 1000, 0.1, "tftp", "")
    assert loader() == "ipxe.efi"
    rack.stop()
    rack.start()
    assert loader() == "ipxe.efi"
    rack.head.file_sent(machine.address, "ipxe.efi", 1000, 0.1, "tftp", "")
    rack.tick(91)
    assert "the next one is tried" in rack.head.node("node01")["reason"]
    assert loader() == "shimx64.efi"


def test_secure_boot_nodes_get_signed_loaders_and_grub(rack: Rack) -> None:
    machine = rack.approved()
    rack.head.set(["node01"], loader="secure")
    (offer,) = machine.discover()
    assert offer.options[dhcp.BOOT_FILE].rstrip(b"\0") == b"shimx64.efi"
    rack.head.install(["node01"])
    config = rack.head.grub_cfg(machine.address)
    token = token_in(config.replace(";", " "))
    assert "linux /vmlinuz" in config and len(token) == 32
    assert machine.hello(token).token == token
    machine.write()
    assert "chainloader" in rack.head.grub_cfg(machine.address)
    assert "linux /vmlinuz" in rack.head.grub_cfg("10.1.0.250")


def test_another_http_port_is_told_to_ipxe(tmp_path: Path) -> None:
    rack = Rack(tmp_path, http_port=8080)
    machine = rack.machine()
    (offer,) = machine.discover(ipxe=True)
    assert offer.options[dhcp.BOOT_FILE].startswith(b"http://10.1.0.1:8080/boot.ipxe?mac=52:54:")
    rack.crash()


# --- orders and tokens


def test_the_token_of_a_script_works_once(rack: Rack) -> None:
    machine = rack.approved()
    rack.head.install(["node01"])
    token = token_in(machine.boot())
    assert len(token) == 32
    answer = machine.hello(token)
    assert (answer.do, answer.token) == (Do.INSTALL, token)
    first = machine.plan()
    assert machine.plan() == first  # the same question again: its answer was lost
    machine.report(phase=Phase.PARTITION)
    with pytest.raises(Refused) as refused:
        machine.plan()
    assert refused.value.status == 403 and "ALARM" in rack.timeline("node01")
    other = rack.machine()
    other.address = machine.address
    other.hello()
    with pytest.raises(Refused, match="second time"):
        other.plan(token)


def test_loaders_that_ask_twice_may_use_either_token(rack: Rack) -> None:
    machine = rack.approved()
    rack.head.install(["node01"])
    machine.boot()
    one, two, _ = (token_in(machine.script()) for _ in range(3))
    rack.clock.pass_(30)
    assert machine.hello(two).token == two
    with pytest.raises(Refused, match="not valid"):
        machine.plan(one)
    assert machine.plan(two).image == "compute:3"


def test_no_token_in_the_database(rack: Rack) -> None:
    machine = rack.approved()
    rack.head.install(["node01"])
    token = token_in(machine.boot())
    machine.hello(token)
    machine.plan()
    rack.stop()
    data = b"".join(path.read_bytes() for path in rack.state.glob("gild.db*"))
    assert token.encode() not in data and machine.session.encode() not in data
    rack.start()


def test_another_machine_gets_nothing_with_a_stolen_token(rack: Rack) -> None:
    machine, thief = rack.approved(1), rack.approved(2)
    rack.head.install(["node01", "node02"])
    token = token_in(machine.boot())
    thief.boot()
    thief.hello(token)
    with pytest.raises(Refused):
        thief.plan(token)
    assert rack.state_of("node02") == "ready"


def test_whoever_claims_a_mac_from_elsewhere_gets_no_order(rack: Rack) -> None:
    machine = rack.approved()
    rack.head.install(["node01"])
    script = rack.head.script(machine.mac, "10.1.0.77", "efi")
    assert "vmlinuz" in script and token_in(script) == ""
    facts = replace(machine.facts(), vendor="Evil")
    answer = rack.head.hello(Hello(machine.mac, facts), "10.1.0.77")
    assert (answer.do, answer.token) == (Do.WAIT, "")
    with pytest.raises(Refused):
        asyncio.run(rack.head.plan(PlanAsk(answer.session, "x")))
    assert rack.head.node("node01")["machine"] != "Evil Model"
    assert "not its address" in rack.timeline("node01")


def test_a_card_moved_to_another_board_gets_no_order(rack: Rack) -> None:
    machine = rack.approved()
    machine.hello()
    rack.head.install(["node01"])
    stranger = replace(machine.facts(), uuid="4c4c4544-0042-3510-8051-b2c04f4d5299", serial="X9")
    assert rack.head.hello(Hello(machine.mac, stranger), machine.address).do is Do.WAIT
    assert "another UUID" in rack.timeline("node01")
    assert machine.hello().do is Do.INSTALL


def test_an_order_expires_unused(rack: Rack) -> None:
    machine = rack.approved()
    rack.head.install(["node01"])
    machine.hello()
    rack.tick(LIFETIME + 1)
    assert "expired unused" in rack.timeline("node01")
    machine.lease()
    assert machine.hello().do is Do.WAIT


def test_the_wall_clock_may_jump(rack: Rack) -> None:
    machine = rack.approved()
    rack.head.install(["node01"])
    for days in (400, -401):
        rack.clock.jump(days * 86400)
        rack.tick()
        assert machine.hello().do is Do.INSTALL
        assert machine.lease().yiaddr == machine.address
    assert rack.head.node("node01")["since_seconds"] < 100


def test_an_interrupted_installation_goes_on_three_times(rack: Rack) -> None:
    machine = rack.approved()
    rack.head.install(["node01"])
    for number in (1, 2, 3):
        token = token_in(machine.boot())
        assert machine.hello(token).do is Do.INSTALL
        machine.plan()
        machine.report(phase=Phase.WRITE, done=1, total=9)
        assert rack.head.node("node01")["tries"] == number
    assert token_in(machine.boot()) == ""
    answer = machine.hello()
    assert answer.do is Do.WAIT and rack.state_of("node01") == "failed"
    assert "interrupted 3 times" in rack.head.node("node01")["reason"]
    rack.head.install(["node01"])
    assert machine.hello().do is Do.INSTALL


def test_an_installation_survives_a_restart_of_the_head(rack: Rack) -> None:
    machine = rack.approved()
    rack.head.install(["node01"])
    machine.hello()
    plan = machine.plan()
    rack.crash()
    rack.start()
    assert rack.state_of("node01") == "installing"
    with pytest.raises(Refused):
        machine.plan("something else")
    assert machine.plan() == plan
    machine.report(phase=Phase.WRITE, done=5, total=9)
    machine.report(finished=True, finish="kexec")
    rack.stop()
    rack.start()
    assert rack.state_of("node01") == "installed"
    machine.home(plan)
    assert rack.state_of("node01") == "up"


def test_a_waiting_agent_says_hello_again_after_a_restart(rack: Rack) -> None:
    machine = rack.approved()
    machine.hello()
    rack.stop()
    rack.start()
    with pytest.raises(SessionUnknown) as unknown:
        asyncio.run(rack.head.next(Next(machine.session, 0)))
    assert unknown.value.status == 401


def test_a_waiting_agent_hears_of_its_order_at_once(rack: Rack) -> None:
    machine = rack.approved()
    machine.hello()

    async def story() -> None:
        poll = asyncio.create_task(rack.head.next(Next(machine.session, 25)))
        await asyncio.sleep(0)
        assert not poll.done()
        rack.head.install(["node01"])
        machine.answer = await asyncio.wait_for(poll, 5)

    asyncio.run(story())
    assert machine.answer is not None and machine.answer.do is Do.INSTALL
    assert machine.plan().image == "compute:3"


def test_a_cancelled_order_stops_its_installation(rack: Rack) -> None:
    machine = rack.approved()
    rack.head.install(["node01"])
    machine.hello()
    assert rack.head.cancel(["node01"]) == [{"node": "node01", "image": "compute:3"}]
    with pytest.raises(Refused):
        machine.plan()
    rack.head.install(["node01"])
    machine.hello()
    machine.plan()
    assert machine.report(phase=Phase.WRITE, done=1, total=9).stop == ""
    rack.head.cancel(None)
    assert "taken back" in machine.report(phase=Phase.WRITE, done=2, total=9).stop
    machine.report(failed="stopped")
    assert rack.state_of("node01") == "failed"
    with pytest.raises(Wrong, match="no open order"):
        rack.head.cancel(["node01"])


def test_a_failure_is_kept_and_not_tried_again(rack: Rack) -> None:
    machine = rack.approved()
    rack.head.install(["node01"])
    machine.hello()
    machine.plan()
    machine.report(failed="no disk fits the rule\n\x1b[2J")
    row = rack.head.node("node01")
    assert row["state"] == "failed" and row["reason"] == "no disk fits the rule ?[2J"
    machine.boot()
    assert machine.hello().do is Do.WAIT


def test_a_plan_that_cannot_begin_is_not_offered_for_ever(rack: Rack) -> None:
    machine = rack.approved()
    rack.head.install(["node01"])
    machine.hello()
    machine.report(failed="the head refuses: ...")
    assert machine.hello().do is Do.WAIT and rack.state_of("node01") == "failed"


def test_silence_is_noticed_and_forgiven(rack: Rack) -> None:
    machine = rack.approved()
    rack.head.install(["node01"])
    machine.hello()
    machine.plan()
    machine.report(phase=Phase.WRITE, done=1, total=9)
    rack.tick(299)
    assert rack.state_of("node01") == "installing"
    rack.tick(2)
    assert rack.state_of("node01") == "lost"
    machine.report(phase=Phase.WRITE, done=2, total=9)
    assert rack.state_of("node01") == "installing"


def test_the_more_machines_the_less_often_each_reports(rack: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = rack.approved()
    rack.head.install(["node01"])
    machine.hello()
    machine.plan()
    assert machine.report(phase=Phase.WRITE, done=1, total=2).every < 1
    monkeypatch.setattr("appliance.head_install.REPORTS", 0.1)
    assert machine.report(phase=Phase.WRITE, done=1, total=2).every == 10


# --- call home


def test_the_call_home_is_proven_and_counts_once(rack: Rack) -> None:
    machine = rack.approved()
    rack.head.install(["node01"])
    machine.hello()
    plan = machine.write()
    for proof in ("0" * 64, "é", "x"):
        with pytest.raises(Refused):
            machine.home(plan, proof=proof)
    for ref in ("99", "x", "1" * 30, "-1"):
        with pytest.raises(Refused):
            rack.head.home(ref, b"", "0" * 64, machine.address)
    assert rack.state_of("node01") == "installed"
    machine.home(plan, b"hostname other\nkernel " + HOSTILE.encode())
    machine.home(plan)
    story = rack.timeline("node01")
    assert story.count("up: ") == 1 and "calls itself other" in story and "\x1b" not in story


def test_a_call_home_counts_when_the_last_report_was_lost(rack: Rack) -> None:
    machine = rack.approved()
    rack.head.install(["node01"])
    machine.hello()
    plan = machine.plan()
    machine.report(phase=Phase.BOOT)
    machine.home(plan)
    assert rack.head.node("node01")["image"] == "compute:3"
    assert "chain " in machine.boot()


# --- hostile machines


def test_hostile_words_reach_neither_script_nor_zone_nor_screen(rack: Rack) -> None:
    machine = rack.machine(vendor=HOSTILE, extra={dhcp.HOSTNAME: b"evil\r\n${x}"})
    machine.disks = (Disk("/dev/vda", 1 << 40, model=HOSTILE, serial="\ud800", content=HOSTILE),)
    scripts = [machine.boot()]
    machine.hello()
    machine.report(lines=(HOSTILE, "\ud800\x00"))
    rack.head.approve(None)
    rack.await_keys(machine)
    rack.head.install(["node01"])
    scripts += [machine.boot(), rack.head.grub_cfg(machine.address)]
    machine.hello()
    machine.plan()
    machine.report(phase=Phase.WRITE, disk=HOSTILE, failed=HOSTILE)
    scripts.append(machine.boot())
    for script in scripts:
        assert not any("evil" in line for line in script.splitlines() if not line.startswith("#"))
        assert all(" " <= c <= "~" or c == "\n" for c in script)
    assert dict(rack.head.zone().names) == {"node01": machine.address}
    shown = repr(rack.head.node("node01"))
    assert "\\x1b" not in shown and "\\u202e" not in shown and "\\r" not in shown and "\\ud800" not in shown
    rack.stop()
    rack.start()
    assert rack.head.node("node01")["state"] == "failed"


@pytest.mark.parametrize("mac", ["", "x", "\r\n", "${net0/mac}", "01:00:5e:00:00:01", "52:54:00:00:00:01\n"])
def test_any_mac_in_a_url_gets_a_script(rack: Rack, mac: str) -> None:
    lines = rack.head.script(mac, "10.1.0.9", "\r\nshell").splitlines()
    assert lines[0] == "#!ipxe" and "shell" not in lines and not token_in("\n".join(lines))


@pytest.mark.parametrize("mac", ["", "x", "ff:ff:ff:ff:ff:ff"])
def test_a_hello_without_a_card_is_refused(rack: Rack, mac: str) -> None:
    with pytest.raises(Refused):
        rack.head.hello(Hello(mac, rack.machine().facts()), "10.1.0.9")


def test_another_wire_version_is_refused(rack: Rack) -> None:
    with pytest.raises(Refused, match="version 99"):
        rack.head.hello(Hello(rack.machine().mac, rack.machine().facts(), wire=99), "10.1.0.9")


def test_tables_are_bounded(rack: Rack) -> None:
    machine = rack.approved()
    for _ in range(50):
        machine.hello()
    sessions = rack.head._installs.sessions
    assert len(sessions.table) <= 5
    for line in range(20):
        machine.report(lines=tuple(f"line {line} {n}" for n in range(200)))
    assert len(rack.head.log("node01", 0)) < 300
    rack.tick(700)
    assert not sessions.table


def test_a_thousand_strangers_do_not_push_out_a_node(rack: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.roster.MAX_STRANGERS", 20)
    machine = rack.approved(1)
    for number in range(2, 60):
        rack.machine(number).discover()
    assert len(rack.head.nodes()) == 21 and rack.head.node("node01")["mac"] == machine.mac


def test_cards_of_one_machine_become_one_node(rack: Rack) -> None:
    first, second = rack.machine(1), rack.machine(2)
    first.lease()
    second.extra = {dhcp.UUID: b"\x00" + bytes(16)}
    second.packet(dhcp.Kind.DISCOVER)
    facts = replace(first.facts(), nics=(Nic("eth0", first.mac), Nic("eth1", "52:54:00:00:00:99")))
    rack.head.hello(Hello(first.mac, facts), first.address)
    assert rack.head.node(first.mac)["macs"] == [first.mac, "52:54:00:00:00:99"]
    assert rack.head.node("52:54:00:00:00:99")["id"] == 1
