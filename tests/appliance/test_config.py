from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from appliance.config import SETTINGS, Config, parse
from appliance.errors import ConfigInvalid


def config(**flags: Any) -> Config:
    return parse("", {}, {"interface": "eth1", **flags})


def test_the_flag_wins_over_the_variable_over_the_file() -> None:
    text, environ = (
        'domain = "file.internal"\nntp = "10.0.0.9"\nlease = 600',
        {"GILD_DOMAIN": "env.internal", "GILD_LEASE": "700"},
    )
    made = parse(text, environ, {"domain": "flag.internal", "lease": None})
    assert (made.domain, made.lease_seconds, made.ntp) == ("flag.internal", 700, "10.0.0.9")


def test_other_variables_are_not_ours() -> None:
    assert parse("", {"PATH": "/bin", "GILD_CACHE": "/x"}, {}).domain == "cluster.internal"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('domian = "x"', "did you mean 'domain'"),
        ('domain = "Not A Domain"', "domain in lower case"),
        ("lease = 5", "number from 120"),
        ("lease = true", "number from 120"),
        ('range = "10.0.0.9"', "two IPv4 addresses"),
        ('range = "10.0.0.9-10.0.0.1"', "two IPv4 addresses"),
        ('names = "node"', "pattern with a number"),
        ('names = "node{x}"', "pattern with a number"),
        ('names = "Node {n}"', "pattern with a number"),
        ('unknown = "erase"', "one of wait, local, ignore"),
        ('router = "10.0.0.256"', "an IPv4 address"),
        ('forward = "ns.example.com"', "one to three IPv4 addresses"),
        ('forward = "1.1.1.1,1.1.1.2,1.1.1.3,1.1.1.4"', "one to three IPv4 addresses"),
        ('installer_cmdline = "a || b"', "kernel arguments without"),
        ('aliases = "www"', "NAME=ADDRESS or NAME=head"),
        ('aliases = "www=10.1.0.300"', "NAME=ADDRESS or NAME=head"),
        ('aliases = "W W=head"', "NAME=ADDRESS or NAME=head"),
        ('aliases = "a..b=head"', "NAME=ADDRESS or NAME=head"),
        ('interface = "a\\u0007b"', "a line of text"),
        ("domain = ", "gild.toml"),
    ],
)
def test_a_bad_setting_is_named_with_what_it_should_be(text: str, said: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        parse(text, {}, {})
    assert said in str(caught.value) and "gild.toml" in str(caught.value)


def test_address_and_range_come_from_the_interface() -> None:
    made = config().on(ipaddress.IPv4Interface("10.1.0.1/24"))
    assert (made.address, made.range_first, made.range_last) == ("10.1.0.1", "10.1.0.25", "10.1.0.254")
    made = config(range="10.1.0.50-10.1.0.60").on(ipaddress.IPv4Interface("10.1.0.1/24"))
    assert (made.range_first, made.range_last) == ("10.1.0.50", "10.1.0.60")


@pytest.mark.parametrize(
    ("flags", "interface"),
    [
        ({"range": "10.2.0.5-10.2.0.9"}, "10.1.0.1/24"),
        ({"address": "10.2.0.1"}, "10.1.0.1/24"),
        ({"router": "10.2.0.1"}, "10.1.0.1/24"),
        ({"forward": "192.0.2.1, 10.1.0.1"}, "10.1.0.1/24"),
        ({}, "10.1.0.1/30"),
    ],
)
def test_what_does_not_fit_the_interface_is_refused(flags: dict[str, str], interface: str) -> None:
    with pytest.raises(ConfigInvalid):
        config(**flags).on(ipaddress.IPv4Interface(interface))


def test_more_names() -> None:
    made = config(aliases="www=head, printer.lab=10.9.0.5", forward="system").on(ipaddress.IPv4Interface("10.1.0.1/24"))
    assert made.more_names == {"www": "10.1.0.1", "printer.lab": "10.9.0.5"} and made.forward == "system"


def test_every_default_is_valid_by_its_own_rule() -> None:
    for setting in SETTINGS:
        assert setting.read(setting.default) == setting.default
        assert setting.help


def test_the_range_of_a_large_network_is_one_that_can_be_held() -> None:
    made = config().on(ipaddress.IPv4Interface("10.0.0.1/8"))
    first, last = ipaddress.IPv4Address(made.range_first), ipaddress.IPv4Address(made.range_last)
    assert int(last) - int(first) == (1 << 16) - 1
