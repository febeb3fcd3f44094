"""The address pool: every address in one place, every machine its own."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from netboot.lease import LeaseInvalid, Pool


def pool(size: int = 4) -> Pool:
    return Pool("10.0.0.0/24", "10.0.0.10", f"10.0.0.{9 + size}", ["10.0.0.1"])


def mac(number: int) -> str:
    return f"52:54:00:00:{number >> 8:02x}:{number & 255:02x}"


def test_one_machine_keeps_one_address_from_rom_to_system() -> None:
    p = pool()
    address = p.offer(mac(1), None, 0)
    assert address == "10.0.0.10"
    assert p.commit(mac(1), address, 1, 600)
    for now in (5, 30, 100):  # ROM, iPXE, installer, system: each asks afresh
        assert p.offer(mac(1), None, now) == address
        assert p.commit(mac(1), address, now + 1, 600)
    assert p.offer(mac(2), None, 100) == "10.0.0.11"


def test_an_offer_not_taken_goes_back_after_a_minute() -> None:
    p = pool(1)
    assert p.offer(mac(1), None, 0) == "10.0.0.10"
    assert p.offer(mac(2), None, 59) is None
    assert p.offer(mac(2), None, 60) == "10.0.0.10"
    assert not p.commit(mac(1), "10.0.0.10", 61, 600)


def test_a_repeated_discover_keeps_the_offer_alive() -> None:
    p = pool(1)
    p.offer(mac(1), None, 0)
    p.offer(mac(1), None, 50)
    assert p.offer(mac(2), None, 100) is None
    assert p.offer(mac(2), None, 110) == "10.0.0.10"


def test_a_flood_of_invented_machines_stops_at_the_pool_and_known_ones_get_theirs() -> None:
    p = pool(10)
    p.reserve(mac(999), "10.0.0.200")
    assert p.commit(mac(998), p.offer(mac(998), None, 0) or "", 0, 3600)
    given = [p.offer(mac(n), None, 1) for n in range(100)]
    assert sum(address is not None for address in given) == 9
    assert p.offer(mac(999), None, 1) == "10.0.0.200"
    assert p.offer(mac(998), None, 1) == "10.0.0.10"
    assert p.known(mac(999)) and p.known(mac(998)) and not p.known(mac(0))
    assert p.offer(mac(500), None, 62) is not None
    assert p.free() == 8


def test_a_flood_does_not_make_the_pool_forget() -> None:
    p = pool(3)
    assert p.commit(mac(1), p.offer(mac(1), None, 0) or "", 0, 60)
    assert p.release(mac(1), "10.0.0.10", 1)
    for n in range(100, 110):
        p.offer(mac(n), None, 2)
    p.expire(100)
    assert p.offer(mac(1), None, 100) == "10.0.0.10"


def test_the_longest_unused_address_is_given_away_first() -> None:
    p = pool(3)
    for n in (1, 2, 3):
        assert p.commit(mac(n), p.offer(mac(n), None, 0) or "", 0, 100)
    assert p.release(mac(2), "10.0.0.11", 10)
    assert p.release(mac(1), "10.0.0.10", 20)
    assert p.offer(mac(9), None, 30) == "10.0.0.11"
    assert p.offer(mac(1), None, 30) == "10.0.0.10"  # its old one, though another is idle too
    assert p.expire(101) == [mac(3)]


def test_what_was_asked_for_is_given_if_nobody_had_it() -> None:
    p = pool()
    assert p.offer(mac(1), "10.0.0.12", 0) == "10.0.0.12"
    assert p.offer(mac(2), "10.0.0.12", 0) == "10.0.0.10"
    assert p.offer(mac(3), "10.0.0.99", 0) == "10.0.0.11"
    assert p.offer(mac(4), "nonsense", 0) == "10.0.0.13"


def test_init_reboot_after_we_forgot_everything() -> None:
    p = pool()
    assert p.commit(mac(1), "10.0.0.13", 0, 600)
    assert not p.commit(mac(2), "10.0.0.13", 1, 600)
    assert not p.commit(mac(2), "10.0.0.99", 1, 600)
    assert not p.commit(mac(2), "10.0.0.1", 1, 600)
    # mac 1's address is kept for it a while even when its lease has run out.
    assert p.expire(700) == [mac(1)]
    assert not p.commit(mac(2), "10.0.0.13", 701, 600)
    assert p.commit(mac(1), "10.0.0.13", 702, 600)


def test_taking_another_address_gives_the_first_back() -> None:
    p = pool(2)
    assert p.commit(mac(1), "10.0.0.10", 0, 600)
    assert p.commit(mac(1), "10.0.0.11", 1, 600)
    assert [(m, lease.address) for m, lease in p.leases()] == [(mac(1), "10.0.0.11")]
    assert p.free() == 1


def test_reservations_win() -> None:
    p = pool()
    assert p.commit(mac(2), "10.0.0.10", 0, 600)
    p.reserve(mac(1), "10.0.0.10")  # held by another: that one loses it
    assert p.offer(mac(1), "10.0.0.12", 1) == "10.0.0.10"
    assert not p.commit(mac(2), "10.0.0.10", 2, 600)
    assert not p.commit(mac(1), "10.0.0.12", 2, 600)
    assert p.commit(mac(1), "10.0.0.10", 2, 600)
    assert p.offer(mac(2), "10.0.0.10", 3) == "10.0.0.11"
    with pytest.raises(LeaseInvalid, match=mac(1)):
        p.reserve(mac(3), "10.0.0.10")
    with pytest.raises(LeaseInvalid, match="does not lie"):
        p.reserve(mac(3), "10.0.1.10")
    p.unreserve(mac(1))
    assert p.commit(mac(1), "10.0.0.10", 4, 600)
    assert p.release(mac(1), "10.0.0.10", 5)
    assert p.offer(mac(1), None, 6) == "10.0.0.10"


def test_a_changed_reservation_moves_the_machine() -> None:
    p = pool()
    p.reserve(mac(1), "10.0.0.50")
    assert p.commit(mac(1), p.offer(mac(1), None, 0) or "", 0, 600)
    p.reserve(mac(1), "10.0.0.60")
    assert not p.commit(mac(1), "10.0.0.50", 1, 600)
    assert p.offer(mac(1), None, 1) == "10.0.0.60"
    p.reserve(mac(2), "10.0.0.50")
    assert p.offer(mac(2), None, 1) == "10.0.0.50"


def test_a_declined_address_is_set_aside_for_ten_minutes() -> None:
    p = pool(2)
    assert p.commit(mac(1), p.offer(mac(1), None, 0) or "", 0, 600)
    assert not p.decline(mac(2), "10.0.0.10", 1)  # not its to decline
    assert p.decline(mac(1), "10.0.0.10", 1)
    assert p.offer(mac(1), "10.0.0.10", 2) == "10.0.0.11"
    assert p.offer(mac(2), None, 2) is None
    assert not p.commit(mac(2), "10.0.0.10", 2, 600)
    assert not p.commit(mac(2), "10.0.0.10", 600, 600)
    assert p.commit(mac(2), "10.0.0.10", 601, 600)


def test_a_reserved_address_in_somebody_elses_hands_is_worked_around() -> None:
    p = pool()
    p.reserve(mac(1), "10.0.0.50")
    assert p.offer(mac(1), None, 0) == "10.0.0.50"
    assert p.decline(mac(1), "10.0.0.50", 1)
    assert p.offer(mac(1), None, 2) == "10.0.0.10"
    assert p.commit(mac(1), "10.0.0.10", 3, 600)
    assert p.offer(mac(1), None, 602) == "10.0.0.50"


def test_leases_come_back_from_the_journal() -> None:
    p = pool()
    p.reserve(mac(1), "10.0.0.50")
    assert p.restore(mac(1), "10.0.0.50", 600)
    assert p.restore(mac(2), "10.0.0.11", 600)
    assert not p.restore(mac(3), "10.0.0.11", 600)  # twice
    assert not p.restore(mac(2), "10.0.0.12", 600)
    assert not p.restore(mac(4), "10.0.0.99", 600)  # the range has changed since
    assert p.offer(mac(2), None, 1) == "10.0.0.11"
    assert p.known(mac(2))
    assert p.address(mac(1)) == "10.0.0.50"
    assert p.expire(600) == [mac(1), mac(2)]


@pytest.mark.parametrize(
    "arguments",
    [
        ("10.0.0.0/24", "10.0.0.20", "10.0.0.10"),
        ("10.0.0.0/24", "10.0.1.20", "10.0.1.30"),
        ("10.0.0.0/24", "x", "10.0.0.10"),
        ("10.0.0.0/33", "10.0.0.1", "10.0.0.10"),
        ("10.0.0.0/8", "10.0.0.1", "10.2.0.0"),
        ("10.0.0.0/24", "10.0.0.1", "10.0.0.1", ["10.0.0.1"]),
        ("10.0.0.0/24", "10.0.0.255", "10.0.0.255"),
    ],
)
def test_ranges_that_make_no_sense(arguments: tuple[str, ...]) -> None:
    with pytest.raises(LeaseInvalid, match="address range"):
        Pool(*arguments)


def test_the_expiry_queue_stays_bounded() -> None:
    p = pool(2)
    for now in range(20_000):
        address = p.offer(mac(now % 2), None, now / 100) or ""
        assert p.commit(mac(now % 2), address, now / 100, 3600)
        assert p.release(mac(now % 2), address, now / 100)
    assert len(p._due) < 2000


def test_fifty_thousand_machines() -> None:
    p = Pool("10.0.0.0/16", "10.0.1.0", "10.0.255.254")
    for n in range(50_000):
        name = f"52:54:00:{n >> 16:02x}:{n >> 8 & 255:02x}:{n & 255:02x}"
        address = p.offer(name, None, n / 1000)
        assert address is not None and p.commit(name, address, n / 1000, 3600)
    assert len({lease.address for _, lease in p.leases()}) == 50_000
    assert len(p.expire(1e6)) == 50_000
    assert p.free() == 65_536 - 256 - 1


class Machines(RuleBasedStateMachine):
    """Whatever clients do in whatever order: nobody shares an address, and none is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = pool(5)
        self.now = 0.0

    names = st.integers(1, 8).map(mac)
    addresses = st.integers(8, 17).map(lambda n: f"10.0.0.{n}")

    @rule(name=names, wish=st.none() | addresses)
    def discover(self, name: str, wish: str | None) -> None:
        self.pool.offer(name, wish, self.now)

    @rule(name=names, address=addresses, seconds=st.sampled_from([1, 30, 600]))
    def request(self, name: str, address: str, seconds: int) -> None:
        self.pool.commit(name, address, self.now, seconds)

    @rule(name=names, address=addresses, act=st.sampled_from(["release", "decline"]))
    def give_back(self, name: str, address: str, act: str) -> None:
        getattr(self.pool, act)(name, address, self.now)

    @rule(name=names, address=addresses)
    def reserve(self, name: str, address: str) -> None:
        with contextlib.suppress(LeaseInvalid):
            self.pool.reserve(name, address)

    @rule(name=names)
    def unreserve(self, name: str) -> None:
        self.pool.unreserve(name)

    @rule(seconds=st.sampled_from([1, 31, 61, 601]))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @invariant()
    def every_address_is_in_one_place(self) -> None:
        p = self.pool
        held = [lease.address for _, lease in p.leases()]
        assert len(held) == len(set(held))
        places = [*held, *p._idle, *p._aside]
        places += [a for a in p._reserved.values() if a not in held and a not in p._aside]
        assert len(places) == len(set(places))
        assert {f"10.0.0.{n}" for n in range(10, 15)} <= set(places)
        assert {a: m for m, a in p._before.items()} == {a: m for a, m in p._idle.items() if m}
        assert {lease.address: m for m, lease in p.leases()} == p._holder
        assert {m for _, m in p._due} >= {m for m, _ in p.leases()}

    @invariant()
    def reservations_are_kept_free_for_their_machine(self) -> None:
        for name, address in self.pool._reserved.items():
            assert self.pool._holder.get(address, name) == name


Machines.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestMachines = Machines.TestCase
