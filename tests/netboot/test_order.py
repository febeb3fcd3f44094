from __future__ import annotations

from netboot.order import LIFETIME, MAX_TRIES, OVERLAP, Order, accepts, close, give, hashed, is_open, repeats, take

NEW = Order(1, 7, "c:1", "d", 0.0, LIFETIME)


def test_a_token_is_never_kept() -> None:
    assert "tok-1" not in repr(take(give(NEW, "tok-1", 1.0), "tok-1", "ses-1", "m", 2.0))


def test_the_last_token_works_and_the_one_before_it_for_a_minute() -> None:
    order = give(give(give(NEW, "one", 0.0), "two", 10.0), "three", 20.0)
    assert accepts(order, "three", 1000.0)
    assert accepts(order, "two", 20.0 + OVERLAP - 1) and not accepts(order, "two", 20.0 + OVERLAP)
    assert not accepts(order, "one", 21.0)
    assert not accepts(order, "", 21.0) and not accepts(NEW, "", 1.0)


def test_a_token_works_once() -> None:
    order = take(give(NEW, "t", 1.0), "t", "s", "m", 2.0)
    assert not accepts(order, "t", 2.0)
    assert repeats(order, "t", "s") and not repeats(order, "t", "other") and not repeats(order, "other", "s")
    assert not repeats(NEW, "", "")


def test_an_interrupted_order_goes_on_for_an_hour_and_three_tries() -> None:
    order, now = NEW, LIFETIME - 1
    for number in range(MAX_TRIES):
        assert is_open(order, now)
        order = take(give(order, f"t{number}", now), f"t{number}", "s", "m", now)
        now += LIFETIME - 1
    assert not is_open(order, now)
    once = take(give(NEW, "t", 1.0), "t", "s", "m", 1.0)
    assert is_open(once, LIFETIME) and not is_open(once, 1.0 + LIFETIME)


def test_an_order_ends_by_time_or_by_word() -> None:
    assert is_open(NEW, LIFETIME - 1) and not is_open(NEW, LIFETIME) and not is_open(None, 0.0)
    closed = close(give(NEW, "t", 1.0), "cancelled", 5.0)
    assert not is_open(closed, 6.0) and not accepts(closed, "t", 6.0)
    assert close(closed, "finished", 9.0) is closed


def test_a_hostile_token_is_just_a_wrong_one() -> None:
    assert not accepts(give(NEW, "t", 1.0), "\ud800\x00", 1.0)
    assert len(hashed("\udfff")) == 64
