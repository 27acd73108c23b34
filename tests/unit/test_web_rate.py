"""How much one caller may ask, by a clock that goes when it is told to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.house import Clock
from tfwatch.web import rate
from tfwatch.web.rate import BURST_SECONDS, Rate, caller


def test_who_was_silent_may_ask_a_few_at_once_and_then_by_the_second() -> None:
    """A burst, then the rate, for ever; what is refused costs nothing."""
    clock = Clock()
    tap = Rate(10, clock)
    burst = int(10 * BURST_SECONDS)
    assert [0] * burst == [tap.take("a") for _ in range(burst)]
    assert [1] * 100 == [tap.take("a") for _ in range(100)]
    for _ in range(50):
        clock.go(0.1)
        assert (0, 1) == (tap.take("a"), tap.take("a"))


def test_a_refusal_says_when_to_come_back() -> None:
    """After so many whole seconds one more is granted, and not a second earlier."""
    clock = Clock()
    tap = Rate(1, clock)
    while not (wait := tap.take("a")):
        pass
    assert 1 == wait
    clock.go(wait)
    assert 0 == tap.take("a")


def test_callers_do_not_pay_for_each_other() -> None:
    """One that floods leaves all others what they had."""
    tap = Rate(1, Clock())
    for _ in range(1000):
        tap.take("flood")
    assert 0 == tap.take("other")


def test_a_flood_of_callers_is_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the last ones are known, and one that goes on asking is among them."""
    monkeypatch.setattr(rate, "_MOST_CALLERS", 100)
    tap = Rate(1, Clock())
    while not tap.take("steady"):
        pass
    for number in range(10_000):
        tap.take(f"caller {number}")
        assert number % 50 or tap.take("steady") > 0
    assert 100 == len(tap._buckets)


@given(st.lists(st.floats(min_value=0, max_value=5), max_size=200), st.floats(min_value=1, max_value=100))
def test_never_more_than_the_burst_and_the_rate(pauses: list[float], per_second: float) -> None:
    """However a caller spaces its requests, it is granted no more than the burst plus the rate times the time."""
    clock = Clock()
    tap = Rate(per_second, clock)
    granted = 0
    for pause in pauses:
        clock.go(pause)
        granted += tap.take("a") == 0
    assert granted <= per_second * (BURST_SECONDS + sum(pauses)) + 1


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("127.0.0.1", "::ffff:127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("nonsense", "", True),
    ],
)
def test_who_is_one_caller(one: str, other: str, same: bool) -> None:
    """An IPv4 address however it is written, and a network of IPv6, since one machine has all of that."""
    assert same == (caller(one) == caller(other))
