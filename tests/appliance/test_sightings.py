"""What frames mean: servers by their offers, machines by their requests, and nothing by noise."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.sightings import LONGEST, MOST_SERVERS, Frame, Machines, Server, Servers, frame, server
from netboot import dhcp
from tests.netboot.packets import NAMES, packet

CLIENT = "02:11:22:33:44:55"
HOSTILE = b"[red]\x1b]0;x\x07\xe2\x80\xae\xff\r\nnode"  # markup, terminal title, right-to-left, a line break


def reply(kind: dhcp.Kind = dhcp.Kind.OFFER, file: str = "", **fields: object) -> bytes:
    options = {dhcp.SERVER_ID: dhcp.ip("10.0.0.2"), **fields.pop("options", {})}  # type: ignore[dict-item]
    made = dhcp.DhcpReply(kind, 7, CLIENT, file=file, options=options, **fields)  # type: ignore[arg-type]
    return dhcp.build(made)


def request(mac: str = CLIENT, **options: bytes) -> bytes:
    """A DISCOVER; options by their number after an x."""
    numbers = {int(name[1:]): value for name, value in options.items()}
    data = bytearray(dhcp.build(dhcp.DhcpReply(dhcp.Kind.DISCOVER, 7, mac, options=numbers, limit=1400)))
    data[0] = 1
    return bytes(data)


def seen(data: bytes, at: float = 100.0, source: str = "10.0.0.2") -> Frame:
    return Frame(at, "52:54:00:00:00:02", source, data)


def test_an_offer_names_its_server_and_what_it_boots() -> None:
    data = reply(yiaddr="10.0.0.50", siaddr="10.0.0.3", file="pxelinux.0")
    assert server(seen(data)) == Server(
        "10.0.0.2", "10.0.0.2", "52:54:00:00:00:02", "addresses", "10.0.0.50", "pxelinux.0", "10.0.0.3"
    )
    # Option 67 counts more than the field of the header, the name of option 66 than that of the header.
    options = {dhcp.BOOT_FILE: b"snponly.efi", dhcp.TFTP_SERVER: b"boots.example"}
    data = reply(yiaddr="10.0.0.50", file="pxelinux.0", sname="other", options=options)
    found = server(seen(data))
    assert found is not None and (found.boot_file, found.next_server) == ("snponly.efi", "boots.example")


def test_an_offer_without_an_address_is_a_proxy_and_a_nak_a_refusal() -> None:
    proxy, refusal = server(seen(reply(file="x.efi"))), server(seen(reply(dhcp.Kind.NAK)))
    assert proxy is not None and proxy.kind == "boot" and "boot files only" in str(proxy)
    assert refusal is not None and refusal.kind == "refusal"


def test_a_server_without_a_name_of_its_own_goes_by_its_address() -> None:
    data = reply(yiaddr="10.0.0.50", options={dhcp.SERVER_ID: b"\0\0\0\0"})
    found = server(seen(data, source="10.0.0.9"))
    assert found is not None and found.server_id == "10.0.0.9"


def test_options_in_the_boot_file_field_are_no_boot_file() -> None:
    """RFC 2131 section 4.1: with option 52 the fields `file` and `sname` hold options."""
    data = bytearray(reply(yiaddr="10.0.0.50", options={dhcp.OVERLOAD: b"\x01"}))
    data[108:114] = bytes((dhcp.BOOT_FILE, 3)) + b"abc\xff"
    found = server(seen(bytes(data)))
    assert found is not None and found.boot_file == "abc"
    data[108:236] = bytes((dhcp.HOSTNAME, 3)) + b"abc\xff" + bytes(122)
    found = server(seen(bytes(data)))
    assert found is not None and found.boot_file == ""


def test_only_answers_to_the_question_count_where_one_was_asked() -> None:
    data = reply(yiaddr="10.0.0.50")
    assert server(seen(data), CLIENT) is not None
    assert server(seen(data), "02:00:00:00:00:01") is None
    assert server(seen(request())) is None


def test_one_server_is_one_row_and_its_best_answer_stays() -> None:
    servers = Servers()
    offer = Server("10.0.0.2", "10.0.0.2", CLIENT, "addresses", "10.0.0.50")
    assert servers.saw(Server("10.0.0.2", "10.0.0.2", CLIENT, "refusal"))
    assert servers.saw(offer) and not servers.saw(offer)
    assert not servers.saw(Server("10.0.0.2", "10.0.0.2", CLIENT, "refusal"))
    assert servers.rows() == [offer]


def test_own_answers_are_nobody_elses_but_a_borrowed_name_is() -> None:
    servers = Servers(frozenset({"10.0.0.1"}))
    assert not servers.saw(Server("10.0.0.1", "10.0.0.1", CLIENT, "addresses"))
    assert servers.saw(Server("10.0.0.1", "10.0.0.66", CLIENT, "addresses"))
    assert [row.source for row in servers.rows()] == ["10.0.0.66"]


def test_invented_servers_fill_a_table_that_has_an_end() -> None:
    servers = Servers()
    told = [servers.saw(Server(f"10.0.{n // 250}.{n % 250}", "10.0.0.2", CLIENT, "addresses")) for n in range(500)]
    assert sum(told) == len(servers.rows()) == MOST_SERVERS


def test_a_machine_is_known_by_all_it_ever_said() -> None:
    machines = Machines()
    uuid = b"\0" + bytes(range(16))
    machines.saw(seen(request(x60=b"PXEClient:Arch:00007", x93=b"\0\7", x97=uuid), 100.0))
    machine = machines.saw(seen(request(x12=b"node7"), 130.0))
    assert machine is not None
    assert (machine.first, machine.last, machine.count, machine.hostname) == (100.0, 130.0, 2, "node7")
    assert machine.firmware == "UEFI x64" and machine.vendor.startswith("PXEClient") and machine.uuid.startswith("0302")
    assert json.loads(json.dumps(machine.row()))["firmware"] == "UEFI x64"


def test_hostile_text_is_plain_and_short() -> None:
    machine = Machines().saw(seen(request(x12=HOSTILE, x60=HOSTILE * 20)))
    assert machine is not None
    for text in (machine.hostname, machine.vendor):
        assert text.isascii() and text.isprintable() and len(text) <= LONGEST
    found = server(seen(reply(yiaddr="10.0.0.9", options={dhcp.BOOT_FILE: HOSTILE})))
    assert found is not None and found.boot_file.isascii() and found.boot_file.isprintable()
    assert "\\x1b" in found.boot_file


def test_a_flood_of_invented_machines_is_counted() -> None:
    machines = Machines(most=3)
    for number in range(9):
        machines.saw(seen(request(f"02:00:00:00:00:{number:02x}")))
    assert (len(machines.known), machines.left_out) == (3, 6)
    assert machines.saw(seen(request("02:00:00:00:00:01"))) is not None


@pytest.mark.parametrize("line", [{}, {"ready": "eth0"}, {"at": "x"}, {"at": 1, "mac": "", "source": "", "data": "zz"}])
def test_other_lines_are_no_frames(line: dict[str, object]) -> None:
    assert frame(line) is None


@pytest.mark.parametrize("name", NAMES)
def test_captured_messages_are_one_or_the_other_and_never_both(name: str) -> None:
    data = packet(name)
    machine, answer = Machines().saw(seen(data)), server(seen(data))
    assert machine is None or answer is None


@given(st.sampled_from([request(x12=b"n", x97=b"\0" * 17), reply(file="abc", yiaddr="10.0.0.9")]), st.randoms())
def test_no_frame_is_more_than_noise(data: bytes, chance: random.Random) -> None:
    harmed = bytearray(data)
    for _ in range(chance.randrange(1, 8)):
        harmed[chance.randrange(len(harmed))] = chance.randrange(256)
    cut = bytes(harmed[: chance.randrange(len(harmed) + 1)])
    machines = Machines()
    machines.saw(seen(cut))
    answer = server(seen(cut))
    for text in [answer.boot_file, answer.next_server] if answer else []:
        assert text.isprintable() and text.isascii()
    assert len(machines.known) + machines.other == 1
